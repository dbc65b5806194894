// FrameWriter and FrameReader against each other, over streams that move bytes as tests tell them.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <vector>

#include "protocol/frame_reader.h"
#include "protocol/frame_writer.h"

namespace praas::protocol {
namespace {

using Bytes = std::vector<std::byte>;

Bytes Pattern(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

/// Memory as a stream: what is written can be read. Moves at most `step` bytes at a time.
class MemoryStream : public transport::ByteStream {
 public:
  Result<size_t> Read(std::span<std::byte> into) override {
    ++reads;
    if (at == bytes.size()) return closed ? Result<size_t>(Status(Code::kConnectionLost, "end")) : size_t{0};
    const size_t size = std::min({into.size(), step, bytes.size() - at});
    std::memcpy(into.data(), bytes.data() + at, size);
    at += size;
    largest_read = std::max(largest_read, size);
    return size;
  }
  Result<size_t> Write(std::span<const iovec> parts) override {
    ++writes;
    if (closed) return Status(Code::kConnectionLost, "end");
    size_t room = std::min(step, window);
    size_t moved = 0;
    for (const iovec& part : parts) {
      const size_t size = std::min(part.iov_len, room);
      const auto* from = static_cast<const std::byte*>(part.iov_base);
      bytes.insert(bytes.end(), from, from + size);
      room -= size;
      moved += size;
    }
    window -= moved;
    return moved;
  }
  bool ShortReadsDrain() const noexcept override { return like_a_socket; }
  int fd() const noexcept override { return -1; }
  void Close() noexcept override { closed = true; }

  Bytes bytes;
  size_t at = 0;
  size_t step = SIZE_MAX;
  size_t window = SIZE_MAX;  // bytes a writer may still write
  size_t reads = 0, writes = 0, largest_read = 0;
  bool closed = false;
  bool like_a_socket = false;
};

/// Keeps what arrives; says where payloads go.
class Collector : public FrameSink {
 public:
  Result<Placement> OnHeader(const Frame& frame) override {
    ++headers;
    if (place) return place(frame);
    return Placement::Scratch();
  }
  Status OnFrame(const Frame& frame, std::span<std::byte> payload) override {
    frames.push_back({frame, {payload.begin(), payload.end()}, payload.data()});
    return on_frame ? on_frame(frame) : Status::Ok();
  }
  Status OnCorrupt(const Frame& frame) override {
    corrupt.push_back(frame.call);
    return Status::Ok();
  }

  struct Arrived {
    Frame frame;
    Bytes payload;
    const std::byte* lay_at;
  };
  std::function<Result<Placement>(const Frame&)> place;
  std::function<Status(const Frame&)> on_frame;
  std::vector<Arrived> frames;
  std::vector<uint64_t> corrupt;
  size_t headers = 0;
};

constexpr uint64_t kMax = 64 << 20;

Frame CallFrame(uint64_t call) {
  Frame frame;
  frame.type = FrameType::kCall;
  frame.call = call;
  return frame;
}

TEST(FrameStream, DeliversEverySizeHoweverTheBytesAreCut) {
  const size_t sizes[] = {0, 1, 63, 64, 65, 4095, 4096, 4097, 65'535, 65'536, 65'537, 300'000, 0, 7};
  for (const size_t step : {size_t{1}, size_t{63}, size_t{64}, size_t{1000}, size_t{4096}, size_t{70'000}, SIZE_MAX}) {
    for (const bool checksum : {false, true}) {
      MemoryStream stream;
      stream.step = step;
      FrameWriter writer;
      writer.set_checksum(checksum);
      std::vector<Bytes> payloads;
      for (const size_t size : sizes) payloads.push_back(Pattern(size, static_cast<uint32_t>(size)));
      size_t done = 0;
      for (size_t i = 0; i < payloads.size(); ++i) {
        writer.Push(CallFrame(i + 1), payloads[i], [&](const Status& status) { done += status.ok(); });
      }
      while (!writer.empty()) ASSERT_TRUE(writer.Flush(stream).ok());
      EXPECT_EQ(done, payloads.size());
      EXPECT_EQ(writer.queued_bytes(), 0u);

      FrameReader reader(kMax);
      Collector sink;
      std::map<uint64_t, Bytes> places;
      sink.place = [&](const Frame& frame) {
        if (frame.call % 2 == 0) return Placement::Scratch();
        Bytes& place = places[frame.call];
        place.resize(frame.payload_bytes + 3);
        return Placement::Into(place);
      };
      while (true) {
        Result<FrameReader::State> state = reader.Read(stream, sink, 10'000);
        ASSERT_TRUE(state.ok()) << state.status().message();
        if (*state == FrameReader::State::kDrained && stream.at == stream.bytes.size()) break;
      }
      ASSERT_EQ(sink.frames.size(), payloads.size());
      EXPECT_FALSE(reader.mid_frame());
      for (size_t i = 0; i < payloads.size(); ++i) {
        EXPECT_EQ(sink.frames[i].frame.call, i + 1);
        EXPECT_EQ(sink.frames[i].payload, payloads[i]) << "size " << payloads[i].size() << " step " << step;
        if (i % 2 == 0 && !payloads[i].empty()) {
          EXPECT_EQ(sink.frames[i].lay_at, places[i + 1].data());
        }
      }
    }
  }
}

TEST(FrameStream, ManySmallFramesShareSystemCalls) {
  MemoryStream stream;
  FrameWriter writer;
  const Bytes payload = Pattern(64, 1);
  for (uint64_t call = 1; call <= 256; ++call) writer.Push(CallFrame(call), payload);
  ASSERT_TRUE(writer.Flush(stream).ok());
  EXPECT_EQ(stream.writes, 1u);
  EXPECT_EQ(writer.staged_bytes(), 256u * 64);

  FrameReader reader(kMax);
  Collector sink;
  ASSERT_TRUE(reader.Read(stream, sink).ok());
  EXPECT_EQ(sink.frames.size(), 256u);
  EXPECT_LE(stream.reads, 12u);
  EXPECT_EQ(reader.direct_bytes(), 0u);
}

TEST(FrameStream, ASocketIsReadOnceForWhatFitsOneRead) {
  for (const bool like_a_socket : {true, false}) {
    MemoryStream stream;
    stream.like_a_socket = like_a_socket;
    FrameWriter writer;
    const Bytes payload = Pattern(64, 1);
    writer.Push(CallFrame(1), payload);
    ASSERT_TRUE(writer.Flush(stream).ok());
    FrameReader reader(kMax);
    Collector sink;
    const auto state = reader.Read(stream, sink);
    ASSERT_TRUE(state.ok()) << state.status().message();
    EXPECT_EQ(*state, FrameReader::State::kDrained);
    ASSERT_EQ(sink.frames.size(), 1u);
    EXPECT_EQ(sink.frames[0].payload, payload);
    EXPECT_EQ(stream.reads, like_a_socket ? 1u : 2u);
  }
}

TEST(FrameStream, LargePayloadsAreNotCopied) {
  constexpr size_t kSize = 1 << 20;
  MemoryStream stream;
  FrameWriter writer;
  const Bytes payload = Pattern(kSize, 1);
  for (uint64_t call = 1; call <= 8; ++call) writer.Push(CallFrame(call), payload);
  ASSERT_TRUE(writer.Flush(stream).ok());
  EXPECT_EQ(stream.writes, 1u);
  EXPECT_EQ(writer.staged_bytes(), 0u);
  EXPECT_EQ(writer.direct_bytes(), 8 * kSize);

  FrameReader reader(kMax);
  Collector sink;
  Bytes place(kSize);
  sink.place = [&](const Frame&) { return Placement::Into(place); };
  while (sink.frames.size() < 8) ASSERT_TRUE(reader.Read(stream, sink).ok());
  EXPECT_LE(reader.staged_bytes(), 8u * 1024);
  EXPECT_EQ(reader.staged_bytes() + reader.direct_bytes(), 8 * kSize);
}

TEST(FrameStream, APayloadOf4KiBIsMostlyReadInPlace) {
  MemoryStream stream;
  FrameWriter writer;
  const Bytes payload = Pattern(4096, 1);
  writer.Push(CallFrame(1), payload);
  ASSERT_TRUE(writer.Flush(stream).ok());
  EXPECT_EQ(writer.staged_bytes(), 0u);
  FrameReader reader(kMax);
  Collector sink;
  Bytes place(4096);
  sink.place = [&](const Frame&) { return Placement::Into(place); };
  ASSERT_TRUE(reader.Read(stream, sink).ok());
  ASSERT_EQ(sink.frames.size(), 1u);
  EXPECT_LT(reader.staged_bytes(), 1024u);
}

TEST(FrameStream, NotNowStopsReadingUntilThereIsRoom) {
  MemoryStream stream;
  FrameWriter writer;
  const Bytes payload = Pattern(100'000, 1);
  for (uint64_t call = 1; call <= 3; ++call) writer.Push(CallFrame(call), payload);
  ASSERT_TRUE(writer.Flush(stream).ok());

  FrameReader reader(kMax);
  Collector sink;
  bool room = false;
  sink.place = [&](const Frame& frame) {
    return frame.call == 2 && !room ? Placement::NotNow() : Placement::Scratch();
  };
  for (int i = 0; i < 3; ++i) {
    Result<FrameReader::State> state = reader.Read(stream, sink);
    ASSERT_TRUE(state.ok());
    EXPECT_EQ(*state, FrameReader::State::kPaused);
    EXPECT_EQ(sink.frames.size(), 1u);
  }
  const size_t before = stream.at;
  EXPECT_LT(before, 110'000u);
  room = true;
  ASSERT_TRUE(reader.Read(stream, sink).ok());
  ASSERT_EQ(sink.frames.size(), 3u);
  EXPECT_EQ(sink.frames[1].payload, payload);
}

TEST(FrameStream, DiscardedPayloadsAreSkipped) {
  for (const size_t size : {size_t{0}, size_t{100}, size_t{4096}, size_t{500'000}}) {
    MemoryStream stream;
    FrameWriter writer;
    const Bytes payload = Pattern(size, 1);
    writer.Push(CallFrame(1), payload);
    writer.Push(CallFrame(2), payload);
    ASSERT_TRUE(writer.Flush(stream).ok());
    FrameReader reader(kMax);
    Collector sink;
    sink.place = [](const Frame& frame) { return frame.call == 1 ? Placement::Discard() : Placement::Scratch(); };
    ASSERT_TRUE(reader.Read(stream, sink).ok());
    ASSERT_EQ(sink.frames.size(), 1u);
    EXPECT_EQ(sink.frames[0].frame.call, 2u);
    EXPECT_EQ(sink.frames[0].payload, payload);
  }
}

TEST(FrameStream, TheRestOfAPayloadCanBeDiscarded) {
  MemoryStream stream;
  stream.step = 1000;
  FrameWriter writer;
  const Bytes payload = Pattern(50'000, 1);
  writer.Push(CallFrame(1), payload);
  writer.Push(CallFrame(2), payload);
  while (!writer.empty()) ASSERT_TRUE(writer.Flush(stream).ok());
  FrameReader reader(kMax);
  Collector sink;
  auto place = std::make_unique<Bytes>(payload.size());
  sink.place = [&](const Frame& frame) { return frame.call == 1 ? Placement::Into(*place) : Placement::Scratch(); };
  EXPECT_FALSE(reader.current_call());
  ASSERT_TRUE(reader.Read(stream, sink, 3000).ok());
  ASSERT_EQ(reader.current_call(), 1u);
  reader.DiscardCurrent();
  place.reset();
  while (sink.frames.empty()) ASSERT_TRUE(reader.Read(stream, sink).ok());
  EXPECT_EQ(sink.frames[0].frame.call, 2u);
  EXPECT_EQ(sink.frames[0].payload, payload);
}

TEST(FrameStream, ACorruptPayloadIsReportedAndTheNextFrameArrives) {
  for (const size_t size : {size_t{1}, size_t{5000}}) {
    MemoryStream stream;
    FrameWriter writer;
    writer.set_checksum(true);
    const Bytes payload = Pattern(size, 1);
    writer.Push(CallFrame(1), payload);
    writer.Push(CallFrame(2), payload);
    ASSERT_TRUE(writer.Flush(stream).ok());
    stream.bytes[kHeaderBytes + size / 2] ^= std::byte{4};
    FrameReader reader(kMax);
    Collector sink;
    ASSERT_TRUE(reader.Read(stream, sink).ok());
    EXPECT_EQ(sink.corrupt, std::vector<uint64_t>{1});
    ASSERT_EQ(sink.frames.size(), 1u);
    EXPECT_EQ(sink.frames[0].payload, payload);
  }
}

TEST(FrameStream, EndWithinAFrameSaysSo) {
  MemoryStream whole;
  FrameWriter writer;
  const Bytes payload = Pattern(6000, 1);
  writer.Push(CallFrame(1), payload);
  ASSERT_TRUE(writer.Flush(whole).ok());
  for (size_t size = 0; size <= whole.bytes.size(); size += size < 200 ? 1 : 499) {
    MemoryStream stream;
    stream.bytes.assign(whole.bytes.begin(), whole.bytes.begin() + static_cast<ptrdiff_t>(size));
    stream.closed = true;
    FrameReader reader(kMax);
    Collector sink;
    Status status;
    while (status.ok()) status = reader.Read(stream, sink).status();
    EXPECT_EQ(status.code(), Code::kConnectionLost);
    EXPECT_EQ(status.message().find("within a frame") != std::string::npos, size != 0 && size != whole.bytes.size())
        << size;
    EXPECT_EQ(sink.frames.size(), size == whole.bytes.size() ? 1u : 0u);
  }
}

TEST(FrameStream, ABadHeaderEndsReading) {
  MemoryStream stream;
  FrameWriter writer;
  writer.Push(CallFrame(1));
  writer.Push(CallFrame(2));
  ASSERT_TRUE(writer.Flush(stream).ok());
  stream.bytes[kHeaderBytes + 20] ^= std::byte{1};
  FrameReader reader(kMax);
  Collector sink;
  EXPECT_EQ(reader.Read(stream, sink).status().code(), Code::kProtocolInvalid);
  EXPECT_EQ(sink.frames.size(), 1u);
}

TEST(FrameStream, SinkErrorsEndReading) {
  MemoryStream stream;
  FrameWriter writer;
  writer.Push(CallFrame(1));
  ASSERT_TRUE(writer.Flush(stream).ok());
  {
    MemoryStream copy = stream;
    FrameReader reader(kMax);
    Collector sink;
    sink.place = [](const Frame&) { return Status(Code::kUnsupported, "no"); };
    EXPECT_EQ(reader.Read(copy, sink).status().code(), Code::kUnsupported);
  }
  FrameReader reader(kMax);
  Collector sink;
  sink.on_frame = [](const Frame&) { return Status(Code::kUnsupported, "no"); };
  EXPECT_EQ(reader.Read(stream, sink).status().code(), Code::kUnsupported);
}

TEST(FrameStream, TooLittleMemoryFromTheSinkIsAnErrorAndNoOverflow) {
  MemoryStream stream;
  FrameWriter writer;
  const Bytes payload = Pattern(100, 1);
  writer.Push(CallFrame(1), payload);
  ASSERT_TRUE(writer.Flush(stream).ok());
  FrameReader reader(kMax);
  Collector sink;
  Bytes place(99);
  sink.place = [&](const Frame&) { return Placement::Into(place); };
  EXPECT_EQ(reader.Read(stream, sink).status().code(), Code::kInternal);
}

TEST(FrameWriter, SmallPayloadsAreReleasedAtOnceLargeOnesWhenSent) {
  MemoryStream stream;
  FrameWriter writer;
  Bytes small = Pattern(4095, 1);
  const Bytes large = Pattern(4096, 2);
  bool small_done = false, large_done = false;
  writer.Push(CallFrame(1), small, [&](const Status&) { small_done = true; });
  writer.Push(CallFrame(2), large, [&](const Status&) { large_done = true; });
  EXPECT_TRUE(small_done);
  EXPECT_FALSE(large_done);
  std::fill(small.begin(), small.end(), std::byte{0});
  stream.window = 2 * kHeaderBytes + 4095 + 4095;
  EXPECT_FALSE(*writer.Flush(stream));
  EXPECT_FALSE(large_done);
  EXPECT_EQ(writer.queued_bytes(), 1u);
  stream.window = 1;
  EXPECT_TRUE(*writer.Flush(stream));
  EXPECT_TRUE(large_done);
  FrameReader reader(kMax);
  Collector sink;
  ASSERT_TRUE(reader.Read(stream, sink).ok());
  ASSERT_EQ(sink.frames.size(), 2u);
  EXPECT_EQ(sink.frames[0].payload, Pattern(4095, 1));
  EXPECT_EQ(sink.frames[1].payload, large);
}

TEST(FrameWriter, PrefixAndPayloadAreOne) {
  MemoryStream stream;
  FrameWriter writer;
  writer.set_checksum(true);
  const Bytes prefix = Pattern(30, 1);
  for (const size_t size : {size_t{0}, size_t{10}, size_t{9000}}) {
    const Bytes payload = Pattern(size, 2);
    Frame frame = CallFrame(1 + size);
    writer.Push(frame, payload, {}, prefix);
    ASSERT_TRUE(*writer.Flush(stream));
    FrameReader reader(kMax);
    Collector sink;
    ASSERT_TRUE(reader.Read(stream, sink).ok());
    Bytes expected = prefix;
    expected.insert(expected.end(), payload.begin(), payload.end());
    ASSERT_EQ(sink.frames.size(), 1u);
    EXPECT_EQ(sink.frames[0].payload, expected);
  }
}

TEST(FrameWriter, WithdrawTakesBackWhatWasNotSentAndCopiesTheRest) {
  const Bytes first = Pattern(10'000, 1);
  for (const size_t window : {size_t{0}, size_t{1}, kHeaderBytes + 10, kHeaderBytes + 9999, kHeaderBytes + 10'000,
                              kHeaderBytes + 10'000 + kHeaderBytes, kHeaderBytes + 10'000 + kHeaderBytes + 5000}) {
    MemoryStream stream;
    FrameWriter writer;
    Bytes second = Pattern(10'000, 2);
    const Bytes third = Pattern(10'000, 3);
    writer.Push(CallFrame(1), first);
    writer.Push(CallFrame(2), second, [](const Status&) { FAIL() << "withdrawn"; });
    writer.Push(CallFrame(3), third);
    stream.window = window;
    ASSERT_TRUE(writer.Flush(stream).ok());
    const bool started = window > kHeaderBytes + 10'000;
    EXPECT_EQ(writer.Withdraw(FrameType::kCall, 2), !started) << window;
    EXPECT_FALSE(writer.Withdraw(FrameType::kReply, 3));
    std::fill(second.begin(), second.end(), std::byte{0});
    stream.window = SIZE_MAX;
    ASSERT_TRUE(*writer.Flush(stream));
    EXPECT_EQ(writer.queued_bytes(), 0u);
    FrameReader reader(kMax);
    Collector sink;
    ASSERT_TRUE(reader.Read(stream, sink).ok());
    ASSERT_EQ(sink.frames.size(), started ? 3u : 2u) << window;
    EXPECT_EQ(sink.frames.front().payload, first);
    if (started) {
      EXPECT_EQ(sink.frames[1].payload, Pattern(10'000, 2));
    }
    EXPECT_EQ(sink.frames.back().payload, third);
  }
}

TEST(FrameWriter, DetachKeepsTheFrameAndFreesTheMemory) {
  for (const size_t window : {size_t{0}, kHeaderBytes + 1, kHeaderBytes + 7000}) {
    MemoryStream stream;
    FrameWriter writer;
    Bytes payload = Pattern(10'000, 2);
    writer.Push(CallFrame(2), payload);
    stream.window = window;
    ASSERT_TRUE(writer.Flush(stream).ok());
    writer.Detach(FrameType::kCall, 2);
    std::fill(payload.begin(), payload.end(), std::byte{0});
    stream.window = SIZE_MAX;
    ASSERT_TRUE(*writer.Flush(stream));
    FrameReader reader(kMax);
    Collector sink;
    ASSERT_TRUE(reader.Read(stream, sink).ok());
    ASSERT_EQ(sink.frames.size(), 1u);
    EXPECT_EQ(sink.frames[0].payload, Pattern(10'000, 2));
  }
}

TEST(FrameWriter, CallbacksMayPushWithdrawAndAbort) {
  MemoryStream stream;
  FrameWriter writer;
  const Bytes payload = Pattern(5000, 1);
  int aborted = 0;
  writer.Push(CallFrame(1), payload, [&](const Status&) {
    writer.Push(CallFrame(4));
    // The second frame was written by the same system call: it must not be taken for unsent.
    EXPECT_FALSE(writer.Withdraw(FrameType::kCall, 2));
  });
  writer.Push(CallFrame(2), payload);
  stream.window = kHeaderBytes + 5000 + kHeaderBytes + 100;
  ASSERT_TRUE(writer.Flush(stream).ok());
  stream.window = SIZE_MAX;
  ASSERT_TRUE(*writer.Flush(stream));
  FrameReader reader(kMax);
  Collector sink;
  ASSERT_TRUE(reader.Read(stream, sink).ok());
  ASSERT_EQ(sink.frames.size(), 3u);
  EXPECT_EQ(sink.frames[1].payload, payload);

  writer.Push(CallFrame(5), payload, [&](const Status& status) { aborted += status.code() == Code::kConnectionLost; });
  writer.Push(CallFrame(6), payload, [&](const Status& status) { aborted += status.code() == Code::kConnectionLost; });
  stream.closed = true;
  EXPECT_EQ(writer.Flush(stream).status().code(), Code::kConnectionLost);
  writer.Abort(Status(Code::kConnectionLost, "gone"));
  EXPECT_EQ(aborted, 2);
  EXPECT_TRUE(writer.empty());
}

TEST(FrameWriter, MoreRunsThanOneWritevTakes) {
  MemoryStream stream;
  FrameWriter writer;
  const Bytes payload = Pattern(4096, 1);
  for (uint64_t call = 1; call <= 100; ++call) writer.Push(CallFrame(call), payload);
  ASSERT_TRUE(*writer.Flush(stream));
  FrameReader reader(kMax);
  Collector sink;
  ASSERT_TRUE(reader.Read(stream, sink).ok());
  EXPECT_EQ(sink.frames.size(), 100u);
}

}  // namespace
}  // namespace praas::protocol
