// VerbsTransport: from a request to a message, and where its input and its result lie.
#include "transport/verbs_transport.h"

#if PRAAS_VERBS_HEADERS

#include <cstring>
#include <utility>

#include "base/clock.h"
#include "protocol/frame.h"
#include "transport/stream_transport.h"

namespace praas::transport {

Result<bool> VerbsTransport::Submit(const Request& request) {
  if (closed_) return Status(Code::kConnectionClosed, "the connection is closed");
  if (!failure_.ok()) return failure_;
  if (free_slots_.empty()) return false;
  const uint32_t slot = free_slots_.back();
  Call& call = calls_[slot];
  const uint32_t sequence = call.sequence + 1;
  call = Call{};
  call.id = request.call;
  call.sequence = sequence;
  call.function = request.function;

  Message message{.flags = static_cast<uint16_t>(request.flags & (protocol::kIdempotent | protocol::kSync)),
                  .sequence = sequence,
                  .function = request.function};
  Result<bool> placed = PlaceInput(slot, request.input, message);
  if (placed.ok() && placed.value()) {
    if (Status status = PlaceOutput(slot, request.output, message); !status.ok()) placed = status;
  }
  call.in_use = true;
  free_slots_.pop_back();
  if (!placed.ok() || !placed.value()) {
    Retire(slot);
    return placed;
  }
  message.deadline_us = RemainingUs(request.deadline_ns != 0 ? request.deadline_ns : DeadlineIn(default_timeout_ns_));
  link_->Send(MessageKind::kCall, slot, message, message.mode == MessageMode::kInline ? message.bytes : 0);
  ++unanswered_;
  ++counters_.calls;
  return true;
}

Result<bool> VerbsTransport::PlaceInput(uint32_t slot, std::span<const std::byte> input, Message& message) {
  Call& call = calls_[slot];
  message.bytes = input.size();
  const std::optional<uint64_t> offset = input.empty() ? std::nullopt : payload_->OffsetOf(input);
  if (input.size() <= kMessagePayloadBytes) {
    ++counters_.inline_inputs;
    if (!input.empty()) std::memcpy(link_->Outbox(slot).data(), input.data(), input.size());
    return true;
  }
  if (offset) {
    const Result<uint64_t> block = PinBlockOf(*offset, input.size());
    if (!block.ok()) return block.status().WithContext("input");
    call.pinned_input = block.value();
    call.input = input;
  } else {
    const Result<uint64_t> block = payload_->Allocate(input.size());
    if (!block.ok()) {
      if (block.status().code() == Code::kBackpressure) return false;  // until a call in flight or a buffer is released
      return block.status();
    }
    call.own_input = block.value();
    counters_.copied_bytes += input.size();
    std::memcpy(payload_->At(block.value()), input.data(), input.size());
    call.input = {payload_->At(block.value()), input.size()};
  }
  call.input_lease = cache_->Acquire(call.input);
  if (call.input_lease) {
    ++counters_.read_inputs;
    const verbs::RemoteMemory memory = call.input_lease.remote(call.input.data());
    message.mode = MessageMode::kRemote;
    message.input_address = memory.address;
    message.input_key = memory.key;
  } else {
    ++counters_.chunked_inputs;
    message.mode = MessageMode::kChunks;
  }
  return true;
}

Status VerbsTransport::PlaceOutput(uint32_t slot, std::span<std::byte> output, Message& message) {
  Call& call = calls_[slot];
  if (const std::optional<uint64_t> offset = output.empty() ? std::nullopt : payload_->OffsetOf(output)) {
    const Result<uint64_t> block = PinBlockOf(*offset, output.size());
    if (!block.ok()) return block.status().WithContext("output");
    call.pinned_output = block.value();
    call.output_offset = *offset;
    call.output_capacity = output.size();
  } else {
    call.plain_output = output;
    const uint64_t hint = result_sizes_.Hint(call.function);
    if (hint <= kMessagePayloadBytes) return Status::Ok();
    // Without a block the host says when it needs one.
    const Result<uint64_t> block = payload_->Allocate(hint);
    if (!block.ok()) return Status::Ok();
    call.own_output = call.output_offset = block.value();
    call.output_capacity = hint;
  }
  if (call.output_capacity > kMessagePayloadBytes) OfferOutput(call, message);
  return Status::Ok();
}

/// Without a registration results come in chunks.
void VerbsTransport::OfferOutput(Call& call, Message& message) {
  message.output_bytes = call.output_capacity;
  call.output_lease = cache_->Acquire({payload_->At(call.output_offset), call.output_capacity});
  if (!call.output_lease) return;
  const verbs::RemoteMemory memory = call.output_lease.remote(payload_->At(call.output_offset));
  message.output_address = memory.address;
  message.output_key = memory.key;
}

Result<uint64_t> VerbsTransport::PinBlockOf(uint64_t offset, uint64_t bytes) {
  const std::optional<uint64_t> block = payload_->allocator().Find(offset, bytes);
  if (!block.has_value()) {
    return Status(Code::kArgumentInvalid,
                  "the memory is the connection's but in no buffer allocated there (was it released?)");
  }
  payload_->allocator().Pin(*block);
  return *block;
}

void VerbsTransport::Cancel(uint64_t id) {
  const std::optional<uint32_t> slot = Find(id);
  if (!slot || std::exchange(calls_[*slot].cancelled, true)) return;
  link_->Tell(MessageKind::kCancel, *slot);
}

void VerbsTransport::Abandon(uint64_t id) {
  const std::optional<uint32_t> slot = Find(id);
  if (!slot) return;
  Cancel(id);
  Call& call = calls_[*slot];
  call.abandoned = true;
  call.plain_output = {};
  if (call.room_wanted != 0) DropResult(*slot);
}

/// A search, because these are rare and an index by id would cost every call.
std::optional<uint32_t> VerbsTransport::Find(uint64_t id) const noexcept {
  if (link_ == nullptr) return std::nullopt;
  for (uint32_t slot = 0; slot < calls_.size(); ++slot) {
    if (calls_[slot].in_use && !calls_[slot].answered && calls_[slot].id == id) return slot;
  }
  return std::nullopt;
}

void VerbsTransport::Flush() {
  if (link_ == nullptr) return;
  if (Status status = link_->Ring(); !status.ok()) Break(std::move(status));
}

}  // namespace praas::transport

#endif
