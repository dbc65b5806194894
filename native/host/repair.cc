#include "host/repair.h"

#include <csignal>
#include <string>
#include <vector>

#include "base/pidfd.h"
#include "dispatch/participant.h"
#include "dispatch/stream_ring.h"

namespace praas::host {

using dispatch::Participant;
using dispatch::ParticipantState;

Status EndFormerWorkers(const segment::Segment& segment, uint64_t deadline_ns) {
  // All signals first, then the waits: workers end side by side.
  std::vector<Pidfd> ending;
  const uint32_t committed = segment.header().participants.committed.load();
  for (uint32_t index = 1; index < committed; ++index) {
    const Participant& worker = segment.participant(index);
    const ProcessId id{worker.pid.load(), worker.pid_start_time};
    if (id.pid <= 0 || id == ProcessId::Self()) continue;
    Result<std::optional<Pidfd>> pidfd = Pidfd::Open(id);
    if (!pidfd.ok()) return pidfd.status().WithContext("former worker " + std::to_string(index));
    if (!pidfd->has_value()) continue;
    if (Status status = (*pidfd)->Signal(SIGKILL); !status.ok()) return status;
    ending.push_back(*std::move(*pidfd));
  }
  for (const Pidfd& worker : ending) {
    const Result<bool> ended = worker.WaitEnd(deadline_ns);
    if (!ended.ok()) return ended.status();
    if (!ended.value()) {
      return Status(Code::kSegmentStuck,
                    "former worker " + std::to_string(worker.id().pid) + " was killed but does not end");
    }
  }
  return Status::Ok();
}

void ForgetFormerHost(const segment::Segment& segment) {
  segment::Header& header = segment.header();
  header.function_count.store(0);
  header.function_hash.store(0);
  for (uint32_t index = 0; index < header.participants.committed.load(); ++index) {
    Participant& participant = segment.participant(index);
    participant.state.store(static_cast<uint32_t>(ParticipantState::kFree));
    participant.pid.store(0);
    participant.pid_start_time = 0;
  }
  for (uint32_t index = 0; index < header.windows.committed.load(); ++index) {
    segment::WindowSlot& window = segment.window(index);
    window.state.store(0);
    window.poller.store(0);
    window.consumer.store(0);
    window.generation.fetch_add(1);
  }
  for (uint32_t index = 0; index < header.streams.committed.load(); ++index) {
    segment.At<dispatch::StreamRing>(header.streams, index).in_use.store(0);
  }
}

}  // namespace praas::host
