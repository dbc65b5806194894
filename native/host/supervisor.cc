#include "host/supervisor.h"

#include <fcntl.h>

#include <algorithm>

#include "base/clock.h"

namespace praas::host {
namespace {

using dispatch::Lane;
using dispatch::Participant;
using dispatch::ParticipantState;
using worker::ControlMessage;
using worker::ControlType;

constexpr uint64_t kMillisecondNs = 1'000'000;
constexpr uint64_t kHealthyNs = 10'000 * kMillisecondNs;
constexpr uint64_t kMaxBackoffMs = 10'000;
/// Workers that end before they are ready, in a row and with none ready, until the process counts as failed.
constexpr uint32_t kStartAttempts = 3;
/// Workers started between two looks at everything else.
constexpr uint32_t kStartsPerTurn = 8;

uint64_t BackoffNs(uint32_t failures) noexcept {
  if (failures == 0) return 0;
  const uint64_t ms = failures > 8 ? kMaxBackoffMs : std::min<uint64_t>(100ull << (failures - 1), kMaxBackoffMs);
  return ms * kMillisecondNs;
}

Result<UniqueFd> Duplicate(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) return Status::System("fcntl(F_DUPFD_CLOEXEC)");
  return copy;
}

}  // namespace

Supervisor::Supervisor(EventLoop& loop, WorkerCommands commands, Hooks hooks)
    : loop_(loop), commands_(std::move(commands)), hooks_(std::move(hooks)), taken_(dispatch::kMaxParticipants, false) {
  taken_[dispatch::kHostParticipant] = true;
}

Supervisor::~Supervisor() {
  for (Seat& seat : seats_) loop_.CancelTimer(seat.timer);
  loop_.CancelTimer(filling_);
  loop_.CancelTimer(spare_timer_);
}

WorkerLink::Hooks Supervisor::LinkHooks() {
  return {.message = [this](WorkerLink& link, const ControlMessage& message) { OnMessage(link, message); },
          .output = [this](WorkerLink& link, std::string_view stream,
                           std::string_view line) { hooks_.output(link.participant, stream, line); },
          .ended = [this](WorkerLink& link, const WorkerEnd& end) { OnEnded(link, end); }};
}

Result<WorkerLink*> Supervisor::Start(Lane lane) {
  Result<std::pair<UniqueFd, UniqueFd>> ends = worker::ControlSocket::Pair();
  if (!ends) return ends.status();
  Result<ChildProcess> child = Spawn(command(lane), ends->second.get());
  if (!child) return child.status();
  Result<std::unique_ptr<WorkerLink>> link =
      WorkerLink::FromChild(loop_, std::move(*child), std::move(ends->first), LinkHooks());
  if (!link) return link.status();
  (*link)->lane = lane;
  links_.push_back(std::move(*link));
  return links_.back().get();
}

Status Supervisor::Prewarm() {
  if (command(Lane::kNode).empty()) return Status::Ok();
  Result<WorkerLink*> link = Start(Lane::kNode);
  return link ? Status::Ok() : link.status();
}

void Supervisor::Serve(Process& process) {
  process_ = &process;
  for (const auto& link : links_) {
    if (link->external() && (!Attach(*link).ok() || !Load(*link).ok())) link->Kill();
    // Started ahead for an application in TypeScript, which this is not.
    if (!link->external() && process.assignment.workers_of(link->lane) == 0) link->Kill();
  }
  for (const Lane lane : {Lane::kNode, Lane::kNative}) {
    if (command(lane).empty()) continue;
    for (uint32_t i = 0; i < process.assignment.workers_of(lane); ++i) seats_.push_back({.lane = lane});
  }
  FillFrom(0);
}

/// A few at a time: starting one takes a millisecond of this thread, and who already can be served should not wait for
/// a thousand.
void Supervisor::FillFrom(uint32_t seat) {
  const auto end = std::min<uint32_t>(seat + kStartsPerTurn, static_cast<uint32_t>(seats_.size()));
  for (; seat < end; ++seat) Fill(seat);
  if (seat < seats_.size()) {
    filling_ = loop_.At(NowNs(), [this, seat] { FillFrom(seat); });
  } else {
    FillSpares();
  }
}

