#include "worker/nested.h"

#include <gtest/gtest.h>

#include <unordered_map>

#include "mini_host.h"

namespace praas::worker {
namespace {

constexpr size_t kSizes[] = {0, 1, 4095, 4096, 4097, 64 << 10, 16 << 20};

/// Function 0 returns its input as it stands, 1 fails with it, 2 returns bytes of its own.
void Serve(WorkerRuntime& runtime, const Invocation& invocation) {
  if (invocation.function == 1) {
    MiniHost::Check(runtime.Fail(invocation.handle, Code::kFunctionThrew, "thrown"));
  } else if (invocation.function == 2) {
    MiniHost::Check(
        runtime.Complete(invocation.handle, std::vector<std::byte>(invocation.input.begin(), invocation.input.end())));
  } else {
    MiniHost::Check(runtime.Complete(invocation.handle, invocation.input));
  }
}

uint64_t PostOk(WorkerRuntime& runtime, uint32_t function, std::span<const std::byte> input, uint32_t flags = 0) {
  auto call = runtime.Post(function, input, flags, 1, DeadlineIn(kWatchdogNs));
  MiniHost::Check(call.status(), call.ok());
  return *call;
}

/// The next reply, sleeping for it as an owner does that has nothing else to do.
NestedReply NextReply(WorkerRuntime& runtime) {
  const uint64_t deadline_ns = DeadlineIn(kWatchdogNs);
  for (;;) {
    if (auto reply = runtime.NextNested()) return *reply;
    if (NowNs() > deadline_ns) {
      ADD_FAILURE() << "no reply";
      return {};
    }
    runtime.Sleep(false, deadline_ns);
  }
}

TEST(Nested, CallsOfEverySizeReachAnotherWorkerAndComeBack) {
  MiniHost host({});
  {
    const WorkerThread worker(host, 1, Serve);
    auto caller = AttachWorker(host.AddWorker(2));
    for (const uint32_t function : {0u, 2u}) {
      for (const size_t bytes : kSizes) {
        SCOPED_TRACE(testing::Message() << "function " << function << ", " << bytes << " bytes");
        const auto input = Pattern(bytes);
        const uint64_t call = PostOk(*caller, function, input);
        const NestedReply reply = NextReply(*caller);
        EXPECT_EQ(reply.call, call);
        EXPECT_TRUE(reply.status.ok());
        EXPECT_TRUE(std::equal(reply.payload.begin(), reply.payload.end(), input.begin(), input.end()));
        caller->FreeNested(call);
        caller->FreeNested(call);  // harmless
      }
    }
    const uint64_t call = PostOk(*caller, 1, {});
    const NestedReply failed = NextReply(*caller);
    EXPECT_EQ(failed.status.code(), Code::kFunctionThrew);
    EXPECT_EQ(failed.status.message(), "thrown");
    caller->FreeNested(call);
  }
  host.ExpectClean();
}

TEST(Nested, AWorkerLearnsToWakeItsPeerWithoutTheHost) {
  MiniHost host({});
  {
    const WorkerThread worker(host, 1, Serve);
    auto caller = AttachWorker(host.AddWorker(2));
    const auto round_trip = [&] {
      const uint64_t call = PostOk(*caller, 0, {});
      EXPECT_EQ(NextReply(*caller).call, call);
      caller->FreeNested(call);
    };
    // The peer may at first find the caller awake, when there is nothing to signal.
    EXPECT_TRUE(Eventually([&] {
      round_trip();
      return host.relays() > 0;
    }));
    uint32_t before = 0;
    EXPECT_TRUE(Eventually([&] {
      before = host.relays();
      for (int i = 0; i < 50; ++i) round_trip();
      return host.relays() == before;
    }));
  }
  host.ExpectClean();
}

TEST(Nested, TenDeepOnOneWorkerThatDoesNotBlock) {
  MiniHost host({});
  auto runtime = AttachWorker(host.AddWorker(1));
  ASSERT_TRUE(host.AwaitReady(1));
  std::unordered_map<uint64_t, Invocation> waiting;  // by nested call
  uint16_t deepest = 0;
  uint32_t peak = 0;
  host.Post(0, Bytes("deep"));
  EXPECT_TRUE(Eventually([&] {
    while (auto invocation = runtime->TryNext(true)) {
      deepest = std::max(deepest, invocation->depth);
      if (invocation->depth == 10) {
        MiniHost::Check(runtime->Complete(invocation->handle, invocation->input));
        continue;
      }
      auto call =
          runtime->Post(0, invocation->input, 0, static_cast<uint16_t>(invocation->depth + 1), invocation->deadline_ns);
      MiniHost::Check(call.status(), call.ok());
      waiting.emplace(*call, *invocation);
      peak = std::max(peak, host.segment().participant(1).running.load());
    }
    while (auto reply = runtime->NextNested()) {
      const auto outer = waiting.extract(reply->call);
      MiniHost::Check(runtime->Complete(outer.mapped().handle, reply->payload));
      runtime->FreeNested(reply->call);
    }
    runtime->Sleep(true, DeadlineIn(kMilliNs));
    return host.dispatcher().HasCompletion();
  }));
  EXPECT_EQ(host.Await().text(), "deep");
  EXPECT_EQ(deepest, 10);
  EXPECT_EQ(peak, 10u);
  EXPECT_EQ(host.segment().participant(1).running.load(), 0u);
  host.ExpectClean();
}

TEST(Nested, ASynchronousCallIsServedByAFreeWorker) {
  for (const int64_t hot_ns : {int64_t{0}, int64_t{-1}}) {
    MiniHost host({.hot_ns = hot_ns});
    {
      const WorkerThread inner(host, 1, Serve);
      auto caller = AttachWorker(host.AddWorker(2));
      for (int i = 0; i < 200; ++i) {
        const auto input = Pattern(static_cast<size_t>(i) * 50);
        const uint64_t call = PostOk(*caller, 0, input, dispatch::kCallSync);
        auto reply = caller->WaitNested(call, DeadlineIn(kWatchdogNs));
        ASSERT_TRUE(reply.ok()) << reply.status().message();
        EXPECT_TRUE(std::equal(reply->payload.begin(), reply->payload.end(), input.begin(), input.end()));
        caller->FreeNested(call);
      }
      // Replies of other calls that come meanwhile are not lost.
      const uint64_t other = PostOk(*caller, 0, {});
      const uint64_t call = PostOk(*caller, 0, {});
      auto reply = caller->WaitNested(call, DeadlineIn(kWatchdogNs));
      // With one other worker the second call may find it busy with the first, which is a deadlock by definition.
      if (reply.ok()) {
        caller->FreeNested(call);
      } else {
        EXPECT_EQ(reply.status().code(), Code::kInvocationDeadlock);
      }
      EXPECT_EQ(NextReply(*caller).call, other);
      caller->FreeNested(other);
    }
    host.ExpectClean();
  }
}

TEST(Nested, ASynchronousCallWithoutAFreeWorkerIsADeadlock) {
  MiniHost host({});
  std::atomic<bool> release{false};
  {
    const WorkerThread busy(host, 1, [&](WorkerRuntime& runtime, const Invocation& invocation) {
      EXPECT_TRUE(Eventually([&] { return release.load(); }));
      MiniHost::Check(runtime.Complete(invocation.handle, {}));
    });
    auto caller = AttachWorker(host.AddWorker(2));
    const uint32_t blocker = host.Post(0, {});
    ASSERT_TRUE(Eventually([&] { return host.WordOf(blocker).state == dispatch::CallState::kClaimed; }));
    ASSERT_TRUE(Eventually([&] { return host.segment().participant(1).running.load() == 1; }));
    const uint64_t call = PostOk(*caller, 0, Pattern(10'000), dispatch::kCallSync);
    auto reply = caller->WaitNested(call, DeadlineIn(kWatchdogNs));
    EXPECT_EQ(reply.status().code(), Code::kInvocationDeadlock);
    // Without time left it is late, whoever is free.
    const uint64_t late = PostOk(*caller, 0, Pattern(10), dispatch::kCallSync);
    EXPECT_EQ(caller->WaitNested(late, NowNs()).status().code(), Code::kInvocationTimeout);
    EXPECT_EQ(caller->WaitNested(call, 0).status().code(), Code::kArgumentInvalid) << "it is gone";
    release.store(true);
    EXPECT_EQ(host.Await().code, Code::kOk);
  }
  host.ExpectClean();
}

TEST(Nested, WaitingEndsAtTheDeadlineAndTheLateReplyIsDropped) {
  MiniHost host({});
  std::atomic<bool> release{false};
  {
    const WorkerThread slow(host, 1, [&](WorkerRuntime& runtime, const Invocation& invocation) {
      EXPECT_TRUE(Eventually([&] { return release.load(); }));
      MiniHost::Check(runtime.Complete(invocation.handle, invocation.input));
    });
    auto caller = AttachWorker(host.AddWorker(2));
    const uint64_t call = PostOk(*caller, 0, Pattern(10'000), dispatch::kCallSync);
    ASSERT_TRUE(Eventually([&] { return host.segment().participant(1).running.load() == 1; }));
    EXPECT_EQ(caller->WaitNested(call, DeadlineIn(5 * kMilliNs)).status().code(), Code::kInvocationTimeout);
    release.store(true);
    EXPECT_TRUE(Eventually([&] {
      EXPECT_FALSE(caller->NextNested().has_value());
      return host.dispatcher().in_use() == 0;
    }));
  }
  host.ExpectClean();
}

TEST(Nested, CallsAreCancelledQueuedAndRunning) {
  MiniHost host({});
  auto caller = AttachWorker(host.AddWorker(2));
  const uint64_t queued = PostOk(*caller, 0, Pattern(10'000));
  caller->CancelNested(queued);
  caller->CancelNested(queued);
  NestedReply reply = NextReply(*caller);
  EXPECT_EQ(reply.call, queued);
  EXPECT_EQ(reply.status.code(), Code::kInvocationCancelled);
  EXPECT_FALSE(caller->NextNested().has_value());
  caller->FreeNested(queued);
  // Freed before it ended: nothing comes.
  caller->FreeNested(PostOk(*caller, 0, Pattern(10'000)));
  EXPECT_FALSE(caller->NextNested().has_value());
  EXPECT_EQ(host.dispatcher().in_use(), 0u);
  {
    const WorkerThread worker(host, 1, [](WorkerRuntime& runtime, const Invocation& invocation) {
      EXPECT_TRUE(Eventually([&] { return runtime.Cancelled(invocation.handle); }));
      MiniHost::Check(runtime.Fail(invocation.handle, Code::kInvocationCancelled, "seen"));
    });
    const uint64_t running = PostOk(*caller, 0, {});
    ASSERT_TRUE(Eventually([&] { return host.segment().participant(1).running.load() == 1; }));
    caller->CancelNested(running);
    reply = NextReply(*caller);
    EXPECT_EQ(reply.status.message(), "seen");
    caller->FreeNested(running);
  }
  caller.reset();
  host.ExpectClean();
}

TEST(Nested, LimitsAreErrors) {
  MiniHost host({.max_contiguous = 10'000, .calls = 64});
  auto caller = AttachWorker(host.AddWorker(1));
  const uint64_t deadline_ns = DeadlineIn(kWatchdogNs);
  EXPECT_EQ(caller->Post(0, Pattern(10'001), 0, 1, deadline_ns).status().code(), Code::kPayloadTooLarge);
  EXPECT_EQ(caller->Post(0, {}, 0, 65, deadline_ns).status().code(), Code::kInvocationDeadlock);
  std::vector<uint64_t> calls;
  for (;;) {
    auto call = caller->Post(0, {}, 0, 64, deadline_ns);
    if (!call.ok()) {
      EXPECT_EQ(call.status().code(), Code::kBackpressure);
      break;
    }
    calls.push_back(*call);
  }
  EXPECT_EQ(calls.size(), 64u);
  for (const uint64_t call : calls) caller->FreeNested(call);
  EXPECT_TRUE(caller->Post(0, {}, 0, 1, deadline_ns).ok());
}

TEST(Nested, FunctionsAreFoundByName) {
  MiniHost host({});
  auto runtime = AttachWorker(host.AddWorker(1));
  ASSERT_TRUE(host.AwaitReady(1));
  EXPECT_EQ(runtime->FindFunction("function0"), 0u);
  EXPECT_EQ(runtime->FindFunction("function7"), 7u);
  EXPECT_FALSE(runtime->FindFunction("function8").has_value());
  EXPECT_FALSE(runtime->FindFunction("").has_value());
}

}  // namespace
}  // namespace praas::worker
