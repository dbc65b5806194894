#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "protocol/frame.h"
#include "protocol/messages.h"
#include "transport/stream_transport.h"

namespace praas::client {

struct ControlFrame {
  protocol::Frame frame;
  std::vector<std::byte> payload;
};

/// Why a peer ends the connection, as what is in flight then fails with it.
[[nodiscard]] Status ReasonOf(const protocol::Reject& goodbye);
/// Why a peer refuses the connection: the payload of its kReject.
[[nodiscard]] Status RefusalIn(std::span<const std::byte> payload);

/// Flushes what is queued on `wire` and waits for the next frame, which must be one of `expected` and at most
/// `max_payload` bytes. Blocks until the deadline (kConnectionTimeout). When the peer says kGoodbye instead, or
/// kReject, its reason is the result. Used while a connection is set up.
[[nodiscard]] Result<ControlFrame> Exchange(transport::StreamTransport& wire,
                                            std::initializer_list<protocol::FrameType> expected, uint64_t deadline_ns);

}  // namespace praas::client
