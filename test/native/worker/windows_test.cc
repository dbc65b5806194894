#include "worker/windows.h"

#include <gtest/gtest.h>

#include "support/stepped.h"
#include "window_client.h"

namespace praas::worker {
namespace {

constexpr size_t kSizes[] = {0, 1, 4095, 4096, 4097, 64 << 10, 16 << 20};

/// Function 0 returns its input as it stands, 1 builds the result in place, 2 returns bytes of its own, 3 fails.
void Serve(WorkerRuntime& runtime, const Invocation& invocation) {
  const std::span<const std::byte> input = invocation.input;
  if (invocation.function == 0) {
    MiniHost::Check(runtime.Complete(invocation.handle, input));
  } else if (invocation.function == 1) {
    auto output = runtime.AllocateOutput(invocation.handle, input.size());
    MiniHost::Check(output.status(), output.ok());
    if (!input.empty()) std::memcpy(output->bytes.data(), input.data(), input.size());
    MiniHost::Check(runtime.Complete(invocation.handle, output->bytes));
  } else if (invocation.function == 2) {
    MiniHost::Check(runtime.Complete(invocation.handle, std::vector<std::byte>(input.begin(), input.end())));
  } else {
    MiniHost::Check(runtime.Fail(invocation.handle, Code::kFunctionThrew, "thrown"));
  }
}

/// Warm: the host consumes the ring. Hot: the worker does, and the host never touches it.
class WindowCalls : public testing::TestWithParam<bool> {
 protected:
  [[nodiscard]] bool hot() const { return GetParam(); }
  [[nodiscard]] MiniHost::Options options() const { return {.hot_ns = hot() ? -1 : 0}; }
  void Tend(MiniHost& host) const {
    if (!hot() && host.SubmissionSignalled(0)) host.ConsumeWindow(0);
  }
};
INSTANTIATE_TEST_SUITE_P(Worker, WindowCalls, testing::Bool(),
                         [](const auto& info) { return info.param ? "Hot" : "Warm"; });

TEST_P(WindowCalls, AreAnsweredInTheWindowInEverySizeAndWay) {
  MiniHost host(options());
  {
    WindowClient client(host.OpenWindow(0, 256u << 20));
    const WorkerThread worker(host, 1, Serve);
    for (uint32_t function = 0; function < 3; ++function) {
      for (const size_t bytes : kSizes) {
        SCOPED_TRACE(testing::Message() << "function " << function << ", " << bytes << " bytes");
        const auto input = Pattern(bytes);
        const uint32_t call = client.Submit({.function = function, .input = input, .output_capacity = bytes});
        const auto completion = client.Await([&] { Tend(host); });
        EXPECT_EQ(completion.call, call);
        EXPECT_FALSE(completion.need_room);
        EXPECT_EQ(completion.status, 0u);
        EXPECT_TRUE(Equal(client.Payload(completion), input));
        client.window().Close(call);
        for (const uint64_t unused : {completion.result_offset}) (void)unused;
      }
    }
    EXPECT_EQ(host.counters(1).copied_bytes.load(), size_t{4097 + (64 << 10) + (16 << 20)}) << "function 2's alone";
    EXPECT_EQ(host.counters(1).window_calls.load(), hot() ? 3 * std::size(kSizes) : 0);
  }
  host.ExpectClean();
}

TEST_P(WindowCalls, GetTheirErrors) {
  MiniHost host(options());
  {
    WindowClient client(host.OpenWindow(0));
    const WorkerThread worker(host, 1, Serve);
    (void)client.Submit({.function = 3});
    const auto failed = client.Await([&] { Tend(host); });
    EXPECT_EQ(failed.status, static_cast<uint32_t>(Code::kFunctionThrew));
    EXPECT_EQ(client.Text(failed), "thrown");
    (void)client.Submit({.function = 100});
    EXPECT_EQ(client.Await([&] { Tend(host); }).status, static_cast<uint32_t>(Code::kFunctionUnknown));
    (void)client.Submit({.function = 0, .deadline_ns = NowNs()});
    EXPECT_EQ(client.Await([&] { Tend(host); }).status, static_cast<uint32_t>(Code::kInvocationTimeout));
  }
  host.ExpectClean();
}

TEST(Windows, ACallWhoseWindowCannotBeMappedIsLeftToTheHost) {
  MiniHost host({.refuses_windows = true});
  {
    WindowClient client(host.OpenWindow(0));
    const WorkerThread worker(host, 1, Serve);
    (void)client.Submit({.function = 0});
    host.ConsumeWindow(0);
    std::optional<uint32_t> index;
    ASSERT_TRUE(Eventually([&] { return (index = host.dispatcher().NextCompletion()).has_value(); }));
    const dispatch::CallEntry& entry = host.segment().call(*index);
    EXPECT_EQ(entry.origin, dispatch::Origin::kWindow);
    EXPECT_EQ(entry.status, static_cast<uint32_t>(Code::kConnectionLost));
    EXPECT_EQ(entry.output.bytes, kNotMapped.size());
    host.FreeEntry(*index);
  }
  host.ExpectClean();
}

/// The host gives a window's slot to another client at any instruction between a worker's look at the ring and its
/// becoming the consumer: from then on the host waits for it.
TEST(Windows, ARingIsNotTakenOfAClientWhoseSlotIsAnothersByNow) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ten times the instructions under a sanitizer";
#endif
  constexpr uint16_t kWorker = 1;
  // How many instructions a worker has made when it is the consumer of the second call; with `moved_after`, the slot
  // is another client's after so many.
  const auto steps = [&](uint64_t moved_after) -> uint64_t {
    MiniHost host({.hot_ns = -1});
    WindowClient client(host.OpenWindow(0));
    (void)client.Submit({.function = 0});
    UniqueFd control = host.AddWorker(kWorker);
    std::unique_ptr<WorkerRuntime> runtime;
    test::Stepped worker(
        [&] {
          host.ForgetLinks();
          runtime = AttachWorker(std::move(control));
        },
        [&] {
          // With the first call it maps the window and becomes its poller.
          std::optional<Invocation> first;
          while (!(first = runtime->TryNext(true))) {
          }
          Serve(*runtime, *first);
          ::raise(SIGSTOP);
          const bool taken = runtime->TryNext(true).has_value();
          ::raise(taken ? SIGUSR1 : SIGSTOP);
        });
    if (!worker.alive()) return 0;
    EXPECT_TRUE(host.AwaitReady(kWorker));
    worker.Run();
    client.window().Close(client.Await().call);
    (void)client.Submit({.function = 0});
    segment::WindowSlot& slot = host.segment().window(0);
    uint64_t steps = 0;
    for (; worker.alive() && slot.consumer.load() == 0 && steps < moved_after && steps < 100'000; ++steps)
      worker.Step();
    if (steps < moved_after) return steps;
    slot.generation.fetch_add(1);
    const bool before = slot.consumer.load() == 0;
    worker.Run();
    if (before) {
      EXPECT_EQ(host.dispatcher().in_use(), 0u) << "moved after " << moved_after << " instructions";
    }
    EXPECT_EQ(slot.consumer.load(), 0u);
    return steps;
  };
  const uint64_t whole = steps(UINT64_MAX);
  if (whole == 0) GTEST_SKIP() << "ptrace is not permitted here";
  ASSERT_LT(whole, 100'000u) << "the worker never became the consumer";
  for (uint64_t before = 1; before <= std::min<uint64_t>(whole, 60) && !HasFailure(); ++before) {
    (void)steps(whole - before);
  }
}

TEST_P(WindowCalls, WaitForRoomWhenTheResultIsTooLarge) {
  MiniHost host(options());
  {
    WindowClient client(host.OpenWindow(0));
    const WorkerThread worker(host, 1, [](WorkerRuntime& runtime, const Invocation& invocation) {
      auto output = runtime.AllocateOutput(invocation.handle, 100'000);
      MiniHost::Check(output.status(), output.ok());
      std::memset(output->bytes.data(), 7, output->bytes.size());
      MiniHost::Check(runtime.Complete(invocation.handle, output->bytes));
    });
    const uint32_t call = client.Submit({.output_capacity = 4096});
    auto completion = client.Await([&] { Tend(host); });
    ASSERT_TRUE(completion.need_room);
    EXPECT_EQ(completion.result_bytes, 100'000u);
    // Too little once more, then enough.
    ASSERT_TRUE(client.window().GiveRoom(call, client.Allocate(99'999), 99'999));
    completion = client.Await([&] { Tend(host); });
    ASSERT_TRUE(completion.need_room);
    ASSERT_TRUE(client.window().GiveRoom(call, client.Allocate(100'000), 100'000));
    completion = client.Await([&] { Tend(host); });
    EXPECT_FALSE(completion.need_room);
    EXPECT_EQ(completion.status, 0u);
    EXPECT_TRUE(Equal(client.Payload(completion), std::vector<std::byte>(100'000, std::byte{7})));
    client.window().Close(call);

    // Or the client gives up: the result is dropped.
    const uint32_t dropped = client.Submit({.output_capacity = 0});
    ASSERT_TRUE(client.Await([&] { Tend(host); }).need_room);
    client.window().GiveUp(dropped);
    completion = client.Await([&] { Tend(host); });
    EXPECT_EQ(completion.call, dropped);
    EXPECT_EQ(completion.status, static_cast<uint32_t>(Code::kInvocationCancelled));
  }
  host.ExpectClean();
}

TEST_P(WindowCalls, RoomForAResultThatIsNotParkedIsRefused) {
  MiniHost host(options());
  {
    WindowClient client(host.OpenWindow(0));
    const WorkerThread worker(host, 1, [](WorkerRuntime& runtime, const Invocation& invocation) {
      MiniHost::Check(runtime.Complete(invocation.handle, Pattern(5000)));
    });
    const uint32_t call = client.Submit({});
    ASSERT_TRUE(client.Await([&] { Tend(host); }).need_room);
    // Another entry than the parked one, as a damaged client would name it.
    auto* calls = reinterpret_cast<window::WindowCall*>(client.window().Bytes(window::kSlotsOffset, 1).data() -
                                                        (window::kSlotsOffset - window::kCallsOffset));
    const uint32_t parked = std::exchange(calls[call].parked, 77);
    if (hot()) {  // the host of this test asserts that it is parked
      ASSERT_TRUE(client.window().GiveRoom(call, client.Allocate(5000), 5000));
      EXPECT_EQ(client.Await().status, static_cast<uint32_t>(Code::kProtocolInvalid));
    }
    // The result stays parked until its deadline, when the host drops it.
    ASSERT_TRUE(host.dispatcher().Unpark(parked, 0, window::OriginCall(call, 1)));
    host.FreeEntry(parked);
  }
  host.ExpectClean();
}

TEST(Windows, AHotWorkerPostsWhatItCannotTakeForOthers) {
  MiniHost host({.hot_ns = -1});
  {
    WindowClient client(host.OpenWindow(0));
    std::atomic<uint32_t> meeting{0};
    const Handler meet = [&](WorkerRuntime& runtime, const Invocation& invocation) {
      // Ends only when both workers are inside at the same time.
      meeting.fetch_add(1);
      EXPECT_TRUE(Eventually([&] { return meeting.load() >= 2; }));
      MiniHost::Check(runtime.Complete(invocation.handle, invocation.input));
    };
    const WorkerThread first(host, 1, meet);
    const WorkerThread second(host, 2, meet);
    const auto input = Pattern(100);
    (void)client.Submit({.input = input});
    (void)client.Submit({.input = input});
    for (int i = 0; i < 2; ++i) EXPECT_TRUE(Equal(client.Payload(client.Await()), input));
  }
  host.ExpectClean();
}

TEST(Windows, ManyClientsAndCallsInFlightAreAllAnswered) {
  MiniHost host({.hot_ns = 50'000, .calls = 64});  // hot and cold in turn; fewer entries than calls in flight
  {
    std::vector<std::unique_ptr<window::ClientWindow>> windows;
    for (uint32_t index = 0; index < 3; ++index) windows.push_back(host.OpenWindow(index));
    const WorkerThread first(host, 1, Serve);
    const WorkerThread second(host, 2, Serve);
    std::atomic<uint32_t> running{3};
    std::vector<std::thread> clients;
    for (uint32_t index = 0; index < 3; ++index) {
      clients.emplace_back([&, index] {
        WindowClient client(std::move(windows[index]));
        const auto input = Pattern(200, index);
        for (uint32_t submitted = 0, answered = 0; answered < 300;) {
          while (submitted < 300 && submitted - answered < 40) {
            (void)client.Submit({.function = submitted % 2, .input = input, .output_capacity = 200});
            ++submitted;
          }
          const auto completion = client.Await([&] { client.window().Tend(); });
          EXPECT_EQ(completion.status, 0u);
          EXPECT_TRUE(Equal(client.Payload(completion), input));
          client.window().Close(completion.call);
          ++answered;
        }
        running.fetch_sub(1);
      });
    }
    // The host's part: whoever signals is consumed for, also when the table was full.
    EXPECT_TRUE(Eventually([&] {
      for (uint32_t index = 0; index < 3; ++index) {
        if (host.SubmissionSignalled(index) || host.dispatcher().in_use() < 8) host.ConsumeWindow(index);
      }
      return running.load() == 0;
    }));
    for (auto& client : clients) client.join();
  }
  host.ExpectClean();
}

TEST(Windows, AreUnmappedWhenTheirClientLeaves) {
  MiniHost host({.hot_ns = -1});
  std::vector<std::span<std::byte>> unmapped;
  auto runtime = AttachWorker(host.AddWorker(1), {.on_unmap = [&](auto bytes) { unmapped.push_back(bytes); }});
  ASSERT_TRUE(host.AwaitReady(1));
  const auto next = [&] {
    std::optional<Invocation> invocation;
    EXPECT_TRUE(Eventually([&] { return (invocation = runtime->TryNext(true)).has_value(); }));
    return *invocation;
  };
  auto client = std::make_unique<WindowClient>(host.OpenWindow(0));
  const auto input = Pattern(5000);
  (void)client->Submit({.input = input, .output_capacity = 5000});
  const Invocation running = next();
  const std::span<std::byte> mapping = runtime->MappingOf(running.input.data());
  ASSERT_FALSE(mapping.empty());
  EXPECT_EQ(host.segment().window(0).poller.load(), 1u);

  // The client dies; its slot goes to another while the call still runs.
  host.CloseWindow(0);
  client.reset();
  WindowClient other(host.OpenWindow(0));
  EXPECT_TRUE(Eventually([&] {
    (void)runtime->TryNext(false);
    return runtime->Cancelled(running.handle);
  }));
  EXPECT_TRUE(unmapped.empty());
  EXPECT_TRUE(Equal(running.input, input)) << "the input stays until the function settles";
  host.segment().window(0).poller.store(0);  // as the host does when it closes a window

  (void)other.Submit({.input = input, .output_capacity = 5000});
  const Invocation fresh = next();
  EXPECT_NE(runtime->MappingOf(fresh.input.data()).data(), mapping.data());
  EXPECT_TRUE(runtime->Complete(running.handle, running.input).ok());
  ASSERT_EQ(unmapped.size(), 1u);
  EXPECT_EQ(unmapped[0].data(), mapping.data());
  EXPECT_TRUE(runtime->Complete(fresh.handle, fresh.input).ok());
  EXPECT_EQ(other.Await().status, 0u);

  // Going to sleep gives the ring back.
  EXPECT_TRUE(Eventually([&] { return runtime->PrepareToSleep(true); }));
  EXPECT_EQ(host.segment().window(0).poller.load(), 0u);
  runtime->Awake();
  runtime.reset();
  host.ExpectClean();
}

TEST(Windows, ACancelledCallIsToldToItsWorker) {
  MiniHost host({.hot_ns = -1});
  {
    WindowClient client(host.OpenWindow(0));
    const WorkerThread worker(host, 1, [](WorkerRuntime& runtime, const Invocation& invocation) {
      EXPECT_TRUE(Eventually([&] { return runtime.Cancelled(invocation.handle); }));
      EXPECT_EQ(runtime.TakeCancellations(), std::vector<uint64_t>{invocation.handle});
      EXPECT_TRUE(runtime.TakeCancellations().empty()) << "reported once";
      EXPECT_TRUE(runtime.Fail(invocation.handle, Code::kInvocationCancelled, "").ok());
    });
    client.window().Cancel(client.Submit({}));
    EXPECT_EQ(client.Await().status, static_cast<uint32_t>(Code::kInvocationCancelled));
    // One that has not begun is answered without running: the handler would wait for ever to see it cancelled twice.
  }
  host.ExpectClean();
}

}  // namespace
}  // namespace praas::worker
