#include "segment/arena_lists.h"

#include <bit>
#include <cassert>

namespace praas::segment {
namespace {

constexpr uint32_t kSecondBits = 5;
static_assert(1u << kSecondBits == kSecondLevels);

/// How many blocks of the request's own class are looked at before giving up on it: they may fit or be a little too
/// small, which only looking tells, and looking has to stay bounded.
constexpr uint32_t kOwnClassLooks = 32;

/// The first class all of whose blocks have at least `bytes`.
SizeClass ClassThatFits(uint64_t bytes) noexcept {
  const uint64_t units = bytes / Arena::kGranule;
  if (units < kSecondLevels) return {0, static_cast<uint32_t>(units)};
  const uint32_t log = 63 - static_cast<uint32_t>(std::countl_zero(units));
  return ClassOf((units + (1ull << (log - kSecondBits)) - 1) * Arena::kGranule);
}

}  // namespace

SizeClass ClassOf(uint64_t bytes) noexcept {
  const uint64_t units = bytes / Arena::kGranule;
  if (units < kSecondLevels) return {0, static_cast<uint32_t>(units)};
  const uint32_t log = 63 - static_cast<uint32_t>(std::countl_zero(units));
  return {log - kSecondBits + 1, static_cast<uint32_t>(units >> (log - kSecondBits)) - kSecondLevels};
}

uint64_t LowestOf(SizeClass size_class) noexcept {
  if (size_class.first == 0) return size_class.second * Arena::kGranule;
  return static_cast<uint64_t>(size_class.second + kSecondLevels) << (size_class.first - 1) << 6;
}
static_assert(Arena::kGranule == 1u << 6);

void ArenaLists::Clear() noexcept {
  head_.managed = 0;
  head_.last = 0;
  head_.unused = 0;
  head_.unused_count = 0;
  head_.fresh = 1;
  head_.used_bytes.store(0, std::memory_order_relaxed);
  head_.used_blocks.store(0, std::memory_order_relaxed);
  head_.free_blocks.store(0, std::memory_order_relaxed);
  head_.first_level.store(0, std::memory_order_relaxed);
  for (auto& bits : head_.second_level) bits.store(0, std::memory_order_relaxed);
  for (auto& row : head_.lists) {
    for (uint32_t& list : row) list = 0;
  }
}

void ArenaLists::Insert(uint32_t index) noexcept {
  Block& block = At(index);
  const SizeClass at = ClassOf(block.bytes);
  uint32_t& list = head_.lists[at.first][at.second];
  block.free_previous = 0;
  block.free_next = list;
  if (list != 0) At(list).free_previous = index;
  list = index;
  auto& second = head_.second_level[at.first];
  second.store(second.load(std::memory_order_relaxed) | 1u << at.second, std::memory_order_relaxed);
  head_.first_level.store(head_.first_level.load(std::memory_order_relaxed) | 1ull << at.first,
                          std::memory_order_relaxed);
  head_.free_blocks.store(head_.free_blocks.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  Step();
}

void ArenaLists::Remove(uint32_t index) noexcept {
  const Block& block = At(index);
  const SizeClass at = ClassOf(block.bytes);
  uint32_t& list = head_.lists[at.first][at.second];
  if (block.free_next != 0) At(block.free_next).free_previous = block.free_previous;
  if (block.free_previous != 0) {
    At(block.free_previous).free_next = block.free_next;
  } else {
    assert(list == index);
    list = block.free_next;
    if (list == 0) {
      auto& second = head_.second_level[at.first];
      const uint32_t rest = second.load(std::memory_order_relaxed) & ~(1u << at.second);
      second.store(rest, std::memory_order_relaxed);
      if (rest == 0) {
        head_.first_level.store(head_.first_level.load(std::memory_order_relaxed) & ~(1ull << at.first),
                                std::memory_order_relaxed);
      }
    }
  }
  head_.free_blocks.store(head_.free_blocks.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
  Step();
}

uint32_t ArenaLists::Find(uint64_t bytes) noexcept {
  SizeClass at = ClassThatFits(bytes);
  Step();
  if (at.first < kFirstLevels) {
    uint32_t second = head_.second_level[at.first].load(std::memory_order_relaxed) & ~0u << at.second;
    if (second == 0) {
      const uint64_t above = at.first + 1 < 64 ? ~0ull << (at.first + 1) : 0;
      const uint64_t first = head_.first_level.load(std::memory_order_relaxed) & above;
      if (first != 0) {
        at.first = static_cast<uint32_t>(std::countr_zero(first));
        second = head_.second_level[at.first].load(std::memory_order_relaxed);
      }
    }
    if (second != 0) return head_.lists[at.first][std::countr_zero(second)];
  }
  // Nothing that fits for certain. The largest free block may yet be in the request's own class: without this look, a
  // request of exactly the arena's size would fail although the arena is empty.
  const SizeClass own = ClassOf(bytes);
  uint32_t index = head_.lists[own.first][own.second];
  for (uint32_t looks = 0; index != 0 && looks < kOwnClassLooks; ++looks) {
    Step();
    if (At(index).bytes >= bytes) return index;
    index = At(index).free_next;
  }
  return 0;
}

uint64_t ArenaLists::LargestFree() const noexcept {
  const uint64_t first = head_.first_level.load(std::memory_order_relaxed);
  if (first == 0) return 0;
  const uint32_t level = 63 - static_cast<uint32_t>(std::countl_zero(first));
  if (level >= kFirstLevels) return 0;
  const uint32_t second = head_.second_level[level].load(std::memory_order_relaxed);
  return second == 0 ? 0 : LowestOf({level, 31 - static_cast<uint32_t>(std::countl_zero(second))});
}

uint32_t ArenaLists::Spare(uint32_t committed) const noexcept {
  return head_.unused_count + (head_.fresh <= committed ? committed - head_.fresh + 1 : 0);
}

uint32_t ArenaLists::TakeDescriptor() noexcept {
  uint32_t index = head_.unused;
  if (index != 0) {
    head_.unused = At(index).free_next;
    --head_.unused_count;
  } else {
    index = head_.fresh++;
  }
  return index;
}

void ArenaLists::GiveDescriptor(uint32_t index) noexcept {
  Block& block = At(index);
  block.bytes = 0;
  block.previous = 0;
  block.next = 0;
  block.free_previous = 0;
  block.free_next = head_.unused;
  head_.unused = index;
  ++head_.unused_count;
}

void ArenaLists::AppendFree(uint64_t end) noexcept {
  uint32_t index = head_.last;
  if (index != 0 && IsFree(At(index))) {
    Remove(index);
    At(index).bytes += end - head_.managed;
  } else {
    index = TakeDescriptor();
    Block& block = At(index);
    block.offset = head_.base_offset + head_.managed;
    block.bytes = end - head_.managed;
    block.previous = head_.last;
    block.next = 0;
    if (head_.last != 0) At(head_.last).next = index;
    head_.last = index;
  }
  head_.managed = end;
  Insert(index);
}

void ArenaLists::Split(uint32_t index, uint64_t bytes) noexcept {
  const uint32_t rest_index = TakeDescriptor();
  Block& block = At(index);
  Block& rest = At(rest_index);
  rest.offset = block.offset + bytes;
  rest.bytes = block.bytes - bytes;
  rest.previous = index;
  rest.next = block.next;
  if (block.next != 0) {
    At(block.next).previous = rest_index;
  } else {
    head_.last = rest_index;
  }
  block.next = rest_index;
  block.bytes = bytes;
  Insert(rest_index);
}

void ArenaLists::Absorb(uint32_t into, uint32_t right) noexcept {
  Block& block = At(into);
  const Block& gone = At(right);
  block.bytes += gone.bytes;
  block.next = gone.next;
  if (gone.next != 0) {
    At(gone.next).previous = into;
  } else {
    head_.last = into;
  }
  GiveDescriptor(right);
}

void ArenaLists::MergeAndInsert(uint32_t index) noexcept {
  const uint32_t next = At(index).next;
  if (next != 0 && IsFree(At(next))) {
    Remove(next);
    Absorb(index, next);
  }
  const uint32_t previous = At(index).previous;
  if (previous != 0 && IsFree(At(previous))) {
    Remove(previous);
    Absorb(previous, index);
    index = previous;
  }
  Insert(index);
}

}  // namespace praas::segment
