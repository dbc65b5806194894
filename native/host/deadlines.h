#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "host/calls.h"
#include "host/process.h"
#include "host/reclaim.h"
#include "segment/robust_mutex.h"

namespace praas::host {

/// What has gone on for too long: calls past their deadline that no worker answers, and internal mutexes whose owner
/// does not get on. Workers watch their own calls; this is for queued ones and for workers that are stopped. I/O
/// thread.
class Deadlines {
 public:
  /// `kill`: this participant has to end; `why` is for the log.
  Deadlines(Process& process, Calls& calls, Reclaim& reclaim,
            std::function<void(uint16_t participant, const std::string& why)> kill);

  /// One pass over the call table and the mutexes. Returns how many calls are in the table.
  uint32_t Tick(uint64_t now_ns);

 private:
  void Expire(uint32_t index, const dispatch::CallWord& word);
  void SampleMutexes(uint64_t now_ns);

  Process& process_;
  Calls& calls_;
  Reclaim& reclaim_;
  std::function<void(uint16_t, const std::string&)> kill_;
  std::array<segment::StuckWatch, 4> watches_;  // data arena, pool inputs, pool outputs, state
};

}  // namespace praas::host