Status Supervisor::AddExternal(UniqueFd control, pid_t pid) {
  Result<std::unique_ptr<WorkerLink>> link = WorkerLink::External(loop_, std::move(control), pid, LinkHooks());
  if (!link) return link.status();
  links_.push_back(std::move(*link));
  WorkerLink& added = *links_.back();
  if (process_ == nullptr) return Status::Ok();
  Status status = Attach(added);
  if (status.ok()) status = Load(added);
  if (!status.ok()) added.Kill();
  return status;
}

Result<uint16_t> Supervisor::TakeParticipant(const WorkerLink& link) {
  const auto free = std::find(taken_.begin(), taken_.end(), false);
  if (free == taken_.end()) return Status(Code::kWorkerStart, "no participant is free");
  const auto index = static_cast<uint16_t>(free - taken_.begin());
  segment::Header& header = process_->header();
  if (Status status = process_->segment->Commit(header.participants, index + 1u); !status.ok()) return status;
  *free = true;

  Participant& participant = process_->segment->participant(index);
  participant.kind = static_cast<uint32_t>(dispatch::WorkerKind(link.lane));
  participant.generation.fetch_add(1);
  // Recorded before the worker gets the segment: whoever finds it after this host's death can end it.
  participant.pid_start_time = link.id().start_time;
  participant.pid.store(link.id().pid);
  participant.started_wall_ns = WallNs();
  participant.restarts = link.seat < seats_.size() ? seats_[link.seat].failures : 0;
  participant.credit.store(dispatch::kCreditNone);
  participant.sleeping.store(0);
  participant.running.store(0);
  participant.notices.store(0);
  participant.counters.awake_since_ns.store(0);
  for (auto& bits : participant.completions) bits.store(0);
  participant.state.store(static_cast<uint32_t>(ParticipantState::kStarting));
  return index;
}

Status Supervisor::Attach(WorkerLink& link) {
  Result<uint16_t> index = TakeParticipant(link);
  if (!index) return index.status();
  link.participant = *index;

  const Assignment& assignment = process_->assignment;
  ControlMessage message{.type = ControlType::kAttach};
  message.attach = {.participant = *index,
                    .generation = process_->segment->participant(*index).generation.load(),
                    .lane = link.lane,
                    .doorbell_kind = static_cast<uint32_t>(process_->doorbells->kind()),
                    .lanes = process_->doorbells->lanes(),
                    .queue_name = assignment.queue,
                    .hot_ns = assignment.hot_ms < 0 ? -1 : assignment.hot_ms * static_cast<int64_t>(kMillisecondNs),
                    .concurrency = assignment.concurrency,
                    .grace_ns = assignment.grace_ms * kMillisecondNs,
                    .default_timeout_ns = assignment.timeout_ms * kMillisecondNs,
                    .max_contiguous = assignment.max_contiguous,
                    .worker_memory_bytes = link.lane == Lane::kNative ? assignment.worker_memory_bytes : 0,
                    .process_id = assignment.process};
  Result<int> own = process_->wakers.Fd(*index);
  if (!own) return own.status();
  Result<int> host = process_->wakers.Fd(dispatch::kHostParticipant);
  if (!host) return host.status();
  for (const int fd : {process_->segment->fd(), process_->pool->fd(), *own, *host, process_->area->fd()}) {
    Result<UniqueFd> copy = Duplicate(fd);
    if (!copy) return copy.status();
    message.fds.push_back(std::move(*copy));
  }
  if (Status status = link.Send(message); !status.ok()) return status.WithContext("kAttach");
  link.stage = WorkerLink::Stage::kSpare;
  return Status::Ok();
}

Status Supervisor::Load(WorkerLink& link) {
  ControlMessage message{.type = ControlType::kLoad};
  message.index = link.dedicated ? 1 : 0;
  message.text = link.lane == Lane::kNative ? process_->assignment.native : process_->assignment.app;
  if (Status status = link.Send(message); !status.ok()) return status.WithContext("kLoad");
  link.stage = WorkerLink::Stage::kLoading;
  hooks_.report(link, "starting", "");
  return Status::Ok();
}

Result<WorkerLink*> Supervisor::StartDedicated(Lane lane) {
  if (stopping_ || command(lane).empty()) {
    return Status(Code::kWorkerStart, stopping_ ? "the process is stopping" : "this host starts no such workers");
  }
  Result<WorkerLink*> link = Start(lane);
  if (!link.ok()) return link;
  (*link)->dedicated = true;
  Status status = Attach(**link);
  if (status.ok()) status = Load(**link);
  if (status.ok()) return link;
  (*link)->failure = status.message();
  (*link)->Kill();
  return status;
}

