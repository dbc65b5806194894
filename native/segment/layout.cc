#include "segment/layout.h"

#include <algorithm>
#include <bit>
#include <initializer_list>

#include "segment/arena_head.h"

namespace praas::segment {
namespace {

constexpr uint64_t kFnvOffset = 0xcbf2'9ce4'8422'2325;
constexpr uint64_t kFnvPrime = 0x0000'0100'0000'01b3;

class Fnv {
 public:
  void Add(uint64_t value) noexcept {
    for (int shift = 0; shift < 64; shift += 8) AddByte(static_cast<uint8_t>(value >> shift));
  }
  void AddByte(uint8_t byte) noexcept { hash_ = (hash_ ^ byte) * kFnvPrime; }
  [[nodiscard]] uint64_t hash() const noexcept { return hash_; }

 private:
  uint64_t hash_ = kFnvOffset;
};

/// Hands out consecutive page-aligned ranges.
class Cursor {
 public:
  explicit Cursor(uint64_t start) noexcept : next_(start) {}

  uint64_t Take(uint64_t bytes) noexcept {
    const uint64_t offset = next_;
    next_ += (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
    return offset;
  }
  void Place(Region* region, uint32_t stride, uint64_t capacity) noexcept {
    region->stride = stride;
    region->capacity = static_cast<uint32_t>(capacity);
    region->committed.store(0, std::memory_order_relaxed);
    region->reserved = 0;
    region->offset = Take(capacity * stride);
  }
  [[nodiscard]] uint64_t next() const noexcept { return next_; }

 private:
  uint64_t next_;
};

/// Enough descriptors that an arena runs out of bytes before it runs out of descriptors: every block has a granule.
/// Reserved address space only.
uint64_t DescriptorsFor(uint64_t arena_bytes) noexcept {
  return std::min<uint64_t>(arena_bytes / Arena::kGranule + 2, kMaxDescriptors);
}

bool SameRegion(const Region& a, const Region& b) noexcept {
  return a.offset == b.offset && a.stride == b.stride && a.capacity == b.capacity && a.reserved == b.reserved;
}

}  // namespace

uint64_t LayoutHash() noexcept {
  using dispatch::CallEntry;
  using dispatch::ChunkRing;
  using dispatch::Participant;
  using dispatch::StreamRing;
  Fnv fnv;
  for (const uint64_t value : std::initializer_list<uint64_t>{kLayoutVersion,
                                                              sizeof(Header),
                                                              offsetof(Header, process_id),
                                                              offsetof(Header, host_generation),
                                                              offsetof(Header, participants),
                                                              offsetof(Header, arena_heads),
                                                              offsetof(Header, hints),
                                                              sizeof(Header::Hints),
                                                              offsetof(Header, futex_queue),
                                                              sizeof(Region),
                                                              sizeof(Function),
                                                              offsetof(Function, flags),
                                                              offsetof(Function, max_output_pages),
                                                              sizeof(WindowSlot),
                                                              offsetof(WindowSlot, connection_id),
                                                              offsetof(WindowSlot, client_pid),
                                                              offsetof(WindowSlot, turns),
                                                              sizeof(CallEntry),
                                                              offsetof(CallEntry, input),
                                                              offsetof(CallEntry, flags),
                                                              offsetof(CallEntry, output),
                                                              offsetof(CallEntry, stream),
                                                              sizeof(Participant),
                                                              offsetof(Participant, credit),
                                                              offsetof(Participant, completions),
                                                              offsetof(Participant, counters),
                                                              dispatch::kMaxCalls,
                                                              dispatch::kMaxParticipants,
                                                              sizeof(StreamRing),
                                                              sizeof(ChunkRing),
                                                              offsetof(ChunkRing, chunks),
                                                              dispatch::kStreamChunks,
                                                              sizeof(Block),
                                                              offsetof(Block, owner),
                                                              offsetof(Block, value_bytes),
                                                              sizeof(ArenaHead),
                                                              offsetof(ArenaHead, committed),
                                                              offsetof(ArenaHead, lists),
                                                              sizeof(RobustMutex),
                                                              kStateBucketStride,
                                                              kStateKeyStride,
                                                              kPinStride,
                                                              kLockStride,
                                                              kLockHolderStride,
                                                              kPublicationStride,
                                                              kStateHeadBytes}) {
    fnv.Add(value);
  }
  return fnv.hash();
}

void PlanLayout(const LayoutSizes& sizes, Header* header) noexcept {
  const uint64_t memory_bytes = (sizes.memory_bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  header->layout_version = kLayoutVersion;
  header->header_bytes = sizeof(Header);
  header->layout_hash = LayoutHash();
  header->memory_bytes = memory_bytes;
  header->pool_bytes = sizes.pool_bytes;

  Cursor cursor(0);
  cursor.Take(sizeof(Header));
  for (uint64_t& offset : header->arena_heads) offset = cursor.Take(kArenaHeadBytes);
  header->state_head = cursor.Take(kStateHeadBytes);
  header->stats_offset = cursor.Take(kStatsBytes);
  header->futex_queue = cursor.Take(kFutexQueueBytes);

  // Keys are bounded by memory in practice; their table is reserved generously because reserving costs nothing.
  const uint64_t keys = std::clamp<uint64_t>(memory_bytes / 256, 4096, 1ull << 24);
  cursor.Place(&header->participants, sizeof(dispatch::Participant), dispatch::kMaxParticipants);
  cursor.Place(&header->functions, sizeof(Function), kMaxFunctions);
  cursor.Place(&header->windows, sizeof(WindowSlot), kMaxWindows);
  cursor.Place(&header->calls, sizeof(dispatch::CallEntry), sizes.calls);
  cursor.Place(&header->streams, sizeof(dispatch::StreamRing), dispatch::kMaxStreams);
  cursor.Place(&header->state_buckets, kStateBucketStride, std::bit_ceil(keys));
  cursor.Place(&header->state_keys, kStateKeyStride, keys);
  cursor.Place(&header->pins, kPinStride, 1u << 16);
  cursor.Place(&header->locks, kLockStride, 1u << 16);
  cursor.Place(&header->lock_holders, kLockHolderStride, 1u << 18);
  cursor.Place(&header->publications, kPublicationStride, kMaxPublications);
  cursor.Place(&header->arena_blocks[0], sizeof(Block), DescriptorsFor(memory_bytes));
  cursor.Place(&header->arena_blocks[1], sizeof(Block), DescriptorsFor(sizes.pool_bytes / 2));
  cursor.Place(&header->arena_blocks[2], sizeof(Block), DescriptorsFor(sizes.pool_bytes / 2));

  header->meta_bytes = cursor.next();
  header->segment_bytes = header->meta_bytes + memory_bytes;
}

bool SameLayout(const Header& a, const Header& b) noexcept {
  const auto regions_a = Regions(const_cast<Header&>(a));
  const auto regions_b = Regions(const_cast<Header&>(b));
  for (size_t i = 0; i < kRegionCount; ++i) {
    if (!SameRegion(*regions_a[i].region, *regions_b[i].region)) return false;
  }
  return a.layout_version == b.layout_version && a.header_bytes == b.header_bytes && a.layout_hash == b.layout_hash &&
         a.segment_bytes == b.segment_bytes && a.meta_bytes == b.meta_bytes && a.memory_bytes == b.memory_bytes &&
         a.pool_bytes == b.pool_bytes &&
         std::equal(std::begin(a.arena_heads), std::end(a.arena_heads), b.arena_heads) &&
         a.state_head == b.state_head && a.stats_offset == b.stats_offset && a.futex_queue == b.futex_queue;
}

uint64_t StaticChecksum(const Header& header) noexcept {
  Fnv fnv;
  for (const uint64_t value :
       {static_cast<uint64_t>(header.layout_version), static_cast<uint64_t>(header.header_bytes), header.layout_hash,
        header.segment_bytes, header.meta_bytes, header.created_wall_ns, header.memory_bytes, header.pool_bytes}) {
    fnv.Add(value);
  }
  fnv.AddByte(header.process_id.size);
  for (const char c : header.process_id.bytes) fnv.AddByte(static_cast<uint8_t>(c));
  return fnv.hash();
}

std::array<NamedRegion, kRegionCount> Regions(Header& header) noexcept {
  return {{{"participants", &header.participants},
           {"functions", &header.functions},
           {"windows", &header.windows},
           {"calls", &header.calls},
           {"streams", &header.streams},
           {"state_buckets", &header.state_buckets},
           {"state_keys", &header.state_keys},
           {"pins", &header.pins},
           {"locks", &header.locks},
           {"lock_holders", &header.lock_holders},
           {"publications", &header.publications},
           {"arena_blocks_data", &header.arena_blocks[0]},
           {"arena_blocks_input", &header.arena_blocks[1]},
           {"arena_blocks_output", &header.arena_blocks[2]}}};
}

}  // namespace praas::segment
