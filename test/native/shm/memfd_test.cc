#include "shm/memfd.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <utility>

#include "shm/mapping.h"

namespace praas::shm {
namespace {

TEST(Memfd, CannotBeShrunkAndFixedOnesCannotGrow) {
  auto fixed = CreateMemfd("praas-test", 8192, Sealing::kFixed);
  ASSERT_TRUE(fixed.ok()) << fixed.status().message();
  EXPECT_EQ(::ftruncate(fixed->get(), 4096), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(::ftruncate(fixed->get(), 16384), -1);
  EXPECT_EQ(::fcntl(fixed->get(), F_ADD_SEALS, F_SEAL_WRITE), -1);
  EXPECT_EQ(::fcntl(fixed->get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);

  auto growable = CreateMemfd("praas-test", 8192, Sealing::kGrowable);
  ASSERT_TRUE(growable.ok());
  EXPECT_EQ(::ftruncate(growable->get(), 4096), -1);
  EXPECT_EQ(::ftruncate(growable->get(), 16384), 0);
}

TEST(Memfd, CheckGivesTheSizeOfASealedOne) {
  auto fd = CreateMemfd("praas-test", 12345, Sealing::kFixed);
  ASSERT_TRUE(fd.ok());
  auto bytes = CheckMemfd(fd->get());
  ASSERT_TRUE(bytes.ok());
  EXPECT_EQ(bytes.value(), 12345u);
}

TEST(Memfd, CheckRefusesWhatCouldBeTruncated) {
  UniqueFd unsealed(::memfd_create("praas-test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_TRUE(unsealed);
  EXPECT_EQ(CheckMemfd(unsealed.get()).status().code(), Code::kSegmentInvalid);
  ASSERT_EQ(::fcntl(unsealed.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
  EXPECT_EQ(CheckMemfd(unsealed.get()).status().code(), Code::kSegmentInvalid);
  UniqueFd file(::open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_EQ(CheckMemfd(file.get()).status().code(), Code::kSegmentInvalid);
  EXPECT_EQ(CheckMemfd(-1).status().code(), Code::kSegmentInvalid);
}

TEST(Memfd, ReadingBeyondTheEndMeansThatTheNumberIsAnothers) {
  auto fd = CreateMemfd("praas-test", 4096, Sealing::kFixed);
  ASSERT_TRUE(fd.ok());
  std::byte byte{};
  EXPECT_TRUE(ReadAll(fd->get(), 4095, {&byte, 1}));
  errno = 0;
  EXPECT_FALSE(ReadAll(fd->get(), 4096, {&byte, 1}));
  EXPECT_TRUE(IsNoMemfd(errno)) << errno;
}

TEST(Mapping, IsSharedAndOutlivesTheDescriptor) {
  auto fd = CreateMemfd("praas-test", 8192, Sealing::kFixed);
  ASSERT_TRUE(fd.ok());
  auto a = Mapping::Map(fd->get(), 0, 8192, Access::kReadWrite);
  auto b = Mapping::Map(fd->get(), 4096, 4096, Access::kReadOnly);
  ASSERT_TRUE(a.ok() && b.ok());
  fd->Reset();
  a->data()[4097] = std::byte{42};
  EXPECT_EQ(b->data()[1], std::byte{42});
  EXPECT_EQ(b->size(), 4096u);
}

TEST(Mapping, MovesEmptyTheSourceAndReleaseTheTarget) {
  auto fd = CreateMemfd("praas-test", 4096, Sealing::kFixed);
  ASSERT_TRUE(fd.ok());
  auto a = Mapping::Map(fd->get(), 0, 4096, Access::kReadWrite);
  auto b = Mapping::Map(fd->get(), 0, 4096, Access::kReadWrite);
  ASSERT_TRUE(a.ok() && b.ok());
  Mapping first = std::move(a).value();
  const std::byte* const kept = first.data();
  Mapping second = std::move(b).value();
  second = std::move(first);
  EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): the empty state is the contract.
  EXPECT_EQ(second.data(), kept);
  Mapping& alias = second;
  second = std::move(alias);
  EXPECT_EQ(second.data(), kept);
}

TEST(Mapping, RefusesWhatCannotBeMapped) {
  auto fd = CreateMemfd("praas-test", 4096, Sealing::kFixed);
  ASSERT_TRUE(fd.ok());
  EXPECT_EQ(Mapping::Map(fd->get(), 0, 0, Access::kReadOnly).status().code(), Code::kArgumentInvalid);
  EXPECT_EQ(Mapping::Map(fd->get(), 1, 4096, Access::kReadOnly).status().sys_errno(), EINVAL);
  EXPECT_EQ(Mapping::Map(-1, 0, 4096, Access::kReadOnly).status().sys_errno(), EBADF);
}

}  // namespace
}  // namespace praas::shm
