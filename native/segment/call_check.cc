#include "segment/call_check.h"

#include <algorithm>

#include "segment/arena_head.h"
#include "segment/table_check.h"

namespace praas::segment {
namespace {

using dispatch::CallEntry;
using dispatch::CallKind;
using dispatch::CallState;
using dispatch::CallWord;
using dispatch::Origin;
using dispatch::PayloadRef;
using dispatch::Place;

/// Of one entry in the pool: room for an input, then for a result.
constexpr uint64_t kSlotBytes = dispatch::kSlotInputBytes + dispatch::kSlotOutputBytes;

class CallChecker {
 public:
  explicit CallChecker(const Segment& segment) : header_(segment.header()), segment_(segment) {}

  std::vector<std::string> Run() {
    const uint32_t calls = std::min(header_.calls.capacity, dispatch::kMaxCalls);
    for (index_ = 0; index_ < calls; ++index_) {
      const CallEntry& entry = segment_.call(index_);
      const uint64_t word = entry.word.load(std::memory_order_acquire);
      const size_t before = findings_.size();
      CheckEntry(entry, CallWord::Unpack(word));
      // An entry that went on meanwhile was read across two states.
      if (entry.word.load(std::memory_order_acquire) != word) findings_.resize(before);
    }
    return std::move(findings_);
  }

 private:
  void Find(const std::string& what) { findings_.push_back("call " + std::to_string(index_) + ' ' + what); }

  void CheckEntry(const CallEntry& entry, CallWord word) {
    if (word.state > CallState::kParked) return Find("is in no known state");
    constexpr uint8_t kKnown =
        dispatch::kWordTaken | dispatch::kWordNested | dispatch::kWordNative | dispatch::kWordParked;
    if ((word.flags & ~kKnown) != 0) Find("has unknown flags in its word");
    if (entry.reserved != 0) Find("has bytes other than zero where nobody writes");
    if (word.state == CallState::kFree) return;
    const bool owned =
        word.state == CallState::kReserved || word.state == CallState::kClaimed || word.state == CallState::kCompleting;
    if (owned && word.owner >= CommittedOf(header_.participants)) {
      Find("belongs to participant " + std::to_string(word.owner) + ", which does not exist");
    }
    // What a sender is still filling may be anything.
    if (word.state == CallState::kReserved) return;
    if (entry.kind > CallKind::kStream) Find("is of no known kind");
    if ((entry.flags & ~(dispatch::kCallIdempotent | dispatch::kCallSync)) != 0 && entry.origin != Origin::kWindow) {
      Find("has unknown flags");
    }
    if (entry.cancel.load(std::memory_order_relaxed) > 1) Find("is neither cancelled nor not");
    // A client's window may name any function; whoever takes its call refuses.
    const uint32_t functions = header_.function_count.load(std::memory_order_acquire);
    if (entry.origin != Origin::kWindow && entry.function >= functions) {
      Find("is for function " + std::to_string(entry.function) + " of " + std::to_string(functions));
    }
    CheckOrigin(entry);
    CheckPayload("input", entry.input);
    if (word.state == CallState::kDone || word.state == CallState::kParked) CheckPayload("output", entry.output);
    if (entry.stream > CommittedOf(header_.streams)) {
      Find("names a stream that does not exist");
    } else if (entry.kind == CallKind::kStream && entry.stream != 0) {
      const auto& ring = segment_.At<dispatch::StreamRing>(header_.streams, entry.stream - 1);
      if (ring.in_use.load(std::memory_order_acquire) != 0 && ring.call != index_) Find("names another call's stream");
    }
  }

  void CheckOrigin(const CallEntry& entry) {
    const Region* table = nullptr;
    switch (entry.origin) {
      case Origin::kHost:
        return;
      case Origin::kWorker:
        table = &header_.participants;
        break;
      case Origin::kWindow:
        table = &header_.windows;
        break;
    }
    if (table == nullptr || entry.origin_index >= CommittedOf(*table)) {
      Find("comes from nobody");
    }
  }

  void CheckPayload(const char* which, const PayloadRef& payload) {
    if (payload.place > Place::kWindow) return Find(std::string("has its ") + which + " in no known place");
    if (payload.place == Place::kSlot) {
      if (payload.bytes > std::max(dispatch::kSlotInputBytes, dispatch::kSlotOutputBytes) ||
          payload.offset / kSlotBytes != index_) {
        Find(std::string("has its ") + which + " outside of its slot");
      }
      return;
    }
    if (payload.place != Place::kPoolInput && payload.place != Place::kPoolOutput) return;
    const uint32_t arena = payload.place == Place::kPoolInput ? 1 : 2;
    if (payload.block == 0 || payload.block > CommittedOf(header_.arena_blocks[arena])) {
      return Find(std::string("has its ") + which + " in a block that does not exist");
    }
    const auto& head = *reinterpret_cast<const ArenaHead*>(segment_.base() + header_.arena_heads[arena]);
    const uint64_t base = head.base_offset;
    const uint64_t limit = head.limit_bytes;
    if (payload.offset < base || payload.bytes > limit || payload.offset - base > limit - payload.bytes) {
      Find(std::string("has its ") + which + " outside of its part of the pool");
    }
  }

  const Header& header_;
  const Segment& segment_;
  uint32_t index_ = 0;
  std::vector<std::string> findings_;
};

}  // namespace

std::string_view CallStateName(CallState state) noexcept {
  switch (state) {
    case CallState::kFree:
      return "free";
    case CallState::kReserved:
      return "reserved";
    case CallState::kQueued:
      return "queued";
    case CallState::kClaimed:
      return "claimed";
    case CallState::kCompleting:
      return "completing";
    case CallState::kDone:
      return "done";
    case CallState::kParked:
      return "parked";
  }
  return "unknown";
}

std::vector<std::string> CheckCalls(const Segment& segment) { return CallChecker(segment).Run(); }

}  // namespace praas::segment
