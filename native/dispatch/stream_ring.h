#pragma once

#include <atomic>
#include <cstdint>

#include "dispatch/call_entry.h"

namespace praas::dispatch {

inline constexpr uint32_t kMaxStreams = 256;               // streaming invocations in progress per process
inline constexpr uint32_t kStreamChunks = 16;              // chunks on their way per direction
inline constexpr uint64_t kStreamChunkBytes = 256 * 1024;  // largest chunk; larger ones are split where they enter

/// One direction: a ring of chunk descriptors with one producer and one consumer. A position is filled, then published
/// by `tail`; consumed, its block freed, then given back by `head`.
struct ChunkRing {
  alignas(64) std::atomic<uint32_t> tail;  // chunks ever produced
  std::atomic<uint32_t> end;               // 1 = no chunk follows the last one; 2 = aborted
  alignas(64) std::atomic<uint32_t> head;  // chunks ever consumed
  PayloadRef chunks[kStreamChunks];
};

/// The two directions of one streaming invocation. Reserved by the host when it accepts the call, freed by the host
/// when the call has ended and both rings are empty.
struct StreamRing {
  std::atomic<uint32_t> in_use;
  uint32_t call;     // entry index
  ChunkRing input;   // host → worker
  ChunkRing output;  // worker → host
};

}  // namespace praas::dispatch
