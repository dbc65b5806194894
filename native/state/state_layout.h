#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "segment/arena.h"
#include "segment/layout.h"
#include "segment/robust_mutex.h"

/// What the state store keeps in a segment.
///
/// *Truth*, from which everything else can be rebuilt after a death at any instruction; each changes by one atomic
/// store:
///   KeyEntry::value     the key exists, and this block is its value
///   PinRecord::word     this participant pins this block
///   LockRecord::used    this lock name is known
///   LockHolder::word    this owner holds, or waits for, this lock
///   PublicationRecord::word   this key is published, in this place of the publication area
/// *Derived*: buckets, chains, free lists, counts, pin counts, lock queues; and everything in the publication area.
///
/// All of it is read and written under StateHead::mutex, but for the atomic words, which `praas inspect` and
/// StateStore::LockGranted read without. Links are 1-based record numbers; 0 means none.
namespace praas::state {

enum class KeyKind : uint32_t { kValue = 1, kArray = 2 };

inline constexpr uint32_t kNone = 0;
inline constexpr uint32_t kMinBuckets = 64;
inline constexpr uint32_t kLockBuckets = 512;
inline constexpr uint32_t kOwnerBuckets = 256;
inline constexpr uint32_t kPublicationBuckets = 512;

/// More than anybody comes to count, and far from where counting would begin anew: a version or ticket beyond it is
/// what something wrote over it.
inline constexpr uint64_t kMostCounted = uint64_t{1} << 62;

/// Sections copy at most this much while they hold the mutex: about as long as the rest of a section takes.
inline constexpr uint64_t kInlineCopyBytes = 4096;

/// Reference to a key's value: the word that publishes it. 0 = the key does not exist.
struct ValueRef {
  uint32_t block = kNone;  // of arena 0
  KeyKind kind = KeyKind::kValue;
  uint8_t element_type = 0;

  [[nodiscard]] constexpr uint64_t Pack() const noexcept {
    return static_cast<uint64_t>(block) << 32 | static_cast<uint64_t>(kind) << 8 | element_type;
  }
  [[nodiscard]] static constexpr ValueRef Unpack(uint64_t word) noexcept {
    return {static_cast<uint32_t>(word >> 32), static_cast<KeyKind>(word >> 8 & 0xff), static_cast<uint8_t>(word)};
  }
};

struct alignas(64) KeyEntry {
  std::atomic<uint64_t> value;  // ValueRef; truth
  uint64_t hash;
  uint32_t next;  // in its bucket's chain, or in the free list
  // A large append in place copies behind the value outside the mutex. Meanwhile the room behind it is reserved:
  // by `append_token` (unique, 0 = nobody), for as long as `append_block` is the key's value and pinned by
  // `append_pin`.
  uint32_t append_pin;
  uint64_t append_token;
  uint32_t append_block;
  uint32_t reserved;
  segment::Name name;
  uint8_t unused[208];
};
static_assert(sizeof(KeyEntry) == segment::kStateKeyStride);

/// PinRecord::word. One record per participant and block; who pins twice counts for itself.
struct PinWord {
  uint32_t block = kNone;
  uint16_t participant = 0;

  [[nodiscard]] constexpr uint64_t Pack() const noexcept {
    return static_cast<uint64_t>(block) << 32 | static_cast<uint64_t>(participant);
  }
  [[nodiscard]] static constexpr PinWord Unpack(uint64_t word) noexcept {
    return {static_cast<uint32_t>(word >> 32), static_cast<uint16_t>(word)};
  }
};

struct PinRecord {
  std::atomic<uint64_t> word;  // PinWord; truth; 0 = unused
  uint32_t next;               // free list
  uint32_t reserved[5];
};
static_assert(sizeof(PinRecord) == segment::kPinStride);

struct alignas(64) LockRecord {
  std::atomic<uint32_t> used;  // truth
  uint32_t next;               // in its bucket's chain, or in the free list
  uint64_t hash;
  // Holders in order of arrival: those that hold the lock, then those that wait.
  uint32_t first;
  uint32_t last;
  uint32_t first_waiting;
  uint32_t readers;  // that hold it
  uint32_t writers;  // that hold it: 0 or 1
  uint32_t reserved;
  segment::Name name;
  uint8_t unused[64];
};
static_assert(sizeof(LockRecord) == segment::kLockStride);

enum class HolderState : uint8_t { kFree = 0, kWaiting = 1, kGranted = 2 };

/// LockHolder::word.
struct HolderWord {
  HolderState state = HolderState::kFree;
  uint8_t mode = 0;  // StateStore::LockMode
  uint16_t participant = 0;
  uint32_t lock = kNone;

