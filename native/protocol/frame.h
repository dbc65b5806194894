#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"

/// The wire format of TCP connections (docs/protocol.md): a fixed 64-byte little-endian header, then `payload_bytes` bytes.
namespace praas::protocol {

inline constexpr uint32_t kMagic = 0x5341'5250;  // "PRAS"
inline constexpr uint8_t kVersion = 1;
inline constexpr size_t kHeaderBytes = 64;
inline constexpr uint64_t kMaxControlPayload = 1u << 20;  // handshake, names, errors, admin: everything but call and state data
inline constexpr size_t kMaxToken = 4096;

enum class FrameType : uint8_t {
  kHello = 1,      // client → host: TLV payload; the only frame allowed before kWelcome
  kWelcome = 2,    // host → client: TLV payload
  kReject = 3,     // host → client: code + message, then the connection closes
  kUpgrade = 4,    // client → host: asks for a transport ("shm"); kUpgradeOffer answers
  kUpgradeOffer = 5,  // host → client: TLV: UNIX socket path, nonce; or code + message in a kReject-like payload
  kResolve = 6,    // client → host: payload = function name; `call` correlates
  kResolved = 7,   // host → client: `function` = index, `flags` = FunctionFlags; or code + message
  kCall = 8,       // client → host: `function`, `deadline_us` remaining, payload = input
  kReply = 9,      // host → client: `code`; payload = result, or the error's message/JSON
  kCancel = 10,    // client → host: `call`
  kData = 11,      // both: one chunk of a stream; `aux` = sequence number; flag kLast ends it
  kCredit = 12,    // both: `aux` = bytes of chunks the sender may send more
  kState = 13,     // client → host: `code` = StateOp, payload = TLV + data
  kStateReply = 14,
  kAdmin = 15,     // client → host: `code` = AdminOp
  kAdminReply = 16,
  kPing = 17,
  kPong = 18,
  kGoodbye = 19,   // both: orderly end; payload = code + reason. Host: draining, finishes calls in flight
};

enum FrameFlags : uint16_t {
  kIdempotent = 1u << 0,
  kStream = 1u << 1,
  kLast = 1u << 2,
  kPayloadChecksum = 1u << 3,  // `payload_crc` is valid
  kSync = 1u << 4,
};

struct Frame {
  FrameType type{};
  uint16_t flags = 0;
  uint16_t code = 0;
  uint64_t call = 0;
  uint32_t function = 0;
  uint64_t payload_bytes = 0;
  uint64_t deadline_us = 0;  // remaining time in microseconds; 0 = the host's default
  uint64_t aux = 0;
  uint32_t payload_crc = 0;
};

/// Byte offsets: 0 magic u32 · 4 version u8 · 5 type u8 · 6 flags u16 · 8 code u16 · 10 reserved u16 · 12 header_crc u32
/// (CRC-32C of the 64 bytes with this field 0) · 16 call u64 · 24 function u32 · 28 payload_crc u32 · 32 payload_bytes u64 ·
/// 40 deadline_us u64 · 48 aux u64 · 56 reserved u64 (0).
void EncodeHeader(const Frame& frame, std::span<std::byte, kHeaderBytes> out) noexcept;

/// Validates magic, version, checksum, type, known flags and the payload bound of the type (`max_payload` for kCall, kReply,
/// kData and kState; kMaxControlPayload for the rest). kProtocolVersion names both versions; kProtocolInvalid otherwise.
[[nodiscard]] Result<Frame> DecodeHeader(std::span<const std::byte, kHeaderBytes> bytes, uint64_t max_payload);

[[nodiscard]] uint32_t Crc32c(std::span<const std::byte> bytes, uint32_t seed = 0) noexcept;

enum Capability : uint64_t {
  kCapShm = 1u << 0,
  kCapVerbs = 1u << 1,     // reserved for the verbs upgrade
  kCapChecksum = 1u << 2,  // payload checksums on every data frame
  kCapStream = 1u << 3,
};

enum class Role : uint8_t { kClient = 1, kAdmin = 2, kPeer = 3 };

enum class StateOp : uint16_t { kGet = 1, kSet = 2, kAppend = 3, kDelete = 4, kStat = 5, kKeys = 6, kLock = 7, kUnlock = 8 };

enum class AdminOp : uint16_t { kStats = 1, kDrain = 2, kInspect = 3 };

}  // namespace praas::protocol
