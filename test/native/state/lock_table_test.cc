#include "state/lock_table.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "../support/child.h"
#include "store_fixture.h"

namespace praas::test {
namespace {

using state::StateStore;
using Mode = StateStore::LockMode;

class LockTest : public StoreTest {
 protected:
  LockTest() {
    store().OnGrant([this](uint16_t participant) { told_.push_back(participant); });
  }

  StateStore::LockTicket Lock(std::string_view name, Mode mode, uint64_t owner, uint16_t participant = 0) {
    Result<StateStore::LockTicket> ticket = store().Lock(name, mode, {participant, owner}, Soon());
    EXPECT_TRUE(ticket.ok()) << ticket.status().message();
    return ticket.ok() ? *ticket : StateStore::LockTicket{};
  }
  void Unlock(const StateStore::LockTicket& ticket) {
    const Status status = store().Unlock(ticket.holder, Soon());
    EXPECT_TRUE(status.ok()) << status.message();
  }
  bool Granted(const StateStore::LockTicket& ticket) { return store().LockGranted(ticket.holder); }
  /// Participants told since the last call, each once: they may be told more often.
  std::vector<uint16_t> Told() {
    std::sort(told_.begin(), told_.end());
    told_.erase(std::unique(told_.begin(), told_.end()), told_.end());
    return std::exchange(told_, {});
  }
  void ExpectNoLocks() {
    EXPECT_EQ(records().head().locks.used.load(), 0u);
    EXPECT_EQ(records().head().holders.used.load(), 0u);
  }

