#pragma once

#include <atomic>
#include <cstdint>

#include "dispatch/call_entry.h"

namespace praas::dispatch {

/// The host (index 0) and up to 1,023 workers.
inline constexpr uint32_t kMaxParticipants = 1024;
inline constexpr uint16_t kHostParticipant = 0;

enum class ParticipantState : uint32_t {
  kFree = 0,
  kStarting = 1,  // spawned, functions not loaded yet
  kReady = 2,     // takes calls
  kDraining = 3,  // finishes what it has, claims nothing new
  kDead = 4,      // ended; the host is reclaiming what it owned
  kLeased = 5,    // there to be leased: takes only calls of its holder
};

enum class ParticipantKind : uint32_t { kHost = 0, kNodeWorker = 1, kNativeWorker = 2 };

[[nodiscard]] constexpr ParticipantKind WorkerKind(Lane lane) noexcept {
  return lane == Lane::kNative ? ParticipantKind::kNativeWorker : ParticipantKind::kNodeWorker;
}

/// The *credit* of a hot worker, one word that is both the right to use its ring and the ring (of depth one: nothing
/// ever queues behind a running function).
///   kCreditNone   the worker is running, asleep or gone: nothing may be put here
///   kCreditIdle   the worker is polling this word: a sender may CAS it to a packed Bell
///   else          a posted Bell (index + 2 in the low half, generation in the high half)
/// Going to sleep withdraws by CAS idle → none; when that fails the word holds a bell and the worker serves it.
inline constexpr uint64_t kCreditNone = 0;
inline constexpr uint64_t kCreditIdle = 1;

[[nodiscard]] constexpr uint64_t PackCredit(Bell bell) noexcept {
  return static_cast<uint64_t>(bell.generation) << 32 | (bell.index + 2);
}
[[nodiscard]] constexpr Bell UnpackCredit(uint64_t credit) noexcept {
  return {static_cast<uint32_t>(credit) - 2, static_cast<uint32_t>(credit >> 32)};
}

/// Written by its participant only, read by `praas inspect`: no contention.
struct Counters {
  std::atomic<uint64_t> calls;           // invocations finished
  std::atomic<uint64_t> failures;        // of these, with an error
  std::atomic<uint64_t> bytes_in;        // payload bytes taken in
  std::atomic<uint64_t> bytes_out;       // payload bytes given back
  std::atomic<uint64_t> staged_bytes;    // payload bytes copied once more: below 4 KiB, or read along with their header
  std::atomic<uint64_t> copied_bytes;    // payload bytes ≥ 4 KiB copied inside host or worker core; the aim is 0
  std::atomic<uint64_t> bells_rung;      // doorbells sent
  std::atomic<uint64_t> bells_dropped;   // queue full, left to the drain
  std::atomic<uint64_t> credits_used;    // calls handed over through a credit
  std::atomic<uint64_t> window_calls;    // calls served straight from a window
  std::atomic<uint64_t> sleeps;          // times it blocked
  std::atomic<uint64_t> busy_ns;         // time inside functions
  std::atomic<uint64_t> awake_ns;        // time not asleep until it went to sleep last
  std::atomic<uint64_t> awake_since_ns;  // CLOCK_MONOTONIC; 0 = it sleeps
  std::atomic<uint64_t> attached_ns;     // CLOCK_MONOTONIC: when it began to load what it serves
  std::atomic<uint64_t> reserved[1];
};
static_assert(sizeof(Counters) == 128);

struct alignas(64) Participant {
  // Identity: written by the host only.
  std::atomic<uint32_t> state;  // ParticipantState
  uint32_t kind;                // ParticipantKind
  std::atomic<uint32_t> generation;
  std::atomic<int32_t> pid;
  uint64_t pid_start_time;  // /proc/PID/stat field 22: with the pid it names one OS process for good
  uint64_t started_wall_ns;
  uint32_t restarts;
  uint32_t reserved[7];

  // Hand-over.
  alignas(64) std::atomic<uint64_t> credit;
  std::atomic<uint32_t>
      sleeping;  // 1 from before it blocks until after it wakes (seq_cst); others then signal its eventfd
  std::atomic<uint32_t> running;  // invocations in progress
  std::atomic<uint64_t> running_since_ns;
  std::atomic<uint32_t> notices;  // bit set: ParticipantNotice
  std::atomic<uint32_t> watches;  // host: 1 = it looks at the call table every few milliseconds; workers need not tell
  uint32_t reserved2[8];

  // Calls this participant is the origin of and that are done: bit i = call entry i. A bitmap and not a ring, because
  // several workers complete into it and a producer killed between taking a ring position and filling it would leave a
  // hole; setting a bit is one atomic step and setting it twice is harmless.
  alignas(64) std::atomic<uint64_t> completions[kMaxCalls / 64];

  alignas(64) Counters counters;
};
static_assert(sizeof(Participant) == 128 + kMaxCalls / 8 + 128);

/// Reasons to look around, besides completions.
enum ParticipantNotice : uint32_t {
  kNoticeLock = 1u << 0,    // a state lock it waits for may have been granted
  kNoticeCancel = 1u << 1,  // a call it runs was cancelled
  kNoticeStream = 1u << 2,  // a stream ring has chunks or room
  kNoticeWindow = 1u << 3,  // a window wants a poller
  kNoticePosted = 1u << 4,  // host: a worker has posted a call, which whoever got it may be stopped before it claims
  kNoticeProbe = 1u << 5,   // whether it gets on; that it takes this is the answer
};

}  // namespace praas::dispatch
