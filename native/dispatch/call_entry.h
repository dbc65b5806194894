#pragma once

#include <atomic>
#include <cstdint>

/// The call table: the truth about every invocation in a process. Doorbells only point here; losing one loses nothing.
namespace praas::dispatch {

inline constexpr uint32_t kMaxCalls = 4096;  // upper bound of the backlog; the default is 1024
inline constexpr uint32_t kDefaultCalls = 1024;
inline constexpr uint32_t kMostDeaths = 3;  // of workers with a call that may run again; more are no accident
inline constexpr uint32_t kSlotInputBytes =
    4096;  // payloads up to this size use the entry's own slot in the pool window
inline constexpr uint32_t kSlotOutputBytes = 4096;

/// free → reserved(sender) → queued → claimed(worker) → completing(worker) → done → free
/// `reserved` belongs to the participant that is filling the entry, `claimed` and `completing` to the worker that runs
/// it, `done` to the entry's origin, which consumes the result and frees the entry. A window call goes from
/// `completing` straight to `free`: its result lies in the window. `parked` is a finished window call whose result
/// waits in the pool for the client to provide room.
enum class CallState : uint8_t { kFree, kReserved, kQueued, kClaimed, kCompleting, kDone, kParked };

/// Bits of CallWord::flags.
enum CallWordFlags : uint8_t {
  kWordTaken = 1u << 0,   // done, and its origin has taken note: after the worker's death nobody has to tell it again
  kWordNested = 1u << 1,  // queued by a function that waits for it
  /// It belongs to the native lane. In the word, because the hints of a lane may be stale: what they name can be a call
  /// of the other lane by now.
  kWordNative = 1u << 2,
  kWordParked = 1u << 3,  // reserved, and as good as parked: that is what it becomes when whoever reserved it dies
};

/// The 64-bit word every transition is a CAS of. The generation is bumped when an entry becomes free, so a doorbell or
/// a completion of an earlier call finds nothing to do.
struct CallWord {
  uint32_t generation = 0;
  uint16_t owner = 0;  // participant index; meaning depends on state
  CallState state = CallState::kFree;
  uint8_t flags = 0;

  [[nodiscard]] constexpr uint64_t Pack() const noexcept {
    return static_cast<uint64_t>(generation) << 32 | static_cast<uint64_t>(owner) << 16 |
           static_cast<uint64_t>(state) << 8 | flags;
  }
  [[nodiscard]] static constexpr CallWord Unpack(uint64_t word) noexcept {
    return {static_cast<uint32_t>(word >> 32), static_cast<uint16_t>(word >> 16),
            static_cast<CallState>(static_cast<uint8_t>(word >> 8)), static_cast<uint8_t>(word)};
  }
};

enum class Origin : uint8_t {
  kHost = 0,    // a connection of the host (TCP): completion goes to participant 0
  kWorker = 1,  // ctx.invoke of a worker: completion goes to participant `origin_index`
  kWindow = 2,  // a same-host client: the result is written into window `origin_index`
};

/// Which workers a call is for: those that run the language of its function. Each lane has its own doorbell and hints,
/// so that a call never wakes a worker that could not run it.
enum class Lane : uint8_t { kNode = 0, kNative = 1 };
inline constexpr uint32_t kLanes = 2;

enum class CallKind : uint8_t {
  kInvoke = 0,
  kDeliver = 1,  // copy a parked result into the room a window client has now provided
  kStream = 2,   // an invocation of a streaming function; chunks travel through its StreamRing
};

enum CallFlags : uint16_t {
  kCallIdempotent = 1u << 0,  // may be queued again when its worker dies
  kCallSync = 1u << 1,        // the origin blocks: detect deadlock instead of waiting
};

/// Where bytes lie. In the pool window a block is named by its arena and block index so that its owner can be recorded;
/// in a client window only by offset, which whoever uses it has to validate against the window's size.
enum class Place : uint8_t {
  kNone = 0,        // empty payload
  kSlot = 1,        // the entry's own slot in the pool window
  kPoolInput = 2,   // a block of the pool's input arena
  kPoolOutput = 3,  // a block of the pool's output arena
  kWindow = 4,      // the origin's client window
};

struct PayloadRef {
  uint64_t offset = 0;  // within the pool or client window
  uint64_t bytes = 0;
  uint32_t block = 0;  // arena block index, for kPoolInput and kPoolOutput
  Place place = Place::kNone;
  uint8_t reserved[3] = {};
};
static_assert(sizeof(PayloadRef) == 24);

/// Two cache lines: the first written by the sender, the second by the worker, so that they do not bounce one line.
struct alignas(64) CallEntry {
  std::atomic<uint64_t> word;  // CallWord
  uint32_t function;
  uint16_t origin_index;  // participant or window
  Origin origin;
  CallKind kind;
  uint64_t
      origin_call;  // the origin's own id of this call: wire call id, window slot | sequence << 32, worker's handle
  uint64_t deadline_ns;  // CLOCK_MONOTONIC; kNoDeadline never occurs here
  PayloadRef input;
  uint16_t flags;                // CallFlags
  uint16_t depth;                // nesting depth: 0 from a client
  std::atomic<uint32_t> cancel;  // 1 = the origin has given up; the worker aborts ctx.signal

  // Second line, valid from `done` on.
  alignas(64) PayloadRef output;
  uint32_t status;            // Code
  uint32_t connection_index;  // host only: which session to answer
  uint64_t claimed_ns;        // when a worker took it; 0 = never
  uint64_t queued_ns;
  uint32_t stream;              // index + 1 of its StreamRing, 0 = none
  std::atomic<uint32_t> begun;  // generation + 1 of the last call that a function was given
  uint32_t deaths;              // workers that have died with it, since it was posted
  uint32_t reserved;
};
static_assert(sizeof(CallEntry) == 128);

/// A function was given the call that the entry now holds.
[[nodiscard]] inline bool HasBegun(const CallEntry& entry) noexcept {
  const CallWord word = CallWord::Unpack(entry.word.load(std::memory_order_acquire));
  return entry.begun.load(std::memory_order_acquire) == word.generation + 1;
}

/// What a doorbell carries: 8 bytes, an index and the generation it was rung for.
struct Bell {
  uint32_t index;
  uint32_t generation;
};
static_assert(sizeof(Bell) == 8);

}  // namespace praas::dispatch
