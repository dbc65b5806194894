#include "worker/nested.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/clock.h"
#include "base/spin.h"
#include "dispatch/stream_channel.h"

namespace praas::worker {
namespace {

using dispatch::CallEntry;
using dispatch::CallState;
using dispatch::CallWord;
using dispatch::PayloadRef;
using dispatch::Place;

/// A call that calls itself must end as an error and not with a full call table.
constexpr uint16_t kMaxDepth = 64;

/// How long WaitNested polls before it blocks: a small call on a hot worker is back within a microsecond or two.
constexpr uint64_t kSpinNs = 50'000;
/// Fruitless looks at the completions, some 2 µs, before anything dearer than them.
constexpr uint32_t kStepsBeforeLooking = 32;

constexpr uint64_t Name(uint32_t index, uint32_t generation) noexcept {
  return static_cast<uint64_t>(generation) << 32 | (index + 1);
}

}  // namespace

std::optional<uint32_t> NestedCalls::FindFunction(std::string_view name) {
  RefreshFunctions();
  const auto found = functions_.find(std::string(name));
  if (found == functions_.end()) return std::nullopt;
  return found->second;
}

void NestedCalls::RefreshFunctions() {
  const segment::Header& header = core_.segment.header();
  const uint32_t count = std::min({header.function_count.load(std::memory_order_acquire), segment::kMaxFunctions,
                                   header.functions.committed.load(std::memory_order_acquire)});
  const uint32_t hash = header.function_hash.load(std::memory_order_acquire);
  if (functions_.size() == count && known_hash_ == hash) return;
  functions_.clear();
  for (uint32_t index = 0; index < count; ++index) {
    const segment::Name& name = core_.segment.function(index).name;
    functions_.emplace(std::string(name.bytes, std::min<size_t>(name.size, segment::kMaxName)), index);
  }
  known_hash_ = hash;
}

Result<uint64_t> NestedCalls::Post(uint32_t function, std::span<const std::byte> input, uint32_t flags, uint16_t depth,
                                   uint64_t deadline_ns) {
  if (depth > kMaxDepth) {
    return Status(Code::kInvocationDeadlock,
                  "calls within the process are nested more than " + std::to_string(kMaxDepth) + " deep");
  }
  if (input.size() > core_.attach.max_contiguous) {
    return Status(Code::kPayloadTooLarge, "an input of " + std::to_string(input.size()) +
                                              " bytes exceeds the limit of " +
                                              std::to_string(core_.attach.max_contiguous));
  }
  const auto reserved = core_.dispatcher->Reserve();
  if (!reserved) return Status(Code::kBackpressure, "the call table of the process is full");
  CallEntry& entry = core_.segment.call(*reserved);
  if (Status status = PutInput(entry, *reserved, input); !status.ok()) {
    core_.dispatcher->ReleaseReserved(*reserved);
    return status;
  }
  const uint64_t now = NowNs();
  entry.function = function;
  entry.origin_index = core_.self;
  entry.origin = dispatch::Origin::kWorker;
  entry.kind = dispatch::CallKind::kInvoke;
  entry.deadline_ns = deadline_ns == kNoDeadline ? now + core_.attach.default_timeout_ns : deadline_ns;
  entry.flags = static_cast<uint16_t>(flags);
  entry.depth = depth;
  entry.output = PayloadRef{};
  entry.status = 0;
  entry.connection_index = 0;
  entry.claimed_ns = 0;
  entry.queued_ns = now;
  entry.stream = 0;
  entry.deaths = 0;
  const uint32_t generation = CallWord::Unpack(entry.word.load(std::memory_order_relaxed)).generation;
  const uint64_t call = Name(*reserved, generation);
  entry.origin_call = call;
  calls_[*reserved] = Call{.generation = generation};
  core_.dispatcher->Post(*reserved);
  return call;
}

Status NestedCalls::PutInput(CallEntry& entry, uint32_t index, std::span<const std::byte> input) {
  entry.input = PayloadRef{};
  if (input.empty()) return Status::Ok();
  if (input.size() <= dispatch::kSlotInputBytes) {
    entry.input = core_.pool->InputSlot(index, input.size());
    if (Status status = core_.pool->Write(entry.input, input); !status.ok()) return status;
    Core::Count(core_.me.counters.staged_bytes, input.size());
    return Status::Ok();
  }
  auto block = core_.pool->inputs().Allocate(input.size(), dispatch::CallBlockOwner(index), DeadlineIn(kArenaWaitNs));
  if (!block.ok()) {
    return block.status().WithContext("memory for an input of " + std::to_string(input.size()) + " bytes");
  }
  const PayloadRef ref{
      .offset = block->offset, .bytes = input.size(), .block = block->block, .place = Place::kPoolInput};
  if (Status status = core_.pool->Write(ref, input); !status.ok()) {
    (void)core_.pool->inputs().Free(ref.block, DeadlineIn(kArenaWaitNs));
    return status;
  }
  Core::Count(core_.me.counters.copied_bytes, input.size());
  entry.input = ref;
  return Status::Ok();
}

NestedCalls::Call* NestedCalls::Find(uint64_t call) {
  const auto found = calls_.find(static_cast<uint32_t>(call) - 1);
  return found != calls_.end() && found->second.generation == call >> 32 ? &found->second : nullptr;
}

void NestedCalls::Collect() {
  while (!calls_.empty()) {
    const auto index = core_.dispatcher->NextCompletion();
    if (!index) return;
    const auto found = calls_.find(*index);
    if (found == calls_.end() || found->second.done) continue;
    if (found->second.abandoned) {
      calls_.erase(found);
      FreeEntry(*index);
      continue;
    }
    found->second.done = true;
    finished_.push_back(*index);
  }
}

std::optional<NestedReply> NestedCalls::Next() {
  Collect();
  if (finished_.empty()) return std::nullopt;
  const uint32_t index = finished_.front();
  finished_.pop_front();
  return Reply(index);
}

NestedReply NestedCalls::Reply(uint32_t index) const {
  const CallEntry& entry = core_.segment.call(index);
  NestedReply reply;
  reply.call = Name(index, calls_.at(index).generation);
  const auto code = static_cast<Code>(entry.status);
  const PayloadRef output = entry.output;
  if (output.bytes > 0) {
    auto bytes = core_.pool->Resolve(output);
    if (!bytes.ok()) {
      reply.status = bytes.status();
      return reply;
    }
    reply.payload = bytes->first(output.bytes);
  }
  if (code != Code::kOk) {
    reply.status = Status(code, std::string(reinterpret_cast<const char*>(reply.payload.data()), reply.payload.size()));
    reply.payload = {};
  }
  return reply;
}

void NestedCalls::FreeEntry(uint32_t index) {
  const CallEntry& entry = core_.segment.call(index);
  const uint64_t deadline_ns = DeadlineIn(kArenaWaitNs);
  if (entry.input.place == Place::kPoolInput) (void)core_.pool->inputs().Free(entry.input.block, deadline_ns);
  // kPoolInput as output is the input's block again.
  if (entry.output.place == Place::kPoolOutput) (void)core_.pool->outputs().Free(entry.output.block, deadline_ns);
  core_.dispatcher->Free(index);
}

void NestedCalls::Free(uint64_t call) {
  Call* known = Find(call);
  if (known == nullptr) return;
  const auto index = static_cast<uint32_t>(call) - 1;
  if (!known->done) {
    known->abandoned = true;
    return Cancel(call);
  }
  std::erase(finished_, index);
  calls_.erase(index);
  FreeEntry(index);
}

void NestedCalls::Cancel(uint64_t call) {
  Call* known = Find(call);
  if (known == nullptr || known->done) return;
  const auto index = static_cast<uint32_t>(call) - 1;
  if (!core_.dispatcher->Cancel(index, known->generation, Code::kInvocationCancelled)) return;
  if (known->abandoned) {
    calls_.erase(index);
    return FreeEntry(index);
  }
  known->done = true;
  finished_.push_back(index);
}

bool NestedCalls::Stuck(uint32_t index, uint32_t generation) const noexcept {
  // A worker that takes the call goes from "bell in its credit" over "idle" to "call claimed". Looking twice at all
  // three in this order cannot miss it: what hid in the step between is seen as idle or as a claim the second time.
  for (int look = 0; look < 2; ++look) {
    if (core_.dispatcher->WorkerIdle(core_.dispatcher->LaneOf(core_.segment.call(index).function))) return false;
    const uint64_t bell = dispatch::PackCredit({index, generation});
    const uint32_t committed = core_.segment.header().participants.committed.load(std::memory_order_acquire);
    for (uint32_t other = 1; other < committed; ++other) {
      if (core_.segment.participant(other).credit.load(std::memory_order_seq_cst) == bell) return false;
    }
    const CallWord word = CallWord::Unpack(core_.segment.call(index).word.load(std::memory_order_seq_cst));
    if (word.generation != generation || word.state != CallState::kQueued) return false;
  }
  return true;
}

Result<NestedReply> NestedCalls::Wait(uint64_t call, uint64_t deadline_ns) {
  Call* known = Find(call);
  if (known == nullptr) return Status(Code::kArgumentInvalid, "no such call");
  const auto index = static_cast<uint32_t>(call) - 1;
  const uint32_t generation = known->generation;

  const uint64_t spin_until_ns = std::min(DeadlineIn(kSpinNs), deadline_ns);
  SpinYield spin;
  for (;;) {
    Collect();
    known = Find(call);
    if (known->done) {
      std::erase(finished_, index);
      return Reply(index);
    }
    spin.Step();
    if (spin.steps() % kStepsBeforeLooking != 0) continue;
    const uint64_t now = NowNs();
    if (now >= deadline_ns) {
      Free(call);
      return Status(Code::kInvocationTimeout, "the synchronous call did not end before its deadline");
    }
    // Looking for a free worker takes cache lines from the one that is about to answer, so not at first.
    if (spin.steps() == kStepsBeforeLooking && Stuck(index, generation) &&
        core_.dispatcher->Cancel(index, generation, Code::kInvocationDeadlock)) {
      calls_.erase(index);
      FreeEntry(index);
      return Status(Code::kInvocationDeadlock,
                    "a synchronous call to the own process needs a free worker and there is none; use the asynchronous "
                    "form, or start more workers");
    }
    if (now < spin_until_ns) continue;
    core_.dispatcher->AnnounceSleep(dispatch::Takes::kNothing);
    if (!core_.dispatcher->HasCompletion()) {
      pollfd event{core_.event.get(), POLLIN, 0};
      if (::poll(&event, 1, PollTimeoutMs(deadline_ns)) > 0) {
        // Whatever else it was signalled for stays noted where PrepareToSleep looks.
        uint64_t count = 0;
        [[maybe_unused]] const ssize_t taken = ::read(core_.event.get(), &count, sizeof count);
      }
    }
    core_.dispatcher->AnnounceAwake();
  }
}

}  // namespace praas::worker
