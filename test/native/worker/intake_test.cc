#include "worker/intake.h"

#include <gtest/gtest.h>

#include "mini_host.h"

namespace praas::worker {
namespace {

void Echo(WorkerRuntime& runtime, const Invocation& invocation) {
  MiniHost::Check(runtime.Complete(invocation.handle, invocation.input));
}

/// The owner's wait on what it was told to wait on.
bool Readable(int fd, int timeout_ms = 60'000) {
  pollfd event{fd, POLLIN, 0};
  return ::poll(&event, 1, timeout_ms) == 1;
}

class Doorbells : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Worker, Doorbells, testing::Bool(),
                         [](const auto& info) { return info.param ? "Futex" : "MessageQueue"; });

TEST_P(Doorbells, WakeASleepingWorker) {
  MiniHost host({.futex = GetParam()});
  auto runtime = AttachWorker(host.AddWorker(1));
  ASSERT_TRUE(host.AwaitReady(1));
  EXPECT_EQ(runtime->doorbell_fd() < 0, GetParam());
  for (int i = 0; i < 20; ++i) {
    EXPECT_FALSE(runtime->TryNext(true).has_value());
    EXPECT_TRUE(Eventually([&] { return runtime->PrepareToSleep(true); }));
    host.Post(0, Bytes("x"));
    EXPECT_TRUE(Readable(GetParam() ? runtime->event_fd() : runtime->doorbell_fd()));
    runtime->Awake();
    const auto invocation = runtime->TryNext(true);
    ASSERT_TRUE(invocation.has_value());
    Echo(*runtime, *invocation);
    EXPECT_EQ(host.Await().text(), "x");
  }
  host.ExpectClean();
}

TEST_P(Doorbells, NoCallIsLostBetweenHotAndCold) {
  MiniHost host({.hot_ns = 30'000, .futex = GetParam()});
  {
    const WorkerThread first(host, 1, Echo);
    const WorkerThread second(host, 2, Echo);
    const auto sleeps = [&] { return host.counters(1).sleeps.load() + host.counters(2).sleeps.load(); };
    const uint64_t deadline_ns = DeadlineIn(kWatchdogNs);
    // Until they have slept, too: on a busy machine that may take longer.
    for (uint32_t i = 0; i < 1000 || sleeps() == 0; ++i) {
      ASSERT_LT(NowNs(), deadline_ns) << "no worker ever sleeps";
      const uint32_t calls = 1 + i % 3;
      for (uint32_t call = 0; call < calls; ++call) host.Post(0, Bytes("x"));
      for (uint32_t call = 0; call < calls; ++call) EXPECT_EQ(host.Await().code, Code::kOk);
      // Around the moment when the workers go to sleep.
      const uint64_t until_ns = NowNs() + i % 50 * 1500;
      while (NowNs() < until_ns) CpuRelax();
    }
  }
  host.ExpectClean();
}

TEST_P(Doorbells, ABellForABusyWorkerReachesTheOther) {
  MiniHost host({.futex = GetParam()});
  {
    std::atomic<uint32_t> inside{0};
    const Handler meet = [&](WorkerRuntime& runtime, const Invocation& invocation) {
      const uint32_t target = static_cast<uint32_t>(invocation.input[0]);
      inside.fetch_add(1);
      EXPECT_TRUE(Eventually([&] { return inside.load() >= target; }));
      MiniHost::Check(runtime.Complete(invocation.handle, {}));
    };
    const WorkerThread first(host, 1, meet);
    const WorkerThread second(host, 2, meet);
    for (uint32_t round = 1; round <= 20; ++round) {
      const std::byte target[] = {static_cast<std::byte>(2 * round)};
      host.Post(0, target);
      host.Post(0, target);
      for (int i = 0; i < 2; ++i) EXPECT_EQ(host.Await().code, Code::kOk);
    }
  }
  host.ExpectClean();
}

TEST(Intake, AHotWorkerIsHandedCallsByCredit) {
  MiniHost host({.hot_ns = -1});
  auto runtime = AttachWorker(host.AddWorker(1));
  ASSERT_TRUE(host.AwaitReady(1));
  auto& credit = host.segment().participant(1).credit;
  EXPECT_FALSE(runtime->TryNext(true).has_value());
  EXPECT_EQ(credit.load(), dispatch::kCreditIdle);
  host.Post(0, {});
  EXPECT_GT(credit.load(), dispatch::kCreditIdle);
  const auto invocation = runtime->TryNext(true);
  ASSERT_TRUE(invocation.has_value());
  EXPECT_EQ(credit.load(), dispatch::kCreditNone) << "nothing queues behind a running function";
  EXPECT_EQ(host.segment().participant(1).running.load(), 1u);
  // Without capacity nothing is offered and nothing is taken.
  host.Post(0, {});
  EXPECT_FALSE(runtime->TryNext(false).has_value());
  EXPECT_EQ(credit.load(), dispatch::kCreditNone);
  Echo(*runtime, *invocation);
  const auto next = runtime->TryNext(true);
  ASSERT_TRUE(next.has_value());
  Echo(*runtime, *next);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(host.Await().code, Code::kOk);
  EXPECT_EQ(host.counters(0).credits_used.load(), 1u);
  EXPECT_EQ(host.counters(0).bells_rung.load(), 0u);
  // A bell that is in the credit when capacity ends goes to the table, where another worker finds it.
  EXPECT_FALSE(runtime->TryNext(true).has_value());
  const uint32_t index = host.Post(0, {});
  EXPECT_GT(credit.load(), dispatch::kCreditIdle);
  EXPECT_FALSE(runtime->TryNext(false).has_value());
  EXPECT_EQ(credit.load(), dispatch::kCreditNone);
  EXPECT_EQ(host.WordOf(index).state, dispatch::CallState::kQueued);
  EXPECT_TRUE(host.dispatcher().HasQueued());
}

TEST(Intake, GoingToSleepServesTheBellThatCameFirst) {
  MiniHost host({.hot_ns = 1});
  auto runtime = AttachWorker(host.AddWorker(1));
  ASSERT_TRUE(host.AwaitReady(1));
  EXPECT_FALSE(runtime->TryNext(true).has_value());
  const uint32_t index = host.Post(0, {});
  EXPECT_FALSE(runtime->PrepareToSleep(true));
  EXPECT_EQ(host.WordOf(index).state, dispatch::CallState::kClaimed);
  EXPECT_EQ(host.segment().participant(1).sleeping.load(), 0u);
  const auto invocation = runtime->TryNext(true);
  ASSERT_TRUE(invocation.has_value());
  Echo(*runtime, *invocation);
  EXPECT_EQ(host.Await().code, Code::kOk);
  EXPECT_EQ(host.segment().participant(1).credit.load(), dispatch::kCreditNone);
}

TEST(Intake, SleepingWithoutCapacityLeavesCallsAlone) {
  MiniHost host({});
  auto runtime = AttachWorker(host.AddWorker(1));
  ASSERT_TRUE(host.AwaitReady(1));
  const uint32_t index = host.Post(0, {});
  EXPECT_TRUE(Eventually([&] { return runtime->PrepareToSleep(false); }));
  EXPECT_EQ(host.WordOf(index).state, dispatch::CallState::kQueued);
  // Notices still wake it.
  host.dispatcher().Notify(1, dispatch::kNoticeLock);
  EXPECT_TRUE(Readable(runtime->event_fd()));
  runtime->Awake();
  EXPECT_EQ(runtime->TakeNotices(), static_cast<uint32_t>(dispatch::kNoticeLock));
  EXPECT_EQ(runtime->TakeNotices(), 0u);
  EXPECT_FALSE(runtime->PrepareToSleep(true)) << "there is a call";
  EXPECT_TRUE(runtime->TryNext(true).has_value());
}

TEST(Intake, NoticesKeepAwakeOnce) {
  MiniHost host({});
  auto runtime = AttachWorker(host.AddWorker(1));
  ASSERT_TRUE(host.AwaitReady(1));
  EXPECT_TRUE(Eventually([&] { return runtime->PrepareToSleep(true); }));
  runtime->Awake();
  host.dispatcher().Notify(1, dispatch::kNoticeStream);
  EXPECT_FALSE(runtime->PrepareToSleep(true));
  EXPECT_TRUE(runtime->PrepareToSleep(true)) << "an owner that does not care may sleep";
  runtime->Awake();
  EXPECT_EQ(runtime->TakeNotices(), static_cast<uint32_t>(dispatch::kNoticeStream));
}

TEST(Intake, ADrainingWorkerFinishesWhatItHas) {
  MiniHost host({.hot_ns = -1});
  auto runtime = AttachWorker(host.AddWorker(1));
  ASSERT_TRUE(host.AwaitReady(1));
  host.Post(0, {});
  const auto invocation = runtime->TryNext(true);
  ASSERT_TRUE(invocation.has_value());
  EXPECT_TRUE(Eventually([&] { return runtime->PrepareToSleep(true); }));
  host.Drain(1);
  EXPECT_TRUE(Readable(runtime->event_fd()));
  runtime->Awake();
  EXPECT_TRUE(runtime->draining());
  const uint32_t left = host.Post(0, {});
  EXPECT_FALSE(runtime->TryNext(true).has_value());
  EXPECT_EQ(host.segment().participant(1).credit.load(), dispatch::kCreditNone);
  EXPECT_EQ(host.WordOf(left).state, dispatch::CallState::kQueued);
  Echo(*runtime, *invocation);
  EXPECT_EQ(host.Await().code, Code::kOk);
  runtime->Drained();
  EXPECT_TRUE(host.AwaitDrained(1));
}

TEST(Intake, NewsOfDrainingThatTryNextSawFirstStillEndTheNextSleep) {
  for (const int64_t hot_ns : {int64_t{0}, int64_t{-1}}) {
    MiniHost host({.hot_ns = hot_ns});
    auto runtime = AttachWorker(host.AddWorker(1));
    host.Drain(1);
    EXPECT_TRUE(Eventually([&] { return runtime->draining(); }));
    EXPECT_FALSE(runtime->TryNext(true).has_value());
    const uint64_t deadline_ns = DeadlineIn(kWatchdogNs);
    runtime->Sleep(true, deadline_ns);
    EXPECT_LT(NowNs(), deadline_ns);
  }
}

TEST(Intake, AGrantedLockIsNoticed) {
  MiniHost host({});
  auto first = AttachWorker(host.AddWorker(1));
  auto second = AttachWorker(host.AddWorker(2));
  using state::StateStore;
  const uint64_t deadline_ns = DeadlineIn(kWatchdogNs);
  auto held = first->state().Lock("lock", StateStore::LockMode::kWrite, {1, 1}, deadline_ns);
  ASSERT_TRUE(held.ok() && held->granted);
  auto waiting = second->state().Lock("lock", StateStore::LockMode::kWrite, {2, 2}, deadline_ns);
  ASSERT_TRUE(waiting.ok() && !waiting->granted);
  EXPECT_TRUE(Eventually([&] { return second->PrepareToSleep(true); }));
  ASSERT_TRUE(host.AwaitReady(2));  // its service relays: the workers do not know each other yet
  EXPECT_TRUE(first->state().Unlock(held->holder, deadline_ns).ok());
  EXPECT_TRUE(Readable(second->event_fd()));
  second->Awake();
  EXPECT_EQ(second->TakeNotices(), static_cast<uint32_t>(dispatch::kNoticeLock));
  EXPECT_TRUE(second->state().LockGranted(waiting->holder));
  EXPECT_TRUE(second->state().Unlock(waiting->holder, deadline_ns).ok());
}

TEST(Attach, FailsOnWhatIsNoHost) {
  const auto attach = [](ControlSocket& host, UniqueFd worker, uint64_t deadline_ns) {
    (void)host;
    return WorkerRuntime::Attach(std::move(worker), {}, deadline_ns).status().code();
  };
  auto pair = ControlSocket::Pair();
  ASSERT_TRUE(pair.ok());
  ControlSocket host(std::move(pair->first));
  EXPECT_EQ(attach(host, Duplicate(pair->second.get()), DeadlineIn(kMilliNs)), Code::kConnectionTimeout);
  ASSERT_TRUE(host.Send({.type = ControlType::kDrain}).ok());
  EXPECT_EQ(attach(host, Duplicate(pair->second.get()), DeadlineIn(kWatchdogNs)), Code::kProtocolInvalid);
  ControlMessage message{.type = ControlType::kAttach};
  message.attach = {.participant = 1, .lanes = {true, false}, .process_id = "p"};
  for (int i = 0; i < 5; ++i) message.fds.emplace_back(::eventfd(0, EFD_CLOEXEC));
  ASSERT_TRUE(host.Send(message).ok());
  EXPECT_NE(attach(host, Duplicate(pair->second.get()), DeadlineIn(kWatchdogNs)), Code::kOk) << "no segment";
  host = ControlSocket(UniqueFd());
  EXPECT_EQ(attach(host, std::move(pair->second), DeadlineIn(kWatchdogNs)), Code::kConnectionLost);
}

TEST(Attach, WaitsForTheApplication) {
  MiniHost host({});
  auto runtime = WorkerRuntime::Attach(host.AddWorker(1), {.on_exit = [] {}, .on_unmap = {}}, DeadlineIn(kWatchdogNs));
  ASSERT_TRUE(runtime.ok());
  EXPECT_EQ((*runtime)->attach().process_id, "worker-test");
  auto load = (*runtime)->WaitForLoad(DeadlineIn(kWatchdogNs));
  ASSERT_TRUE(load.ok());
  EXPECT_EQ(*load, "{}");
}

}  // namespace
}  // namespace praas::worker
