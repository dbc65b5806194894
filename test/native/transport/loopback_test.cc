#include "transport/loopback.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <vector>

namespace praas::transport {
namespace {

using Bytes = std::vector<std::byte>;

Bytes Counting(size_t size) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 251);
  return bytes;
}

/// Sends `bytes` from one end to the other; what arrived until the stream ended or all was there.
Bytes Send(LoopbackPair& pair, ByteStream& from, ByteStream& to, const Bytes& bytes,
           std::vector<size_t>* reads = nullptr) {
  Bytes arrived;
  size_t sent = 0;
  Bytes buffer(10'000);
  for (int idle = 0; idle < 1000 && arrived.size() < bytes.size();) {
    ++idle;
    if (sent < bytes.size()) {
      const iovec part{const_cast<std::byte*>(bytes.data()) + sent, bytes.size() - sent};
      const Result<size_t> written = from.Write({&part, 1});
      if (!written.ok()) break;
      sent += *written;
      if (*written > 0) idle = 0;
    }
    pair.Step();
    const Result<size_t> read = to.Read(buffer);
    if (!read.ok()) break;
    if (*read > 0) {
      idle = 0;
      if (reads != nullptr) reads->push_back(*read);
    }
    arrived.insert(arrived.end(), buffer.begin(), buffer.begin() + static_cast<ptrdiff_t>(*read));
  }
  return arrived;
}

LoopbackPair Make(const LoopbackFaults& faults) {
  Result<LoopbackPair> pair = LoopbackPair::Create(faults);
  EXPECT_TRUE(pair.ok());
  return std::move(*pair);
}

TEST(LoopbackFaults, TextRoundTrips) {
  const LoopbackFaults faults{
      .seed = 42, .split = 1, .stall = 2, .max_delay = 3, .lose_byte = 4, .corrupt = 5, .cut_after = 6};
  EXPECT_EQ(faults.ToText(), "seed=42 split=1 stall=2 max_delay=3 lose_byte=4 corrupt=5 cut_after=6");
  const Result<LoopbackFaults> parsed = LoopbackFaults::Parse(faults.ToText());
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->ToText(), faults.ToText());
  EXPECT_EQ(LoopbackFaults::Parse("")->ToText(), "seed=1");
  for (const char* bad : {"seed", "seed=x", "split=1000001", "other=1", "split=-1", "seed=1x"}) {
    EXPECT_EQ(LoopbackFaults::Parse(bad).status().code(), Code::kArgumentInvalid) << bad;
  }
}

TEST(Loopback, WithoutFaultsIsAPipe) {
  LoopbackPair pair = Make({});
  const auto client = pair.TakeClient(), server = pair.TakeServer();
  const Bytes bytes = Counting(1'000'000);
  EXPECT_EQ(Send(pair, *client, *server, bytes), bytes);
  EXPECT_EQ(Send(pair, *server, *client, bytes), bytes);
}

TEST(Loopback, SplitsStallsAndDelaysKeepEveryByteInOrder) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const LoopbackFaults faults{.seed = seed, .split = 500'000, .stall = 200'000, .max_delay = 5};
    SCOPED_TRACE(faults.ToText());
    LoopbackPair pair = Make(faults);
    const auto client = pair.TakeClient(), server = pair.TakeServer();
    const Bytes bytes = Counting(300'000);
    std::vector<size_t> reads;
    EXPECT_EQ(Send(pair, *client, *server, bytes, &reads), bytes);
    EXPECT_GT(reads.size(), 5u);
  }
}

TEST(Loopback, ReplaysFromItsSeed) {
  const LoopbackFaults faults{
      .seed = 9, .split = 500'000, .stall = 100'000, .max_delay = 3, .lose_byte = 1000, .corrupt = 1000};
  std::vector<size_t> reads[2];
  Bytes arrived[2];
  for (int run = 0; run < 2; ++run) {
    LoopbackPair pair = Make(faults);
    const auto client = pair.TakeClient(), server = pair.TakeServer();
    arrived[run] = Send(pair, *client, *server, Counting(100'000), &reads[run]);
  }
  EXPECT_EQ(reads[0], reads[1]);
  EXPECT_EQ(arrived[0], arrived[1]);
}

TEST(Loopback, LosesAndCorruptsBytes) {
  const Bytes bytes = Counting(100'000);
  {
    LoopbackPair pair = Make({.seed = 3, .split = 1'000'000, .lose_byte = 1'000'000});
    const auto client = pair.TakeClient(), server = pair.TakeServer();
    EXPECT_LT(Send(pair, *client, *server, bytes).size(), bytes.size());
  }
  LoopbackPair pair = Make({.seed = 3, .corrupt = 1'000'000});
  const auto client = pair.TakeClient(), server = pair.TakeServer();
  const Bytes arrived = Send(pair, *client, *server, bytes);
  EXPECT_EQ(arrived.size(), bytes.size());
  EXPECT_NE(arrived, bytes);
}

TEST(Loopback, DelayedBytesWaitForSteps) {
  LoopbackPair pair = Make({.seed = 5, .max_delay = 1000});
  const auto client = pair.TakeClient(), server = pair.TakeServer();
  std::byte byte{42};
  const iovec part{&byte, 1};
  ASSERT_EQ(*client->Write({&part, 1}), 1u);
  pollfd waiting{server->fd(), POLLIN, 0};
  int steps = 0;
  while (::poll(&waiting, 1, 0) == 0) {
    pair.Step();
    ASSERT_LE(++steps, 1000);
  }
  EXPECT_GT(steps, 0);
  std::byte got{};
  EXPECT_EQ(*server->Read({&got, 1}), 1u);
  EXPECT_EQ(got, byte);
}

TEST(Loopback, IsCutWhereItIsToldTo) {
  LoopbackPair pair = Make({.seed = 1, .cut_after = 5000});
  const auto client = pair.TakeClient(), server = pair.TakeServer();
  const Bytes arrived = Send(pair, *client, *server, Counting(100'000));
  EXPECT_LT(arrived.size(), 100'000u);
  std::byte byte;
  EXPECT_EQ(client->Read({&byte, 1}).status().code(), Code::kConnectionLost);
  EXPECT_EQ(server->Read({&byte, 1}).status().code(), Code::kConnectionLost);
  pollfd waiting{server->fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&waiting, 1, 0), 1);
}

TEST(Loopback, ClosingOneEndEndsTheOther) {
  LoopbackPair pair = Make({.seed = 1, .max_delay = 50});
  const auto client = pair.TakeClient();
  auto server = pair.TakeServer();
  std::byte byte{7};
  const iovec part{&byte, 1};
  ASSERT_EQ(*client->Write({&part, 1}), 1u);
  client->Close();
  client->Close();
  EXPECT_EQ(client->Read({&byte, 1}).status().code(), Code::kConnectionClosed);
  EXPECT_EQ(client->Write({&part, 1}).status().code(), Code::kConnectionClosed);
  EXPECT_EQ(*server->Read({&byte, 1}), 1u);
  EXPECT_EQ(server->Read({&byte, 1}).status().code(), Code::kConnectionLost);
  EXPECT_EQ(server->Write({&part, 1}).status().code(), Code::kConnectionLost);
}

}  // namespace
}  // namespace praas::transport
