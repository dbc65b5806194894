#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"

/// What client and host tell each other by RDMA (docs/protocol.md, "RDMA"): each message is written into the receiver's
/// memory, in the slot of the call it is about, with 32 bits of immediate data that say so.
namespace praas::transport {

/// Of a message with its header; inputs and results up to this size travel in it.
inline constexpr uint32_t kMessagePayloadBytes = 4096;
inline constexpr uint32_t kMessageHeaderBytes = 64;
inline constexpr uint32_t kMessageBytes = kMessageHeaderBytes + kMessagePayloadBytes;

enum class MessageKind : uint8_t {
  kHello = 1,     // client → host, no header: does this way work? Answered by the same
  kCall = 2,      // client → host
  kReply = 3,     // host → client: ends the call; its slot is free again
  kNeedRoom = 4,  // host → client: a result of `bytes` waits, answered by kRoom
  kRoom = 5,      // client → host: where the result shall go
  kChunk = 6,     // both: a piece of an input or result, answered by kNext
  kNext = 7,      // both, no header: send the (first or) next chunk
  kCancel = 8,    // client → host, no header; the reply still comes
};

/// How the payload of kCall and kReply travels.
enum class MessageMode : uint8_t {
  kInline = 0,   // behind the header
  kRemote = 1,   // kCall: the host reads it from `input`. kReply: it was written to `output`, by address or in chunks
  kChunks = 2,   // kCall: in chunks, which the host asks for
  kDropped = 3,  // kRoom: nobody wants it any more
};

struct MessageTag {
  MessageKind kind{};
  uint32_t slot = 0;
};
[[nodiscard]] uint32_t EncodeTag(MessageTag tag) noexcept;
/// kProtocolInvalid: no such kind, or a slot of `slots` and above.
[[nodiscard]] Result<MessageTag> DecodeTag(uint32_t immediate, uint32_t slots);

/// The header of every kind that has one; what a kind does not use is 0.
struct Message {
  MessageMode mode = MessageMode::kInline;
  uint16_t flags = 0;        // kCall: protocol::kIdempotent, kSync
  uint16_t status = 0;       // kReply: Code; unless 0 the payload is the error's message
  uint32_t sequence = 0;     // of the call among those of its slot; answers repeat it
  uint32_t function = 0;     // kCall
  uint64_t deadline_us = 0;  // kCall: remaining; 0 = the host's default
  uint64_t bytes = 0;        // of the input, result or chunk
  uint64_t input_address = 0;
  uint64_t output_address = 0;  // kCall, kRoom: 0 = in chunks
  uint64_t output_bytes = 0;    // kCall, kRoom: how much fits there; 0 = nothing offered
  uint32_t input_key = 0;
  uint32_t output_key = 0;

  bool operator==(const Message&) const = default;
};
void EncodeMessage(const Message& message, std::span<std::byte, kMessageHeaderBytes> out) noexcept;
/// kProtocolInvalid: unknown mode or flags, reserved bytes that are set, an inline payload or chunk larger than a
/// message. `bytes` is a copy: a peer may write to the original at any time.
[[nodiscard]] Result<Message> DecodeMessage(MessageKind kind, std::span<const std::byte, kMessageHeaderBytes> bytes);

}  // namespace praas::transport
