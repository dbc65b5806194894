#include "state/state_check.h"

#include <sched.h>

#include <algorithm>
#include <utility>

#include "segment/table_check.h"
#include "state/key_index.h"
#include "state/lock_table.h"
#include "state/pin_table.h"
#include "state/publication_table.h"
#include "state/records.h"

namespace praas::state {
namespace {

using segment::AllZero;
using segment::CommittedOf;
using segment::Unexpected;

constexpr uint32_t kQuietAttempts = 200;
constexpr size_t kMaxFindings = 100;
constexpr uint8_t kMaxMode = static_cast<uint8_t>(StateStore::LockMode::kWrite);

class LinkChecker {
 public:
  explicit LinkChecker(const segment::Segment& segment)
      : records_(segment),
        header_(segment.header()),
        head_(records_.head()),
        participants_(CommittedOf(header_.participants)) {}

  std::vector<std::string> Run() {
    if (auto violation = segment::MutexViolation("state.mutex", head_.mutex, participants_)) Say(std::move(*violation));
    const uint32_t dirty = head_.dirty.load(std::memory_order_relaxed);
    if (dirty > 1) Say(Unexpected("state.dirty", "0 or 1", dirty));
    const bool bounded = CheckPool("keys", head_.keys, header_.state_keys) &
                         CheckPool("pins", head_.pins, header_.pins) & CheckPool("locks", head_.locks, header_.locks) &
                         CheckPool("holders", head_.holders, header_.lock_holders) &
                         CheckPool("publications", head_.publications, header_.publications);
    const uint32_t buckets = head_.bucket_count;
    const uint32_t committed = CommittedOf(header_.state_buckets);
    if (buckets < kMinBuckets || buckets > committed) {
      Say(Unexpected("state.bucket_count", std::to_string(kMinBuckets) + " … " + std::to_string(committed), buckets));
    }
    if (!findings_.empty() && (!bounded || buckets < kMinBuckets || buckets > committed)) return Take();
    CheckChains(buckets);
    CheckRecords();
    return Take();
  }

 private:
  void Say(std::string what) {
    if (findings_.size() < kMaxFindings) findings_.push_back(std::move(what));
  }
  [[nodiscard]] std::vector<std::string> Take() noexcept { return std::move(findings_); }

  bool CheckPool(const char* name, const RecordPool& pool, const segment::Region& region) {
    const uint32_t high = pool.high;
    const uint32_t committed = CommittedOf(region);
    if (high <= committed) return true;
    Say(Unexpected(std::string("state.") + name + ".high", "at most " + std::to_string(committed), high));
    return false;
  }

  /// Walks one list; `seen` holds the records of all lists that may not share any.
  template <typename Next>
  void Walk(const std::string& name, uint32_t first, uint32_t high, std::vector<bool>& seen, Next next) {
    for (uint32_t number = first; number != kNone; number = next(number)) {
      if (number > high)
        return Say(name + ": leads to record " + std::to_string(number) + " of " + std::to_string(high));
      if (seen[number]) return Say(name + ": leads to record " + std::to_string(number) + " again");
      seen[number] = true;
    }
  }

  void CheckChains(uint32_t buckets) {
    const uint32_t keys = head_.keys.high;
    const uint32_t pins = head_.pins.high;
    const uint32_t locks = head_.locks.high;
    const uint32_t holders = head_.holders.high;
    const auto next_key = [this](uint32_t n) { return records_.key(n).next; };
    const auto next_lock = [this](uint32_t n) { return records_.lock(n).next; };
    const auto next_holder = [this](uint32_t n) { return records_.holder(n).next; };

    std::vector<bool> seen(keys + size_t{1});
    for (uint32_t i = 0; i < buckets; ++i) {
      Walk("state.buckets[" + std::to_string(i) + ']', records_.bucket(i), keys, seen, next_key);
    }
    Walk("state.keys.free", head_.keys.free, keys, seen, next_key);

    seen.assign(pins + size_t{1}, false);
    Walk("state.pins.free", head_.pins.free, pins, seen, [this](uint32_t n) { return records_.pin(n).next; });

    seen.assign(locks + size_t{1}, false);
    for (uint32_t i = 0; i < kLockBuckets; ++i) {
      Walk("state.lock_buckets[" + std::to_string(i) + ']', head_.lock_buckets[i], locks, seen, next_lock);
    }
    Walk("state.locks.free", head_.locks.free, locks, seen, next_lock);

    seen.assign(holders + size_t{1}, false);
    for (uint32_t number = 1; number <= locks; ++number) {
      if (records_.lock(number).used.load(std::memory_order_relaxed) == 0) continue;
      Walk("state.locks[" + std::to_string(number) + "].first", records_.lock(number).first, holders, seen,
           next_holder);
    }
    Walk("state.holders.free", head_.holders.free, holders, seen, next_holder);

    const uint32_t publications = head_.publications.high;
    const auto next_publication = [this](uint32_t n) { return records_.publication(n).next; };
    seen.assign(publications + size_t{1}, false);
    for (uint32_t i = 0; i < kPublicationBuckets; ++i) {
      Walk("state.publication_buckets[" + std::to_string(i) + ']', head_.publication_buckets[i], publications, seen,
           next_publication);
    }
    Walk("state.publications.free", head_.publications.free, publications, seen, next_publication);

    seen.assign(holders + size_t{1}, false);
    for (uint32_t i = 0; i < kOwnerBuckets; ++i) {
      Walk("state.owner_buckets[" + std::to_string(i) + ']', head_.owner_buckets[i], holders, seen,
           [this](uint32_t n) { return records_.holder(n).owner_next; });
    }
  }

