#pragma once

#include <array>
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

/// How a worker of each lane is started; empty: not at all.
using WorkerCommands = std::array<std::vector<std::string>, dispatch::kLanes>;

/// Keeps a process's workers running: seats of both lanes, each filled by a worker, and some attached but unloaded
/// spares of the Node lane that take over a seat at once. A seat whose worker ends is filled again after a back-off (0,
/// 100 ms, 200 ms … 10 s) that starts over once a worker has answered a call or was healthy for 10 s. I/O thread;
/// workers end with the thread that runs this.
class Supervisor {
 public:
  struct Hooks {
    /// A worker offers these functions; a failed Status (others than its siblings offer) refuses it.
    std::function<Status(WorkerLink&, const std::vector<worker::FunctionInfo>&)> ready;
    std::function<void(WorkerLink&, const worker::ControlMessage&)> message;  // all others
    /// It ended, and its participant (when it has one) is not given to another until `Release`.
    std::function<void(WorkerLink&, const WorkerEnd&)> ended;
    std::function<void(WorkerLink&, std::string_view state, std::string_view message)> report;
    std::function<void(uint32_t participant, std::string_view stream, std::string_view line)> output;
    /// Workers cannot start, for this reason; empty: now they can.
    std::function<void(const std::string& why)> failed;
  };

  Supervisor(EventLoop& loop, WorkerCommands commands, Hooks hooks);
  ~Supervisor();

  /// Starts one Node worker ahead of any assignment.
  [[nodiscard]] Status Prewarm();
  /// From here on seats and spares are kept filled.
  void Serve(Process& process);
  /// A worker of the Node lane that somebody else started and that is not replaced when it ends.
  [[nodiscard]] Status AddExternal(UniqueFd control, pid_t pid);

  /// A worker that is there to be leased, attached and told what to load. Nobody replaces it.
  [[nodiscard]] Result<WorkerLink*> StartDedicated(dispatch::Lane lane);

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
    dispatch::Lane lane = dispatch::Lane::kNode;
    WorkerLink* worker = nullptr;
    uint32_t failures = 0;
    EventLoop::TimerId timer{};
  };

  [[nodiscard]] WorkerLink::Hooks LinkHooks();
  [[nodiscard]] Result<WorkerLink*> Start(dispatch::Lane lane);
  [[nodiscard]] Status Attach(WorkerLink& link);
  [[nodiscard]] Status Load(WorkerLink& link);
  [[nodiscard]] Result<uint16_t> TakeParticipant(const WorkerLink& link);
  void FillFrom(uint32_t seat);
  void Fill(uint32_t seat);
  void FillLater(uint32_t seat);
  void FillSpares();
  void OnMessage(WorkerLink& link, const worker::ControlMessage& message);
  void OnReady(WorkerLink& link, const std::vector<worker::FunctionInfo>& functions);
  void OnEnded(WorkerLink& link, const WorkerEnd& end);
  void StartFailed(dispatch::Lane lane, const std::string& why, bool for_good);
  [[nodiscard]] bool AnyReady(dispatch::Lane lane) const noexcept;
  [[nodiscard]] const std::vector<std::string>& command(dispatch::Lane lane) const noexcept {
    return commands_[static_cast<size_t>(lane)];
  }
  void Remove(WorkerLink& link);

  EventLoop& loop_;
  const WorkerCommands commands_;
  Hooks hooks_;
  Process* process_ = nullptr;
  bool stopping_ = false;
  struct LaneHealth {
    bool failed = false;
    uint32_t start_failures = 0;  // since a worker was last ready
  };
  std::array<LaneHealth, dispatch::kLanes> health_;
  uint32_t restarts_ = 0;
  std::vector<bool> taken_;  // participants in use or not reclaimed yet
  std::vector<Seat> seats_;
  EventLoop::TimerId filling_{};
  EventLoop::TimerId spare_timer_{};
  std::vector<std::unique_ptr<WorkerLink>> links_;
};

}  // namespace praas::host
