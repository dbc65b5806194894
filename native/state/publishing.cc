#include <algorithm>
#include <string>

#include "base/clock.h"
#include "base/spin.h"
#include "state/store_impl.h"

/// Copies of values in the publication area, for readers that run no code in this process.
///
///   the truth changes       first its version in the head (Supersede), by which readers see that the copy is old; then
///                           the truth; then the copy. So no reader takes an old value for the present one.
///   values ≤ 4 KiB          are copied in the section that changes the truth.
///   larger ones             outside, under a pin that makes the copier the block's only writer (BeingCopied). Whoever
///                           changes the truth meanwhile leaves the copying to it: it looks again when it has finished.
///   the copier dies         its pin goes, and with it its claim. The block is odd or old, readers ask the host, and
///                           whoever renews it next makes it whole.
namespace praas::state {
namespace {

using publication::Location;
using publication::PagesFor;
using publication::Writer;

/// How often a copier copies again because the value has changed meanwhile. Then whoever changes it next copies, or the
/// host when it is asked.
constexpr uint32_t kMaxCopies = 8;
/// How long a block whose copier does not get on is waited for.
constexpr uint64_t kCopyLimitNs = 100'000'000;

Status AreaIsFull(uint64_t bytes, uint64_t area_bytes) {
  return Status(Code::kStateMemory,
                "there is no room for " + std::to_string(bytes) + " bytes among the published values, which may take " +
                    std::to_string(area_bytes) + "; unpublish some or give the process more (option publications)");
}

}  // namespace

uint32_t StateStore::Impl::PublicationOf(const Key& key) const noexcept {
  return area == nullptr || publications.empty() ? kNone : publications.Find(key.name, key.hash);
}

std::optional<Location> StateStore::Impl::LocationOf(uint32_t number) const noexcept {
  const PublicationWord word = publications.Where(number);
  if (!word.placed()) return std::nullopt;
  const Location location{.id = records.publication(number).id,
                          .offset = word.first * publication::kPageBytes,
                          .capacity = publication::CapacityOf(word.pages)};
  if (!publication::InArea(location, area->bytes())) return std::nullopt;
  return location;
}

std::optional<Writer> StateStore::Impl::BlockOf(uint32_t number) const noexcept {
  if (number == kNone) return std::nullopt;
  const std::optional<Location> location = LocationOf(number);
  if (!location) return std::nullopt;
  return Writer(area->BlockAt(location->offset, location->capacity));
}

void StateStore::Impl::Supersede(const Key& key, uint64_t version) noexcept {
  if (std::optional<Writer> block = BlockOf(PublicationOf(key))) block->Supersede(version);
}

void StateStore::Impl::RenewHere(const Key& key, const Found& found) noexcept {
  // What is left to be done is done by RenewLarge, or by the copier.
  if (const uint32_t number = PublicationOf(key); number != kNone) (void)TryRenew(number, found);
}

/// true: nothing more to be done here.
bool StateStore::Impl::TryRenew(uint32_t number, const Found& found) noexcept {
  std::optional<Writer> block = BlockOf(number);
  if (!block) return true;
  // Whoever moved it here, or was about to change the truth, may have died.
  if (const uint64_t id = records.publication(number).id; block->id() != id) block->Open(id);
  const uint64_t version = found ? found.version() : block->latest();
  if (found && block->latest() != version) block->Supersede(version);
  if (!found && version == 0) block->Supersede(NextVersion());
  if (block->current() || publications.BeingCopied(number, pins)) return true;
  const bool fits = found.bytes() <= block->capacity();
  const bool is_value = found && found.ref.kind == KeyKind::kValue;
  if (is_value && fits && found.bytes() > kInlineCopyBytes) return false;
  block->Begin();
  if (is_value && fits) {
    block->Fill({records.bytes(*found.block), found.bytes()});
    block->Finish(version);
  } else {
    block->FinishWithout(block->latest(), found ? publication::kElsewhere : publication::kAbsent);
  }
  return true;
}

Status StateStore::Impl::Renew(const Key& key, uint64_t deadline_ns) {
  for (uint32_t copies = 0; copies < kMaxCopies;) {
    uint32_t number = kNone;
    Found found;
    uint64_t token = 0;
    PinnedBytes value;
    std::optional<Writer> block;
    {
      Result<Section> section = Enter(deadline_ns);
      if (!section.ok()) return section.status();
      number = PublicationOf(key);
      if (number == kNone) return Status::Ok();
      found = Find(key);
      if (TryRenew(number, found)) return Status::Ok();
      value.pin = pins.Pin(found.ref.block);
      if (value.pin != kNone) {
        // Copies: an append in place changes the descriptor.
        value.bytes = {records.bytes(*found.block), found.bytes()};
        value.version = found.version();
        token = ++head().last_ticket;
        PublicationRecord& record = records.publication(number);
        record.copy_block = found.ref.block;
        record.copy_pin = value.pin;
        record.copy_token = token;
        block = BlockOf(number);
        block->Begin();
      }
    }
    if (value.pin == kNone) {
      if (Status status = pins.Grow(); !status.ok()) return status;
      continue;
    }
    ++copies;
    const Hold hold(*this, value.pin);
    block->Fill(value.bytes);
    Result<Section> section = Enter(deadline_ns);
    if (!section.ok()) return section.status();  // the claim ends with the pin
    PublicationRecord& record = records.publication(number);
    if (record.copy_token != token) continue;
    record.copy_token = 0;
    block->Finish(value.version);
    if (block->current()) return Status::Ok();
  }
  return Status::Ok();
}

void StateStore::Impl::RenewLarge(const Key& key, uint64_t bytes, uint64_t deadline_ns) {
  // The value is set, whatever comes of its copy: readers see that the copy is old and ask.
  if (bytes > kInlineCopyBytes && area != nullptr && !publications.empty()) (void)Renew(key, deadline_ns).ok();
}

/// Nobody writes to the block of `key` when this returns with a section.
Result<StateStore::Impl::Section> StateStore::Impl::EnterUncopied(const Key& key, uint64_t deadline_ns) {
  const uint64_t limit_ns = std::min(deadline_ns, DeadlineIn(kCopyLimitNs));
  for (SpinYield spin;; spin.Step()) {
    {
      Result<Section> section = Enter(deadline_ns);
      if (!section.ok()) return section;
      const uint32_t number = PublicationOf(key);
      if (number == kNone || !publications.BeingCopied(number, pins)) return section;
    }
    if (NowNs() >= limit_ns) {
      return Status(Code::kStateContended, "the published value of state key \"" + std::string(key.name) +
                                               "\" is being written by a worker that does not get on");
    }
  }
}

Result<uint64_t> StateStore::Publish(std::string_view name, std::optional<uint64_t> capacity, uint64_t deadline_ns) {
  Result<Impl::Key> key = impl_->MakeKey(name);
  if (!key.ok()) return key.status();
  const publication::Area* area = impl_->area;
  if (area == nullptr) return Status(Code::kUnsupported, "this process has no memory for published values");
  if (capacity && *capacity > area->bytes()) return AreaIsFull(*capacity, area->bytes());
  PublicationTable& table = impl_->publications;
  std::atomic<uint64_t>& committed = impl_->head().area_committed;
  for (;;) {
    uint64_t end = 0;
    {
      Result<Impl::Section> section = impl_->EnterUncopied(*key, deadline_ns);
      if (!section.ok()) return section.status();
      const Impl::Found found = impl_->Find(*key);
      if (Status status = Impl::CheckIsValue(found, *key); !status.ok()) return status;
      uint32_t number = table.Find(key->name, key->hash);
      const PublicationWord now = number == kNone ? PublicationWord{} : table.Where(number);
      const uint64_t wanted = std::max<uint64_t>(capacity.value_or(found.bytes()), 1);
      const uint64_t pages = std::max<uint64_t>(PagesFor(wanted), now.pages);
      if (now.placed() && now.pages == pages) break;
      if (number != kNone || table.HasRoom()) {
        const std::optional<uint32_t> first = table.FindSpace(pages, area->bytes() / publication::kPageBytes);
        if (!first) return AreaIsFull(wanted, area->bytes());
        end = (*first + pages) * publication::kPageBytes;
        if (end <= committed.load(std::memory_order_acquire)) {
          if (std::optional<Writer> former = impl_->BlockOf(number)) former->Close();
          if (number == kNone) number = table.Add(key->name, key->hash);
          Writer(area->BlockAt(*first * publication::kPageBytes, publication::CapacityOf(pages)))
              .Open(impl_->records.publication(number).id);
          table.Move(number, {.pages = static_cast<uint32_t>(pages), .first = *first});
          break;
        }
      }
    }
    if (end == 0) {
      if (Status status = table.Grow(); !status.ok()) return status;
      continue;
    }
    if (Status status = area->Commit(end); !status.ok()) return status;
    for (uint64_t seen = committed.load(); seen < end && !committed.compare_exchange_weak(seen, end);) {
    }
  }
  if (Status status = impl_->Renew(*key, deadline_ns); !status.ok()) return status;
  const Result<std::optional<Location>> location = Locate(name, deadline_ns);
  if (!location.ok()) return location.status();
  return location.value() ? location.value()->capacity : 0;
}

Result<bool> StateStore::Unpublish(std::string_view name, uint64_t deadline_ns) {
  Result<Impl::Key> key = impl_->MakeKey(name);
  if (!key.ok()) return key.status();
  Result<Impl::Section> section = impl_->EnterUncopied(*key, deadline_ns);
  if (!section.ok()) return section.status();
  const uint32_t number = impl_->PublicationOf(*key);
  if (number == kNone) return false;
  if (std::optional<Writer> block = impl_->BlockOf(number)) block->Close();
  impl_->publications.Remove(number);
  return true;
}

Result<std::optional<Location>> StateStore::Locate(std::string_view name, uint64_t deadline_ns) {
  Result<Impl::Key> key = impl_->MakeKey(name);
  if (!key.ok()) return key.status();
  Result<Impl::Section> section = impl_->Enter(deadline_ns);
  if (!section.ok()) return section.status();
  const uint32_t number = impl_->PublicationOf(*key);
  if (number == kNone) return std::optional<Location>();
  return impl_->LocationOf(number);
}

Status StateStore::Renew(std::string_view name, uint64_t deadline_ns) {
  Result<Impl::Key> key = impl_->MakeKey(name);
  if (!key.ok()) return key.status();
  return impl_->Renew(*key, deadline_ns);
}

Status StateStore::RenewAll(uint64_t deadline_ns) {
  if (impl_->area == nullptr || impl_->publications.empty()) return Status::Ok();
  for (uint32_t number = 1;; ++number) {
    std::string name;
    {
      Result<Impl::Section> section = impl_->Enter(deadline_ns);
      if (!section.ok()) return section.status();
      if (number > impl_->publications.high()) return Status::Ok();
      if (impl_->publications.Where(number).pages == 0) continue;
      name = View(impl_->records.publication(number).name);
    }
    if (Status status = Renew(name, deadline_ns); !status.ok()) return status;
  }
}

}  // namespace praas::state
