#include "state/inspect.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "publication/layout.h"
#include "segment/table_check.h"
#include "state/records.h"
#include "state/state_check.h"
#include "state/state_store.h"

namespace praas::state {
namespace {

/// High-water mark as far as memory is there: the head is only as good as whoever wrote it.
uint32_t High(const RecordPool& pool, const segment::Region& region) noexcept {
  return std::min(pool.high, segment::CommittedOf(region));
}

bool WriteKeys(const Records& records, JsonWriter& json) {
  uint32_t written = 0;
  bool truncated = false;
  json.BeginArray("keys");
  const uint32_t high = High(records.head().keys, records.header().state_keys);
  for (uint32_t number = 1; number <= high && !truncated; ++number) {
    const KeyEntry& entry = records.key(number);
    const uint64_t word = entry.value.load(std::memory_order_acquire);
    const ValueRef ref = ValueRef::Unpack(word);
    if (word == 0 || !Records::Valid(records.header().arena_blocks[0], ref.block)) continue;
    if (written++ == kMaxInspected) {
      truncated = true;
      break;
    }
    const segment::Block& block = records.block(ref.block);
    json.BeginObject();
    json.Text("key", View(entry.name));
    json.Text("kind", ref.kind == KeyKind::kArray ? "array" : "value");
    json.Number("elementType", ref.element_type);
    json.Number("bytes", ValueBytes(block));
    json.Text("version", std::to_string(block.value_version));
    json.Number("modifiedMs", block.value_wall_ns / 1'000'000);
    json.Number("pins", PinCount(block));
    json.EndObject();
  }
  json.EndArray();
  return truncated;
}

bool WriteLocks(const Records& records, JsonWriter& json) {
  struct Entry {
    uint64_t ticket;  // as read once: what others change meanwhile cannot be sorted by
    uint32_t number;
  };
  std::map<uint32_t, std::vector<Entry>> queues;
  const uint32_t high = High(records.head().holders, records.header().lock_holders);
  for (uint32_t number = 1; number <= high; ++number) {
    const HolderWord word = HolderWord::Unpack(records.holder(number).word.load(std::memory_order_acquire));
    if (word.state == HolderState::kFree || !Records::Valid(records.header().locks, word.lock)) continue;
    queues[word.lock].push_back({records.holder(number).ticket, number});
  }
  uint32_t written = 0;
  json.BeginArray("locks");
  for (auto& [lock, queue] : queues) {
    if (written++ == kMaxInspected) break;
    std::sort(queue.begin(), queue.end(), [](const Entry& a, const Entry& b) { return a.ticket < b.ticket; });
    json.BeginObject();
    json.Text("name", View(records.lock(lock).name));
    json.BeginArray("holders");
    for (const Entry& entry : queue) {
      const LockHolder& holder = records.holder(entry.number);
      const HolderWord word = HolderWord::Unpack(holder.word.load(std::memory_order_acquire));
      json.BeginObject();
      json.Number("participant", word.participant);
      json.Text("owner", std::to_string(holder.owner_id));
      json.Text("mode", word.mode == static_cast<uint8_t>(StateStore::LockMode::kWrite) ? "write" : "read");
      json.Bool("granted", word.state == HolderState::kGranted);
      json.EndObject();
    }
    json.EndArray();
    json.EndObject();
  }
  json.EndArray();
  return queues.size() > kMaxInspected;
}

bool WritePublications(const Records& records, JsonWriter& json) {
  uint32_t written = 0;
  json.BeginArray("publications");
  const uint32_t high = High(records.head().publications, records.header().publications);
  for (uint32_t number = 1; number <= high; ++number) {
    const PublicationRecord& record = records.publication(number);
    const PublicationWord word = PublicationWord::Unpack(record.word.load(std::memory_order_acquire));
    if (word.pages == 0) continue;
    if (written++ == kMaxInspected) break;
    json.BeginObject();
    json.Text("key", View(record.name));
    json.Number("capacity", publication::CapacityOf(word.pages));
    json.Number("offset", word.placed() ? static_cast<int64_t>(word.first * publication::kPageBytes) : -1);
    json.EndObject();
  }
  json.EndArray();
  return written > kMaxInspected;
}

}  // namespace

void WriteState(const segment::Segment& segment, JsonWriter& json) {
  const Records records(segment);
  const StateHead& head = records.head();
  json.BeginObject("state");
  json.Number("keyCount", head.keys.used.load(std::memory_order_relaxed));
  json.Number("buckets", head.bucket_count);
  json.Text("lastVersion", std::to_string(head.last_version.load(std::memory_order_relaxed)));
  json.Number("pinCount", head.pins.used.load(std::memory_order_relaxed));
  json.Number("lockCount", head.locks.used.load(std::memory_order_relaxed));
  json.Number("publicationCount", head.publications.used.load(std::memory_order_relaxed));
  json.Number("repairs", head.repairs.load(std::memory_order_relaxed));
  const bool more_keys = WriteKeys(records, json);
  const bool more_locks = WriteLocks(records, json);
  const bool more_publications = WritePublications(records, json);
  json.Bool("truncated", more_keys || more_locks || more_publications);
  json.EndObject();
}

segment::Inspection WithState(std::string process_id) {
  return {.check = &CheckState, .section = &WriteState, .process_id = std::move(process_id)};
}

Result<std::string> InspectJson(const std::string& name, const std::string& process_id) {
  return segment::InspectJson(name, WithState(process_id));
}

}  // namespace praas::state
