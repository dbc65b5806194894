#include "host/inspect.h"

#include <unistd.h>

#include "base/json_writer.h"
#include "segment/inspect.h"
#include "state/inspect.h"

namespace praas::host {
namespace {

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
  segment::WriteParticipants(*process.segment, json);
  segment::WriteArena("data", *process.data, json);
  segment::WriteArena("inputs", process.pool->inputs(), json);
  segment::WriteArena("outputs", process.pool->outputs(), json);
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
