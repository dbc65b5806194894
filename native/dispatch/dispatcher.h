#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>

#include "base/result.h"
#include "dispatch/call_entry.h"
#include "dispatch/doorbell.h"
#include "dispatch/participant.h"
#include "segment/segment.h"

namespace praas::dispatch {

/// Which calls a worker is ready to take. One that waits for a call of its own takes nested calls only: if it took new
/// ones as well, every worker could come to wait, on a full stack, for calls that nobody is left to run.
enum class Takes : uint8_t { kNothing, kNested, kAll };

/// The call table and the hand-over of calls, as one participant sees it. No allocation, no lock, no wait: every method
/// is a few atomic operations. `self` is this participant's index, `lane` the calls it takes (a host takes none). One
/// instance per OS process; methods are thread-safe, but a given entry is advanced by whoever owns it only.
///
/// A call belongs to the lane of its function. Credits, hints and doorbells are per lane; what follows is said of one.
///
/// Why no wake-up is lost. A posted entry is `queued` before anything else happens. Then either a polling worker got it
/// as its credit (taken by CAS, so it sees it before it can sleep), or its `queued` bit is set and afterwards
/// `sleepers` is read, while a worker sets its `sleepers` bit and afterwards reads the `queued` bits (all sequentially
/// consistent): at least one of the two sees the other. A bell into a full doorbell may be dropped, because whoever
/// takes one of the bells inside drains the table before it sleeps again. test/native/dispatch/handover_test.cc
/// explores every interleaving of these steps.
class Dispatcher {
 public:
  Dispatcher(const segment::Segment& segment, const Doorbells& doorbells, uint16_t self, Lane lane = Lane::kNode);

  // --- sender ---
  /// free → reserved(self). nullopt: the table is full (back-pressure).
  [[nodiscard]] std::optional<uint32_t> Reserve() noexcept;
  /// reserved → queued, then hands it to a polling worker by credit, or rings the doorbell if a worker sleeps.
  /// A worker also tells the host, unless that watches anyway: somebody has to notice when who got the call is stopped.
  /// true: a polling worker has it as its credit.
  bool Post(uint32_t index) noexcept;
  /// Whether a worker of any lane polls.
  [[nodiscard]] bool AnyPoller() const noexcept;
  /// Which workers run `function`.
  [[nodiscard]] Lane LaneOf(uint32_t function) const noexcept;
  /// reserved → claimed(self), for a worker that took a call of its lane straight from a window.
  void ClaimReserved(uint32_t index) noexcept;
  void ReleaseReserved(uint32_t index) noexcept;  // reserved → free
  /// For the origin, which alone frees the entry. Queued: takes it back, done with `status`, and returns true (the
  /// caller then frees it). Running: sets `cancel`, tells its worker and returns false.
  [[nodiscard]] bool Cancel(uint32_t index, uint32_t generation, Code status) noexcept;
  /// Rings for some entry of this lane that is queued.
  void RingQueued() noexcept;
  /// Hands an entry that is still queued out again (1 ms without a claim, or its worker died).
  void Ring(uint32_t index) noexcept;

  // --- worker ---
  /// queued → claimed(self) if the bell is still true.
  [[nodiscard]] bool Claim(Bell bell) noexcept;
  /// Claims some queued entry, in turn from where the last one was found, so that none starves.
  [[nodiscard]] std::optional<uint32_t> ClaimAny(Takes takes = Takes::kAll) noexcept;
  /// A function is given the call: should this worker die from here on, only an idempotent one is made again.
  void Begin(uint32_t index, uint32_t generation) noexcept;
  /// It was not given it after all. Does nothing if somebody has ended the call meanwhile.
  void UndoBegin(uint32_t index, uint32_t generation) noexcept;
  void OfferCredit() noexcept;                                // none → idle; a no-op when idle or posted already
  [[nodiscard]] std::optional<Bell> TakeCredited() noexcept;  // a posted bell; the credit is then none
  /// idle → none. A bell that came first is returned and must be served.
  [[nodiscard]] std::optional<Bell> WithdrawCredit() noexcept;
  /// claimed(self) → completing(self): exactly one of handler, deadline watchdog and abort wins. false: somebody else
  /// did.
  [[nodiscard]] bool BeginCompletion(uint32_t index, uint32_t generation) noexcept;
  /// completing → done and tells the origin (its completion bit, its eventfd when it sleeps); that of a window's call
  /// is the host, for workers that have not mapped the window.
  void FinishCompletion(uint32_t index) noexcept;
  /// completing → parked: the result of a window call waits for room. Owner becomes the host.
  void Park(uint32_t index) noexcept;
  /// parked → reserved(self) if `index` still is the parked call of this window and origin call. The caller then makes
  /// it a kDeliver and Posts it, or with kDrop frees its block and the entry. Should it die first, the call is parked
  /// again, as whoever consumes the room it was given next expects; with kDrop, when the block may be gone, it is
  /// dropped.
  enum class Unparked { kDeliver, kDrop };
  [[nodiscard]] bool Unpark(uint32_t index, uint16_t window, uint64_t origin_call,
                            Unparked what = Unparked::kDeliver) noexcept;
  /// reserved/completing/done/parked → free, generation + 1.
  void Free(uint32_t index) noexcept;

