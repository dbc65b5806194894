#include "dispatch/dispatcher.h"

#include <bitset>
#include <cassert>

#include "base/clock.h"

namespace praas::dispatch {
namespace {

constexpr uint64_t Bit(uint32_t index) noexcept { return uint64_t{1} << (index % 64); }

}  // namespace

Dispatcher::Dispatcher(const segment::Segment& segment, const Doorbells& doorbells, uint16_t self, Lane lane)
    : segment_(segment),
      header_(segment.header()),
      doorbells_(doorbells),
      me_(segment.participant(self)),
      self_(self),
      lane_(lane),
      calls_(segment.header().calls.capacity) {}

// ---------------------------------------------------------------------------------------------------------------------------
// sender

std::optional<uint32_t> Dispatcher::Reserve() noexcept {
  // From the entry freed last: its line and its slot in the pool are still in a cache.
  uint32_t index = reserve_hint_.load(std::memory_order_relaxed);
  for (uint32_t tried = 0; tried < calls_; ++tried, ++index) {
    if (index >= calls_) index = 0;
    CallEntry& entry = segment_.call(index);
    uint64_t word = entry.word.load(std::memory_order_relaxed);
    CallWord now = CallWord::Unpack(word);
    if (now.state != CallState::kFree) continue;
    now.state = CallState::kReserved;
    now.owner = self_;
    if (entry.word.compare_exchange_strong(word, now.Pack(), std::memory_order_acquire, std::memory_order_relaxed)) {
      reserve_hint_.store(index + 1, std::memory_order_relaxed);
      entry.cancel.store(0, std::memory_order_relaxed);
      return index;
    }
  }
  return std::nullopt;
}

Lane Dispatcher::LaneOf(uint32_t function) const noexcept {
  if (function < header_.function_count.load(std::memory_order_acquire) &&
      function < header_.functions.committed.load(std::memory_order_acquire)) {
    const bool native = (segment_.function(function).flags & segment::kFunctionNative) != 0;
    return native ? Lane::kNative : Lane::kNode;
  }
  // There is no such function: whoever takes calls says so.
  return doorbells_.of(Lane::kNode) != nullptr ? Lane::kNode : Lane::kNative;
}

bool Dispatcher::Post(uint32_t index) noexcept {
  CallEntry& entry = segment_.call(index);
  const Lane lane = LaneOf(entry.function);
  CallWord word = CallWord::Unpack(entry.word.load(std::memory_order_relaxed));
  assert(word.state == CallState::kReserved && word.owner == self_);
  word.state = CallState::kQueued;
  word.flags = static_cast<uint8_t>((entry.depth > 0 ? kWordNested : 0) | (lane == Lane::kNative ? kWordNative : 0));
  // seq_cst with the load of `watches`, as in Unwatch: at least one of the two sees the other.
  entry.word.store(word.Pack(), std::memory_order_seq_cst);
  const Bell bell{index, word.generation};
  const bool credited = TryCredit(bell, lane);
  if (!credited) Ring(index);
  if (self_ != kHostParticipant &&
      segment_.participant(kHostParticipant).watches.load(std::memory_order_seq_cst) == 0) {
    Notify(kHostParticipant, kNoticePosted);
  }
  return credited;
}

void Dispatcher::Watch() noexcept { me_.watches.store(1, std::memory_order_relaxed); }

bool Dispatcher::Unwatch() noexcept {
  me_.watches.store(0, std::memory_order_seq_cst);
  for (uint32_t index = 0; index < calls_; ++index) {
    const CallWord word = CallWord::Unpack(segment_.call(index).word.load(std::memory_order_seq_cst));
    if (word.state != CallState::kQueued) continue;
    Watch();
    return false;
  }
  return true;
}

bool Dispatcher::TryCredit(Bell bell, Lane lane) noexcept {
  for (uint32_t group = 0; group < kMaxParticipants / 64; ++group) {
    uint64_t bits = hints(lane).hot[group].load(std::memory_order_relaxed);
    while (bits != 0) {
      const uint32_t index = group * 64 + static_cast<uint32_t>(__builtin_ctzll(bits));
      bits &= bits - 1;
      if (index == self_ || index >= header_.participants.committed.load(std::memory_order_acquire)) continue;
      std::atomic<uint64_t>& credit = segment_.participant(index).credit;
      uint64_t idle = kCreditIdle;
      if (credit.load(std::memory_order_relaxed) == kCreditIdle &&
          credit.compare_exchange_strong(idle, PackCredit(bell), std::memory_order_acq_rel,
                                         std::memory_order_relaxed)) {
        me_.counters.credits_used.fetch_add(1, std::memory_order_relaxed);
        return true;
      }
    }
    // Workers take the lowest free slots, so the first empty group after the host's is the end in all but exotic cases.
    if (group * 64 + 64 >= header_.participants.committed.load(std::memory_order_relaxed)) break;
  }
  return false;
}

bool Dispatcher::AnyPoller() const noexcept {
  for (const segment::Header::Hints& lane : header_.hints) {
    for (const std::atomic<uint64_t>& group : lane.hot) {
      if (group.load(std::memory_order_relaxed) != 0) return true;
    }
  }
  return false;
}

bool Dispatcher::AnySleeper(Lane lane) const noexcept {
  const uint32_t committed = header_.participants.committed.load(std::memory_order_relaxed);
  for (uint32_t group = 0; group * 64 < committed; ++group) {
    if (hints(lane).sleepers[group].load(std::memory_order_seq_cst) != 0) return true;
  }
  return false;
}

/// All of them: they wait for different calls, and whoever comes first takes this one.
void Dispatcher::WakeWaiters(Lane lane) noexcept {
  const uint32_t committed = header_.participants.committed.load(std::memory_order_relaxed);
  for (uint32_t group = 0; group * 64 < committed; ++group) {
    for (uint64_t bits = hints(lane).waiters[group].load(std::memory_order_seq_cst); bits != 0; bits &= bits - 1) {
      Wake(static_cast<uint16_t>(group * 64 + static_cast<uint32_t>(__builtin_ctzll(bits))));
    }
  }
}

void Dispatcher::Ring(uint32_t index) noexcept {
  const CallEntry& entry = segment_.call(index);
  const CallWord word = CallWord::Unpack(entry.word.load(std::memory_order_acquire));
  if (word.state != CallState::kQueued) return;
  const Lane lane = LaneOfWord(word);
  Doorbell* const doorbell = doorbells_.of(lane);
  // The bit before the sleepers are read: see the class comment.
  hints(lane).queued[index / 64].fetch_or(Bit(index), std::memory_order_seq_cst);
  if ((word.flags & kWordNested) != 0) WakeWaiters(lane);
  if (!AnySleeper(lane)) return;  // every worker is awake and drains the table before it sleeps
  if (doorbell != nullptr && doorbell->Ring({index, word.generation})) {
    me_.counters.bells_rung.fetch_add(1, std::memory_order_relaxed);
  } else {
    me_.counters.bells_dropped.fetch_add(1, std::memory_order_relaxed);
  }
}

void Dispatcher::RingQueued() noexcept {
  for (uint32_t group = 0; group < (calls_ + 63) / 64; ++group) {
    for (uint64_t bits = hints(lane_).queued[group].load(std::memory_order_seq_cst); bits != 0; bits &= bits - 1) {
      const uint32_t index = group * 64 + static_cast<uint32_t>(__builtin_ctzll(bits));
      if (index >= calls_) return;
      const CallWord word = CallWord::Unpack(segment_.call(index).word.load(std::memory_order_acquire));
      if (Takable(word, Takes::kAll)) return Ring(index);
    }
  }
}

bool Dispatcher::Advance(uint32_t index, uint32_t generation, CallState from, CallState to, uint16_t owner,
                         uint8_t more_flags) noexcept {
  std::atomic<uint64_t>& word = segment_.call(index).word;
  uint64_t seen = word.load(std::memory_order_acquire);
  CallWord next = CallWord::Unpack(seen);
  if (next.generation != generation || next.state != from) return false;
  next.state = to;
  next.owner = owner;
  next.flags |= more_flags;
  return word.compare_exchange_strong(seen, next.Pack(), std::memory_order_acq_rel, std::memory_order_relaxed);
}

void Dispatcher::ClaimReserved(uint32_t index) noexcept {
  CallEntry& entry = segment_.call(index);
  CallWord word = CallWord::Unpack(entry.word.load(std::memory_order_relaxed));
  assert(word.state == CallState::kReserved && word.owner == self_);
  entry.claimed_ns = entry.queued_ns;  // never queued: filled just now
  word.state = CallState::kClaimed;
  word.flags = lane_ == Lane::kNative ? static_cast<uint8_t>(kWordNative) : uint8_t{0};
  entry.word.store(word.Pack(), std::memory_order_release);
}

void Dispatcher::ReleaseReserved(uint32_t index) noexcept { Free(index); }

bool Dispatcher::Cancel(uint32_t index, uint32_t generation, Code status) noexcept {
  CallEntry& entry = segment_.call(index);
  if (Advance(index, generation, CallState::kQueued, CallState::kCompleting, self_)) {
    // A delivery keeps naming the block of the result it was to deliver: whoever frees the entry frees that, too.
    if (entry.kind != CallKind::kDeliver) entry.output = PayloadRef{};
    entry.status = static_cast<uint32_t>(status);
    CallWord word = CallWord::Unpack(entry.word.load(std::memory_order_relaxed));
    word.state = CallState::kDone;
    word.flags |= kWordTaken;
    entry.word.store(word.Pack(), std::memory_order_release);
    return true;
  }
  const CallWord word = CallWord::Unpack(entry.word.load(std::memory_order_acquire));
  if (word.generation != generation || word.state != CallState::kClaimed) return false;
  entry.cancel.store(1, std::memory_order_release);
  Notify(word.owner, kNoticeCancel);
  return false;
}

// ---------------------------------------------------------------------------------------------------------------------------
// worker

bool Dispatcher::Claim(Bell bell) noexcept {
  if (bell.index >= calls_) return false;
  if (!Advance(bell.index, bell.generation, CallState::kQueued, CallState::kClaimed, self_)) return false;
  segment_.call(bell.index).claimed_ns = NowNs();
  return true;
}

bool Dispatcher::Takable(CallWord word, Takes takes) const noexcept {
  return word.state == CallState::kQueued && LaneOfWord(word) == lane_ &&
         (takes != Takes::kNested || (word.flags & kWordNested) != 0);
}

std::optional<uint32_t> Dispatcher::ClaimAny(Takes takes) noexcept {
  const uint32_t groups = (calls_ + 63) / 64;
  const uint32_t start = claim_cursor_.load(std::memory_order_relaxed) % calls_;
  // One turn over the bitmap from `start`; the first group is visited twice, for the bits above and below `start`.
  for (uint32_t step = 0; step <= groups; ++step) {
    const uint32_t group = (start / 64 + step) % groups;
    uint64_t bits = hints(lane_).queued[group].load(std::memory_order_seq_cst);
    if (step == 0) bits &= ~uint64_t{0} << (start % 64);
    while (bits != 0) {
      const uint32_t index = group * 64 + static_cast<uint32_t>(__builtin_ctzll(bits));
      bits &= bits - 1;
      if (index >= calls_) break;
      if (takes == Takes::kNested &&
          !Takable(CallWord::Unpack(segment_.call(index).word.load(std::memory_order_acquire)), takes)) {
        continue;
      }
      // The bit goes before the claim: cleared afterwards, it could be that of the entry's next call.
      hints(lane_).queued[group].fetch_and(~Bit(index), std::memory_order_seq_cst);
      const CallWord word = CallWord::Unpack(segment_.call(index).word.load(std::memory_order_acquire));
      if (Takable(word, Takes::kAll) && !Takable(word, takes)) {
        // Another call by now, which whoever takes new ones has to find.
        hints(lane_).queued[group].fetch_or(Bit(index), std::memory_order_seq_cst);
        continue;
      }
      if (Takable(word, takes) && Claim({index, word.generation})) {
        claim_cursor_.store(index + 1, std::memory_order_relaxed);
        return index;
      }
    }
  }
  return std::nullopt;
}

void Dispatcher::Begin(uint32_t index, uint32_t generation) noexcept {
  // Before anything that the function does.
  segment_.call(index).begun.store(generation + 1, std::memory_order_release);
}

void Dispatcher::UndoBegin(uint32_t index, uint32_t generation) noexcept {
  uint32_t mine = generation + 1;
  segment_.call(index).begun.compare_exchange_strong(mine, 0, std::memory_order_acq_rel, std::memory_order_relaxed);
}

void Dispatcher::OfferCredit() noexcept {
  uint64_t none = kCreditNone;
  if (me_.credit.load(std::memory_order_relaxed) != kCreditNone) return;
  std::atomic<uint64_t>& hot = hints(lane_).hot[self_ / 64];
  if ((hot.load(std::memory_order_relaxed) & Bit(self_)) == 0) hot.fetch_or(Bit(self_), std::memory_order_relaxed);
  me_.credit.compare_exchange_strong(none, kCreditIdle, std::memory_order_release, std::memory_order_relaxed);
}

std::optional<Bell> Dispatcher::TakeCredited() noexcept {
  const uint64_t credit = me_.credit.load(std::memory_order_acquire);
  if (credit == kCreditNone || credit == kCreditIdle) return std::nullopt;
  // Only senders write over kCreditIdle and only we write over a bell, but the host may take it back from one it
  // believes stuck: exchange, and serve what was there.
  const uint64_t taken = me_.credit.exchange(kCreditNone, std::memory_order_acq_rel);
  if (taken == kCreditNone || taken == kCreditIdle) return std::nullopt;
  return UnpackCredit(taken);
}

std::optional<Bell> Dispatcher::WithdrawCredit() noexcept {
  hints(lane_).hot[self_ / 64].fetch_and(~Bit(self_), std::memory_order_relaxed);
  const uint64_t taken = me_.credit.exchange(kCreditNone, std::memory_order_seq_cst);
  if (taken == kCreditNone || taken == kCreditIdle) return std::nullopt;
  return UnpackCredit(taken);
}

bool Dispatcher::BeginCompletion(uint32_t index, uint32_t generation) noexcept {
  const CallWord word = CallWord::Unpack(segment_.call(index).word.load(std::memory_order_relaxed));
  if (word.owner != self_) return false;
  return Advance(index, generation, CallState::kClaimed, CallState::kCompleting, self_);
}

void Dispatcher::FinishCompletion(uint32_t index) noexcept {
  CallEntry& entry = segment_.call(index);
  CallWord word = CallWord::Unpack(entry.word.load(std::memory_order_relaxed));
  assert(word.state == CallState::kCompleting);
  const uint16_t origin = entry.origin == Origin::kWorker ? entry.origin_index : kHostParticipant;
  word.state = CallState::kDone;
  word.owner = origin;
  word.flags = 0;
  entry.word.store(word.Pack(), std::memory_order_release);
  segment_.participant(origin).completions[index / 64].fetch_or(Bit(index), std::memory_order_seq_cst);
  if (origin != self_) Wake(origin);
}

void Dispatcher::Park(uint32_t index) noexcept {
  CallEntry& entry = segment_.call(index);
  CallWord word = CallWord::Unpack(entry.word.load(std::memory_order_relaxed));
  assert(word.state == CallState::kCompleting);
  word.state = CallState::kParked;
  word.owner = kHostParticipant;
  entry.word.store(word.Pack(), std::memory_order_release);
}

bool Dispatcher::Unpark(uint32_t index, uint16_t window, uint64_t origin_call, Unparked what) noexcept {
  if (index >= calls_) return false;
  CallEntry& entry = segment_.call(index);
  const CallWord word = CallWord::Unpack(entry.word.load(std::memory_order_acquire));
  if (word.state != CallState::kParked || entry.origin != Origin::kWindow || entry.origin_index != window ||
      entry.origin_call != origin_call) {
    return false;
  }
  return Advance(index, word.generation, CallState::kParked, CallState::kReserved, self_,
                 static_cast<uint8_t>(what == Unparked::kDeliver ? kWordParked : 0));
}

void Dispatcher::Free(uint32_t index) noexcept {
  std::atomic<uint64_t>& entry_word = segment_.call(index).word;
  CallWord word = CallWord::Unpack(entry_word.load(std::memory_order_relaxed));
  assert(word.state != CallState::kFree && word.state != CallState::kQueued);
  const CallWord free{word.generation + 1, 0, CallState::kFree, 0};
  entry_word.store(free.Pack(), std::memory_order_release);
  reserve_hint_.store(index, std::memory_order_relaxed);
}

// ---------------------------------------------------------------------------------------------------------------------------
// origin, sleeping

std::optional<uint32_t> Dispatcher::NextCompletion() noexcept {
  for (uint32_t group = 0; group < (calls_ + 63) / 64; ++group) {
    std::atomic<uint64_t>& bits = me_.completions[group];
    uint64_t seen = bits.load(std::memory_order_acquire);
    while (seen != 0) {
      const uint32_t index = group * 64 + static_cast<uint32_t>(__builtin_ctzll(seen));
      seen &= seen - 1;
      bits.fetch_and(~Bit(index), std::memory_order_acq_rel);
      if (index >= calls_) continue;
      CallEntry& entry = segment_.call(index);
      CallWord word = CallWord::Unpack(entry.word.load(std::memory_order_acquire));
      if (word.state != CallState::kDone || word.owner != self_ || (word.flags & kWordTaken) != 0) continue;
      word.flags |= kWordTaken;  // a done entry is its origin's alone
      entry.word.store(word.Pack(), std::memory_order_release);
      return index;
    }
  }
  return std::nullopt;
}

bool Dispatcher::HasCompletion() const noexcept {
  for (uint32_t group = 0; group < (calls_ + 63) / 64; ++group) {
    if (me_.completions[group].load(std::memory_order_seq_cst) != 0) return true;
  }
  return false;
}

void Dispatcher::AnnounceSleep(Takes takes) noexcept {
  me_.counters.sleeps.fetch_add(1, std::memory_order_relaxed);
  if (takes == Takes::kAll) hints(lane_).sleepers[self_ / 64].fetch_or(Bit(self_), std::memory_order_seq_cst);
  if (takes == Takes::kNested) hints(lane_).waiters[self_ / 64].fetch_or(Bit(self_), std::memory_order_seq_cst);
  me_.sleeping.store(1, std::memory_order_seq_cst);
}

void Dispatcher::AnnounceAwake() noexcept {
  me_.sleeping.store(0, std::memory_order_release);
  for (std::atomic<uint64_t>* const bits : {&hints(lane_).sleepers[self_ / 64], &hints(lane_).waiters[self_ / 64]}) {
    if ((bits->load(std::memory_order_relaxed) & Bit(self_)) != 0)
      bits->fetch_and(~Bit(self_), std::memory_order_seq_cst);
  }
}

void Dispatcher::Wake(uint16_t participant, bool always) noexcept {
  if (participant >= header_.participants.committed.load(std::memory_order_acquire)) return;
  if (!always && segment_.participant(participant).sleeping.load(std::memory_order_seq_cst) == 0) return;
  if (signal_) signal_(participant);
}

void Dispatcher::Notify(uint16_t participant, uint32_t notice) noexcept {
  if (participant >= header_.participants.committed.load(std::memory_order_acquire)) return;
  segment_.participant(participant).notices.fetch_or(notice, std::memory_order_seq_cst);
  Wake(participant);
}

uint32_t Dispatcher::TakeNotices() noexcept {
  if (me_.notices.load(std::memory_order_relaxed) == 0) return 0;
  return me_.notices.exchange(0, std::memory_order_acq_rel);
}

void Dispatcher::SetWaker(std::function<void(uint16_t)> signal) { signal_ = std::move(signal); }

bool Dispatcher::HasQueued(Takes takes) const noexcept {
  const uint32_t groups = (calls_ + 63) / 64;
  if (takes == Takes::kAll) {
    // Without branches between: polling workers do this all the time.
    uint64_t any = 0;
    for (uint32_t group = 0; group < groups; ++group) any |= hints(lane_).queued[group].load(std::memory_order_seq_cst);
    return any != 0;
  }
  for (uint32_t group = 0; group < groups; ++group) {
    uint64_t bits = hints(lane_).queued[group].load(std::memory_order_seq_cst);
    for (; bits != 0; bits &= bits - 1) {
      const uint32_t index = group * 64 + static_cast<uint32_t>(__builtin_ctzll(bits));
      if (index >= calls_) break;
      const CallWord word = CallWord::Unpack(segment_.call(index).word.load(std::memory_order_acquire));
      if (Takable(word, takes)) return true;
    }
  }
  return false;
}

bool Dispatcher::WorkerIdle(Lane lane) const noexcept {
  const auto kind = static_cast<uint32_t>(WorkerKind(lane));
  const uint32_t committed = header_.participants.committed.load(std::memory_order_acquire);
  for (uint32_t index = 1; index < committed; ++index) {
    if (index == self_) continue;
    const Participant& worker = segment_.participant(index);
    if (worker.kind != kind) continue;
    if (worker.state.load(std::memory_order_acquire) != static_cast<uint32_t>(ParticipantState::kReady)) continue;
    if (worker.running.load(std::memory_order_acquire) == 0) return true;
  }
  // One that has answered and is only about to say that it runs nothing: it has no call any more.
  std::bitset<kMaxParticipants> busy;
  for (uint32_t index = 0; index < calls_; ++index) {
    const CallWord word = CallWord::Unpack(segment_.call(index).word.load(std::memory_order_acquire));
    const bool runs = word.state == CallState::kClaimed || word.state == CallState::kCompleting;
    if (runs && word.owner < kMaxParticipants) busy.set(word.owner);
  }
  for (uint32_t index = 1; index < committed; ++index) {
    const Participant& worker = segment_.participant(index);
    const uint32_t state = worker.state.load(std::memory_order_acquire);
    if (index != self_ && worker.kind == kind && state == static_cast<uint32_t>(ParticipantState::kReady) &&
        !busy.test(index))
      return true;
  }
  return false;
}

uint32_t Dispatcher::in_use() const noexcept {
  uint32_t count = 0;
  for (uint32_t index = 0; index < calls_; ++index) {
    const CallWord word = CallWord::Unpack(segment_.call(index).word.load(std::memory_order_relaxed));
    count += word.state != CallState::kFree;
  }
  return count;
}

}  // namespace praas::dispatch