void Supervisor::Fill(uint32_t seat) {
  if (stopping_) return;
  // A spare first, else the worker started ahead of the assignment, else a new one.
  WorkerLink* link = nullptr;
  for (const auto& candidate : links_) {
    if (candidate->external() || candidate->dedicated || candidate->seat != UINT32_MAX ||
        candidate->lane != seats_[seat].lane)
      continue;
    if (candidate->stage == WorkerLink::Stage::kSpare) {
      link = candidate.get();
      break;
    }
    if (candidate->stage == WorkerLink::Stage::kWaiting) link = candidate.get();
  }
  Status status;
  if (link == nullptr) {
    Result<WorkerLink*> started = Start(seats_[seat].lane);
    if (started) {
      link = *started;
    } else {
      status = started.status();
    }
  }
  if (link != nullptr) {
    link->seat = seat;
    seats_[seat].worker = link;
    if (link->stage == WorkerLink::Stage::kWaiting) status = Attach(*link);
    if (status.ok()) status = Load(*link);
    if (!status.ok()) {
      link->failure = status.message();
      StartFailed(link->lane, status.message(), false);
      link->Kill();  // its end is noticed like any other and leads back here
      return;
    }
  } else {
    StartFailed(seats_[seat].lane, status.message(), false);
    FillLater(seat);
  }
}

void Supervisor::FillLater(uint32_t seat) {
  if (stopping_) return;
  Seat& empty = seats_[seat];
  const uint64_t wait_ns = BackoffNs(empty.failures++);
  empty.timer = loop_.At(NowNs() + wait_ns, [this, seat] {
    ++restarts_;
    Fill(seat);
    FillSpares();
  });
}

void Supervisor::FillSpares() {
  if (stopping_ || process_ == nullptr || command(Lane::kNode).empty() || process_->assignment.workers == 0) return;
  const auto spares = std::count_if(links_.begin(), links_.end(), [](const auto& link) {
    return !link->external() && !link->dedicated && link->lane == Lane::kNode && link->seat == UINT32_MAX &&
           link->stage != WorkerLink::Stage::kEnded;
  });
  for (auto have = static_cast<uint64_t>(spares); have < process_->assignment.spares; ++have) {
    Result<WorkerLink*> link = Start(Lane::kNode);
    if (!link) {
      loop_.CancelTimer(spare_timer_);
      spare_timer_ = loop_.At(DeadlineIn(kMaxBackoffMs * kMillisecondNs), [this] { FillSpares(); });
      return;
    }
    if (!Attach(**link).ok()) (*link)->Kill();
  }
}

void Supervisor::OnMessage(WorkerLink& link, const ControlMessage& message) {
  switch (message.type) {
    case ControlType::kReady:
      OnReady(link, message.functions);
      return;
    case ControlType::kLoadFailed:
      link.failure = message.text;
      if (!link.dedicated) StartFailed(link.lane, message.text, true);
      link.Kill();
      return;
    default:
      hooks_.message(link, message);
      return;
  }
}

void Supervisor::OnReady(WorkerLink& link, const std::vector<worker::FunctionInfo>& functions) {
  if (link.stage != WorkerLink::Stage::kLoading) return;
  if (Status status = hooks_.ready(link, functions); !status.ok()) {
    link.failure = status.message();
    if (!link.dedicated) StartFailed(link.lane, status.message(), true);
    link.Kill();
    return;
  }
  link.stage = WorkerLink::Stage::kReady;
  link.ready_ns = NowNs();
  link.calls_before = process_->segment->participant(link.participant).counters.calls.load();
  const ParticipantState state = link.dedicated ? ParticipantState::kLeased : ParticipantState::kReady;
  process_->segment->participant(link.participant).state.store(static_cast<uint32_t>(state));
  LaneHealth& health = health_[static_cast<size_t>(link.lane)];
  health.start_failures = 0;
  hooks_.report(link, "ready", "");
  // Of an application in two languages, one may still be unable to start.
  const bool recovered = std::exchange(health.failed, false);
  if (recovered && std::none_of(health_.begin(), health_.end(), [](const LaneHealth& lane) { return lane.failed; })) {
    hooks_.failed("");
  }
}

bool Supervisor::AnyReady(Lane lane) const noexcept {
  return std::any_of(links_.begin(), links_.end(), [lane](const auto& link) {
    return link->lane == lane && !link->dedicated && link->stage == WorkerLink::Stage::kReady;
  });
}

