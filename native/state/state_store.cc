#include "state/state_store.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "base/clock.h"
#include "state/store_impl.h"

namespace praas::state {
namespace {

uint64_t RandomSeed() noexcept {
  uint64_t seed = 0;
  // Never blocks for so few bytes once the system is up; were it to fail, time is unpredictable enough for a hash.
  if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != static_cast<ssize_t>(sizeof seed))
    seed = NowNs() ^ WallNs() << 20;
  return seed;
}

}  // namespace

StateStore::StateStore(const segment::Segment& segment, segment::Arena& arena, uint16_t self,
                       const publication::Area* area)
    : impl_(std::make_unique<Impl>(segment, arena, self, area)) {}

StateStore::~StateStore() = default;

Status StateStore::Format(const segment::Segment& segment) {
  const Records records(segment);
  segment::Header& header = records.header();
  // The first page of each region, so that an empty store never has to grow while it is being rebuilt.
  for (segment::Region* region : {&header.state_buckets, &header.state_keys, &header.pins, &header.locks,
                                  &header.lock_holders, &header.publications}) {
    if (Status status = segment.Commit(*region, std::min(region->capacity, segment::kPageBytes / region->stride));
        !status.ok()) {
      return status.WithContext("state of the process");
    }
  }
  StateHead& head = records.head();
  if (Status status = head.mutex.Init(); !status.ok()) return status;
  head.hash_seed = RandomSeed();
  head.last_version.store(0, std::memory_order_relaxed);
  head.last_ticket = 0;
  head.dirty.store(0, std::memory_order_relaxed);
  head.leaked.store(0, std::memory_order_relaxed);
  head.repairs.store(0, std::memory_order_relaxed);
  head.area_committed.store(0, std::memory_order_relaxed);
  PinTable(records, 0).Clear();
  LockTable(records).Clear();
  for (uint32_t number = 1; number <= Records::Committed(header.state_keys); ++number) {
    records.key(number).value.store(0, std::memory_order_relaxed);
  }
  KeyIndex(records).Rebuild();
  PinTable(records, 0).Rebuild();
  LockTable(records).Rebuild();
  PublicationTable(records).Rebuild();
  return Status::Ok();
}

Result<std::vector<std::byte>> StateStore::Get(std::string_view name, uint64_t deadline_ns, KeyInfo* info) {
  Result<Impl::Key> key = impl_->MakeKey(name);
  if (!key.ok()) return key.status();
  try {
    {
      Impl::Found found;
      Result<Impl::Section> section = impl_->EnterExisting(*key, &found, deadline_ns);
      if (!section.ok()) return section.status();
      if (found.bytes() <= kInlineCopyBytes) {
        const std::byte* from = impl_->records.bytes(*found.block);
        if (info != nullptr) *info = impl_->Info(found, name);
        return std::vector<std::byte>(from, from + found.bytes());
      }
    }
    Result<Impl::PinnedKey> pinned = impl_->PinExisting(*key, deadline_ns);
    if (!pinned.ok()) return pinned.status();
    const Impl::Hold hold(*impl_, pinned->pin);
    if (info != nullptr) *info = pinned->info;
    const std::byte* from = impl_->segment.data() + pinned->pinned.offset;
    return std::vector<std::byte>(from, from + pinned->pinned.bytes);
  } catch (const std::bad_alloc&) {
    return Status(Code::kSystem, "no memory in this OS process for a copy of state key \"" + std::string(name) + "\"",
                  ENOMEM);
  }
}

Result<uint64_t> StateStore::Read(std::string_view name, uint64_t offset, std::span<std::byte> out,
                                  uint64_t deadline_ns) {
  Result<Impl::Key> key = impl_->MakeKey(name);
  if (!key.ok()) return key.status();
  const auto part = [&](uint64_t bytes) -> Result<uint64_t> {
    if (offset <= bytes) return std::min<uint64_t>(bytes - offset, out.size());
    return Status(Code::kStateRange, "offset " + std::to_string(offset) + " is beyond the " + std::to_string(bytes) +
                                         " bytes of state key \"" + std::string(name) + "\"");
  };
  {
    Impl::Found found;
    Result<Impl::Section> section = impl_->EnterExisting(*key, &found, deadline_ns);
    if (!section.ok()) return section.status();
    Result<uint64_t> bytes = part(found.bytes());
    if (!bytes.ok()) return bytes;
    if (*bytes <= kInlineCopyBytes) {
      if (*bytes > 0) std::memcpy(out.data(), impl_->records.bytes(*found.block) + offset, *bytes);
      return bytes;
    }
  }
  Result<Impl::PinnedKey> pinned = impl_->PinExisting(*key, deadline_ns);
  if (!pinned.ok()) return pinned.status();
  const Impl::Hold hold(*impl_, pinned->pin);
  Result<uint64_t> bytes = part(pinned->pinned.bytes);
  if (bytes.ok()) std::memcpy(out.data(), impl_->segment.data() + pinned->pinned.offset + offset, *bytes);
  return bytes;
}

