#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "protocol/crc32c.h"

/// The wire format of TCP connections (docs/protocol.md): a fixed 64-byte little-endian header, then `payload_bytes`
/// bytes.
namespace praas::protocol {

inline constexpr uint32_t kMagic = 0x5341'5250;  // "PRAS"
inline constexpr uint8_t kVersion = 1;
inline constexpr size_t kHeaderBytes = 64;
inline constexpr uint64_t kMaxControlPayload =
    1u << 20;  // handshake, names, errors, admin: everything but call and state data
inline constexpr size_t kMaxToken = 4096;
inline constexpr size_t kMaxName = 255;                    // process ids, function names, state keys
inline constexpr uint64_t kMaxPayload = (1ull << 32) - 1;  // no announced limit is larger
inline constexpr uint64_t kMaxChunkBytes = 256 * 1024;     // payload of a kData frame

enum class FrameType : uint8_t {
  kHello = 1,    // client → host: TLV payload; the only frame allowed before kWelcome
  kWelcome = 2,  // host → client: TLV payload
  kReject = 3,   // host → client: code + message, then the connection closes
  kUpgrade = 4,  // client → host: asks for a transport ("shm", "verbs") or ends it ("tcp"); kUpgradeOffer answers
  kUpgradeOffer = 5,  // host → client: TLV: UNIX socket path, nonce, window size; or its end of an RDMA connection; or
                      // code + message, also unasked: the transport has ended
  kResolve = 6,      // client → host: payload = function name; `call` correlates
  kResolved = 7,     // host → client: `function` = index, `aux` = FunctionFlags; or an error
  kCall = 8,         // client → host: `function`, `deadline_us` remaining, payload = input
  kReply = 9,        // host → client: payload = result; or an error
  kCancel = 10,      // client → host: `call`; its reply still comes
  kData = 11,        // both: one chunk of a stream; `aux` = sequence number from 0; flag kLast ends the direction
  kCredit = 12,      // both: `aux` = bytes of chunks the receiver of this frame may send more
  kState = 13,       // client → host: `code` = StateOp, payload = TLV, the data as its last field
  kStateReply = 14,  // host → client: payload = TLV, likewise; or an error
  kAdmin = 15,       // client → host: `code` = AdminOp, payload = argument as text
  kAdminReply = 16,  // host → client: payload = JSON text; or an error
  kPing = 17,        // both: `aux` comes back in the kPong
  kPong = 18,
  kGoodbye = 19,     // both: orderly end; TLV: code + message. Host: draining, finishes calls in flight
  kLease = 20,       // client → host: `code` = LeaseOp, payload = TLV
  kLeaseReply = 21,  // host → client: payload = TLV; or an error
  kLeaseNotice = 22,  // host → client, unasked: `call` = lease, `code` = LeaseEvent, `function` = Code, `aux` = worker,
                      // payload = text
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
  uint16_t code = 0;  // requests: the operation. kResolved, kReply, kStateReply, kAdminReply: Code; unless it is kOk
                      // the payload is the error's message (messages.h, SetError) and `aux` its errno
  uint64_t call = 0;
  uint32_t function = 0;
  uint64_t payload_bytes = 0;
  uint64_t deadline_us = 0;  // remaining time in microseconds; 0 = the host's default
  uint64_t aux = 0;
  uint32_t payload_crc = 0;
};

/// Byte offsets: 0 magic u32 · 4 version u8 · 5 type u8 · 6 flags u16 · 8 code u16 · 10 reserved u16 · 12 header_crc
/// u32 (CRC-32C of the 64 bytes with this field 0) · 16 call u64 · 24 function u32 · 28 payload_crc u32 · 32
/// payload_bytes u64 · 40 deadline_us u64 · 48 aux u64 · 56 reserved u64 (0).
void EncodeHeader(const Frame& frame, std::span<std::byte, kHeaderBytes> out) noexcept;

/// The largest payload a frame of this type and code may have: `max_payload` for calls and results, that plus
/// kMaxControlPayload (for the fields around the data) for values that are set and for answers about state,
/// kMaxChunkBytes for chunks, kMaxControlPayload or nothing for the rest.
[[nodiscard]] uint64_t PayloadBound(const Frame& frame, uint64_t max_payload) noexcept;

/// Validates magic, version, checksum, type, the flags that type may have, reserved fields, that frames about a call
/// name one, and PayloadBound. kProtocolVersion names both versions; everything else is kProtocolInvalid.
[[nodiscard]] Result<Frame> DecodeHeader(std::span<const std::byte, kHeaderBytes> bytes, uint64_t max_payload);

enum Capability : uint64_t {
  kCapShm = 1u << 0,
  kCapVerbs = 1u << 1,
  kCapChecksum = 1u << 2,  // payload checksums on every data frame
  kCapStream = 1u << 3,
};

enum class StateOp : uint16_t {
  kGet = 1,
  kSet = 2,
  kAppend = 3,
  kDelete = 4,
  kStat = 5,
  kKeys = 6,
  kLock = 7,
  kUnlock = 8,
  kRead = 9,
  kPublish = 10,
  kUnpublish = 11,
};

enum class AdminOp : uint16_t { kStats = 1, kDrain = 2, kInspect = 3, kLeases = 4 };

enum class LeaseOp : uint16_t {
  kTake = 1,  // answered when the workers are ready
  kRenew = 2,
  kRelease = 3,  // answered with the closing report when the workers have left
  kReport = 4,   // accounting so far
  kFate = 5,     // why worker `worker` is gone; answered when that is known
};

enum class LeaseEvent : uint16_t {
  kWorkerEnded = 1,  // text: JSON {signal, exitCode, stderr}
  kWorkerReady = 2,  // another one has taken its place
  kEnding = 3,       // the lease will be taken back in `aux` milliseconds; text: why
  kEnded = 4,        // `function` = Code; text: the closing report
};

}  // namespace praas::protocol
