#include "host/reclaim.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "base/clock.h"
#include "dispatch/participant.h"

namespace praas::host {
namespace {

using dispatch::CallEntry;
using dispatch::CallState;
using dispatch::CallWord;
using dispatch::Dispatcher;
using dispatch::Origin;
using dispatch::ParticipantState;
using segment::Block;
using segment::BlockOwner;

/// A mutex whose owner is stuck is freed by killing the owner, which takes less.
constexpr uint64_t kReclaimNs = 10'000'000'000;
/// No origin names a call like this.
constexpr uint64_t kNoCall = UINT64_MAX;

bool Names(const std::vector<uint32_t>& sorted, uint32_t call) {
  return std::binary_search(sorted.begin(), sorted.end(), call);
}

}  // namespace

Reclaim::Reclaim(Process& process, Calls& calls, WindowHost& windows, StateService& service,
                 std::function<void(uint16_t)> released)
    : process_(process), calls_(calls), windows_(windows), service_(service), released_(std::move(released)) {}

void Reclaim::WorkerEnded(uint16_t dead, std::string crashed) {
  process_.segment->participant(dead).state.store(static_cast<uint32_t>(ParticipantState::kDead));
  ++pending_;
  // Its calls whose half-written results go. Streams keep their blocks until their session has taken its hands off
  // them.
  auto ran = std::make_shared<std::vector<uint32_t>>();
  for (uint32_t index = 0; index < calls_.capacity(); ++index) {
    const CallWord word = calls_.word(index);
    const bool running = word.state == CallState::kClaimed || word.state == CallState::kCompleting;
    if (running && word.owner == dead && calls_.entry(index).kind != dispatch::CallKind::kStream) ran->push_back(index);
  }
  service_.Chore(
      [&process = process_, dead, ran] {
        const auto of_dead = [dead](uint32_t, const Block& block) {
          return block.owner.kind == BlockOwner::Kind::kParticipant && block.owner.participant == dead;
        };
        (void)process.pool->inputs().ReclaimIf(of_dead, DeadlineIn(kReclaimNs));
        (void)process.pool->outputs().ReclaimIf(
            [&](uint32_t index, const Block& block) {
              return of_dead(index, block) ||
                     (block.owner.kind == BlockOwner::Kind::kCall && Names(*ran, block.owner.id));
            },
            DeadlineIn(kReclaimNs));
      },
      [this, dead, ran, crashed = std::move(crashed)] {
        // What they named there is gone. The room a window's client gave stays, for a call that is run again.
        for (const uint32_t index : *ran) {
          CallEntry& entry = calls_.entry(index);
          if (entry.output.place != dispatch::Place::kWindow) entry.output = {};
        }
        ReclaimCalls(dead, crashed);
      });
}

void Reclaim::ReclaimCalls(uint16_t dead, const std::string& crashed) {
  std::vector<uint32_t> failed;
  std::vector<uint32_t> dropped;
  windows_.KeepFromOthers(dead);
  process_.dispatcher->ReclaimParticipant(dead, [&](uint32_t index, Dispatcher::Orphan what) {
    if (what == Dispatcher::Orphan::kFail) return failed.push_back(index);
    // Not posted: whoever consumes the submission again must not find it in the table, where it stays until its blocks
    // are freed.
    calls_.entry(index).origin_call = kNoCall;
    dropped.push_back(index);
  });
  const uint64_t now = NowNs();
  for (const uint32_t index : failed) {
    // Most often it is why the worker was killed, before anybody came to say so.
    const uint64_t deadline = calls_.entry(index).deadline_ns;
    const bool overdue = deadline != 0 && deadline <= now;
    Fail(index, overdue ? Status(Code::kInvocationTimeout, "its worker has ended, after the deadline")
                        : Status(Code::kWorkerCrashed, crashed));
  }
  Drop(std::move(dropped));
  windows_.Reclaim(dead);
  process_.header().repairs.fetch_add(1);
  ReclaimState(dead);
}

void Reclaim::Fail(uint32_t index, const Status& why) {
  CallEntry& entry = calls_.entry(index);
  if (entry.origin == Origin::kWindow) {
    entry.input = {};
    return windows_.Fail(index, why);
  }
  const std::span<std::byte> slot = process_.pool->slot_output(index);
  const size_t bytes = std::min(slot.size(), why.message().size());
  std::memcpy(slot.data(), why.message().data(), bytes);
  entry.output = process_.pool->OutputSlot(index, bytes);
  entry.status = static_cast<uint32_t>(why.code());
  // An entry taken back while it was queued is done, in the host's name: its origin is told like of any other.
  CallWord word = calls_.word(index);
  if (word.state == CallState::kDone) {
    word.state = CallState::kCompleting;
    entry.word.store(word.Pack(), std::memory_order_release);
  }
  process_.dispatcher->FinishCompletion(index);
}

/// Entries nobody waits for. Their blocks go first: these are owned in the entries' name.
void Reclaim::Drop(std::vector<uint32_t> entries) {
  if (entries.empty()) return;
  std::sort(entries.begin(), entries.end());
  ++pending_;
  auto dropped = std::make_shared<std::vector<uint32_t>>(std::move(entries));
  service_.Chore(
      [&process = process_, dropped] {
        const auto of_dropped = [&](uint32_t, const Block& block) {
          return block.owner.kind == BlockOwner::Kind::kCall && Names(*dropped, block.owner.id);
        };
        (void)process.pool->inputs().ReclaimIf(of_dropped, DeadlineIn(kReclaimNs));
        (void)process.pool->outputs().ReclaimIf(of_dropped, DeadlineIn(kReclaimNs));
      },
      [this, dropped] {
        --pending_;
        for (const uint32_t index : *dropped) {
          calls_.entry(index).input = {};
          calls_.entry(index).output = {};
          calls_.Free(index);
        }
      });
}

void Reclaim::ReclaimState(uint16_t dead) {
  auto stuck = std::make_shared<bool>();
  service_.Chore(
      [&process = process_, dead, stuck] {
        const Status status = process.state->ReclaimParticipant(dead, DeadlineIn(kReclaimNs));
        *stuck = status.code() == Code::kSegmentStuck;
      },
      [this, dead, stuck] {
        // Nobody else would release its locks, and who came in its place would have them.
        if (*stuck) return stuck_.push_back(dead);
        --pending_;
        graves_.push_back(dead);
        Tick();
      });
}

void Reclaim::Tick() {
  for (const uint16_t dead : std::exchange(stuck_, {})) ReclaimState(dead);
  for (size_t i = 0; i < graves_.size();) {
    const uint16_t dead = graves_[i];
    std::vector<uint32_t> finished;
    while (const std::optional<uint32_t> index = process_.dispatcher->DropFinished(dead)) finished.push_back(*index);
    const bool named = !finished.empty() || process_.dispatcher->IsOrigin(dead);
    Drop(std::move(finished));
    if (named) {
      ++i;
      continue;
    }
    graves_.erase(graves_.begin() + static_cast<std::ptrdiff_t>(i));
    released_(dead);
  }
}

}  // namespace praas::host
