#include "base/private_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

namespace praas {
namespace {

class PrivateFile : public ::testing::Test {
 protected:
  PrivateFile() {
    EXPECT_NE(::mkdtemp(folder_.data()), nullptr);
    path_ = folder_ + "/file";
    target_ = folder_ + "/target";
  }
  ~PrivateFile() override {
    for (const std::string& path : {path_, target_}) ::unlink(path.c_str());
    EXPECT_EQ(::rmdir(folder_.c_str()), 0);
  }

  static void Write(const std::string& path, mode_t mode) {
    UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    ASSERT_EQ(::write(file.get(), "precious", 8), 8);
    ASSERT_EQ(::fchmod(file.get(), mode), 0);
  }
  static off_t SizeOf(const std::string& path) {
    struct stat found {};
    return ::lstat(path.c_str(), &found) == 0 ? found.st_size : -1;
  }
  void ExpectRefused(const std::string& why) {
    for (const int flags : {O_APPEND, O_TRUNC}) {
      const Result<UniqueFd> file = OpenPrivateFile(path_, flags);
      ASSERT_FALSE(file.ok());
      EXPECT_EQ(file.status().code(), Code::kProcessFailed);
      EXPECT_NE(file.status().message().find(path_ + " " + why), std::string::npos) << file.status().message();
    }
  }

  std::string folder_ = "/tmp/praas-test-private-XXXXXX";
  std::string path_, target_;
};

TEST_F(PrivateFile, IsMadeForItsUserAlone) {
  const mode_t before = ::umask(0);
  const Result<UniqueFd> file = OpenPrivateFile(path_, O_APPEND);
  ::umask(before);
  ASSERT_TRUE(file.ok()) << file.status().message();
  struct stat found {};
  ASSERT_EQ(::fstat(file->get(), &found), 0);
  EXPECT_EQ(found.st_mode & 07777, 0600u);
  EXPECT_NE(::fcntl(file->get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(PrivateFile, ThatIsThereIsUsedAndCutOnlyIfAsked) {
  Write(path_, 0600);
  ASSERT_TRUE(OpenPrivateFile(path_, O_APPEND).ok());
  EXPECT_EQ(SizeOf(path_), 8);
  ASSERT_TRUE(OpenPrivateFile(path_, O_TRUNC).ok());
  EXPECT_EQ(SizeOf(path_), 0);
}

TEST_F(PrivateFile, ALinkIsNotFollowed) {
  Write(target_, 0600);
  ASSERT_EQ(::symlink(target_.c_str(), path_.c_str()), 0);
  ExpectRefused("is a symbolic link");
  EXPECT_EQ(SizeOf(target_), 8);
  ASSERT_EQ(::unlink(target_.c_str()), 0);
  ExpectRefused("is a symbolic link");  // and nothing is made where it leads to
  EXPECT_EQ(SizeOf(target_), -1);
}

TEST_F(PrivateFile, OpenToOthersIsRefusedAndLeftAlone) {
  for (const mode_t mode : {0640, 0606, 0602, 0610}) {
    Write(path_, mode);
    ExpectRefused("is open to others");
    EXPECT_EQ(SizeOf(path_), 8);
    ::unlink(path_.c_str());
  }
}

TEST_F(PrivateFile, OfAnotherUserIsRefusedAndLeftAlone) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can make a file of another user";
  Write(path_, 0600);
  ASSERT_EQ(::chown(path_.c_str(), 12345, 12345), 0);
  ExpectRefused("belongs to user 12345");
  EXPECT_EQ(SizeOf(path_), 8);
}

TEST_F(PrivateFile, AnythingElseIsRefusedWithoutWaiting) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  ExpectRefused("is not a regular file");
}

}  // namespace
}  // namespace praas
