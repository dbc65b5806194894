// What a function's wild writes leave of a segment: an inspection must describe it or say why not, whatever is there.
// The input is a list of writes into a sound segment with a store.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "segment/arena.h"
#include "segment/inspect.h"
#include "segment/segment.h"
#include "state/inspect.h"
#include "state/state_store.h"

namespace {

using namespace praas;

void Check(bool holds) {
  if (!holds) std::abort();
}

constexpr uint64_t kDeadlineNs = 10'000'000'000;
constexpr size_t kPlaceBytes = 8192;

/// A segment with keys, a pin and locks, which is damaged for each input and made whole after it.
class Target {
 public:
  Target() {
    const std::string name = "/praas-fuzz-" + std::to_string(::getpid());
    Result<segment::Segment> made = segment::Segment::CreateOrAttach({.name = name,
                                                                      .process_id = "fuzzed",
                                                                      .memory_bytes = 1u << 20,
                                                                      .pool_bytes = 1u << 20,
                                                                      .calls = 64,
                                                                      .format = &state::StateStore::Format});
    Check(made.ok());
    segment_.emplace(std::move(made).value());
    Check(segment::Segment::Unlink(name).ok());
    segment::Header& header = segment_->header();
    for (segment::Region* region : {&header.functions, &header.windows, &header.streams}) {
      Check(segment_->Commit(*region, 1).ok());
    }
    segment::Arena arena = segment::Arena::Data(*segment_, 0);
    state::StateStore store(*segment_, arena, 0);
    const std::byte value[100] = {};
    for (const char* key : {"a", "b", "c", "d"}) {
      Check(store.Set(key, value, {.deadline_ns = DeadlineIn(kDeadlineNs)}).ok());
    }
    Check(store.Pin("a", DeadlineIn(kDeadlineNs)).ok());
    Check(store.Lock("l", state::StateStore::LockMode::kRead, {0, 1}, DeadlineIn(kDeadlineNs)).ok());
    Check(store.Lock("l", state::StateStore::LockMode::kWrite, {0, 2}, DeadlineIn(kDeadlineNs)).ok());
    for (const uint64_t place :
         {uint64_t{0}, header.arena_heads[0], header.state_head, header.participants.offset, header.functions.offset,
          header.windows.offset, header.calls.offset, header.streams.offset, header.state_buckets.offset,
          header.state_keys.offset, header.pins.offset, header.locks.offset, header.lock_holders.offset,
          header.publications.offset, header.arena_blocks[0].offset}) {
      places_.push_back(place);
    }
  }

  /// Each write: the place, two bytes of offset, the size, then that many bytes.
  void Damage(const uint8_t* data, size_t size) {
    while (size >= 4) {
      const uint64_t place = places_[data[0] % places_.size()];
      const size_t offset = (data[1] | size_t{data[2]} << 8) % kPlaceBytes;
      const size_t bytes = std::min<size_t>({data[3], size - 4, kPlaceBytes - offset});
      std::byte* const at = segment_->base() + place + offset;
      undo_.emplace_back(at, std::vector<std::byte>(at, at + bytes));
      std::memcpy(at, data + 4, bytes);
      data += 4 + bytes;
      size -= 4 + bytes;
    }
  }
  void Undo() {
    for (auto change = undo_.rbegin(); change != undo_.rend(); ++change) {
      std::copy(change->second.begin(), change->second.end(), change->first);
    }
    undo_.clear();
  }

  [[nodiscard]] Result<std::string> Inspect() const {
    return segment::InspectJson(UniqueFd(::fcntl(segment_->fd(), F_DUPFD_CLOEXEC, 0)), state::WithState("fuzzed"));
  }

 private:
  std::optional<segment::Segment> segment_;
  std::vector<uint64_t> places_;
  std::vector<std::pair<std::byte*, std::vector<std::byte>>> undo_;
};

Target& TheTarget() {
  static Target target;
  return target;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const Result<std::string> sound = TheTarget().Inspect();
  Check(sound.ok() && sound->find("\"violations\":[]") != std::string::npos);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  TheTarget().Damage(data, size);
  const Result<std::string> text = TheTarget().Inspect();
  TheTarget().Undo();
  Check(text.ok() ? text->front() == '{' && text->back() == '}' : text.status().code() == Code::kSegmentInvalid);
  return 0;
}
