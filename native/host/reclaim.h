#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "host/calls.h"
#include "host/process.h"
#include "host/state_service.h"
#include "host/window_host.h"

namespace praas::host {

/// Puts right what a worker leaves behind when it ends: answers what it ran with kWorkerCrashed (or queues it again
/// when it is idempotent), frees its blocks, pins and locks, and gives its window rings back. I/O thread, with the
/// parts that wait on the service thread.
///
/// Order: blocks before calls (while an entry still names the dead worker nobody else allocates in its name, and what
/// is answered afterwards refers to nothing that is gone), then calls, then state; last the participant's slot is free
/// again.
class Reclaim {
 public:
  Reclaim(Process& process, Calls& calls, WindowHost& windows, StateService& service,
          std::function<void(uint16_t participant)> released);

  /// `crashed` is what callers get as the message of kWorkerCrashed.
  void WorkerEnded(uint16_t dead, std::string crashed);
  /// Looks for calls of dead origins that have finished elsewhere, and tries again what internal mutexes were not to be
  /// had for.
  void Tick();
  [[nodiscard]] bool busy() const noexcept { return !graves_.empty() || pending_ > 0; }

  /// Answers a call nobody runs any more and that is in state completing(host) or done(host).
  void Fail(uint32_t index, const Status& why);

 private:
  void ReclaimCalls(uint16_t dead, const std::string& crashed);
  void Drop(std::vector<uint32_t> entries);
  void ReclaimState(uint16_t dead);

  Process& process_;
  Calls& calls_;
  WindowHost& windows_;
  StateService& service_;
  std::function<void(uint16_t)> released_;
  std::vector<uint16_t> graves_;  // whose slots wait until no call names them as its origin
  std::vector<uint16_t> stuck_;   // whose state is still to be reclaimed
  uint32_t pending_ = 0;
};

}  // namespace praas::host
