#include "host/inspect.h"

#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/json_writer.h"
#include "base/process_id.h"
#include "segment/inspect.h"
#include "segment/table_check.h"
#include "state/inspect.h"
#include "state/state_check.h"

namespace praas::host {
namespace {

void WriteStats(const Process& process, JsonWriter& json) {
  const segment::Header& header = process.header();
  json.Text("process", process.assignment.process);
  json.Number("hostPid", ::getpid());
  json.Number("hostGeneration", header.host_generation.load());
  json.Number("repairs", header.repairs.load());
  json.Bool("attached", process.segment->attached());
  json.Text("doorbell", process.doorbells->kind() == dispatch::DoorbellKind::kMessageQueue ? "mqueue" : "futex");
  json.Text("doorbellReason", process.doorbell_reason);
  json.Number("callCapacity", header.calls.capacity);
  json.Number("callsInUse", process.dispatcher->in_use());
  json.Number("functions", header.function_count.load());
  json.Number("keys", process.state->key_count());
  uint32_t windows = 0;
  for (uint32_t index = 0; index < header.windows.committed.load(); ++index) {
    windows += process.segment->window(index).state.load() != 0;
  }
  json.Number("windows", windows);
  segment::WriteParticipants(*process.segment, json);
  segment::WriteArena("data", *process.data, json);
  segment::WriteArena("inputs", process.pool->inputs(), json);
  segment::WriteArena("outputs", process.pool->outputs(), json);
}

/// How long a participant that the kernel does not know may stay before it counts as damage: the host has to hear of a
/// worker's end first, and reclaims what it had.
constexpr auto kReclaimTime = std::chrono::seconds(2);
constexpr auto kBetweenLooks = std::chrono::milliseconds(10);

bool HasEnded(const dispatch::Participant& participant) {
  const uint32_t state = participant.state.load();
  const bool runs = state == static_cast<uint32_t>(dispatch::ParticipantState::kStarting) ||
                    state == static_cast<uint32_t>(dispatch::ParticipantState::kReady) ||
                    state == static_cast<uint32_t>(dispatch::ParticipantState::kLeased) ||
                    state == static_cast<uint32_t>(dispatch::ParticipantState::kDraining);
  return runs && !ProcessId{participant.pid.load(), participant.pid_start_time}.Alive();
}

/// Participants whose pid and start time name no OS process, though this host serves them. Only the host can tell: in
/// what a dead host left they are from its time.
std::vector<std::string> CheckProcesses(const segment::Segment& segment) {
  std::vector<std::string> violations;
  const dispatch::Participant& host = segment.participant(dispatch::kHostParticipant);
  const ProcessId self = ProcessId::Self();
  if (host.pid.load() != self.pid || host.pid_start_time != self.start_time) {
    violations.push_back("participants[0].pid: expected " + std::to_string(self.pid) + " started at " +
                         std::to_string(self.start_time) + ", found " + std::to_string(host.pid.load()) +
                         " started at " + std::to_string(host.pid_start_time));
  }
  const uint32_t count = segment::CommittedOf(segment.header().participants);
  const auto deadline = std::chrono::steady_clock::now() + kReclaimTime;
  for (uint32_t index = 1; index < count; ++index) {
    const dispatch::Participant& participant = segment.participant(index);
    while (HasEnded(participant) && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(kBetweenLooks);
    }
    if (HasEnded(participant)) {
      violations.push_back("participants[" + std::to_string(index) + "].pid: found " +
                           std::to_string(participant.pid.load()) + " started at " +
                           std::to_string(participant.pid_start_time) + ", which does not run");
    }
  }
  return violations;
}

/// With the store's mutex, unless its links lead nowhere: following them could keep the mutex for ever.
std::vector<std::string> CheckState(const Process& process, const segment::Segment& segment) {
  // A copy of what is left of a damaged segment. The store itself is bound to the segment, whose header no longer tells
  // where its records lie.
  if (&segment != &*process.segment) return state::CheckState(segment);
  std::vector<std::string> links = state::CheckStateLinks(segment);
  for (int look = 1; look < 4 && !links.empty(); ++look) {
    std::this_thread::sleep_for(kBetweenLooks);
    links = state::CheckStateLinks(segment);  // found again only if it was not just being changed
  }
  return links.empty() ? process.state->Check() : links;
}

std::vector<std::string> Check(const Process& process, const segment::Segment& segment) {
  std::vector<std::string> violations = CheckProcesses(segment);
  for (std::string& violation : CheckState(process, segment)) violations.push_back(std::move(violation));
  return violations;
}

}  // namespace

std::string StatsJson(const Process& process) {
  JsonWriter json;
  json.BeginObject();
  WriteStats(process, json);
  json.EndObject();
  return json.Take();
}

std::string InspectJson(const Process& process) {
  return segment::InspectJson(*process.segment,
                              {.check = [&](const segment::Segment& segment) { return Check(process, segment); },
                               .section = &state::WriteState,
                               .process_id = process.assignment.process});
}

}  // namespace praas::host
