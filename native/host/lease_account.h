#pragma once

#include <cstdint>

#include "base/json_writer.h"
#include "dispatch/participant.h"

namespace praas::host {

/// What a lease has used. Times in nanoseconds, summed over workers.
struct LeaseAccount {
  uint64_t allocated_ns = 0;  // workers were there for it
  uint64_t polling_ns = 0;    // awake and in no function
  uint64_t execution_ns = 0;  // inside functions
  uint64_t calls = 0;         // that ended, one way or another
  uint64_t failures = 0;      // of these, with an error
  uint64_t bytes_in = 0;      // payloads of calls
  uint64_t bytes_out = 0;     // and of results

  LeaseAccount& operator+=(const LeaseAccount& other) noexcept;
  void WriteFields(JsonWriter& json) const;
};

/// Measures one worker for one lease, by the counters the worker keeps in the segment anyway: a call costs nothing more
/// for being accounted, and what a worker that was killed has done is there still.
class LeaseMeter {
 public:
  /// From now on. `participant` must outlive the meter's last Read.
  void Begin(const dispatch::Participant& participant, uint64_t now_ns) noexcept;
  /// Until now, or until Stop. Of a worker that died: before its participant is used again.
  [[nodiscard]] LeaseAccount Read(uint64_t now_ns) const noexcept;
  /// What Read gives from here on. `died`: what it ran has ended with it.
  void Stop(uint64_t now_ns, bool died) noexcept;

 private:
  struct Counted {
    uint64_t calls = 0, failures = 0, bytes_in = 0, bytes_out = 0, busy_ns = 0, awake_ns = 0;
  };
  [[nodiscard]] static Counted Look(const dispatch::Participant& participant, uint64_t now_ns) noexcept;

  const dispatch::Participant* participant_ = nullptr;  // nullptr: stopped
  uint64_t begun_ns_ = 0;
  Counted before_;
  LeaseAccount stopped_;
};

}  // namespace praas::host
