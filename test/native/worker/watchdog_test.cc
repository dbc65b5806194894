#include "worker/watchdog.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <random>

#include "window_client.h"

namespace praas::worker {
namespace {

/// A place in shared memory that a forked worker writes and the test reads.
std::atomic<uint64_t>& Scribble(const segment::Segment& segment) { return segment.participant(5).running_since_ns; }

void SpinForEver() {
  for (SpinYield spin;; spin.Step()) {
  }
}

TEST(Watchdog, AnswersAtTheDeadlineWhileTheFunctionRuns) {
  MiniHost host({.grace_ns = kWatchdogNs});
  {
    std::atomic<bool> answered{false};
    const WorkerThread worker(host, 1, [&](WorkerRuntime& runtime, const Invocation& invocation) {
      auto output = runtime.AllocateOutput(invocation.handle, 50'000);
      MiniHost::Check(output.status(), output.ok());
      EXPECT_TRUE(Eventually([&] { return runtime.Cancelled(invocation.handle); }));
      EXPECT_TRUE(Eventually([&] { return answered.load(); }));
      EXPECT_EQ(runtime.TakeCancellations(), std::vector<uint64_t>{invocation.handle});
      // The caller is gone; what the function still holds is its own.
      EXPECT_TRUE(Equal(invocation.input, Pattern(50'000)));
      std::memset(output->bytes.data(), 0xee, output->bytes.size());
      EXPECT_EQ(runtime.AllocateOutput(invocation.handle, 1).status().code(), Code::kInvocationTimeout);
      EXPECT_EQ(runtime.Complete(invocation.handle, output->bytes).code(), Code::kInvocationTimeout);
      EXPECT_EQ(runtime.Complete(invocation.handle, {}).code(), Code::kArgumentInvalid);
    });
    const auto input = Pattern(50'000);
    host.Post(0, input, {.deadline_ns = DeadlineIn(kBriefNs)});
    EXPECT_EQ(host.Await().code, Code::kInvocationTimeout);
    // Memory of the answered call must not reach others while the function is inside.
    std::vector<segment::Arena::Allocation> others;
    for (segment::Arena* arena : {&host.pool().inputs(), &host.pool().outputs()}) {
      auto block = arena->Allocate(50'000, dispatch::CallBlockOwner(0), DeadlineIn(kWatchdogNs));
      ASSERT_TRUE(block.ok());
      std::memset(host.pool().base() + block->offset, 0xaa, 50'000);
      others.push_back(*block);
    }
    answered.store(true);
    EXPECT_TRUE(Eventually([&] { return host.counters(1).failures.load() == 1; }));
    EXPECT_EQ(host.pool().base()[others[1].offset + 49'999], std::byte{0xaa});
    EXPECT_TRUE(host.pool().inputs().Free(others[0].block, DeadlineIn(kWatchdogNs)).ok());
    EXPECT_TRUE(host.pool().outputs().Free(others[1].block, DeadlineIn(kWatchdogNs)).ok());
  }
  host.ExpectClean();
}

TEST(Watchdog, ALateFunctionKeepsItsSmallInput) {
  MiniHost host({.grace_ns = kWatchdogNs});
  {
    std::atomic<bool> answered{false};
    const WorkerThread worker(host, 1, [&](WorkerRuntime& runtime, const Invocation& invocation) {
      EXPECT_TRUE(Eventually([&] { return answered.load(); }));
      EXPECT_TRUE(Equal(invocation.input, Pattern(100)));
      EXPECT_EQ(runtime.Complete(invocation.handle, invocation.input).code(), Code::kInvocationTimeout);
    });
    const uint32_t index = host.Post(0, Pattern(100), {.deadline_ns = DeadlineIn(kBriefNs)});
    EXPECT_EQ(host.Await().code, Code::kInvocationTimeout);
    // The next call of that entry.
    const std::vector<std::byte> next(100, std::byte{0xaa});
    EXPECT_TRUE(host.pool().Write(host.pool().InputSlot(index, next.size()), next).ok());
    answered.store(true);
    EXPECT_TRUE(Eventually([&] { return host.counters(1).failures.load() == 1; }));
  }
  host.ExpectClean();
}

TEST(Watchdog, ALateFailureIsLateAsWell) {
  MiniHost host({.grace_ns = kWatchdogNs});
  const WorkerThread worker(host, 1, [&](WorkerRuntime& runtime, const Invocation& invocation) {
    EXPECT_TRUE(Eventually([&] { return runtime.Cancelled(invocation.handle); }));
    EXPECT_EQ(runtime.Fail(invocation.handle, Code::kFunctionThrew, "late").code(), Code::kInvocationTimeout);
  });
  host.Post(0, Pattern(10), {.deadline_ns = DeadlineIn(kBriefNs)});
  EXPECT_EQ(host.Await().code, Code::kInvocationTimeout);
  host.ExpectClean();
}

TEST(Watchdog, AnEarlierDeadlineIsNotMissedBehindALaterOne) {
  MiniHost host({.grace_ns = kWatchdogNs});
  auto runtime = AttachWorker(host.AddWorker(1));
  ASSERT_TRUE(host.AwaitReady(1));
  host.Post(0, {});
  const uint32_t brief = host.Post(0, {}, {.deadline_ns = DeadlineIn(kBriefNs)});
  std::vector<Invocation> running;
  EXPECT_TRUE(Eventually([&] {
    if (auto invocation = runtime->TryNext(true)) running.push_back(*invocation);
    return running.size() == 2;
  }));
  const MiniHost::Reply reply = host.Await();
  EXPECT_EQ(reply.index, brief);
  EXPECT_EQ(reply.code, Code::kInvocationTimeout);
  // The owner is woken, and told which one.
  pollfd event{runtime->event_fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&event, 1, 60'000), 1);
  const auto expired = runtime->TakeCancellations();
  ASSERT_EQ(expired.size(), 1u);
  for (const Invocation& invocation : running) {
    EXPECT_EQ(runtime->Complete(invocation.handle, {}).code(),
              invocation.handle == expired[0] ? Code::kInvocationTimeout : Code::kOk);
  }
  EXPECT_EQ(host.Await().code, Code::kOk);
  runtime.reset();
  host.ExpectClean();
}

TEST(Watchdog, ExactlyOneAnswerWhenCompletionAndDeadlineMeet) {
  MiniHost host({.hot_ns = -1, .grace_ns = kWatchdogNs});
  {
    const WorkerThread worker(host, 1, [](WorkerRuntime& runtime, const Invocation& invocation) {
      auto output = runtime.AllocateOutput(invocation.handle, 5000);
      while (NowNs() + 20'000 < invocation.deadline_ns) CpuRelax();
      const Code code =
          runtime.Complete(invocation.handle, output.ok() ? output->bytes : std::span<std::byte>()).code();
      EXPECT_TRUE(code == Code::kOk || code == Code::kInvocationTimeout);
    });
    std::mt19937 random(7);
    const auto input = Pattern(6000);
    int timeouts = 0;
    for (int i = 0; i < 300; ++i) {
      const uint32_t index = host.Post(0, input, {.deadline_ns = NowNs() + random() % 200'000});
      const MiniHost::Reply reply = host.Await();
      EXPECT_EQ(reply.index, index);
      EXPECT_TRUE(reply.code == Code::kOk || reply.code == Code::kInvocationTimeout);
      timeouts += reply.code == Code::kInvocationTimeout;
    }
    EXPECT_GT(timeouts, 0);
    EXPECT_FALSE(host.TryTake().has_value());
  }
  host.ExpectClean();
}

TEST(Watchdog, AnOverdueCallThatWritesIntoItsClientIsAnsweredOnceItStops) {
  MiniHost host({.hot_ns = -1, .grace_ns = kWatchdogNs});
  {
    WindowClient client(host.OpenWindow(0));
    std::atomic<bool> looked{false};
    const WorkerThread worker(host, 1, [&](WorkerRuntime& runtime, const Invocation& invocation) {
      auto output = runtime.AllocateOutput(invocation.handle, 10'000);
      MiniHost::Check(output.status(), output.ok());
      EXPECT_TRUE(Eventually([&] { return runtime.Cancelled(invocation.handle); }));
      EXPECT_TRUE(Eventually([&] { return looked.load(); }));
      std::memset(output->bytes.data(), 1, output->bytes.size());
      EXPECT_EQ(runtime.Complete(invocation.handle, output->bytes).code(), Code::kInvocationTimeout);
    });
    const uint64_t deadline_ns = DeadlineIn(kBriefNs);
    (void)client.Submit({.output_capacity = 10'000, .deadline_ns = deadline_ns});
    EXPECT_TRUE(Eventually([&] { return NowNs() > deadline_ns + 20 * kMilliNs; }));
    EXPECT_FALSE(client.Poll());
    looked.store(true);
    EXPECT_EQ(client.Await().status, static_cast<uint32_t>(Code::kInvocationTimeout));
    // Without room in use there is nothing to wait for.
  }
  host.ExpectClean();
}

TEST(Watchdog, AnOverdueCallWithALargeInputOfItsClientIsAnsweredOnceItStops) {
  MiniHost host({.hot_ns = -1, .grace_ns = kWatchdogNs});
  {
    WindowClient client(host.OpenWindow(0));
    std::atomic<bool> looked{false};
    const WorkerThread worker(host, 1, [&](WorkerRuntime& runtime, const Invocation& invocation) {
      EXPECT_TRUE(Eventually([&] { return runtime.Cancelled(invocation.handle); }));
      EXPECT_TRUE(Eventually([&] { return looked.load(); }));
      EXPECT_TRUE(Equal(invocation.input, Pattern(10'000)));
      EXPECT_EQ(runtime.Complete(invocation.handle, {}).code(), Code::kInvocationTimeout);
    });
    const uint64_t deadline_ns = DeadlineIn(kBriefNs);
    (void)client.Submit({.input = Pattern(10'000), .deadline_ns = deadline_ns});
    EXPECT_TRUE(Eventually([&] { return NowNs() > deadline_ns + 20 * kMilliNs; }));
    EXPECT_FALSE(client.Poll());
    looked.store(true);
    EXPECT_EQ(client.Await().status, static_cast<uint32_t>(Code::kInvocationTimeout));
  }
  host.ExpectClean();
}

TEST(Watchdog, AWindowCallIsAnsweredAtItsDeadlineAndItsFunctionKeepsTheSmallInput) {
  MiniHost host({.hot_ns = -1, .grace_ns = kWatchdogNs});
  {
    WindowClient client(host.OpenWindow(0));
    std::atomic<bool> answered{false};
    const uint64_t deadline_ns = DeadlineIn(kBriefNs);
    const WorkerThread worker(host, 1, [&](WorkerRuntime& runtime, const Invocation& invocation) {
      if (invocation.deadline_ns != deadline_ns) return MiniHost::Check(runtime.Complete(invocation.handle, {}));
      EXPECT_TRUE(Eventually([&] { return answered.load(); }));
      EXPECT_TRUE(Equal(invocation.input, Pattern(100)));
      EXPECT_EQ(runtime.Complete(invocation.handle, invocation.input).code(), Code::kInvocationTimeout);
    });
    (void)client.Submit({.input = Pattern(100), .deadline_ns = deadline_ns});
    EXPECT_EQ(client.Await().status, static_cast<uint32_t>(Code::kInvocationTimeout));
    // The next call of this client lies in the same place.
    (void)client.Submit({.input = std::vector<std::byte>(100, std::byte{0xaa})});
    answered.store(true);
    EXPECT_EQ(client.Await().status, static_cast<uint32_t>(Code::kOk));
  }
  host.ExpectClean();
}

TEST(Watchdog, KillsTheWorkerAfterTheGraceTime) {
  MiniHost host({.grace_ns = 20 * kMilliNs});
  test::Child worker = ForkWorker(host, 1, [](WorkerRuntime& runtime, const Invocation& invocation) {
    auto output = runtime.AllocateOutput(invocation.handle, 100'000);
    SpinForEver();
  });
  ASSERT_TRUE(host.AwaitReady(1));
  const uint32_t index = host.Post(0, Pattern(100'000), {.deadline_ns = DeadlineIn(kBriefNs)});
  ASSERT_TRUE(Eventually([&] { return dispatch::HasBegun(host.segment().call(index)); }));
  EXPECT_EQ(host.Await().code, Code::kInvocationTimeout);
  EXPECT_EQ(worker.Wait(), 128 + SIGKILL);
  EXPECT_NE(host.pool().outputs().usage().used_blocks, 0u) << "the function kept its memory";
  host.Bury(1);
  host.ExpectClean();
}

TEST(Watchdog, ACancelledCallIsNotKilled) {
  MiniHost host({.grace_ns = 1});
  std::atomic<bool> begun{false};
  const WorkerThread worker(host, 1, [&](WorkerRuntime& runtime, const Invocation& invocation) {
    begun.store(true);
    EXPECT_TRUE(Eventually([&] { return runtime.Cancelled(invocation.handle); }));
    EXPECT_TRUE(Eventually([&] { return (runtime.TakeNotices() & dispatch::kNoticeCancel) != 0; }));
    EXPECT_TRUE(runtime.Complete(invocation.handle, {}).ok());
  });
  const uint32_t index = host.Post(0, {});
  // Not only claimed: a call that is cancelled before its function begins is not run.
  ASSERT_TRUE(Eventually([&] { return begun.load(); }));
  EXPECT_FALSE(host.dispatcher().Cancel(index, host.WordOf(index).generation, Code::kInvocationCancelled));
  EXPECT_EQ(host.Await().code, Code::kOk);
}

TEST(Watchdog, EndsAnIdleWorkerWithItsHost) {
  MiniHost host({});
  test::Child worker = ForkWorker(host, 1, {});
  ASSERT_TRUE(host.AwaitReady(1));
  host.CloseControl(1);
  EXPECT_EQ(worker.Wait(), 0);
}

TEST(Watchdog, EndsABusyWorkerWithItsHost) {
  MiniHost host({});
  test::Child worker = ForkWorker(host, 1, [](WorkerRuntime& runtime, const Invocation&) {
    Scribble(runtime.segment()).store(1);
    SpinForEver();
  });
  ASSERT_TRUE(host.AwaitReady(1));
  host.Post(0, {});
  ASSERT_TRUE(Eventually([&] { return Scribble(host.segment()).load() == 1; }));
  host.CloseControl(1);
  EXPECT_EQ(worker.Wait(), 0);
  host.Bury(1);
  EXPECT_EQ(host.Await().code, Code::kWorkerCrashed);
  host.ExpectClean();
}

TEST(Watchdog, EndsAWorkerThatHasNoDescriptorsForAWindow) {
  MiniHost host({});
  {
    WindowClient client(host.OpenWindow(0));
    UniqueFd control = host.AddWorker(1);
    test::Child worker = test::Child::Fork([&] {
      host.ForgetLinks();
      const auto runtime = AttachWorker(std::move(control));
      // Before it has waited for anything it has a call, whose function leaves it no descriptors to wait with.
      while (Scribble(runtime->segment()).load() == 0) ::usleep(100);
      RunWorker(*runtime, [](WorkerRuntime& running, const Invocation& invocation) {
        const rlimit few{128, 128};
        if (::setrlimit(RLIMIT_NOFILE, &few) != 0) ::_exit(1);
        while (::dup(STDERR_FILENO) >= 0) {
        }
        (void)running.Complete(invocation.handle, {});
      });
      return 0;
    });
    ASSERT_TRUE(host.AwaitReady(1));
    host.Post(0, {});
    Scribble(host.segment()).store(1);
    ASSERT_EQ(host.Await().code, Code::kOk);
    (void)client.Submit({.input = Pattern(100)});
    host.ConsumeWindow(0);
    EXPECT_EQ(worker.Wait(), 128 + SIGKILL);
    host.Bury(1);
  }
}

TEST(Watchdog, CallsTheHookOfATestInstead) {
  MiniHost host({.grace_ns = kMilliNs});
  std::atomic<int> exits{0};
  auto runtime = AttachWorker(host.AddWorker(1), {.on_exit = [&] { exits.fetch_add(1); }});
  ASSERT_TRUE(host.AwaitReady(1));
  host.Post(0, {}, {.deadline_ns = DeadlineIn(kBriefNs)});
  std::optional<Invocation> invocation;
  EXPECT_TRUE(Eventually([&] { return (invocation = runtime->TryNext(true)).has_value(); }));
  EXPECT_EQ(host.Await().code, Code::kInvocationTimeout);
  EXPECT_TRUE(Eventually([&] { return exits.load() == 1; }));
  EXPECT_EQ(runtime->Complete(invocation->handle, {}).code(), Code::kInvocationTimeout);
  host.CloseControl(1);
  EXPECT_TRUE(Eventually([&] { return exits.load() == 2; }));
  EXPECT_EQ(runtime->WaitForLoad(DeadlineIn(kWatchdogNs)).ok(), true) << "it came before";
}

}  // namespace
}  // namespace praas::worker
