#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

/// The publication area of a process: copies of the values that are published, for readers that run no code in it. A
/// sealed memfd of the host; clients on the same machine map it read-only, and a device reads it for those on others.
///
///   [ block | block | … ]      a block: whole pages, a Head and then the value
///
/// The state stays the truth (state/state_store.h), a block is a copy that can be made anew at any time. It is written
/// by whoever changes the value, by one writer at a time; the head says what a reader has got, and whether it is still
/// the value.
namespace praas::publication {

inline constexpr uint32_t kMagic = 0x3142'5550;  // "PUB1", little-endian
inline constexpr uint64_t kPageBytes = 4096;
inline constexpr uint64_t kMinAreaBytes = 64 << 10;
inline constexpr uint64_t kMaxAreaBytes = 32ull << 30;

enum Flags : uint32_t {
  kAbsent = 1u << 0,     // the key does not exist
  kElsewhere = 1u << 1,  // the value does not fit, or is an array: ask the host
};

/// Little-endian, as everything that a device reads. Fields are written by relaxed atomic stores.
struct Head {
  uint32_t magic;
  uint32_t flags;
  uint64_t id;        // of the publication, never used again in this process; 0: the block belongs to none
  uint64_t sequence;  // odd while the fields below `latest` and the value are being written
  uint64_t latest;    // version of the truth. Changes before the truth does
  uint64_t version;   // of what lies here: the value is current if this is `latest`
  uint64_t bytes;
  uint32_t crc;  // CRC-32C of the value, then id, version, bytes and flags: for readers whose looks have no order
  uint32_t reserved;
  uint64_t unused;
};
inline constexpr uint64_t kHeadBytes = 64;
static_assert(sizeof(Head) == kHeadBytes && std::is_trivially_copyable_v<Head>);
static_assert(offsetof(Head, sequence) == 16 && offsetof(Head, latest) == 24 && offsetof(Head, crc) == 48);

/// Where a client finds a publication. What a host answers; whoever uses it checks it against its area.
struct Location {
  uint64_t id = 0;
  uint64_t offset = 0;    // of the block in the area
  uint64_t capacity = 0;  // bytes of values that fit
  /// Of the block, for a device on another machine; 0: not there.
  uint64_t address = 0;
  uint32_t key = 0;

  friend bool operator==(const Location&, const Location&) = default;
};

/// Pages of a block for values of up to `capacity` bytes.
[[nodiscard]] constexpr uint64_t PagesFor(uint64_t capacity) noexcept {
  return capacity / kPageBytes + (capacity % kPageBytes + kHeadBytes + kPageBytes - 1) / kPageBytes;
}
[[nodiscard]] constexpr uint64_t CapacityOf(uint64_t pages) noexcept { return pages * kPageBytes - kHeadBytes; }

/// Whether a block lies in an area of so many bytes.
[[nodiscard]] constexpr bool InArea(const Location& location, uint64_t area_bytes) noexcept {
  return location.id != 0 && location.offset % kPageBytes == 0 && location.capacity % 8 == 0 &&
         location.offset <= area_bytes && area_bytes - location.offset >= kHeadBytes &&
         location.capacity <= area_bytes - location.offset - kHeadBytes;
}

/// Head::crc, from that of the value alone.
[[nodiscard]] uint32_t ChecksumOf(const Head& head, uint32_t value_crc) noexcept;

}  // namespace praas::publication
