#include "host/host.h"

#include <sched.h>
#include <sys/resource.h>

#include <future>

#include "base/clock.h"
#include "base/spin.h"
#include "host/service.h"

namespace praas::host {
namespace {

/// SIGKILL ends a worker in milliseconds; one that hangs in the kernel is left to its parent's death signal.
constexpr uint64_t kStopNs = 900'000'000;
constexpr uint64_t kDefaultDrainMs = 10'000;
/// What waking up costs. A host that waits as long before it sleeps loses as much at most as it
/// may gain: the answer of a small function, and the next request of a client that waits for it, mostly come before.
constexpr uint64_t kWakeUpNs = 20'000;

/// Looks at what comes by RDMA between two looks at everything else.
constexpr uint32_t kLooksPerTurn = 64;

/// A host holds a descriptor per client, three per window and five per worker.
void RaiseOpenFiles() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

Host::Host(HostOptions options) : options_(std::move(options)) {}

Result<std::unique_ptr<Host>> Host::Create(HostOptions options) {
  RaiseOpenFiles();
  std::unique_ptr<Host> host(new Host(std::move(options)));
  Result<std::unique_ptr<EventLoop>> loop = EventLoop::Create();
  if (!loop) return loop.status();
  host->loop_ = std::move(*loop);
  return host;
}

Result<std::unique_ptr<Host>> Host::Start(HostOptions options) {
  const bool assigned = options.assignment.has_value();
  Result<std::unique_ptr<Host>> host = Create(std::move(options));
  if (!host) return host;
  auto outcome = std::make_shared<std::promise<Status>>();
  if (assigned) {
    (*host)->served_ = [outcome](const Status& status) { outcome->set_value(status); };
  } else {
    outcome->set_value(Status::Ok());
  }
  (*host)->thread_ = std::thread([raw = host->get()] { raw->Run(); });
  if (Status status = outcome->get_future().get(); !status.ok()) return status;
  return host;
}

Host::~Host() {
  Stop();
  if (thread_.joinable()) thread_.join();
}

void Host::Stop() {
  loop_->Post([this] { BeginStop(); });
}

void Host::RequestStop() noexcept {
  stop_requested_.store(true);
  loop_->Interrupt();
}

void Host::Drain(uint64_t timeout_ms) {
  loop_->Post([this, timeout_ms] { BeginDrain(timeout_ms); });
}

void Host::AddExternalWorker(UniqueFd control, pid_t pid) {
  auto fd = std::make_shared<UniqueFd>(std::move(control));
  loop_->Post([this, fd, pid] {
    if (supervisor_ != nullptr && !stopping_) (void)supervisor_->AddExternal(std::move(*fd), pid);
  });
}

Status Host::Open() {
  supervisor_ = std::make_unique<Supervisor>(*loop_, options_.worker_commands, SupervisorHooks());
  if (options_.control) {
    Result<std::unique_ptr<AgentLink>> agent =
        AgentLink::Open(*loop_, std::move(options_.control),
                        {.line = [this](const protocol::AgentLine& line) { OnAgentLine(line); },
                         .malformed = [this](const Status& why) { Log(why.message()); },
                         .ended = [this] { BeginStop(); }});
    if (!agent) return agent.status();
    agent_ = std::move(*agent);
    // The first worker starts while the agent still decides what this host shall serve. Whether that works is seen when
    // it matters: with the assignment.
    if (!options_.assignment) (void)supervisor_->Prewarm();
  }
  if (!options_.assignment) return Status::Ok();
  return Serve(*options_.assignment);
}

void Host::Run() {
  const Status status = Open();
  if (served_) served_(status);
  if (status.ok()) {
    Loop();
  } else {
    Log(status.message());
  }
  TearDown();
}

void Host::Loop() {
  bool block = false;
  while (!(stopping_ && (supervisor_->empty() || NowNs() >= give_up_ns_))) {
    size_t did = loop_->Turn(block);
    if (block && service_ != nullptr) service_->process->dispatcher->AnnounceAwake();
    if (stop_requested_.exchange(false)) {
      stop_after_drain_ = true;
      BeginDrain(kDefaultDrainMs);
    }
    if (service_ == nullptr) {
      block = true;
      continue;
    }
    did += ServeCompletions();
    did += service_->verbs.Poll();
    Settle();
    if (Spin(did > 0)) {
      block = false;
      continue;
    }
    service_->process->dispatcher->AnnounceSleep(dispatch::Takes::kNothing);
    // What came before the announcement was not signalled.
    block = !service_->process->dispatcher->HasCompletion() && !service_->room && !service_->sessions.unsettled() &&
            service_->process->segment->participant(dispatch::kHostParticipant).notices.load() == 0 &&
            service_->verbs.PrepareToSleep();
    if (!block) service_->process->dispatcher->AnnounceAwake();
  }
}

/// Whether to look again without sleeping: for the hot time after the last activity, while there are clients whose
/// calls come by here. Where all have windows that workers serve, a polling host would only take a core from them.
bool Host::Spin(bool active) {
  const int64_t hot_ms = service_->process->assignment.hot_ms;
  if (stopping_ || (service_->services.callers == 0 && !service_->verbs.active())) return false;
  const uint64_t now = NowNs();
  if (active) last_active_ns_ = now;
  if (hot_ms >= 0 && now - last_active_ns_ >= std::max(static_cast<uint64_t>(hot_ms) * 1'000'000, kWakeUpNs)) {
    return false;
  }
  if (hot_ms == 0) {
    ::sched_yield();  // a worker on this core has the call
    return true;
  }
  static thread_local SpinYield spin;
  spin.Step();
  // A turn of the loop makes system calls, which calls by RDMA do not need.
  for (uint32_t look = 0; look < kLooksPerTurn && service_->verbs.active(); ++look) {
    if (service_->verbs.Poll() > 0) last_active_ns_ = now;
    // While nothing is in flight, nobody on this core does anything that leads to a message.
    if (service_->verbs.in_flight()) {
      spin.Step();
    } else {
      CpuRelax();
    }
  }
  return true;
}

void Host::BeginStop() {
  if (stopping_) return;
  stopping_ = true;
  give_up_ns_ = DeadlineIn(kStopNs);
  // The loop has to turn once more even if nothing else happens by then.
  loop_->At(give_up_ns_, [] {});
  if (service_ != nullptr) service_->sessions.StopListening();
  supervisor_->Stop();
}

void Host::TearDown() {
  const bool orderly = supervisor_ == nullptr || supervisor_->empty();
  if (service_ != nullptr) service_->sessions.CloseAll(Status(Code::kConnectionClosed, "the host ends"));
  supervisor_.reset();  // kills and reaps what is left
  DropService(orderly);
  agent_.reset();
}

}  // namespace praas::host
