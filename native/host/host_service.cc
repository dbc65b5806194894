// What a host does for its process: assignment, workers' messages, completions, ticks, draining.

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>

#include "base/clock.h"
#include "base/machine_id.h"
#include "host/host.h"
#include "host/inspect.h"
#include "host/service.h"

namespace praas::host {
namespace {

using worker::ControlMessage;
using worker::ControlType;

constexpr uint64_t kFormerWorkersNs = 5'000'000'000;
constexpr uint64_t kSoonNs = Deadlines::kTickNs;  // between looks at deadlines while anything is in flight or leased
constexpr uint64_t kIdleNs =
    2'000'000'000;  // and while nothing is, as far as the host knows: then twice as long each time
constexpr uint32_t kMaxIdleDoublings = 2;  // none while a worker polls: it takes calls without telling the host
constexpr uint64_t kRenewNs = 10'000'000'000;
constexpr uint64_t kDrainPollNs = 5'000'000;
/// What holders of leases get to finish when the process stops: half of its time at most.
constexpr uint64_t kMaxNoticeMs = 1'000;
constexpr uint64_t kMaxLogBytes = 16u << 20;
/// Bound on completions served before sockets are looked at again.
constexpr size_t kMaxCompletions = 256;

Result<UniqueFd> Duplicate(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) return Status::System("fcntl(F_DUPFD_CLOEXEC)");
  return copy;
}

std::string LaneName(dispatch::Lane lane) { return lane == dispatch::Lane::kNative ? "native" : "node"; }

std::string CodeText(const Status& status) { return std::string(CodeName(status.code())); }

}  // namespace

Service::Service(EventLoop& loop, std::unique_ptr<Process> opened, Supervisor& supervisor, uint64_t handshake_ns,
                 std::string machine_id, std::function<void()> room_freed)
    : process(std::move(opened)),
      log(process->assignment.log, kMaxLogBytes),
      calls(loop, *process, std::move(room_freed)),
      functions(*process->segment, process->assignment.lanes()),
      state(loop, *process),
      rings(*process, state),
      windows(loop, *process, calls),
      verbs(loop, *process, windows),
      leases(loop, *process, supervisor, windows),
      reclaim(*process, calls, windows, state, [&supervisor](uint16_t freed) { supervisor.Release(freed); }),
      kill([this, &supervisor](uint16_t participant, const std::string& why) {
        WorkerLink* link = supervisor.Find(participant);
        if (link == nullptr || link->stage == WorkerLink::Stage::kEnded) return;
        log.Line(participant, "host", "killed: " + why);
        link->Kill();
      }),
      deadlines(*process, calls, reclaim, kill),
      services{.loop = loop,
               .process = *process,
               .calls = calls,
               .functions = functions,
               .state = state,
               .windows = windows,
               .verbs = verbs,
               .rings = rings,
               .leases = leases,
               .machine_id = std::move(machine_id),
               .handshake_ns = handshake_ns,
               .find = {},
               .wrote = {},
               .paused = {},
               .closed = {},
               .admin = {},
               .refuses = {}},
      sessions(services) {
  services.published.UseArea(process->area->memory());
}

Supervisor::Hooks Host::SupervisorHooks() {
  return {
      .ready =
          [this](WorkerLink& link, const std::vector<worker::FunctionInfo>& functions) {
            return service_->functions.Register(link.lane, functions);
          },
      .message = [this](WorkerLink& link, const ControlMessage& message) { OnWorkerMessage(link, message); },
      .ended =
          [this](WorkerLink& link, const WorkerEnd& end) {
            // Answers go into a slot of the pool or of a window, which are equally large.
            service_->reclaim.WorkerEnded(link.participant, end.Json(dispatch::kSlotOutputBytes));
            if (link.dedicated) service_->leases.workers.OnEnded(link, end);
            ArmTick(true);
          },
      .report =
          [this](WorkerLink& link, std::string_view state, std::string_view message) {
            ready_workers_.store(supervisor_->ready_count());
            if (link.dedicated && link.stage == WorkerLink::Stage::kReady) service_->leases.workers.OnReady(link);
            if (agent_ == nullptr) return;
            std::vector<std::pair<std::string_view, std::string>> values = {{"index", std::to_string(link.participant)},
                                                                            {"pid", std::to_string(link.id().pid)},
                                                                            {"kind", LaneName(link.lane)},
                                                                            {"state", std::string(state)}};
            if (link.dedicated) values.emplace_back("leased", "1");
            if (!message.empty()) values.emplace_back("message", std::string(message));
            agent_->Say("worker", values);
          },
      .output =
          [this](uint32_t participant, std::string_view stream, std::string_view line) {
            if (service_ != nullptr) service_->log.Line(participant, stream, line);
          },
      .failed = [this](const std::string& why) { OnWorkersFailed(why); },
  };
}