  // --- origin ---
  /// Next finished call of which `self` is the origin; clears its bit. The entry is in state done and this caller's to
  /// free.
  [[nodiscard]] std::optional<uint32_t> NextCompletion() noexcept;
  [[nodiscard]] bool HasCompletion() const noexcept;

  // --- sleeping ---
  /// The caller then re-checks credit, completions, notices, table and windows, and only then blocks. With kAll it
  /// listens to the doorbell, so a sender has to ring; with kNested it is signalled when a nested call is queued.
  void AnnounceSleep(Takes takes = Takes::kAll) noexcept;
  void AnnounceAwake() noexcept;
  /// Signals a participant if it sleeps (or `always`), through the function given to SetWaker.
  void Wake(uint16_t participant, bool always = false) noexcept;
  void Notify(uint16_t participant, uint32_t notice) noexcept;  // sets the notice bit, then Wake
  [[nodiscard]] uint32_t TakeNotices() noexcept;                // of self
  /// How to signal another participant: its eventfd, or the host as relay. Set before any other thread uses the
  /// dispatcher.
  void SetWaker(std::function<void(uint16_t participant)> signal);

  /// Some entry of this lane may be queued (kAll: a hint, the bitmap), or some nested one is (kNested).
  [[nodiscard]] bool HasQueued(Takes takes = Takes::kAll) const noexcept;
  /// Some ready worker of `lane` other than self runs nothing.
  [[nodiscard]] bool WorkerIdle(Lane lane) const noexcept;
  [[nodiscard]] uint32_t in_use() const noexcept;  // entries that are not free; counts, so not for the path of a call

  // --- host ---
  /// From now on it looks at the call table often enough to find what nobody claims.
  void Watch() noexcept;
  /// It looks no more until it is told (kNoticePosted). false: something is queued already, and it still watches.
  [[nodiscard]] bool Unwatch() noexcept;

  // --- host, after a death ---
  /// What became of an entry that named the dead worker.
  enum class Orphan {
    kFail,  // it ran there: in state completing(self) now; the caller answers kWorkerCrashed and finishes or frees it
    kDrop,  // the dead worker was its origin, or was still filling it: the caller releases its blocks and frees it
  };
  /// Takes the dead worker's credit back, re-queues what it had claimed and either had not begun or is idempotent
  /// (kMostDeaths times), hands the rest to `orphan`, rings for what is queued, and tells origins again of what is done
  /// but was perhaps not told any more. Entries of which it is the origin and that still run elsewhere stay;
  /// `DropFinished` later yields them, and the participant's slot must not be reused while `IsOrigin`.
  void ReclaimParticipant(uint16_t dead, const std::function<void(uint32_t index, Orphan what)>& orphan) noexcept;
  [[nodiscard]] std::optional<uint32_t> DropFinished(uint16_t dead) noexcept;
  [[nodiscard]] bool IsOrigin(uint16_t participant) const noexcept;
  /// Host, at attach: every entry, credit and bitmap as in a new segment. Generations go on.
  void ResetTable() noexcept;

 private:
  bool TryCredit(Bell bell, Lane lane) noexcept;
  /// Queued, of this lane, and of a kind that `takes` names.
  [[nodiscard]] bool Takable(CallWord word, Takes takes) const noexcept;
  [[nodiscard]] static Lane LaneOfWord(CallWord word) noexcept {
    return (word.flags & kWordNative) != 0 ? Lane::kNative : Lane::kNode;
  }
  [[nodiscard]] bool AnySleeper(Lane lane) const noexcept;
  void WakeWaiters(Lane lane) noexcept;
  [[nodiscard]] segment::Header::Hints& hints(Lane lane) const noexcept {
    return header_.hints[static_cast<size_t>(lane)];
  }
  bool Advance(uint32_t index, uint32_t generation, CallState from, CallState to, uint16_t owner,
               uint8_t more_flags = 0) noexcept;

  const segment::Segment& segment_;
  segment::Header& header_;
  const Doorbells& doorbells_;
  Participant& me_;
  const uint16_t self_;
  const Lane lane_;
  const uint32_t calls_;
  std::atomic<uint32_t> reserve_hint_{0};
  std::atomic<uint32_t> claim_cursor_{0};
  std::function<void(uint16_t)> signal_;
};

}  // namespace praas::dispatch
