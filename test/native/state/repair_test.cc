#include <thread>

#include "../support/child.h"
#include "store_fixture.h"

namespace praas::test {
namespace {

using Mode = state::StateStore::LockMode;

class RepairTest : public StoreTest {
 protected:
  /// Participant 1 runs `body` in a process of its own and dies while it holds the mutex.
  template <typename Body>
  void DieInside(Body body) {
    Child child = Child::Fork([&] {
      Participant worker(segment(), 1);
      if (!segment::Holds(records().head().mutex.Lock(1, Soon()))) return 1;
      body(worker);
      return 0;
    });
    ASSERT_EQ(child.Wait(), 0);
  }
};

TEST_F(RepairTest, TheNextOneRepairs) {
  Set("a", "1");
  Set("b", "2");
  DieInside([&](Participant&) {
    // In the middle of an insertion: a record taken and named, linked, not published.
    state::Records all = records();
    const uint32_t number = all.Take<state::KeyEntry>(all.head().keys, all.header().state_keys);
    all.key(number).next = number;  // a loop, at worst
    all.bucket(0) = number;
  });
  EXPECT_EQ(Get("a"), "1");
  EXPECT_EQ(Get("b"), "2");
  EXPECT_EQ(store().key_count(), 2u);
  EXPECT_EQ(records().head().repairs.load(), 1u);
  ExpectSound();
}

TEST_F(RepairTest, AnInterruptedRepairIsRepeated) {
  Set("a", "1");
  DieInside([](Participant&) {});
  Child child = Child::Fork([&] {
    // Gets as far as noting that a repair is due.
    if (records().head().mutex.Lock(1, Soon()) != segment::LockOutcome::kOwnerDied) return 1;
    records().head().dirty = 1;
    records().head().mutex.MakeConsistent();
    records().head().keys.high = 0;
    records().head().keys.used = 0;
    return 0;
  });
  ASSERT_EQ(child.Wait(), 0);
  EXPECT_EQ(Get("a"), "1");
  EXPECT_EQ(records().head().dirty.load(), 0u);
  ExpectSound();
}

TEST_F(RepairTest, FreesBlocksThatAreNobodysValue) {
  Set("a", "1");
  DieInside([](Participant& worker) {
    // Handed to the state and not published.
    Result<segment::Arena::Allocation> block =
        worker.arena.Allocate(100, {segment::BlockOwner::Kind::kParticipant, 1, 0}, Soon());
    if (block.ok()) {
      (void)worker.arena.SetOwner(block->block, {segment::BlockOwner::Kind::kState, 0, 1}, Soon()).ok();
    }
  });
  ExpectBlocks(2);
  EXPECT_EQ(Get("a"), "1");
  ExpectBlocks(1);
}

TEST_F(RepairTest, KeepsPinnedBlocksOfTheLiving) {
  Set("a", "old");
  Result<state::Pinned> pinned = store().Pin("a", Soon());
  ASSERT_TRUE(pinned.ok());
  Set("a", "new");
  DieInside([&](Participant&) {
    // In the middle of an unpin: the count went down too early.
    records().block(state::PinWord::Unpack(records().pin(pinned->pin).word).block).value_bytes &=
        state::kValueBytesMask;
  });
  EXPECT_EQ(Get("a"), "new");
  EXPECT_EQ(PinnedText(*pinned), "old");
  ExpectBlocks(2);
  store().Unpin(pinned->pin);
  ExpectBlocks(1);
}

TEST_F(RepairTest, ReclaimsUnpublishedBlocks) {
  Set("a", "1");
  Child child = Child::Fork([&] {
    Participant worker(segment(), 1);
    for (int i = 0; i < 5; ++i) {
      (void)worker.arena.Allocate(1'000, {segment::BlockOwner::Kind::kParticipant, 1, 0}, Soon()).ok();
    }
    return worker.store.Set("b", AsBytes("2"), {.deadline_ns = Soon()}).ok() ? 0 : 1;
  });
  ASSERT_EQ(child.Wait(), 0);
  ExpectBlocks(7);
  ASSERT_TRUE(store().ReclaimParticipant(1, Soon()).ok());
  EXPECT_EQ(Get("b"), "2");
  ExpectBlocks(2);
  ASSERT_TRUE(store().ReclaimParticipant(1, Soon()).ok());  // again: nothing
  ExpectBlocks(2);
}

TEST_F(RepairTest, ANewHostKeepsPublishedStateOnly) {
  Set("value", std::string(10'000, 'v'));
  Result<state::Pinned> array = store().Array("array", 2, 500, Soon());
  ASSERT_TRUE(array.ok());
  segment().data()[array->offset] = std::byte{9};
  const uint64_t version = Set("last", "x");
  ASSERT_TRUE(store().Lock("lock", Mode::kWrite, {0, 1}, Soon()).ok());
  Set("pinned", "old");
  ASSERT_TRUE(store().Pin("pinned", Soon()).ok());
  Delete("pinned");
  ASSERT_TRUE(arena().Allocate(100, {segment::BlockOwner::Kind::kParticipant, 3, 0}, Soon()).ok());
  ASSERT_TRUE(arena().Allocate(100, {segment::BlockOwner::Kind::kCall, 0, 3}, Soon()).ok());
  DieInside([](Participant&) {});

  own_.host.reset();
  Participant next(segment(), 0);
  ASSERT_TRUE(next.arena.Recover().ok());
  const Status status = next.store.RepairAfterHost(Soon());
  ASSERT_TRUE(status.ok()) << status.message();
  own_.host.emplace(segment(), 0);
  EXPECT_EQ(Get("value"), std::string(10'000, 'v'));
  EXPECT_EQ(Get("array")->at(0), 9);
  EXPECT_EQ(store().key_count(), 3u);
  EXPECT_EQ(records().head().pins.used.load(), 0u);
  EXPECT_EQ(records().head().locks.used.load(), 0u);
  ExpectBlocks(3);
  EXPECT_TRUE(store().Lock("lock", Mode::kWrite, {0, 2}, Soon())->granted);
  EXPECT_GT(Set("last", "y"), version);
  ExpectSound();
}

TEST_F(RepairTest, ADamagedSegmentLosesOnlyWhatIsDamaged) {
  for (int i = 0; i < 8; ++i) Set("key" + std::to_string(i), std::to_string(i));
  const uint64_t version = store().Stat("key7", Soon())->version;
  state::Records all = records();
  const auto publish = [&](uint32_t number, uint32_t block, uint32_t kind) {
    all.key(number).value = static_cast<uint64_t>(block) << 32 | kind << 8;
  };
  publish(1, 0x7fff'ffff, 1);                                             // a block that does not exist
  publish(2, state::ValueRef::Unpack(all.key(3).value.load()).block, 1);  // another key's block
  publish(4, state::ValueRef::Unpack(all.key(4).value.load()).block, 9);  // no such kind
  all.key(5).name.size = 0;                                               // no name
  all.block(state::ValueRef::Unpack(all.key(6).value.load()).block).value_bytes = 1ull << 40;  // larger than its block
  all.key(7).name = all.key(8).name;                                                           // a name twice
  all.pin(3).word = state::PinWord{0x7fff'ffff, 2}.Pack();
  all.holder(3).word = ~0ull;
  all.head().last_version = 0;
  ASSERT_TRUE(arena().Recover().ok());
  const Status status = store().RepairAfterHost(Soon());
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(Get("key2"), "2");
  EXPECT_EQ(Get("key7"), "7");
  EXPECT_EQ(store().key_count(), 2u);
  ExpectBlocks(2);
  EXPECT_GT(Set("key9", "9"), version);
  ExpectSound();
}

TEST_F(RepairTest, AStoppedOwnerIsSeenAndItsDeathIsRepaired) {
  Set("a", "1");
  Child child = Child::Fork([&] {
    if (!segment::Holds(records().head().mutex.Lock(1, Soon()))) return 1;
    ::raise(SIGSTOP);
    return 0;
  });
  child.WaitStopped();
  EXPECT_EQ(CodeOf(store().Get("a", NowNs())), Code::kSegmentStuck);
  const segment::RobustMutex::Owner owner = store().mutex().Observe();
  EXPECT_TRUE(owner.held);
  EXPECT_EQ(owner.participant, 1);
  child.Kill();
  EXPECT_EQ(Get("a"), "1");
}

TEST_F(RepairTest, CountersThatWereWrittenOverCountOn) {
  Set("damaged", "value");
  const uint64_t version = Set("whole", "value");
  ASSERT_TRUE(store().Publish("damaged", std::nullopt, Soon()).ok());
  state::Records state = records();
  state.head().last_version.store(UINT64_MAX);
  state.head().last_ticket = UINT64_MAX;
  state.block(1).value_version = UINT64_MAX;
  state.publication(1).id = UINT64_MAX;
  ASSERT_TRUE(store().RepairAfterHost(Soon()).ok());
  ExpectSound();
  EXPECT_EQ(Get("damaged"), std::nullopt);
  EXPECT_EQ(Get("whole"), "value");
  EXPECT_EQ(Set("damaged", "anew"), version + 1);
  ASSERT_TRUE(store().Publish("damaged", std::nullopt, Soon()).ok());
  EXPECT_GT(state.publication(1).id, 0u);
}

}  // namespace
}  // namespace praas::test
