#include "window/pool.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "shm/memfd.h"
#include "shm/shared_memory.h"
#include "window/layout.h"

namespace praas::window {
namespace {

using dispatch::CallEntry;
using dispatch::CallWord;
using dispatch::PayloadRef;
using dispatch::Place;

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kSlotBytes = dispatch::kSlotInputBytes + dispatch::kSlotOutputBytes;

/// Where things lie in a pool, from the sizes in the segment's header alone: every process computes the same.
struct Plan {
  uint32_t calls;
  uint64_t pool_bytes;
  uint64_t inputs_offset;
  uint64_t arena_bytes;  // of each arena
  [[nodiscard]] uint64_t outputs_offset() const noexcept { return inputs_offset + arena_bytes; }
};

Result<Plan> MakePlan(const segment::Header& header) {
  Plan plan{};
  plan.calls = header.calls.capacity;
  plan.pool_bytes = header.pool_bytes / kPageBytes * kPageBytes;
  plan.inputs_offset = plan.calls * kSlotBytes;
  const uint64_t rest = plan.pool_bytes > plan.inputs_offset ? plan.pool_bytes - plan.inputs_offset : 0;
  plan.arena_bytes = rest / 2 / kPageBytes * kPageBytes;
  if (plan.arena_bytes < Pool::kMinArenaBytes) {
    return Status(Code::kArgumentInvalid, "a pool of " + std::to_string(header.pool_bytes) +
                                              " bytes is too small for " + std::to_string(plan.calls) +
                                              " calls: their slots take " + std::to_string(plan.inputs_offset) +
                                              " bytes and payloads need " + std::to_string(2 * Pool::kMinArenaBytes));
  }
  return plan;
}

}  // namespace

Result<std::unique_ptr<Pool>> Pool::Create(const segment::Segment& segment) {
  const Result<Plan> plan = MakePlan(segment.header());
  if (!plan.ok()) return plan.status();
  Result<UniqueFd> fd = shm::CreateMemfd("praas-pool", plan.value().pool_bytes, shm::Sealing::kFixed);
  if (!fd.ok()) return fd.status();
  Result<std::unique_ptr<Pool>> pool = Map(*std::move(fd), segment, dispatch::kHostParticipant);
  if (!pool.ok()) return pool.status();
  if (Status status = (*pool)->inputs_.Format(); !status.ok()) return status.WithContext("pool inputs");
  if (Status status = (*pool)->outputs_.Format(); !status.ok()) return status.WithContext("pool outputs");
  return pool;
}

Result<std::unique_ptr<Pool>> Pool::Map(UniqueFd fd, const segment::Segment& segment, uint16_t self) {
  const Result<Plan> plan = MakePlan(segment.header());
  if (!plan.ok()) return plan.status();
  Result<Mapping> mapping = Mapping::MapSealed(fd.get());
  if (!mapping.ok()) return mapping.status();
  if (mapping->bytes() != plan.value().pool_bytes) {
    return Status(Code::kSegmentInvalid, "the pool has " + std::to_string(mapping->bytes()) +
                                             " bytes; its segment says " + std::to_string(plan.value().pool_bytes));
  }
  return std::unique_ptr<Pool>(new Pool(segment, std::move(fd), *std::move(mapping), plan.value().inputs_offset,
                                        plan.value().arena_bytes, self));
}

Pool::Pool(const segment::Segment& segment, UniqueFd fd, Mapping mapping, uint64_t inputs_offset, uint64_t arena_bytes,
           uint16_t self)
    : segment_(segment),
      fd_(std::move(fd)),
      mapping_(std::move(mapping)),
      inputs_offset_(inputs_offset),
      outputs_offset_(inputs_offset + arena_bytes),
      inputs_(segment, 1, fd_.get(), inputs_offset_, arena_bytes, self),
      outputs_(segment, 2, fd_.get(), outputs_offset_, arena_bytes, self) {}

Pool::~Pool() = default;

std::span<std::byte> Pool::slot_input(uint32_t call) const noexcept {
  return {base() + call * kSlotBytes, dispatch::kSlotInputBytes};
}

std::span<std::byte> Pool::slot_output(uint32_t call) const noexcept {
  return {base() + call * kSlotBytes + dispatch::kSlotInputBytes, dispatch::kSlotOutputBytes};
}

PayloadRef Pool::InputSlot(uint32_t call, uint64_t bytes) const noexcept {
  return {.offset = call * kSlotBytes, .bytes = bytes, .block = 0, .place = Place::kSlot, .reserved = {}};
}

PayloadRef Pool::OutputSlot(uint32_t call, uint64_t bytes) const noexcept {
  return {.offset = call * kSlotBytes + dispatch::kSlotInputBytes,
          .bytes = bytes,
          .block = 0,
          .place = Place::kSlot,
          .reserved = {}};
}

Result<std::span<std::byte>> Pool::Resolve(const PayloadRef& ref) const {
  uint64_t begin = 0;
  uint64_t end = 0;
  switch (ref.place) {
    case Place::kNone:
      return std::span<std::byte>();
    case Place::kSlot:
      end = inputs_offset_;
      // Within one slot, too: a length that runs on would reach the payload of another call.
      if (ref.offset < end) {
        begin = ref.offset / dispatch::kSlotInputBytes * dispatch::kSlotInputBytes;
        end = begin + dispatch::kSlotInputBytes;
      }
      break;
    case Place::kPoolInput:
      begin = inputs_offset_;
      end = outputs_offset_;
      break;
    case Place::kPoolOutput:
      begin = outputs_offset_;
      end = bytes();
      break;
    case Place::kWindow:
      return Status(Code::kInternal, "a payload in a client window does not lie in the pool");
  }
  if (!InRange(ref.offset, ref.bytes, begin, end)) {
    return Status(Code::kSegmentInvalid, "a payload of " + std::to_string(ref.bytes) + " bytes at " +
                                             std::to_string(ref.offset) + " lies outside its part of the pool");
  }
  return std::span<std::byte>(base() + ref.offset, ref.bytes);
}

Status Pool::ProtectPayloads() {
  if (::mprotect(base(), bytes(), PROT_READ) != 0) return Status::System("mprotect of the pool window");
  protected_ = true;
  return Status::Ok();
}

Status Pool::Write(const PayloadRef& ref, std::span<const std::byte> data) {
  Result<std::span<std::byte>> memory = Resolve(ref);
  if (!memory.ok()) return memory.status();
  if (memory->size() < data.size()) {
    return Status(Code::kSegmentInvalid, std::to_string(data.size()) + " bytes for " + std::to_string(ref.bytes));
  }
  if (data.empty()) return Status::Ok();
  if (!protected_) {
    std::memcpy(memory->data(), data.data(), data.size());
  } else if (!shm::WriteAll(fd_.get(), ref.offset, data)) {
    return Status::System("pwrite to the pool window");
  }
  return Status::Ok();
}

void Pool::Trim() {
  // Failing to give memory back costs nothing but the memory.
  static_cast<void>(inputs_.Trim(0));
  static_cast<void>(outputs_.Trim(0));
  TrimSlots();
}

/// Gives back the slots that were touched and whose entries are free. An entry is reserved meanwhile, so that nobody
/// can begin to fill a slot that is being emptied.
void Pool::TrimSlots() {
  const auto slots_end = static_cast<off_t>(inputs_offset_);
  for (off_t at = lseek(fd_.get(), 0, SEEK_DATA); at >= 0 && at < slots_end; at = lseek(fd_.get(), at, SEEK_DATA)) {
    const auto index = static_cast<uint32_t>(static_cast<uint64_t>(at) / kSlotBytes);
    std::atomic<uint64_t>& word = segment_.call(index).word;
    uint64_t seen = word.load(std::memory_order_acquire);
    const CallWord free_word = CallWord::Unpack(seen);
    CallWord reserved = free_word;
    reserved.state = dispatch::CallState::kReserved;
    reserved.owner = dispatch::kHostParticipant;
    if (free_word.state == dispatch::CallState::kFree && word.compare_exchange_strong(seen, reserved.Pack())) {
      static_cast<void>(shm::Decommit(fd_.get(), index * kSlotBytes, kSlotBytes));
      word.store(free_word.Pack(), std::memory_order_release);
    }
    at = static_cast<off_t>((index + 1) * kSlotBytes);
  }
}

}  // namespace praas::window
