// The host's part of the dispatcher: what happens to calls whose worker or origin has died.

#include "base/clock.h"
#include "dispatch/dispatcher.h"

namespace praas::dispatch {
namespace {

void ClearHints(segment::Header& header, Participant& participant, uint16_t index) noexcept {
  const uint64_t bit = uint64_t{1} << (index % 64);
  for (segment::Header::Hints& lane : header.hints) {
    lane.hot[index / 64].fetch_and(~bit);
    lane.sleepers[index / 64].fetch_and(~bit);
    lane.waiters[index / 64].fetch_and(~bit);
  }
  participant.sleeping.store(0);
  participant.running.store(0);
  participant.notices.store(0);
}

}  // namespace

void Dispatcher::ReclaimParticipant(uint16_t dead, const std::function<void(uint32_t, Orphan)>& orphan) noexcept {
  Participant& participant = segment_.participant(dead);
  ClearHints(header_, participant, dead);
  participant.credit.exchange(kCreditNone);  // a bell in it is still queued and rung for below

  for (uint32_t index = 0; index < calls_; ++index) {
    CallEntry& entry = segment_.call(index);
    const CallWord word = CallWord::Unpack(entry.word.load(std::memory_order_acquire));
    const bool its_own = entry.origin == Origin::kWorker && entry.origin_index == dead;
    switch (word.state) {
      case CallState::kFree:
      case CallState::kParked:
        break;
      case CallState::kReserved:
        if (word.owner != dead) break;
        if ((word.flags & kWordParked) != 0) {
          // The room for it is still to be consumed. By nobody else before this worker's part in the ring is reclaimed.
          entry.word.store(CallWord{word.generation, kHostParticipant, CallState::kParked, 0}.Pack());
        } else if (Advance(index, word.generation, CallState::kReserved, CallState::kCompleting, self_)) {
          orphan(index, Orphan::kDrop);
        }
        break;
      case CallState::kQueued:
        if (its_own && Advance(index, word.generation, CallState::kQueued, CallState::kCompleting, self_)) {
          orphan(index, Orphan::kDrop);
        } else {
          Ring(index);
        }
        break;
      case CallState::kClaimed:
      case CallState::kCompleting:
        if (word.owner == dead) {
          // No function was given it, or it may be given to another. Completing and idempotent: the function has
          // returned, its result is lost with half-written bytes, and running it a second time is allowed all the same.
          // A delivery cannot be repeated: its result has gone with the worker.
          const bool unbegun = word.state == CallState::kClaimed && !HasBegun(entry);
          const bool may_run = (unbegun || (entry.flags & kCallIdempotent) != 0) && ++entry.deaths <= kMostDeaths;
          const bool again = !its_own && may_run && entry.kind == CallKind::kInvoke &&
                             entry.cancel.load(std::memory_order_acquire) == 0 && NowNs() < entry.deadline_ns;
          if (again) {
            if (Advance(index, word.generation, word.state, CallState::kQueued, self_)) Ring(index);
          } else if (Advance(index, word.generation, word.state, CallState::kCompleting, self_)) {
            orphan(index, its_own ? Orphan::kDrop : Orphan::kFail);
          }
        } else if (its_own && word.state == CallState::kClaimed) {
          entry.cancel.store(1, std::memory_order_release);
          Notify(word.owner, kNoticeCancel);
        }
        break;
      case CallState::kDone:
        if (word.owner == dead && Advance(index, word.generation, CallState::kDone, CallState::kCompleting, self_)) {
          orphan(index, Orphan::kDrop);
        } else if ((word.flags & kWordTaken) == 0 &&
                   word.owner < header_.participants.committed.load(std::memory_order_acquire)) {
          // Perhaps the dead worker's last act: it may have had no time left to tell the origin.
          segment_.participant(word.owner).completions[index / 64].fetch_or(uint64_t{1} << (index % 64));
          if (word.owner != self_) Wake(word.owner);
        }
        break;
    }
  }
}

std::optional<uint32_t> Dispatcher::DropFinished(uint16_t dead) noexcept {
  for (uint32_t index = 0; index < calls_; ++index) {
    const CallWord word = CallWord::Unpack(segment_.call(index).word.load(std::memory_order_acquire));
    if (word.state == CallState::kDone && word.owner == dead &&
        Advance(index, word.generation, CallState::kDone, CallState::kCompleting, self_)) {
      return index;
    }
  }
  for (auto& bits : segment_.participant(dead).completions) bits.store(0);
  return std::nullopt;
}

bool Dispatcher::IsOrigin(uint16_t participant) const noexcept {
  for (uint32_t index = 0; index < calls_; ++index) {
    const CallEntry& entry = segment_.call(index);
    const CallWord word = CallWord::Unpack(entry.word.load(std::memory_order_acquire));
    if (word.state != CallState::kFree && word.state != CallState::kReserved && entry.origin == Origin::kWorker &&
        entry.origin_index == participant) {
      return true;
    }
  }
  return false;
}

void Dispatcher::ResetTable() noexcept {
  for (uint32_t index = 0; index < calls_; ++index) {
    std::atomic<uint64_t>& entry_word = segment_.call(index).word;
    const CallWord word = CallWord::Unpack(entry_word.load());
    entry_word.store(CallWord{word.generation + 1, 0, CallState::kFree, 0}.Pack());
  }
  for (segment::Header::Hints& lane : header_.hints) {
    for (auto& bits : lane.queued) bits.store(0);
    for (auto& bits : lane.hot) bits.store(0);
    for (auto& bits : lane.sleepers) bits.store(0);
    for (auto& bits : lane.waiters) bits.store(0);
  }
  const uint32_t committed = header_.participants.committed.load();
  for (uint32_t index = 0; index < committed; ++index) {
    Participant& participant = segment_.participant(index);
    ClearHints(header_, participant, static_cast<uint16_t>(index));
    participant.credit.store(kCreditNone);
    for (auto& bits : participant.completions) bits.store(0);
  }
}

}  // namespace praas::dispatch
