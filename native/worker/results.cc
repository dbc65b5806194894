#include "worker/results.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "base/clock.h"
#include "dispatch/stream_channel.h"
#include "shm/memfd.h"

namespace praas::worker {
namespace {

using dispatch::Origin;
using dispatch::PayloadRef;

bool Inside(std::span<const std::byte> part, std::span<const std::byte> whole) noexcept {
  return !whole.empty() && part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size();
}

/// As long a message as fits without cutting a UTF-8 character in two.
std::string_view Cut(std::string_view message, size_t most) noexcept {
  if (message.size() <= most) return message;
  while (most > 0 && (static_cast<unsigned char>(message[most]) & 0xc0) == 0x80) --most;
  return message.substr(0, most);
}

std::span<const std::byte> BytesOf(std::string_view text) noexcept { return std::as_bytes(std::span(text)); }

/// A result that fills less than this part of its block is copied to one that fits.
constexpr size_t kLargestWaste = 16;

constexpr std::string_view kLate = "the deadline has passed";

}  // namespace

Result<PayloadRef> Results::AllocateBlock(uint32_t index, uint64_t bytes) {
  auto block = core_.pool->outputs().Allocate(bytes, dispatch::CallBlockOwner(index), DeadlineIn(kArenaWaitNs));
  if (!block.ok()) return block.status().WithContext("memory for a result of " + std::to_string(bytes) + " bytes");
  return PayloadRef{
      .offset = block->offset, .bytes = bytes, .block = block->block, .place = dispatch::Place::kPoolOutput};
}

void Results::FreeOutput(const PayloadRef& ref) {
  // A block that could not be freed in time goes when the host reclaims its call or its worker.
  (void)core_.pool->outputs().Free(ref.block, DeadlineIn(kArenaWaitNs));
}

void Results::CloseArea(Running& record) noexcept {
  if (std::exchange(record.in_area, false)) areas_.Close(record.output_bytes.data());
}

void Results::DropOutput(Running& record) {
  CloseArea(record);
  if (record.output == Running::Output::kNone) return;
  if (record.output == Running::Output::kBlock) FreeOutput(record.output_ref);
  record.output = Running::Output::kNone;
  record.output_bytes = {};
  record.direct.store(false, std::memory_order_relaxed);
}

void Results::CountCopy(uint64_t bytes) noexcept {
  auto& counters = core_.me.counters;
  Core::Count(bytes <= dispatch::kSlotOutputBytes ? counters.staged_bytes : counters.copied_bytes, bytes);
}

// -------------------------------------------------------------------------------------------------------------------
// building a result

Result<std::span<std::byte>> Results::Allocate(Running& record, uint64_t bytes) {
  if (bytes > core_.attach.max_contiguous) {
    return Status(Code::kPayloadTooLarge, "a result of " + std::to_string(bytes) + " bytes exceeds the limit of " +
                                              std::to_string(core_.attach.max_contiguous) +
                                              "; return it as a stream, or raise maxContiguous");
  }
  Result<Place> place = core_.guarded ? ChooseArea(record, bytes) : Choose(record, bytes);
  if (!place.ok()) return place.status();

  const std::lock_guard lock(core_.mutex);
  if ((record.word.load(std::memory_order_acquire) & kRunningFlags) != 0) {
    if (place->in_area) areas_.Close(place->memory.data());
    if (place->kind == Running::Output::kBlock) FreeOutput(place->ref);
    return Status(Code::kInvocationTimeout, std::string(kLate));
  }
  DropOutput(record);
  record.output = place->kind;
  record.output_ref = place->ref;
  record.output_bytes = place->memory;
  record.in_area = place->in_area;
  record.direct.store(place->kind == Running::Output::kRoom, std::memory_order_seq_cst);
  return place->memory;
}

Result<Results::Place> Results::Choose(Running& record, uint64_t bytes) {
  // Not the slot itself: a function that overruns its deadline would write into the entry's next call.
  if (bytes <= dispatch::kSlotOutputBytes) {
    return Place{Running::Output::kScratch, {}, running_.Scratch(record).first(bytes), false};
  }
  if (record.origin == Origin::kWindow && bytes <= record.room.bytes) {
    return Place{Running::Output::kRoom, record.room, record.window->window->Bytes(record.room.offset, bytes), false};
  }
  auto block = AllocateBlock(record.index, bytes);
  if (!block.ok()) return block.status();
  auto resolved = core_.pool->Resolve(*block);
  if (!resolved.ok()) return resolved.status();
  return Place{Running::Output::kBlock, *block, resolved->first(bytes), false};
}

/// The same where payloads are mapped read-only: whole pages, mapped by themselves, and the result at their end.
Result<Results::Place> Results::ChooseArea(Running& record, uint64_t bytes) {
  constexpr uint64_t kPage = ResultAreas::kPage;
  const uint64_t area_bytes = ResultAreas::Pages(std::max<uint64_t>(bytes, 1));
  const uint64_t result_offset = area_bytes - (bytes + 15) / 16 * 16;
  Place place{Running::Output::kScratch, {}, {}, true};
  int fd = ResultAreas::kPrivate;
  const void* window = nullptr;
  uint64_t area_offset = 0;
  if (record.origin == Origin::kWindow && record.room.offset % kPage == 0 && area_bytes <= record.room.bytes) {
    place.kind = Running::Output::kRoom;
    area_offset = record.room.offset;
    fd = record.window->window->memfd();
    window = record.window->window.get();
  } else if (bytes > dispatch::kSlotOutputBytes) {
    // Blocks have granules of 64 bytes: with a page more, whole pages lie inside.
    auto block = AllocateBlock(record.index, area_bytes + kPage - segment::Arena::kGranule);
    if (!block.ok()) return block.status();
    place.kind = Running::Output::kBlock;
    place.ref = *block;
    area_offset = ResultAreas::Pages(block->offset);
    fd = core_.pool->fd();
    window = core_.pool.get();
  } else {
    // One for each invocation: those of calls made within calls are in use at the same time.
    area_offset = RunningTable::Slot(record.word.load(std::memory_order_relaxed)) * kPage;
  }
  auto area = areas_.Open(fd, window, area_offset, area_bytes);
  if (!area.ok()) {
    if (place.kind == Running::Output::kBlock) FreeOutput(place.ref);
    return area.status();
  }
  place.ref.offset = area_offset + result_offset;
  place.ref.bytes = bytes;
  place.memory = area->subspan(result_offset, bytes);
  return place;
}

// -------------------------------------------------------------------------------------------------------------------
// completing

Status Results::Complete(Running& record, std::span<const std::byte> result) {
  if (record.stream != 0 && !result.empty()) {
    const Status status(Code::kFunctionResult, "a streaming function gives its bytes as chunks and returns none");
    const Status failed = Fail(record, status.code(), status.message());
    return failed.ok() ? status : failed;
  }
  if (record.stream != 0) streams_.Finish(record, dispatch::StreamEnd::kEnded);
  if (!core_.dispatcher->BeginCompletion(record.index, record.generation)) return SettleLate(record);
  // Before the origin is told: it may look for a free worker at once, and this one is.
  core_.me.running.store(running_.count() - 1, std::memory_order_release);

  Status status;
  if ((record.word.load(std::memory_order_acquire) & kOverdue) != 0) {
    status = Status(Code::kInvocationTimeout, std::string(kLate));
  } else if (result.size() > core_.attach.max_contiguous) {
    status =
        Status(Code::kPayloadTooLarge, "a result of " + std::to_string(result.size()) + " bytes exceeds the limit of " +
                                           std::to_string(core_.attach.max_contiguous));
  } else {
    status = record.origin == Origin::kWindow ? PlaceInWindow(record, result) : PlaceInPool(record, result);
  }
  if (shm::IsNoMemfd(status.sys_errno())) Core::DescriptorLost();
  if (!status.ok()) {
    DropOutput(record);
    AnswerError({record.index, record.origin, record.origin_call,
                 record.window != nullptr ? record.window->window.get() : nullptr},
                status.code(), status.message());
  }
  Settle(record, !status.ok(), result.size());
  return status;
}

Status Results::ToBlock(Running& record, std::span<const std::byte> result, PayloadRef* ref) {
  const bool built = record.output == Running::Output::kBlock && Inside(result, record.output_bytes);
  if (!built || result.size() < record.output_bytes.size() / kLargestWaste) {
    auto block = AllocateBlock(record.index, result.size());
    if (block.ok()) {
      if (Status status = core_.pool->Write(*block, result); !status.ok()) {
        FreeOutput(*block);
        return status;
      }
      CountCopy(result.size());
      *ref = *block;
      return Status::Ok();
    }
    if (!built) return block.status();
  }
  *ref = record.output_ref;
  ref->offset += static_cast<uint64_t>(result.data() - record.output_bytes.data());
  ref->bytes = result.size();
  CloseArea(record);
  record.output = Running::Output::kNone;  // from here on the call entry's
  return Status::Ok();
}

Status Results::PlaceInPool(Running& record, std::span<const std::byte> result) {
  PayloadRef ref;
  // Built in a block and worth it: a small result would hold a large block until it is sent.
  const bool built = record.output == Running::Output::kBlock && Inside(result, record.output_bytes) &&
                     result.size() > dispatch::kSlotOutputBytes;
  if (result.empty()) {
    // kNone
  } else if (record.input.place == dispatch::Place::kPoolInput && Inside(result, record.input_bytes)) {
    // The input as it stands: the origin sends it from the input's block and frees that once, as the input.
    ref = record.input;
    ref.offset += static_cast<uint64_t>(result.data() - record.input_bytes.data());
    ref.bytes = result.size();
  } else if (result.size() <= dispatch::kSlotOutputBytes && !built) {
    ref = core_.pool->OutputSlot(record.index, result.size());
    if (Status status = core_.pool->Write(ref, result); !status.ok()) return status;
    CountCopy(result.size());
  } else if (Status status = ToBlock(record, result, &ref); !status.ok()) {
    return status;
  }
  // Before the call is done: a block freed later would be in the name of the entry's next call.
  DropOutput(record);
  dispatch::CallEntry& entry = core_.segment.call(record.index);
  entry.output = ref;
  entry.status = static_cast<uint32_t>(Code::kOk);
  core_.dispatcher->FinishCompletion(record.index);
  return Status::Ok();
}

/// Where the client has the result already, because it is a part of the input as it stands.
std::optional<uint64_t> Results::InInput(const Running& record, std::span<const std::byte> result) const noexcept {
  if (!Inside(result, record.input_bytes)) return std::nullopt;
  const uint64_t offset = record.input.offset + static_cast<uint64_t>(result.data() - record.input_bytes.data());
  if (record.input.place == dispatch::Place::kWindow) return offset;
  const std::span<const std::byte> there = record.window->window->Bytes(offset, result.size());
  const bool same = there.size() == result.size() && std::memcmp(there.data(), result.data(), result.size()) == 0;
  return same ? std::optional(offset) : std::nullopt;  // else the function has changed its copy
}

Status Results::PlaceInWindow(Running& record, std::span<const std::byte> result) {
  window::ServerWindow& window = *record.window->window;
  const uint32_t call = window::OriginCallIndex(record.origin_call);
  const uint32_t sequence = window::OriginSequence(record.origin_call);
  uint64_t offset = record.room.offset;
  if (const auto stands = InInput(record, result)) {
    offset = *stands;
  } else if (record.output == Running::Output::kRoom && Inside(result, record.output_bytes)) {
    offset = record.output_ref.offset + static_cast<uint64_t>(result.data() - record.output_bytes.data());
  } else if (result.size() <= record.room.bytes) {
    if (!result.empty() && !window.Write(record.room.offset, result)) Core::DescriptorLost();
    CountCopy(result.size());
  } else {
    return Park(record, result);
  }
  DropOutput(record);
  window.Complete(call, sequence, static_cast<uint32_t>(Code::kOk), result.empty() ? 0 : offset, result.size());
  Core::EndUnlessTold(window);
  core_.dispatcher->Free(record.index);
  return Status::Ok();
}

Status Results::Park(Running& record, std::span<const std::byte> result) {
  PayloadRef ref;
  if (Status status = ToBlock(record, result, &ref); !status.ok()) return status;
  DropOutput(record);
  ParkBlock({record.index, record.origin, record.origin_call, record.window->window.get()}, ref, Code::kOk);
  return Status::Ok();
}

void Results::ParkBlock(const Target& target, const PayloadRef& ref, Code code) {
  dispatch::CallEntry& entry = core_.segment.call(target.index);
  entry.output = ref;
  entry.status = static_cast<uint32_t>(code);
  core_.dispatcher->Park(target.index);
  // Parked before the client hears of it: it may answer at once.
  if (!target.window->NeedRoom(window::OriginCallIndex(target.origin_call), window::OriginSequence(target.origin_call),
                               target.index, ref.bytes) &&
      core_.dispatcher->Unpark(target.index, static_cast<uint16_t>(target.window->index()), target.origin_call,
                               dispatch::Dispatcher::Unparked::kDrop)) {
    FreeOutput(ref);
    core_.dispatcher->Free(target.index);
  }
  Core::EndUnlessTold(*target.window);
}

void Results::Deliver(uint32_t index) {
  dispatch::CallEntry& entry = core_.segment.call(index);
  const PayloadRef room = entry.input;
  const PayloadRef result = entry.output;
  const uint32_t status = entry.status;
  const uint64_t origin_call = entry.origin_call;
  const uint16_t window_index = entry.origin_index;
  const uint32_t generation = dispatch::CallWord::Unpack(entry.word.load(std::memory_order_acquire)).generation;
  MappedWindow* mapped = windows_.Find(window_index);
  if (!core_.dispatcher->BeginCompletion(index, generation)) return;
  if (mapped == nullptr) {
    FreeOutput(result);
    return AnswerError({index, Origin::kWindow, origin_call, nullptr}, Code::kConnectionLost, kNotMapped);
  }

  auto bytes = core_.pool->Resolve(result);
  const uint32_t call = window::OriginCallIndex(origin_call);
  const uint32_t sequence = window::OriginSequence(origin_call);
  if (!bytes.ok()) {
    mapped->window->CompleteError(call, sequence, static_cast<uint32_t>(bytes.status().code()),
                                  bytes.status().message());
  } else if (mapped->window->cancelled(call, sequence)) {
    mapped->window->CompleteError(call, sequence, static_cast<uint32_t>(Code::kInvocationCancelled), {});
  } else if (room.bytes < result.bytes) {
    core_.dispatcher->Park(index);  // too little again: it waits on, until its deadline
    const bool waits =
        mapped->window->NeedRoom(call, sequence, index, result.bytes) ||
        !core_.dispatcher->Unpark(index, window_index, origin_call, dispatch::Dispatcher::Unparked::kDrop);
    Core::EndUnlessTold(*mapped->window);
    if (waits) return;
  } else {
    if (result.bytes > 0 && !mapped->window->Write(room.offset, *bytes)) Core::DescriptorLost();
    CountCopy(result.bytes);
    mapped->window->Complete(call, sequence, status, room.offset, result.bytes);
  }
  Core::EndUnlessTold(*mapped->window);
  FreeOutput(result);
  core_.dispatcher->Free(index);
}

// -------------------------------------------------------------------------------------------------------------------
// failing

Status Results::Fail(Running& record, Code code, std::string_view message) {
  if (record.stream != 0) streams_.Finish(record, dispatch::StreamEnd::kAborted);
  if (!core_.dispatcher->BeginCompletion(record.index, record.generation)) return SettleLate(record);
  // Before the origin is told: it may look for a free worker at once, and this one is.
  core_.me.running.store(running_.count() - 1, std::memory_order_release);
  // Waits of a function end at its deadline. What it makes of that must not race with the watchdog for the answer.
  const bool overdue = (record.word.load(std::memory_order_acquire) & kOverdue) != 0 ||
                       NowNs() >= record.deadline_ns.load(std::memory_order_relaxed);
  DropOutput(record);
  AnswerError({record.index, record.origin, record.origin_call,
               record.window != nullptr ? record.window->window.get() : nullptr},
              overdue ? Code::kInvocationTimeout : code, overdue ? kLate : message);
  Settle(record, true, 0);
  return overdue ? Status(Code::kInvocationTimeout, std::string(kLate)) : Status::Ok();
}

bool Results::ParkError(const Target& target, Code code, std::string_view message) {
  dispatch::CallEntry& entry = core_.segment.call(target.index);
  const uint64_t room = entry.output.place == dispatch::Place::kWindow ? entry.output.bytes : 0;
  if (message.size() <= std::max<uint64_t>(dispatch::kSlotOutputBytes, room)) return false;
  auto block = AllocateBlock(target.index, message.size());
  if (!block.ok()) return false;
  if (Status status = core_.pool->Write(*block, BytesOf(message)); !status.ok()) {
    if (shm::IsNoMemfd(status.sys_errno())) Core::DescriptorLost();
    FreeOutput(*block);
    return false;
  }
  ParkBlock(target, *block, code);
  return true;
}

void Results::AnswerError(const Target& target, Code code, std::string_view message) {
  // A window that is not mapped here the host has, and answers.
  if (target.window != nullptr) {
    // Cut, it would not be what its sender meant: it waits for room like any other answer.
    if (ParkError(target, code, message)) return;
    target.window->CompleteError(window::OriginCallIndex(target.origin_call),
                                 window::OriginSequence(target.origin_call), static_cast<uint32_t>(code), message,
                                 window::RoomOf(core_.segment.call(target.index)));
    Core::EndUnlessTold(*target.window);
    core_.dispatcher->Free(target.index);
    return;
  }
  dispatch::CallEntry& entry = core_.segment.call(target.index);
  PayloadRef ref;
  if (message.size() > dispatch::kSlotOutputBytes) {
    if (auto block = AllocateBlock(target.index, message.size()); block.ok()) ref = *block;
  }
  if (ref.place == dispatch::Place::kNone && !message.empty()) {
    message = Cut(message, dispatch::kSlotOutputBytes);
    ref = core_.pool->OutputSlot(target.index, message.size());
  }
  const Status written = core_.pool->Write(ref, BytesOf(message));
  if (shm::IsNoMemfd(written.sys_errno())) Core::DescriptorLost();
  if (!written.ok()) ref.bytes = 0;  // an error without words
  entry.output = ref;
  entry.status = static_cast<uint32_t>(code);
  core_.dispatcher->FinishCompletion(target.index);
}

void Results::Reject(uint32_t index, MappedWindow* window, Code code, std::string_view message) {
  const dispatch::CallEntry& entry = core_.segment.call(index);
  const auto word = dispatch::CallWord::Unpack(entry.word.load(std::memory_order_acquire));
  if (!core_.dispatcher->BeginCompletion(index, word.generation)) return;
  AnswerError({index, entry.origin, entry.origin_call, window != nullptr ? window->window.get() : nullptr}, code,
              message);
  Core::Count(core_.me.counters.calls, 1);
  Core::Count(core_.me.counters.failures, 1);
}

bool Results::Expire(Running& record, uint64_t word) {
  const uint32_t index = RunningTable::Index(word);
  const std::lock_guard lock(core_.mutex);
  if (record.direct.load(std::memory_order_relaxed) || record.borrows.load(std::memory_order_relaxed)) {
    // Fails if the record has come to name another invocation, whose output this may be.
    return record.word.compare_exchange_strong(word, word | kOverdue, std::memory_order_acq_rel);
  }
  if (!core_.dispatcher->BeginCompletion(index, RunningTable::Generation(word))) return false;
  // The record is stable from here on: the owner, too, needs BeginCompletion or the mutex before it lets go of it.
  const segment::BlockOwner mine{segment::BlockOwner::Kind::kParticipant, core_.self, 0};
  const uint64_t deadline_ns = DeadlineIn(kArenaWaitNs);
  if (record.output == Running::Output::kBlock) {
    (void)core_.pool->outputs().SetOwner(record.output_ref.block, mine, deadline_ns);
  }
  if (record.input.place == dispatch::Place::kPoolInput &&
      core_.pool->inputs().SetOwner(record.input.block, mine, deadline_ns).ok()) {
    record.input_block = record.input.block;
    core_.segment.call(index).input = PayloadRef{};
  }
  if (record.stream != 0) streams_.Expire(record);
  record.word.fetch_or(kAnswered, std::memory_order_acq_rel);
  AnswerError(
      {index, record.origin, record.origin_call, record.window != nullptr ? record.window->window.get() : nullptr},
      Code::kInvocationTimeout, kLate);
  return true;
}

Status Results::SettleLate(Running& record) {
  {
    const std::lock_guard lock(core_.mutex);  // waits for a watchdog that is still answering
    DropOutput(record);
    if (record.input_block != 0) (void)core_.pool->inputs().Free(record.input_block, DeadlineIn(kArenaWaitNs));
  }
  Settle(record, true, 0);
  return Status(Code::kInvocationTimeout, std::string(kLate));
}

void Results::Settle(Running& record, bool failed, uint64_t bytes_out) {
  auto& counters = core_.me.counters;
  Core::Count(counters.calls, 1);
  if (failed) Core::Count(counters.failures, 1);
  if (!failed) Core::Count(counters.bytes_out, bytes_out);
  // Two readings may be nanoseconds apart the wrong way round.
  Core::Count(counters.busy_ns, std::max(core_.clock.Now(), record.begun_ns) - record.begun_ns);
  MappedWindow* window = std::exchange(record.window, nullptr);
  running_.End(record);
  core_.me.running.store(running_.count(), std::memory_order_release);
  if (window != nullptr) windows_.Leave(*window);
}

}  // namespace praas::worker