  void SayWritten(const char* table, uint32_t number) {
    Say(std::string("state.") + table + '[' + std::to_string(number) + "].reserved: not zero, though nobody writes it");
  }

  void CheckRecords() {
    for (uint32_t number = 1; number <= head_.keys.high; ++number) {
      const KeyEntry& key = records_.key(number);
      if (key.reserved != 0 || !AllZero(key.unused, sizeof key.unused)) SayWritten("keys", number);
    }
    for (uint32_t number = 1; number <= head_.pins.high; ++number) {
      const PinRecord& pin = records_.pin(number);
      const PinWord word = PinWord::Unpack(pin.word.load(std::memory_order_acquire));
      if (word.block != kNone && word.participant >= participants_) {
        Say(Unexpected("state.pins[" + std::to_string(number) + "].participant",
                       "one of " + std::to_string(participants_), word.participant));
      }
      if (!AllZero(pin.reserved, sizeof pin.reserved)) SayWritten("pins", number);
    }
    for (uint32_t number = 1; number <= head_.locks.high; ++number) {
      const LockRecord& lock = records_.lock(number);
      const std::string name = "state.locks[" + std::to_string(number) + "].";
      const uint32_t used = lock.used.load(std::memory_order_relaxed);
      if (used > 1) Say(Unexpected(name + "used", "0 or 1", used));
      if (lock.reserved != 0 || !AllZero(lock.unused, sizeof lock.unused)) SayWritten("locks", number);
    }
    for (uint32_t number = 1; number <= head_.holders.high; ++number) {
      const LockHolder& holder = records_.holder(number);
      const HolderWord word = HolderWord::Unpack(holder.word.load(std::memory_order_acquire));
      const std::string name = "state.holders[" + std::to_string(number) + "].";
      if (word.state > HolderState::kGranted) {
        Say(Unexpected(name + "state", "free, waiting or granted", static_cast<uint8_t>(word.state)));
      } else if (word.state != HolderState::kFree) {
        if (word.mode > kMaxMode) Say(Unexpected(name + "mode", "read or write", word.mode));
        if (word.participant >= participants_) {
          Say(Unexpected(name + "participant", "one of " + std::to_string(participants_), word.participant));
        }
      }
      if (!AllZero(holder.reserved, sizeof holder.reserved)) SayWritten("holders", number);
    }
    for (uint32_t number = 1; number <= head_.publications.high; ++number) {
      if (records_.publication(number).reserved != 0) SayWritten("publications", number);
    }
  }

  Records records_;
  const segment::Header& header_;
  const StateHead& head_;
  uint32_t participants_;
  std::vector<std::string> findings_;
};

bool HasStore(const segment::Segment& segment) noexcept {
  return !AllZero(&Records(segment).head(), sizeof(StateHead)) || CommittedOf(segment.header().state_keys) != 0;
}

std::vector<std::string> CheckAll(const segment::Segment& segment) {
  std::vector<std::string> violations = CheckStateLinks(segment);
  if (!violations.empty()) return violations;
  const Records records(segment);
  KeyIndex(records).Check(&violations);
  PinTable(records, 0).Check(&violations);
  LockTable(records).Check(&violations);
  PublicationTable(records).Check(&violations);
  return violations;
}

}  // namespace

std::vector<std::string> CheckStateLinks(const segment::Segment& segment) {
  if (!HasStore(segment)) return {};
  return LinkChecker(segment).Run();
}

std::vector<std::string> CheckState(const segment::Segment& segment) {
  if (!HasStore(segment)) return {};
  const StateHead& head = Records(segment).head();
  for (uint32_t attempt = 0; attempt < kQuietAttempts; ++attempt) {
    const segment::RobustMutex::Owner before = head.mutex.Observe();
    if (before.died || head.dirty.load(std::memory_order_acquire) == 1) return {};
    if (!before.held) {
      std::vector<std::string> violations = CheckAll(segment);
      const segment::RobustMutex::Owner after = head.mutex.Observe();
      if (violations.empty() || (!after.held && after.acquisitions == before.acquisitions)) return violations;
    }
    sched_yield();
  }
  return {"state: " + std::string(segment::kUnchecked)};
}

}  // namespace praas::state
