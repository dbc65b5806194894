#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "base/result.h"
#include "dispatch/call_entry.h"
#include "dispatch/doorbell.h"
#include "dispatch/participant.h"
#include "segment/segment.h"

namespace praas::dispatch {

/// The call table and the hand-over of calls, as one participant sees it. No allocation, no lock, no wait: every method is
/// a few atomic operations. `self` is this participant's index. One instance per OS process; methods are thread-safe.
class Dispatcher {
 public:
  Dispatcher(const segment::Segment& segment, Doorbell& doorbell, uint16_t self);

  // --- sender ---
  /// free → reserved(self). nullopt: the table is full (back-pressure).
  [[nodiscard]] std::optional<uint32_t> Reserve() noexcept;
  /// reserved → queued, then hands it to a hot worker by credit or rings the doorbell.
  void Post(uint32_t index) noexcept;
  /// reserved → claimed(self), for a worker that took a call straight from a window.
  void ClaimReserved(uint32_t index) noexcept;
  void ReleaseReserved(uint32_t index) noexcept;  // reserved → free
  /// Sets `cancel` and, when still queued, takes the entry back (queued → done with `status`): true then.
  [[nodiscard]] bool Cancel(uint32_t index, uint32_t generation, Code status) noexcept;
  /// Hands an entry that is still queued out again (1 ms without a claim, or its worker died).
  void Ring(uint32_t index) noexcept;

  // --- worker ---
  /// queued → claimed(self) if the bell is still true.
  [[nodiscard]] bool Claim(Bell bell) noexcept;
  /// Claims any queued entry, oldest first as far as the table knows.
  [[nodiscard]] std::optional<uint32_t> ClaimAny() noexcept;
  void OfferCredit() noexcept;                           // none → idle
  [[nodiscard]] std::optional<Bell> TakeCredited() noexcept;  // a posted bell; the credit is then none
  /// idle → none. A bell that came first is returned and must be served.
  [[nodiscard]] std::optional<Bell> WithdrawCredit() noexcept;
  /// claimed(self) → completing(self): exactly one of handler, deadline watchdog and abort wins. false: somebody else did.
  [[nodiscard]] bool BeginCompletion(uint32_t index, uint32_t generation) noexcept;
  /// completing → done and tells the origin (its completion bit, its eventfd when it sleeps). Origins kHost and kWorker.
  void FinishCompletion(uint32_t index) noexcept;
  /// completing/parked/done → free, generation + 1.
  void Free(uint32_t index) noexcept;

  // --- origin ---
  /// Next finished call of which `self` is the origin; clears its bit. The entry is in state done and this caller's to free.
  [[nodiscard]] std::optional<uint32_t> NextCompletion() noexcept;

  // --- sleeping ---
  /// sleeping = 1 (seq_cst). The caller then re-checks credit, completions, notices, table and windows, and only then blocks.
  void AnnounceSleep() noexcept;
  void AnnounceAwake() noexcept;
  /// Signals a participant if it sleeps (or `always`). Uses the eventfd given to SetWaker.
  void Wake(uint16_t participant, bool always = false) noexcept;
  void Notify(uint16_t participant, uint32_t notice) noexcept;  // sets the notice bit, then Wake
  /// How to signal another participant's eventfd. Workers only have the host's and those they asked for: the default
  /// implementation falls back to the host, which relays.
  void SetWaker(std::function<void(uint16_t participant)> signal);

  [[nodiscard]] bool HasQueued() const noexcept;  // any entry in state queued (a hint: bitmap)
  [[nodiscard]] bool WorkerIdle() const noexcept; // some ready worker other than self neither runs nor has a bell

  // --- host, after a death ---
  /// Fails (or re-queues, when idempotent) what a dead worker had claimed, frees what it had reserved, rings for what is
  /// queued. `fail` gets each entry that must be answered with kWorkerCrashed, in state completing(host).
  void ReclaimParticipant(uint16_t dead, const std::function<void(uint32_t index)>& fail) noexcept;
  /// Host, at attach: every entry becomes free.
  void ResetTable() noexcept;
};

}  // namespace praas::dispatch
