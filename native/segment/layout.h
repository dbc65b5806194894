#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "dispatch/call_entry.h"
#include "dispatch/participant.h"
#include "dispatch/stream_ring.h"

/// Byte layout of a segment: the one POSIX shared memory object of a process.
///
///   [ Header | participants | functions | windows | call table | state index | pins, locks, publications | arenas | …
///   data … ]
///
/// All but `data` is the *meta* part: it is never shown to JavaScript. Everything is addressed by offsets from the
/// start of the object, because each OS process maps it at its own address. A region is reserved when the segment is
/// created (the object is sparse) and committed with posix_fallocate before its bytes are first touched, so that a full
/// /dev/shm is an error of the call that needed memory and never a SIGBUS.
namespace praas::segment {

inline constexpr uint64_t kMagic = 0x3147'4553'5341'5250;          // "PRASSEG1", little-endian
inline constexpr uint64_t kMagicCreating = 0x3047'4553'5341'5250;  // "PRASSEG0": its creator has not finished
inline constexpr uint32_t kLayoutVersion = 4;
inline constexpr size_t kMaxName = 255;  // bytes of a process id, function name or state key
inline constexpr uint32_t kMaxFunctions = 1024;
inline constexpr uint32_t kMaxWindows = 4096;  // same-host clients connected at one time

/// Record sizes of the regions that state/ lays out (state/state_layout.h asserts that its structs have them).
inline constexpr uint32_t kStateBucketStride = 4;
inline constexpr uint32_t kStateKeyStride = 512;
inline constexpr uint32_t kPinStride = 32;
inline constexpr uint32_t kLockStride = 384;
inline constexpr uint32_t kLockHolderStride = 64;
inline constexpr uint32_t kPublicationStride = 320;
inline constexpr uint32_t kMaxPublications = 4096;
inline constexpr uint32_t kStateHeadBytes = 8192;
inline constexpr uint32_t kArenaHeadBytes = 8192;   // segment::ArenaHead
inline constexpr uint32_t kFutexQueueBytes = 4096;  // the futex doorbells' queues
inline constexpr uint32_t kStatsBytes = 4096;

inline constexpr uint32_t kPageBytes = 4096;  // of the layout, whatever the system's pages are
inline constexpr uint64_t kMinMemoryBytes = 1ull << 20;
inline constexpr uint64_t kMinPoolBytes = 1ull << 20;
inline constexpr uint64_t kMaxMemoryBytes = 1ull << 40;  // also of the pool

/// A region of the meta part: `capacity` records of `stride` bytes at `offset`, the first `committed` of them backed by
/// memory. `committed` only grows; growth is idempotent (posix_fallocate, then a CAS-max) and needs no lock.
struct Region {
  uint64_t offset;
  uint32_t stride;
  uint32_t capacity;
  std::atomic<uint32_t> committed;
  uint32_t reserved;
};
static_assert(sizeof(Region) == 24);

struct Name {
  uint8_t size;
  char bytes[kMaxName];
};
static_assert(sizeof(Name) == 256);

/// Function flags, declared by the worker that loaded the application.
enum FunctionFlags : uint32_t {
  kFunctionStream = 1u << 0,      // takes and returns streams of chunks
  kFunctionIdempotent = 1u << 1,  // may be run again after a crash
  kFunctionNative = 1u << 2,      // run by native workers; set by the host
};

struct Function {
  Name name;
  uint32_t flags;
  uint32_t max_output_pages;  // of a raw function: how much room its results need; 0 = as much as they have
  uint32_t reserved[14];
};
static_assert(sizeof(Function) == 320);

/// One connected same-host client. Written by the host, except `poller`.
struct alignas(64) WindowSlot {
  std::atomic<uint32_t> state;  // 0 free, 1 open, 2 closing
  std::atomic<uint32_t> generation;
  std::atomic<uint32_t> poller;    // participant that polls the submission ring; 0 = nobody
  std::atomic<uint32_t> consumer;  // participant + 1 that is reading the submission ring right now; 0 = nobody
  uint64_t connection_id;
  uint64_t bytes;               // size of the memfd
  std::atomic<uint64_t> calls;  // submissions that became calls
  int32_t client_pid;
  std::atomic<uint32_t> turns;  // how often anybody became `consumer`
  uint32_t reserved[4];
};
static_assert(sizeof(WindowSlot) == 64);

struct Header {
  // Written once at creation, before `magic`, which is kMagicCreating until everything else is there.
  std::atomic<uint64_t> magic;
  uint32_t layout_version;
  uint32_t header_bytes;
  uint64_t layout_hash;    // of every struct in the layout: two builds that disagree refuse each other
  uint64_t segment_bytes;  // size of the object: meta + data, the process's memory limit rounded up
  uint64_t meta_bytes;     // where data begins; page-aligned
  uint64_t created_wall_ns;
  uint64_t memory_bytes;  // size of the data part; with pool_bytes and calls.capacity it determines every offset below
  uint64_t pool_bytes;    // size of the pool window
  uint64_t static_checksum;  // of all fields that never change, see StaticChecksum
  Name process_id;