  std::vector<uint16_t> told_;
};

TEST_F(LockTest, WritersExclude) {
  const auto first = Lock("l", Mode::kWrite, 1);
  EXPECT_TRUE(first.granted);
  EXPECT_TRUE(Granted(first));
  const auto second = Lock("l", Mode::kWrite, 2, 5);
  EXPECT_FALSE(second.granted);
  EXPECT_FALSE(Granted(second));
  EXPECT_TRUE(Lock("other", Mode::kWrite, 1).granted);
  EXPECT_TRUE(Told().empty());
  Unlock(first);
  EXPECT_EQ(Told(), std::vector<uint16_t>{5});
  EXPECT_TRUE(Granted(second));
  EXPECT_FALSE(Granted(first));
  Unlock(second);
  EXPECT_EQ(records().head().locks.used.load(), 1u);
}

TEST_F(LockTest, ReadersShareAndWaitBehindAWriter) {
  const auto reader1 = Lock("l", Mode::kRead, 1, 1);
  const auto reader2 = Lock("l", Mode::kRead, 2, 2);
  EXPECT_TRUE(reader1.granted && reader2.granted);
  const auto writer = Lock("l", Mode::kWrite, 3, 3);
  const auto reader3 = Lock("l", Mode::kRead, 4, 4);
  const auto reader4 = Lock("l", Mode::kRead, 5, 5);
  EXPECT_FALSE(writer.granted || reader3.granted || reader4.granted);
  ExpectSound();
  Unlock(reader1);
  EXPECT_FALSE(Granted(writer));
  Unlock(reader2);
  EXPECT_TRUE(Granted(writer));
  EXPECT_FALSE(Granted(reader3));
  EXPECT_EQ(Told(), std::vector<uint16_t>{3});
  Unlock(writer);
  EXPECT_TRUE(Granted(reader3) && Granted(reader4));
  EXPECT_EQ(Told(), (std::vector<uint16_t>{4, 5}));
  Unlock(reader3);
  Unlock(reader4);
  ExpectNoLocks();
}

TEST_F(LockTest, IsGrantedInOrderOfArrival) {
  const auto held = Lock("l", Mode::kWrite, 0);
  std::vector<StateStore::LockTicket> waiting;
  for (uint64_t i = 1; i <= 20; ++i) waiting.push_back(Lock("l", Mode::kWrite, i, static_cast<uint16_t>(i)));
  Unlock(held);
  for (size_t i = 0; i < waiting.size(); ++i) {
    for (size_t j = i; j < waiting.size(); ++j) EXPECT_EQ(Granted(waiting[j]), i == j);
    EXPECT_EQ(Told(), std::vector<uint16_t>{static_cast<uint16_t>(i + 1)});
    Unlock(waiting[i]);
  }
  ExpectNoLocks();
}

TEST_F(LockTest, WithdrawnWaitersLetOthersPass) {
  const auto reader = Lock("l", Mode::kRead, 1);
  const auto writer = Lock("l", Mode::kWrite, 2);
  const auto late = Lock("l", Mode::kRead, 3, 9);
  EXPECT_FALSE(late.granted);
  Unlock(writer);  // its deadline passed
  EXPECT_TRUE(Granted(late));
  EXPECT_EQ(Told(), std::vector<uint16_t>{9});
  Unlock(reader);
  Unlock(late);
  ExpectNoLocks();
}

TEST_F(LockTest, StaleHandlesFindNothing) {
  const auto ticket = Lock("l", Mode::kWrite, 1);
  Unlock(ticket);
  EXPECT_EQ(store().Unlock(ticket.holder, Soon()).code(), Code::kStateLockLost);
  const auto next = Lock("l", Mode::kWrite, 2);  // the same record
  EXPECT_NE(next.holder, ticket.holder);
  EXPECT_EQ(store().Unlock(ticket.holder, Soon()).code(), Code::kStateLockLost);
  EXPECT_FALSE(Granted(ticket));
  EXPECT_TRUE(Granted(next));
  EXPECT_EQ(store().Unlock(0, Soon()).code(), Code::kStateLockLost);
  EXPECT_EQ(store().Unlock(UINT32_MAX, Soon()).code(), Code::kStateLockLost);
  Unlock(next);
}

TEST_F(LockTest, UnlockAllTakesEverythingOfOneOwner) {
  std::vector<StateStore::LockTicket> mine;
  for (int i = 0; i < 100; ++i) mine.push_back(Lock("l" + std::to_string(i), Mode::kWrite, 7, 1));
  const auto waiting = Lock("w", Mode::kWrite, 8, 2);
  mine.push_back(Lock("w", Mode::kWrite, 7, 1));
  const auto namesake = Lock("n", Mode::kWrite, 7, 2);  // the same id of another participant
  const auto heir = Lock("l5", Mode::kRead, 9, 3);
  ASSERT_TRUE(store().UnlockAll({1, 7}, Soon()).ok());
  for (const auto& ticket : mine) EXPECT_EQ(store().Unlock(ticket.holder, Soon()).code(), Code::kStateLockLost);
  EXPECT_TRUE(Granted(heir));
  EXPECT_TRUE(Granted(waiting));
  EXPECT_TRUE(Granted(namesake));
  EXPECT_EQ(records().head().locks.used.load(), 3u);
  ASSERT_TRUE(store().UnlockAll({1, 4711}, Soon()).ok());
}

TEST_F(LockTest, RefusesUnknownModes) {
  EXPECT_EQ(CodeOf(store().Lock("l", static_cast<Mode>(0), {0, 1}, Soon())), Code::kArgumentInvalid);
  EXPECT_EQ(CodeOf(store().Lock("l", static_cast<Mode>(3), {0, 1}, Soon())), Code::kArgumentInvalid);
  ExpectNoLocks();
}

TEST_F(LockTest, ThousandsAtATime) {
  std::vector<StateStore::LockTicket> tickets;
  for (uint64_t i = 0; i < 3'000; ++i) tickets.push_back(Lock("l" + std::to_string(i % 1'000), Mode::kRead, i));
  for (const auto& ticket : tickets) EXPECT_TRUE(ticket.granted);
  ExpectSound();
  for (const auto& ticket : tickets) Unlock(ticket);
  ExpectNoLocks();
}

