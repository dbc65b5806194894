#include "window/client_window.h"

#include <unistd.h>

#include <bit>
#include <cassert>
#include <string>
#include <utility>

#include "base/clock.h"
#include "shm/shared_memory.h"

namespace praas::window {
namespace {

constexpr uint64_t kSlotBytes = kSlotInputBytes + kSlotOutputBytes;
constexpr uint32_t kSlotsPerCommit = static_cast<uint32_t>(PayloadArea::kCommitBytes / kSlotBytes);
static_assert(kCalls % kSlotsPerCommit == 0);

/// Whether `a` lies before `b` in a sequence of counters that wrap around.
constexpr bool Before(uint32_t a, uint32_t b) noexcept { return static_cast<int32_t>(a - b) < 0; }

// The server may read these while a client that gave the call up writes the next use of the slot: whole words, no
// tearing.
template <typename T>
void StoreOnce(T& field, T value) noexcept {
  std::atomic_ref<T>(field).store(value, std::memory_order_relaxed);
}
template <typename T>
T CopyOnce(T& field) noexcept {
  return std::atomic_ref<T>(field).load(std::memory_order_relaxed);
}

}  // namespace

Result<std::unique_ptr<ClientWindow>> ClientWindow::Map(Handover handover) {
  Result<Mapping> mapping = Mapping::MapSealed(handover.memfd.get());
  if (!mapping.ok()) return mapping.status();
  const uint64_t bytes = mapping->bytes();
  if (bytes < kMinWindowBytes || bytes != handover.window_bytes) {
    return Status(Code::kProtocolInvalid, "the window has " + std::to_string(bytes) + " bytes; announced were " +
                                              std::to_string(handover.window_bytes));
  }
  const auto* header = reinterpret_cast<const WindowHeader*>(mapping->base());
  if (header->magic != kMagic || header->layout_version != kLayoutVersion) {
    return Status(Code::kProtocolVersion, "the window has layout version " + std::to_string(header->layout_version) +
                                              "; this client knows version " + std::to_string(kLayoutVersion));
  }
  if (header->calls != kCalls || header->window_bytes != bytes || header->calls_offset != kCallsOffset ||
      header->slots_offset != kSlotsOffset || header->payload_offset != kPayloadOffset) {
    return Status(Code::kProtocolInvalid, "the window's header does not describe the layout of its version");
  }
  return std::unique_ptr<ClientWindow>(new ClientWindow(std::move(handover), *std::move(mapping)));
}

ClientWindow::ClientWindow(Handover handover, Mapping mapping)
    : handover_(std::move(handover)),
      mapping_(std::move(mapping)),
      payload_(handover_.memfd.get(), mapping_.base(), kPayloadOffset, mapping_.bytes()),
      tail_(header().submit_head.load(std::memory_order_relaxed)),
      seen_head_(tail_),
      signalled_tail_(tail_) {
  // The last call closed is the first to be opened, so few slots are touched and those stay in the cache.
  free_calls_.reserve(kCalls);
  for (uint32_t index = kCalls; index-- > 0;) free_calls_.push_back(index);
}

WindowHeader& ClientWindow::header() const noexcept { return *reinterpret_cast<WindowHeader*>(mapping_.base()); }

SubmissionRecord* ClientWindow::ring() const noexcept {
  return reinterpret_cast<SubmissionRecord*>(mapping_.base() + kRingOffset);
}

WindowCall& ClientWindow::call(uint32_t index) const noexcept {
  assert(index < kCalls);
  return reinterpret_cast<WindowCall*>(mapping_.base() + kCallsOffset)[index];
}

// --- payload memory ---

Status ClientWindow::CommitSlots(uint32_t index) {
  while (committed_slots_ <= index) {
    ++counters_.commits;
    if (Status status = shm::Commit(handover_.memfd.get(), SlotInputOffset(committed_slots_), PayloadArea::kCommitBytes,
                                    "client window");
        !status.ok()) {
      return status;
    }
    committed_slots_ += kSlotsPerCommit;
  }
  return Status::Ok();
}

std::span<std::byte> ClientWindow::Bytes(uint64_t offset, uint64_t bytes) const noexcept {
  assert(InRange(offset, bytes, 0, mapping_.bytes()));
  return {mapping_.base() + offset, bytes};
}

void ClientWindow::Trim(uint64_t keep_bytes) {
  payload_.Trim(keep_bytes);
  if (keep_bytes == 0 && committed_slots_ > 0 && open_calls() == 0 &&
      shm::Decommit(handover_.memfd.get(), kSlotsOffset, kPayloadOffset - kSlotsOffset).ok()) {
    ++counters_.trims;
    committed_slots_ = 0;
  }
}

ClientWindow::Counters ClientWindow::counters() const noexcept {
  Counters counters = counters_;
  counters.commits += payload_.counters().commits;
  counters.trims += payload_.counters().trims;
  return counters;
}

// --- calls ---

Result<std::optional<uint32_t>> ClientWindow::Open() {
  if (free_calls_.empty() || !HasRoom()) return std::optional<uint32_t>();
  const uint32_t index = free_calls_.back();
  if (Status status = CommitSlots(index); !status.ok()) return status;
  free_calls_.pop_back();
  calls_[index] = {.sequence = calls_[index].sequence, .open = true, .answered = true};  // until it is submitted
  return std::optional<uint32_t>(index);
}

/// A consumer that is stopped before Taken keeps the ring from moving, while calls behind it are answered by others and
/// opened again. Each of the other open calls adds at most one more record, that of room it is given: kRing in all.
bool ClientWindow::HasRoom() noexcept {
  if (tail_ - seen_head_ <= kRing - kCalls) return true;
  seen_head_ = header().submit_head.load(std::memory_order_relaxed);
  return tail_ - seen_head_ <= kRing - kCalls;
}

void ClientWindow::Submit(uint32_t index, const Request& request) {
  Call& mine = calls_[index];
  assert(mine.open);
  ++mine.sequence;
  mine.answered = false;
  watched_ = index;
  Push(index, request);
}

bool ClientWindow::GiveRoom(uint32_t index, uint64_t output_offset, uint64_t output_capacity) {
  assert(calls_[index].parked);
  calls_[index].parked = false;
  WindowCall& target = call(index);
  StoreOnce(target.room_offset, output_offset);
  StoreOnce(target.room_bytes, output_capacity);
  uint64_t word = PackWord(calls_[index].sequence, CallState::kNeedRoom);
  if (!target.word.compare_exchange_strong(word, PackWord(calls_[index].sequence, CallState::kRoomGiven),
                                           std::memory_order_acq_rel)) {
    return false;
  }
  Push(index, {.flags = kFlagRoomGiven});
  return true;
}

void ClientWindow::Cancel(uint32_t index) {
  Call& mine = calls_[index];
  if (!mine.open || std::exchange(mine.cancelled, true)) return;
  call(index).cancelled.store(uint64_t{mine.sequence} + 1, std::memory_order_release);
  header().cancels.fetch_add(1, std::memory_order_seq_cst);
  Signal();
}

void ClientWindow::GiveUp(uint32_t index) {
  if (!calls_[index].open || calls_[index].given_up) return;
  calls_[index].given_up = true;
  Cancel(index);
  if (calls_[index].parked) DropParked(index);
}

/// Giving room to a cancelled call makes the server free the result it keeps.
void ClientWindow::DropParked(uint32_t index) {
  calls_[index].parked = true;
  GiveRoom(index, 0, 0);
}

void ClientWindow::Close(uint32_t index) {
  assert(calls_[index].open);
  calls_[index].open = false;
  // Sequences come round.
  if (calls_[index].cancelled) call(index).cancelled.store(0, std::memory_order_relaxed);
  free_calls_.push_back(index);
}

void ClientWindow::Push(uint32_t index, const Request& request) {
  ++counters_.submissions;
  SubmissionRecord& record = ring()[tail_ % kRing];
  StoreOnce(record.sequence, calls_[index].sequence);
  StoreOnce(record.call, static_cast<uint16_t>(index));
  StoreOnce(record.flags, request.flags);
  StoreOnce(record.function, request.function);
  StoreOnce(record.deadline_ns, request.deadline_ns);
  StoreOnce(record.input_offset, request.input_offset);
  StoreOnce(record.input_bytes, request.input_bytes);
  StoreOnce(record.output_offset, request.output_offset);
  StoreOnce(record.output_capacity, request.output_capacity);
  record.turn.store(++tail_, std::memory_order_seq_cst);
  if (header().needs_wake.load(std::memory_order_seq_cst) != 0) SignalUnconsumed();
}

void ClientWindow::Collect(std::vector<Completion>& completions) {
  // The word of a single open call says all there is to know, and no line but its own has to travel.
  if (open_calls() == 1 && calls_[watched_].open) return Take(watched_, completions);
  TakeBits();
  for (uint32_t group = 0; group < kCalls / 64; ++group) {
    for (uint64_t set = std::exchange(told_[group], 0); set != 0; set &= set - 1) {
      Take(group * 64 + static_cast<uint32_t>(std::countr_zero(set)), completions);
    }
  }
}

void ClientWindow::TakeBits() noexcept {
  for (uint32_t group = 0; group < kCalls / 64; ++group) {
    std::atomic<uint64_t>& bits = header().completions[group];
    const uint64_t seen = bits.load(std::memory_order_seq_cst);
    if (seen == 0) continue;
    // The lines of the answer travel while the bits are taken.
    const uint32_t first = group * 64 + static_cast<uint32_t>(std::countr_zero(seen));
    __builtin_prefetch(&call(first));
    __builtin_prefetch(mapping_.base() + SlotOutputOffset(first));
    told_[group] |= bits.exchange(0, std::memory_order_acq_rel);
  }
}

/// A bit may come twice, or for what was seen without it, also when the call is closed or in flight again: only the
/// word counts, and only once.
bool ClientWindow::HasNews(uint32_t index) const noexcept {
  const Call& mine = calls_[index];
  if (!mine.open || mine.answered) return false;
  const uint64_t word = call(index).word.load(std::memory_order_acquire);
  return word == PackWord(mine.sequence, CallState::kDone) ||
         (word == PackWord(mine.sequence, CallState::kNeedRoom) && !mine.parked);
}

void ClientWindow::Take(uint32_t index, std::vector<Completion>& completions) {
  if (!HasNews(index)) return;
  Call& mine = calls_[index];
  WindowCall& target = call(index);
  const bool need_room = target.word.load(std::memory_order_acquire) == PackWord(mine.sequence, CallState::kNeedRoom);
  mine.answered = !need_room;
  if (need_room) {
    if (mine.given_up) return DropParked(index);
    mine.parked = true;
  }
  completions.push_back({.call = index,
                         .need_room = need_room,
                         .status = CopyOnce(target.status),
                         .result_offset = CopyOnce(target.result_offset),
                         .result_bytes = CopyOnce(target.result_bytes)});
}

// --- wake-ups ---

/// Writes the submission eventfd, once per stretch in which the ring does not run empty: while the head has not passed
/// what the last signal was for, its receiver has yet to look at the tail (see server_window.cc for why that look
/// cannot miss).
void ClientWindow::SignalUnconsumed() {
  const uint32_t head = header().submit_head.load(std::memory_order_seq_cst);
  if (head == tail_ || Before(head, signalled_tail_)) return;
  signalled_tail_ = tail_;
  Signal();
}

void ClientWindow::Signal() {
  ++counters_.signals;
  const uint64_t one = 1;
  // EAGAIN means that the counter is full: the host has been signalled more than enough.
  [[maybe_unused]] const ssize_t written = write(handover_.submit_event.get(), &one, sizeof(one));
}

void ClientWindow::Tend() {
  const uint32_t head = header().submit_head.load(std::memory_order_relaxed);
  if (head == tail_ || Before(head, signalled_tail_)) {
    stale_since_ns_ = 0;
    return;
  }
  const uint64_t now = NowNs();
  if (stale_since_ns_ == 0 || head != stale_head_) {
    stale_head_ = head;
    stale_since_ns_ = now;
  } else if (now - stale_since_ns_ >= kPatienceNs) {
    stale_since_ns_ = 0;
    SignalUnconsumed();
  }
}

bool ClientWindow::HasCompletions() noexcept {
  TakeBits();
  for (uint32_t group = 0; group < kCalls / 64; ++group) {
    for (uint64_t set = told_[group]; set != 0; set &= set - 1) {
      if (HasNews(group * 64 + static_cast<uint32_t>(std::countr_zero(set)))) return true;
    }
    told_[group] = 0;
  }
  return false;
}

bool ClientWindow::PrepareToSleep() {
  SignalUnconsumed();
  asleep_ = true;
  header().client_sleeping.store(1, std::memory_order_seq_cst);
  if (HasCompletions()) {
    Awake();
    return false;
  }
  ++counters_.sleeps;
  return true;
}

void ClientWindow::Awake() {
  if (!asleep_) return;
  asleep_ = false;
  header().client_sleeping.store(0, std::memory_order_relaxed);
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = read(handover_.complete_event.get(), &count, sizeof(count));
}

}  // namespace praas::window
