#pragma once

#include <atomic>
#include <cstdint>

/// Byte layout of a client window: the memory a same-host client shares with host and workers.
///
///   [ WindowHeader | ring of submissions | notes of servers | calls[256] | slots[256] (input 4 KiB + output 4 KiB
///   each)
///     | payload area, allocated by the client ]
///
/// A call on its usual way moves two cache lines: its Submission, which tells its consumer by itself that it is there,
/// and its WindowCall, in which the client sees the answer. Everything else either side touches with every call it
/// touches alone, or only reads.
///
/// The client may write anything here at any time. Whoever reads a field to decide something copies it first, then
/// validates the copy. The truth about a call lies in the call table of the segment, which the client cannot see.
namespace praas::window {

inline constexpr uint64_t kMagic = 0x3157'4e49'5741'5250;  // "PRAWINW1"
inline constexpr uint32_t kLayoutVersion = 3;
inline constexpr uint32_t kCalls = 256;  // calls in flight per window
/// Places in the ring of submissions: see ClientWindow::HasRoom.
inline constexpr uint32_t kRing = 2 * kCalls;
inline constexpr uint32_t kSlotInputBytes = 4096;
inline constexpr uint32_t kSlotOutputBytes = 4096;

/// State of a window call. The word is {sequence:32, state:32}. The client counts the sequence up with each use and
/// does not write the word: the call of `sequence` is open while the word says that the one before it is done. So an
/// answer to an earlier use cannot complete a later one, and exactly one responder wins the CAS.
///   {n - 1, kDone} → {n, kDone} (server)
///   {n - 1, kDone} → {n, kNeedRoom} (server: result larger than output_capacity) → {n, kRoomGiven} (client)
///                  → {n, kDone} (server)
/// A client that does not want a parked result any more cancels before kRoomGiven: the server drops it and answers.
enum class CallState : uint32_t { kDone = 0, kNeedRoom = 1, kRoomGiven = 2 };

[[nodiscard]] constexpr uint64_t PackWord(uint32_t sequence, CallState state) noexcept {
  return static_cast<uint64_t>(sequence) << 32 | static_cast<uint32_t>(state);
}

enum SubmissionFlags : uint16_t {
  kFlagIdempotent = 1u << 0,
  kFlagSync = 1u << 1,
  kFlagRoomGiven = 1u << 2,  // room for a parked result: see WindowCall
};

/// A request, written by the client, in one line.
struct alignas(64) SubmissionRecord {
  /// Position in the order of submissions + 1, modulo 2^32: says that the place holds what its reader waits for.
  /// Written last.
  std::atomic<uint32_t> turn;
  uint32_t sequence;
  uint16_t call;
  uint16_t flags;  // SubmissionFlags
  uint32_t function;
  uint64_t deadline_ns;   // CLOCK_MONOTONIC: same machine
  uint64_t input_offset;  // from the start of the window
  uint64_t input_bytes;
  uint64_t output_offset;    // where the client wants the result
  uint64_t output_capacity;  // how much fits there
  uint64_t reserved;
};
static_assert(sizeof(SubmissionRecord) == 64);

/// What becomes of a call, in one line: written by host or worker, but for what the client rarely has to say.
struct alignas(64) WindowCall {
  std::atomic<uint64_t> word;
  uint32_t status;         // Code
  uint32_t parked;         // call entry that holds a result waiting for room (untrusted when it comes back)
  uint64_t result_offset;  // output_offset, or input_offset when the function returned its input as it stands
  uint64_t result_bytes;
  std::atomic<uint64_t> cancelled;  // sequence + 1 of the use that its client has cancelled; written by the client
  uint64_t room_offset;             // where a parked result shall go; written by the client before kRoomGiven
  uint64_t room_bytes;
};
static_assert(sizeof(WindowCall) == 64);

struct WindowHeader {
  uint64_t magic;
  uint32_t layout_version;
  uint32_t calls;
  uint64_t window_bytes;
  uint64_t calls_offset;
  uint64_t slots_offset;
  uint64_t payload_offset;
  uint64_t reserved[2];

  // Written by the client, but rarely; servers look at it with every call.
  alignas(64) std::atomic<uint32_t> client_sleeping;  // 1 = signal the completion eventfd after setting a done bit
  std::atomic<uint32_t> cancels;                      // calls ever cancelled: the host looks for them when signalled

  // Written by servers with every call; clients look rarely.
  alignas(64) std::atomic<uint32_t> submit_head;  // submissions ever consumed

  // Written by servers, but rarely; clients look at it with every call.
  alignas(64) std::atomic<uint32_t> needs_wake;  // 1 = nobody polls the ring: signal the submission eventfd

  // Calls whose word became kDone or kNeedRoom: one bit each; see Participant::completions for why no ring. Written by
  // servers with every call. A client with one open call looks at its word instead.
  alignas(64) std::atomic<uint64_t> completions[kCalls / 64];
};
static_assert(sizeof(WindowHeader) == 64 * 5);

inline constexpr uint64_t kRingOffset = 4096;
inline constexpr uint64_t kNotesOffset = kRingOffset + kRing * sizeof(SubmissionRecord);
/// Of each call {sequence:32, call entry + 1:32}, what its last consumer made of it: see ServerWindow::Note.
inline constexpr uint64_t kCallsOffset = kNotesOffset + kCalls * sizeof(std::atomic<uint64_t>);
inline constexpr uint64_t kSlotsOffset = (kCallsOffset + kCalls * sizeof(WindowCall) + 4095) / 4096 * 4096;
inline constexpr uint64_t kPayloadOffset =
    kSlotsOffset + static_cast<uint64_t>(kCalls) * (kSlotInputBytes + kSlotOutputBytes);
static_assert(kCallsOffset % 64 == 0 && kPayloadOffset % 4096 == 0);
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
