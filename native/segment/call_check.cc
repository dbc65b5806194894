#include "segment/call_check.h"

namespace praas::segment {
namespace {

using dispatch::CallEntry;
using dispatch::CallKind;
using dispatch::CallState;
using dispatch::CallWord;
using dispatch::Origin;
using dispatch::PayloadRef;
using dispatch::Place;

class CallChecker {
 public:
  explicit CallChecker(const Segment& segment) : header_(segment.header()), segment_(segment) {}

  std::vector<std::string> Run() {
    for (index_ = 0; index_ < header_.calls.capacity; ++index_) {
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
    if (word.state == CallState::kFree) return;
    const bool owned =
        word.state == CallState::kReserved || word.state == CallState::kClaimed || word.state == CallState::kCompleting;
    if (owned && word.owner >= header_.participants.committed.load(std::memory_order_acquire)) {
      Find("belongs to participant " + std::to_string(word.owner) + ", which does not exist");
    }
    // What a sender is still filling may be anything.
    if (word.state == CallState::kReserved) return;
    if (entry.kind > CallKind::kStream) Find("is of no known kind");
    CheckOrigin(entry);
    CheckPayload("input", entry.input);
    if (word.state == CallState::kDone || word.state == CallState::kParked) CheckPayload("output", entry.output);
    if (entry.stream > header_.streams.committed.load(std::memory_order_acquire))
      Find("names a stream that does not exist");
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
    if (table == nullptr || entry.origin_index >= table->committed.load(std::memory_order_acquire)) {
      Find("comes from nobody");
    }
  }

  void CheckPayload(const char* which, const PayloadRef& payload) {
    if (payload.place > Place::kWindow) return Find(std::string("has its ") + which + " in no known place");
    if (payload.place != Place::kPoolInput && payload.place != Place::kPoolOutput) return;
    const Region& blocks = header_.arena_blocks[payload.place == Place::kPoolInput ? 1 : 2];
    if (payload.block == 0 || payload.block > blocks.committed.load(std::memory_order_acquire)) {
      Find(std::string("has its ") + which + " in a block that does not exist");
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
