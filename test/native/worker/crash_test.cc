#include <gtest/gtest.h>

#include <random>

#include "window_client.h"

/// Workers that are killed in the middle of things, and what the host finds.
namespace praas::worker {
namespace {

void Hang(WorkerRuntime&, const Invocation&) {
  for (;;) ::pause();
}

bool HasBegun(MiniHost& host, uint32_t index) { return dispatch::HasBegun(host.segment().call(index)); }

TEST(Crash, ACallIsAnsweredAndLeavesNothing) {
  MiniHost host({});
  test::Child worker = ForkWorker(host, 1, [](WorkerRuntime& runtime, const Invocation& invocation) {
    (void)runtime.AllocateOutput(invocation.handle, 100'000);
    Hang(runtime, invocation);
  });
  ASSERT_TRUE(host.AwaitReady(1));
  const uint32_t index = host.Post(0, Pattern(100'000));
  ASSERT_TRUE(Eventually([&] { return HasBegun(host, index) && host.pool().outputs().usage().used_blocks == 1; }));
  EXPECT_EQ(worker.Kill(), 128 + SIGKILL);
  host.Bury(1);
  EXPECT_EQ(host.Await().code, Code::kWorkerCrashed);
  host.ExpectClean();
}

TEST(Crash, IdempotentAndQueuedCallsRunElsewhere) {
  MiniHost host({});
  test::Child doomed = ForkWorker(host, 1, Hang);
  test::Child spare = ForkWorker(host, 2, [](WorkerRuntime& runtime, const Invocation& invocation) {
    MiniHost::Check(runtime.Complete(invocation.handle, invocation.input));
  });
  spare.Signal(SIGSTOP);
  spare.WaitStopped();
  ASSERT_TRUE(host.AwaitReady(1));
  const auto input = Pattern(50'000);
  const uint32_t begun = host.Post(0, input, {.flags = dispatch::kCallIdempotent});
  ASSERT_TRUE(Eventually([&] { return HasBegun(host, begun); }));
  host.Post(0, input);
  doomed.Kill();
  host.Bury(1);
  spare.Signal(SIGCONT);
  ASSERT_TRUE(host.AwaitReady(2));
  for (int i = 0; i < 2; ++i) {
    const MiniHost::Reply reply = host.Await();
    EXPECT_EQ(reply.code, Code::kOk);
    EXPECT_TRUE(reply.payload == input);
  }
  host.Drain(2);
  EXPECT_EQ(spare.Wait(), 0);
  host.ExpectClean();
}

TEST(Crash, AWindowIsFreedForOthers) {
  MiniHost host({.hot_ns = -1});
  WindowClient client(host.OpenWindow(0));
  test::Child worker = ForkWorker(host, 1, Hang);
  ASSERT_TRUE(host.AwaitReady(1));
  // Workers also look at windows that nobody has adopted, this one among them before it does.
  ASSERT_TRUE(Eventually([&] { return host.segment().window(0).poller.load() == 1; }));
  (void)client.Submit({.input = Pattern(10'000), .output_capacity = 10'000});
  ASSERT_TRUE(Eventually([&] { return HasBegun(host, 0); }));
  (void)client.Submit({.input = Pattern(10)});  // lies in the ring of the window the dead worker polled
  worker.Kill();
  EXPECT_EQ(host.segment().window(0).poller.load(), 1u);
  host.Bury(1);
  EXPECT_EQ(host.segment().window(0).poller.load(), 0u);
  EXPECT_EQ(client.Await().status, static_cast<uint32_t>(Code::kWorkerCrashed));
  const WorkerThread next(host, 2, [](WorkerRuntime& runtime, const Invocation& invocation) {
    MiniHost::Check(runtime.Complete(invocation.handle, invocation.input));
  });
  EXPECT_TRUE(Equal(client.Payload(client.Await()), Pattern(10)));
  host.ExpectClean();
}

/// A worker that writes results through a descriptor, which a function may close.
TEST(Crash, AResultThatCannotBeWrittenIsNone) {
  for (const bool fails : {false, true}) {
    MiniHost host({.hot_ns = -1});
    WindowClient client(host.OpenWindow(0));
    UniqueFd control = host.AddWorker(1);
    test::Child worker = test::Child::Fork([&] {
      host.ForgetLinks();
      const auto runtime = AttachWorker(std::move(control));
      MiniHost::Check(runtime->Guard(false));
      RunWorker(*runtime, [fails](WorkerRuntime& running, const Invocation& invocation) {
        ::close_range(STDERR_FILENO + 1, ~0u, 0);
        static constexpr std::string_view kText = "a result, or why there is none";
        if (fails) {
          (void)running.Fail(invocation.handle, Code::kFunctionThrew, kText);
        } else {
          (void)running.Complete(invocation.handle, std::as_bytes(std::span(kText)));
        }
      });
      return 0;
    });
    ASSERT_TRUE(host.AwaitReady(1));
    // The client looks for its answer itself, so that nobody has to wake it.
    (void)client.Submit({.output_capacity = 100});
    EXPECT_EQ(worker.Wait(), 128 + SIGABRT);
    EXPECT_FALSE(client.window().HasAnswer()) << "of a worker that could not write it";
    host.Bury(1);
    EXPECT_EQ(client.Await().status, static_cast<uint32_t>(Code::kWorkerCrashed));
    host.ExpectClean();
  }
}

/// A worker that cannot tell its client that there is too little room again.
TEST(Crash, AResultThatWaitsForRoomIsDeliveredByTheNext) {
  constexpr size_t kResult = 5'000;
  const auto answer = [](WorkerRuntime& runtime, const Invocation& invocation) {
    MiniHost::Check(runtime.Complete(invocation.handle, Pattern(kResult)));
  };
  MiniHost host({.hot_ns = -1});
  {
    WindowClient client(host.OpenWindow(0));
    const auto closed = [&]() -> std::atomic<uint64_t>& { return host.segment().participant(5).running_since_ns; };
    UniqueFd control = host.AddWorker(1);
    const auto kept = static_cast<unsigned>(control.get());
    test::Child worker = test::Child::Fork([&] {
      host.ForgetLinks();
      const auto runtime = AttachWorker(std::move(control));
      MiniHost::Check(runtime->Guard(false));
      // It never sleeps, and keeps what it hears of its host by: losing those would end it, too.
      while (!runtime->draining()) {
        (void)runtime->TakeNotices();
        const auto invocation = runtime->TryNext(true);
        if (!invocation) continue;
        answer(*runtime, *invocation);
        ::close_range(STDERR_FILENO + 1, kept - 1, 0);
        ::close_range(kept + 1, ~0u, 0);
        runtime->segment().participant(5).running_since_ns.store(1);
      }
      return 0;
    });
    ASSERT_TRUE(host.AwaitReady(1));
    // At its deadline the worker would end, too.
    const uint32_t call = client.Submit({.deadline_ns = DeadlineIn(10 * kWatchdogNs)});
    ASSERT_TRUE(client.Await().need_room);
    ASSERT_TRUE(Eventually([&] { return closed().load() == 1; }));
    ASSERT_TRUE(client.window().PrepareToSleep());
    ASSERT_TRUE(client.window().GiveRoom(call, client.Allocate(kResult - 1), kResult - 1));
    ASSERT_TRUE(Eventually([&] { return !worker.Running(); }));
    EXPECT_EQ(worker.Wait(), 128 + SIGABRT);
    host.Bury(1);

    const WorkerThread next(host, 2, answer);
    ASSERT_TRUE(client.Await().need_room);
    ASSERT_TRUE(client.window().GiveRoom(call, client.Allocate(kResult), kResult));
    EXPECT_TRUE(Equal(client.Payload(client.Await()), Pattern(kResult)));
    client.window().Close(call);
  }
  host.ExpectClean();
}

/// Kills at moments nobody chose: every call gets exactly one answer, and nothing leaks.
TEST(Crash, AtRandomMomentsUnderLoad) {
  const auto seed = static_cast<uint32_t>(NowNs());
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  const auto echo = [](WorkerRuntime& runtime, const Invocation& invocation) {
    auto output = runtime.AllocateOutput(invocation.handle, invocation.input.size());
    if (output.ok() && !invocation.input.empty()) {
      std::memcpy(output->bytes.data(), invocation.input.data(), invocation.input.size());
    }
    (void)runtime.Complete(invocation.handle, output.ok() ? output->bytes : std::span<std::byte>());
  };
  const size_t sizes[] = {0, 100, 5000, 100'000};
  for (int round = 0; round < 6; ++round) {
    // Forked by the one thread there is: a host thread comes later and would not be in the child.
    MiniHost fresh({.hot_ns = 20'000});
    test::Child worker = ForkWorker(fresh, 1, echo);
    ASSERT_TRUE(fresh.AwaitReady(1));
    uint32_t posted = 0;
    uint32_t answered = 0;
    const uint64_t kill_ns = DeadlineIn(random() % 5'000'000);
    const auto take = [&] {
      while (auto reply = fresh.TryTake()) {
        EXPECT_TRUE(reply->code == Code::kOk || reply->code == Code::kWorkerCrashed);
        ++answered;
      }
    };
    while (NowNs() < kill_ns) {
      if (posted - answered < 20) {
        fresh.Post(0, Pattern(sizes[random() % 4]));
        ++posted;
      }
      take();
    }
    worker.Kill();
    fresh.Bury(1);
    // What was still queued is left for the next worker; this one runs on a thread.
    const WorkerThread next(fresh, 2, echo);
    EXPECT_TRUE(Eventually([&] {
      take();
      return answered == posted;
    })) << answered
        << " of " << posted;
    fresh.ExpectClean();
  }
}

}  // namespace
}  // namespace praas::worker
