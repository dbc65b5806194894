#include "transport/verbs_session.h"

#if PRAAS_VERBS_HEADERS

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "base/clock.h"

namespace praas::transport {
namespace {

/// A client that lives gives a call up at its deadline and says so.
constexpr uint64_t kPatienceNs = 10'000'000'000;

}  // namespace

using verbs::RemoteMemory;

Result<std::unique_ptr<VerbsSession>> VerbsSession::Create(const verbs::Context& context,
                                                           const verbs::CompletionQueue& completions,
                                                           const verbs::SharedReceiveQueue& receives,
                                                           window::Handover handover, const Limits& limits,
                                                           const protocol::VerbsEnd& client) {
  std::unique_ptr<VerbsSession> session(new VerbsSession(limits));
  Result<std::unique_ptr<ShmTransport>> window = ShmTransport::Create(std::move(handover), limits.default_timeout_ns);
  if (!window.ok()) return window.status();
  session->window_ = *std::move(window);
  Result<Buffer> messages = session->window_->Allocate(VerbsLink::MemoryBytes(client.slots));
  if (!messages.ok()) return messages.status();
  session->messages_ = *messages;
  Result<std::unique_ptr<VerbsLink>> link =
      VerbsLink::Make(context, completions, &receives, {messages->data, messages->bytes}, client.slots);
  if (!link.ok()) return link.status();
  session->link_ = *std::move(link);
  if (Status status = session->link_->Connect(client); !status.ok()) return status;
  session->cache_.emplace(session->link_->domain(), session->window_->memory(), verbs::MemoryRegion::Access::kLocal);
  session->slots_.resize(client.slots);
  session->window_->SetTrimGuard([raw = session.get()] { return !raw->cache_ || raw->cache_->Trim(); });
  session->on_reply_ = [raw = session.get()](const transport::Reply& reply) { raw->OnReply(reply); };
  return session;
}

VerbsSession::~VerbsSession() {
  // Before the memory it reads and writes goes.
  Break(Status(Code::kConnectionClosed, "the session ends"));
  if (window_ != nullptr) window_->Close();
}

void VerbsSession::Break(Status why) {
  if (!broken_.ok() || link_ == nullptr) return;
  broken_ = std::move(why);
  for (Slot& slot : slots_) slot.input_lease = {};
  held_.clear();
  located_.clear();
  published_.reset();
  cache_.reset();
  link_.reset();
}

void VerbsSession::Send(MessageKind kind, uint32_t index, const Message& message, size_t payload_bytes, uint64_t id) {
  link_->Send(kind, index, message, payload_bytes, id);
  slots_[index].told = link_->ticket();
}

void VerbsSession::Tell(MessageKind kind, uint32_t index) {
  link_->Tell(kind, index);
  slots_[index].told = link_->ticket();
}

void VerbsSession::Violated(const char* what) {
  Break(Status(Code::kProtocolInvalid, std::string("RDMA: the client sent ") + what));
}

// --- messages ---

void VerbsSession::OnMessage(uint32_t immediate) {
  if (!broken_.ok()) return;
  const Result<MessageTag> tag = DecodeTag(immediate, link_->slots());
  if (!tag.ok()) return Break(tag.status());
  switch (tag->kind) {
    case MessageKind::kHello:
      if (std::exchange(greeted_, true)) return Violated("a second hello");
      return Tell(MessageKind::kHello, tag->slot);
    case MessageKind::kCancel:
      return OnCancel(tag->slot);
    default:
      break;
  }
  // Else what waits to be sent to a client that takes little would grow without end.
  if (!link_->Posted(slots_[tag->slot].told))
    return Violated("a message before it can have had the answer to the last");
  switch (tag->kind) {
    case MessageKind::kNext:
      return OnNext(tag->slot);
    default:
      break;
  }
  const Result<Message> message = link_->Received(tag->kind, tag->slot);
  if (!message.ok()) return Break(message.status());
  switch (tag->kind) {
    case MessageKind::kCall:
      return OnCall(tag->slot, *message);
    case MessageKind::kChunk:
      return OnChunk(tag->slot, *message);
    case MessageKind::kRoom:
      return OnRoom(tag->slot, *message);
    default:
      return Violated("what only hosts say");
  }
}

void VerbsSession::OnCall(uint32_t index, const Message& call) {
  Slot& slot = slots_[index];
  if (slot.phase != Phase::kFree) return Violated("a call in a slot that is in use");
  // A year is for ever and keeps the sums below 2^64.
  constexpr uint64_t kLongestUs = 365ull * 24 * 3600 * 1'000'000;
  active_ = true;
  ++in_flight_;
  slot.cancelled = false;
  slot.status = 0;
  slot.call = call;
  slot.deadline_ns =
      DeadlineIn(call.deadline_us == 0 ? limits_.default_timeout_ns : std::min(call.deadline_us, kLongestUs) * 1000);
  slot.input = {};
  slot.has_input = call.mode == MessageMode::kInline;
  if (call.bytes > limits_.max_contiguous) {
    return ReplyError(index, Status(Code::kPayloadTooLarge, "the input has " + std::to_string(call.bytes) +
                                                                " bytes; this process takes at most " +
                                                                std::to_string(limits_.max_contiguous)));
  }
  Begin(index);
}

/// From the start, or from where it found no room.
void VerbsSession::Begin(uint32_t index) {
  Slot& slot = slots_[index];
  if (!slot.has_input) return StartInput(index);
  const bool in_message = slot.input.data == nullptr;
  const std::span<std::byte> input =
      in_message ? link_->Inbox(index).first(slot.call.bytes) : std::span(slot.input.data, slot.call.bytes);
  // Larger results go to a block, which the window allocates by what it knows of the function.
  const std::span<std::byte> output =
      window_->MayExceed(slot.call.function, kMessagePayloadBytes) ? std::span<std::byte>() : link_->Outbox(index);
  const Result<bool> taken = window_->Submit({.call = index,
                                              .function = slot.call.function,
                                              .flags = slot.call.flags,
                                              .deadline_ns = slot.deadline_ns,
                                              .input = input,
                                              .output = output});
  if (!taken.ok()) {
    DropInput(slot);
    return Refuse(index, taken.status());
  }
  if (!*taken) return Wait(index);
  slot.phase = Phase::kCalled;
}

void VerbsSession::StartInput(uint32_t index) {
  Slot& slot = slots_[index];
  const Result<Buffer> block = window_->Allocate(slot.call.bytes);
  if (!block.ok()) {
    if (block.status().code() == Code::kBackpressure) return Wait(index);
    return Refuse(index, block.status());
  }
  slot.input = *block;
  slot.input_received = 0;
  if (slot.call.mode == MessageMode::kChunks) {
    slot.phase = Phase::kReceiving;
    return Tell(MessageKind::kNext, index);
  }
  slot.phase = Phase::kReading;
  slot.input_lease = cache_->Acquire({block->data, block->bytes});
  if (!slot.input_lease) return ReadPiece(index);
  link_->Read({block->data, block->bytes}, slot.input_lease.local_key(), {slot.call.input_address, slot.call.input_key},
              IdOf(index, Sent::kInputRead));
}

/// Without a registration of its block the input is read by way of its message.
void VerbsSession::ReadPiece(uint32_t index) {
  Slot& slot = slots_[index];
  const uint64_t bytes = std::min<uint64_t>(slot.call.bytes - slot.input_received, kMessagePayloadBytes);
  link_->Read(link_->Inbox(index).first(bytes), link_->local_key(),
              RemoteMemory{slot.call.input_address, slot.call.input_key}.At(slot.input_received),
              IdOf(index, Sent::kPieceRead));
}

void VerbsSession::OnChunk(uint32_t index, const Message& chunk) {
  Slot& slot = slots_[index];
  if (slot.phase != Phase::kReceiving || chunk.sequence != slot.call.sequence || chunk.bytes == 0 ||
      chunk.bytes > slot.call.bytes - slot.input_received) {
    return Violated("a chunk that nobody has asked for");
  }
  std::memcpy(slot.input.data + slot.input_received, link_->Inbox(index).data(), chunk.bytes);
  slot.input_received += chunk.bytes;
  if (slot.input_received == slot.call.bytes || slot.cancelled) return HasInput(index);
  Tell(MessageKind::kNext, index);
}

void VerbsSession::HasInput(uint32_t index) {
  Slot& slot = slots_[index];
  slot.input_lease = {};
  if (slot.cancelled) {
    DropInput(slot);
    return ReplyError(index, Status(Code::kInvocationCancelled, "cancelled before it began"));
  }
  slot.has_input = true;
  Begin(index);
}

void VerbsSession::OnCancel(uint32_t index) {
  Slot& slot = slots_[index];
  // It may have been answered while the cancellation was on its way.
  if (slot.phase == Phase::kFree) return;
  slot.cancelled = true;
  if (slot.phase == Phase::kCalled) window_->Cancel(index);
  if (slot.phase == Phase::kWaiting) RetryWaiting();
}

void VerbsSession::OnRoom(uint32_t index, const Message& room) {
  Slot& slot = slots_[index];
  if (slot.phase != Phase::kAskedRoom || room.sequence != slot.call.sequence) {
    return Violated("room that nobody has asked for");
  }
  if (room.mode == MessageMode::kDropped) {
    DropResult(slot);
    return ReplyError(index, Status(Code::kInvocationCancelled, "cancelled"));
  }
  if (room.output_bytes < slot.result.size()) return Violated("less room than a result needs");
  DeliverResult(index, {room.output_address, room.output_key});
}

void VerbsSession::OnNext(uint32_t index) {
  if (slots_[index].phase != Phase::kPushing) return Violated("a request for what is not sent in chunks");
  PushChunk(index);
}

void VerbsSession::OnSent(uint64_t id) {
  if (!broken_.ok()) return;
  link_->Finished();
  const auto sent = static_cast<Sent>(id & 0xff);
  if (sent == Sent::kNothing) return;
  if (sent == Sent::kResult) {
    window_->Unpin(held_.front().block);
    held_.pop_front();
    return;
  }
  const auto index = static_cast<uint32_t>(id >> 8);
  Slot& slot = slots_[index];
  if (sent == Sent::kPieceRead) {
    const uint64_t bytes = std::min<uint64_t>(slot.call.bytes - slot.input_received, kMessagePayloadBytes);
    std::memcpy(slot.input.data + slot.input_received, link_->Inbox(index).data(), bytes);
    slot.input_received += bytes;
    if (slot.input_received < slot.call.bytes && !slot.cancelled) return ReadPiece(index);
  }
  HasInput(index);
}

void VerbsSession::Locate(std::span<std::byte> area, publication::Location& place) {
  if (!broken_.ok() || !publication::InArea(place, area.size())) return;
  if (!published_) published_.emplace(link_->domain(), area, verbs::MemoryRegion::Access::kRemoteRead);
  const std::span<std::byte> block = area.subspan(place.offset, publication::kHeadBytes + place.capacity);
  Lease lease = published_->Acquire(block);
  if (!lease) return;
  const RemoteMemory memory = lease.remote(block.data());
  place.address = memory.address;
  place.key = memory.key;
  located_.insert_or_assign(place.offset, std::move(lease));
}

void VerbsSession::Trim() {
  if (broken_.ok() && idle()) window_->Trim();
}

void VerbsSession::Tick(uint64_t now_ns) {
  for (const Slot& slot : slots_) {
    const bool for_client =
        slot.phase == Phase::kReceiving || slot.phase == Phase::kAskedRoom || slot.phase == Phase::kPushing;
    if (for_client && slot.deadline_ns + kPatienceNs < now_ns) {
      return Break(Status(Code::kConnectionTimeout, "RDMA: the client does not go on with a call past its deadline"));
    }
  }
}

// --- room ---

void VerbsSession::Wait(uint32_t index) {
  slots_[index].phase = Phase::kWaiting;
  waiting_.push_back(index);
}

void VerbsSession::RetryWaiting() {
  for (const uint32_t index : std::exchange(waiting_, {})) {
    Slot& slot = slots_[index];
    if (slot.cancelled || HasPassed(slot.deadline_ns)) {
      DropInput(slot);
      ReplyError(index, slot.cancelled
                            ? Status(Code::kInvocationCancelled, "cancelled before it began")
                            : Status(Code::kBackpressure, "the process had no room for the call until its deadline"));
    } else {
      Begin(index);
    }
    if (!broken_.ok()) return;
  }
}

void VerbsSession::DropInput(Slot& slot) {
  slot.input_lease = {};
  if (slot.input.data != nullptr) window_->Release(slot.input);
  slot.input = {};
}

void VerbsSession::DropResult(Slot& slot) {
  window_->Unpin(slot.result_block);
  slot.result = {};
}

// --- results ---

size_t VerbsSession::Poll() {
  size_t replies = 0;
  if (broken_.ok()) replies = window_->Poll(on_reply_);
  if (broken_.ok() && !waiting_.empty()) RetryWaiting();
  if (broken_.ok()) {
    if (Status status = link_->Ring(); !status.ok()) Break(std::move(status));
  }
  return replies;
}

void VerbsSession::OnReply(const transport::Reply& reply) {
  if (!broken_.ok()) return;
  const auto index = static_cast<uint32_t>(reply.call);
  Slot& slot = slots_[index];
  if (!reply.status.ok()) {
    DropInput(slot);
    return ReplyError(index, reply.status);
  }
  const std::span<const std::byte> result = reply.payload;
  if (result.size() <= kMessagePayloadBytes) {
    const std::span<std::byte> outbox = link_->Outbox(index);
    if (!result.empty() && result.data() != outbox.data()) std::memmove(outbox.data(), result.data(), result.size());
    DropInput(slot);
    return Reply(index, {.bytes = result.size()}, result.size());
  }
  // Before the input goes, where it may lie.
  const Result<uint64_t> block = window_->Pin(result);
  DropInput(slot);
  if (!block.ok()) return ReplyError(index, block.status());
  slot.result = result;
  slot.result_block = *block;
  Offer(index);
}

void VerbsSession::Offer(uint32_t index) {
  Slot& slot = slots_[index];
  // Memory of the caller is for results only.
  if (slot.status == 0 && slot.call.output_bytes >= slot.result.size()) {
    return DeliverResult(index, {slot.call.output_address, slot.call.output_key});
  }
  slot.phase = Phase::kAskedRoom;
  Send(MessageKind::kNeedRoom, index, {.sequence = slot.call.sequence, .bytes = slot.result.size()}, 0);
}

void VerbsSession::DeliverResult(uint32_t index, RemoteMemory target) {
  Slot& slot = slots_[index];
  Lease lease = target.address == 0 ? Lease() : cache_->Acquire(slot.result);
  if (!lease) {
    slot.result_sent = 0;
    return PushChunk(index);
  }
  link_->Write(slot.result, lease.local_key(), target);
  held_.push_back({slot.result_block, std::move(lease)});
  Reply(index, {.mode = MessageMode::kRemote, .bytes = slot.result.size()}, 0, IdOf(index, Sent::kResult));
}

void VerbsSession::PushChunk(uint32_t index) {
  Slot& slot = slots_[index];
  slot.phase = Phase::kPushing;
  if (slot.result_sent == slot.result.size()) {
    const uint64_t bytes = slot.result.size();
    DropResult(slot);
    return Reply(index, {.mode = MessageMode::kRemote, .bytes = bytes}, 0);
  }
  const auto chunk = slot.result.subspan(
      slot.result_sent, std::min<uint64_t>(kMessagePayloadBytes, slot.result.size() - slot.result_sent));
  std::memcpy(link_->Outbox(index).data(), chunk.data(), chunk.size());
  slot.result_sent += chunk.size();
  Send(MessageKind::kChunk, index, {.sequence = slot.call.sequence, .bytes = chunk.size()}, chunk.size());
}

/// Ends the call: the slot is the client's again.
void VerbsSession::Reply(uint32_t index, Message message, size_t payload_bytes, uint64_t id) {
  Slot& slot = slots_[index];
  message.sequence = slot.call.sequence;
  message.status = slot.status;
  slot.phase = Phase::kFree;
  --in_flight_;
  Send(MessageKind::kReply, index, message, payload_bytes, id);
}

void VerbsSession::Refuse(uint32_t index, const Status& why) {
  if (on_refusal_) on_refusal_(why);
  ReplyError(index, why);
}

void VerbsSession::ReplyError(uint32_t index, const Status& status) {
  slots_[index].status = static_cast<uint16_t>(status.code());
  const std::span text = std::as_bytes(std::span(status.message()));
  if (text.size() > kMessagePayloadBytes && OfferError(index, text)) return;
  const size_t bytes = std::min<size_t>(text.size(), kMessagePayloadBytes);
  std::memcpy(link_->Outbox(index).data(), text.data(), bytes);
  Reply(index, {.bytes = bytes}, bytes);
}

bool VerbsSession::OfferError(uint32_t index, std::span<const std::byte> text) {
  const Result<Buffer> block = window_->Allocate(text.size());
  if (!block.ok()) return false;
  std::memcpy(block->data, text.data(), text.size());
  const std::span<const std::byte> copy(block->data, text.size());
  const Result<uint64_t> pinned = window_->Pin(copy);
  window_->Release(*block);
  if (!pinned.ok()) return false;
  slots_[index].result = copy;
  slots_[index].result_block = *pinned;
  Offer(index);
  return true;
}

}  // namespace praas::transport

#endif
