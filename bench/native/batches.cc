#include "batches.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/clock.h"
#include "protocol/frame.h"
#include "touch.h"
#include "window/layout.h"

namespace praas::bench {
namespace {

constexpr uint64_t kNsPerSecond = 1'000'000'000;

volatile uint64_t touched;  // what reading gave; nobody needs it

}  // namespace

Batches::Batches(const ClientOptions& options)
    : options_(options),
      on_reply_([this](const transport::Reply& reply) { OnReply(reply); }),
      on_stream_([](const client::StreamEvent&) {}) {
  if (options.lease_hot_ms) {
    control_ = ConnectForControl(options);
    lease_ = std::make_unique<Lease>(*control_, options);
    connection_ = lease_->Connect(options);
  } else {
    connection_ = OrFail(client::Connection::Connect(ConnectOptionsOf(options)), "connect");
  }
  const uint64_t window_calls = options.transport == "shm" ? window::kCalls : UINT64_MAX;
  const uint64_t most = std::min<uint64_t>(connection_->info().max_in_flight, window_calls);
  if (options.in_flight > most) {
    Fail("--in-flight is " + std::to_string(options.in_flight) + "; this connection takes " + std::to_string(most));
  }
  function_ = Resolve(control_ ? *control_ : *connection_, options.function);
  lanes_.resize(options.in_flight);
  for (Lane& lane : lanes_) {
    lane.input = Memory(options.allocate);
    // Over TCP and verbs a result is received where it is wanted. Over shm it is read where the function has put it,
    // unless that is to be memory of the connection; `null` needs none, its result is the input.
    const bool placed = options.transport != "shm" || (options.allocate && options.touch);
    if (placed && !options.no_result) lane.output = Memory(options.allocate);
  }
}

/// Written once, so that no batch pays for page faults.
std::span<std::byte> Batches::Memory(bool of_connection) {
  std::byte* data = nullptr;
  if (of_connection) {
    data = OrFail(connection_->Allocate(options_.bytes), "allocate").data;
  } else {
    data = memory_.emplace_back(std::make_unique<std::byte[]>(options_.bytes)).get();
  }
  for (uint64_t i = 0; i < options_.bytes; ++i) data[i] = static_cast<std::byte>(i * 31 + (i >> 12) + 1);
  return {data, options_.bytes};
}

uint64_t Batches::Run(uint64_t count, std::span<uint64_t> samples) {
  samples_ = samples;
  count_ = count;
  submitted_ = answered_ = 0;
  expected_lane_ = 0;
  const uint64_t begin_ns = at_ns_ = NowNs();
  deadline_ns_ = begin_ns + options_.deadline_s * kNsPerSecond;
  // With one in flight this is what a caller that waits does. With several, replies submit the next call.
  for (size_t turn = 0; answered_ < count_; turn = (turn + 1) % lanes_.size()) {
    Lane& lane = lanes_[turn];
    if (lane.call == 0 && submitted_ < count_) Submit(lane);
    if (lane.call == 0 || submitted_ < std::min<uint64_t>(count_, lanes_.size())) continue;
    connection_->WaitFor(lane.call, options_.hot_us * 1'000, on_reply_, on_stream_);
  }
  return at_ns_ - begin_ns;
}

void Batches::Submit(Lane& lane) {
  if (options_.touch) touch_write(lane.input.data(), lane.input.size(), submitted_);
  ++submitted_;
  lane.begin_ns = at_ns_;
  const uint32_t flags = lanes_.size() == 1 ? uint32_t{protocol::kSync} : 0;
  Result<uint64_t> call = connection_->Invoke(function_.index, lane.input, lane.output, flags, deadline_ns_);
  lane.call = OrFail(std::move(call), "invoke");
}

void Batches::OnReply(const transport::Reply& reply) {
  if (!reply.status.ok()) Fail("call of " + options_.function + ": " + reply.status.message());
  const uint64_t expected = options_.no_result ? 0 : options_.bytes;
  if (reply.payload.size() != expected) {
    Fail(options_.function + " returned " + std::to_string(reply.payload.size()) + " bytes instead of " +
         std::to_string(expected));
  }
  Lane& lane = LaneOf(reply.call);
  lane.call = 0;
  if (options_.touch) {
    touched = touch_read(reply.payload.data(), reply.payload.size());
  } else if (samples_.empty() && std::memcmp(reply.payload.data(), lane.input.data(), expected) != 0) {
    Fail(options_.function + " returned other bytes than it was given");
  }
  at_ns_ = NowNs();
  if (!samples_.empty()) samples_[answered_] = at_ns_ - lane.begin_ns;
  ++answered_;
  if (lanes_.size() > 1 && submitted_ < count_) Submit(lane);
}

Batches::Lane& Batches::LaneOf(uint64_t call) {
  for (size_t step = 0; step < lanes_.size(); ++step) {
    const size_t index = (expected_lane_ + step) % lanes_.size();
    if (lanes_[index].call != call) continue;
    expected_lane_ = (index + 1) % lanes_.size();
    return lanes_[index];
  }
  Fail("a reply came for a call that was not made");
}

}  // namespace praas::bench
