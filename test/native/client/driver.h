#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "client/connection.h"
#include "client/state_request.h"
#include "support/tokens.h"
#include "transport/frame_server.h"

namespace praas::test {

/// For waits that must end by themselves: only a hang takes that long.
inline constexpr uint64_t kWatchdogNs = 60'000'000'000;

/// A connection with what it handed out, kept by call. Every outcome must come once.
class Driver {
 public:
  explicit Driver(std::unique_ptr<client::Connection> connection) : connection_(std::move(connection)) {}

  struct Outcome {
    Status status{};
    Bytes payload{};
    const std::byte* lay_at = nullptr;
  };
  struct StreamOutcome {
    Bytes received{};
    uint64_t room = 0;
    bool ended = false;
    Status status{};
    bool consume = true;  // give credit back at once
  };

  client::Connection& operator*() { return *connection_; }
  client::Connection* operator->() { return connection_.get(); }

  size_t Poll() { return connection_->Poll(replies_, streams_); }
  /// Blocks as an application would. `call` must not be a stream.
  Outcome Wait(uint64_t call, uint64_t spin_ns = 0) {
    if (!outcomes_.contains(call)) connection_->WaitFor(call, spin_ns, replies_, streams_);
    const auto found = outcomes_.find(call);
    if (found == outcomes_.end()) return {Status(Code::kInternal, "no outcome"), {}, nullptr};
    Outcome outcome = std::move(found->second);
    outcomes_.erase(found);
    return outcome;
  }
  Outcome Wait(const Result<uint64_t>& call) { return call.ok() ? Wait(*call) : Outcome{call.status(), {}, nullptr}; }
  template <typename Predicate>
  void PollUntil(Predicate predicate) {
    const uint64_t deadline = DeadlineIn(kWatchdogNs);
    while (!predicate()) {
      Poll();
      ASSERT_LT(NowNs(), deadline) << "nothing happened";
    }
  }
  Outcome Call(uint32_t function, std::span<const std::byte> input, std::span<std::byte> output = {},
               uint64_t deadline_ns = 0) {
    return Wait(
        connection_->Invoke(function, input, output, 0, deadline_ns != 0 ? deadline_ns : DeadlineIn(kWatchdogNs)));
  }

  std::map<uint64_t, Outcome>& outcomes() { return outcomes_; }
  std::map<uint64_t, StreamOutcome>& streams() { return stream_outcomes_; }
  [[nodiscard]] size_t repeated() const { return repeated_; }
  /// Runs inside the sink, after the outcome was kept.
  std::function<void(uint64_t call)> on_reply;
  std::function<void(const client::StreamEvent&)> on_stream;

 private:
  std::unique_ptr<client::Connection> connection_;
  std::map<uint64_t, Outcome> outcomes_;
  std::map<uint64_t, StreamOutcome> stream_outcomes_;
  std::map<uint64_t, int> seen_;
  size_t repeated_ = 0;

  client::Connection::ReplySink replies_ = [this](const transport::Reply& reply) {
    repeated_ += seen_[reply.call]++ > 0;
    outcomes_[reply.call] = {reply.status, {reply.payload.begin(), reply.payload.end()}, reply.payload.data()};
    if (on_reply) on_reply(reply.call);
  };
  client::Connection::StreamSink streams_ = [this](const client::StreamEvent& event) {
    StreamOutcome& stream = stream_outcomes_[event.call];
    EXPECT_FALSE(stream.ended) << "an event after the end";
    switch (event.kind) {
      case client::StreamEvent::Kind::kChunk:
        stream.received.insert(stream.received.end(), event.chunk.begin(), event.chunk.end());
        if (stream.consume) connection_->ConsumedChunk(event.call, event.chunk.size());
        break;
      case client::StreamEvent::Kind::kRoom:
        stream.room = event.room;
        break;
      case client::StreamEvent::Kind::kEnd:
        stream.ended = true;
        stream.status = event.status;
        break;
    }
    if (on_stream) on_stream(event);
  };
};

inline client::ConnectOptions OptionsFor(uint16_t port) {
  client::ConnectOptions options;
  options.host = "127.0.0.1";
  options.port = port;
  options.process = "p";
  options.token = TokenFor(protocol::kAllVerbs);
  options.transport = "tcp";
  options.timeout_ns = kWatchdogNs;
  return options;
}

inline Driver Connect(const client::ConnectOptions& options) {
  Result<std::unique_ptr<client::Connection>> connection = client::Connection::Connect(options);
  EXPECT_TRUE(connection.ok()) << connection.status().message();
  return Driver(connection.ok() ? std::move(*connection) : nullptr);
}
inline Driver Connect(FrameServer& server) { return Connect(OptionsFor(server.port())); }

}  // namespace praas::test
