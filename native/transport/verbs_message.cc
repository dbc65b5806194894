#include "transport/verbs_message.h"

#include <algorithm>
#include <string>

#include "protocol/frame.h"
#include "protocol/little_endian.h"

namespace praas::transport {
namespace {

using protocol::LoadLittle;
using protocol::StoreLittle;

constexpr uint32_t kKindShift = 24;
constexpr uint16_t kCallFlags = protocol::kIdempotent | protocol::kSync;

Status Invalid(const std::string& what) { return {Code::kProtocolInvalid, "RDMA message: " + what}; }

}  // namespace

uint32_t EncodeTag(MessageTag tag) noexcept { return static_cast<uint32_t>(tag.kind) << kKindShift | tag.slot; }

Result<MessageTag> DecodeTag(uint32_t immediate, uint32_t slots) {
  const uint32_t kind = immediate >> kKindShift;
  const uint32_t slot = immediate & ((1u << kKindShift) - 1);
  if (kind < static_cast<uint32_t>(MessageKind::kHello) || kind > static_cast<uint32_t>(MessageKind::kCancel)) {
    return Invalid("no kind " + std::to_string(kind));
  }
  if (slot >= slots) return Invalid("slot " + std::to_string(slot) + " of " + std::to_string(slots));
  return MessageTag{static_cast<MessageKind>(kind), slot};
}

void EncodeMessage(const Message& message, std::span<std::byte, kMessageHeaderBytes> out) noexcept {
  std::byte* const at = out.data();
  std::fill(out.begin(), out.end(), std::byte{0});
  StoreLittle<uint8_t>(at, static_cast<uint8_t>(message.mode));
  StoreLittle<uint16_t>(at + 2, message.flags);
  StoreLittle<uint16_t>(at + 4, message.status);
  StoreLittle<uint32_t>(at + 8, message.sequence);
  StoreLittle<uint32_t>(at + 12, message.function);
  StoreLittle<uint64_t>(at + 16, message.deadline_us);
  StoreLittle<uint64_t>(at + 24, message.bytes);
  StoreLittle<uint64_t>(at + 32, message.input_address);
  StoreLittle<uint64_t>(at + 40, message.output_address);
  StoreLittle<uint64_t>(at + 48, message.output_bytes);
  StoreLittle<uint32_t>(at + 56, message.input_key);
  StoreLittle<uint32_t>(at + 60, message.output_key);
}

Result<Message> DecodeMessage(MessageKind kind, std::span<const std::byte, kMessageHeaderBytes> bytes) {
  const std::byte* const at = bytes.data();
  Message message;
  const auto mode = LoadLittle<uint8_t>(at);
  if (mode > static_cast<uint8_t>(MessageMode::kDropped)) return Invalid("no mode " + std::to_string(mode));
  message.mode = static_cast<MessageMode>(mode);
  message.flags = LoadLittle<uint16_t>(at + 2);
  message.status = LoadLittle<uint16_t>(at + 4);
  message.sequence = LoadLittle<uint32_t>(at + 8);
  message.function = LoadLittle<uint32_t>(at + 12);
  message.deadline_us = LoadLittle<uint64_t>(at + 16);
  message.bytes = LoadLittle<uint64_t>(at + 24);
  message.input_address = LoadLittle<uint64_t>(at + 32);
  message.output_address = LoadLittle<uint64_t>(at + 40);
  message.output_bytes = LoadLittle<uint64_t>(at + 48);
  message.input_key = LoadLittle<uint32_t>(at + 56);
  message.output_key = LoadLittle<uint32_t>(at + 60);
  if (LoadLittle<uint8_t>(at + 1) != 0 || LoadLittle<uint16_t>(at + 6) != 0) return Invalid("reserved bytes are set");
  if ((message.flags & ~kCallFlags) != 0) return Invalid("unknown flags " + std::to_string(message.flags));
  if (message.mode == MessageMode::kDropped && kind != MessageKind::kRoom) return Invalid("a mode of room only");
  if (message.mode != MessageMode::kInline && kind == MessageKind::kChunk)
    return Invalid("a chunk lies in its message");
  const bool carries = message.mode == MessageMode::kInline &&
                       (kind == MessageKind::kCall || kind == MessageKind::kReply || kind == MessageKind::kChunk);
  if (carries && message.bytes > kMessagePayloadBytes) {
    return Invalid(std::to_string(message.bytes) + " bytes in one of at most " + std::to_string(kMessagePayloadBytes));
  }
  return message;
}

}  // namespace praas::transport
