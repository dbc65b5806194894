#include "worker/intake.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "worker/bridge.h"
#include "worker/watchdog.h"

namespace praas::worker {
namespace {

using dispatch::Bell;
using dispatch::CallEntry;
using dispatch::CallKind;
using dispatch::Origin;
using dispatch::Place;
using dispatch::Takes;

/// Polls between two looks at rings that others have adopted but do not get to.
constexpr uint32_t kStealEvery = 64;
/// Polls between two looks at what is stale at worst: bells left over in the doorbell (a system call), windows
/// that nobody polls.
constexpr uint32_t kHousekeepEvery = 1024;
/// Inputs in a client's window that are copied rather than borrowed: what takes no longer than the rest of a call, also
/// of a function that does not look at it.
constexpr uint64_t kCopiedBytes = 512;
static_assert(kCopiedBytes <= dispatch::kSlotInputBytes);
/// Every so many calls the table comes before the rings, so that busy same-host clients cannot starve the others.
constexpr uint32_t kTableFirstEvery = 4;

}  // namespace

std::optional<Bell> Intake::RetractCredit() noexcept {
  if (!offered_) return std::nullopt;
  offered_ = false;
  uint64_t idle = dispatch::kCreditIdle;
  // The hint that this worker is hot stays: it is about to be again.
  if (core_.me.credit.compare_exchange_strong(idle, dispatch::kCreditNone, std::memory_order_acq_rel)) {
    return std::nullopt;
  }
  return core_.dispatcher->TakeCredited();
}

std::optional<Invocation> Intake::Next(Takes takes) {
  const bool fresh = inbox_.fresh();
  if (fresh) windows_.Integrate();
  if (inbox_.draining()) takes = Takes::kNothing;
  if (dedicated()) {
    if (fresh || lease_.leaving()) lease_.Integrate();
    return NextLeased(takes);
  }
  if (takes != Takes::kAll) {
    if (auto bell = RetractCredit()) PassOn(*bell);
    // What lies in an adopted ring is posted for others: this worker may not get to it for long.
    (void)windows_.Poll(false, everywhere_);
    everywhere_ = false;
  }
  while (auto index = FindClaimed(takes)) {
    if (auto invocation = Begin(*index)) return invocation;
  }
  if (takes == Takes::kAll && core_.hot_ns != 0) {
    windows_.Adopt();
    core_.dispatcher->OfferCredit();
    offered_ = true;
  }
  return std::nullopt;
}

/// Of a worker that is there to be leased: only what its holder sends, and nested calls while it waits for one.
std::optional<Invocation> Intake::NextLeased(Takes takes) {
  if (lease_.has_sockets()) lease_.Poll();
  const bool capacity = takes == Takes::kAll && !lease_.leaving();
  if (capacity && core_.hot_ns.load(std::memory_order_relaxed) != 0) windows_.Adopt();
  for (;;) {
    std::optional<uint32_t> index = std::exchange(pending_, std::nullopt);
    if (!index && takes == Takes::kNested) index = core_.dispatcher->ClaimAny(takes);
    if (!index && capacity) index = windows_.Poll(true, false);
    if (!index) return std::nullopt;
    if (auto invocation = Begin(*index)) return invocation;
  }
}

bool Intake::PrepareLeasedToSleep(Takes takes) {
  lease_.Integrate();
  const bool capacity = takes == Takes::kAll && !lease_.leaving();
  if (windows_.AbandonAll(capacity) || !lease_.PrepareToSleep()) return false;
  core_.CountAwake(false);
  core_.dispatcher->AnnounceSleep(takes == Takes::kNested ? takes : Takes::kNothing);
  if (takes == Takes::kNested && core_.dispatcher->HasQueued(takes)) pending_ = core_.dispatcher->ClaimAny(takes);
  if (!pending_ && !inbox_.fresh()) return true;
  Awake();
  return false;
}

std::optional<uint32_t> Intake::FindClaimed(Takes takes) {
  // Claimed while preparing to sleep. A claim cannot be given back, so it runs even if the capacity is used up by now.
  if (pending_) return std::exchange(pending_, std::nullopt);
  if (takes == Takes::kNothing) return std::nullopt;
  if (takes == Takes::kNested) return core_.dispatcher->ClaimAny(takes);
  if (offered_) {
    if (auto bell = core_.dispatcher->TakeCredited()) {
      offered_ = false;
      if (core_.dispatcher->Claim(*bell)) return bell->index;
    }
  }
  ++polls_;
  const bool everywhere = std::exchange(everywhere_, false) || polls_ % kStealEvery == 0;
  const bool housekeep = polls_ % kHousekeepEvery == 0;
  const bool table_first = ++turns_ % kTableFirstEvery == 0;
  const bool woken = std::exchange(woken_, false);
  std::optional<uint32_t> found;
  // The bell that has ended its sleep first: bells left in a full doorbell would keep others from being woken.
  if (woken) found = ClaimByBell();
  if (!found && table_first && core_.dispatcher->HasQueued()) found = core_.dispatcher->ClaimAny();
  if (!found) found = windows_.Poll(true, everywhere);
  if (!found && !table_first && core_.dispatcher->HasQueued()) found = core_.dispatcher->ClaimAny();
  if (!found && (woken || housekeep)) {
    if (!woken) found = ClaimByBell();
    if (!found && core_.hot_ns != 0) windows_.RequestUnpolled();
  }
  // A burst has more calls than the doorbell holds bells: who was woken wakes the next.
  if (found && woken && core_.dispatcher->HasQueued()) core_.dispatcher->RingQueued();
  // Nothing may be handed to this worker while it runs: nothing ever queues behind a running function.
  if (found) {
    if (auto bell = RetractCredit()) PassOn(*bell);
  }
  return found;
}

std::optional<uint32_t> Intake::ClaimByBell() {
  for (;;) {
    std::optional<Bell> bell = bridge_.Take();
    if (!bell) bell = core_.doorbell().TryReceive();
    if (!bell) return std::nullopt;
    if (core_.dispatcher->Claim(*bell)) return bell->index;
  }
}

// -------------------------------------------------------------------------------------------------------------------
// beginning

std::optional<Invocation> Intake::Begin(uint32_t index) {
  const CallEntry& entry = core_.segment.call(index);
  if (entry.kind == CallKind::kDeliver) {
    results_.Deliver(index);
    return std::nullopt;
  }
  MappedWindow* mapped = nullptr;
  if (entry.origin == Origin::kWindow) mapped = windows_.Find(entry.origin_index);
  const auto reject = [&](Code code, std::string_view message) -> std::optional<Invocation> {
    results_.Reject(index, mapped, code, message);
    return std::nullopt;
  };
  if (entry.cancel.load(std::memory_order_acquire) != 0 ||
      (mapped != nullptr && mapped->window->cancelled(window::OriginCallIndex(entry.origin_call),
                                                      window::OriginSequence(entry.origin_call)))) {
    return reject(Code::kInvocationCancelled, "cancelled before it began");
  }
  if (mapped != nullptr &&
      !mapped->window->open(window::OriginCallIndex(entry.origin_call), window::OriginSequence(entry.origin_call))) {
    // Queued again because its worker died, which had answered by then: running it would write where the client has put
    // something else meanwhile.
    return reject(Code::kWorkerCrashed, "answered before its worker died");
  }
  if (entry.deadline_ns != 0 && entry.deadline_ns <= entry.claimed_ns) {
    return reject(Code::kInvocationTimeout, "the deadline passed before a worker was free");
  }
  const std::optional<uint32_t> function = Offered(entry.function);
  if (!function) {
    return reject(Code::kFunctionUnknown, "there is no function " + std::to_string(entry.function) + " among " +
                                              std::to_string(positions_.size()));
  }
  if (entry.origin == Origin::kWindow && entry.input.bytes > core_.attach.max_contiguous) {
    return reject(Code::kPayloadTooLarge, window::kInputTooLarge);
  }
  if (entry.kind == CallKind::kInvoke && entry.origin != Origin::kHost && TakesStream(entry.function)) {
    return reject(Code::kArgumentInvalid, window::kTakesStream);
  }
  Running* record = running_.Reserve();
  if (record == nullptr) {
    return reject(Code::kBackpressure, "too many invocations of this worker overrun their deadlines");
  }
  if (Status status = Fill(*record, index, mapped); !status.ok()) {
    running_.Abandon(*record);
    return reject(status.code(), status.message());
  }

  Invocation invocation;
  invocation.function = *function;
  invocation.flags = entry.flags;
  invocation.stream = record->stream != 0;
  invocation.depth = entry.depth;
  invocation.deadline_ns = record->deadline_ns.load(std::memory_order_relaxed);
  invocation.input = record->input_bytes;
  if (running_.count() == 0) core_.me.running_since_ns.store(record->begun_ns, std::memory_order_relaxed);
  core_.dispatcher->Begin(index, record->generation);
  invocation.handle = running_.Publish(*record);
  core_.me.running.store(running_.count(), std::memory_order_release);
  Core::Count(core_.me.counters.bytes_in, invocation.input.size());
  watchdog_.Watch(invocation.deadline_ns);
  return invocation;
}

void Intake::SetFunctions(const std::vector<FunctionInfo>& functions) {
  positions_.clear();
  offered_here_.clear();
  for (uint32_t position = 0; position < functions.size(); ++position) {
    positions_.emplace(functions[position].name, position);
  }
}

std::optional<uint32_t> Intake::Offered(uint32_t function) {
  const segment::Header& header = core_.segment.header();
  const uint32_t count =
      std::min(header.function_count.load(std::memory_order_acquire), header.functions.committed.load());
  // The table of a process only grows: the workers of another language may register later than these.
  while (offered_here_.size() < count) {
    const segment::Function& record = core_.segment.function(static_cast<uint32_t>(offered_here_.size()));
    const bool native = (record.flags & segment::kFunctionNative) != 0;
    const auto found = positions_.find(std::string(record.name.bytes, record.name.size));
    const bool mine = found != positions_.end() && native == (core_.attach.lane == dispatch::Lane::kNative);
    offered_here_.push_back(mine ? std::optional(found->second) : std::nullopt);
  }
  return function < offered_here_.size() ? offered_here_[function] : std::nullopt;
}

bool Intake::TakesStream(uint32_t function) const noexcept {
  return function < core_.segment.header().function_count.load(std::memory_order_acquire) &&
         (core_.segment.function(function).flags & segment::kFunctionStream) != 0;
}

/// Where a small input lies may be another call's before the function has ended: from when the watchdog answers at the
/// deadline.
void Intake::OwnInput(Running& record) noexcept {
  const std::span<std::byte> own = running_.InputScratch(record).first(record.input.bytes);
  std::memcpy(own.data(), record.input_bytes.data(), own.size());
  record.input_bytes = own;
  record.input.place = Place::kNone;
}

Status Intake::Fill(Running& record, uint32_t index, MappedWindow* mapped) {
  const CallEntry& entry = core_.segment.call(index);
  record.index = index;
  record.generation = dispatch::CallWord::Unpack(entry.word.load(std::memory_order_acquire)).generation;
  record.function.store(entry.function, std::memory_order_relaxed);
  record.origin = entry.origin;
  record.origin_call = entry.origin_call;
  record.window = nullptr;
  record.input = entry.input;
  record.input_bytes = {};
  record.room = {};
  record.begun_ns = entry.claimed_ns;
  record.output = Running::Output::kNone;
  record.output_ref = {};
  record.output_bytes = {};
  record.in_area = false;
  record.direct.store(false, std::memory_order_relaxed);
  record.borrows.store(false, std::memory_order_relaxed);
  record.input_block = 0;
  record.stream = 0;
  record.chunk = {};
  record.cancellation_reported = false;
  uint64_t deadline_ns = entry.deadline_ns;
  if (deadline_ns == kNoDeadline || deadline_ns == 0) deadline_ns = record.begun_ns + core_.attach.default_timeout_ns;
  record.deadline_ns.store(deadline_ns, std::memory_order_release);

  if (record.origin > Origin::kWindow) return Status(Code::kSegmentInvalid, "a call of unknown origin");
  if (entry.kind == CallKind::kStream) {
    if (entry.stream == 0 || entry.stream > core_.segment.header().streams.committed.load(std::memory_order_acquire)) {
      return Status(Code::kSegmentInvalid, "a streaming call without its stream");
    }
    record.stream = entry.stream;
  }
  if (record.origin == Origin::kWindow) {
    if (mapped == nullptr) return Status(Code::kConnectionLost, std::string(kNotMapped));
    if (entry.output.place == Place::kWindow) record.room = entry.output;
    if (record.input.bytes > 0) {
      record.input_bytes = mapped->window->Bytes(record.input.offset, record.input.bytes);
      if (record.input.place != Place::kWindow || record.input_bytes.size() != record.input.bytes) {
        return Status(Code::kProtocolInvalid, "the input lies outside the window");
      }
      if (record.input.bytes <= kCopiedBytes) {
        OwnInput(record);
      } else {
        record.borrows.store(true, std::memory_order_relaxed);
      }
    }
    if (record.room.bytes > 0 &&
        mapped->window->Bytes(record.room.offset, record.room.bytes).size() != record.room.bytes) {
      return Status(Code::kProtocolInvalid, "the room for the result lies outside the window");
    }
    record.window = mapped;
    ++mapped->users;
    return Status::Ok();
  }
  if (record.input.bytes == 0) return Status::Ok();
  if (record.input.place == Place::kSlot || record.input.place == Place::kPoolInput) {
    auto bytes = core_.pool->Resolve(record.input);
    if (!bytes.ok()) return bytes.status();
    record.input_bytes = bytes->first(record.input.bytes);
    if (record.input.place == Place::kSlot) OwnInput(record);
    return Status::Ok();
  }
  return Status(Code::kSegmentInvalid, "an input that is neither in a slot nor in the pool's inputs");
}

// -------------------------------------------------------------------------------------------------------------------
// sleeping

bool Intake::HasArrived() const noexcept {
  return windows_.HasSubmissions(false) ||
         (offered_ && core_.me.credit.load(std::memory_order_acquire) != dispatch::kCreditIdle);
}

bool Intake::HasWork(Takes takes) {
  if (pending_ || inbox_.fresh()) return true;
  if (dedicated()) {
    return (takes == Takes::kAll && windows_.HasSubmissions(false)) || (lease_.has_sockets() && lease_.Look()) ||
           (takes == Takes::kNested && core_.dispatcher->HasQueued(takes));
  }
  if (windows_.HasSubmissions(false)) return true;
  if (takes == Takes::kNothing || inbox_.draining()) return false;
  if (takes == Takes::kNested) return core_.dispatcher->HasQueued(takes);
  if (offered_ && core_.me.credit.load(std::memory_order_acquire) != dispatch::kCreditIdle) return true;
  if (core_.dispatcher->HasQueued()) return true;
  if (core_.hot_ns == 0) return false;
  if (++polls_ % kHousekeepEvery == 0) {
    windows_.RequestUnpolled();
    windows_.Adopt();
  }
  if (polls_ % kStealEvery == 0) everywhere_ = windows_.HasSubmissions(true);
  return everywhere_;
}

bool Intake::PrepareToSleep(Takes takes) {
  if (inbox_.fresh()) windows_.Integrate();
  if (inbox_.draining()) takes = Takes::kNothing;
  if (dedicated()) return PrepareLeasedToSleep(takes);
  if (windows_.AbandonAll(true)) {
    everywhere_ = true;
    return false;
  }
  offered_ = false;
  if (auto bell = core_.dispatcher->WithdrawCredit()) {
    if (takes != Takes::kAll) {
      PassOn(*bell);
    } else if (core_.dispatcher->Claim(*bell)) {
      pending_ = bell->index;
    }
  }
  if (pending_) return false;
  core_.CountAwake(false);
  core_.dispatcher->AnnounceSleep(takes);
  if (takes == Takes::kAll) {
    bridge_.Arm();
    // A doorbell with a descriptor tells the wait itself of a bell that is there.
    if (core_.doorbell().fd() < 0) pending_ = ClaimByBell();
  }
  if (takes != Takes::kNothing && !pending_ && core_.dispatcher->HasQueued(takes)) {
    pending_ = core_.dispatcher->ClaimAny(takes);
  }
  if (!pending_ && !inbox_.fresh()) return true;
  Awake();
  return false;
}

void Intake::Awake() noexcept {
  core_.CountAwake(true);
  core_.dispatcher->AnnounceAwake();
  bridge_.Disarm();
  woken_ = true;
}

}  // namespace praas::worker
