#include "state/pin_table.h"

#include <algorithm>

namespace praas::state {
namespace {

void AddPins(segment::Block& block, int64_t difference) noexcept {
  block.value_bytes += static_cast<uint64_t>(difference) << kPinShift;
}

}  // namespace

uint32_t PinTable::Pin(uint32_t block) {
  const std::lock_guard<std::mutex> lock(local_mutex_);
  if (const auto found = by_block_.find(block); found != by_block_.end()) {
    ++found->second.uses;
    return found->second.pin;
  }
  if (PinCount(records_.block(block)) == kMaxPins) return kNone;
  const uint32_t pin = records_.Take<PinRecord>(records_.head().pins, records_.header().pins);
  if (pin == kNone) return kNone;
  by_block_.emplace(block, Local{pin, 1});
  block_of_pin_.emplace(pin, block);
  records_.pin(pin).word.store(PinWord{block, self_}.Pack(), std::memory_order_release);
  AddPins(records_.block(block), 1);
  return pin;
}

bool PinTable::Release(uint32_t pin) {
  const std::lock_guard<std::mutex> lock(local_mutex_);
  const auto block = block_of_pin_.find(pin);
  if (block == block_of_pin_.end()) return false;
  Local& local = by_block_.at(block->second);
  if (local.uses == 0 || --local.uses > 0) return false;
  idle_.push_back(block->second);
  idle_count_.store(idle_.size(), std::memory_order_relaxed);
  return true;
}

void PinTable::DrainIdle(const std::function<void(uint32_t block)>& unpinned) {
  // Nobody in this process can pin meanwhile: that takes a section.
  std::vector<std::pair<uint32_t, uint32_t>> gone;  // pin, block
  {
    const std::lock_guard<std::mutex> lock(local_mutex_);
    while (!idle_.empty() && gone.size() < kDrainAtOnce) {
      const uint32_t block = idle_.back();
      idle_.pop_back();
      const auto local = by_block_.find(block);
      if (local == by_block_.end() || local->second.uses > 0) continue;
      gone.emplace_back(local->second.pin, block);
      block_of_pin_.erase(local->second.pin);
      by_block_.erase(local);
    }
    idle_count_.store(idle_.size(), std::memory_order_relaxed);
  }
  for (const auto& [pin, block] : gone) Remove(pin, block, unpinned);
}

void PinTable::Remove(uint32_t pin, uint32_t block, const std::function<void(uint32_t block)>& unpinned) {
  // Not ours any more when the host took this process for dead: then it also freed what had to be freed.
  PinRecord& record = records_.pin(pin);
  if (record.word.load(std::memory_order_relaxed) != PinWord{block, self_}.Pack()) return;
  record.word.store(0, std::memory_order_release);
  records_.Give<PinRecord>(records_.head().pins, records_.header().pins, pin);
  AddPins(records_.block(block), -1);
  if (PinCount(records_.block(block)) == 0) unpinned(block);
}

bool PinTable::Pins(uint32_t pin, uint32_t block) const noexcept {
  if (pin == kNone || pin > records_.head().pins.high) return false;
  const uint64_t word = records_.pin(pin).word.load(std::memory_order_relaxed);
  return word != 0 && PinWord::Unpack(word).block == block;
}

void PinTable::Reclaim(uint16_t participant, uint32_t first, uint32_t count,
                       const std::function<void(uint32_t block)>& unpinned) {
  const uint32_t high = records_.head().pins.high;
  for (uint32_t pin = first; pin <= high && pin - first < count; ++pin) {
    PinRecord& record = records_.pin(pin);
    const uint64_t value = record.word.load(std::memory_order_relaxed);
    const PinWord word = PinWord::Unpack(value);
    if (value == 0 || word.participant != participant) continue;
    record.word.store(0, std::memory_order_release);
    records_.Give<PinRecord>(records_.head().pins, records_.header().pins, pin);
    AddPins(records_.block(word.block), -1);
    if (PinCount(records_.block(word.block)) == 0) unpinned(word.block);
  }
}

void PinTable::Clear() noexcept {
  const uint32_t committed = Records::Committed(records_.header().pins);
  for (uint32_t pin = 1; pin <= committed; ++pin) records_.pin(pin).word.store(0, std::memory_order_release);
  const std::lock_guard<std::mutex> lock(local_mutex_);
  by_block_.clear();
  block_of_pin_.clear();
  idle_.clear();
  idle_count_.store(0, std::memory_order_relaxed);
}

void PinTable::Rebuild() noexcept {
  StateHead& head = records_.head();
  // Counts start from 0. Only blocks that a key or a pin names are touched: the descriptors of all others belong to the
  // arena, which may be changing them right now.
  for (uint32_t key = 1; key <= head.keys.high; ++key) {
    const uint64_t word = records_.key(key).value.load(std::memory_order_relaxed);
    if (word != 0) records_.block(ValueRef::Unpack(word).block).value_bytes &= kValueBytesMask;
  }
  const uint32_t committed = Records::Committed(records_.header().pins);
  head.pins.high = 0;
  for (uint32_t pin = 1; pin <= committed; ++pin) {
    const uint64_t word = records_.pin(pin).word.load(std::memory_order_relaxed);
    if (word == 0) continue;
    const uint32_t number = PinWord::Unpack(word).block;
    if (records_.ValidValueBlock(number)) {
      records_.block(number).value_bytes &= kValueBytesMask;
      head.pins.high = pin;
    } else {
      records_.pin(pin).word.store(0, std::memory_order_release);
    }
  }
  for (uint32_t pin = 1; pin <= head.pins.high; ++pin) {
    const uint64_t word = records_.pin(pin).word.load(std::memory_order_relaxed);
    if (word != 0) AddPins(records_.block(PinWord::Unpack(word).block), 1);
  }
  head.pins.free = kNone;
  uint32_t used = 0;
  for (uint32_t pin = head.pins.high; pin >= 1; --pin) {
    PinRecord& record = records_.pin(pin);
    if (record.word.load(std::memory_order_relaxed) != 0) {
      ++used;
    } else {
      record.next = head.pins.free;
      head.pins.free = pin;
    }
  }
  head.pins.used.store(used, std::memory_order_relaxed);
}

void PinTable::Check(std::vector<std::string>* violations) const {
  const StateHead& head = records_.head();
  const auto say = [violations](std::string text) { violations->push_back(std::move(text)); };
  if (head.pins.high > Records::Committed(records_.header().pins)) {
    say("pins: more used than committed");
    return;
  }
  std::unordered_map<uint32_t, uint32_t> counts;
  uint32_t used = 0;
  for (uint32_t pin = 1; pin <= head.pins.high; ++pin) {
    const uint64_t word = records_.pin(pin).word.load(std::memory_order_relaxed);
    if (word == 0) continue;
    ++used;
    const uint32_t block = PinWord::Unpack(word).block;
    if (!records_.ValidValueBlock(block)) {
      say("pin " + std::to_string(pin) + " names block " + std::to_string(block) + ", which is no value");
    } else {
      ++counts[block];
    }
  }
  if (used != head.pins.used.load(std::memory_order_relaxed)) {
    say("pins: " + std::to_string(used) + " held, " + std::to_string(head.pins.used.load(std::memory_order_relaxed)) +
        " counted");
  }
  for (uint32_t key = 1; key <= head.keys.high; ++key) {
    const uint64_t word = records_.key(key).value.load(std::memory_order_relaxed);
    const uint32_t block = ValueRef::Unpack(word).block;
    if (word != 0 && records_.ValidValueBlock(block)) counts.try_emplace(block, 0);
  }
  for (const auto& [block, expected] : counts) {
    if (PinCount(records_.block(block)) == expected) continue;
    say("block " + std::to_string(block) + " counts " + std::to_string(PinCount(records_.block(block))) + " pins of " +
        std::to_string(expected));
  }
  uint32_t unused = 0;
  for (uint32_t pin = head.pins.free; pin != kNone; pin = records_.pin(pin).next) {
    if (pin > head.pins.high || ++unused > head.pins.high) {
      say("pins: the free list does not end or leaves the table");
      return;
    }
  }
  if (unused + used != head.pins.high) say("pins: some records are neither held nor free");
}

}  // namespace praas::state
