#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "publication/area.h"
#include "publication/published_reads.h"
#include "transport/direct_transport.h"
#include "transport/result_sizes.h"
#include "window/client_window.h"
#include "window/handover.h"

namespace praas::transport {

/// Calls through a window shared with the host and its workers on the same machine.
///
/// Payloads in memory from Allocate are used in place. Other inputs are copied once: up to 4 KiB into the call's slot,
/// larger ones into a block. Results without an output of their own go to the call's slot or to a block as large as the
/// function's recent results; a larger one waits on the server until it has been given room.
class ShmTransport final : public DirectTransport {
 public:
  /// `default_timeout_ns` is for requests without a deadline.
  [[nodiscard]] static Result<std::unique_ptr<ShmTransport>> Create(window::Handover handover,
                                                                    uint64_t default_timeout_ns = 60'000'000'000);
  ~ShmTransport() override;

  [[nodiscard]] const char* name() const noexcept override { return "shm"; }
  [[nodiscard]] Result<bool> Submit(const Request& request) override;
  void Cancel(uint64_t call) override;
  void Abandon(uint64_t call) override;
  size_t Poll(const Sink& sink) override;
  [[nodiscard]] int fd() const noexcept override;
  [[nodiscard]] bool wants_write() const noexcept override { return false; }
  [[nodiscard]] bool PrepareToSleep() override;
  [[nodiscard]] Result<Buffer> Allocate(uint64_t bytes) override;
  void Release(const Buffer& buffer) override;
  /// Calls in flight are answered with kConnectionClosed by the next Poll. The window is unmapped: buffers and payloads
  /// are gone when this returns, inside a sink when Poll returns.
  void Close() noexcept override;
  [[nodiscard]] bool closed() const noexcept override { return closed_; }

  void Fail(Status status) override;
  /// Nothing but the peer's end does.
  void Break(Status why) override { Fail(std::move(why)); }
  [[nodiscard]] const Status& broken() const noexcept override;
  void Trim() override;
  [[nodiscard]] bool HasAnswer() const noexcept override { return window_ != nullptr && window_->HasAnswer(); }
  [[nodiscard]] bool Copies(const Request& request) const noexcept override {
    return !window_->payload().OffsetOf(request.input);
  }
  [[nodiscard]] bool Owns(const Buffer& buffer) const noexcept override {
    return window_ != nullptr && window_->payload().OffsetOf({buffer.data, 1});
  }
  void ExpectResults(uint32_t function, uint64_t pages) override {
    result_sizes_.Expect(function, pages * window::PayloadAllocator::kPage);
  }
  [[nodiscard]] publication::PublishedReads* published() noexcept override { return area_ ? &published_ : nullptr; }
  void Flush() override {}

  // For who passes calls of others on (transport/verbs_session.h, worker/served_connection.h).
  /// Of every call in flight.
  void CancelAll();
  /// Asked before memory goes back to the system. false: not now.
  void SetTrimGuard(std::function<bool()> may_trim) { may_trim_ = std::move(may_trim); }
  /// Memory of the window.
  [[nodiscard]] std::span<std::byte> memory() const noexcept { return window_->Bytes(0, window_->bytes()); }
  /// Whether results of `function` may be larger than `bytes`.
  [[nodiscard]] bool MayExceed(uint32_t function, uint64_t bytes) const noexcept {
    return result_sizes_.Hint(function) > bytes;
  }
  /// Keeps the block with `payload`, of a reply, beyond the sink; until Unpin.
  [[nodiscard]] Result<uint64_t> Pin(std::span<const std::byte> payload);
  void Unpin(uint64_t block) { window_->payload().allocator().Unpin(block); }

  struct Counters {
    uint64_t calls = 0;            // submitted
    uint64_t replies = 0;          // handed to the sink
    uint64_t in_place_inputs = 0;  // used where the caller had them
    uint64_t staged_bytes = 0;     // input bytes copied into call slots
    uint64_t copied_bytes = 0;     // input bytes copied into blocks, result bytes copied into memory outside the window
    uint64_t rooms_given = 0;      // results that had to wait for room
    uint64_t abandoned = 0;
    window::ClientWindow::Counters window;
  };
  [[nodiscard]] Counters counters() const noexcept;

 private:
  static constexpr uint64_t kNoBlock = 0;  // offset 0 is the window's header
  struct Call {
    bool in_use = false;
    bool answered = false;   // the sink has had its reply; the server may still be at work
    bool abandoned = false;  // its owner does not wait for the result any more
    uint64_t id = 0;
    uint32_t function = 0;
    uint64_t input_offset = 0, input_bytes = 0;
    uint64_t output_offset = 0, output_capacity = 0;
    uint64_t pinned_input = kNoBlock, pinned_output = kNoBlock;  // the caller's blocks
    uint64_t own_input = kNoBlock, own_output = kNoBlock;        // blocks of this transport
    std::span<std::byte> plain_output;                           // the caller's memory outside the window
    uint64_t room_wanted = 0;                                    // bytes of a result that waits; 0: none
  };

  ShmTransport(std::unique_ptr<window::ClientWindow> window, uint64_t default_timeout_ns);
  [[nodiscard]] std::optional<uint32_t> Find(uint64_t id) const noexcept;
  [[nodiscard]] Result<bool> PlaceInput(uint32_t index, std::span<const std::byte> input);
  [[nodiscard]] Status PlaceOutput(uint32_t index, std::span<std::byte> output);
  [[nodiscard]] Result<uint64_t> PinBlockOf(uint64_t offset, uint64_t bytes);
  size_t Deliver(const window::ClientWindow::Completion& completion, const Sink& sink);
  size_t DeliverResult(Call& call, const window::ClientWindow::Completion& completion, const Sink& sink);
  [[nodiscard]] Status CheckResult(const Call& call, const window::ClientWindow::Completion& completion) const;
  size_t Answer(Call& call, Status status, std::span<const std::byte> payload, const Sink& sink);
  /// Ok: given, or to be tried again when memory was released (room_wanted stays set then).
  [[nodiscard]] Status GiveRoom(uint32_t index);
  void ForgetRoom(Call& call) noexcept;
  size_t RetryRooms(const Sink& sink);
  size_t FailAll(const Status& status, const Sink& sink);
  void Retire(uint32_t index);
  void UnmapWhenUnused();
  void TrimTo(uint64_t keep_bytes);

  std::optional<publication::Area> area_;  // of the process
  publication::PublishedReads published_;
  std::unique_ptr<window::ClientWindow> window_;  // null once closed and unmapped
  uint64_t default_timeout_ns_;
  std::array<Call, window::kCalls> calls_{};
  std::vector<window::ClientWindow::Completion> completions_;
  ResultSizes result_sizes_;
  std::function<bool()> may_trim_;
  Status failure_;
  bool closed_ = false;
  uint32_t poll_depth_ = 0;  // sinks may call anything, Poll included
  uint32_t vain_polls_ = 0;
  uint32_t rooms_wanted_ = 0;
  uint32_t unanswered_ = 0;
  uint64_t trimmed_ns_ = 0;
  Counters counters_;
};

}  // namespace praas::transport
