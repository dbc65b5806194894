// A segment that something has written into, as the next host finds it: it is refused, or attached to, repaired and
// then as good as any. The input is a list of writes; one of no bytes cuts the segment off there.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <optional>
#include <string>

#include "base/clock.h"
#include "dispatch/dispatcher.h"
#include "host/repair.h"
#include "publication/area.h"
#include "segment/arena.h"
#include "segment/segment.h"
#include "state/state_store.h"
#include "support.h"
#include "window/pool.h"

namespace {

using namespace praas;
using fuzz::Check;

constexpr uint64_t kDeadlineNs = 10'000'000'000;
constexpr uint64_t kAreaBytes = 1u << 20;

uint64_t Soon() { return DeadlineIn(kDeadlineNs); }
std::span<const std::byte> Text(std::string_view text) { return std::as_bytes(std::span(text)); }

/// A segment with everything in it, and how it was.
class Image {
 public:
  Image() : name_("/praas-fuzz-segment-" + std::to_string(::getpid())) {
    auto made = segment::Segment::CreateOrAttach(Options());
    Check(made.ok());
    segment::Segment& segment = *made;
    segment::Header& header = segment.header();
    for (segment::Region* region : {&header.functions, &header.windows, &header.streams}) {
      Check(segment.Commit(*region, 1).ok());
    }
    auto area = publication::Area::Create(kAreaBytes);
    Check(area.ok());
    segment::Arena arena = segment::Arena::Data(segment, 0);
    state::StateStore store(segment, arena, 0, &*area);
    for (const char* key : {"a", "b", "c", "d"}) Check(store.Set(key, Text(key), {.deadline_ns = Soon()}).ok());
    Check(store.Append("log", Text("text"), Soon()).ok());
    Check(store.Array("array", 2, 100, Soon()).ok());
    Check(store.Publish("a", std::nullopt, Soon()).ok());
    Check(store.Pin("b", Soon()).ok());
    Check(store.Delete("b", std::nullopt, Soon()).ok());
    Check(store.Lock("l", state::StateStore::LockMode::kRead, {0, 1}, Soon()).ok());
    Check(store.Lock("l", state::StateStore::LockMode::kWrite, {1, 2}, Soon()).ok());
    Check(arena.Allocate(1000, {segment::BlockOwner::Kind::kParticipant, 1, 0}, Soon()).ok());
    places_ = {0,
               header.arena_heads[0],
               header.state_head,
               header.participants.offset,
               header.functions.offset,
               header.windows.offset,
               header.calls.offset,
               header.streams.offset,
               header.state_buckets.offset,
               header.state_keys.offset,
               header.pins.offset,
               header.locks.offset,
               header.lock_holders.offset,
               header.publications.offset,
               header.arena_blocks[0].offset,
               header.meta_bytes};
    bytes_ = header.segment_bytes;
    fd_ = ::fcntl(segment.fd(), F_DUPFD_CLOEXEC, 0);
    void* const mapped = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    Check(mapped != MAP_FAILED);
    base_ = static_cast<std::byte*>(mapped);
    ForEachRun([&](size_t begin, size_t end) {
      sound_.emplace_back(begin, std::vector<std::byte>(base_ + begin, base_ + end));
    });
  }
  ~Image() { (void)segment::Segment::Unlink(name_); }

  [[nodiscard]] segment::CreateOptions Options() const {
    return {.name = name_,
            .process_id = "fuzzed",
            .memory_bytes = 1u << 20,
            .pool_bytes = 1u << 20,
            .calls = 64,
            .format = &state::StateStore::Format};
  }
  void Restore() {
    Check(::ftruncate(fd_, static_cast<off_t>(bytes_)) == 0);
    ForEachRun([&](size_t begin, size_t end) { std::memset(base_ + begin, 0, end - begin); });
    for (const auto& [begin, bytes] : sound_) std::memcpy(base_ + begin, bytes.data(), bytes.size());
  }
  void Damage(fuzz::Input* input) {
    while (!input->empty()) {
      const fuzz::Patch patch = fuzz::TakePatch(input);
      const uint64_t at = places_[patch.place % places_.size()] + patch.offset % 8192;
      if (at + patch.bytes.size() > bytes_) continue;
      if (patch.bytes.empty()) {
        Check(::ftruncate(fd_, static_cast<off_t>(at)) == 0);
        return;
      }
      std::memcpy(base_ + at, patch.bytes.data(), patch.bytes.size());
    }
  }

