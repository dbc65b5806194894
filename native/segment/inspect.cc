#include "segment/inspect.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <string_view>
#include <thread>
#include <utility>

#include "base/process_id.h"
#include "segment/arena.h"
#include "segment/arena_head.h"
#include "segment/call_check.h"
#include "segment/damage_check.h"
#include "segment/header_check.h"
#include "segment/table_check.h"
#include "shm/shared_memory.h"

namespace praas::segment {
namespace {

using dispatch::CallEntry;
using dispatch::CallState;
using dispatch::CallWord;
using dispatch::Participant;
using dispatch::ParticipantState;

/// What is read while others write may be of two moments; damage stays.
constexpr int kLooks = 4;
constexpr auto kBetweenLooks = std::chrono::milliseconds(5);

constexpr std::string_view kArenaNames[] = {"data", "inputs", "outputs"};

std::string_view TextOf(const Name& name) { return {name.bytes, name.size}; }

std::string_view StateName(uint32_t state) {
  switch (static_cast<ParticipantState>(state)) {
    case ParticipantState::kFree:
      return "free";
    case ParticipantState::kStarting:
      return "starting";
    case ParticipantState::kReady:
      return "ready";
    case ParticipantState::kDraining:
      return "draining";
    case ParticipantState::kDead:
      return "dead";
    case ParticipantState::kLeased:
      return "leased";
  }
  return "unknown";
}

std::string_view CreditName(uint64_t credit) {
  if (credit == dispatch::kCreditNone) return "none";
  return credit == dispatch::kCreditIdle ? "idle" : "bell";
}

std::string_view WindowStateName(uint32_t state) {
  constexpr std::string_view names[] = {"free", "open", "closing"};
  return state < std::size(names) ? names[state] : "unknown";
}

void WriteHeader(const Header& header, JsonWriter& json) {
  json.Text("processId", TextOf(header.process_id));
  json.Number("layoutVersion", header.layout_version);
  json.Number("hostGeneration", header.host_generation.load());
  json.Bool("cleanShutdown", header.clean_shutdown.load() != 0);
  json.Number("repairs", header.repairs.load());
  json.Number("createdMs", header.created_wall_ns / 1'000'000);
  json.Number("segmentBytes", header.segment_bytes);
  json.Number("metaBytes", header.meta_bytes);
  json.Number("memoryBytes", header.memory_bytes);
  json.Number("poolBytes", header.pool_bytes);
  json.Number("callCapacity", header.calls.capacity);
}

void WriteRegions(Header& header, JsonWriter& json) {
  json.BeginArray("regions");
  for (const NamedRegion& named : Regions(header)) {
    json.BeginObject();
    json.Text("name", named.name);
    json.Number("stride", named.region->stride);
    json.Number("capacity", named.region->capacity);
    json.Number("committed", named.region->committed.load());
    json.EndObject();
  }
  json.EndArray();
}

void WriteCounters(const dispatch::Counters& counters, JsonWriter& json) {
  json.Number("calls", counters.calls.load());
  json.Number("failures", counters.failures.load());
  json.Number("bytesIn", counters.bytes_in.load());
  json.Number("bytesOut", counters.bytes_out.load());
  json.Number("stagedBytes", counters.staged_bytes.load());
  json.Number("copiedBytes", counters.copied_bytes.load());
  json.Number("bellsRung", counters.bells_rung.load());
  json.Number("bellsDropped", counters.bells_dropped.load());
  json.Number("creditsUsed", counters.credits_used.load());
  json.Number("windowCalls", counters.window_calls.load());
  json.Number("sleeps", counters.sleeps.load());
  json.Number("busyNs", counters.busy_ns.load());
}

void WriteFunctions(const Segment& segment, JsonWriter& json) {
  json.BeginArray("functions");
  // The count is looked at once; a name is written before it.
  const Header& header = segment.header();
  const uint32_t count = std::min(header.function_count.load(), CommittedOf(header.functions));
  for (uint32_t index = 0; index < count; ++index) {
    json.BeginObject();
    json.Text("name", TextOf(segment.function(index).name));
    json.Number("flags", segment.function(index).flags);
    json.EndObject();
  }
  json.EndArray();
}

void WriteWindows(const Segment& segment, JsonWriter& json) {
  json.BeginArray("windows");
  for (uint32_t index = 0; index < CommittedOf(segment.header().windows); ++index) {
    const WindowSlot& window = segment.window(index);
    const uint32_t state = window.state.load();
    if (state == 0) continue;
    json.BeginObject();
    json.Number("index", index);
    json.Text("state", WindowStateName(state));
    json.Number("generation", window.generation.load());
    json.Number("clientPid", window.client_pid);
    json.Number("bytes", window.bytes);
    json.Number("calls", window.calls.load());
    json.Number("poller", window.poller.load());
    json.Number("consumer", window.consumer.load());
    json.EndObject();
  }
  json.EndArray();
}

void WriteCalls(const Segment& segment, JsonWriter& json) {
  json.BeginArray("calls");
  for (uint32_t index = 0; index < CommittedOf(segment.header().calls); ++index) {
    const CallEntry& entry = segment.call(index);
    const CallWord word = CallWord::Unpack(entry.word.load(std::memory_order_acquire));
    if (word.state == CallState::kFree) continue;
    json.BeginObject();
    json.Number("index", index);
    json.Text("state", CallStateName(word.state));
    json.Number("generation", word.generation);
    json.Number("owner", word.owner);
    json.Number("function", entry.function);
    json.Number("origin", static_cast<uint32_t>(entry.origin));
    json.Number("originIndex", entry.origin_index);
    json.Number("kind", static_cast<uint32_t>(entry.kind));
    json.Number("inputBytes", entry.input.bytes);
    json.Number("depth", entry.depth);
    json.Bool("cancelled", entry.cancel.load() != 0);
    json.EndObject();
  }
  json.EndArray();
}

/// Arenas that have been formatted: those of the pool are once a host has made one.
std::vector<Arena> ArenasOf(const Segment& segment, std::vector<std::string_view>* names) {
  std::vector<Arena> arenas;
  for (uint32_t which = 0; which < std::size(kArenaNames); ++which) {
    const auto& head = *reinterpret_cast<const ArenaHead*>(segment.base() + segment.header().arena_heads[which]);
    if (AllZero(&head, sizeof head)) continue;
    arenas.push_back(which == 0 ? Arena::Data(segment, kUnknownParticipant)
                                : Arena(segment, which, -1, head.base_offset, head.limit_bytes));
    names->push_back(kArenaNames[which]);
  }
  return arenas;
}

/// Why hosts and workers refuse the segment, if they do.
Status Refusal(const HeaderCopy& header, const HeaderRead& read) {
  switch (read.state) {
    case ObjectState::kPublished:
      if (!read.whole) return {Code::kSegmentInvalid, "the object is too short for a segment"};
      return CheckHeader(header.header(), read);
    case ObjectState::kEmpty:
    case ObjectState::kUnfinished:
      return {Code::kSegmentInvalid, "the segment was never finished"};
    case ObjectState::kForeign:
      break;
  }
  return {Code::kSegmentInvalid, "the object is no segment"};
}

std::vector<std::string> FindViolations(const Segment& segment, const std::vector<Arena>& arenas,
                                        const ExtraCheck& extra) {
  std::vector<std::string> all = CheckTables(segment);
  const auto add = [&all](std::vector<std::string> findings) {
    std::move(findings.begin(), findings.end(), std::back_inserter(all));
  };
  for (const Arena& arena : arenas) add(arena.Check());
  add(CheckCalls(segment));
  if (extra) add(extra(segment));
  return all;
}

/// Those of all looks, in the order of the last.
std::vector<std::string> FindLasting(const Segment& segment, const std::vector<Arena>& arenas,
                                     const ExtraCheck& extra) {
  std::vector<std::string> lasting = FindViolations(segment, arenas, extra);
  for (int look = 1; look < kLooks && !lasting.empty(); ++look) {
    std::this_thread::sleep_for(kBetweenLooks);
    std::sort(lasting.begin(), lasting.end());
    std::vector<std::string> again = FindViolations(segment, arenas, extra);
    std::erase_if(again, [&lasting](const std::string& finding) {
      return !std::binary_search(lasting.begin(), lasting.end(), finding);
    });
    lasting = std::move(again);
  }
  return lasting;
}

std::string Describe(const Segment& segment, const std::vector<std::string>& header_violations, const Status& refusal,
                     const Inspection& inspection) {
  JsonWriter json;
  json.BeginObject();
  WriteHeader(segment.header(), json);
  WriteRegions(segment.header(), json);
  WriteParticipants(segment, json);
  WriteFunctions(segment, json);
  WriteWindows(segment, json);
  WriteCalls(segment, json);

  std::vector<std::string_view> names;
  const std::vector<Arena> arenas = ArenasOf(segment, &names);
  json.BeginObject("arenas");
  for (size_t i = 0; i < arenas.size(); ++i) WriteArena(names[i], arenas[i], json);
  json.EndObject();
  if (inspection.section) inspection.section(segment, json);

  std::vector<std::string> findings = FindLasting(segment, arenas, inspection.check);
  const auto unchecked = std::stable_partition(
      findings.begin(), findings.end(), [](const std::string& finding) { return !finding.ends_with(kUnchecked); });
  json.BeginArray("unchecked");
  for (auto finding = unchecked; finding != findings.end(); ++finding) json.Text({}, *finding);
  json.EndArray();
  if (!refusal.ok()) json.Text("refused", refusal.message());
  json.BeginArray("violations");
  for (const std::string& finding : header_violations) json.Text({}, finding);
  for (auto finding = findings.begin(); finding != unchecked; ++finding) json.Text({}, *finding);
  json.EndArray();
  json.EndObject();
  return json.Take();
}

Result<std::string> DescribeDamaged(int fd, const HeaderCopy& header, const HeaderRead& read,
                                    const Inspection& inspection) {
  const Status refusal = Refusal(header, read);
  const Result<HeaderDiagnosis> diagnosis = DiagnoseHeader(fd, header, read, inspection.process_id);
  if (!diagnosis.ok()) return diagnosis.status().WithContext(refusal.message());
  const Result<Segment> copy = CopyRepaired(fd, *diagnosis);
  if (copy.ok()) return Describe(*copy, diagnosis->violations, refusal, inspection);
  JsonWriter json;
  json.BeginObject();
  WriteHeader(diagnosis->repaired.header(), json);
  json.Text("refused", refusal.message());
  json.BeginArray("violations");
  for (const std::string& finding : diagnosis->violations) json.Text({}, finding);
  json.Text({}, "the tables could not be copied to be looked at: " + copy.status().message());
  json.EndArray();
  json.EndObject();
  return json.Take();
}

}  // namespace

void WriteParticipants(const Segment& segment, JsonWriter& json) {
  json.BeginArray("participants");
  for (uint32_t index = 0; index < CommittedOf(segment.header().participants); ++index) {
    const Participant& participant = segment.participant(index);
    const uint32_t state = participant.state.load();
    if (state == static_cast<uint32_t>(ParticipantState::kFree)) continue;
    json.BeginObject();
    json.Number("index", index);
    json.Text("role", index == dispatch::kHostParticipant ? "host" : "worker");
    json.Text("state", StateName(state));
    json.Number("pid", participant.pid.load());
    json.Bool("alive", ProcessId{participant.pid.load(), participant.pid_start_time}.Alive());
    json.Number("generation", participant.generation.load());
    json.Number("restarts", participant.restarts);
    json.Number("startedMs", participant.started_wall_ns / 1'000'000);
    json.Text("credit", CreditName(participant.credit.load()));
    json.Bool("sleeping", participant.sleeping.load() != 0);
    json.Number("running", participant.running.load());
    WriteCounters(participant.counters, json);
    json.EndObject();
  }
  json.EndArray();
}

void WriteArena(std::string_view name, const Arena& arena, JsonWriter& json) {
  const Arena::Usage usage = arena.usage();
  json.BeginObject(name);
  json.Number("limitBytes", usage.limit_bytes);
  json.Number("committedBytes", usage.committed_bytes);
  json.Number("usedBytes", usage.used_bytes);
  json.Number("largestFreeBytes", usage.largest_free_bytes);
  json.Number("usedBlocks", usage.used_blocks);
  json.Number("freeBlocks", usage.free_blocks);
  json.Number("rebuilds", usage.rebuilds);
  json.Bool("rebuildDue", arena.mutex().Observe().died);
  json.EndObject();
}

std::string InspectJson(const Segment& segment, const Inspection& inspection) {
  HeaderCopy header;
  const Result<HeaderRead> read = ReadAnyHeader(segment.fd(), &header);
  // It was a segment when it was mapped: whatever is the matter now, it is mapped.
  if (!read.ok() || Refusal(header, *read).ok()) return Describe(segment, {}, Status::Ok(), inspection);
  Result<std::string> damaged = DescribeDamaged(segment.fd(), header, *read, inspection);
  if (damaged.ok()) return std::move(damaged).value();
  JsonWriter json;
  json.BeginObject();
  json.Text("refused", Refusal(header, *read).message());
  json.BeginArray("violations");
  json.Text({}, "header: " + damaged.status().message());
  json.EndArray();
  json.EndObject();
  return json.Take();
}

Result<std::string> InspectJson(UniqueFd fd, const Inspection& inspection) {
  HeaderCopy header;
  const Result<HeaderRead> read = ReadAnyHeader(fd.get(), &header);
  if (!read.ok()) return read.status();
  if (read->state == ObjectState::kUnfinished) return Status(Code::kSegmentInvalid, "the segment was never finished");
  if (!Refusal(header, *read).ok()) return DescribeDamaged(fd.get(), header, *read, inspection);
  const Result<Segment> segment = Segment::Map(std::move(fd), false);
  if (!segment.ok()) return segment.status();
  return Describe(*segment, {}, Status::Ok(), inspection);
}

Result<std::string> InspectJson(const std::string& name, const Inspection& inspection) {
  Result<shm::SharedMemory> object = shm::Open(name, shm::OpenMode::kReadOnly);
  if (!object.ok()) return object.status();
  Result<std::string> text = InspectJson(std::move(object->fd), inspection);
  if (!text.ok()) return text.status().WithContext(name);
  return text;
}

}  // namespace praas::segment
