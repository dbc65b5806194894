#pragma once

#include <atomic>
#include <cstdint>

/// Byte layout of a client window: the memory a same-host client shares with host and workers.
///
///   [ WindowHeader | calls[256] | slots[256] (input 4 KiB + output 4 KiB each) | payload area, allocated by the client
///   ]
///
/// The client may write anything here at any time. Whoever reads a field to decide something copies it first, then
/// validates the copy. The truth about a call lies in the call table of the segment, which the client cannot see.
namespace praas::window {

inline constexpr uint64_t kMagic = 0x3157'4e49'5741'5250;  // "PRAWINW1"
inline constexpr uint32_t kLayoutVersion = 2;
inline constexpr uint32_t kCalls = 256;  // calls in flight per window; also the size of the submission ring
inline constexpr uint32_t kSlotInputBytes = 4096;
inline constexpr uint32_t kSlotOutputBytes = 4096;

/// State of a window call. The word is {sequence:32, state:32}; the sequence is bumped by the client at each new use,
/// so an answer to an earlier call cannot complete a later one (exactly one responder wins the CAS).
///   kFree → kSubmitted (client) → kDone (server)
///   kSubmitted → kNeedRoom (server: result larger than output_capacity) → kRoomGiven (client) → kDone (server)
/// A client that does not want a parked result any more sets `cancel` before kRoomGiven: the server drops it and
/// answers.
enum class CallState : uint32_t { kFree = 0, kSubmitted = 1, kNeedRoom = 2, kRoomGiven = 3, kDone = 4 };

[[nodiscard]] constexpr uint64_t PackWord(uint32_t sequence, CallState state) noexcept {
  return static_cast<uint64_t>(sequence) << 32 | static_cast<uint32_t>(state);
}

enum CallFlags : uint32_t {
  kFlagIdempotent = 1u << 0,
  kFlagSync = 1u << 1,
};

struct alignas(64) WindowCall {
  // Request: written by the client before it submits.
  std::atomic<uint64_t> word;
  uint32_t function;
  uint32_t flags;
  uint64_t deadline_ns;   // CLOCK_MONOTONIC: same machine
  uint64_t input_offset;  // from the start of the window
  uint64_t input_bytes;
  uint64_t output_offset;    // where the client wants the result
  uint64_t output_capacity;  // how much fits there
  std::atomic<uint32_t> cancel;
  std::atomic<uint32_t>
      entry;  // call entry + 1 that a consumer made for this submission; 0 = none yet. See ServerWindow::Note

  // Response: written by host or worker before the word becomes kDone or kNeedRoom.
  alignas(64) uint32_t status;  // Code
  uint32_t parked;              // call entry that holds a result waiting for room (untrusted when it comes back)
  uint64_t result_offset;       // output_offset, or input_offset when the function returned its input as it stands
  uint64_t result_bytes;
  uint64_t reserved2[5];
};
static_assert(sizeof(WindowCall) == 128);

struct WindowHeader {
  uint64_t magic;
  uint32_t layout_version;
  uint32_t calls;
  uint64_t window_bytes;
  uint64_t calls_offset;
  uint64_t slots_offset;
  uint64_t payload_offset;
  uint64_t reserved[2];

  // Client line.
  alignas(64) std::atomic<uint32_t> submit_tail;  // entries ever submitted
  std::atomic<uint32_t> client_sleeping;          // 1 = signal the completion eventfd after setting a done bit
  std::atomic<uint32_t> cancels;                  // calls ever cancelled: the host looks for them when it is signalled

  // Written by servers with every call; clients look rarely.
  alignas(64) std::atomic<uint32_t> submit_head;  // entries ever consumed

  // Read by clients with every call; changes rarely, so it has a line of its own that stays in their caches.
  alignas(64) std::atomic<uint32_t> needs_wake;  // 1 = nobody polls the ring: signal the submission eventfd

  // Calls whose word became kDone or kNeedRoom: one bit each; see Participant::completions for why no ring.
  alignas(64) std::atomic<uint64_t> completions[kCalls / 64];

  alignas(64) std::atomic<uint32_t> submissions[kCalls];  // ring of call indices
};
static_assert(sizeof(WindowHeader) == 64 * 5 + kCalls * 4);

inline constexpr uint64_t kCallsOffset = 4096;
inline constexpr uint64_t kSlotsOffset = kCallsOffset + kCalls * sizeof(WindowCall);
inline constexpr uint64_t kPayloadOffset =
    kSlotsOffset + static_cast<uint64_t>(kCalls) * (kSlotInputBytes + kSlotOutputBytes);
static_assert(kSlotsOffset % 4096 == 0 && kPayloadOffset % 4096 == 0);
inline constexpr uint64_t kMinWindowBytes = kPayloadOffset + (64u << 10);

[[nodiscard]] constexpr uint64_t SlotInputOffset(uint32_t call) noexcept {
  return kSlotsOffset + static_cast<uint64_t>(call) * (kSlotInputBytes + kSlotOutputBytes);
}
[[nodiscard]] constexpr uint64_t SlotOutputOffset(uint32_t call) noexcept {
  return SlotInputOffset(call) + kSlotInputBytes;
}

/// Whether [offset, offset + bytes) lies in [begin, end), for any values of the four.
[[nodiscard]] constexpr bool InRange(uint64_t offset, uint64_t bytes, uint64_t begin, uint64_t end) noexcept {
  return offset >= begin && offset <= end && bytes <= end - offset;
}

}  // namespace praas::window
