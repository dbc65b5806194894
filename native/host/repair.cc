#include "host/repair.h"

#include <dirent.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/pidfd.h"
#include "dispatch/participant.h"
#include "dispatch/stream_ring.h"

namespace praas::host {

using dispatch::Participant;
using dispatch::ParticipantState;

namespace {

std::set<pid_t> GroupsOfThisSession() {
  std::set<pid_t> groups;
  const std::unique_ptr<DIR, int (*)(DIR*)> processes(::opendir("/proc"), ::closedir);
  while (const dirent* entry = processes ? ::readdir(processes.get()) : nullptr) {
    const std::string_view name = entry->d_name;
    pid_t pid = 0;
    std::from_chars(name.data(), name.data() + name.size(), pid);
    if (pid > 0 && ::getsid(pid) == ::getsid(0)) groups.insert(::getpgid(pid));
  }
  return groups;
}

}  // namespace

Status EndFormerWorkers(const segment::Segment& segment, uint64_t deadline_ns) {
  const std::set<pid_t> groups = GroupsOfThisSession();
  // All signals first, then the waits: workers end side by side.
  std::vector<Pidfd> ending;
  const uint32_t committed = segment.header().participants.committed.load();
  for (uint32_t index = 1; index < committed; ++index) {
    const Participant& worker = segment.participant(index);
    const ProcessId id{worker.pid.load(), worker.pid_start_time};
    // 1 is no worker, and kill(-1) would reach everybody. Whatever a record says, this host and its agent are no
    // worker's.
    if (id.pid <= 1 || id == ProcessId::Self() || id.pid == ::getpgrp()) continue;
    Result<std::optional<Pidfd>> pidfd = Pidfd::Open(id);
    if (!pidfd.ok()) return pidfd.status().WithContext("former worker " + std::to_string(index));
    // What its functions have forked goes with it, and is still there when the worker has ended with its host. Its pid
    // is nobody else's while its group has members; but should the group have gone and the pid been used again, then
    // what has that number may be a stranger's: a process, or a group whose first process has ended, of a daemon say.
    // Hosts and workers of one agent are of one session.
    const bool here = pidfd->has_value();
    if (here || (!ProcessId::Of(id.pid) && groups.contains(id.pid))) ::kill(-id.pid, SIGKILL);
    if (!here) continue;
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
