#include "worker/streams.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "mini_host.h"

namespace praas::worker {
namespace {

using dispatch::ChunkConsumer;
using dispatch::ChunkProducer;
using dispatch::kStreamChunkBytes;
using dispatch::kStreamChunks;
using dispatch::Place;
using dispatch::StreamEnd;

constexpr uint32_t kStream = 1;

/// The host's ends of one streaming call.
struct HostStream {
  HostStream(MiniHost& host, uint32_t call)
      : input(host.Stream(kStream).input, host.pool(), Place::kPoolInput, call),
        output(host.Stream(kStream).output, host.pool(), Place::kPoolOutput) {}
  ChunkProducer input;
  ChunkConsumer output;
};

uint64_t Soon() { return DeadlineIn(kWatchdogNs); }

/// Waits for the next chunk as an owner does.
WorkerRuntime::Chunk NextChunk(WorkerRuntime& runtime, uint64_t handle) {
  for (;;) {
    if (auto chunk = runtime.NextChunk(handle)) return std::move(*chunk);
    runtime.Sleep(false, DeadlineIn(kWatchdogNs));
    (void)runtime.TakeNotices();
  }
}
void WriteAll(WorkerRuntime& runtime, uint64_t handle, std::span<const std::byte> bytes) {
  for (;;) {
    auto written = runtime.WriteChunk(handle, bytes);
    MiniHost::Check(written.status(), written.ok());
    if (*written) return;
    runtime.Sleep(false, DeadlineIn(kWatchdogNs));
    (void)runtime.TakeNotices();
  }
}

/// Sends every chunk back, inverted.
void Invert(WorkerRuntime& runtime, const Invocation& invocation) {
  EXPECT_TRUE(invocation.stream);
  std::vector<std::byte> inverted;
  for (;;) {
    const auto chunk = NextChunk(runtime, invocation.handle);
    EXPECT_TRUE(chunk.status.ok()) << chunk.status.message();
    if (chunk.end) break;
    inverted.assign(chunk.bytes.begin(), chunk.bytes.end());
    for (std::byte& byte : inverted) byte = ~byte;
    WriteAll(runtime, invocation.handle, inverted);
  }
  MiniHost::Check(runtime.Complete(invocation.handle, {}));
}

TEST(Streams, CarryManyMegabytesBothWaysInBoundedMemory) {
  MiniHost host({});
  {
    const WorkerThread worker(host, 1, Invert);
    const uint32_t call = host.Post(0, {}, {.stream = kStream});
    HostStream stream(host, call);
    constexpr uint64_t kTotal = 64u << 20;
    const auto pattern = Pattern(kStreamChunkBytes + 4096);
    uint64_t sent = 0;
    uint64_t received = 0;
    uint64_t most_used = 0;
    bool sound = true;
    EXPECT_TRUE(Eventually([&] {
      while (sent < kTotal && stream.input.room() > 0) {
        const uint64_t bytes = std::min(kTotal - sent, kStreamChunkBytes);
        auto chunk = stream.input.Prepare(bytes, Soon());
        MiniHost::Check(chunk.status(), chunk.ok());
        std::memcpy(chunk->bytes.data(), pattern.data() + sent % 4096, bytes);
        stream.input.Publish(chunk->ref);
        sent += bytes;
        if (sent == kTotal) stream.input.End();
        host.dispatcher().Notify(1, dispatch::kNoticeStream);
      }
      most_used =
          std::max({most_used, host.pool().inputs().usage().used_bytes + host.pool().outputs().usage().used_bytes});
      for (;;) {
        auto chunk = stream.output.Peek();
        MiniHost::Check(chunk.status(), chunk.ok());
        if (!chunk->has_value()) break;
        const auto bytes = (*chunk)->bytes;
        sound &=
            bytes.front() == ~pattern[received % 4096] && bytes.back() == ~pattern[received % 4096 + bytes.size() - 1];
        received += bytes.size();
        MiniHost::Check(stream.output.Release((*chunk)->ref, Soon()));
        host.dispatcher().Notify(1, dispatch::kNoticeStream);
      }
      return stream.output.end() == StreamEnd::kEnded;
    }));
    EXPECT_EQ(received, kTotal);
    EXPECT_TRUE(sound);
    EXPECT_LE(most_used, 2 * kStreamChunks * kStreamChunkBytes);
    EXPECT_EQ(host.Await().code, Code::kOk);
  }
  host.ExpectClean();
}

TEST(Streams, LargeWritesAreSplitAndTooLargeOnesRefused) {
  MiniHost host({});
  {
    const WorkerThread worker(host, 1, [](WorkerRuntime& runtime, const Invocation& invocation) {
      const auto bytes = Pattern(kStreamChunks * kStreamChunkBytes);
      EXPECT_EQ(runtime.WriteChunk(invocation.handle, Pattern(bytes.size() + 1)).status().code(),
                Code::kPayloadTooLarge);
      EXPECT_TRUE(*runtime.WriteChunk(invocation.handle, bytes));
      EXPECT_FALSE(*runtime.WriteChunk(invocation.handle, Bytes("x"))) << "the ring is full";
      EXPECT_TRUE(*runtime.WriteChunk(invocation.handle, {})) << "nothing always fits";
      MiniHost::Check(runtime.Complete(invocation.handle, {}));
    });
    const uint32_t call = host.Post(0, {}, {.stream = kStream});
    HostStream stream(host, call);
    EXPECT_EQ(host.Await().code, Code::kOk);
    EXPECT_EQ(stream.output.available(), kStreamChunks);
    EXPECT_EQ(stream.output.end(), StreamEnd::kOpen) << "chunks come before the end";
    std::vector<std::byte> got;
    while (stream.output.available() > 0) {
      auto chunk = stream.output.Peek();
      ASSERT_TRUE(chunk.ok());
      got.insert(got.end(), (*chunk)->bytes.begin(), (*chunk)->bytes.end());
      ASSERT_TRUE(stream.output.Release((*chunk)->ref, Soon()).ok());
    }
    EXPECT_EQ(stream.output.end(), StreamEnd::kEnded);
    EXPECT_TRUE(got == Pattern(kStreamChunks * kStreamChunkBytes));
  }
  host.ExpectClean();
}

TEST(Streams, AStreamingFunctionReturnsNoBytes) {
  MiniHost host({});
  const WorkerThread worker(host, 1, [](WorkerRuntime& runtime, const Invocation& invocation) {
    EXPECT_EQ(runtime.Complete(invocation.handle, Bytes("bytes")).code(), Code::kFunctionResult);
  });
  HostStream stream(host, host.Post(0, {}, {.stream = kStream}));
  EXPECT_EQ(host.Await().code, Code::kFunctionResult);
  EXPECT_EQ(stream.output.end(), StreamEnd::kAborted);
}

TEST(Streams, AnAbortedInputIsAnError) {
  MiniHost host({});
  {
    const WorkerThread worker(host, 1, [](WorkerRuntime& runtime, const Invocation& invocation) {
      auto chunk = NextChunk(runtime, invocation.handle);
      while (!chunk.end) chunk = NextChunk(runtime, invocation.handle);
      EXPECT_EQ(chunk.status.code(), Code::kStreamAborted);
      MiniHost::Check(runtime.Fail(invocation.handle, Code::kStreamAborted, "aborted"));
    });
    const uint32_t call = host.Post(0, {}, {.stream = kStream});
    HostStream stream(host, call);
    ASSERT_TRUE(*stream.input.Write(Bytes("left behind"), Soon()));
    ASSERT_TRUE(*stream.input.Write(Bytes("left behind"), Soon()));
    stream.input.Abort();
    stream.input.End();
    EXPECT_EQ(stream.input.end(), StreamEnd::kAborted) << "an end does not undo an abort";
    host.dispatcher().Notify(1, dispatch::kNoticeStream);
    EXPECT_EQ(host.Await().code, Code::kStreamAborted);
    EXPECT_EQ(stream.output.end(), StreamEnd::kAborted);
    EXPECT_TRUE(ChunkConsumer(host.Stream(kStream).input, host.pool(), Place::kPoolInput).Discard(Soon()).ok());
  }
  host.ExpectClean();
}

TEST(Streams, EndAtTheDeadline) {
  MiniHost host({.grace_ns = kWatchdogNs});
  {
    const WorkerThread worker(host, 1, [](WorkerRuntime& runtime, const Invocation& invocation) {
      EXPECT_FALSE(NextChunk(runtime, invocation.handle).end);
      EXPECT_TRUE(Eventually([&] { return runtime.Cancelled(invocation.handle); }));
      EXPECT_EQ(NextChunk(runtime, invocation.handle).status.code(), Code::kInvocationTimeout);
      EXPECT_EQ(runtime.WriteChunk(invocation.handle, Bytes("x")).status().code(), Code::kInvocationTimeout);
      EXPECT_EQ(runtime.Complete(invocation.handle, {}).code(), Code::kInvocationTimeout);
    });
    const uint32_t call = host.Post(0, {}, {.deadline_ns = DeadlineIn(kBriefNs), .stream = kStream});
    HostStream stream(host, call);
    ASSERT_TRUE(*stream.input.Write(Bytes("in hand"), Soon()));
    host.dispatcher().Notify(1, dispatch::kNoticeStream);
    EXPECT_EQ(host.Await().code, Code::kInvocationTimeout);
    EXPECT_TRUE(stream.output.aborted());
    // The chunk in the function's hand still lies in the ring and is the host's to free.
    EXPECT_TRUE(ChunkConsumer(host.Stream(kStream).input, host.pool(), Place::kPoolInput).Discard(Soon()).ok());
    EXPECT_TRUE(Eventually([&] { return host.counters(1).failures.load() == 1; }));
  }
  host.ExpectClean();
}

TEST(Streams, DamagedDescriptorsAreNotFollowed) {
  MiniHost host({});
  dispatch::StreamRing& ring = host.Stream(kStream);
  dispatch::ResetStream(ring, 0);
  ChunkConsumer consumer(ring.input, host.pool(), Place::kPoolInput);
  const auto rejects = [&](const dispatch::PayloadRef& ref) {
    ring.input.chunks[0] = ref;
    ring.input.tail.store(1);
    EXPECT_EQ(consumer.Peek().status().code(), Code::kSegmentInvalid);
    EXPECT_FALSE(consumer.Discard(Soon()).ok());
  };
  rejects({.offset = 1ull << 40, .bytes = 10, .block = 1, .place = Place::kPoolInput});
  rejects({.offset = 0, .bytes = 10, .block = 1, .place = Place::kPoolOutput});
  rejects({.offset = 0, .bytes = 0, .block = 1, .place = Place::kPoolInput});
  rejects({.offset = 0, .bytes = kStreamChunkBytes + 1, .block = 1, .place = Place::kPoolInput});
  ring.input.tail.store(kStreamChunks + 1);
  EXPECT_EQ(consumer.Peek().status().code(), Code::kSegmentInvalid);
  EXPECT_LE(consumer.available(), kStreamChunks);
  ChunkProducer producer(ring.input, host.pool(), Place::kPoolInput, 0);
  EXPECT_EQ(producer.room(), 0u);
}

TEST(Streams, BelongToStreamingCallsOnly) {
  MiniHost host({});
  const WorkerThread worker(host, 1, [](WorkerRuntime& runtime, const Invocation& invocation) {
    EXPECT_FALSE(invocation.stream);
    const auto chunk = runtime.NextChunk(invocation.handle);
    EXPECT_TRUE(chunk && chunk->end && chunk->status.code() == Code::kArgumentInvalid);
    EXPECT_EQ(runtime.WriteChunk(invocation.handle, {}).status().code(), Code::kArgumentInvalid);
    MiniHost::Check(runtime.Complete(invocation.handle, {}));
  });
  host.Post(0, {});
  EXPECT_EQ(host.Await().code, Code::kOk);
}

}  // namespace
}  // namespace praas::worker