TEST_F(LockTest, DeathOfAHolderGrantsTheNext) {
  Signpost there;
  Child child = Child::Fork([&] {
    Participant worker(segment(), 1);
    Result<StateStore::LockTicket> held = worker.store.Lock("l", Mode::kWrite, {1, 1}, Soon());
    Result<StateStore::LockTicket> queued = worker.store.Lock("q", Mode::kRead, {1, 1}, Soon());
    if (!held.ok() || !held->granted || !queued.ok()) return 1;
    there.Set();
    for (;;) ::pause();
  });
  there.Await();
  const auto waiting = Lock("l", Mode::kWrite, 2, 4);
  EXPECT_FALSE(waiting.granted);
  child.Kill();
  EXPECT_FALSE(Granted(waiting));
  ASSERT_TRUE(store().ReclaimParticipant(1, Soon()).ok());
  EXPECT_TRUE(Granted(waiting));
  EXPECT_EQ(Told(), std::vector<uint16_t>{4});
  Unlock(waiting);
  ExpectNoLocks();
}

TEST_F(LockTest, DeathBetweenGrantingAndTelling) {
  // A worker that released, granted to participant 4 and died before it told: reclaiming it tells.
  Child child = Child::Fork([&] {
    Participant worker(segment(), 1);
    Result<StateStore::LockTicket> held = worker.store.Lock("l", Mode::kWrite, {1, 1}, Soon());
    if (!held.ok() || !held->granted) return 1;
    if (!worker.store.Lock("l", Mode::kWrite, {4, 1}, Soon()).ok()) return 1;
    worker.store.OnGrant([](uint16_t) { ::_exit(42); });
    (void)worker.store.Unlock(held->holder, Soon()).ok();
    return 1;
  });
  EXPECT_EQ(child.Wait(), 42);
  ASSERT_TRUE(store().ReclaimParticipant(1, Soon()).ok());
  EXPECT_EQ(Told(), std::vector<uint16_t>{4});
  ASSERT_TRUE(store().UnlockAll({4, 1}, Soon()).ok());
  ExpectNoLocks();
}

TEST_F(LockTest, RebuildKeepsOrderAndGrantsWhatIsFree) {
  const auto writer = Lock("l", Mode::kWrite, 1, 1);
  const auto reader1 = Lock("l", Mode::kRead, 2, 2);
  const auto reader2 = Lock("l", Mode::kRead, 3, 3);
  const auto last = Lock("l", Mode::kWrite, 4, 4);
  const auto other = Lock("other", Mode::kRead, 5, 5);
  // The writer's release was interrupted after its record was cleared, and everything derived is nonsense.
  records().holder(1).word = 0;
  state::StateHead& head = records().head();
  head.locks.free = 9;
  head.holders.high = 1;
  for (uint32_t& bucket : head.lock_buckets) bucket = 1;
  for (uint32_t& bucket : head.owner_buckets) bucket = 2;
  records().lock(1).first_waiting = 0;
  head.dirty = 1;
  EXPECT_EQ(Get("any"), std::nullopt);
  ExpectSound();
  EXPECT_FALSE(Granted(writer));
  EXPECT_TRUE(Granted(reader1) && Granted(reader2) && Granted(other));
  EXPECT_FALSE(Granted(last));
  Unlock(reader1);
  Unlock(reader2);
  EXPECT_TRUE(Granted(last));
  Unlock(last);
  Unlock(other);
  ExpectNoLocks();
}

TEST_F(LockTest, ExcludesAmongThreads) {
  // A counter that only its lock protects; waiters poll LockGranted. Without fairness somebody would run out of rounds
  // late.
  store().OnGrant([](uint16_t) {});
  constexpr int kThreads = 3;
  constexpr int kRounds = 200;
  int counter = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        const auto id = static_cast<uint64_t>(t);
        Result<StateStore::LockTicket> ticket = store().Lock("counter", Mode::kWrite, {0, id}, Soon());
        ASSERT_TRUE(ticket.ok());
        while (!store().LockGranted(ticket->holder)) std::this_thread::yield();
        ++counter;
        ASSERT_TRUE(store().Unlock(ticket->holder, Soon()).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counter, kThreads * kRounds);
  ExpectNoLocks();
}

}  // namespace
}  // namespace praas::test
