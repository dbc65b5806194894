#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "protocol/frame.h"
#include "transport/stream_transport.h"

namespace praas::client {

struct ControlFrame {
  protocol::Frame frame;
  std::vector<std::byte> payload;
};

/// Flushes what is queued on `wire` and waits for the next frame, which must be one of `expected` and at most
/// `max_payload` bytes. Blocks until the deadline (kConnectionTimeout). Used while a connection is set up.
[[nodiscard]] Result<ControlFrame> Exchange(transport::StreamTransport& wire,
                                            std::initializer_list<protocol::FrameType> expected, uint64_t deadline_ns);

}  // namespace praas::client
