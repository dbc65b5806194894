#include "segment/arena.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "segment/arena_head.h"
#include "segment/test_segment.h"
#include "shm/memfd.h"

namespace praas::segment {
namespace {

using test::TestSegment;

constexpr uint64_t kMiB = 1u << 20;

BlockOwner OwnedBy(uint16_t participant, uint32_t id = 0) { return {BlockOwner::Kind::kParticipant, participant, id}; }
uint64_t Soon() { return DeadlineIn(30'000'000'000); }

std::string Joined(const std::vector<std::string>& lines) {
  std::string all;
  for (const std::string& line : lines) all += line + '\n';
  return all;
}

/// Arena 0 of a fresh segment.
class ArenaTest : public ::testing::Test {
 protected:
  explicit ArenaTest(uint64_t memory_bytes = 8 * kMiB)
      : segment_(memory_bytes), arena_(Arena::Data(segment_.get(), 0)) {}
  void TearDown() override { EXPECT_EQ(Joined(arena_.Check()), ""); }

  Arena::Allocation Take(uint64_t bytes, BlockOwner owner = OwnedBy(1)) {
    auto allocation = arena_.Allocate(bytes, owner, Soon());
    EXPECT_TRUE(allocation.ok()) << allocation.status().message();
    return allocation.ok() ? allocation.value() : Arena::Allocation{};
  }

  TestSegment segment_;
  Arena arena_;
};

TEST_F(ArenaTest, GivesAlignedBlocksInsideTheDataPart) {
  const Header& header = segment_.get().header();
  for (uint64_t bytes : {uint64_t{1}, uint64_t{63}, uint64_t{64}, uint64_t{65}, uint64_t{4095}, uint64_t{1} << 20}) {
    const Arena::Allocation got = Take(bytes);
    EXPECT_GE(got.bytes, bytes);
    EXPECT_LT(got.bytes, bytes + Arena::kGranule);
    EXPECT_EQ(got.offset % Arena::kGranule, 0u);
    EXPECT_GE(got.offset, header.meta_bytes);
    EXPECT_LE(got.offset + got.bytes, header.segment_bytes);
    std::memset(segment_.get().base() + got.offset, 0xee, got.bytes);
    EXPECT_EQ(arena_.block(got.block).offset, got.offset);
    EXPECT_EQ(arena_.owner(got.block), OwnedBy(1));
  }
}

TEST_F(ArenaTest, RefusesNonsense) {
  EXPECT_EQ(arena_.Allocate(0, OwnedBy(1), Soon()).status().code(), Code::kArgumentInvalid);
  EXPECT_EQ(arena_.Allocate(1, BlockOwner{}, Soon()).status().code(), Code::kArgumentInvalid);
  EXPECT_EQ(arena_.Free(0, Soon()).code(), Code::kArgumentInvalid);
  EXPECT_EQ(arena_.Free(UINT32_MAX, Soon()).code(), Code::kArgumentInvalid);
  const Arena::Allocation got = Take(100);
  EXPECT_EQ(arena_.SetOwner(got.block, BlockOwner{}, Soon()).code(), Code::kArgumentInvalid);
  ASSERT_TRUE(arena_.Free(got.block, Soon()).ok());
  EXPECT_EQ(arena_.Free(got.block, Soon()).code(), Code::kArgumentInvalid) << "freed twice";
  EXPECT_EQ(arena_.SetOwner(got.block, OwnedBy(2), Soon()).code(), Code::kArgumentInvalid);
}

TEST_F(ArenaTest, GivesTheWholeLimitAndNoByteMore) {
  for (int round = 0; round < 3; ++round) {
    const Arena::Allocation all = Take(8 * kMiB);
    EXPECT_EQ(arena_.Allocate(1, OwnedBy(1), Soon()).status().code(), Code::kStateMemory);
    EXPECT_EQ(arena_.usage().used_bytes, 8 * kMiB);
    ASSERT_TRUE(arena_.Free(all.block, Soon()).ok());
    EXPECT_EQ(arena_.Allocate(8 * kMiB + 1, OwnedBy(1), Soon()).status().code(), Code::kStateMemory);
    EXPECT_EQ(arena_.Allocate(UINT64_MAX, OwnedBy(1), Soon()).status().code(), Code::kStateMemory);
  }
  const Arena::Allocation most = Take(8 * kMiB - 64);
  Take(64);
  EXPECT_EQ(arena_.Allocate(1, OwnedBy(1), Soon()).status().code(), Code::kStateMemory);
  ASSERT_TRUE(arena_.Free(most.block, Soon()).ok());
  Take(8 * kMiB - 64);
}

TEST_F(ArenaTest, ManySmallestBlocksUseTheWholeLimit) {
  std::vector<uint32_t> blocks;
  for (;;) {
    auto got = arena_.Allocate(1, OwnedBy(1), Soon());
    if (!got.ok()) {
      EXPECT_EQ(got.status().code(), Code::kStateMemory);
      break;
    }
    blocks.push_back(got->block);
  }
  EXPECT_EQ(blocks.size(), 8 * kMiB / 64) << "bytes run out before descriptors do";
  for (size_t i = 0; i < blocks.size(); i += 2) ASSERT_TRUE(arena_.Free(blocks[i], Soon()).ok());
  EXPECT_EQ(Joined(arena_.Check()), "");
  for (size_t i = 1; i < blocks.size(); i += 2) ASSERT_TRUE(arena_.Free(blocks[i], Soon()).ok());
  EXPECT_EQ(arena_.usage().free_blocks, 1u);
  Take(8 * kMiB);
}

TEST_F(ArenaTest, GrowsAsNeededAndReusesWhatIsFreed) {
  EXPECT_EQ(arena_.usage().committed_bytes, 0u);
  const Arena::Allocation first = Take(100);
  EXPECT_EQ(arena_.usage().committed_bytes, kMiB);
  const Arena::Allocation large = Take(3 * kMiB);
  EXPECT_EQ(arena_.usage().committed_bytes, 4 * kMiB);
  ASSERT_TRUE(arena_.Free(large.block, Soon()).ok());
  EXPECT_EQ(Take(3 * kMiB).offset, large.offset);
  EXPECT_EQ(arena_.usage().committed_bytes, 4 * kMiB);
  EXPECT_NE(first.offset, large.offset);
}

TEST_F(ArenaTest, JoinsNeighboursInEveryOrder) {
  std::vector<int> order{0, 1, 2, 3};
  do {
    std::vector<uint32_t> blocks;
    for (int i = 0; i < 4; ++i) blocks.push_back(Take(1000).block);
    for (int i : order) {
      ASSERT_TRUE(arena_.Free(blocks[static_cast<size_t>(i)], Soon()).ok());
      ASSERT_EQ(Joined(arena_.Check()), "");
    }
    EXPECT_EQ(arena_.usage().free_blocks, 1u);
    EXPECT_EQ(arena_.usage().used_bytes, 0u);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_F(ArenaTest, OwnersChangeAndTheirBlocksAreReclaimed) {
  std::vector<uint32_t> mine;
  for (uint16_t i = 0; i < 5000; ++i) {
    const uint32_t block = Take(64, OwnedBy(i % 5)).block;
    if (i % 5 == 3) mine.push_back(block);
  }
  ASSERT_TRUE(arena_.SetOwner(mine[0], {BlockOwner::Kind::kState, 0, 77}, Soon()).ok());
  uint32_t asked = 0;
  auto reclaimed = arena_.ReclaimIf(
      [&](uint32_t index, const Block& block) {
        ++asked;
        EXPECT_EQ(block.offset, arena_.block(index).offset);
        return block.owner.kind == BlockOwner::Kind::kParticipant && block.owner.participant == 3;
      },
      Soon());
  ASSERT_TRUE(reclaimed.ok());
  EXPECT_EQ(asked, 5000u);
  EXPECT_EQ(reclaimed.value(), 999u);
  EXPECT_EQ(arena_.owner(mine[0]), (BlockOwner{BlockOwner::Kind::kState, 0, 77}));
  EXPECT_EQ(arena_.owner(mine[1]), BlockOwner{});
  EXPECT_EQ(arena_.usage().used_blocks, 4001u);
}

TEST_F(ArenaTest, TryFormsDoNotWait) {
  auto got = arena_.TryAllocate(100, OwnedBy(1));
  ASSERT_TRUE(got.has_value() && got->ok());
  EXPECT_EQ(arena_.TryAllocate(0, OwnedBy(1))->status().code(), Code::kArgumentInvalid);
  EXPECT_EQ(arena_.TryAllocate(9 * kMiB, OwnedBy(1))->status().code(), Code::kStateMemory);

  auto& mutex = const_cast<RobustMutex&>(arena_.mutex());
  ASSERT_EQ(mutex.TryLock(5), LockOutcome::kAcquired);
  std::thread([&] {
    EXPECT_FALSE(arena_.TryAllocate(100, OwnedBy(1)).has_value());
    EXPECT_FALSE(arena_.TryFree((*got)->block));
    EXPECT_EQ(arena_.Allocate(100, OwnedBy(1), NowNs()).status().code(), Code::kSegmentStuck);
    EXPECT_EQ(arena_.Free((*got)->block, NowNs()).code(), Code::kSegmentStuck);
  }).join();
  mutex.Unlock();
  EXPECT_TRUE(arena_.TryFree((*got)->block));
  EXPECT_EQ(arena_.usage().used_blocks, 0u);
}

TEST_F(ArenaTest, TrimGivesTheEndBackAndKeepsBlocks) {
  const Arena::Allocation low = Take(100);
  const Arena::Allocation high = Take(6 * kMiB);
  std::memset(segment_.get().base() + low.offset, 0x5a, 100);
  const uint64_t before = segment_.BackedBytes();
  ASSERT_TRUE(arena_.Trim(0).ok());
  EXPECT_EQ(arena_.usage().committed_bytes, 6 * kMiB + 64 * 1024) << "the last block is used";
  ASSERT_TRUE(arena_.Free(high.block, Soon()).ok());
  ASSERT_TRUE(arena_.Trim(2 * kMiB).ok());
  EXPECT_EQ(arena_.usage().committed_bytes, 2 * kMiB);
  ASSERT_TRUE(arena_.Trim(0).ok());
  EXPECT_EQ(arena_.usage().committed_bytes, 64 * 1024u);
  EXPECT_LE(segment_.BackedBytes() + 6 * kMiB, before);
  EXPECT_EQ(Joined(arena_.Check()), "");
  EXPECT_EQ(segment_.get().base()[low.offset + 99], std::byte{0x5a});
  Take(7 * kMiB);
  ASSERT_TRUE(arena_.Free(low.block, Soon()).ok());
}

TEST_F(ArenaTest, TrimOfAnEmptyArenaLeavesNothing) {
  ASSERT_TRUE(arena_.Free(Take(5 * kMiB).block, Soon()).ok());
  ASSERT_TRUE(arena_.Trim(0).ok());
  EXPECT_EQ(arena_.usage().committed_bytes, 0u);
  EXPECT_EQ(arena_.usage().free_blocks, 0u);
  Take(8 * kMiB);
}

TEST_F(ArenaTest, RecoverRebuildsFromOwnedDescriptorsAlone) {
  std::map<uint32_t, Arena::Allocation> kept;
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    const Arena::Allocation got = Take(1 + random() % 3000);
    if (random() % 2 == 0) {
      ASSERT_TRUE(arena_.Free(got.block, Soon()).ok());
    } else {
      kept[got.block] = got;
    }
  }
  const Arena::Usage before = arena_.usage();
  // All that is derived becomes nonsense.
  auto* head = segment_.get().base() + segment_.get().header().arena_heads[0];
  std::memset(head + offsetof(ArenaHead, managed), 0xa5, sizeof(ArenaHead) - offsetof(ArenaHead, managed));
  for (uint32_t index = 1; arena_.IsBlock(index); ++index) {
    Block& block = arena_.mutable_block(index);
    block.previous = block.next = block.free_previous = block.free_next = 0x7777;
    if (block.owner == BlockOwner{}) block.offset = block.bytes = 0x123456789;
  }
  ASSERT_TRUE(arena_.Recover().ok());
  EXPECT_EQ(Joined(arena_.Check()), "");
  EXPECT_EQ(arena_.usage().used_bytes, before.used_bytes);
  EXPECT_EQ(arena_.usage().used_blocks, before.used_blocks);
  for (const auto& [index, allocation] : kept) {
    EXPECT_EQ(arena_.block(index).offset, allocation.offset);
    EXPECT_EQ(arena_.block(index).bytes, allocation.bytes);
  }
}

TEST_F(ArenaTest, RecoverRefusesDescriptorsThatContradictEachOther) {
  const Arena::Allocation a = Take(1000);
  const Arena::Allocation b = Take(1000);
  const Block good = arena_.block(b.block);
  const auto refused = [&](auto damage) {
    damage(arena_.mutable_block(b.block));
    const Code recovered = arena_.Recover().code();
    const Code allocated = arena_.Allocate(1, OwnedBy(1), Soon()).status().code();
    const bool noticed = !arena_.Check().empty();
    arena_.mutable_block(b.block) = good;
    EXPECT_TRUE(arena_.Recover().ok());
    return recovered == Code::kSegmentInvalid && allocated == Code::kSegmentInvalid && noticed;
  };
  EXPECT_TRUE(refused([&](Block& block) { block.offset = a.offset; }));
  EXPECT_TRUE(refused([](Block& block) { block.offset += 1; }));
  EXPECT_TRUE(refused([](Block& block) { block.offset = 0; }));
  EXPECT_TRUE(refused([](Block& block) { block.offset = UINT64_MAX - 63; }));
  EXPECT_TRUE(refused([](Block& block) { block.bytes = 0; }));
  EXPECT_TRUE(refused([](Block& block) { block.bytes += 1; }));
  EXPECT_TRUE(refused([](Block& block) { block.bytes = UINT64_MAX - 63; }));
  EXPECT_TRUE(refused([](Block& block) { block.bytes = 2 * kMiB; }));
  EXPECT_TRUE(refused([](Block& block) { block.owner.kind = static_cast<BlockOwner::Kind>(4); }));
}

TEST_F(ArenaTest, CheckNoticesDamageWithoutCrashing) {
  for (int i = 0; i < 50; ++i) {
    const uint32_t block = Take(100 + static_cast<uint64_t>(i) * 64).block;
    if (i % 3 != 0) continue;
    ASSERT_TRUE(arena_.Free(block, Soon()).ok());
  }
  std::mt19937 random(7);
  for (int i = 0; i < 500; ++i) {
    Block& block = arena_.mutable_block(1 + random() % 60);
    const Block good = block;
    uint32_t* const fields[] = {&block.previous, &block.next, &block.free_previous, &block.free_next};
    *fields[random() % 4] = static_cast<uint32_t>(random());
    (void)arena_.Check();
    block = good;
  }
  const uint32_t last = Take(100).block;
  const Block good = arena_.block(last);
  arena_.mutable_block(last).bytes += 64;
  EXPECT_NE(Joined(arena_.Check()), "");
  arena_.mutable_block(last) = good;
}

TEST_F(ArenaTest, ThreadsShareAnArena) {
  std::vector<std::thread> threads;
  for (uint16_t self = 1; self <= 4; ++self) {
    threads.emplace_back([this, self] {
      Arena arena = Arena::Data(segment_.get(), self);
      std::mt19937 random(self);
      std::vector<Arena::Allocation> mine;
      for (int i = 0; i < 3000; ++i) {
        if (mine.size() < 20 && random() % 2 == 0) {
          auto got = arena.Allocate(1 + random() % 20000, OwnedBy(self), Soon());
          ASSERT_TRUE(got.ok()) << got.status().message();
          std::memset(segment_.get().base() + got->offset, self, 64);
          mine.push_back(got.value());
        } else if (!mine.empty()) {
          std::swap(mine[random() % mine.size()], mine.back());
          for (int at = 0; at < 64; ++at) {
            ASSERT_EQ(segment_.get().base()[mine.back().offset + static_cast<uint64_t>(at)], std::byte(self));
          }
          ASSERT_TRUE(arena.Free(mine.back().block, Soon()).ok());
          mine.pop_back();
        }
      }
    });
  }
  std::thread trimmer([this] {
    Arena arena = Arena::Data(segment_.get(), 0);
    for (int i = 0; i < 300; ++i) {
      ASSERT_TRUE(arena.Trim(0).ok());
      std::this_thread::yield();
    }
  });
  for (std::thread& thread : threads) thread.join();
  trimmer.join();
}

TEST(PoolArena, LivesInItsOwnMemfdAndIsFormattedAnew) {
  TestSegment segment(kMiB, 16 * kMiB);
  for (int life = 0; life < 2; ++life) {
    auto fd = shm::CreateMemfd("praas-test-pool", 16 * kMiB, shm::Sealing::kFixed);
    ASSERT_TRUE(fd.ok());
    Arena arena(segment.get(), 1, fd->get(), 8 * kMiB, 8 * kMiB, 0);
    ASSERT_TRUE(arena.Format().ok());
    EXPECT_EQ(arena.usage().used_blocks, 0u);
    EXPECT_EQ(Joined(arena.Check()), "");
    for (int i = 0; i < 2000; ++i) {
      auto got = arena.Allocate(1000, {BlockOwner::Kind::kCall, 0, 1}, Soon());
      ASSERT_TRUE(got.ok());
      EXPECT_GE(got->offset, 8 * kMiB);
    }
    EXPECT_EQ(Joined(arena.Check()), "");
    Arena too_large(segment.get(), 2, fd->get(), 0, 16 * kMiB, 0);
    EXPECT_EQ(too_large.Format().code(), Code::kArgumentInvalid);
  }
}

/// Random traffic, replayed exactly from its seed.
TEST(ArenaTraffic, AMillionOperationsStaySoundAndCheap) {
  constexpr uint64_t kLimit = 64 * kMiB;
  constexpr uint32_t kSeed = 20240611;
  printf("seed %u\n", kSeed);
  TestSegment segment(kLimit);
  Arena arena = Arena::Data(segment.get(), 0);
  std::mt19937 random(kSeed);
  std::vector<Arena::Allocation> live;
  uint64_t live_bytes = 0;
  uint64_t first_steps = 0;
  uint64_t last_steps = 0;
  constexpr int kOperations = 1'000'000;
  for (int i = 0; i < kOperations; ++i) {
    const uint64_t steps = arena.usage().list_steps;
    // About half full in the long run, sizes over five orders of magnitude.
    if (live.empty() || (live_bytes < kLimit / 2 && random() % 100 < 55)) {
      const uint64_t bytes = 1 + (random() >> (random() % 20 + 12));
      auto got = arena.Allocate(bytes, OwnedBy(1), Soon());
      // Half of the memory is free, so a request that does not fit would be fragmentation of more than that.
      ASSERT_TRUE(got.ok()) << got.status().message() << " after " << i << " operations, " << live_bytes
                            << " bytes live";
      live.push_back(got.value());
      live_bytes += got->bytes;
    } else {
      std::swap(live[random() % live.size()], live.back());
      live_bytes -= live.back().bytes;
      ASSERT_TRUE(arena.Free(live.back().block, Soon()).ok());
      live.pop_back();
    }
    const uint64_t cost = arena.usage().list_steps - steps;
    ASSERT_LE(cost, 64u) << "an operation followed more links than a constant";
    if (i < kOperations / 10) first_steps += cost;
    if (i >= kOperations - kOperations / 10) last_steps += cost;
    if (i % 100'000 == 0) {
      ASSERT_EQ(Joined(arena.Check()), "");
    }
  }
  EXPECT_LE(last_steps, first_steps * 3 / 2) << "cost grows with age";
  EXPECT_EQ(arena.usage().used_bytes, live_bytes);
  ASSERT_EQ(Joined(arena.Check()), "");

  std::sort(live.begin(), live.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
  for (size_t i = 1; i < live.size(); ++i) ASSERT_LE(live[i - 1].offset + live[i - 1].bytes, live[i].offset);
  for (const Arena::Allocation& allocation : live) ASSERT_TRUE(arena.Free(allocation.block, Soon()).ok());
  EXPECT_EQ(arena.usage().free_blocks, 1u);
  EXPECT_EQ(Joined(arena.Check()), "");
}

}  // namespace
}  // namespace praas::segment
