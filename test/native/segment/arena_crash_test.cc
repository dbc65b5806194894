#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/spin.h"
#include "segment/arena.h"
#include "segment/arena_head.h"
#include "segment/test_segment.h"
#include "support/child.h"
#include "support/stepped.h"

/// Participants killed at any instruction, inside the arena and inside its repair.
namespace praas::segment {
namespace {

using praas::test::Child;
using praas::test::Stepped;
using praas::test::TestSegment;

constexpr uint64_t kMiB = 1u << 20;
constexpr uint16_t kVictim = 9;

uint64_t Soon() { return DeadlineIn(60'000'000'000); }

BlockOwner OwnedBy(uint16_t participant, uint32_t id = 0) { return {BlockOwner::Kind::kParticipant, participant, id}; }

std::string Joined(const std::vector<std::string>& lines) {
  std::string all;
  for (const std::string& line : lines) all += line + '\n';
  return all;
}

#if defined(__SANITIZE_THREAD__)
constexpr bool kStepping = false;  // ten times the instructions, and nothing here has threads
#else
constexpr bool kStepping = true;
#endif

/// An arena with a twin into which its state is copied after each instruction of a victim: what a repair makes of the
/// copy is what it would have made of the arena, had the victim been killed there.
class ArenaCrashTest : public ::testing::Test {
 protected:
  ArenaCrashTest()
      : segment_(4 * kMiB),
        twin_segment_(4 * kMiB),
        arena_(Arena::Data(segment_.get(), 0)),
        twin_(Arena::Data(twin_segment_.get(), 0)) {}

  uint32_t Take(uint64_t bytes, BlockOwner owner) {
    auto got = arena_.Allocate(bytes, owner, Soon());
    EXPECT_TRUE(got.ok()) << got.status().message();
    return got.ok() ? got->block : 0;
  }

  void CopyToTwin() {
    const Header& header = segment_.get().header();
    const uint64_t head = header.arena_heads[0];
    std::memcpy(twin_segment_.get().base() + head, segment_.get().base() + head, sizeof(ArenaHead));
    const Region& blocks = header.arena_blocks[0];
    std::memcpy(twin_segment_.get().base() + blocks.offset, segment_.get().base() + blocks.offset,
                uint64_t{blocks.committed.load()} * blocks.stride);
    ASSERT_EQ(twin_segment_.get().header().arena_blocks[0].committed.load(), blocks.committed.load());
    ASSERT_TRUE(twin_.Recover().ok());
    ASSERT_EQ(Joined(twin_.Check()), "");
  }

  /// `verify` is given the repaired arena: the twin after every `stride`-th instruction of `body`, then, for a few
  /// instructions only because it takes long, the arena itself after the victim was really killed there.
  void KillEverywhere(uint64_t stride, const std::function<void()>& prepare, const std::function<void()>& body,
                      const std::function<void(Arena&)>& verify) {
    if (!kStepping) GTEST_SKIP() << "not under this sanitizer";
    prepare();
    uint64_t instructions = 0;
    {
      Stepped victim(body);
      if (!victim.alive()) GTEST_SKIP() << "ptrace is not allowed here";
      for (; victim.alive(); victim.Step(), ++instructions) {
        if (instructions % stride != 0) continue;
        ASSERT_NO_FATAL_FAILURE(CopyToTwin()) << "after instruction " << instructions;
        verify(twin_);
        ASSERT_FALSE(HasFailure()) << "after instruction " << instructions;
      }
    }
    verify(arena_);
    printf("%lu instructions\n", static_cast<unsigned long>(instructions));

    constexpr uint64_t kSteps = 40'000;
    std::mt19937_64 random(3);
    for (uint64_t spent = 0; spent < kSteps;) {
      const uint64_t at = random() % instructions;
      prepare();
      {
        Stepped victim(body);
        for (uint64_t i = 0; i < at; ++i) victim.Step();
      }
      verify(arena_);
      ASSERT_FALSE(HasFailure()) << "killed after instruction " << at;
      spent += at + 1000;
    }
    EXPECT_EQ(Joined(arena_.Check()), "");
  }

  static void ReclaimVictim(Arena& arena) {
    ASSERT_TRUE(
        arena.ReclaimIf([](uint32_t, const Block& block) { return block.owner.participant == kVictim; }, Soon()).ok());
  }

  TestSegment segment_;
  TestSegment twin_segment_;
  Arena arena_;
  Arena twin_;
};

TEST_F(ArenaCrashTest, AnAllocationIsThereWholeOrNotAtAll) {
  const uint32_t below = Take(1000, OwnedBy(1));
  const uint32_t hole = Take(2000, OwnedBy(1));
  const uint32_t above = Take(1000, OwnedBy(1));
  ASSERT_TRUE(arena_.Free(hole, Soon()).ok());
  const uint64_t used = arena_.usage().used_bytes;
  bool seen_before = false;
  bool seen_after = false;
  KillEverywhere(
      1, [] {}, [&] { (void)arena_.Allocate(1000, OwnedBy(kVictim), Soon()); },
      [&](Arena& arena) {
        ASSERT_EQ(Joined(arena.Check()), "");
        const uint64_t now = arena.usage().used_bytes;
        ASSERT_TRUE(now == used || now == used + 1024) << now;
        (now == used ? seen_before : seen_after) = true;
        ReclaimVictim(arena);
        EXPECT_EQ(arena.usage().used_bytes, used);
        EXPECT_EQ(arena.usage().free_blocks, 2u) << "hole and end, each in one piece";
        EXPECT_EQ(arena.owner(below), OwnedBy(1));
        EXPECT_EQ(arena.owner(above), OwnedBy(1));
      });
  EXPECT_TRUE(IsSkipped() || (seen_before && seen_after));
}

TEST_F(ArenaCrashTest, AReleaseHappensWhollyOrNotAtAll) {
  std::array<uint32_t, 4> blocks{};
  const auto prepare = [&] {
    for (uint32_t& block : blocks) block = Take(500, OwnedBy(1));
    // Free neighbours on both sides, so that the release joins three.
    ASSERT_TRUE(arena_.Free(blocks[0], Soon()).ok());
    ASSERT_TRUE(arena_.Free(blocks[2], Soon()).ok());
    ASSERT_TRUE(arena_.SetOwner(blocks[1], OwnedBy(kVictim), Soon()).ok());
  };
  KillEverywhere(
      1, prepare, [&] { (void)arena_.Free(blocks[1], Soon()); },
      [&](Arena& arena) {
        ASSERT_EQ(Joined(arena.Check()), "");
        ReclaimVictim(arena);
        ASSERT_TRUE(arena.Free(blocks[3], Soon()).ok());
        EXPECT_EQ(arena.usage().used_bytes, 0u);
        EXPECT_EQ(arena.usage().free_blocks, 1u);
      });
}

TEST_F(ArenaCrashTest, GrowingAndTrimmingLeaveASoundArena) {
  const uint32_t kept = Take(100, OwnedBy(1));
  KillEverywhere(
      3, [&] { ASSERT_TRUE(arena_.Trim(0).ok()); },
      [&] {
        auto got = arena_.Allocate(2 * kMiB, OwnedBy(kVictim), Soon());
        (void)arena_.Free(got.ok() ? got->block : 0, Soon());
        (void)arena_.Trim(0);
      },
      [&](Arena& arena) {
        // A trim that dies between its steps leaves the flag which keeps everybody from growing; only the host trims,
        // and its successor recovers.
        ASSERT_TRUE(arena.Recover().ok());
        ASSERT_EQ(Joined(arena.Check()), "");
        ReclaimVictim(arena);
        EXPECT_EQ(arena.usage().used_blocks, 1u);
        EXPECT_EQ(arena.owner(kept), OwnedBy(1));
        if (&arena == &arena_) {
          ASSERT_TRUE(arena.Free(Take(3 * kMiB, OwnedBy(2)), Soon()).ok());
        }
      });
}

TEST_F(ArenaCrashTest, ARepairThatIsKilledIsDoneAnew) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "a repair is 300,000 instructions under this sanitizer, at 20 µs each";
#endif
  std::vector<Arena::Allocation> kept;
  for (uint64_t i = 0; i < 40; ++i) {
    auto got = arena_.Allocate(100 * (i % 7 + 1), OwnedBy(1, static_cast<uint32_t>(i)), Soon());
    ASSERT_TRUE(got.ok());
    kept.push_back(got.value());
  }
  for (size_t i = 0; i < kept.size(); i += 2) ASSERT_TRUE(arena_.Free(kept[i].block, Soon()).ok());
  const uint64_t used = arena_.usage().used_bytes;
  KillEverywhere(
      17,
      [&] {
        Child death = Child::Fork([&] {
          // Holds the mutex and ends.
          return Holds(const_cast<RobustMutex&>(arena_.mutex()).Lock(kVictim, Soon())) ? 0 : 1;
        });
        EXPECT_EQ(death.Wait(), 0);
      },
      [&] { (void)arena_.Allocate(64, OwnedBy(kVictim), Soon()); },
      [&](Arena& arena) {
        ASSERT_EQ(Joined(arena.Check()), "");
        ReclaimVictim(arena);
        EXPECT_EQ(arena.usage().used_bytes, used);
        for (size_t i = 1; i < kept.size(); i += 2) {
          ASSERT_EQ(arena.block(kept[i].block).offset, kept[i].offset);
          ASSERT_EQ(arena.owner(kept[i].block), OwnedBy(1, static_cast<uint32_t>(i)));
        }
      });
}

/// Several participants at work, one after the other killed at a random moment; the others go on.
TEST_F(ArenaCrashTest, SurvivorsGoOnWhileOthersAreKilled) {
  constexpr uint32_t kSeed = 4711;
  constexpr int kWorkers = 3;
  constexpr int kKills = 150;
  printf("seed %u\n", kSeed);
  // Progress of each worker, in memory all of them see.
  TestSegment board(kMiB);
  const auto progress = [&](int worker) -> std::atomic<uint64_t>& {
    return board.get().participant(static_cast<uint32_t>(worker)).counters.calls;
  };
  const auto work = [&](int worker, uint32_t seed) {
    const auto self = static_cast<uint16_t>(worker + 1);
    Arena arena = Arena::Data(segment_.get(), self);
    std::byte* const base = segment_.get().base();
    std::mt19937 random(seed);
    std::vector<Arena::Allocation> mine;
    for (;;) {
      progress(worker).fetch_add(1);
      if (mine.size() < 30 && random() % 2 == 0) {
        auto got = arena.Allocate(1 + random() % (random() % 10 == 0 ? 200000 : 2000), OwnedBy(self), Soon());
        if (!got.ok()) {
          if (got.status().code() == Code::kStateMemory) continue;
          return 1;
        }
        std::memset(base + got->offset, self, 64);
        mine.push_back(got.value());
      } else if (!mine.empty()) {
        std::swap(mine[random() % mine.size()], mine.back());
        const std::byte* const at = base + mine.back().offset;
        if (std::any_of(at, at + 64, [&](std::byte b) { return b != std::byte(self); }))
          return 2;  // somebody else's, too
        if (!arena.Free(mine.back().block, Soon()).ok()) return 3;
        mine.pop_back();
      }
    }
  };

  std::mt19937 random(kSeed);
  std::vector<std::unique_ptr<Child>> workers;
  const auto start = [&](int worker) {
    return std::make_unique<Child>(Child::Fork([&work, worker, seed = random()] { return work(worker, seed); }));
  };
  for (int i = 0; i < kWorkers; ++i) workers.push_back(start(i));
  for (int kill = 0; kill < kKills; ++kill) {
    const int victim = static_cast<int>(random() % kWorkers);
    const uint64_t until = progress(victim).load() + 1 + random() % 300;
    SpinYield spin;
    while (progress(victim).load() < until && workers[static_cast<size_t>(victim)]->Running()) spin.Step();
    ASSERT_EQ(workers[static_cast<size_t>(victim)]->Kill(), 128 + SIGKILL) << "the worker found something wrong";
    auto reclaimed =
        arena_.ReclaimIf([&](uint32_t, const Block& block) { return block.owner.participant == victim + 1; }, Soon());
    ASSERT_TRUE(reclaimed.ok()) << reclaimed.status().message();
    ASSERT_EQ(Joined(arena_.Check()), "");
    workers[static_cast<size_t>(victim)] = start(victim);
  }
  for (auto& worker : workers) ASSERT_EQ(worker->Kill(), 128 + SIGKILL);
  ASSERT_TRUE(arena_.ReclaimIf([](uint32_t, const Block&) { return true; }, Soon()).ok());
  EXPECT_EQ(Joined(arena_.Check()), "");
  EXPECT_EQ(arena_.usage().used_bytes, 0u);
  printf("%u deaths inside the arena\n", arena_.usage().rebuilds);
}

}  // namespace
}  // namespace praas::segment