void Supervisor::StartFailed(Lane lane, const std::string& why, bool for_good) {
  LaneHealth& health = health_[static_cast<size_t>(lane)];
  ++health.start_failures;
  if (health.failed || AnyReady(lane) || !(for_good || health.start_failures >= kStartAttempts)) return;
  health.failed = true;
  hooks_.failed(why.empty() ? "the workers end before they are ready" : why);
}

void Supervisor::OnEnded(WorkerLink& link, const WorkerEnd& end) {
  const bool was_ready = link.ready_ns != 0;
  const bool orderly = (stopping_ || link.dedicated) && end.signal == 0 && end.exit_code == 0;
  std::string why = link.failure;
  if (why.empty() && !orderly) {
    why = "ended with " + end.Describe();
    if (!end.stderr_tail.empty()) why += "; its last words:\n" + end.stderr_tail;
  }
  hooks_.report(link, link.failure.empty() ? "dead" : "failed", why);
  const Lane lane = link.lane;
  const bool dedicated = link.dedicated;
  const uint32_t seat = link.seat;
  const uint64_t ready_ns = link.ready_ns;
  // One that has answered calls can do its work: what ended it was one of them, and not the application.
  const bool served =
      was_ready && process_->segment->participant(link.participant).counters.calls.load() > link.calls_before;
  if (link.participant != 0) hooks_.ended(link, end);
  Remove(link);
  if (stopping_) return;
  if (!was_ready && !dedicated && link.failure.empty()) StartFailed(lane, "worker " + why, false);
  if (seat < seats_.size()) {
    seats_[seat].worker = nullptr;
    if (served || (was_ready && NowNs() - ready_ns >= kHealthyNs)) seats_[seat].failures = 0;
    FillLater(seat);
  } else if (process_ != nullptr && !dedicated) {
    // A spare that ends by itself is replaced without haste: nobody waits for it.
    loop_.CancelTimer(spare_timer_);
    spare_timer_ = loop_.At(DeadlineIn(1000 * kMillisecondNs), [this] { FillSpares(); });
  }
}

void Supervisor::Remove(WorkerLink& link) {
  const auto found =
      std::find_if(links_.begin(), links_.end(), [&](const auto& owned) { return owned.get() == &link; });
  if (found == links_.end()) return;
  // The link is in the middle of telling about its end: it goes when the loop comes round.
  loop_.Post([gone = std::shared_ptr<WorkerLink>(std::move(*found))] {});
  links_.erase(found);
}

uint32_t Supervisor::ready_count() const noexcept {
  return static_cast<uint32_t>(std::count_if(links_.begin(), links_.end(), [](const auto& link) {
    return link->stage == WorkerLink::Stage::kReady && !link->dedicated;
  }));
}

WorkerLink* Supervisor::Find(uint16_t participant) noexcept {
  for (const auto& link : links_) {
    if (link->participant == participant && participant != 0) return link.get();
  }
  return nullptr;
}

void Supervisor::ForEach(const std::function<void(WorkerLink&)>& visit) {
  for (size_t i = 0; i < links_.size(); ++i) visit(*links_[i]);
}

void Supervisor::Release(uint16_t participant) {
  Participant& freed = process_->segment->participant(participant);
  freed.pid.store(0);
  freed.pid_start_time = 0;
  freed.state.store(static_cast<uint32_t>(ParticipantState::kFree));
  taken_[participant] = false;
}

void Supervisor::Drain() {
  stopping_ = true;
  for (Seat& seat : seats_) loop_.CancelTimer(seat.timer);
  loop_.CancelTimer(filling_);
  loop_.CancelTimer(spare_timer_);
  for (const auto& link : links_) {
    // One that serves nothing yet has nothing to finish, and need not listen.
    if (link->stage != WorkerLink::Stage::kReady || !link->Send({.type = ControlType::kDrain}).ok()) {
      link->Kill();
      continue;
    }
    process_->segment->participant(link->participant).state.store(static_cast<uint32_t>(ParticipantState::kDraining));
    link->stage = WorkerLink::Stage::kDraining;
  }
}

void Supervisor::Stop() {
  stopping_ = true;
  for (Seat& seat : seats_) loop_.CancelTimer(seat.timer);
  loop_.CancelTimer(filling_);
  loop_.CancelTimer(spare_timer_);
  for (const auto& link : links_) link->Kill();
}

}  // namespace praas::host
