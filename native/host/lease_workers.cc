#include "host/lease_workers.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"

namespace praas::host {
namespace {

/// How long a worker that nobody has is kept for the next lease.
constexpr uint64_t kKeptNs = 10'000'000'000;
/// And what it gets to leave then.
constexpr uint64_t kLeaveNs = 5'000'000'000;

Status Ended() { return Status(Code::kLeaseUnavailable, "the worker has ended and is being replaced"); }

}  // namespace

LeaseWorkers::LeaseWorkers(EventLoop& loop, Process& process, Supervisor& supervisor, Hooks hooks)
    : loop_(loop), process_(process), supervisor_(supervisor), hooks_(std::move(hooks)) {}

LeaseWorkers::~LeaseWorkers() { loop_.CancelTimer(trim_timer_); }

Result<uint16_t> LeaseWorkers::Take(dispatch::Lane lane) {
  Result<uint16_t> participant = Refill(lane);
  if (participant.ok()) ++taken_;
  return participant;
}

Result<uint16_t> LeaseWorkers::Refill(dispatch::Lane lane) {
  // The one given back last: its caches are warm.
  auto best = workers_.end();
  for (auto each = workers_.begin(); each != workers_.end(); ++each) {
    if (each->second.taken || each->second.leaving || each->second.lane != lane) continue;
    if (best == workers_.end() || each->second.free_ns > best->second.free_ns) best = each;
  }
  if (best == workers_.end()) {
    MakeRoom(lane);
    const uint64_t started_ns = NowNs();
    Result<WorkerLink*> link = supervisor_.StartDedicated(lane);
    if (!link.ok()) return link.status();
    best = workers_.emplace((*link)->participant, Worker{.lane = lane, .started_ns = started_ns}).first;
    best->second.pid = static_cast<uint32_t>((*link)->id().pid);
  } else if (!best->second.ready) {
    // Who gave it up has waited for what came before.
    best->second.started_ns = NowNs();
  }
  best->second.taken = true;
  return best->first;
}

/// Workers of another language that nobody has count as well.
void LeaseWorkers::MakeRoom(dispatch::Lane lane) {
  if (workers_.size() < capacity()) return;
  for (const auto& [participant, worker] : workers_) {
    if (!worker.taken && !worker.leaving && worker.lane != lane) return Kill(participant);
  }
}

bool LeaseWorkers::IsReady(uint16_t participant) const noexcept {
  const auto found = workers_.find(participant);
  return found != workers_.end() && found->second.ready && !found->second.leaving;
}

uint32_t LeaseWorkers::PidOf(uint16_t participant) const noexcept {
  const auto found = workers_.find(participant);
  return found == workers_.end() ? 0 : found->second.pid;
}

LeaseWorkers::Phases LeaseWorkers::PhasesOf(uint16_t participant) const noexcept {
  const auto found = workers_.find(participant);
  return found == workers_.end() ? Phases{} : found->second.phases;
}

void LeaseWorkers::GiveBack(uint16_t participant) {
  const auto found = workers_.find(participant);
  if (found == workers_.end() || !std::exchange(found->second.taken, false)) return;
  --taken_;
  found->second.free_ns = NowNs();
  found->second.phases = {};  // who takes it next does not wait for its start
  ArmTrim(DeadlineIn(kKeptNs));
}

void LeaseWorkers::Kill(uint16_t participant) {
  if (const auto found = workers_.find(participant); found != workers_.end()) found->second.leaving = true;
  WorkerLink* const link = supervisor_.Find(participant);
  if (link != nullptr && link->stage != WorkerLink::Stage::kEnded) link->Kill();
}

Status LeaseWorkers::Send(uint16_t participant, const worker::ControlMessage& message) {
  WorkerLink* const link = supervisor_.Find(participant);
  if (link == nullptr || link->stage == WorkerLink::Stage::kEnded) return Ended();
  const Status sent = link->Send(message);
  return sent.code() == Code::kConnectionLost ? Ended() : sent;  // dead, and the supervisor has not heard of it yet
}

void LeaseWorkers::OnReady(WorkerLink& link) {
  const auto found = workers_.find(link.participant);
  if (found == workers_.end()) return;
  Worker& worker = found->second;
  worker.ready = true;
  const uint64_t attached_ns = process_.segment->participant(link.participant).counters.attached_ns.load();
  const uint64_t loaded_ns = std::max(link.ready_ns, worker.started_ns);
  const uint64_t between_ns = std::clamp(attached_ns, worker.started_ns, loaded_ns);
  worker.phases = {.spawn_ns = between_ns - worker.started_ns, .code_ns = loaded_ns - between_ns};
  if (worker.taken) return hooks_.ready(link.participant);
  worker.free_ns = NowNs();
  worker.phases = {};
}

void LeaseWorkers::OnEnded(WorkerLink& link, const WorkerEnd& end) {
  const auto found = workers_.find(link.participant);
  if (found == workers_.end()) return;
  const bool taken = found->second.taken;
  workers_.erase(found);
  if (taken) hooks_.ended(link.participant, end);
}

void LeaseWorkers::ArmTrim(uint64_t at_ns) {
  if (trim_timer_ != EventLoop::TimerId{}) return;
  trim_timer_ = loop_.At(at_ns, [this] {
    trim_timer_ = {};
    Trim();
  });
}

void LeaseWorkers::Trim() {
  const uint64_t now_ns = NowNs();
  uint64_t next_ns = kNoDeadline;
  for (auto& [participant, worker] : workers_) {
    if (worker.taken) continue;
    uint64_t due_ns = worker.free_ns + (worker.leaving ? kLeaveNs : kKeptNs);
    if (now_ns >= due_ns) {
      // The second time: it was told and does not listen.
      const bool told = std::exchange(worker.leaving, true);
      if (told || !Send(participant, {.type = worker::ControlType::kDrain}).ok()) Kill(participant);
      worker.free_ns = now_ns;
      due_ns = now_ns + kLeaveNs;
    }
    next_ns = std::min(next_ns, due_ns);
  }
  if (next_ns != kNoDeadline) ArmTrim(next_ns);
}

}  // namespace praas::host
