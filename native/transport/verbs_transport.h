#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/unique_fd.h"
#include "protocol/frame.h"
#include "publication/published_reads.h"
#include "shm/mapping.h"
#include "transport/direct_transport.h"
#include "transport/result_sizes.h"
#include "transport/verbs_link.h"
#include "verbs/registration_cache.h"
#include "window/payload_area.h"

#if PRAAS_VERBS_HEADERS

namespace praas::transport {

/// Calls by RDMA. Inputs and results up to 4 KiB travel in the message of a call. Larger ones are read from and written
/// to memory of this side, which is registered for that: memory from Allocate is used in place, other inputs are copied
/// into such memory once. Where the budget for registered memory is used up, they travel in pieces of 4 KiB instead.
///
/// A call that the device fails to carry breaks the transport: every call in flight is answered with kConnectionLost.
class VerbsTransport final : public DirectTransport {
 public:
  struct Options {
    verbs::Selection selection{};
    uint64_t window_bytes = 1ull << 30;  // reserved for payloads, not committed
    /// For requests without a deadline.
    uint64_t default_timeout_ns = 60'000'000'000;
  };
  /// Opens the device and makes this end. kUnsupported, kBackpressure (registered memory), kSystem, with the reason.
  /// kConnectionTimeout: there was no time to open it. Blocks until the deadline at most.
  [[nodiscard]] static Result<std::unique_ptr<VerbsTransport>> Create(const Options& options, uint64_t deadline_ns);
  ~VerbsTransport() override;

  /// What the host has to know to connect.
  [[nodiscard]] protocol::VerbsEnd end() const noexcept { return link_->end(); }
  /// Connects to the host's end and makes sure that messages arrive both ways. Blocks until the deadline.
  [[nodiscard]] Status Connect(const protocol::VerbsEnd& host, uint64_t deadline_ns);

  [[nodiscard]] const char* name() const noexcept override { return "verbs"; }
  [[nodiscard]] Result<bool> Submit(const Request& request) override;
  void Cancel(uint64_t call) override;
  void Abandon(uint64_t call) override;
  size_t Poll(const Sink& sink) override;
  [[nodiscard]] int fd() const noexcept override { return wake_ups_.get(); }
  [[nodiscard]] bool wants_write() const noexcept override { return false; }
  [[nodiscard]] bool PrepareToSleep() override;
  [[nodiscard]] Result<Buffer> Allocate(uint64_t bytes) override;
  void Release(const Buffer& buffer) override;
  /// As of shm: memory is gone when this returns, inside a sink when Poll returns.
  void Close() noexcept override;
  [[nodiscard]] bool closed() const noexcept override { return closed_; }

  void Fail(Status status) override;
  void Break(Status why) override;
  [[nodiscard]] const Status& broken() const noexcept override { return broken_; }
  void Trim() override;
  [[nodiscard]] bool HasAnswer() const noexcept override { return false; }
  [[nodiscard]] bool Copies(const Request& request) const noexcept override {
    return (request.flags & protocol::kIdempotent) == 0 && !payload_->OffsetOf(request.input);
  }
  [[nodiscard]] bool Owns(const Buffer& buffer) const noexcept override {
    return payload_ && payload_->OffsetOf({buffer.data, 1});
  }
  void ExpectResults(uint32_t function, uint64_t pages) override {
    result_sizes_.Expect(function, pages * window::PayloadAllocator::kPage);
  }
  void Flush() override;
  [[nodiscard]] publication::PublishedReads* published() noexcept override {
    return link_ != nullptr ? &published_ : nullptr;
  }

  /// What the device reports by itself, taken from its queue by Poll; a fatal one breaks the transport.
  void OnEvent(const verbs::Context::Event& event);

  struct Counters {
    uint64_t calls = 0;
    uint64_t inline_inputs = 0;   // in the message
    uint64_t read_inputs = 0;     // read by the host where they lay
    uint64_t chunked_inputs = 0;  // in pieces, for want of registered memory
    uint64_t inline_results = 0;
    uint64_t written_results = 0;
    uint64_t chunked_results = 0;
    uint64_t copied_bytes = 0;  // into and out of memory outside of Allocate's
    uint64_t rooms_given = 0;   // results the host had to ask room for
  };
  [[nodiscard]] const Counters& counters() const noexcept { return counters_; }
  [[nodiscard]] uint64_t registered_bytes() const noexcept { return cache_ ? cache_->registered_bytes() : 0; }

