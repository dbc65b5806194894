#pragma once

#include <cstdlib>
#include <string>
#include <vector>

#include "base/process_id.h"
#include "host/host_fixture.h"

namespace praas::test {

/// For hosts whose workers are OS processes.
inline const std::vector<std::string> kWorkerCommand = {PRAAS_TEST_WORKER};

/// Of a worker, or with kFork of a child it has made.
inline pid_t PidOf(Driver& client, uint32_t function = fn::kPid) {
  const Driver::Outcome outcome = client.Call(function, {});
  EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
  return static_cast<pid_t>(std::atoi(AsText(outcome.payload).c_str()));
}
inline bool Gone(pid_t pid) { return !ProcessId::Of(pid).has_value() || !ProcessId::Of(pid)->Alive(); }

/// Of a worker that is there.
inline uint16_t ParticipantOf(const segment::Segment& segment, pid_t worker) {
  uint16_t participant = 1;
  while (segment.participant(participant).pid.load() != worker) ++participant;
  return participant;
}

}  // namespace praas::test
