#include "window/server_window.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "shm/memfd.h"
#include "shm/shared_memory.h"

namespace praas::window {
namespace {

// The hand-over with the client is Dekker's: each side stores its word, then loads the other's, and at least one of
// them sees the other. Four seq_cst accesses are enough for that (and are what ThreadSanitizer understands; it knows no
// fences):
//   client: turn of record t ; load needs_wake          server: needs_wake = 1      ; load turn of the record at head
//   server: set completions  ; load client_sleeping     client: client_sleeping = 1 ; load completions
//   client: turn of record t ; load submit_head         server: submit_head = h     ; load turn of record h
// The last line is what lets a client signal once per stretch: as long as the head has not passed what it signalled
// for, the server has yet to look at the tail. test/native/window/wake_model_test.cc runs every interleaving of it.

constexpr uint16_t kConsumerBias = 1;  // participant 0 is the host, and 0 means nobody

/// Reads a field that the client may be writing at this moment: once, whole, and as the value to validate.
template <typename T>
T CopyOnce(T& field) noexcept {
  return std::atomic_ref<T>(field).load(std::memory_order_relaxed);
}
template <typename T>
void StoreOnce(T& field, T value) noexcept {
  std::atomic_ref<T>(field).store(value, std::memory_order_relaxed);
}

constexpr uint32_t SequenceOf(uint64_t word) noexcept { return static_cast<uint32_t>(word >> 32); }
/// Whether the call of `sequence` still waits for an answer.
constexpr bool IsOpen(uint64_t word, uint32_t sequence) noexcept {
  return word == PackWord(sequence - 1, CallState::kDone) || word == PackWord(sequence, CallState::kNeedRoom) ||
         word == PackWord(sequence, CallState::kRoomGiven);
}

/// Payloads lie in the payload area or in the slots of the call they belong to, nowhere else.
bool InBounds(uint32_t call, uint64_t offset, uint64_t bytes, uint64_t window_bytes) noexcept {
  return bytes == 0 || InRange(offset, bytes, kPayloadOffset, window_bytes) ||
         InRange(offset, bytes, SlotInputOffset(call), SlotOutputOffset(call) + kSlotOutputBytes);
}

Result<UniqueFd> MakeEvent() {
  UniqueFd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) return Status::System("eventfd");
  return event;
}

}  // namespace

Result<ServerWindow::Created> ServerWindow::Create(uint64_t window_bytes) {
  if (window_bytes < kMinWindowBytes || window_bytes > uint64_t{1} << 46) {
    return Status(Code::kArgumentInvalid, "a window has " + std::to_string(kMinWindowBytes) + " bytes to 64 TiB, not " +
                                              std::to_string(window_bytes));
  }
  const auto page_bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  window_bytes = (window_bytes + page_bytes - 1) / page_bytes * page_bytes;

  Result<UniqueFd> memfd = shm::CreateMemfd("praas-window", window_bytes, shm::Sealing::kFixed);
  if (!memfd.ok()) return memfd.status();
  if (Status status = shm::Commit(memfd->get(), 0, kSlotsOffset, "client window"); !status.ok()) return status;
  Result<UniqueFd> submit_event = MakeEvent();
  if (!submit_event.ok()) return submit_event.status();
  Result<UniqueFd> complete_event = MakeEvent();
  if (!complete_event.ok()) return complete_event.status();

  Result<Mapping> mapping = Mapping::MapSealed(memfd->get());
  if (!mapping.ok()) return mapping.status();
  auto* header = new (mapping->base()) WindowHeader{};
  header->magic = kMagic;
  header->layout_version = kLayoutVersion;
  header->calls = kCalls;
  header->window_bytes = window_bytes;
  header->calls_offset = kCallsOffset;
  header->slots_offset = kSlotsOffset;
  header->payload_offset = kPayloadOffset;
  header->needs_wake.store(1, std::memory_order_relaxed);  // nobody polls yet
  return Created{*std::move(memfd), *std::move(submit_event), *std::move(complete_event)};
}

