#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <functional>

#include "dispatch/doorbell.h"
#include "dispatch/participant.h"
#include "host/calls.h"
#include "host/process.h"
#include "host/reclaim.h"
#include "segment/robust_mutex.h"

namespace praas::host {

/// What has gone on for too long: calls past their deadline that no worker answers, calls that wait although a worker
/// has nothing to do, and internal mutexes whose owner does not get on. Workers watch their own calls; this is for
/// queued ones and for workers that stand still. I/O thread.
class Deadlines {
 public:
  /// `kill`: this participant has to end; `why` is for the log.
  Deadlines(Process& process, Calls& calls, Reclaim& reclaim,
            std::function<void(uint16_t participant, const std::string& why)> kill);

  /// Between two passes while calls wait.
  static constexpr uint64_t kTickNs = 50'000'000;
  /// One pass over the call table and the mutexes. Returns how many calls are in the table.
  uint32_t Tick(uint64_t now_ns);

 private:
  using Workers = std::bitset<dispatch::kMaxParticipants>;
  /// A worker that was asked whether it gets on.
  struct Idle {
    uint64_t attached_ns = 0;  // the next one in its place attaches later
    uint32_t passes = 0;       // while calls waited, since it was asked
  };

  void Expire(uint32_t index, const dispatch::CallWord& word);
  void WatchIdle(const Workers& busy, const dispatch::LaneSet& waiting);
  void SampleMutexes(uint64_t now_ns);

  Process& process_;
  Calls& calls_;
  Reclaim& reclaim_;
  std::function<void(uint16_t, const std::string&)> kill_;
  std::array<Idle, dispatch::kMaxParticipants> idle_{};  // by participant
  std::array<segment::StuckWatch, 4> watches_;           // data arena, pool inputs, pool outputs, state
};

}  // namespace praas::host
