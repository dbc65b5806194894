#include "host/calls.h"

#include <algorithm>

#include "base/clock.h"
#include "dispatch/stream_channel.h"

namespace praas::host {
namespace {

using dispatch::CallEntry;
using dispatch::CallState;
using dispatch::CallWord;
using dispatch::Place;

/// A call that nobody has claimed by then is rung for: the worker whose credit it took may be stopped. Those that were
/// rung for already wait for the next tick (deadlines.cc): a timer so short costs as much as a wake-up.
constexpr uint64_t kUnclaimedNs = 1'000'000;

/// The fields of an entry that may be given to another call at this moment: the word tells afterwards whether they are
/// of one piece. Not instrumented by ThreadSanitizer, which knows no such read.
__attribute__((noinline, no_sanitize("thread"))) Calls::View ReadFields(const CallEntry& entry) noexcept {
  const volatile CallEntry& racing = entry;
  Calls::View view{};
  view.origin = racing.origin;
  view.kind = racing.kind;
  view.origin_index = racing.origin_index;
  view.connection_index = racing.connection_index;
  view.origin_call = racing.origin_call;
  view.deadline_ns = racing.deadline_ns;
  view.queued_ns = racing.queued_ns;
  return view;
}

}  // namespace

Calls::Calls(EventLoop& loop, Process& process, std::function<void()> room)
    : loop_(loop), process_(process), room_(std::move(room)), capacity_(process.header().calls.capacity) {}

Calls::~Calls() {
  loop_.CancelTimer(posted_timer_);
  loop_.CancelTimer(retry_timer_);
}

CallWord Calls::word(uint32_t index) const noexcept {
  return CallWord::Unpack(entry(index).word.load(std::memory_order_acquire));
}

std::optional<Calls::View> Calls::Look(uint32_t index) const noexcept {
  const CallWord before = word(index);
  if (before.state == CallState::kFree || before.state == CallState::kReserved) return std::nullopt;
  View view = ReadFields(entry(index));
  std::atomic_thread_fence(std::memory_order_acquire);
  const CallWord after = word(index);
  if (after.generation != before.generation) return std::nullopt;
  view.word = after;
  return view;
}

uint32_t Calls::generation(uint32_t index) const noexcept { return word(index).generation; }

std::optional<uint32_t> Calls::TryReserve() {
  activity_ = true;
  std::optional<uint32_t> index = process_.dispatcher->Reserve();
  if (!index) {
    wanted_ = true;
    ArmRetry();  // entries are freed by workers, too, who do not tell
  }
  return index;
}

std::optional<Result<Calls::Begun>> Calls::TryBegin(const Request& request) {
  const std::optional<uint32_t> index = TryReserve();
  if (!index) return std::nullopt;
  dispatch::PayloadRef input;
  std::span<std::byte> memory;
  if (request.input_bytes > dispatch::kSlotInputBytes) {
    segment::Arena& arena = process_.pool->inputs();
    std::optional<Result<segment::Arena::Allocation>> block =
        arena.TryAllocate(request.input_bytes, dispatch::CallBlockOwner(*index));
    if (!block || !block->ok()) {
      process_.dispatcher->ReleaseReserved(*index);
      if (block && request.input_bytes > arena.usage().limit_bytes) {
        return Status(Code::kPayloadTooLarge, "input of " + std::to_string(request.input_bytes) +
                                                  " bytes; the process's pool takes " +
                                                  std::to_string(arena.usage().limit_bytes) + " at most");
      }
      wanted_ = true;
      ArmRetry();
      return std::nullopt;
    }
    input = {
        .offset = (*block)->offset, .bytes = request.input_bytes, .block = (*block)->block, .place = Place::kPoolInput};
    Result<std::span<std::byte>> bytes = process_.pool->Resolve(input);
    if (!bytes) {
      process_.dispatcher->ReleaseReserved(*index);
      return bytes.status();
    }
    memory = *bytes;
  } else if (request.input_bytes > 0) {
    input = process_.pool->InputSlot(*index, request.input_bytes);
    memory = process_.pool->slot_input(*index).first(request.input_bytes);
  }

  CallEntry& filled = entry(*index);
  filled.function = request.function;
  filled.origin = dispatch::Origin::kHost;
  filled.origin_index = 0;
  filled.kind = request.stream ? dispatch::CallKind::kStream : dispatch::CallKind::kInvoke;
  filled.origin_call = request.call;
  filled.deadline_ns = request.deadline_ns;
  filled.input = input;
  filled.flags = request.flags;
  filled.depth = 0;
  filled.output = {};
  filled.status = 0;
  filled.connection_index = request.session;
  filled.claimed_ns = 0;
  filled.queued_ns = 0;
  filled.stream = 0;
  filled.deaths = 0;
  return Begun{*index, memory};
}

void Calls::Post(uint32_t index) {
  activity_ = true;
  const Posted posted{index, generation(index), NowNs()};
  entry(index).queued_ns = posted.at_ns;
  if (!process_.dispatcher->Post(index)) return;
  posted_.push_back(posted);
  if (posted_.size() == 1) {
    loop_.CancelTimer(posted_timer_);
    posted_timer_ = loop_.At(posted.at_ns + kUnclaimedNs, [this] { CheckPosted(); });
  }
}

void Calls::CheckPosted() {
  const uint64_t now = NowNs();
  std::erase_if(posted_, [&](const Posted& posted) {
    const CallWord current = word(posted.index);
    if (current.generation != posted.generation || current.state != CallState::kQueued) return true;
    if (now - posted.at_ns < kUnclaimedNs) return false;
    process_.dispatcher->Ring(posted.index);  // its bit stays set until somebody claims: once is enough
    return true;
  });
  if (!posted_.empty()) posted_timer_ = loop_.At(posted_.front().at_ns + kUnclaimedNs, [this] { CheckPosted(); });
}

void Calls::Drop(uint32_t index) { Free(index); }

Calls::Outcome Calls::OutcomeOf(uint32_t index) const {
  constexpr std::string_view kDamaged = "the worker's result does not lie in the pool";
  const CallEntry& done = entry(index);
  const dispatch::PayloadRef output = done.output;
  if (output.place == Place::kNone) return {static_cast<Code>(done.status), {}};
  const bool in_pool =
      output.place == Place::kSlot || output.place == Place::kPoolOutput || output.place == Place::kPoolInput;
  if (in_pool) {
    Result<std::span<std::byte>> bytes = process_.pool->Resolve(output);
    if (bytes) return {static_cast<Code>(done.status), bytes->first(output.bytes)};
  }
  return {Code::kInternal, std::as_bytes(std::span(kDamaged))};
}

bool Calls::FreeBlocks(CallEntry& freed) {
  if (freed.input.place == Place::kPoolInput && freed.input.block != 0) {
    if (!process_.pool->inputs().TryFree(freed.input.block)) return false;
    freed.input = {};
  }
  // A result in kPoolInput is the call's own input, freed above.
  if (freed.output.place == Place::kPoolOutput && freed.output.block != 0) {
    if (!process_.pool->outputs().TryFree(freed.output.block)) return false;
    freed.output = {};
  }
  return true;
}

void Calls::Free(uint32_t index) {
  // The entry keeps its index until its blocks are free: they are owned in its name.
  if (!FreeBlocks(entry(index))) {
    freeing_.push_back(index);
    ArmRetry();
    return;
  }
  process_.dispatcher->Free(index);
  if (wanted_) {
    wanted_ = false;
    room_();
  }
}

void Calls::ArmRetry() {
  if (retry_timer_ != EventLoop::TimerId{}) return;
  retry_timer_ = loop_.At(NowNs() + kUnclaimedNs, [this] {
    retry_timer_ = {};
    const std::vector<uint32_t> again = std::exchange(freeing_, {});
    for (const uint32_t index : again) Free(index);
    if (wanted_) {
      wanted_ = false;
      room_();
    }
  });
}

}  // namespace praas::host