Status Host::Serve(const Assignment& assignment) {
  Result<std::unique_ptr<Process>> process = Process::Open(assignment, DeadlineIn(kFormerWorkersNs));
  if (!process) return process.status();
  service_ = std::make_unique<Service>(*loop_, std::move(*process), *supervisor_, options_.handshake_ns, MachineId(),
                                       [this] { service_->room = true; });
  Service& service = *service_;
  if (service.log.status().code() == Code::kProcessFailed) return service.log.status();
  service.services.refuses = [this] { return Refuses(); };
  service.services.admin = [this](Session& session, protocol::AdminOp op, const std::string&, uint64_t call) {
    OnAdmin(session, op, call);
  };
  service.windows.refuses = [this] { return Refuses(); };
  service.windows.offers.lives = [this](uint64_t session) { return service_->sessions.Find(session) != nullptr; };
  service.windows.kill = service.kill;
  service.verbs.broke = [this](uint64_t session, const Status& why) {
    if (Session* found = service_->sessions.Find(session)) found->VerbsBroke(why);
  };
  service.windows.tell_worker = [this](uint16_t participant, const ControlMessage& message) {
    return service_->leases.workers.Send(participant, message);
  };
  service.windows.end_session = [this](uint64_t session, const Status& why) {
    if (Session* served = service_->sessions.Find(session)) served->Dismiss(why);
  };
  service.leases.hooks = {.answer =
                              [this](uint64_t session, uint64_t call, const Result<protocol::LeaseReply>& reply) {
                                if (Session* asked = service_->sessions.Find(session)) asked->ReplyLease(call, reply);
                              },
                          .notify =
                              [this](uint64_t session, const protocol::Frame& notice, std::string_view text) {
                                if (Session* holder = service_->sessions.Find(session)) holder->Notify(notice, text);
                              },
                          .end_session = service.windows.end_session,
                          .refuses = [this] { return Refuses(); }};
  service.windows.tell_workers = [this](const ControlMessage& message) {
    supervisor_->ForEach([&](WorkerLink& link) {
      if (link.participant != 0 && link.stage != WorkerLink::Stage::kEnded) (void)link.Send(message);
    });
  };

  Result<int> event = service.process->wakers.Fd(dispatch::kHostParticipant);
  if (!event) return event.status();
  // Edge-triggered: each signal is told once, and its count need never be read.
  Result<EventLoop::WatchId> watch = loop_->Watch(*event, EPOLLIN | EPOLLET, [](uint32_t) {});
  if (!watch) return watch.status();
  service.event_watch = *watch;

  Result<uint16_t> port = service.sessions.Listen(assignment.listen_host, assignment.listen_port);
  if (!port) return port.status();
  service.windows.Listen();
  port_.store(*port);
  ArmTick(false);
  if (service.process->segment->attached()) {
    // What the former host published; who asks for it meanwhile has it published then.
    service.state.Chore([state = service.process->state.get()] { (void)state->RenewAll(DeadlineIn(kRenewNs)).ok(); },
                        [] {});
  }
  supervisor_->Serve(*service.process);
  if (agent_ != nullptr) {
    const bool queue = service.process->doorbells->kind() == dispatch::DoorbellKind::kMessageQueue;
    agent_->Say("ready", {{"port", std::to_string(*port)},
                          {"pid", std::to_string(::getpid())},
                          {"attached", service.process->segment->attached() ? "1" : "0"},
                          {"doorbell", queue ? "mqueue" : "futex"},
                          {"doorbellReason", service.process->doorbell_reason}});
  }
  return Status::Ok();
}

void Host::DropService(bool orderly) {
  if (service_ == nullptr) return;
  loop_->CancelTimer(service_->tick);
  loop_->CancelTimer(service_->drain_timer);
  loop_->Unwatch(service_->event_watch);
  if (orderly) service_->process->LeaveInOrder();
  service_.reset();
}

