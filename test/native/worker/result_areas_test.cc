#include "worker/result_areas.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>

#include "shm/mapping.h"
#include "shm/memfd.h"

namespace praas::worker {
namespace {

constexpr uint64_t kPage = ResultAreas::kPage;

/// Permissions of the mapping that `address` lies in, as /proc says; "" when there is none.
std::string PermissionsOf(const void* address) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    uintptr_t begin = 0;
    uintptr_t end = 0;
    char permissions[8] = {};
    if (std::sscanf(line.c_str(), "%zx-%zx %7s", &begin, &end, permissions) != 3) continue;
    const auto at = reinterpret_cast<uintptr_t>(address);
    if (at >= begin && at < end) return permissions;
  }
  return "";
}

class ResultAreasTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto memfd = shm::CreateMemfd("praas-test-window", 1u << 20, shm::Sealing::kFixed);
    ASSERT_TRUE(memfd.ok());
    memfd_ = std::move(*memfd);
    auto mapping = shm::Mapping::Map(memfd_.get(), 0, 1u << 20, shm::Access::kReadOnly);
    ASSERT_TRUE(mapping.ok());
    window_ = std::move(*mapping);
  }
  std::span<std::byte> Open(uint64_t offset, uint64_t bytes) {
    auto area = areas_.Open(memfd_.get(), this, offset, bytes);
    EXPECT_TRUE(area.ok()) << area.status().message();
    return *area;
  }

  UniqueFd memfd_;
  shm::Mapping window_;
  ResultAreas areas_;
};

TEST_F(ResultAreasTest, AreTheWindowsPagesBetweenInaccessibleSpace) {
  const auto area = Open(3 * kPage, 2 * kPage);
  ASSERT_EQ(area.size(), 2 * kPage);
  std::memset(area.data(), 7, area.size());
  EXPECT_EQ(window_.bytes()[3 * kPage], std::byte{7});
  EXPECT_EQ(window_.bytes()[5 * kPage - 1], std::byte{7});
  EXPECT_EQ(window_.bytes()[3 * kPage - 1], std::byte{0});
  EXPECT_EQ(PermissionsOf(area.data()), "rw-s");
  for (const std::byte* gap : {area.data() - 1, area.data() - ResultAreas::kGap, area.data() + area.size(),
                               area.data() + area.size() + ResultAreas::kGap - 1}) {
    EXPECT_EQ(PermissionsOf(gap), "---p");
    EXPECT_TRUE(areas_.InGap(gap));
  }
  EXPECT_FALSE(areas_.InGap(area.data()));
  EXPECT_FALSE(areas_.InGap(area.data() + area.size() + ResultAreas::kGap));
}

TEST_F(ResultAreasTest, HaveAGapAsLargeAsThemselves) {
  auto memfd = shm::CreateMemfd("praas-test-window", 32u << 20, shm::Sealing::kFixed);
  ASSERT_TRUE(memfd.ok());
  auto area = areas_.Open(memfd->get(), this, 0, 32u << 20);
  ASSERT_TRUE(area.ok());
  EXPECT_EQ(PermissionsOf(area->data() + area->size() + (32u << 20) - 1), "---p");
}

TEST_F(ResultAreasTest, StayMappedWhereTheyAre) {
  const std::byte* const first = Open(0, kPage).data();
  areas_.Close(first);
  EXPECT_EQ(Open(0, kPage).data(), first);
  EXPECT_EQ(areas_.mapped(), 1u);
}

TEST_F(ResultAreasTest, OfEarlierCallsAreClosedBeforeAFunctionRuns) {
  const auto first = Open(0, kPage);
  const auto nested = Open(kPage, kPage);
  EXPECT_EQ(PermissionsOf(first.data()), "rw-s") << "still in use, by the call around the nested one";
  areas_.Close(nested.data() + 10);
  areas_.Close(first.data() + first.size());
  EXPECT_FALSE(areas_.InGap(first.data() - 1)) << "only of what is in use";
  const auto third = Open(2 * kPage, kPage);
  EXPECT_EQ(PermissionsOf(first.data()), "---s");
  EXPECT_EQ(PermissionsOf(nested.data()), "---s");
  areas_.Close(third.data());
  EXPECT_EQ(Open(0, kPage).data(), first.data());
  EXPECT_EQ(PermissionsOf(first.data()), "rw-s");
  EXPECT_EQ(PermissionsOf(third.data()), "---s");
}

TEST_F(ResultAreasTest, AreNotMoreThanABoundAndGoWithTheirWindow) {
  for (int round = 0; round < 3; ++round) {
    for (uint64_t page = 0; page < 200; ++page) areas_.Close(Open(page * kPage, kPage).data());
  }
  EXPECT_LE(areas_.mapped(), 64u);
  const auto other = areas_.Open(ResultAreas::kPrivate, nullptr, 0, kPage);
  ASSERT_TRUE(other.ok());
  areas_.Forget(this);
  EXPECT_EQ(areas_.mapped(), 1u);
  EXPECT_EQ(PermissionsOf(other->data()), "rw-p");
}

TEST_F(ResultAreasTest, AnotherSizeAtTheSamePlaceIsAnotherArea) {
  const auto small = Open(0, kPage);
  areas_.Close(small.data());
  const auto large = Open(0, 4 * kPage);
  EXPECT_EQ(PermissionsOf(large.data() + 4 * kPage - 1), "rw-s");
  EXPECT_EQ(PermissionsOf(small.data()), "---s");
}

}  // namespace
}  // namespace praas::worker
