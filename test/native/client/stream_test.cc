// Streaming calls of a connection.

#include "client/stream.h"

#include <gtest/gtest.h>

#include "client/driver.h"

namespace praas::test {
namespace {

constexpr uint64_t kSoonNs = 30'000'000;

TEST(Stream, CountsCreditAndOrder) {
  client::Stream stream(1000);
  EXPECT_TRUE(stream.TakeRoomNews());
  EXPECT_FALSE(stream.TakeRoomNews());
  EXPECT_EQ(stream.Send(600, false), 0u);
  EXPECT_EQ(stream.Send(400, false), 1u);
  EXPECT_EQ(stream.room(), 0u);
  EXPECT_TRUE(stream.OnCredit(5).ok());
  EXPECT_TRUE(stream.TakeRoomNews());
  EXPECT_EQ(stream.room(), 5u);
  EXPECT_EQ(stream.OnCredit(0).code(), Code::kProtocolInvalid);
  EXPECT_EQ(stream.OnCredit(UINT64_MAX).code(), Code::kProtocolInvalid);
  EXPECT_EQ(stream.OnCredit(protocol::kMaxPayload).code(), Code::kProtocolInvalid);
  EXPECT_EQ(stream.Send(5, true), 2u);
  EXPECT_EQ(stream.room(), 0u);

  protocol::Frame chunk{.type = protocol::FrameType::kData, .payload_bytes = 600};
  EXPECT_TRUE(stream.OnChunk(chunk).ok());
  EXPECT_EQ(stream.OnChunk(chunk).code(), Code::kProtocolInvalid) << "sequence";
  chunk.aux = 1;
  EXPECT_EQ(stream.OnChunk(chunk).code(), Code::kProtocolInvalid) << "credit";
  EXPECT_EQ(stream.Consumed(100), 0u) << "too little for a frame";
  EXPECT_EQ(stream.Consumed(1'000'000), 600u) << "everything, but no more than came";
  EXPECT_TRUE(stream.OnChunk(chunk).ok());
  chunk = {.type = protocol::FrameType::kData, .flags = protocol::kLast, .payload_bytes = 0, .aux = 2};
  EXPECT_TRUE(stream.OnChunk(chunk).ok());
  EXPECT_EQ(stream.OnChunk(chunk).code(), Code::kProtocolInvalid) << "after the end";
  EXPECT_EQ(stream.Consumed(600), 0u) << "no credit after the end";
}

/// Sends `input` through an echo stream in pieces of `piece`; what came back.
Driver::StreamOutcome Echo(Driver& driver, const Bytes& input, size_t piece) {
  const uint64_t call = *driver->OpenStream(kStreamEcho, 0, DeadlineIn(kWatchdogNs));
  size_t sent = 0;
  bool ended = false;
  driver.PollUntil([&] {
    Driver::StreamOutcome& stream = driver.streams()[call];
    while (stream.room > 0 && !ended) {
      const size_t size = std::min(piece, input.size() - sent);
      const bool last = sent + size == input.size();
      const Result<size_t> taken = driver->SendChunk(call, std::span(input).subspan(sent, size), last);
      EXPECT_TRUE(taken.ok());
      sent += *taken;
      stream.room -= *taken;
      ended = last && *taken == size;
      if (*taken < size) break;
    }
    return stream.ended;
  });
  return driver.streams()[call];
}

TEST(ConnectionStream, EchoesWhateverTheSizes) {
  for (const uint64_t credit : {uint64_t{1000}, protocol::kInitialStreamCredit}) {
    FrameServer server({.stream_credit = credit});
    Driver driver = Connect(server);
    for (const size_t size : {size_t{0}, size_t{1}, size_t{1000}, size_t{300'000}, size_t{5'000'000}}) {
      if (credit == 1000 && size > 300'000) continue;
      for (const size_t piece : {size_t{999}, size_t{70'000}, size_t{1 << 22}}) {
        const Bytes input = Pattern(size, 1);
        const Driver::StreamOutcome outcome = Echo(driver, input, piece);
        EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
        EXPECT_EQ(outcome.received, input) << size << " in pieces of " << piece;
      }
    }
    EXPECT_EQ(driver->in_flight(), 0u);
  }
}

TEST(ConnectionStream, SendsNoMoreThanTheRoom) {
  FrameServer server({.stream_credit = 1000});
  Driver driver = Connect(server);
  const uint64_t call = *driver->OpenStream(kStreamEcho, 0, 0);
  driver.streams()[call].consume = false;
  driver.PollUntil([&] { return driver.streams()[call].room == 1000; });
  server.StopReading(true);
  const Bytes input = Pattern(1500, 1);
  EXPECT_EQ(*driver->SendChunk(call, input, true), 1000u);
  EXPECT_EQ(*driver->SendChunk(call, input, true), 0u);
  server.StopReading(false);
  driver.PollUntil([&] { return driver.streams()[call].received.size() == 1000; });
  driver.PollUntil([&] { return driver.streams()[call].room == 1000; });
  EXPECT_EQ(*driver->SendChunk(call, std::span(input).subspan(1000), true), 500u);
  EXPECT_EQ(driver->SendChunk(call, input, true).status().code(), Code::kArgumentInvalid);
  // The echo has no credit left until what came is consumed.
  for (int i = 0; i < 20; ++i) driver.Poll();
  EXPECT_EQ(driver.streams()[call].received.size(), 1000u);
  driver->ConsumedChunk(call, 1000);
  driver.PollUntil([&] { return driver.streams()[call].ended; });
  EXPECT_EQ(driver.streams()[call].received, input);
  EXPECT_EQ(driver->SendChunk(call, input, true).status().code(), Code::kStreamAborted);
  driver->ConsumedChunk(call, 1000);
}

TEST(ConnectionStream, ChunksAreCopiedBeforeSendChunkReturns) {
  FrameServer server;
  Driver driver = Connect(server);
  const uint64_t call = *driver->OpenStream(kStreamEcho, 0, 0);
  driver.PollUntil([&] { return driver.streams()[call].room > 0; });
  server.StopReading(true);
  const Bytes expected = Pattern(1 << 20, 1);
  {
    Bytes input = expected;
    EXPECT_EQ(*driver->SendChunk(call, input, true), input.size());
    std::fill(input.begin(), input.end(), std::byte{0});
  }
  server.StopReading(false);
  driver.PollUntil([&] { return driver.streams()[call].ended; });
  EXPECT_EQ(driver.streams()[call].received, expected);
}

TEST(ConnectionStream, CanBeCancelledAndHasADeadline) {
  FrameServer server;
  Driver driver = Connect(server);
  const uint64_t cancelled = *driver->OpenStream(kStreamEcho, 0, 0);
  driver.PollUntil([&] { return driver.streams()[cancelled].room > 0; });
  driver->Cancel(cancelled);
  driver.PollUntil([&] { return driver.streams()[cancelled].ended; });
  EXPECT_EQ(driver.streams()[cancelled].status.code(), Code::kInvocationCancelled);

  const uint64_t late = *driver->OpenStream(kStreamEcho, 0, DeadlineIn(kSoonNs));
  driver.PollUntil([&] { return driver.streams()[late].ended; });
  EXPECT_EQ(driver.streams()[late].status.code(), Code::kInvocationTimeout);
  EXPECT_EQ(driver->SendChunk(late, {}, true).status().code(), Code::kStreamAborted);
  EXPECT_EQ(Echo(driver, Pattern(10, 1), 3).received, Pattern(10, 1));
}

TEST(ConnectionStream, RefusalsEndIt) {
  FrameServer server;
  Driver driver = Connect(server);
  const uint64_t call = *driver->OpenStream(kEcho, 0, 0);
  driver.PollUntil([&] { return driver.streams()[call].ended; });
  EXPECT_EQ(driver.streams()[call].status.code(), Code::kArgumentInvalid);
}

TEST(ConnectionStream, WaitsForRoomInTheSession) {
  FrameServer server({.max_in_flight = 1});
  Driver driver = Connect(server);
  const uint64_t held = *driver->Invoke(kHold, {}, {}, 0, 0);
  const uint64_t call = *driver->OpenStream(kStreamEcho, 0, 0);
  for (int i = 0; i < 20; ++i) driver.Poll();
  EXPECT_EQ(driver.streams()[call].room, 0u);
  EXPECT_EQ(*driver->SendChunk(call, Pattern(10, 1), true), 0u);
  EXPECT_TRUE(driver->PrepareToSleep()) << "waiting is no work";
  driver.PollUntil([&] { return (server.ReleaseHeld(), driver.outcomes().contains(held)); });
  driver.PollUntil([&] { return driver.streams()[call].room > 0; });
  EXPECT_EQ(*driver->SendChunk(call, {}, true), 0u);
  driver.PollUntil([&] { return driver.streams()[call].ended; });
  EXPECT_TRUE(driver.streams()[call].status.ok());
}

/// A chunk as the server would never send it.
Status AfterRaw(const std::function<void(protocol::FrameWriter&, uint64_t call)>& misbehave) {
  FrameServer server({.stream_credit = 1000});
  Driver driver = Connect(server);
  const uint64_t call = *driver->OpenStream(kStreamEcho, 0, 0);
  driver.PollUntil([&] { return driver.streams()[call].room > 0; });
  server.WithWriter([&](protocol::FrameWriter& writer) { misbehave(writer, call); });
  driver.PollUntil([&] { return driver.streams()[call].ended; });
  return driver->lost();
}

TEST(ConnectionStream, AHostThatBreaksTheRulesIsLeft) {
  using protocol::FrameType;
  const Bytes bytes = Pattern(1001, 1);
  EXPECT_EQ(AfterRaw([&](auto& writer, uint64_t call) {
              writer.PushCopy({.type = FrameType::kData, .call = call, .aux = 0}, bytes);
            }).code(),
            Code::kProtocolInvalid)
      << "more than the credit";
  EXPECT_EQ(AfterRaw([&](auto& writer, uint64_t call) {
              writer.PushCopy({.type = FrameType::kData, .call = call, .aux = 1}, std::span(bytes).first(10));
            }).code(),
            Code::kProtocolInvalid)
      << "out of order";
  EXPECT_EQ(AfterRaw([&](auto& writer, uint64_t call) {
              writer.Push({.type = FrameType::kCredit, .call = call, .aux = 0});
            }).code(),
            Code::kProtocolInvalid)
      << "no credit at all";
}

TEST(ConnectionStream, ManyAtOnceShareTheConnection) {
  FrameServer server({.stream_credit = 5000});
  Driver driver = Connect(server);
  constexpr int kStreams = 20;
  std::vector<uint64_t> calls;
  std::vector<Bytes> inputs;
  std::vector<size_t> sent(kStreams);
  for (uint32_t i = 0; i < kStreams; ++i) {
    inputs.push_back(Pattern(20'000 + i * 1000, i));
    calls.push_back(*driver->OpenStream(kStreamEcho, 0, DeadlineIn(kWatchdogNs)));
  }
  driver.PollUntil([&] {
    bool all = true;
    for (int i = 0; i < kStreams; ++i) {
      Driver::StreamOutcome& stream = driver.streams()[calls[i]];
      if (stream.room > 0 && sent[i] < inputs[i].size()) {
        const Result<size_t> taken = driver->SendChunk(calls[i], std::span(inputs[i]).subspan(sent[i]), true);
        EXPECT_TRUE(taken.ok());
        sent[i] += *taken;
        stream.room = 0;
      }
      all = all && stream.ended;
    }
    return all;
  });
  for (int i = 0; i < kStreams; ++i) EXPECT_EQ(driver.streams()[calls[i]].received, inputs[i]);
}

}  // namespace
}  // namespace praas::test
