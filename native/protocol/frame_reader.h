#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/result.h"
#include "protocol/frame.h"
#include "transport/byte_stream.h"

namespace praas::protocol {

/// Payloads from this size on are read straight to where they shall lie.
inline constexpr size_t kDirectBytes = 4096;

/// Where a payload shall go.
struct Placement {
  enum class Kind {
    kInto,  // `into`, at least payload_bytes of it, which stays valid until OnFrame or OnCorrupt, or until the reader
            // goes
    kScratch,  // the reader's own memory; valid inside OnFrame
    kDiscard,  // nowhere: the payload is skipped, OnFrame is not called
    kNotNow,   // no memory at the moment: reading stops, and the same frame is offered again by the next Read
  };
  Kind kind = Kind::kScratch;
  std::span<std::byte> into;

  [[nodiscard]] static Placement Into(std::span<std::byte> memory) noexcept { return {Kind::kInto, memory}; }
  [[nodiscard]] static Placement Scratch() noexcept { return {Kind::kScratch, {}}; }
  [[nodiscard]] static Placement Discard() noexcept { return {Kind::kDiscard, {}}; }
  [[nodiscard]] static Placement NotNow() noexcept { return {Kind::kNotNow, {}}; }
};

/// What a connection does with the frames that arrive. A failed Status from any method breaks the connection: Read
/// returns it. Methods must not destroy the reader or call Read.
class FrameSink {
 public:
  virtual ~FrameSink() = default;
  /// A valid header has arrived (also for frames without payload).
  [[nodiscard]] virtual Result<Placement> OnHeader(const Frame& frame) = 0;
  /// The payload is complete and lies where OnHeader said; with kScratch it is valid during the call.
  [[nodiscard]] virtual Status OnFrame(const Frame& frame, std::span<std::byte> payload) = 0;
  /// The payload does not match its checksum. The stream itself is intact: the header was checked by itself.
  [[nodiscard]] virtual Status OnCorrupt(const Frame& frame) = 0;
};

/// Cuts a byte stream into frames. Small reads are batched through a staging buffer of 64 KiB; payloads of kDirectBytes
/// or more are read straight into their final memory, except for their first bytes that came along in the staging
/// buffer. How much a read may take ahead adapts: it grows while reads come back full of small frames and drops when a
/// large payload shows up, so that neither many small frames cost a system call each nor large payloads a copy.
class FrameReader {
 public:
  explicit FrameReader(uint64_t max_payload) noexcept : max_payload_(max_payload) {}
  FrameReader(FrameReader&&) noexcept = default;
  FrameReader& operator=(FrameReader&&) noexcept = default;

  enum class State {
    kDrained,  // everything there was has been read; wait for the fd
    kPaused,   // the sink said kNotNow; call Read when it may have room
    kMore,     // `budget` is used up; call Read again without waiting
  };

  /// Reads at most about `budget` bytes. An error is final: the stream's (kConnectionLost, saying whether it ended
  /// within a frame), a malformed header's, or the sink's.
  [[nodiscard]] Result<State> Read(transport::ByteStream& stream, FrameSink& sink, size_t budget = kDefaultBudget);

  void set_max_payload(uint64_t bytes) noexcept { max_payload_ = bytes; }
  /// In the middle of a frame: the peer owes bytes.
  [[nodiscard]] bool mid_frame() const noexcept { return frame_.has_value() || begin_ != end_; }
  /// The call whose payload is being read into the sink's memory at the moment.
  [[nodiscard]] std::optional<uint64_t> current_call() const noexcept;
  /// The memory given for the current payload is no longer available: the rest of it is skipped, OnFrame is not called.
  void DiscardCurrent() noexcept;

  [[nodiscard]] uint64_t staged_bytes() const noexcept { return staged_bytes_; }  // payload that went through staging
  [[nodiscard]] uint64_t direct_bytes() const noexcept { return direct_bytes_; }  // payload read into its final place
  [[nodiscard]] uint64_t frames() const noexcept { return frames_; }

  static constexpr size_t kStagingBytes = 64 * 1024;
  static constexpr size_t kDefaultBudget = 1024 * 1024;

 private:
  static constexpr size_t kSmallestRead = 1024;
  static constexpr size_t kKeptScratchBytes = 4 * 1024 * 1024;

  [[nodiscard]] size_t buffered() const noexcept { return end_ - begin_; }
  [[nodiscard]] Result<bool> Advance(FrameSink& sink);
  [[nodiscard]] Result<bool> Place(FrameSink& sink);
  void TakeBuffered() noexcept;
  [[nodiscard]] Status Finish(FrameSink& sink);
  [[nodiscard]] Result<size_t> Fill(transport::ByteStream& stream);
  [[nodiscard]] Status Lost(const Status& cause) const;

  uint64_t max_payload_;
  std::unique_ptr<std::byte[]> staging_;
  size_t begin_ = 0, end_ = 0;         // unread part of staging
  size_t read_ahead_ = kSmallestRead;  // bytes a staging read may take
  bool short_ = false;                 // the last read gave less than was asked for

  std::optional<Frame> frame_;  // header read, payload not complete
  bool placed_ = false;         // the sink has said where the payload goes
  Placement::Kind kind_ = Placement::Kind::kScratch;
  std::span<std::byte> target_;  // kInto, or `scratch_`; empty for payloads used within staging
  uint64_t received_ = 0;        // of the payload
  std::unique_ptr<std::byte[]> scratch_;
  size_t scratch_bytes_ = 0;

  uint64_t staged_bytes_ = 0, direct_bytes_ = 0, frames_ = 0;
};

}  // namespace praas::protocol
