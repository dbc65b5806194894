#include "shm/shared_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "shm/mapping.h"
#include "support/child.h"

namespace praas::shm {
namespace {

class SharedMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    name_ = "/praas-test-" + std::to_string(::getpid()) + "-" +
            ::testing::UnitTest::GetInstance()->current_test_info()->name();
  }
  void TearDown() override { EXPECT_TRUE(Unlink(name_).ok()); }

  std::string name_;
};

uint64_t AllocatedBytes(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 ? static_cast<uint64_t>(info.st_blocks) * 512 : 0;
}

TEST_F(SharedMemoryTest, NamesAreChecked) {
  EXPECT_TRUE(IsValidName("/a"));
  EXPECT_TRUE(IsValidName("/" + std::string(254, 'x')));
  EXPECT_FALSE(IsValidName("/" + std::string(255, 'x')));
  for (const char* bad : {"", "/", "a", "/a/b", "/.", "/..", "a/b"}) EXPECT_FALSE(IsValidName(bad)) << bad;
  EXPECT_FALSE(IsValidName(std::string("/a\0b", 4)));
  EXPECT_EQ(Open("/a/b", OpenMode::kCreate).status().code(), Code::kArgumentInvalid);
  EXPECT_EQ(Unlink("a").code(), Code::kArgumentInvalid);
}

