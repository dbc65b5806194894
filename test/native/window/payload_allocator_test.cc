#include "window/payload_allocator.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

namespace praas::window {
namespace {

constexpr uint64_t kBegin = 4096;
constexpr uint64_t kEnd = kBegin + (1u << 20);

uint64_t FreeBytes(const PayloadAllocator& allocator) {
  uint64_t sum = 0;
  allocator.ForEachFree([&](uint64_t, uint64_t bytes) { sum += bytes; });
  return sum;
}

TEST(PayloadAllocator, GivesAlignedBlocksLowestAddressFirst) {
  PayloadAllocator allocator(kBegin, kEnd);
  EXPECT_EQ(allocator.Allocate(1), kBegin);
  EXPECT_EQ(allocator.Allocate(65), kBegin + 64);
  EXPECT_EQ(allocator.Allocate(0), kBegin + 192);
  EXPECT_EQ(allocator.used_bytes(), 256u);
}

TEST(PayloadAllocator, TakesTheSmallestRunThatFits) {
  PayloadAllocator allocator(kBegin, kEnd);
  const auto a = allocator.Allocate(640);
  const auto fence_1 = allocator.Allocate(64);
  const auto b = allocator.Allocate(128);
  const auto fence_2 = allocator.Allocate(64);
  ASSERT_TRUE(a && fence_1 && b && fence_2);
  EXPECT_TRUE(allocator.Release(*a));
  EXPECT_TRUE(allocator.Release(*b));
  EXPECT_EQ(allocator.Allocate(100), *b);
  EXPECT_EQ(allocator.Allocate(100), *a);
}

TEST(PayloadAllocator, BlocksOfAPageAndMoreBeginAtAPage) {
  PayloadAllocator allocator(kBegin, kEnd);
  ASSERT_EQ(allocator.Allocate(64), kBegin);
  EXPECT_EQ(allocator.Allocate(4096), kBegin + 4096);
  EXPECT_EQ(allocator.Allocate(100), kBegin + 64) << "what lies before a page goes on being used";
  EXPECT_EQ(allocator.Allocate(5000), kBegin + 8192);
  // Of 16 KiB that begin within a page, 12 KiB can be used for whole pages.
  PayloadAllocator narrow(kBegin + 64, kBegin + 4 * 4096);
  EXPECT_TRUE(narrow.Fits(3 * 4096));
  EXPECT_FALSE(narrow.Fits(3 * 4096 + 1)) << "Fits says what Allocate would do";
  EXPECT_FALSE(narrow.Allocate(3 * 4096 + 1).has_value());
  EXPECT_EQ(narrow.Allocate(3 * 4096), kBegin + 4096);
}

TEST(PayloadAllocator, TheWholeRangeAndNotAByteMore) {
  PayloadAllocator allocator(kBegin, kEnd);
  EXPECT_FALSE(allocator.Allocate(allocator.capacity() + 1).has_value());
  EXPECT_FALSE(allocator.Allocate(UINT64_MAX).has_value());
  EXPECT_FALSE(allocator.Fits(UINT64_MAX - 62));
  EXPECT_TRUE(allocator.Fits(allocator.capacity()));
  const auto all = allocator.Allocate(allocator.capacity());
  ASSERT_TRUE(all);
  EXPECT_FALSE(allocator.Allocate(1).has_value());
  EXPECT_TRUE(allocator.Release(*all));
  EXPECT_TRUE(allocator.Fits(allocator.capacity()));
}

TEST(PayloadAllocator, ReleasingTwiceOrWhatWasNeverAllocatedIsRefused) {
  PayloadAllocator allocator(kBegin, kEnd);
  const auto a = allocator.Allocate(64);
  EXPECT_FALSE(allocator.Release(*a + 64));
  EXPECT_TRUE(allocator.Release(*a));
  EXPECT_FALSE(allocator.Release(*a));
  EXPECT_FALSE(allocator.Release(0));
}

TEST(PayloadAllocator, PinnedBlocksAreFreedWithTheLastPin) {
  PayloadAllocator allocator(kBegin, kEnd);
  const auto a = allocator.Allocate(64);
  allocator.Pin(*a);
  allocator.Pin(*a);
  EXPECT_TRUE(allocator.Release(*a));
  EXPECT_FALSE(allocator.Release(*a));
  EXPECT_FALSE(allocator.Find(*a, 1).has_value()) << "released: nothing new may use it";
  EXPECT_EQ(allocator.used_bytes(), 64u);
  allocator.Unpin(*a);
  EXPECT_EQ(allocator.used_bytes(), 64u);
  allocator.Unpin(*a);
  EXPECT_EQ(allocator.used_bytes(), 0u);

  const auto b = allocator.Allocate(64);
  allocator.Pin(*b);
  allocator.Unpin(*b);
  EXPECT_TRUE(allocator.Find(*b, 64).has_value()) << "a pin that goes releases nothing";
}

TEST(PayloadAllocator, FindsTheBlockARangeLiesIn) {
  PayloadAllocator allocator(kBegin, kEnd);
  EXPECT_FALSE(allocator.Find(kBegin, 1).has_value());
  const auto a = allocator.Allocate(128);
  const auto b = allocator.Allocate(64);
  EXPECT_EQ(allocator.Find(*a, 128), *a);
  EXPECT_EQ(allocator.Find(*a + 127, 1), *a);
  EXPECT_EQ(allocator.Find(*b, 64), *b);
  EXPECT_FALSE(allocator.Find(*a, 129).has_value()) << "over two blocks";
  EXPECT_FALSE(allocator.Find(*a + 1, UINT64_MAX).has_value());
  EXPECT_FALSE(allocator.Find(*b + 65, 1).has_value());
  EXPECT_FALSE(allocator.Find(kBegin - 1, 1).has_value());
}

TEST(PayloadAllocator, RandomUseNeverOverlapsAndMergesBackIntoOneRun) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  PayloadAllocator allocator(kBegin, kEnd);
  std::map<uint64_t, uint64_t> model;  // offset → bytes
  for (int step = 0; step < 20'000; ++step) {
    if (random() % 2 == 0 || model.empty()) {
      const uint64_t bytes = 1 + random() % (random() % 10 == 0 ? 200'000 : 3000);
      const auto offset = allocator.Allocate(bytes);
      if (!offset) continue;
      EXPECT_EQ(*offset % (bytes >= PayloadAllocator::kPage ? PayloadAllocator::kPage : PayloadAllocator::kGranule),
                0u);
      EXPECT_GE(*offset, kBegin);
      EXPECT_LE(*offset + bytes, kEnd);
      const auto next = model.lower_bound(*offset);
      ASSERT_TRUE(next == model.end() || *offset + bytes <= next->first);
      ASSERT_TRUE(next == model.begin() || std::prev(next)->first + std::prev(next)->second <= *offset);
      model[*offset] = bytes;
    } else {
      auto victim = std::next(model.begin(), random() % model.size());
      ASSERT_TRUE(allocator.Release(victim->first));
      model.erase(victim);
    }
    ASSERT_EQ(allocator.used_bytes() + FreeBytes(allocator), allocator.capacity());
  }
  for (const auto& [offset, bytes] : model) ASSERT_TRUE(allocator.Release(offset));
  EXPECT_TRUE(allocator.Fits(allocator.capacity()));
  EXPECT_EQ(allocator.blocks(), 0u);
}

}  // namespace
}  // namespace praas::window