Result<std::unique_ptr<ServerWindow>> ServerWindow::Map(const segment::Segment& segment, uint32_t index, UniqueFd memfd,
                                                        UniqueFd complete_event) {
  Result<Mapping> mapping = Mapping::MapSealed(memfd.get());
  if (!mapping.ok()) return mapping.status();
  if (mapping->bytes() < kMinWindowBytes) {
    return Status(Code::kSegmentInvalid, "a window of " + std::to_string(mapping->bytes()) + " bytes is too small");
  }
  return std::unique_ptr<ServerWindow>(
      new ServerWindow(segment.window(index), index, std::move(memfd), std::move(complete_event), *std::move(mapping)));
}

ServerWindow::ServerWindow(segment::WindowSlot& slot, uint32_t index, UniqueFd memfd, UniqueFd complete_event,
                           Mapping mapping) noexcept
    : slot_(slot),
      index_(index),
      memfd_(std::move(memfd)),
      complete_event_(std::move(complete_event)),
      mapping_(std::move(mapping)) {}

ServerWindow::~ServerWindow() = default;

uint64_t ServerWindow::bytes() const noexcept { return mapping_.bytes(); }

WindowHeader& ServerWindow::header() const noexcept { return *reinterpret_cast<WindowHeader*>(mapping_.base()); }

SubmissionRecord& ServerWindow::record(uint32_t position) const noexcept {
  return reinterpret_cast<SubmissionRecord*>(mapping_.base() + kRingOffset)[position % kRing];
}

std::atomic<uint64_t>& ServerWindow::note(uint32_t index) const noexcept {
  assert(index < kCalls);
  return reinterpret_cast<std::atomic<uint64_t>*>(mapping_.base() + kNotesOffset)[index];
}

WindowCall& ServerWindow::call(uint32_t index) const noexcept {
  assert(index < kCalls);
  return reinterpret_cast<WindowCall*>(mapping_.base() + kCallsOffset)[index];
}

bool ServerWindow::HasSubmissions() const noexcept {
  const uint32_t head = header().submit_head.load(std::memory_order_relaxed);
  if (record(head).turn.load(std::memory_order_seq_cst) != head + 1) return false;
  // A client with one call at a time uses the same slot again and again: its lines travel while the record is looked
  // at.
  __builtin_prefetch(&call(last_call_), 1);
  __builtin_prefetch(mapping_.base() + SlotInputOffset(last_call_));
  return true;
}