TEST_F(SharedMemoryTest, CreatesPrivateObjectsClosedOnExec) {
  auto object = Open(name_, OpenMode::kExclusive);
  ASSERT_TRUE(object.ok()) << object.status().message();
  EXPECT_EQ(object->bytes, 0u);
  EXPECT_EQ(::fcntl(object->fd.get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  struct stat info {};
  ASSERT_EQ(::fstat(object->fd.get(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(SharedMemoryTest, ModesSayWhatMayExist) {
  EXPECT_EQ(Open(name_, OpenMode::kReadWrite).status().sys_errno(), ENOENT);
  EXPECT_EQ(Open(name_, OpenMode::kReadOnly).status().sys_errno(), ENOENT);
  auto first = Open(name_, OpenMode::kCreate);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(Open(name_, OpenMode::kExclusive).status().sys_errno(), EEXIST);
  ASSERT_TRUE(Resize(first->fd.get(), 12345).ok());
  auto again = Open(name_, OpenMode::kCreate);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->bytes, 12345u);
  auto read_only = Open(name_, OpenMode::kReadOnly);
  ASSERT_TRUE(read_only.ok());
  EXPECT_FALSE(Resize(read_only->fd.get(), 1).ok());
}

TEST_F(SharedMemoryTest, ObjectsOpenToOthersAreRefused) {
  auto object = Open(name_, OpenMode::kCreate);
  ASSERT_TRUE(object.ok());
  ASSERT_EQ(::fchmod(object->fd.get(), 0640), 0);
  EXPECT_EQ(Open(name_, OpenMode::kReadWrite).status().code(), Code::kSegmentInvalid);
  ASSERT_EQ(::fchmod(object->fd.get(), 0600), 0);
  if (::geteuid() != 0) {
    printf("not root: the owner check is not exercised\n");
    return;
  }
  ASSERT_EQ(::fchown(object->fd.get(), 65534, 65534), 0);
  EXPECT_EQ(Open(name_, OpenMode::kReadWrite).status().code(), Code::kSegmentInvalid);
}

TEST_F(SharedMemoryTest, SymbolicLinksAreNotFollowed) {
  const std::string link = "/dev/shm" + name_;
  ASSERT_EQ(::symlink("/dev/null", link.c_str()), 0);
  for (const OpenMode mode : {OpenMode::kReadOnly, OpenMode::kReadWrite, OpenMode::kCreate}) {
    const Status refused = Open(name_, mode).status();
    EXPECT_EQ(refused.code(), Code::kSegmentInvalid);
    EXPECT_NE(refused.message().find("is a symbolic link"), std::string::npos) << refused.message();
  }
  EXPECT_EQ(Open(name_, OpenMode::kExclusive).status().sys_errno(), EEXIST);
}

TEST_F(SharedMemoryTest, ANameThatAnotherUserHasTakenIsToldApart) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can be two other users";
  for (const mode_t mode : {0600, 0666}) {
    test::Child squatter = test::Child::Fork([&] {
      if (::setuid(65533) != 0) return 2;
      ::umask(0);
      return ::shm_open(name_.c_str(), O_CREAT | O_EXCL | O_RDWR, mode) >= 0 ? 0 : 3;
    });
    ASSERT_EQ(squatter.Wait(), 0);
    test::Child victim = test::Child::Fork([&] {
      if (::setuid(65534) != 0) return 2;
      const Status refused = Open(name_, OpenMode::kCreate).status();
      if (refused.code() != Code::kSegmentInvalid) return 3;
      return refused.message().find("belongs to user 65533, not to 65534") != std::string::npos ? 0 : 4;
    });
    EXPECT_EQ(victim.Wait(), 0) << "mode " << std::oct << mode;
    ASSERT_TRUE(Unlink(name_).ok());
  }
}

TEST_F(SharedMemoryTest, UnlinkIsIdempotentAndSeen) {
  auto object = Open(name_, OpenMode::kCreate);
  ASSERT_TRUE(object.ok());
  EXPECT_TRUE(IsLinked(name_, object->fd.get()));
  ASSERT_TRUE(Unlink(name_).ok());
  ASSERT_TRUE(Unlink(name_).ok());
  EXPECT_FALSE(IsLinked(name_, object->fd.get()));
  auto successor = Open(name_, OpenMode::kCreate);
  ASSERT_TRUE(successor.ok());
  EXPECT_FALSE(IsLinked(name_, object->fd.get()));
  EXPECT_TRUE(IsLinked(name_, successor->fd.get()));
}

TEST_F(SharedMemoryTest, CommitBacksARangeAndKeepsContents) {
  auto object = Open(name_, OpenMode::kCreate);
  ASSERT_TRUE(object.ok());
  const int fd = object->fd.get();
  ASSERT_TRUE(Resize(fd, 1 << 20).ok());
  EXPECT_EQ(AllocatedBytes(fd), 0u);
  ASSERT_TRUE(Commit(fd, 4096, 8192, "test").ok());
  EXPECT_GE(AllocatedBytes(fd), 8192u);
  auto mapping = Mapping::Map(fd, 0, 1 << 20, Access::kReadWrite);
  ASSERT_TRUE(mapping.ok());
  std::memset(mapping->data() + 4096, 7, 8192);
  ASSERT_TRUE(Commit(fd, 0, 1 << 20, "test").ok());
  EXPECT_EQ(mapping->data()[4096], std::byte{7});
  EXPECT_EQ(mapping->data()[0], std::byte{0});
  ASSERT_TRUE(Decommit(fd, 0, 1 << 20).ok());
  EXPECT_EQ(AllocatedBytes(fd), 0u);
  EXPECT_EQ(mapping->data()[4096], std::byte{0});
}

TEST_F(SharedMemoryTest, AFullFileSystemIsAnErrorThatNamesTheRemedy) {
  test::Child child = test::Child::Fork([&] {
    if (::unshare(CLONE_NEWNS) != 0) return 77;
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 77;
    if (::mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=1m") != 0) return 77;
    auto small = Open("/praas-test-small", OpenMode::kCreate);
    if (!small.ok() || !Resize(small->fd.get(), 64 << 20).ok()) return 1;
    if (!Commit(small->fd.get(), 0, 512 << 10, "state").ok()) return 2;
    const Status full = Commit(small->fd.get(), 512 << 10, 2 << 20, "state");
    if (full.code() != Code::kStateMemory || full.sys_errno() != ENOSPC) return 3;
    if (full.message().find("/dev/shm") == std::string::npos || full.message().find("size=") == std::string::npos)
      return 4;
    if (!Commit(small->fd.get(), 0, 512 << 10, "state").ok()) return 5;
    return 0;
  });
  const int status = child.Wait();
  if (status == 77) GTEST_SKIP() << "needs the right to mount a small tmpfs";
  EXPECT_EQ(status, 0);
}

TEST_F(SharedMemoryTest, TheFileSizeLimitIsAnErrorAndNoSignal) {
  test::Child child = test::Child::Fork([&] {
    auto object = Open(name_, OpenMode::kCreate);
    if (!object.ok()) return 1;
    const rlimit limit{1 << 20, 1 << 20};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    if (!Resize(object->fd.get(), 1 << 20).ok()) return 3;
    if (Resize(object->fd.get(), (1 << 20) + 1).code() != Code::kStateMemory) return 4;
    if (Commit(object->fd.get(), 0, (1 << 20) + 1, "state").code() != Code::kStateMemory) return 5;
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
}

}  // namespace
}  // namespace praas::shm
