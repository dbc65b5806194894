#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "protocol/frame.h"
#include "protocol/frame_reader.h"
#include "transport/byte_stream.h"

namespace praas::protocol {

/// Queue of frames on their way out. Headers and payloads below kDirectBytes are packed together, larger payloads are
/// sent from where they lie; one writev carries many frames. Unbounded: the owner looks at `queued_bytes()` before it
/// accepts more work.
class FrameWriter {
 public:
  /// Called once, when the payload's memory is no longer needed: sent (kOk), copied (kOk, within Push), or the reason
  /// it never will be.
  using Done = std::function<void(const Status&)>;

  FrameWriter() = default;
  FrameWriter(FrameWriter&&) noexcept = default;
  FrameWriter& operator=(FrameWriter&&) noexcept = default;

  /// Payload checksums on every frame from now on.
  void set_checksum(bool on) noexcept { checksum_ = on; }
  [[nodiscard]] bool checksum() const noexcept { return checksum_; }

  /// Appends a frame; its payload_bytes, payload_crc and the checksum flag are set here. `prefix` is copied and
  /// precedes `payload`; `payload` must stay unchanged until `done`.
  void Push(Frame frame, std::span<const std::byte> payload = {}, Done done = {},
            std::span<const std::byte> prefix = {});
  /// The same with a copy of the payload, whatever its size.
  void PushCopy(const Frame& frame, std::span<const std::byte> payload) { Push(frame, {}, {}, payload); }

  /// Writes until the queue is empty (true) or the stream would block (false). After an error the owner calls Abort.
  [[nodiscard]] Result<bool> Flush(transport::ByteStream& stream);

  /// The payload given for frame `type` of `call` is going away: takes the frame back when none of it has been sent,
  /// else copies what is left. Its `done` is not called. True when the peer will never see the frame. Payloads below
  /// kDirectBytes have been copied when they were pushed: their frames stay.
  bool Withdraw(FrameType type, uint64_t call);
  /// Likewise, but the frame shall still be sent: copies what is left of its payload. Its `done` is not called.
  void Detach(FrameType type, uint64_t call);

  /// Drops everything and calls every `done` with `status`.
  void Abort(const Status& status);

  [[nodiscard]] bool empty() const noexcept { return runs_.empty(); }
  [[nodiscard]] uint64_t queued_bytes() const noexcept { return queued_bytes_; }
  [[nodiscard]] uint64_t staged_bytes() const noexcept { return staged_bytes_; }  // payload copied next to its header
  [[nodiscard]] uint64_t direct_bytes() const noexcept { return direct_bytes_; }  // payload sent from its own memory
  [[nodiscard]] uint64_t copied_bytes() const noexcept {
    return copied_bytes_;
  }  // payload of kDirectBytes or more copied
  [[nodiscard]] uint64_t frames() const noexcept { return frames_; }
  [[nodiscard]] uint64_t writes() const noexcept { return writes_; }

 private:
  /// Packed frames, then at most one payload that is sent from its own memory and whose header ends `packed`.
  struct Run {
    std::vector<std::byte> packed;
    std::span<const std::byte> payload;
    std::vector<std::byte> payload_copy;  // when the memory went away midway
    Done done;
    size_t sent = 0;           // of packed + payload
    size_t last_frame_at = 0;  // where in `packed` the frame of `payload` begins
    FrameType type{};
    uint64_t call = 0;
    [[nodiscard]] size_t size() const noexcept { return packed.size() + payload.size(); }
  };

  [[nodiscard]] Run& RunForPacking(size_t bytes);
  void OwnPayload(Run& run);
  void Consume(size_t bytes);

  static constexpr size_t kPackBytes = 64 * 1024;
  static constexpr size_t kMaxParts = 64;

  std::deque<Run> runs_;
  std::vector<std::byte> spare_;  // the buffer of the last finished run, so that steady traffic does not allocate
  uint64_t queued_bytes_ = 0;
  bool checksum_ = false;
  uint64_t staged_bytes_ = 0, direct_bytes_ = 0, copied_bytes_ = 0, frames_ = 0, writes_ = 0;
};

}  // namespace praas::protocol
