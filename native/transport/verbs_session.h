#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "publication/layout.h"
#include "transport/shm_transport.h"
#include "transport/verbs_link.h"
#include "verbs/registration_cache.h"
#include "window/handover.h"

#if PRAAS_VERBS_HEADERS

namespace praas::transport {

/// One client's calls by RDMA. Its messages arrive in memory of a window of its own, which workers serve as they serve
/// the window of a client on the same machine: this is that client. Small inputs are used where the device has put
/// them, larger ones are read into blocks of the window; results are sent from where workers have written them. I/O
/// thread.
///
/// The remote client can write to its messages' memory and to what is registered for its inputs, never to the window's
/// rings: it can spoil its own payloads and nothing else. What it does against the protocol breaks its connection.
class VerbsSession {
 public:
  struct Limits {
    uint64_t max_contiguous = 0;
    uint64_t default_timeout_ns = 0;
  };
  [[nodiscard]] static Result<std::unique_ptr<VerbsSession>> Create(const verbs::Context& context,
                                                                    const verbs::CompletionQueue& completions,
                                                                    const verbs::SharedReceiveQueue& receives,
                                                                    window::Handover handover, const Limits& limits,
                                                                    const protocol::VerbsEnd& client);
  ~VerbsSession();

  [[nodiscard]] protocol::VerbsEnd end() const noexcept { return link_->end(); }
  /// A message of the client, and the completion of something sent to it.
  void OnMessage(uint32_t immediate);
  void OnSent(uint64_t id);
  /// Moves what can be moved. Returns how many calls went on.
  size_t Poll();
  /// Asks for the end of every call in flight.
  void CancelAll() { window_->CancelAll(); }
  void Break(Status why);
  [[nodiscard]] const Status& broken() const noexcept { return broken_; }

  /// Readable when results are there, provided PrepareToSleep returned true before.
  [[nodiscard]] int fd() const noexcept { return window_->fd(); }
  [[nodiscard]] bool PrepareToSleep() { return broken_.ok() && window_->PrepareToSleep(); }
  [[nodiscard]] uint32_t in_flight() const noexcept { return in_flight_; }
  /// Nothing is being done, sent or read by the device.
  [[nodiscard]] bool idle() const noexcept {
    return !broken_.ok() || (in_flight_ == 0 && held_.empty() && !link_->queued());
  }
  /// Gives registrations and memory back that nothing uses.
  void Trim();
  /// Breaks a connection whose client leaves a call alone that it has to go on with, long past its deadline.
  void Tick(uint64_t now_ns);
  /// It has made a call.
  [[nodiscard]] bool active() const noexcept { return active_; }
  /// Adds to `place`, a block in `area`, where the client's device finds it, for as long as this lives. Without budget
  /// for that it stays as it is, and the client goes on asking.
  void Locate(std::span<std::byte> area, publication::Location& place);
  void ExpectResults(uint32_t function, uint64_t pages) { window_->ExpectResults(function, pages); }
  /// Hears why a call cannot be made, before its client does.
  void SetRefusalSink(std::function<void(const Status& why)> sink) { on_refusal_ = std::move(sink); }

 private:
  using Lease = verbs::RegistrationCache::Lease;
  enum class Phase : uint8_t {
    kFree,
    kWaiting,    // for memory for its input, or for room in the window
    kReading,    // the device reads its input
    kReceiving,  // its input comes in chunks
    kCalled,
    kAskedRoom,  // its result is larger than what the client has offered
    kPushing,    // its result goes in chunks
  };
  struct Slot {
    Phase phase = Phase::kFree;
    bool cancelled = false;
    Message call;
    uint64_t deadline_ns = 0;
    uint64_t told = 0;  // ticket of the last message about it
    Buffer input;       // empty: the input lies in the message
    uint64_t input_received = 0;
    bool has_input = false;
    Lease input_lease;
    uint16_t status = 0;                // a Code: what the result is the message of
    std::span<const std::byte> result;  // pinned, from kAskedRoom on
    uint64_t result_block = 0;
    uint64_t result_sent = 0;  // of chunks
  };
  /// What a device may still be reading after the slot has been answered.
  struct Held {
    uint64_t block;
    Lease lease;
  };

  /// What a completion is about, and of which slot.
  enum class Sent : uint8_t { kNothing, kInputRead, kPieceRead, kResult };
  [[nodiscard]] static constexpr uint64_t IdOf(uint32_t slot, Sent sent) noexcept {
    return uint64_t{slot} << 8 | static_cast<uint64_t>(sent);
  }

  explicit VerbsSession(const Limits& limits) : limits_(limits) {}
  void OnCall(uint32_t slot, const Message& call);
  void OnChunk(uint32_t slot, const Message& chunk);
  void OnRoom(uint32_t slot, const Message& room);
  void OnNext(uint32_t slot);
  void OnCancel(uint32_t slot);
  void Begin(uint32_t slot);
  void StartInput(uint32_t slot);
  void ReadPiece(uint32_t slot);
  void HasInput(uint32_t slot);
  void Wait(uint32_t slot);
  void RetryWaiting();
  void OnReply(const transport::Reply& reply);
  void DropInput(Slot& slot);
  /// Of slot.result.
  void Offer(uint32_t slot);
  void DeliverResult(uint32_t slot, verbs::RemoteMemory target);
  void PushChunk(uint32_t slot);
  void DropResult(Slot& slot);
  void Reply(uint32_t slot, Message message, size_t payload_bytes, uint64_t id = 0);
  void Refuse(uint32_t slot, const Status& why);
  void ReplyError(uint32_t slot, const Status& status);
  /// As a result, because it is larger than a message. false: there is no room for it.
  [[nodiscard]] bool OfferError(uint32_t slot, std::span<const std::byte> text);
  void Send(MessageKind kind, uint32_t slot, const Message& message, size_t payload_bytes, uint64_t id = 0);
  void Tell(MessageKind kind, uint32_t slot);
  void Violated(const char* what);

  const Limits limits_;
  std::unique_ptr<ShmTransport> window_;
  Buffer messages_;
  std::unique_ptr<VerbsLink> link_;
  std::optional<verbs::RegistrationCache> cache_;
  std::optional<verbs::RegistrationCache> published_;
  std::map<uint64_t, Lease> located_;  // by offset
  std::vector<Slot> slots_;
  std::deque<Held> held_;  // in the order their replies were sent
  std::vector<uint32_t> waiting_;
  Transport::Sink on_reply_;
  std::function<void(const Status& why)> on_refusal_;
  Status broken_;
  uint32_t in_flight_ = 0;
  bool active_ = false;
  bool greeted_ = false;
};

}  // namespace praas::transport

#endif
