#include "publication/area.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace praas::publication {
namespace {

uint64_t MemoryOf(int fd) {
  struct stat info {};
  EXPECT_EQ(::fstat(fd, &info), 0);
  return static_cast<uint64_t>(info.st_blocks) * 512;
}

UniqueFd Duplicate(int fd) { return UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 3)); }

TEST(Area, HasBounds) {
  EXPECT_EQ(Area::Create(kMinAreaBytes - kPageBytes).status().code(), Code::kArgumentInvalid);
  EXPECT_EQ(Area::Create(kMinAreaBytes + 1).status().code(), Code::kArgumentInvalid);
  EXPECT_EQ(Area::Create(kMaxAreaBytes + kPageBytes).status().code(), Code::kArgumentInvalid);
  EXPECT_TRUE(Area::Create(kMinAreaBytes).ok());
}

TEST(Area, TakesMemoryWhenItIsCommitted) {
  const Area area = Area::Create(1u << 20).value();
  EXPECT_EQ(area.bytes(), 1u << 20);
  EXPECT_EQ(MemoryOf(area.fd()), 0u);
  ASSERT_TRUE(area.Commit(3 * kPageBytes).ok());
  ASSERT_TRUE(area.Commit(2 * kPageBytes).ok());
  EXPECT_EQ(MemoryOf(area.fd()), 3 * kPageBytes);
}

TEST(Area, CannotShrinkUnderItsReaders) {
  const Area area = Area::Create(kMinAreaBytes).value();
  EXPECT_EQ(::ftruncate(area.fd(), 0), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(Area::Map(UniqueFd(::memfd_create("unsealed", MFD_CLOEXEC))).status().code(), Code::kSegmentInvalid);
  EXPECT_EQ(Area::MapReadOnly(UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC))).status().code(),
            Code::kSegmentInvalid);
}

TEST(Area, IsSeenByWhoeverMapsIt) {
  const Area host = Area::Create(kMinAreaBytes).value();
  ASSERT_TRUE(host.Commit(kPageBytes).ok());
  const Area worker = Area::Map(Duplicate(host.fd())).value();
  worker.memory()[100] = std::byte{42};
  const Area client = Area::MapReadOnly(host.ReadOnlyFd().value()).value();
  EXPECT_EQ(client.memory()[100], std::byte{42});
  EXPECT_EQ(client.bytes(), host.bytes());
}

TEST(Area, ClientsCannotWriteToIt) {
  const Area host = Area::Create(kMinAreaBytes).value();
  const UniqueFd fd = host.ReadOnlyFd().value();
  const Area client = Area::MapReadOnly(Duplicate(fd.get())).value();
  EXPECT_EQ(client.fd(), -1);
  EXPECT_EQ(::mprotect(client.memory().data(), client.bytes(), PROT_READ | PROT_WRITE), -1);
  EXPECT_EQ(errno, EACCES);
  EXPECT_EQ(::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0), MAP_FAILED);
  EXPECT_EQ(::pwrite(fd.get(), "x", 1, 0), -1);
}

TEST(Layout, BlocksAreWholePages) {
  EXPECT_EQ(PagesFor(0), 1u);
  EXPECT_EQ(PagesFor(4032), 1u);
  EXPECT_EQ(PagesFor(4033), 2u);
  EXPECT_EQ(PagesFor(8192 - 64), 2u);
  EXPECT_EQ(PagesFor(8192), 3u);
  EXPECT_EQ(CapacityOf(1), 4032u);
  EXPECT_EQ(PagesFor(CapacityOf(77)), 77u);
}

TEST(Layout, LocationsAreChecked) {
  const uint64_t area = 16 * kPageBytes;
  EXPECT_TRUE(InArea({.id = 1, .offset = 0, .capacity = CapacityOf(16)}, area));
  EXPECT_TRUE(InArea({.id = 1, .offset = 15 * kPageBytes, .capacity = CapacityOf(1)}, area));
  EXPECT_FALSE(InArea({.id = 0, .offset = 0, .capacity = CapacityOf(1)}, area));
  EXPECT_FALSE(InArea({.id = 1, .offset = 8, .capacity = CapacityOf(1)}, area));
  EXPECT_FALSE(InArea({.id = 1, .offset = 15 * kPageBytes, .capacity = CapacityOf(2)}, area));
  EXPECT_FALSE(InArea({.id = 1, .offset = 16 * kPageBytes, .capacity = 0}, area));
  EXPECT_FALSE(InArea({.id = 1, .offset = UINT64_MAX - kPageBytes + 1, .capacity = 0}, area));
  EXPECT_FALSE(InArea({.id = 1, .offset = 0, .capacity = UINT64_MAX - 7}, area));
}

}  // namespace
}  // namespace praas::publication
