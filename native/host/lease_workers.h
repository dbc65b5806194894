#pragma once

#include <cstdint>
#include <functional>
#include <map>

#include "base/result.h"
#include "dispatch/call_entry.h"
#include "host/event_loop.h"
#include "host/process.h"
#include "host/supervisor.h"

namespace praas::host {

/// The workers that are there to be leased: started when they are wanted, kept for a while after a lease for the next
/// one. I/O thread.
class LeaseWorkers {
 public:
  struct Hooks {
    std::function<void(uint16_t participant)> ready;                    // it was taken while it started
    std::function<void(uint16_t participant, const WorkerEnd&)> ended;  // it was taken
  };
  struct Phases {
    uint64_t spawn_ns = 0;  // from its start, or since it was taken if that came later, until it was attached
    uint64_t code_ns = 0;   // until it had loaded its functions
  };

  LeaseWorkers(EventLoop& loop, Process& process, Supervisor& supervisor, Hooks hooks);
  ~LeaseWorkers();

  [[nodiscard]] uint32_t capacity() const noexcept { return process_.assignment.lease_workers; }
  /// How many more can be taken now. The place of one that has died while it was taken stays taken.
  [[nodiscard]] uint32_t free() const noexcept { return capacity() - taken_; }
  /// One that is ready, or one that starts: `ready` follows. Precondition: free() > 0.
  [[nodiscard]] Result<uint16_t> Take(dispatch::Lane lane);
  /// Another one in the place of one that has died.
  [[nodiscard]] Result<uint16_t> Refill(dispatch::Lane lane);
  /// Nor is there to be one.
  void Forgo() noexcept { --taken_; }
  [[nodiscard]] bool IsReady(uint16_t participant) const noexcept;
  [[nodiscard]] uint32_t PidOf(uint16_t participant) const noexcept;
  [[nodiscard]] Phases PhasesOf(uint16_t participant) const noexcept;
  void GiveBack(uint16_t participant);
  void Kill(uint16_t participant);
  [[nodiscard]] Status Send(uint16_t participant, const worker::ControlMessage& message);

  // What the supervisor says of workers that are there to be leased.
  void OnReady(WorkerLink& link);
  void OnEnded(WorkerLink& link, const WorkerEnd& end);

 private:
  struct Worker {
    dispatch::Lane lane = dispatch::Lane::kNode;
    bool taken = true;
    bool ready = false;
    bool leaving = false;  // told to, or killed: of no use to anybody
    uint32_t pid = 0;
    uint64_t started_ns = 0;  // or taken, by who waits for it
    uint64_t free_ns = 0;     // since when nobody has it, or it was told to leave
    Phases phases{};
  };
  void ArmTrim(uint64_t at_ns);
  void Trim();
  void MakeRoom(dispatch::Lane lane);

  EventLoop& loop_;
  Process& process_;
  Supervisor& supervisor_;
  const Hooks hooks_;
  std::map<uint16_t, Worker> workers_;  // by participant
  uint32_t taken_ = 0;
  EventLoop::TimerId trim_timer_{};
};

}  // namespace praas::host
