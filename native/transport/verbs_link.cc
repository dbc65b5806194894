#include "transport/verbs_link.h"

#if PRAAS_VERBS_HEADERS

#include <algorithm>
#include <array>
#include <cassert>
#include <string>
#include <utility>

namespace praas::transport {

using verbs::MemoryBudget;
using verbs::MemoryRegion;
using verbs::QueuePair;

Result<std::unique_ptr<VerbsLink>> VerbsLink::Make(const verbs::Context& context,
                                                   const verbs::CompletionQueue& completions,
                                                   const verbs::SharedReceiveQueue* shared, std::span<std::byte> memory,
                                                   uint32_t slots) {
  assert(memory.size() >= MemoryBytes(slots));
  Result<verbs::ProtectionDomain> domain = verbs::ProtectionDomain::Make(context);
  if (!domain.ok()) return domain.status();
  std::unique_ptr<VerbsLink> link(new VerbsLink(*std::move(domain), memory, slots));
  if (!MemoryBudget::OfThisProcess().Take(memory.size())) {
    return Status(Code::kBackpressure, "the " + std::to_string(MemoryBudget::OfThisProcess().total()) +
                                           " bytes this process may have registered for RDMA are in use (ulimit -l)");
  }
  link->budgeted_ = memory.size();
  Result<MemoryRegion> region = MemoryRegion::Register(link->domain_, memory, MemoryRegion::Access::kRemote);
  if (!region.ok()) return region.status();
  link->region_.emplace(*std::move(region));
  Result<QueuePair> pair =
      QueuePair::Make(link->domain_, completions, {.sends = kSends, .receives = MessagesIn(slots), .shared = shared});
  if (!pair.ok()) return pair.status();
  link->pair_.emplace(*std::move(pair));
  return link;
}

VerbsLink::~VerbsLink() {
  pair_.reset();
  region_.reset();
  MemoryBudget::OfThisProcess().Give(budgeted_);
}

protocol::VerbsEnd VerbsLink::end() const noexcept {
  const verbs::Endpoint& endpoint = pair_->endpoint();
  const verbs::RemoteMemory memory = region_->remote();
  return {.queue_pair = endpoint.queue_pair,
          .first_packet = endpoint.first_packet,
          .ethernet = endpoint.address.ethernet,
          .lid = endpoint.address.lid,
          .gid = endpoint.address.gid,
          .mtu_bytes = endpoint.address.mtu_bytes,
          .memory_address = memory.address,
          .memory_key = memory.key,
          .slots = slots_};
}

Status VerbsLink::Connect(const protocol::VerbsEnd& peer) {
  if (peer.slots != slots_) {
    return {Code::kProtocolInvalid, "the peer has " + std::to_string(peer.slots) + " slots for messages; " +
                                        std::to_string(slots_) + " were agreed on"};
  }
  if (peer.ethernet != pair_->endpoint().address.ethernet) {
    return {Code::kUnsupported, peer.ethernet ? "this side is on InfiniBand and the peer on Ethernet"
                                              : "this side is on Ethernet and the peer on InfiniBand"};
  }
  peer_memory_ = {peer.memory_address, peer.memory_key};
  return pair_->Connect(
      {.queue_pair = peer.queue_pair,
       .first_packet = peer.first_packet,
       .address = {.lid = peer.lid, .ethernet = peer.ethernet, .gid = peer.gid, .mtu_bytes = peer.mtu_bytes}});
}

// All messages of the peer, then all to it.
std::span<std::byte> VerbsLink::In(uint32_t slot) const noexcept {
  return memory_.subspan(uint64_t{slot} * kMessageBytes, kMessageBytes);
}
std::span<std::byte> VerbsLink::Out(uint32_t slot) const noexcept {
  return memory_.subspan((uint64_t{slots_} + slot) * kMessageBytes, kMessageBytes);
}
std::span<std::byte> VerbsLink::Inbox(uint32_t slot) const noexcept { return In(slot).subspan(kMessageHeaderBytes); }
std::span<std::byte> VerbsLink::Outbox(uint32_t slot) const noexcept { return Out(slot).subspan(kMessageHeaderBytes); }

Result<Message> VerbsLink::Received(MessageKind kind, uint32_t slot) const {
  std::array<std::byte, kMessageHeaderBytes> copy;
  std::copy_n(In(slot).begin(), copy.size(), copy.begin());
  return DecodeMessage(kind, copy);
}

void VerbsLink::Send(MessageKind kind, uint32_t slot, const Message& message, size_t payload_bytes, uint64_t id) {
  const std::span<std::byte> out = Out(slot);
  EncodeMessage(message, out.first<kMessageHeaderBytes>());
  pair_->WriteWithImmediate(out.first(kMessageHeaderBytes + payload_bytes), region_->local_key(),
                            peer_memory_.At(uint64_t{slot} * kMessageBytes), EncodeTag({kind, slot}), id);
}

void VerbsLink::Tell(MessageKind kind, uint32_t slot) {
  pair_->WriteWithImmediate({}, 0, peer_memory_, EncodeTag({kind, slot}));
}

void VerbsLink::Write(std::span<const std::byte> bytes, uint32_t local_key, verbs::RemoteMemory target) {
  pair_->Write(bytes, local_key, target);
}

void VerbsLink::Read(std::span<std::byte> bytes, uint32_t local_key, verbs::RemoteMemory source, uint64_t id) {
  pair_->Read(bytes, local_key, source, id);
}

}  // namespace praas::transport

#endif
