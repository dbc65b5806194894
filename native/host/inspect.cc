#include "host/inspect.h"

#include <unistd.h>

#include <string_view>

#include "base/json_writer.h"
#include "segment/inspect.h"
#include "state/inspect.h"

namespace praas::host {
namespace {

using dispatch::Participant;
using dispatch::ParticipantState;

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
  }
  return "unknown";
}

void WriteParticipants(const Process& process, JsonWriter& json) {
  json.BeginArray("participants");
  for (uint32_t index = 0; index < process.header().participants.committed.load(); ++index) {
    const Participant& participant = process.segment->participant(index);
    const uint32_t state = participant.state.load();
    if (state == static_cast<uint32_t>(ParticipantState::kFree)) continue;
    const dispatch::Counters& counters = participant.counters;
    json.BeginObject();
    json.Number("index", index);
    json.Text("role", index == dispatch::kHostParticipant ? "host" : "worker");
    json.Text("state", StateName(state));
    json.Number("pid", participant.pid.load());
    json.Number("generation", participant.generation.load());
    json.Number("running", participant.running.load());
    json.Bool("sleeping", participant.sleeping.load() != 0);
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
    json.EndObject();
  }
  json.EndArray();
}

void WriteArena(std::string_view name, const segment::Arena& arena, JsonWriter& json) {
  const segment::Arena::Usage usage = arena.usage();
  json.BeginObject(name);
  json.Number("limitBytes", usage.limit_bytes);
  json.Number("committedBytes", usage.committed_bytes);
  json.Number("usedBytes", usage.used_bytes);
  json.Number("largestFreeBytes", usage.largest_free_bytes);
  json.Number("usedBlocks", usage.used_blocks);
  json.EndObject();
}

void WriteStats(const Process& process, JsonWriter& json) {
  const segment::Header& header = process.header();
  json.Text("process", process.assignment.process);
  json.Number("hostPid", ::getpid());
  json.Number("hostGeneration", header.host_generation.load());
  json.Number("repairs", header.repairs.load());
  json.Bool("attached", process.segment->attached());
  json.Text("doorbell", process.doorbell->kind() == dispatch::DoorbellKind::kMessageQueue ? "mqueue" : "futex");
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
  WriteParticipants(process, json);
  WriteArena("data", *process.data, json);
  WriteArena("inputs", process.pool->inputs(), json);
  WriteArena("outputs", process.pool->outputs(), json);
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
  return segment::InspectJson(
      *process.segment, [&](const segment::Segment&) { return process.state->Check(); }, &state::WriteState);
}

}  // namespace praas::host
