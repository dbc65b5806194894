#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "host/agent_link.h"
#include "host/assignment.h"
#include "host/event_loop.h"
#include "host/supervisor.h"
#include "protocol/frame.h"

namespace praas::host {

class Session;
struct Service;

struct HostOptions {
  WorkerCommands worker_commands;         // without any, workers come by AddExternalWorker only
  UniqueFd control;                       // to the agent; none: the host is driven by its methods
  std::optional<Assignment> assignment;   // serve this at once
  uint64_t handshake_ns = 5'000'000'000;  // how long a client may take for its hello
};

/// A process host: owns a process's segment, listens for clients, supervises workers, dispatches calls. One per OS
/// process as `praas-host`, or inside a test.
///
/// Threads: the one that runs `Run` is the I/O thread and starts the workers, which end with it; a service thread does
/// what may wait. The other methods may be called from any thread.
class Host {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Host>> Create(HostOptions options);
  /// Create, with Run on a thread of its own. With an assignment: returns when clients can connect, or why they cannot.
  [[nodiscard]] static Result<std::unique_ptr<Host>> Start(HostOptions options);
  ~Host();  // stops

  /// Serves until Stop, the agent's `stop` or its end; returns when no worker is left.
  void Run();

  /// No new calls; those in flight finish, `timeout_ms` at most; then workers leave.
  void Drain(uint64_t timeout_ms);
  /// Ends workers at once and then the host. The segment stays. Async-signal-safe is only `RequestStop`.
  void Stop();
  /// For signal handlers: drain, then stop.
  void RequestStop() noexcept;

  /// A worker that was not started by this host: its end of a ControlSocket pair is `control`'s peer. `pid` may be this
  /// process, whose threads then are the worker; it is never killed.
  void AddExternalWorker(UniqueFd control, pid_t pid);

  [[nodiscard]] uint16_t port() const noexcept { return port_.load(); }
  [[nodiscard]] bool drained() const noexcept { return drained_.load(); }
  [[nodiscard]] uint32_t ready_workers() const noexcept { return ready_workers_.load(); }

 private:
  explicit Host(HostOptions options);

  // host.cc: life
  [[nodiscard]] Status Open();
  void Loop();
  [[nodiscard]] bool Spin(bool active);
  void BeginStop();
  void TearDown();

  // host_service.cc: what is served
  [[nodiscard]] Status Serve(const Assignment& assignment);
  void DropService(bool orderly);
  void OnAgentLine(const protocol::AgentLine& line);
  void OnWorkerMessage(WorkerLink& link, const worker::ControlMessage& message);
  void OnWorkersFailed(const std::string& why);
  void OnAdmin(Session& session, protocol::AdminOp op, uint64_t call);
  [[nodiscard]] Supervisor::Hooks SupervisorHooks();
  [[nodiscard]] Status Refuses() const;
  size_t ServeCompletions();
  [[nodiscard]] bool Busy() const;
  void Settle();
  void Tick();
  void ArmTick(bool soon);
  void BeginDrain(uint64_t timeout_ms);
  void ContinueDrain();
  void FailQueued(const Status& why);
  void Log(const std::string& message);

  HostOptions options_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<AgentLink> agent_;
  std::unique_ptr<Supervisor> supervisor_;
  std::unique_ptr<Service> service_;
  std::thread thread_;
  std::function<void(const Status&)> served_;  // outcome of the first assignment, for Start

  std::atomic<uint16_t> port_{0};
  std::atomic<bool> drained_{false};
  std::atomic<uint32_t> ready_workers_{0};
  std::atomic<bool> stop_requested_{false};

  bool stopping_ = false;
  bool stop_after_drain_ = false;
  uint64_t give_up_ns_ = 0;  // when a stop no longer waits for workers
  uint64_t last_active_ns_ = 0;
};

}  // namespace praas::host
