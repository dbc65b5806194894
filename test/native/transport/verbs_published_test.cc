// Published values read by RDMA, over a real device: no worker and no thread of the host takes part.
#include <gtest/gtest.h>

#include "support/rdma.h"

#if PRAAS_VERBS_HEADERS

#include "client/state_request.h"
#include "host/host_fixture.h"
#include "protocol/state_messages.h"

namespace praas::test {
namespace {

using protocol::StateOp;
using protocol::StateReply;
using protocol::StateRequest;

class VerbsPublished : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = NoRdmaDevice(); !reason.empty()) GTEST_SKIP() << reason;
    host_.emplace(process_);
    ASSERT_TRUE(host_->status().ok()) << host_->status().message();
    host_->AddWorkers(1);
  }

  /// Sends a request and decodes the answer; its data is kept by this.
  StateReply Ask(Driver& client, StateRequest request) {
    const auto call = client::SubmitState(*client, request, DeadlineIn(kWatchdogNs));
    answer_ = client.Wait(call);
    EXPECT_TRUE(answer_.status.ok()) << answer_.status.message();
    auto reply = protocol::DecodeStateReply(request.op, answer_.payload);
    EXPECT_TRUE(reply.ok()) << reply.status().message();
    return reply.ok() ? *reply : StateReply{};
  }
  void Set(Driver& client, const std::string& key, std::span<const std::byte> value) {
    StateRequest request;
    request.op = StateOp::kSet;
    request.key = key;
    request.data = value;
    Ask(client, request);
  }
  void Publish(Driver& client, const std::string& key, uint64_t capacity) {
    StateRequest request;
    request.op = StateOp::kPublish;
    request.key = key;
    request.capacity = capacity;
    Ask(client, request);
  }
  /// What the client finds by itself, once it has learnt the place.
  publication::Outcome Read(Driver& client, const std::string& key, Bytes& value) {
    return client->published()->Read(key, [&value](uint64_t bytes) {
      value.resize(bytes);
      return std::span(value);
    });
  }
  void Learn(Driver& client, const std::string& key) {
    StateRequest request;
    request.op = StateOp::kRead;
    request.key = key;
    const StateReply reply = Ask(client, request);
    ASSERT_TRUE(reply.place.has_value());
    EXPECT_NE(reply.place->address, 0u);
    client->published()->Learn(key, reply.place);
  }

  TestProcess process_;
  std::optional<HostRun> host_;
  Driver::Outcome answer_;
};

TEST_F(VerbsPublished, ValuesOfEverySizeAreReadWithoutTheHost) {
  Driver writer = host_->Client("tcp");
  Driver reader = host_->Client("verbs");
  ASSERT_NE(reader->published(), nullptr);
  for (const size_t size : {0, 1, 4000, 70'000, 300'000}) {
    const std::string key = "k" + std::to_string(size);
    const Bytes first = Pattern(size, 1);
    Set(writer, key, first);
    Publish(writer, key, 400'000);
    Learn(reader, key);
    const uint64_t frames = reader->counters().frames_sent;
    Bytes value;
    const publication::Outcome found = Read(reader, key, value);
    EXPECT_EQ(found.verdict, publication::Verdict::kRead) << size;
    EXPECT_EQ(value, first);
    const Bytes second = Pattern(size / 2, 2);
    Set(writer, key, second);
    const publication::Outcome again = Read(reader, key, value);
    EXPECT_EQ(again.verdict, publication::Verdict::kRead);
    EXPECT_GT(again.version, found.version);
    EXPECT_EQ(value, second);
    EXPECT_EQ(reader->counters().frames_sent, frames) << "nobody was asked";
  }
  // Calls and reads share the queue pair.
  const Bytes input = Pattern(50'000, 3);
  const auto call = reader->Invoke(fn::kEcho, input, {}, 0, DeadlineIn(kWatchdogNs));
  reader.Poll();
  Bytes value;
  EXPECT_EQ(Read(reader, "k4000", value).verdict, publication::Verdict::kRead);
  EXPECT_EQ(reader.Wait(call).payload, input);
}

TEST_F(VerbsPublished, NoReadIsTorn) {
  Driver reader = host_->Client("verbs");
  Driver writer = host_->Client("tcp");
  const auto filled = [](size_t round) { return Bytes(20'000 + round % 7 * 100, static_cast<std::byte>(round)); };
  Set(writer, "key", filled(0));
  Publish(writer, "key", 30'000);
  Learn(reader, "key");
  std::atomic<bool> stop{false};
  std::thread writing([&] {
    for (size_t round = 1; !stop; ++round) Set(writer, "key", filled(round));
  });
  uint64_t last = 0, reads = 0;
  for (const uint64_t deadline = DeadlineIn(kWatchdogNs); reads < 300 && NowNs() < deadline;) {
    Bytes value;
    const publication::Outcome found = Read(reader, "key", value);
    if (found.verdict != publication::Verdict::kRead) continue;  // being written: it is asked for again
    ++reads;
    EXPECT_GE(found.version, last);
    last = found.version;
    ASSERT_FALSE(value.empty());
    EXPECT_TRUE(std::all_of(value.begin(), value.end(), [&](std::byte byte) { return byte == value[0]; }));
  }
  stop = true;
  writing.join();
  EXPECT_EQ(reads, 300u);
}

TEST_F(VerbsPublished, WhatIsUnpublishedIsAskedForAgain) {
  Driver writer = host_->Client("tcp");
  Driver reader = host_->Client("verbs");
  const Bytes value = Pattern(100, 1);
  Set(writer, "key", value);
  Publish(writer, "key", 4000);
  Learn(reader, "key");
  StateRequest unpublish;
  unpublish.op = StateOp::kUnpublish;
  unpublish.key = "key";
  Ask(writer, unpublish);
  Bytes found;
  EXPECT_EQ(Read(reader, "key", found).verdict, publication::Verdict::kAsk);
  EXPECT_EQ(reader->info().transport, "verbs");
}

}  // namespace
}  // namespace praas::test

#endif
