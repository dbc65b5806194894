#pragma once

#include <gtest/gtest.h>

#include "base/clock.h"
#include "dispatch/participant.h"
#include "host/host_fixture.h"
#include "segment/segment.h"
#include "state/state_layout.h"

namespace praas::test {

/// While it lives, nobody else has the mutex of a process's state. In the host's name, which nobody kills for it. Ends
/// on the thread that made it.
class KeptState {
 public:
  explicit KeptState(const TestProcess& process)
      : segment_(segment::Segment::Open(process.assignment.segment, true).value()) {
    EXPECT_TRUE(segment::Holds(mutex().Lock(dispatch::kHostParticipant, DeadlineIn(kWatchdogNs))));
  }
  ~KeptState() { mutex().Unlock(); }
  KeptState(const KeptState&) = delete;

 private:
  [[nodiscard]] segment::RobustMutex& mutex() const {
    return reinterpret_cast<state::StateHead*>(segment_.base() + segment_.header().state_head)->mutex;
  }

  segment::Segment segment_;
};

}  // namespace praas::test
