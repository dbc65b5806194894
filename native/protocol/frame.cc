#include "protocol/frame.h"

#include <cstring>
#include <string>

#include "protocol/little_endian.h"

namespace praas::protocol {
namespace {

constexpr size_t kMagicAt = 0, kVersionAt = 4, kTypeAt = 5, kFlagsAt = 6, kCodeAt = 8, kReserved16At = 10,
                 kHeaderCrcAt = 12, kCallAt = 16, kFunctionAt = 24, kPayloadCrcAt = 28, kPayloadBytesAt = 32,
                 kDeadlineAt = 40, kAuxAt = 48, kReserved64At = 56;
static_assert(kReserved64At + sizeof(uint64_t) == kHeaderBytes);

bool KnownType(uint8_t type) noexcept {
  return type >= static_cast<uint8_t>(FrameType::kHello) && type <= static_cast<uint8_t>(FrameType::kLeaseNotice);
}

uint16_t AllowedFlags(FrameType type) noexcept {
  switch (type) {
    case FrameType::kCall:
      return kIdempotent | kStream | kSync | kPayloadChecksum;
    case FrameType::kData:
      return kLast | kPayloadChecksum;
    default:
      return kPayloadChecksum;
  }
}

bool CarriesValue(uint16_t op) noexcept {
  return op == static_cast<uint16_t>(StateOp::kSet) || op == static_cast<uint16_t>(StateOp::kAppend);
}

bool NamesCall(FrameType type) noexcept {
  switch (type) {
    case FrameType::kHello:
    case FrameType::kWelcome:
    case FrameType::kReject:
    case FrameType::kUpgrade:
    case FrameType::kUpgradeOffer:
    case FrameType::kPing:
    case FrameType::kPong:
    case FrameType::kGoodbye:
      return false;
    default:
      return true;
  }
}

uint32_t HeaderCrc(std::span<const std::byte, kHeaderBytes> bytes) noexcept {
  constexpr std::array<std::byte, sizeof(uint32_t)> kZero{};
  uint32_t crc = Crc32c(bytes.first<kHeaderCrcAt>());
  crc = Crc32c(kZero, crc);
  return Crc32c(bytes.subspan<kHeaderCrcAt + sizeof(uint32_t)>(), crc);
}

Status Invalid(const std::string& what) { return Status(Code::kProtocolInvalid, "frame header: " + what); }

}  // namespace

void EncodeHeader(const Frame& frame, std::span<std::byte, kHeaderBytes> out) noexcept {
  std::byte* at = out.data();
  StoreLittle<uint32_t>(at + kMagicAt, kMagic);
  StoreLittle<uint8_t>(at + kVersionAt, kVersion);
  StoreLittle<uint8_t>(at + kTypeAt, static_cast<uint8_t>(frame.type));
  StoreLittle<uint16_t>(at + kFlagsAt, frame.flags);
  StoreLittle<uint16_t>(at + kCodeAt, frame.code);
  StoreLittle<uint16_t>(at + kReserved16At, 0);
  StoreLittle<uint32_t>(at + kHeaderCrcAt, 0);
  StoreLittle<uint64_t>(at + kCallAt, frame.call);
  StoreLittle<uint32_t>(at + kFunctionAt, frame.function);
  StoreLittle<uint32_t>(at + kPayloadCrcAt, frame.payload_crc);
  StoreLittle<uint64_t>(at + kPayloadBytesAt, frame.payload_bytes);
  StoreLittle<uint64_t>(at + kDeadlineAt, frame.deadline_us);
  StoreLittle<uint64_t>(at + kAuxAt, frame.aux);
  StoreLittle<uint64_t>(at + kReserved64At, 0);
  StoreLittle<uint32_t>(at + kHeaderCrcAt, Crc32c(out));
}

uint64_t PayloadBound(const Frame& frame, uint64_t max_payload) noexcept {
  switch (frame.type) {
    case FrameType::kCall:
      return frame.flags & kStream ? 0 : max_payload;
    case FrameType::kReply:
      return frame.code == 0 ? max_payload : kMaxControlPayload;
    case FrameType::kState:
      return CarriesValue(frame.code) ? max_payload + kMaxControlPayload : kMaxControlPayload;
    case FrameType::kStateReply:
      return frame.code == 0 ? max_payload + kMaxControlPayload : kMaxControlPayload;
    case FrameType::kData:
      return kMaxChunkBytes;
    case FrameType::kCancel:
    case FrameType::kCredit:
    case FrameType::kPing:
    case FrameType::kPong:
      return 0;
    default:
      return kMaxControlPayload;
  }
}

Result<Frame> DecodeHeader(std::span<const std::byte, kHeaderBytes> bytes, uint64_t max_payload) {
  const std::byte* at = bytes.data();
  // Magic and version come before the checksum: another version may have another header, but never another place for
  // these.
  if (LoadLittle<uint32_t>(at + kMagicAt) != kMagic) return Invalid("the peer does not speak the praas protocol");
  const uint8_t version = LoadLittle<uint8_t>(at + kVersionAt);
  if (version != kVersion) {
    return Status(Code::kProtocolVersion, "the peer speaks protocol version " + std::to_string(version) +
                                              ", this side version " + std::to_string(kVersion));
  }
  if (LoadLittle<uint32_t>(at + kHeaderCrcAt) != HeaderCrc(bytes)) return Invalid("checksum mismatch");
  const uint8_t type = LoadLittle<uint8_t>(at + kTypeAt);
  if (!KnownType(type)) return Invalid("unknown type " + std::to_string(type));
  if (LoadLittle<uint16_t>(at + kReserved16At) != 0 || LoadLittle<uint64_t>(at + kReserved64At) != 0) {
    return Invalid("reserved field is not 0");
  }

  Frame frame;
  frame.type = static_cast<FrameType>(type);
  frame.flags = LoadLittle<uint16_t>(at + kFlagsAt);
  frame.code = LoadLittle<uint16_t>(at + kCodeAt);
  frame.call = LoadLittle<uint64_t>(at + kCallAt);
  frame.function = LoadLittle<uint32_t>(at + kFunctionAt);
  frame.payload_crc = LoadLittle<uint32_t>(at + kPayloadCrcAt);
  frame.payload_bytes = LoadLittle<uint64_t>(at + kPayloadBytesAt);
  frame.deadline_us = LoadLittle<uint64_t>(at + kDeadlineAt);
  frame.aux = LoadLittle<uint64_t>(at + kAuxAt);

  if (frame.flags & ~AllowedFlags(frame.type)) {
    return Invalid("flags " + std::to_string(frame.flags) + " on type " + std::to_string(type));
  }
  if (!(frame.flags & kPayloadChecksum) && frame.payload_crc != 0) return Invalid("payload checksum without its flag");
  if (NamesCall(frame.type) != (frame.call != 0)) {
    return Invalid("call id " + std::to_string(frame.call) + " on type " + std::to_string(type));
  }
  const uint64_t bound = PayloadBound(frame, max_payload);
  if (frame.payload_bytes > bound) {
    return Invalid("payload of " + std::to_string(frame.payload_bytes) + " bytes on type " + std::to_string(type) +
                   ", the limit is " + std::to_string(bound));
  }
  if (frame.type == FrameType::kData && frame.payload_bytes == 0 && !(frame.flags & kLast))
    return Invalid("empty chunk");
  return frame;
}

}  // namespace praas::protocol