 private:
  static constexpr uint64_t kNoBlock = 0;  // the slots' messages lie there
  using Lease = verbs::RegistrationCache::Lease;
  struct Call {
    bool in_use = false;
    bool answered = false;
    bool abandoned = false;
    bool cancelled = false;
    uint64_t id = 0;
    uint32_t sequence = 0;
    uint32_t function = 0;
    std::span<const std::byte> input;  // in the payload area, while the host may ask for chunks of it
    uint64_t input_sent = 0;
    uint64_t output_offset = kNoBlock, output_capacity = 0;
    uint64_t output_received = 0;                                // of chunks
    uint64_t pinned_input = kNoBlock, pinned_output = kNoBlock;  // the caller's blocks
    uint64_t own_input = kNoBlock, own_output = kNoBlock;        // blocks of this transport
    Lease input_lease, output_lease;
    std::span<std::byte> plain_output;  // the caller's memory outside of the payload area
    uint64_t room_wanted = 0;           // bytes of a result that waits; 0: none
  };

  VerbsTransport(std::unique_ptr<verbs::Context> context, verbs::CompletionQueue completions, UniqueFd memfd,
                 shm::Mapping mapping, uint64_t default_timeout_ns);
  [[nodiscard]] std::optional<uint32_t> Find(uint64_t id) const noexcept;
  [[nodiscard]] Result<bool> PlaceInput(uint32_t slot, std::span<const std::byte> input, Message& message);
  [[nodiscard]] Status PlaceOutput(uint32_t slot, std::span<std::byte> output, Message& message);
  void OfferOutput(Call& call, Message& message);
  [[nodiscard]] Result<uint64_t> PinBlockOf(uint64_t offset, uint64_t bytes);

  /// Reads the first `bytes` of a published block, and waits for that: a round trip of the devices. Empty: it failed,
  /// and with it the transport. Valid until the next.
  [[nodiscard]] std::span<const std::byte> Fetch(const publication::Location& location, uint64_t bytes);
  [[nodiscard]] bool AwaitFetch();
  size_t TakeCompletions(const Sink& sink);
  size_t OnCompletion(const ibv_wc& completion, const Sink& sink);
  size_t OnMessage(MessageTag tag, const Sink& sink);
  size_t OnReply(Call& call, uint32_t slot, const Message& message, const Sink& sink);
  [[nodiscard]] Result<std::span<const std::byte>> ResultOf(Call& call, uint32_t slot, const Message& message);
  [[nodiscard]] Status OnChunk(Call& call, uint32_t slot, const Message& message);
  [[nodiscard]] Status SendChunk(Call& call, uint32_t slot);
  size_t OnNeedRoom(Call& call, uint32_t slot, const Message& message, const Sink& sink);
  /// Ok: given, or to be tried again when memory was released (room_wanted stays set then).
  [[nodiscard]] Status GiveRoom(uint32_t slot);
  void DropResult(uint32_t slot);
  size_t RetryRooms(const Sink& sink);
  size_t Answer(Call& call, Status status, std::span<const std::byte> payload, const Sink& sink);
  void ForgetRoom(Call& call) noexcept;
  void Retire(uint32_t slot);
  size_t FailAll(const Status& status, const Sink& sink);
  void EndLink() noexcept;
  void UnmapWhenUnused() noexcept;

  std::unique_ptr<verbs::Context> context_;  // null once closed or broken: whoever removes the device need not wait
  std::optional<verbs::CompletionQueue> completions_;
  UniqueFd memfd_;
  shm::Mapping mapping_;
  std::optional<window::PayloadArea> payload_;  // empty once closed and unmapped
  std::unique_ptr<VerbsLink> link_;             // null once closed or broken
  std::optional<verbs::RegistrationCache> cache_;
  UniqueFd wake_ups_;  // epoll of completions and events of the device
  const uint64_t default_timeout_ns_;

  std::vector<Call> calls_;           // by slot
  std::vector<uint32_t> free_slots_;  // used last first
  std::vector<ibv_wc> early_;         // found by PrepareToSleep or Fetch
  publication::PublishedReads published_;
  uint64_t fetched_block_ = kNoBlock, fetched_capacity_ = 0;
  bool armed_ = false;
  bool greeted_ = false;
  uint32_t received_ = 0;  // messages to post receives for
  ResultSizes result_sizes_;
  Status failure_;
  Status broken_;
  bool closed_ = false;
  uint32_t poll_depth_ = 0;  // sinks may call anything, Poll included
  uint32_t polls_ = 0;
  uint32_t rooms_wanted_ = 0;
  uint32_t unanswered_ = 0;
  Counters counters_;
};

}  // namespace praas::transport

#endif
