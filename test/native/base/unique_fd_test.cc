#include "base/unique_fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <type_traits>
#include <utility>

namespace praas {
namespace {

int OpenNull() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }

bool IsOpen(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

static_assert(!std::is_copy_constructible_v<UniqueFd>);
static_assert(!std::is_copy_assignable_v<UniqueFd>);
static_assert(std::is_nothrow_move_constructible_v<UniqueFd>);
static_assert(std::is_nothrow_move_assignable_v<UniqueFd>);

TEST(UniqueFd, IsEmptyByDefault) {
  UniqueFd fd;
  EXPECT_EQ(fd.get(), -1);
  EXPECT_FALSE(fd);
}

TEST(UniqueFd, ClosesWhenDestroyed) {
  int raw = -1;
  {
    UniqueFd fd(OpenNull());
    raw = fd.get();
    ASSERT_TRUE(fd);
    EXPECT_TRUE(IsOpen(raw));
  }
  EXPECT_FALSE(IsOpen(raw));
}

TEST(UniqueFd, MoveConstructionEmptiesTheSource) {
  UniqueFd source(OpenNull());
  const int raw = source.get();
  UniqueFd target(std::move(source));
  EXPECT_FALSE(source);  // NOLINT(bugprone-use-after-move): the empty state is the contract.
  EXPECT_EQ(target.get(), raw);
  EXPECT_TRUE(IsOpen(raw));
}

TEST(UniqueFd, MoveAssignmentReleasesTheOldTarget) {
  UniqueFd source(OpenNull());
  UniqueFd target(OpenNull());
  const int kept = source.get();
  const int closed = target.get();
  target = std::move(source);
  EXPECT_EQ(target.get(), kept);
  EXPECT_TRUE(IsOpen(kept));
  EXPECT_FALSE(IsOpen(closed));
  EXPECT_FALSE(source);  // NOLINT(bugprone-use-after-move)
}

TEST(UniqueFd, SelfMoveKeepsTheDescriptor) {
  UniqueFd fd(OpenNull());
  const int raw = fd.get();
  UniqueFd& alias = fd;
  fd = std::move(alias);
  EXPECT_EQ(fd.get(), raw);
  EXPECT_TRUE(IsOpen(raw));
}

TEST(UniqueFd, ResetClosesTheOldAndTakesTheNew) {
  UniqueFd fd(OpenNull());
  const int closed = fd.get();
  const int kept = OpenNull();
  fd.Reset(kept);
  EXPECT_FALSE(IsOpen(closed));
  EXPECT_TRUE(IsOpen(kept));
  fd.Reset(kept);
  EXPECT_TRUE(IsOpen(kept));
}

TEST(UniqueFd, ResetPreservesErrno) {
  UniqueFd fd(OpenNull());
  ASSERT_EQ(::close(fd.get()), 0);  // The close in Reset now fails with EBADF.
  errno = ENOSPC;
  fd.Reset();
  EXPECT_EQ(errno, ENOSPC);
}

TEST(UniqueFd, CloseReportsTheErrorAndIsIdempotent) {
  UniqueFd good(OpenNull());
  EXPECT_EQ(good.Close(), 0);
  EXPECT_EQ(good.Close(), 0);

  UniqueFd stale(OpenNull());
  ASSERT_EQ(::close(stale.get()), 0);
  EXPECT_EQ(stale.Close(), EBADF);
  EXPECT_FALSE(stale);
}

TEST(UniqueFd, ReleaseLeavesTheDescriptorOpen) {
  int raw = -1;
  {
    UniqueFd fd(OpenNull());
    raw = fd.Release();
    EXPECT_FALSE(fd);
  }
  EXPECT_TRUE(IsOpen(raw));
  EXPECT_EQ(::close(raw), 0);
}

}  // namespace
}  // namespace praas