 private:
  template <typename Visit>
  void ForEachRun(const Visit& visit) {
    off_t begin = 0;
    while ((begin = ::lseek(fd_, begin, SEEK_DATA)) >= 0) {
      const off_t end = ::lseek(fd_, begin, SEEK_HOLE);
      visit(static_cast<size_t>(begin), static_cast<size_t>(end));
      begin = end;
    }
  }

  std::string name_;
  uint64_t bytes_ = 0;
  int fd_ = -1;
  std::byte* base_ = nullptr;
  std::vector<uint64_t> places_;
  std::vector<std::pair<size_t, std::vector<std::byte>>> sound_;
};

Image& TheImage() {
  static Image image;
  return image;
}

void Use(state::StateStore& store) {
  const auto keys = store.Keys("", "", 100, Soon());
  Check(keys.ok());
  for (const state::KeyInfo& info : *keys) {
    (void)store.Get(info.key, Soon());
    const auto pinned = store.Pin(info.key, Soon());
    if (pinned.ok()) store.Unpin(pinned->pin);
    (void)store.Append(info.key, Text("more"), Soon());
    (void)store.Publish(info.key, std::nullopt, Soon());
  }
  for (const char* key : {"a", "new"}) {
    if (!store.Set(key, Text("value"), {.deadline_ns = Soon()}).ok()) continue;
    const auto got = store.Get(key, Soon());
    Check(got.ok() && got->size() == 5 && std::memcmp(got->data(), "value", 5) == 0);
  }
  (void)store.Array("array", 2, 100, Soon());
  const auto lock = store.Lock("l", state::StateStore::LockMode::kWrite, {0, 7}, Soon());
  if (lock.ok()) {
    Check(lock->granted);
    Check(store.Unlock(lock->holder, Soon()).ok());
  }
  for (const state::KeyInfo& info : *keys) (void)store.Delete(info.key, std::nullopt, Soon());
}

/// What a host does with a segment that another one left (host/process.cc), but for ending recorded workers: their pids
/// are the fuzzer's invention.
void Attach() {
  auto segment = segment::Segment::CreateOrAttach(TheImage().Options());
  if (!segment.ok()) {
    Check(segment.status().code() == Code::kSegmentInvalid);
    return;
  }
  if (!segment->attached()) return;  // nothing of it was believed, and a new one made
  host::ForgetFormerHost(*segment);
  segment::Arena arena = segment::Arena::Data(*segment, 0);
  auto area = publication::Area::Create(kAreaBytes);
  Check(area.ok());
  state::StateStore store(*segment, arena, 0, &*area);
  if (!arena.Recover().ok() || !store.RepairAfterHost(Soon()).ok()) return;
  auto pool = window::Pool::Create(*segment);
  Check(pool.ok());
  ::setenv("PRAAS_DOORBELL", "futex", 1);
  std::string why;
  auto doorbells = dispatch::Doorbells::Create(*segment, "/praas-fuzz", {true, false}, &why);
  Check(doorbells.ok());
  dispatch::Dispatcher host(*segment, **doorbells, 0);
  host.ResetTable();
  (void)store.RenewAll(Soon());

  Check(arena.Check().empty() && store.Check().empty());
  Use(store);
  Check(arena.Check().empty() && store.Check().empty());
  Check(host.in_use() == 0);
  const auto call = host.Reserve();
  Check(call.has_value());
  segment->call(*call).function = 0;
  segment->call(*call).depth = 0;
  host.Post(*call);
  Check(host.ClaimAny() == *call);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  Attach();
  TheImage().Restore();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  TheImage().Damage(&input);
  Attach();
  TheImage().Restore();
  return 0;
}
