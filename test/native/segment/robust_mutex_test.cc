#include "segment/robust_mutex.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/process_id.h"
#include "shm/mapping.h"
#include "shm/memfd.h"
#include "support/child.h"

namespace praas::segment {
namespace {

using praas::test::Child;
using praas::test::Signpost;

uint64_t Soon() { return DeadlineIn(30'000'000'000); }

struct Shared {
  RobustMutex mutex;
  uint64_t count;
};

class RobustMutexTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto fd = shm::CreateMemfd("praas-test-mutex", sizeof(Shared), shm::Sealing::kFixed);
    ASSERT_TRUE(fd.ok());
    auto mapping = shm::Mapping::Map(fd->get(), 0, sizeof(Shared), shm::Access::kReadWrite);
    ASSERT_TRUE(mapping.ok());
    mapping_ = std::move(mapping).value();
    ASSERT_TRUE(mutex().Init().ok());
  }
  Shared& shared() { return *reinterpret_cast<Shared*>(mapping_.data()); }
  RobustMutex& mutex() { return shared().mutex; }

  /// A child that has locked the mutex and then waits for signals for ever.
  Child Holder(const Signpost& locked, uint16_t participant) {
    return Child::Fork([&] {
      if (mutex().Lock(participant, Soon()) != LockOutcome::kAcquired) return 1;
      locked.Set();
      for (;;) ::pause();
    });
  }

  shm::Mapping mapping_;
};

TEST_F(RobustMutexTest, ExcludesThreads) {
  std::vector<std::thread> threads;
  for (uint16_t self = 0; self < 4; ++self) {
    threads.emplace_back([this, self] {
      for (int i = 0; i < 5000; ++i) {
        MutexGuard guard(mutex(), self, Soon());
        ASSERT_EQ(guard.outcome(), LockOutcome::kAcquired);
        ++shared().count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(shared().count, 20000u);
  EXPECT_EQ(mutex().Observe().acquisitions, 20000u);
  EXPECT_FALSE(mutex().Observe().held);
}

TEST_F(RobustMutexTest, TellsWhoHoldsIt) {
  ASSERT_EQ(mutex().TryLock(7), LockOutcome::kAcquired);
  const RobustMutex::Owner owner = mutex().Observe();
  EXPECT_TRUE(owner.held);
  EXPECT_EQ(owner.participant, 7);
  EXPECT_EQ(owner.tid, static_cast<pid_t>(::syscall(SYS_gettid)));
  EXPECT_EQ(owner.acquisitions, 1u);
  mutex().Heartbeat();
  EXPECT_EQ(mutex().Observe().acquisitions, 2u);
  EXPECT_EQ(mutex().Observe().participant, 7);
  mutex().Unlock();
  EXPECT_FALSE(mutex().Observe().held);

  ASSERT_EQ(mutex().TryLock(kUnknownParticipant), LockOutcome::kAcquired);
  EXPECT_EQ(mutex().Observe().participant, kUnknownParticipant);
  EXPECT_TRUE(mutex().Observe().held);
  mutex().Unlock();
}

TEST_F(RobustMutexTest, TimesOutWhileAnotherHoldsIt) {
  Signpost locked;
  Child child = Holder(locked, 3);
  locked.Await();
  EXPECT_EQ(mutex().TryLock(1), LockOutcome::kTimeout);
  EXPECT_EQ(mutex().Lock(1, NowNs()), LockOutcome::kTimeout);
  const uint64_t deadline = DeadlineIn(120'000'000);
  EXPECT_EQ(mutex().Lock(1, deadline), LockOutcome::kTimeout);
  EXPECT_GE(NowNs(), deadline);
}

TEST_F(RobustMutexTest, TheDeathOfAnOwnerHandsItOver) {
  for (int round = 0; round < 5; ++round) {
    Signpost locked;
    Child child = Holder(locked, 3);
    locked.Await();
    EXPECT_FALSE(mutex().Observe().died);
    child.Kill();
    EXPECT_TRUE(mutex().Observe().died);
    EXPECT_FALSE(mutex().Observe().held);
    MutexGuard guard(mutex(), 1, Soon());
    ASSERT_EQ(guard.outcome(), LockOutcome::kOwnerDied);
    mutex().MakeConsistent();
  }
  EXPECT_EQ(mutex().TryLock(1), LockOutcome::kAcquired);
  mutex().Unlock();
}

TEST_F(RobustMutexTest, AWaiterIsWokenByTheDeathOfTheOwner) {
  Signpost locked;
  Child child = Holder(locked, 3);
  locked.Await();
  std::thread waiter([this] {
    EXPECT_EQ(mutex().Lock(1, Soon()), LockOutcome::kOwnerDied);
    mutex().MakeConsistent();
    mutex().Unlock();
  });
  child.Kill();
  waiter.join();
}

TEST_F(RobustMutexTest, ADeathDuringTheRepairHandsItOverAgain) {
  {
    Signpost locked;
    Child child = Holder(locked, 3);
    locked.Await();
    child.Kill();
  }
  Child repairer = Child::Fork([this] { return mutex().Lock(4, Soon()) == LockOutcome::kOwnerDied ? 0 : 1; });
  EXPECT_EQ(repairer.Wait(), 0);  // ended inside
  EXPECT_EQ(mutex().Lock(1, Soon()), LockOutcome::kOwnerDied);
  mutex().MakeConsistent();
  mutex().Unlock();
}

TEST_F(RobustMutexTest, LeavingWithoutRepairBreaksItUntilInit) {
  Signpost locked;
  {
    Child child = Holder(locked, 3);
    locked.Await();
  }
  ASSERT_EQ(mutex().Lock(1, Soon()), LockOutcome::kOwnerDied);
  mutex().Unlock();
  EXPECT_EQ(mutex().Lock(1, Soon()), LockOutcome::kBroken);
  EXPECT_FALSE(Holds(mutex().TryLock(1)));  // glibc says EBUSY the second time
  ASSERT_TRUE(mutex().Init().ok());
  EXPECT_EQ(mutex().Lock(1, Soon()), LockOutcome::kAcquired);
  mutex().Unlock();
}

TEST_F(RobustMutexTest, AStoppedOwnerIsFoundAndItsDeathFreesTheMutex) {
  Signpost locked;
  Child child = Holder(locked, 9);
  locked.Await();
  child.Signal(SIGSTOP);
  child.WaitStopped();
  EXPECT_EQ(mutex().Lock(1, DeadlineIn(1'000'000)), LockOutcome::kTimeout);

  StuckWatch watch;
  const uint64_t now = NowNs();
  EXPECT_FALSE(watch.Sample(mutex(), now));
  EXPECT_FALSE(watch.Sample(mutex(), now + StuckWatch::kLimitNs));
  const auto owner = watch.Sample(mutex(), now + StuckWatch::kLimitNs + 1);
  ASSERT_TRUE(owner.has_value());
  EXPECT_EQ(owner->participant, 9);
  const auto process = ProcessId::OfThread(owner->tid);
  ASSERT_TRUE(process.has_value());
  EXPECT_EQ(process->pid, child.pid());
  EXPECT_TRUE(process->Stopped());

  child.Kill();
  EXPECT_FALSE(watch.Sample(mutex(), now + 3 * StuckWatch::kLimitNs)) << "a dead owner is not stuck";
  EXPECT_EQ(mutex().Lock(1, Soon()), LockOutcome::kOwnerDied);
  mutex().MakeConsistent();
  mutex().Unlock();
}

TEST_F(RobustMutexTest, AnOwnerThatGetsOnIsNotStuck) {
  StuckWatch watch;
  uint64_t now = 1;
  for (int i = 0; i < 3; ++i, now += 2 * StuckWatch::kLimitNs) {
    ASSERT_EQ(mutex().TryLock(2), LockOutcome::kAcquired);
    EXPECT_FALSE(watch.Sample(mutex(), now));
    mutex().Unlock();
  }
  ASSERT_EQ(mutex().TryLock(2), LockOutcome::kAcquired);
  for (int i = 0; i < 3; ++i, now += 2 * StuckWatch::kLimitNs) {
    mutex().Heartbeat();
    EXPECT_FALSE(watch.Sample(mutex(), now));
  }
  mutex().Unlock();
}

}  // namespace
}  // namespace praas::segment
