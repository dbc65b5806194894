#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/result.h"
#include "protocol/messages.h"
#include "transport/verbs_message.h"
#include "verbs/memory_budget.h"
#include "verbs/queue.h"

#if PRAAS_VERBS_HEADERS

namespace praas::transport {

/// One end of an RDMA connection between a client and a host: a protection domain with a queue pair, and for each slot
/// a place for a message of the peer and one for a message to it. Which side may use a slot when is up to its users: a
/// slot belongs to the client until its call is sent, then to the host until the reply.
class VerbsLink {
 public:
  /// Bytes of memory `slots` need.
  [[nodiscard]] static constexpr uint64_t MemoryBytes(uint32_t slots) noexcept {
    return uint64_t{2} * slots * kMessageBytes;
  }
  /// As many slots as fit the memory of a connection unless more is asked for: 256 KiB.
  static constexpr uint32_t kSlots = (256u << 10) / (2 * kMessageBytes);
  /// Completions one connection may have at a time: what it sends, and two messages of the peer for each slot (a call
  /// and its cancellation) and a hello.
  [[nodiscard]] static constexpr uint32_t MessagesIn(uint32_t slots) noexcept { return 2 * slots + 1; }
  static constexpr uint32_t kSends = 128;

  /// `memory` has MemoryBytes(slots), starts at a page and outlives this, as `completions` do and `shared`, where
  /// messages are received if there is one. kBackpressure: the memory cannot be registered.
  [[nodiscard]] static Result<std::unique_ptr<VerbsLink>> Make(const verbs::Context& context,
                                                               const verbs::CompletionQueue& completions,
                                                               const verbs::SharedReceiveQueue* shared,
                                                               std::span<std::byte> memory, uint32_t slots);
  ~VerbsLink();
  VerbsLink(const VerbsLink&) = delete;
  VerbsLink& operator=(const VerbsLink&) = delete;

  /// What the peer has to know of this end, and the reverse.
  [[nodiscard]] protocol::VerbsEnd end() const noexcept;
  /// kUnsupported: the two ports are of different kinds. kProtocolInvalid: the peer has another number of slots.
  [[nodiscard]] Status Connect(const protocol::VerbsEnd& peer);
  [[nodiscard]] uint32_t slots() const noexcept { return slots_; }
  [[nodiscard]] const verbs::ProtectionDomain& domain() const noexcept { return domain_; }

  /// The header of the message in `slot`, copied before it is checked.
  [[nodiscard]] Result<Message> Received(MessageKind kind, uint32_t slot) const;
  /// Payloads of messages, kMessagePayloadBytes each.
  [[nodiscard]] std::span<std::byte> Inbox(uint32_t slot) const noexcept;
  [[nodiscard]] std::span<std::byte> Outbox(uint32_t slot) const noexcept;

  /// Sends `message` with as many bytes of the slot's outbox. An `id` that is not 0 comes back with its completion.
  void Send(MessageKind kind, uint32_t slot, const Message& message, size_t payload_bytes, uint64_t id = 0);
  /// A kind without a header.
  void Tell(MessageKind kind, uint32_t slot);
  /// To and from memory of the peer; what the inbox of a slot or a registration holds.
  void Write(std::span<const std::byte> bytes, uint32_t local_key, verbs::RemoteMemory target);
  void Read(std::span<std::byte> bytes, uint32_t local_key, verbs::RemoteMemory source, uint64_t id);
  [[nodiscard]] uint32_t local_key() const noexcept { return region_->local_key(); }
  /// Of what was sent last, and whether that has gone to the device: before, the peer cannot have answered it.
  [[nodiscard]] uint64_t ticket() const noexcept { return pair_->ticket(); }
  [[nodiscard]] bool Posted(uint64_t ticket) const noexcept { return pair_->Posted(ticket); }
  [[nodiscard]] bool queued() const noexcept { return pair_->queued(); }
  /// Hands to the device what was sent.
  [[nodiscard]] Status Ring() noexcept { return pair_->Ring(); }
  /// To be told of each completion of something sent.
  void Finished() noexcept { pair_->Finished(); }
  [[nodiscard]] Status PostReceives(uint32_t count) noexcept { return pair_->PostReceives(count); }
  [[nodiscard]] Status Fail() { return pair_->Fail(); }

 private:
  VerbsLink(verbs::ProtectionDomain domain, std::span<std::byte> memory, uint32_t slots) noexcept
      : domain_(std::move(domain)), memory_(memory), slots_(slots) {}
  [[nodiscard]] std::span<std::byte> In(uint32_t slot) const noexcept;
  [[nodiscard]] std::span<std::byte> Out(uint32_t slot) const noexcept;

  verbs::ProtectionDomain domain_;
  const std::span<std::byte> memory_;
  const uint32_t slots_;
  uint64_t budgeted_ = 0;
  std::optional<verbs::MemoryRegion> region_;
  std::optional<verbs::QueuePair> pair_;
  verbs::RemoteMemory peer_memory_;
};

}  // namespace praas::transport

#endif