void Host::OnAgentLine(const protocol::AgentLine& line) {
  if (line.verb == "assign") {
    Status status;
    if (service_ != nullptr) {
      status = Status(Code::kArgumentInvalid, "this host serves a process already");
    } else {
      Result<Assignment> assignment = ParseAssignment(line);
      status = assignment ? Serve(*assignment) : assignment.status();
      if (!status.ok()) DropService(true);  // opened in part, it serves nobody
    }
    if (!status.ok()) agent_->Say("failed", {{"code", CodeText(status)}, {"message", status.message()}});
  } else if (line.verb == "drain") {
    const Result<int64_t> timeout_ms = line.Number("timeoutMs", 10'000, 0, 24ll * 3600 * 1000);
    if (!timeout_ms.ok()) return Log(timeout_ms.status().message());
    BeginDrain(static_cast<uint64_t>(timeout_ms.value()));
  } else if (line.verb == "stop") {
    BeginStop();
  } else {
    Log("unknown request of the agent: " + line.verb);
  }
}

void Host::Log(const std::string& message) {
  if (agent_ != nullptr) agent_->Say("log", {{"message", message}});
}

void Host::OnWorkerMessage(WorkerLink& link, const ControlMessage& message) {
  if (service_ == nullptr) return;
  switch (message.type) {
    case ControlType::kWantWindow: {
      // It waits for an answer, so it gets one.
      if (service_->windows.SendTo(link, message.index).ok()) break;
      (void)link.Send({.type = ControlType::kWindowGone, .index = message.index, .generation = message.generation});
      break;
    }
    case ControlType::kWantPeer: {
      if (message.index >= service_->process->header().participants.committed.load()) break;
      const auto peer = static_cast<uint16_t>(message.index);
      Result<int> fd = service_->process->wakers.Fd(peer);
      if (!fd) break;
      ControlMessage answer{.type = ControlType::kPeer, .index = message.index};
      answer.generation = service_->process->segment->participant(peer).generation.load();
      Result<UniqueFd> copy = Duplicate(*fd);
      if (!copy) break;
      answer.fds.push_back(std::move(*copy));
      (void)link.Send(answer);
      break;
    }
    case ControlType::kLeaseLeft:
    case ControlType::kConnectionEnded:
      service_->leases.OnWorkerMessage(link.participant, message);
      break;
    case ControlType::kRelay:
      if (message.index < dispatch::kMaxParticipants) {
        service_->process->wakers.Signal(static_cast<uint16_t>(message.index));
      }
      break;
    default:
      break;
  }
}

void Host::OnWorkersFailed(const std::string& why) {
  if (service_ == nullptr) return;
  service_->failure = why;
  service_->functions.Fail(why);
  if (why.empty()) return;
  const Status status(Code::kProcessFailed, "the process's workers cannot start: " + why);
  if (agent_ != nullptr) agent_->Say("failed", {{"code", CodeText(status)}, {"message", status.message()}});
  FailQueued(status);
}

void Host::FailQueued(const Status& why) {
  for (uint32_t index = 0; index < service_->calls.capacity(); ++index) {
    const dispatch::CallWord word = service_->calls.word(index);
    if (word.state != dispatch::CallState::kQueued) continue;
    if (service_->process->dispatcher->Cancel(index, word.generation, why.code())) service_->reclaim.Fail(index, why);
  }
}

Status Host::Refuses() const {
  if (service_->draining || stopping_)
    return Status(Code::kProcessDraining, "the process is stopping and takes no new calls");
  if (!service_->failure.empty()) {
    return Status(Code::kProcessFailed, "the process's workers cannot start: " + service_->failure);
  }
  return Status::Ok();
}

size_t Host::ServeCompletions() {
  Service& service = *service_;
  size_t served = 0;
  while (served < kMaxCompletions) {
    const std::optional<uint32_t> index = service.process->dispatcher->NextCompletion();
    if (!index) break;
    if (service.calls.entry(*index).origin == dispatch::Origin::kWindow) {
      service.windows.Completed(*index);
    } else {
      service.sessions.Completed(*index);
    }
    ++served;
  }
  const uint32_t notices = service.process->dispatcher->TakeNotices();
  if ((notices & dispatch::kNoticeLock) != 0) service.state.LocksChanged();
  if ((notices & dispatch::kNoticeStream) != 0) service.sessions.PumpStreams();
  // A worker had to leave submissions in a ring: the call table was full, or their client is faster than it.
  if ((notices & dispatch::kNoticeWindow) != 0) service.windows.ConsumeAll();
  if ((notices & dispatch::kNoticePosted) != 0 && !service.tick_soon) ArmTick(true);
  return served + (notices != 0 ? 1 : 0);
}

bool Host::Busy() const {
  const Service& service = *service_;
  return service.functions.waiting() || service.windows.busy() || service.verbs.in_flight() || service.reclaim.busy() ||
         service.state.busy() || service.services.receiving_state != 0;
}

void Host::Settle() {
  Service& service = *service_;
  service.sessions.Settle();
  if (service.room) {
    service.room = false;
    service.sessions.Resume();
    service.windows.Resume();
    service.sessions.Settle();
  }
  if (service.tick_soon) return;
  if (service.calls.TakeActivity() || Busy() || service.tick_leased == service.leases.empty()) ArmTick(true);
}

void Host::ArmTick(bool soon) {
  loop_->CancelTimer(service_->tick);
  if (soon) {
    service_->process->dispatcher->Watch();
  } else if (!service_->process->dispatcher->Unwatch()) {
    soon = true;
  }
  service_->tick_soon = soon;
  service_->tick_leased = !service_->leases.empty();
  if (soon) {
    service_->idle_ticks = 0;
    service_->trim_ns = DeadlineIn(kIdleNs);
  } else {
    service_->idle_ticks = service_->process->dispatcher->AnyPoller() ? 1 : service_->idle_ticks + 1;
  }
  const uint64_t idle_ns = kIdleNs << std::min(soon ? 0 : service_->idle_ticks - 1, kMaxIdleDoublings);
  // Leased workers take all their calls without telling the host.
  service_->tick = loop_->At(DeadlineIn(soon || service_->tick_leased ? kSoonNs : idle_ns), [this] { Tick(); });
}

void Host::Tick() {
  Service& service = *service_;
  const uint64_t now = NowNs();
  const uint32_t in_use = service.deadlines.Tick(now);
  service.functions.Tick(now);
  service.windows.Tick(now);
  service.verbs.Tick(now);
  service.reclaim.Tick();
  service.sessions.Tick(now);
  const bool idle = in_use == 0 && !Busy();
  (void)service.calls.TakeActivity();
  // Idle for long: payload memory of the last burst goes back to the system.
  if (idle && now >= service.trim_ns) {
    service.process->pool->Trim();
    service.verbs.Trim();
    service.trim_ns = now + kIdleNs;
  }
  ArmTick(!idle);
}

void Host::BeginDrain(uint64_t timeout_ms) {
  if (service_ == nullptr) {
    drained_.store(true);
    if (agent_ != nullptr) agent_->Say("drained", {});
    if (stop_after_drain_) BeginStop();
    return;
  }
  if (service_->draining) {
    service_->drain_deadline_ns = std::min(service_->drain_deadline_ns, DeadlineIn(timeout_ms * 1'000'000));
    return;
  }
  service_->draining = true;
  service_->drain_deadline_ns = DeadlineIn(timeout_ms * 1'000'000);
  service_->functions.Fail("the process is stopping");
  service_->sessions.Goodbye(Refuses());
  service_->leases.RevokeAll(Refuses(), std::min(timeout_ms / 2, kMaxNoticeMs) * 1'000'000);
  ContinueDrain();
}

/// First every call in the table finishes, then every worker leaves; what has not by the deadline is ended.
void Host::ContinueDrain() {
  Service& service = *service_;
  const bool late = NowNs() >= service.drain_deadline_ns;
  const bool finished = service.process->dispatcher->in_use() == 0 && service.verbs.idle() && service.leases.empty();
  if ((finished || late) && !supervisor_->stopping()) supervisor_->Drain();
  if (late && supervisor_->stopping()) supervisor_->Stop();
  if (supervisor_->stopping() && supervisor_->empty()) {
    service.sessions.StopListening();
    drained_.store(true);
    if (agent_ != nullptr) agent_->Say("drained", {});
    if (stop_after_drain_) BeginStop();
    return;
  }
  service.drain_timer = loop_->At(DeadlineIn(kDrainPollNs), [this] { ContinueDrain(); });
}

void Host::OnAdmin(Session& session, protocol::AdminOp op, uint64_t call) {
  if (op == protocol::AdminOp::kDrain) {
    session.ReplyAdmin(call, std::string("{}"));
    return BeginDrain(service_->process->assignment.timeout_ms);
  }
  const bool inspect = op == protocol::AdminOp::kInspect;
  auto text = std::make_shared<std::string>();
  service_->state.Chore([process = service_->process.get(), inspect,
                         text] { *text = inspect ? InspectJson(*process) : StatsJson(*process); },
                        [this, text, id = session.id(), call] {
                          if (Session* asked = service_->sessions.Find(id)) asked->ReplyAdmin(call, *text);
                        });
}

}  // namespace praas::host
