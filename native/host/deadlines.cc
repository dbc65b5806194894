#include "host/deadlines.h"

#include <algorithm>

#include "base/clock.h"
#include "base/process_id.h"

namespace praas::host {
namespace {

using dispatch::CallState;
using dispatch::CallWord;
using dispatch::Lane;
using dispatch::Participant;

/// A worker answers at the deadline and ends itself after the grace time; one that has done neither so much later
/// cannot.
constexpr uint64_t kSlackNs = 250'000'000;
/// Queued for so long without a claim: its bit may have been cleared by a worker that was stopped before it could
/// claim.
constexpr uint64_t kUnclaimedNs = 10'000'000;
/// What a worker without a call gets, on top of the grace time, to take one that waits. It needs microseconds; but its
/// functions may have left something behind that they do between calls.
constexpr uint64_t kIdleNs = 2'000'000'000;

[[nodiscard]] Lane LaneOf(const CallWord& word) noexcept {
  return (word.flags & dispatch::kWordNative) != 0 ? Lane::kNative : Lane::kNode;
}
[[nodiscard]] Lane LaneOf(const Participant& worker) noexcept {
  return worker.kind == static_cast<uint32_t>(WorkerKind(Lane::kNative)) ? Lane::kNative : Lane::kNode;
}

}  // namespace

Deadlines::Deadlines(Process& process, Calls& calls, Reclaim& reclaim,
                     std::function<void(uint16_t, const std::string&)> kill)
    : process_(process), calls_(calls), reclaim_(reclaim), kill_(std::move(kill)) {}

uint32_t Deadlines::Tick(uint64_t now_ns) {
  const uint64_t grace_ns = process_.assignment.grace_ms * 1'000'000 + kSlackNs;
  uint32_t in_use = 0;
  Workers busy;
  dispatch::LaneSet waiting{};
  for (uint32_t index = 0; index < calls_.capacity(); ++index) {
    if (calls_.word(index).state == CallState::kFree) continue;
    ++in_use;
    const std::optional<Calls::View> view = calls_.Look(index);
    if (!view) continue;
    // A call without a deadline is a client's slip: it gets the default, and while it runs its worker sees to that.
    const bool has_deadline = view->deadline_ns != 0;
    const uint64_t default_ns = process_.assignment.timeout_ms * 1'000'000;
    const bool late = has_deadline ? view->deadline_ns <= now_ns : now_ns > view->queued_ns + default_ns;
    switch (view->word.state) {
      case CallState::kQueued:
        if (now_ns > view->queued_ns + kUnclaimedNs) {
          waiting[static_cast<size_t>(LaneOf(view->word))] = true;
          if (!late) process_.dispatcher->Ring(index);
        }
        if (late) Expire(index, view->word);
        break;
      case CallState::kClaimed:
      case CallState::kCompleting:
        if (view->word.owner < busy.size()) busy.set(view->word.owner);
        if (view->word.owner != dispatch::kHostParticipant && late && has_deadline &&
            now_ns - view->deadline_ns > grace_ns) {
          kill_(view->word.owner, "a call of it is past its deadline and grace time and it does not answer");
        }
        break;
      case CallState::kParked:
        // The client was told of the deadline by its own side; nobody will come for the result.
        if (late && process_.dispatcher->Unpark(index, view->origin_index, view->origin_call)) {
          reclaim_.Fail(index,
                        Status(Code::kInvocationTimeout, "no room for the result was given before the deadline"));
        }
        break;
      default:
        break;
    }
  }
  WatchIdle(busy, waiting);
  SampleMutexes(now_ns);
  return in_use;
}

/// While calls wait, a worker that runs none takes one, or others are quicker; or it is not able to: it is stopped, or
/// code that a function has left behind never returns. Who is able takes at least the notice that asks. One that runs a
/// call, however little it does, has until the deadline of that.
void Deadlines::WatchIdle(const Workers& busy, const dispatch::LaneSet& waiting) {
  if (std::ranges::find(waiting, true) == waiting.end()) return;
  // Counted in passes and not in time: when nothing on this machine gets on, neither does this thread.
  const uint64_t most = (process_.assignment.grace_ms * 1'000'000 + kIdleNs) / kTickNs;
  const uint32_t committed = process_.header().participants.committed.load(std::memory_order_acquire);
  for (uint32_t index = 1; index < committed; ++index) {
    const Participant& worker = process_.segment->participant(index);
    if (!waiting[static_cast<size_t>(LaneOf(worker))]) continue;
    Idle& idle = idle_[index];
    const uint64_t attached_ns = worker.counters.attached_ns.load();
    const bool ready = worker.state.load() == static_cast<uint32_t>(dispatch::ParticipantState::kReady);
    if (!ready || busy.test(index)) {
      idle.passes = 0;
    } else if (idle.passes == 0 || idle.attached_ns != attached_ns ||
               (worker.notices.load() & dispatch::kNoticeProbe) == 0) {
      idle = {.attached_ns = attached_ns, .passes = 1};
      process_.dispatcher->Notify(static_cast<uint16_t>(index), dispatch::kNoticeProbe);
    } else if (++idle.passes > most) {
      idle.passes = 0;
      kill_(static_cast<uint16_t>(index), "calls wait, and it has none and takes none");
    }
  }
}

void Deadlines::Expire(uint32_t index, const CallWord& word) {
  if (!process_.dispatcher->Cancel(index, word.generation, Code::kInvocationTimeout)) return;
  reclaim_.Fail(index, Status(Code::kInvocationTimeout, "no worker was free before the deadline"));
}

void Deadlines::SampleMutexes(uint64_t now_ns) {
  const segment::RobustMutex* mutexes[] = {&process_.data->mutex(), &process_.pool->inputs().mutex(),
                                           &process_.pool->outputs().mutex(), &process_.state->mutex()};
  for (size_t i = 0; i < watches_.size(); ++i) {
    const std::optional<segment::RobustMutex::Owner> stuck = watches_[i].Sample(*mutexes[i], now_ns);
    if (!stuck) continue;
    uint16_t participant = stuck->participant;
    if (participant == segment::kUnknownParticipant) {
      // Caught in the few instructions around locking: the thread tells.
      const std::optional<ProcessId> owner = ProcessId::OfThread(stuck->tid);
      for (uint32_t index = 1; owner && index < process_.header().participants.committed.load(); ++index) {
        if (process_.segment->participant(index).pid.load() == owner->pid) participant = static_cast<uint16_t>(index);
      }
    }
    if (participant == segment::kUnknownParticipant || participant == dispatch::kHostParticipant) continue;
    kill_(participant, "it holds an internal lock and does not get on");
  }
}

}  // namespace praas::host