  [[nodiscard]] constexpr uint64_t Pack() const noexcept {
    return static_cast<uint64_t>(lock) << 32 | static_cast<uint64_t>(participant) << 16 |
           static_cast<uint64_t>(mode) << 8 | static_cast<uint64_t>(state);
  }
  [[nodiscard]] static constexpr HolderWord Unpack(uint64_t word) noexcept {
    return {static_cast<HolderState>(word & 0xff), static_cast<uint8_t>(word >> 8), static_cast<uint16_t>(word >> 16),
            static_cast<uint32_t>(word >> 32)};
  }
};

struct alignas(64) LockHolder {
  std::atomic<uint64_t> word;        // HolderWord; truth; 0 = unused
  std::atomic<uint32_t> generation;  // part of the handle, so that a stale handle finds nothing
  uint32_t owner_next;               // chain of its owner's bucket
  uint64_t owner_id;                 // written, with `ticket`, before the word
  uint64_t ticket;                   // order of arrival
  uint32_t previous;                 // in the lock's queue
  uint32_t next;                     // in the lock's queue, or in the free list
  uint32_t reserved[4];
};
static_assert(sizeof(LockHolder) == segment::kLockHolderStride);

/// PublicationRecord::word.
struct PublicationWord {
  static constexpr uint32_t kNowhere = (1u << 24) - 1;  // a first page that no area has
  uint32_t pages = 0;                                   // of its block, head included; 0 = the record is unused
  uint32_t first = kNowhere;                            // in the area of the present host

  [[nodiscard]] constexpr uint64_t Pack() const noexcept { return static_cast<uint64_t>(pages) << 32 | first; }
  [[nodiscard]] static constexpr PublicationWord Unpack(uint64_t word) noexcept {
    return {static_cast<uint32_t>(word >> 32), static_cast<uint32_t>(word)};
  }
  [[nodiscard]] constexpr bool placed() const noexcept { return pages > 0 && first != kNowhere; }
};

/// A published key, whether it exists or not.
struct alignas(64) PublicationRecord {
  std::atomic<uint64_t> word;  // PublicationWord; truth
  uint64_t hash;
  uint64_t id;    // see publication::Head; written, with the name, before the word
  uint32_t next;  // in its bucket's chain, or in the free list
  // A large value is copied outside the mutex. Meanwhile the block belongs to whoever has `copy_token` (unique, 0 =
  // nobody), for as long as `copy_pin` pins `copy_block`, which is what is copied.
  uint32_t copy_pin;
  uint64_t copy_token;
  uint32_t copy_block;
  uint32_t reserved;
  segment::Name name;
};
static_assert(sizeof(PublicationRecord) == segment::kPublicationStride);

/// Free list and high-water mark of one kind of record: records above `high` were never used.
struct RecordPool {
  uint32_t free;  // first of the free list
  uint32_t high;  // number of the highest record ever used
  std::atomic<uint32_t> used;
};

struct StateHead {
  alignas(64) segment::RobustMutex mutex;
  alignas(64) uint64_t hash_seed;
  std::atomic<uint64_t> last_version;  // of any key; never reused
  uint64_t last_ticket;                // of locks, appends, publications and their copies
  std::atomic<uint32_t> dirty;         // derived data is not to be trusted: rebuild it before anything else
  std::atomic<uint32_t> leaked;        // a block could not be freed in time: sweep
  uint32_t bucket_count;
  RecordPool keys;
  RecordPool pins;
  RecordPool locks;
  RecordPool holders;
  RecordPool publications;
  std::atomic<uint32_t> repairs;
  uint32_t lock_buckets[kLockBuckets];
  uint32_t owner_buckets[kOwnerBuckets];
  std::atomic<uint64_t> area_committed;  // bytes of the publication area with memory behind them
  uint32_t publication_buckets[kPublicationBuckets];
};
static_assert(sizeof(StateHead) <= segment::kStateHeadBytes);

// A published block's Block::value_bytes has the value's size in its low 48 bits and the number of pins above them, so
// that pinning touches one cache line. Both change under the mutex only.
inline constexpr unsigned kPinShift = 48;
inline constexpr uint64_t kMaxPins = (1u << 16) - 1;
inline constexpr uint64_t kValueBytesMask = (1ull << kPinShift) - 1;

[[nodiscard]] inline uint64_t ValueBytes(const segment::Block& block) noexcept {
  return block.value_bytes & kValueBytesMask;
}
[[nodiscard]] inline uint32_t PinCount(const segment::Block& block) noexcept {
  return static_cast<uint32_t>(block.value_bytes >> kPinShift);
}

[[nodiscard]] inline std::string_view View(const segment::Name& name) noexcept { return {name.bytes, name.size}; }

}  // namespace praas::state
