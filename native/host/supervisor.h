#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "host/event_loop.h"
#include "host/process.h"
#include "host/worker_link.h"

namespace praas::host {

/// Keeps a process's workers running: `workers` seats, each filled by a worker, and some attached but unloaded spares
/// that take over a seat at once. A seat whose worker ends is filled again after a back-off (0, 100 ms, 200 ms … 10 s)
/// that starts over once a worker was healthy for 10 s. I/O thread; workers end with the thread that runs this.
class Supervisor {
 public:
  struct Hooks {
    /// A worker offers these functions; a failed Status (others than its siblings offer) refuses it.
    std::function<Status(WorkerLink&, const std::vector<worker::FunctionInfo>&)> ready;
    std::function<void(WorkerLink&, worker::ControlMessage)> message;  // all others
    /// It ended, and its participant (when it has one) is not given to another until `Release`.
    std::function<void(WorkerLink&, const WorkerEnd&)> ended;
    std::function<void(const WorkerLink&, std::string_view state, std::string_view message)> report;
    std::function<void(uint32_t participant, std::string_view stream, std::string_view line)> output;
    /// Workers cannot start, for this reason; empty: now they can.
    std::function<void(const std::string& why)> failed;
  };

  Supervisor(EventLoop& loop, std::vector<std::string> command, Hooks hooks);
  ~Supervisor();

  /// Starts one worker ahead of any assignment.
  [[nodiscard]] Status Prewarm();
  /// From here on seats and spares are kept filled.
  void Serve(Process& process);
  /// A worker that somebody else started and that is not replaced when it ends.
  [[nodiscard]] Status AddExternal(UniqueFd control, pid_t pid);

  void Drain();  // tells every worker to finish and leave; nothing is replaced any more
  void Stop();   // kills every worker; likewise
  [[nodiscard]] bool empty() const noexcept { return links_.empty(); }
  [[nodiscard]] bool stopping() const noexcept { return stopping_; }
  [[nodiscard]] uint32_t ready_count() const noexcept;
  [[nodiscard]] uint32_t restarts() const noexcept { return restarts_; }

  [[nodiscard]] WorkerLink* Find(uint16_t participant) noexcept;
  void ForEach(const std::function<void(WorkerLink&)>& visit);
  /// What a dead worker owned is reclaimed: its participant may be used again.
  void Release(uint16_t participant);

 private:
  struct Seat {
    WorkerLink* worker = nullptr;
    uint32_t failures = 0;
    EventLoop::TimerId timer{};
  };

  [[nodiscard]] WorkerLink::Hooks LinkHooks();
  [[nodiscard]] Result<WorkerLink*> Start();
  [[nodiscard]] Status Attach(WorkerLink& link);
  [[nodiscard]] Status Load(WorkerLink& link);
  [[nodiscard]] Result<uint16_t> TakeParticipant(const WorkerLink& link);
  void Fill(uint32_t seat);
  void FillLater(uint32_t seat);
  void FillSpares();
  void OnMessage(WorkerLink& link, worker::ControlMessage message);
  void OnReady(WorkerLink& link, const std::vector<worker::FunctionInfo>& functions);
  void OnEnded(WorkerLink& link, const WorkerEnd& end);
  void StartFailed(const std::string& why, bool for_good);
  void Remove(WorkerLink& link);

  EventLoop& loop_;
  const std::vector<std::string> command_;
  Hooks hooks_;
  Process* process_ = nullptr;
  bool stopping_ = false;
  bool failed_ = false;
  uint32_t start_failures_ = 0;  // since a worker was last ready
  uint32_t restarts_ = 0;
  std::vector<bool> taken_;  // participants in use or not reclaimed yet
  std::vector<Seat> seats_;
  EventLoop::TimerId spare_timer_{};
  std::vector<std::unique_ptr<WorkerLink>> links_;
};

}  // namespace praas::host
