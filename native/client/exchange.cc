#include "client/exchange.h"

#include <poll.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/clock.h"

namespace praas::client {
namespace {

using protocol::Frame;
using protocol::Placement;

class Expectation : public protocol::FrameSink {
 public:
  Expectation(std::initializer_list<protocol::FrameType> expected) : expected_(expected) {}

  Result<Placement> OnHeader(const Frame& frame) override {
    // The peer may speak again before this side has looked at the answer; that waits.
    if (answer_) return Placement::NotNow();
    if (frame.type == protocol::FrameType::kGoodbye || frame.type == protocol::FrameType::kReject) {
      return Placement::Scratch();
    }
    if (std::find(expected_.begin(), expected_.end(), frame.type) == expected_.end()) {
      return Status(Code::kProtocolInvalid,
                    "frame type " + std::to_string(static_cast<int>(frame.type)) + " while the connection is set up");
    }
    return Placement::Scratch();
  }
  Status OnFrame(const Frame& frame, std::span<std::byte> payload) override {
    if (frame.type == protocol::FrameType::kGoodbye) {
      const Result<protocol::Reject> goodbye = protocol::DecodeReject(payload);
      return goodbye.ok() ? ReasonOf(*goodbye) : goodbye.status();
    }
    if (frame.type == protocol::FrameType::kReject) return RefusalIn(payload);
    answer_ = ControlFrame{frame, {payload.begin(), payload.end()}};
    return Status::Ok();
  }
  Status OnCorrupt(const Frame&) override {
    return Status(Code::kPayloadCorrupt, "a payload does not match its checksum while the connection is set up");
  }

  [[nodiscard]] std::optional<ControlFrame>& answer() noexcept { return answer_; }

 private:
  std::vector<protocol::FrameType> expected_;
  std::optional<ControlFrame> answer_;
};

}  // namespace

Status ReasonOf(const protocol::Reject& goodbye) {
  const Code code = goodbye.code == Code::kOk ? Code::kConnectionLost : goodbye.code;
  // Of a leased worker that has died it is JSON, and stays so.
  if (code == Code::kWorkerCrashed) return Status(code, goodbye.message);
  return Status(code, "the process host closed the connection: " + goodbye.message);
}

Status RefusalIn(std::span<const std::byte> payload) {
  Result<protocol::Reject> reject = protocol::DecodeReject(payload);
  if (!reject.ok()) return reject.status();
  return Status(reject->code == Code::kOk ? Code::kProtocolInvalid : reject->code, std::move(reject->message));
}

Result<ControlFrame> Exchange(transport::StreamTransport& wire, std::initializer_list<protocol::FrameType> expected,
                              uint64_t deadline_ns) {
  Expectation expectation(expected);
  wire.SetOther(&expectation);
  const transport::Transport::Sink no_calls = [](const transport::Reply&) {};
  Result<ControlFrame> result = Status(Code::kConnectionTimeout, "the peer did not answer in time");
  while (true) {
    wire.Poll(no_calls);
    if (expectation.answer()) {
      result = std::move(*expectation.answer());
      break;
    }
    if (!wire.lost().ok()) {
      result = wire.lost();
      break;
    }
    if (NowNs() >= deadline_ns) break;
    if (!wire.PrepareToSleep()) continue;
    pollfd waiting{wire.fd(), static_cast<short>(POLLIN | (wire.wants_write() ? POLLOUT : 0)), 0};
    if (::poll(&waiting, 1, PollTimeoutMs(deadline_ns)) < 0 && errno != EINTR) {
      result = Status::System("poll");
      break;
    }
  }
  wire.SetOther(nullptr);
  return result;
}

}  // namespace praas::client