  // Changes when a host attaches.
  std::atomic<uint32_t> host_generation;  // 1 for the first host
  std::atomic<uint32_t> clean_shutdown;   // 1 while no host is attached and the last one left in order
  std::atomic<uint32_t> function_count;   // functions[0, count) are valid
  std::atomic<uint32_t> function_hash;    // of all names and flags; every worker must register the same
  std::atomic<uint32_t> repairs;          // how often a dead participant was repaired
  std::atomic<uint32_t> doorbell_kind;    // DoorbellKind in use
  std::atomic<uint32_t> windows_used;     // windows[0, used) have had a client since the host attached

  // Hints for the hand-over of calls (dispatch/dispatcher.h). One bit per call entry or participant; a stale bit costs
  // a look.
  struct alignas(64) Hints {
    std::atomic<uint64_t> queued[dispatch::kMaxCalls / 64];           // may be queued
    std::atomic<uint64_t> hot[dispatch::kMaxParticipants / 64];       // offers credits from time to time
    std::atomic<uint64_t> sleepers[dispatch::kMaxParticipants / 64];  // sleeps at the doorbell
    std::atomic<uint64_t> waiters[dispatch::kMaxParticipants / 64];   // sleeps within a call; takes nested calls only
  } hints[dispatch::kLanes];

  Region participants;   // dispatch::Participant; 0 is the host
  Region functions;      // Function
  Region windows;        // WindowSlot
  Region calls;          // dispatch::CallEntry
  Region streams;        // dispatch::StreamRing
  Region state_buckets;  // see state/
  Region state_keys;
  Region pins;
  Region locks;
  Region lock_holders;
  Region publications;
  Region arena_blocks[3];   // segment data, pool inputs, pool outputs
  uint64_t arena_heads[3];  // offsets of the three segment::ArenaHead
  uint64_t state_head;      // offset of state::StateHead
  uint64_t stats_offset;    // reserved for process-wide counters
  uint64_t futex_queue;     // offset of the futex doorbells' queues, one for each lane, kFutexQueueBytes
};
static_assert(sizeof(Header) <= kPageBytes);

/// FNV-1a over the sizes and key offsets of all shared structs.
[[nodiscard]] uint64_t LayoutHash() noexcept;

/// The sizes a layout follows from.
struct LayoutSizes {
  uint64_t memory_bytes;  // rounded up to whole pages
  uint64_t pool_bytes;
  uint32_t calls;
};

/// Fills in every offset, stride, capacity and size of `header` (nothing committed). Deterministic: an attaching
/// process plans anew from the sizes it finds and refuses a header that differs anywhere.
void PlanLayout(const LayoutSizes& sizes, Header* header) noexcept;

/// Whether all that PlanLayout writes is the same in both.
[[nodiscard]] bool SameLayout(const Header& a, const Header& b) noexcept;

/// Over the fields written once at creation.
[[nodiscard]] uint64_t StaticChecksum(const Header& header) noexcept;

/// All regions in the order in which they lie, for loops.
inline constexpr size_t kRegionCount = 14;
struct NamedRegion {
  const char* name;
  Region* region;
};
[[nodiscard]] std::array<NamedRegion, kRegionCount> Regions(Header& header) noexcept;

}  // namespace praas::segment
