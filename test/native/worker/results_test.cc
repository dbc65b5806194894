#include "worker/results.h"

#include <gtest/gtest.h>

#include "mini_host.h"

namespace praas::worker {
namespace {

using dispatch::Place;

constexpr size_t kSizes[] = {0, 1, 4095, 4096, 4097, 64 << 10, 16 << 20};

/// How a function gives its result back.
enum : uint32_t { kAlias = 0, kBuilt = 1, kCopied = 2, kTail = 3, kFails = 4, kTwice = 5 };

void Serve(WorkerRuntime& runtime, const Invocation& invocation) {
  const std::span<const std::byte> input = invocation.input;
  switch (invocation.function) {
    case kAlias:
      MiniHost::Check(runtime.Complete(invocation.handle, input));
      break;
    case kTwice:  // a first output that is replaced
    case kBuilt: {
      if (invocation.function == kTwice) (void)runtime.AllocateOutput(invocation.handle, input.size() + 5000);
      auto output = runtime.AllocateOutput(invocation.handle, input.size());
      MiniHost::Check(output.status(), output.ok());
      if (!input.empty()) std::memcpy(output->bytes.data(), input.data(), input.size());
      MiniHost::Check(runtime.Complete(invocation.handle, output->bytes));
      break;
    }
    case kCopied: {
      const std::vector<std::byte> copy(input.begin(), input.end());
      MiniHost::Check(runtime.Complete(invocation.handle, copy));
      break;
    }
    case kTail:  // all but the first byte of an output that was built
    {
      auto output = runtime.AllocateOutput(invocation.handle, input.size() + 1);
      MiniHost::Check(output.status(), output.ok());
      if (!input.empty()) std::memcpy(output->bytes.data() + 1, input.data(), input.size());
      MiniHost::Check(runtime.Complete(invocation.handle, output->bytes.subspan(1)));
      break;
    }
    default:
      MiniHost::Check(runtime.Fail(invocation.handle, Code::kFunctionThrew,
                                   {reinterpret_cast<const char*>(input.data()), input.size()}));
  }
}

constexpr uint32_t kReturning[] = {kAlias, kBuilt, kCopied, kTail, kTwice};

TEST(Results, ReachTheHostInEverySizeAndWay) {
  MiniHost host({.hot_ns = 0});
  {
    const WorkerThread worker(host, 1, Serve);
    for (const uint32_t function : kReturning) {
      for (const size_t bytes : kSizes) {
        SCOPED_TRACE(testing::Message() << "function " << function << ", " << bytes << " bytes");
        const auto input = Pattern(bytes);
        host.Post(function, input);
        const MiniHost::Reply reply = host.Await();
        EXPECT_EQ(reply.code, Code::kOk);
        EXPECT_TRUE(reply.payload == input);
        if (bytes > 4096) {
          EXPECT_EQ(reply.place, function == kAlias ? Place::kPoolInput : Place::kPoolOutput);
        }
      }
    }
    auto& counters = host.counters(1);
    EXPECT_EQ(counters.copied_bytes.load(), size_t{4097 + (64 << 10) + (16 << 20)})
        << "only what was not built in place";
    EXPECT_EQ(counters.failures.load(), 0u);
  }
  EXPECT_EQ(host.counters(1).calls.load(), std::size(kSizes) * std::size(kReturning));
  host.ExpectClean();
}

TEST(Results, ErrorsCarryTheirWholeMessage) {
  MiniHost host({});
  const WorkerThread worker(host, 1, Serve);
  for (const size_t bytes : {0, 1, 4096, 4097, 100'000}) {
    const std::string message(bytes, 'e');
    host.Post(kFails, Bytes(message));
    const MiniHost::Reply reply = host.Await();
    EXPECT_EQ(reply.code, Code::kFunctionThrew);
    EXPECT_EQ(reply.text(), message);
  }
  EXPECT_TRUE(Eventually([&] { return host.counters(1).failures.load() == 5; }));
  host.ExpectClean();
}

TEST(Results, AreRefusedAboveTheLimit) {
  MiniHost host({.max_contiguous = 10'000});
  const WorkerThread worker(host, 1, [](WorkerRuntime& runtime, const Invocation& invocation) {
    EXPECT_TRUE(runtime.AllocateOutput(invocation.handle, 10'000).ok());
    EXPECT_EQ(runtime.AllocateOutput(invocation.handle, 10'001).status().code(), Code::kPayloadTooLarge);
    EXPECT_EQ(runtime.Complete(invocation.handle, Pattern(10'001)).code(), Code::kPayloadTooLarge);
    EXPECT_EQ(runtime.Complete(invocation.handle, {}).code(), Code::kArgumentInvalid) << "it is over";
    EXPECT_EQ(runtime.Fail(invocation.handle, Code::kInternal, "").code(), Code::kArgumentInvalid);
    EXPECT_EQ(runtime.AllocateOutput(invocation.handle, 1).status().code(), Code::kArgumentInvalid);
    EXPECT_TRUE(runtime.Cancelled(invocation.handle));
  });
  host.Post(0, {});
  EXPECT_EQ(host.Await().code, Code::kPayloadTooLarge);
  host.ExpectClean();
}

TEST(Results, MemoryThatRunsOutIsTheCallsFailure) {
  MiniHost host({.pool_bytes = 4u << 20});
  const WorkerThread worker(host, 1, [](WorkerRuntime& runtime, const Invocation& invocation) {
    EXPECT_EQ(runtime.AllocateOutput(invocation.handle, 32u << 20).status().code(), Code::kStateMemory);
    EXPECT_EQ(runtime.Complete(invocation.handle, Pattern(32u << 20)).code(), Code::kStateMemory);
  });
  host.Post(0, {});
  EXPECT_EQ(host.Await().code, Code::kStateMemory);
  host.ExpectClean();
}

TEST(Results, DamagedEntriesAreAnsweredAndNotRun) {
  MiniHost host({});
  const WorkerThread worker(host, 1, [](WorkerRuntime& runtime, const Invocation& invocation) {
    ADD_FAILURE() << "ran";
    (void)runtime.Complete(invocation.handle, {});
  });
  const auto posts = [&](const std::function<void(dispatch::CallEntry&)>& damage, Code code) {
    const auto index = host.dispatcher().Reserve().value();
    dispatch::CallEntry& entry = host.segment().call(index);
    entry.function = 0;
    entry.origin = dispatch::Origin::kHost;
    entry.kind = dispatch::CallKind::kInvoke;
    entry.deadline_ns = DeadlineIn(kWatchdogNs);
    entry.flags = 0;
    entry.input = {};
    entry.output = {};
    entry.stream = 0;
    damage(entry);
    host.dispatcher().Post(index);
    MiniHost::Reply reply = host.Await();
    EXPECT_EQ(reply.code, code) << reply.text();
  };
  const auto with_input = [](dispatch::PayloadRef ref) {
    return [ref](dispatch::CallEntry& entry) { entry.input = ref; };
  };
  posts([](auto& entry) { entry.function = 8; }, Code::kFunctionUnknown);
  posts([](auto& entry) { entry.deadline_ns = NowNs(); }, Code::kInvocationTimeout);
  posts([](auto& entry) { entry.cancel.store(1); }, Code::kInvocationCancelled);
  posts(with_input({.offset = 1ull << 40, .bytes = 10, .place = Place::kSlot}), Code::kSegmentInvalid);
  posts(with_input({.offset = 64, .bytes = 1ull << 63, .place = Place::kSlot}), Code::kSegmentInvalid);
  posts(with_input({.offset = 64, .bytes = 10, .place = Place::kWindow}), Code::kSegmentInvalid);
  posts(with_input({.offset = 64, .bytes = 10, .place = Place::kPoolOutput}), Code::kSegmentInvalid);
  posts(
      [](auto& entry) {
        entry.kind = dispatch::CallKind::kStream;
        entry.stream = 1000;
      },
      Code::kSegmentInvalid);
  host.ExpectClean();
}

}  // namespace
}  // namespace praas::worker