bool ServerWindow::TryConsume(uint16_t self) noexcept {
  uint32_t nobody = 0;
  if (!slot_.consumer.compare_exchange_strong(nobody, uint32_t{self} + kConsumerBias, std::memory_order_seq_cst)) {
    return false;
  }
  slot_.turns.store(slot_.turns.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  return true;
}

bool ServerWindow::EndConsume(uint16_t self) noexcept {
  uint32_t mine = uint32_t{self} + kConsumerBias;
  slot_.consumer.compare_exchange_strong(mine, 0, std::memory_order_seq_cst);
  return HasSubmissions();
}

std::optional<uint16_t> ServerWindow::consumer() const noexcept {
  const uint32_t consumer = slot_.consumer.load(std::memory_order_seq_cst);
  if (consumer < kConsumerBias) return std::nullopt;
  return static_cast<uint16_t>(consumer - kConsumerBias);
}

uint32_t ServerWindow::turns() const noexcept { return slot_.turns.load(std::memory_order_relaxed); }

std::optional<Submission> ServerWindow::Peek() noexcept {
  // Bounded: a client that keeps feeding rubbish cannot hold the consumer here.
  for (uint32_t step = 0; step < kRing; ++step) {
    const uint32_t head = header().submit_head.load(std::memory_order_relaxed);
    SubmissionRecord& request = record(head);
    if (request.turn.load(std::memory_order_seq_cst) != head + 1) return std::nullopt;
    peeked_head_ = head;
    const uint32_t index = CopyOnce(request.call);
    if (index >= kCalls) {
      Taken();
      continue;
    }
    last_call_ = index;
    WindowCall& state = call(index);
    const uint32_t sequence = CopyOnce(request.sequence);
    const uint16_t flags = CopyOnce(request.flags);
    const bool room_given = (flags & kFlagRoomGiven) != 0;
    const uint64_t word = state.word.load(std::memory_order_acquire);
    if (word != (room_given ? PackWord(sequence, CallState::kRoomGiven) : PackWord(sequence - 1, CallState::kDone))) {
      Taken();  // answered before its consumer ended, or rubbish
      continue;
    }
    const uint64_t noted = note(index).load(std::memory_order_acquire);
    const Submission submission{
        .call = index,
        .sequence = sequence,
        .room_given = room_given,
        .parked = room_given ? CopyOnce(state.parked) : 0,
        .entry = SequenceOf(noted) == sequence ? int64_t{static_cast<uint32_t>(noted)} - 1 : -1,
        .function = CopyOnce(request.function),
        .flags = flags,
        .deadline_ns = CopyOnce(request.deadline_ns),
        .input_offset = CopyOnce(request.input_offset),
        .input_bytes = CopyOnce(request.input_bytes),
        .output_offset = CopyOnce(room_given ? state.room_offset : request.output_offset),
        .output_capacity = CopyOnce(room_given ? state.room_bytes : request.output_capacity),
    };
    if (!InBounds(index, submission.input_offset, submission.input_bytes, bytes()) ||
        !InBounds(index, submission.output_offset, submission.output_capacity, bytes())) {
      static constexpr std::string_view kMessage = "input or output range outside the window's payload area";
      CompleteError(index, submission.sequence, static_cast<uint32_t>(Code::kProtocolInvalid), kMessage);
      Taken();
      continue;
    }
    return submission;
  }
  return std::nullopt;
}

std::optional<Submission> ServerWindow::RoomFor(uint32_t index, uint32_t sequence) const noexcept {
  if (index >= kCalls) return std::nullopt;
  WindowCall& state = call(index);
  if (state.word.load(std::memory_order_acquire) != PackWord(sequence, CallState::kRoomGiven)) return std::nullopt;
  Submission room{};
  room.call = index;
  room.sequence = sequence;
  room.room_given = true;
  room.parked = CopyOnce(state.parked);
  room.entry = -1;
  room.output_offset = CopyOnce(state.room_offset);
  room.output_capacity = CopyOnce(state.room_bytes);
  if (!InBounds(index, room.output_offset, room.output_capacity, bytes())) return std::nullopt;
  return room;
}

void ServerWindow::Note(uint32_t index, uint32_t sequence, uint32_t entry) noexcept {
  if (index < kCalls) note(index).store(uint64_t{sequence} << 32 | (entry + 1), std::memory_order_release);
}

void ServerWindow::Taken() noexcept { header().submit_head.store(peeked_head_ + 1, std::memory_order_seq_cst); }

bool ServerWindow::Adopt(uint16_t self) noexcept {
  uint32_t nobody = 0;
  if (!slot_.poller.compare_exchange_strong(nobody, self, std::memory_order_seq_cst)) return false;
  SetNeedsWake(false);
  return true;
}

bool ServerWindow::Abandon(uint16_t self) noexcept {
  // While still the poller: the next one clears needs_wake after its own CAS, so the flag cannot end up set under a
  // poller.
  SetNeedsWake(true);
  uint32_t mine = self;
  slot_.poller.compare_exchange_strong(mine, 0, std::memory_order_seq_cst);
  return HasSubmissions();
}

bool ServerWindow::Reclaim(uint16_t dead) noexcept {
  bool had_part = false;
  if (slot_.poller.load(std::memory_order_seq_cst) == dead && dead != 0) {
    static_cast<void>(Abandon(dead));
    had_part = true;
  }
  uint32_t consumer = uint32_t{dead} + kConsumerBias;
  if (slot_.consumer.compare_exchange_strong(consumer, 0, std::memory_order_seq_cst)) had_part = true;
  return had_part && HasSubmissions();
}

void ServerWindow::SetNeedsWake(bool needs_wake) noexcept {
  header().needs_wake.store(needs_wake ? 1 : 0, std::memory_order_seq_cst);
}

std::span<std::byte> ServerWindow::Bytes(uint64_t offset, uint64_t length) const noexcept {
  if (!InRange(offset, length, kSlotsOffset, bytes())) return {};
  return {mapping_.base() + offset, length};
}

Status ServerWindow::ProtectPayloads() {
  if (::mprotect(mapping_.base() + kSlotsOffset, bytes() - kSlotsOffset, PROT_READ) != 0) {
    return Status::System("mprotect of a client's window");
  }
  protected_ = true;
  return Status::Ok();
}

bool ServerWindow::Write(uint64_t offset, std::span<const std::byte> data) noexcept {
  if (!protected_) {
    std::memmove(mapping_.base() + offset, data.data(), data.size());
    return true;
  }
  if (shm::WriteAll(memfd_.get(), offset, data)) return true;
  descriptor_lost_.store(true, std::memory_order_relaxed);
  return false;
}

bool ServerWindow::cancelled(uint32_t index, uint32_t sequence) const noexcept {
  return index < kCalls && call(index).cancelled.load(std::memory_order_relaxed) == uint64_t{sequence} + 1;
}

bool ServerWindow::open(uint32_t index, uint32_t sequence) const noexcept {
  return index < kCalls && IsOpen(call(index).word.load(std::memory_order_acquire), sequence);
}

uint32_t ServerWindow::cancels() const noexcept { return header().cancels.load(std::memory_order_seq_cst); }

bool ServerWindow::Complete(uint32_t index, uint32_t sequence, uint32_t status, uint64_t result_offset,
                            uint64_t result_bytes) noexcept {
  return Answer(index, sequence, CallState::kDone, status, 0, result_offset, result_bytes);
}

bool ServerWindow::CompleteError(uint32_t index, uint32_t sequence, uint32_t status, std::span<const char> message,
                                 Room room) noexcept {
  if (index >= kCalls) return false;
  if (!IsOpen(call(index).word.load(std::memory_order_acquire), sequence)) {
    return Complete(index, sequence, status, 0, 0);  // tells again
  }
  const Room slot{SlotOutputOffset(index), kSlotOutputBytes};
  if (message.size() <= slot.bytes || room.bytes < message.size() ||
      !InBounds(index, room.offset, room.bytes, bytes())) {
    room = slot;
  }
  const uint64_t length = std::min<uint64_t>(message.size(), room.bytes);
  if (length > 0 && !Write(room.offset, std::as_bytes(message.first(length)))) return false;
  return Complete(index, sequence, status, room.offset, length);
}

bool ServerWindow::NeedRoom(uint32_t index, uint32_t sequence, uint32_t parked, uint64_t result_bytes) noexcept {
  return Answer(index, sequence, CallState::kNeedRoom, 0, parked, 0, result_bytes);
}

void ServerWindow::NeedRoomStill(uint32_t index, uint32_t sequence, uint32_t parked, uint64_t result_bytes) noexcept {
  if (index >= kCalls) return;
  const uint64_t word = call(index).word.load(std::memory_order_acquire);
  if (word == PackWord(sequence - 1, CallState::kDone)) (void)NeedRoom(index, sequence, parked, result_bytes);
  if (word == PackWord(sequence, CallState::kNeedRoom)) Tell(index);
}

bool ServerWindow::Answer(uint32_t index, uint32_t sequence, CallState state, uint32_t status, uint32_t parked,
                          uint64_t result_offset, uint64_t result_bytes) noexcept {
  if (index >= kCalls) return false;
  WindowCall& target = call(index);
  uint64_t word = target.word.load(std::memory_order_acquire);
  // The check comes before the first store: a late responder must not write over the response that won.
  if (IsOpen(word, sequence)) {
    StoreOnce(target.status, status);
    StoreOnce(target.parked, parked);
    StoreOnce(target.result_offset, result_offset);
    StoreOnce(target.result_bytes, result_bytes);
    while (IsOpen(word, sequence)) {
      if (target.word.compare_exchange_weak(word, PackWord(sequence, state), std::memory_order_acq_rel,
                                            std::memory_order_acquire)) {
        Tell(index);
        return true;
      }
    }
  }
  if (word == PackWord(sequence, CallState::kDone)) Tell(index);
  return false;
}

void ServerWindow::Tell(uint32_t index) noexcept {
  header().completions[index / 64].fetch_or(uint64_t{1} << (index % 64), std::memory_order_seq_cst);
  if (header().client_sleeping.load(std::memory_order_seq_cst) == 0) return;
  // The flag is the client's to clear: if it were taken here, a worker killed before the write would take the wake-up
  // with it.
  const uint64_t one = 1;
  // EAGAIN means that the counter is full: the client has more than enough reason to wake up. Anything else, that this
  // is no event any more.
  if (write(complete_event_.get(), &one, sizeof(one)) < 0 && errno != EAGAIN) {
    descriptor_lost_.store(true, std::memory_order_relaxed);
  }
}

}  // namespace praas::window