Result<KeyInfo> StateStore::Stat(std::string_view name, uint64_t deadline_ns) {
  Result<Impl::Key> key = impl_->MakeKey(name);
  if (!key.ok()) return key.status();
  Impl::Found found;
  Result<Impl::Section> section = impl_->EnterExisting(*key, &found, deadline_ns);
  if (!section.ok()) return section.status();
  return impl_->Info(found, name);
}

Result<Pinned> StateStore::Pin(std::string_view name, uint64_t deadline_ns) {
  Result<Impl::Key> key = impl_->MakeKey(name);
  if (!key.ok()) return key.status();
  Result<Impl::PinnedKey> pinned = impl_->PinExisting(*key, deadline_ns);
  if (!pinned.ok()) return pinned.status();
  return pinned->pinned;
}

void StateStore::Unpin(uint32_t pin) { impl_->Unpin(pin); }

Result<uint64_t> StateStore::Set(std::string_view name, std::span<const std::byte> value, const SetOptions& options) {
  Result<Impl::Key> key = impl_->MakeKey(name);
  if (!key.ok()) return key.status();
  if (options.offset) {
    return impl_->Rewrite(*key, {.bytes = value,
                                 .offset = options.offset,
                                 .if_version = options.if_version,
                                 .deadline_ns = options.deadline_ns});
  }
  Impl::Draft draft(*impl_);
  if (Status status = draft.Allocate(std::max<uint64_t>(1, value.size()), 0, options.deadline_ns); !status.ok()) {
    return status;
  }
  if (!value.empty()) std::memcpy(draft.data(), value.data(), value.size());
  Impl::Found found;
  Result<uint64_t> version = [&]() -> Result<uint64_t> {
    Result<Impl::Section> section = impl_->EnterToWrite(*key, &found, options.deadline_ns);
    if (!section.ok()) return section.status();
    if (Status status = Impl::CheckVersion(options.if_version, found, *key); !status.ok()) return status;
    if (Status status = Impl::CheckIsValue(found, *key); !status.ok()) return status;
    return impl_->Publish(*key, found, draft, {.kind = KeyKind::kValue}, value.size(), options.deadline_ns);
  }();
  if (!found) impl_->AfterInsertion();
  if (version.ok()) impl_->RenewLarge(*key, value.size(), options.deadline_ns);
  return version;
}

Result<uint64_t> StateStore::Append(std::string_view name, std::span<const std::byte> value, uint64_t deadline_ns) {
  Result<Impl::Key> key = impl_->MakeKey(name);
  if (!key.ok()) return key.status();
  return impl_->Rewrite(
      *key, {.bytes = value, .offset = std::nullopt, .if_version = std::nullopt, .deadline_ns = deadline_ns});
}

Result<bool> StateStore::Delete(std::string_view name, std::optional<uint64_t> if_version, uint64_t deadline_ns) {
  Result<Impl::Key> key = impl_->MakeKey(name);
  if (!key.ok()) return key.status();
  Result<Impl::Section> section = impl_->Enter(deadline_ns);
  if (!section.ok()) return section.status();
  const Impl::Found found = impl_->Find(*key);
  if (!found) return false;
  if (Status status = Impl::CheckVersion(if_version, found, *key); !status.ok()) return status;
  if (impl_->PublicationOf(*key) != kNone) impl_->Supersede(*key, impl_->NextVersion());
  impl_->records.key(found.number).value.store(0, std::memory_order_release);
  impl_->keys.Unlink(found.number);
  impl_->Retire(found.ref.block);
  impl_->RenewHere(*key, {});
  return true;
}

uint32_t StateStore::key_count() const noexcept { return impl_->head().keys.used.load(std::memory_order_relaxed); }

const segment::RobustMutex& StateStore::mutex() const noexcept { return impl_->head().mutex; }

}  // namespace praas::state
