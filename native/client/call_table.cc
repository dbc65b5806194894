#include "client/call_table.h"

#include <algorithm>

namespace praas::client {

Call& CallTable::Add(CallKind kind, uint64_t deadline_ns) {
  if (free_.empty()) {
    // Two statements: of an assignment the right side is evaluated first, and the slot would not be counted yet.
    Call& fresh = slots_.emplace_back();
    fresh.id = slots_.size();  // slot + 1: ids are never 0
    free_.push_back(static_cast<uint32_t>(slots_.size() - 1));
  }
  Call& call = slots_[free_.back()];
  free_.pop_back();
  call.kind = kind;
  call.state = CallState::kWaiting;
  call.refused = false;
  call.type = {};
  call.op = 0;
  call.function = 0;
  call.flags = 0;
  call.deadline_ns = deadline_ns;
  earliest_ns_ = open_ == 0 ? deadline_ns : std::min(earliest_ns_, deadline_ns);
  ++open_;
  return call;
}

Call* CallTable::Find(uint64_t id) noexcept {
  const uint64_t slot = (id & ((uint64_t{1} << kSlotBits) - 1)) - 1;
  if (slot >= slots_.size()) return nullptr;
  Call& call = slots_[slot];
  return call.id == id && call.state != CallState::kFree ? &call : nullptr;
}

void CallTable::Remove(Call& call) noexcept {
  if (call.state != CallState::kAbandoned) --open_;
  const auto slot = static_cast<uint32_t>((call.id & ((uint64_t{1} << kSlotBits) - 1)) - 1);
  call.id += uint64_t{1} << kSlotBits;
  call.state = CallState::kFree;
  call.input = {};
  call.output = {};
  call.arguments.clear();
  call.stream.reset();
  free_.push_back(slot);
}

void CallTable::MarkAbandoned(Call& call) noexcept {
  if (call.state != CallState::kAbandoned) --open_;
  call.state = CallState::kAbandoned;
  call.input = {};
  call.output = {};
}

std::vector<uint64_t> CallTable::Expired(uint64_t now_ns) {
  std::vector<uint64_t> expired;
  uint64_t earliest = kNoDeadline;
  for (const Call& call : slots_) {
    if (call.state != CallState::kWaiting && call.state != CallState::kSent) continue;
    if (call.deadline_ns <= now_ns) {
      expired.push_back(call.id);
    } else {
      earliest = std::min(earliest, call.deadline_ns);
    }
  }
  earliest_ns_ = earliest;
  return expired;
}

std::vector<uint64_t> CallTable::Open() const {
  std::vector<uint64_t> open;
  for (const Call& call : slots_) {
    if (call.state == CallState::kWaiting || call.state == CallState::kSent) open.push_back(call.id);
  }
  return open;
}

}  // namespace praas::client
