#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/pidfd.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "host/child_process.h"
#include "host/event_loop.h"
#include "host/log_file.h"
#include "worker/control.h"

namespace praas::host {

/// How a worker ended.
struct WorkerEnd {
  int signal = 0;     // that killed it, or 0
  int exit_code = 0;  // when no signal did
  std::string stderr_tail;

  /// JSON {signal, exitCode, stderr}: the payload of ERR_WORKER_CRASHED, at most `max_bytes` long (the tail's begin
  /// goes).
  [[nodiscard]] std::string Json(size_t max_bytes) const;
  [[nodiscard]] std::string Describe() const;  // "signal 9", "exit code 1"
};

/// The host's end of one worker: its OS process, control socket and output. Says once that it has ended, by the pidfd
/// of a spawned worker or by the control socket of an external one (a thread or a process somebody else started).
class WorkerLink {
 public:
  enum class Stage {
    kWaiting,   // started ahead of any assignment
    kSpare,     // attached, nothing loaded
    kLoading,   // told what to load
    kReady,     // takes calls
    kDraining,  // finishes what it has
    kEnded,
  };
  static constexpr size_t kTailBytes = 4096;

  struct Hooks {
    std::function<void(WorkerLink&, const worker::ControlMessage&)> message;
    std::function<void(WorkerLink&, std::string_view stream, std::string_view line)> output;
    std::function<void(WorkerLink&, const WorkerEnd&)>
        ended;  // last call; the link may be destroyed afterwards, not within
  };

  [[nodiscard]] static Result<std::unique_ptr<WorkerLink>> FromChild(EventLoop& loop, ChildProcess child,
                                                                     UniqueFd control, Hooks hooks);
  [[nodiscard]] static Result<std::unique_ptr<WorkerLink>> External(EventLoop& loop, UniqueFd control, pid_t pid,
                                                                    Hooks hooks);
  ~WorkerLink();

  [[nodiscard]] Status Send(const worker::ControlMessage& message, std::span<const int> lent = {}) {
    return control_.Send(message, lent);
  }
  /// SIGKILL; for an external worker, which may be a thread of this very process, the end of its control socket.
  void Kill();
  [[nodiscard]] bool external() const noexcept { return !child_.has_value(); }
  [[nodiscard]] ProcessId id() const noexcept { return id_; }

  Stage stage = Stage::kWaiting;
  dispatch::Lane lane = dispatch::Lane::kNode;
  uint16_t participant = 0;  // 0 until attached
  uint32_t seat = UINT32_MAX;
  bool dedicated = false;  // there to be leased: has no seat, is no spare, takes no calls of others
  uint64_t ready_ns = 0;
  uint64_t calls_before = 0;  // of its participant, when it was ready
  std::string failure;        // why it could not load

 private:
  WorkerLink(EventLoop& loop, UniqueFd control, Hooks hooks);
  [[nodiscard]] Status Watch();
  void OnControl();
  void OnExit();
  void OnOutput(size_t which);
  void ReadOutput(size_t which, bool last);
  void ControlLost();
  void End(const WorkerEnd& end);

  struct Output {
    UniqueFd fd;
    EventLoop::WatchId watch = 0;
    OutputLines lines;
  };

  EventLoop& loop_;
  worker::ControlSocket control_;
  Hooks hooks_;
  std::optional<Pidfd> child_;
  ProcessId id_;
  std::array<Output, 2> outputs_;  // stdout, stderr
  std::string tail_;
  EventLoop::WatchId control_watch_ = 0;
  EventLoop::WatchId exit_watch_ = 0;
  EventLoop::TimerId kill_timer_{};
};

}  // namespace praas::host
