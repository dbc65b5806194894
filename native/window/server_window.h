#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"
#include "segment/segment.h"
#include "window/layout.h"
#include "window/mapping.h"

namespace praas::window {

/// A submission as the server side believes it: copied out of the window, then validated against the window's bounds.
struct Submission {
  uint32_t call;  // window call index
  uint32_t sequence;
  bool room_given;  // true: kRoomGiven, deliver the parked result
  uint32_t parked;  // call entry named by the client; still to be checked against the call table
  int64_t
      entry;  // call entry noted for this submission by a consumer that ended before Taken; −1 none. Also to be checked
  uint32_t function;
  uint32_t flags;
  uint64_t deadline_ns;
  uint64_t input_offset, input_bytes;
  uint64_t output_offset, output_capacity;
};

/// Host's or a worker's mapping of one client window.
///
/// Whoever consumes does it like this; `make_entry` puts the submission into the call table:
///
///   for (int round = 0; round < kConsumeRounds; ++round) {
///     if (!window.TryConsume(self)) return;             // somebody else consumes and will see whatever is there
///     for (int step = 0; step < kRing; ++step) {
///       auto submission = window.Peek();
///       if (!submission || !make_entry(*submission)) break;  // none, or the table is full
///       window.Taken();
///     }
///     if (!window.EndConsume(self) || full) break;
///   }
///   // If anything is left, somebody has to know: the host comes back to it, workers tell the host.
///
/// Peek, Taken and Note belong to the consumer. Everything else may be called from any thread.
class ServerWindow {
 public:
  struct Created {
    UniqueFd memfd;           // sealed F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL
    UniqueFd submit_event;    // client → host: "needs_wake"
    UniqueFd complete_event;  // host/worker → client
  };
  /// Host: makes and formats the memory of a new client. `window_bytes` is rounded up to pages; kArgumentInvalid below
  /// kMinWindowBytes. Only the header and the calls are committed.
  [[nodiscard]] static Result<Created> Create(uint64_t window_bytes);
  /// Refuses a memfd that lacks the seals: its size could change under the mapping.
  [[nodiscard]] static Result<std::unique_ptr<ServerWindow>> Map(const segment::Segment& segment, uint32_t index,
                                                                 UniqueFd memfd, UniqueFd complete_event);
  ~ServerWindow();

  /// From here on this process reads payloads, but writes to them through Write only.
  [[nodiscard]] Status ProtectPayloads();

  [[nodiscard]] uint32_t index() const noexcept { return index_; }
  [[nodiscard]] int memfd() const noexcept { return memfd_.get(); }
  [[nodiscard]] int complete_event() const noexcept { return complete_event_.get(); }
  /// A descriptor of this process was closed behind its back: what was to be written was not, or a client not woken.
  [[nodiscard]] bool descriptor_lost() const noexcept { return descriptor_lost_.load(std::memory_order_relaxed); }
  [[nodiscard]] uint64_t bytes() const noexcept;
  [[nodiscard]] const std::byte* base() const noexcept { return mapping_.base(); }
  [[nodiscard]] bool HasSubmissions() const noexcept;

  /// Becomes the one reader of the ring. false: somebody else is.
  [[nodiscard]] bool TryConsume(uint16_t self) noexcept;
  /// true: the ring is not empty. A signal for what came meanwhile may have gone to somebody who then found this
  /// consumer in place and left, so the caller has to try again (or to know that it will).
  [[nodiscard]] bool EndConsume(uint16_t self) noexcept;
  /// Who consumes at this moment, and how often anybody has begun to. Clients have no part in either.
  [[nodiscard]] std::optional<uint16_t> consumer() const noexcept;
  [[nodiscard]] uint32_t turns() const noexcept;
  /// While consuming: the next submission; nullopt when the ring is empty. A malformed one is answered here
  /// (kProtocolInvalid) and skipped; one that was answered already is skipped. `Peek` does not advance the ring head:
  /// `Taken` does, after the call entry exists, so that a consumer killed in between loses nothing: the next one finds
  /// the same submission and, in `Submission::entry`, the entry that was noted for it.
  [[nodiscard]] std::optional<Submission> Peek() noexcept;
  /// The room that the client has given for the result of that call, as a submission; nullopt: none. For a consumer
  /// that cannot get on in the ring: the record of the room is then skipped there.
  [[nodiscard]] std::optional<Submission> RoomFor(uint32_t call, uint32_t sequence) const noexcept;
  /// Notes the entry made for the submission just peeked. Between filling the reserved entry and posting it.
  void Note(uint32_t call, uint32_t sequence, uint32_t entry) noexcept;
  void Taken() noexcept;

  /// A hot worker takes over polling the ring (it clears needs_wake). false: another one polls it.
  [[nodiscard]] bool Adopt(uint16_t self) noexcept;
  /// The poller is about to sleep or to leave: sets needs_wake, then gives the window up, then looks again. true: there
  /// are submissions, and the client may have published them before it could see needs_wake: consume them before
  /// sleeping.
  [[nodiscard]] bool Abandon(uint16_t self) noexcept;
  /// Host: gives up, in the name of a dead participant, consuming and polling. true: there are submissions to consume.
  [[nodiscard]] bool Reclaim(uint16_t dead) noexcept;
  void SetNeedsWake(bool needs_wake) noexcept;  // seq_cst

  /// Empty when the range is not inside the window.
  [[nodiscard]] std::span<std::byte> Bytes(uint64_t offset, uint64_t bytes) const noexcept;
  /// Copies bytes into the window. false: not all of them, for descriptor_lost(). Precondition: Bytes(offset,
  /// bytes.size()) is not empty.
  [[nodiscard]] bool Write(uint64_t offset, std::span<const std::byte> bytes) noexcept;
  [[nodiscard]] bool cancelled(uint32_t call, uint32_t sequence) const noexcept;
  /// It waits for its answer. From then on its client may use the memory it lent for other calls.
  [[nodiscard]] bool open(uint32_t call, uint32_t sequence) const noexcept;
  /// Changes whenever the client has cancelled a call.
  [[nodiscard]] uint32_t cancels() const noexcept;

  /// Writes the response and completes call `call` of `sequence` if it is still open; wakes the client when it sleeps.
  /// false: somebody answered before; the client is told of that answer again, because who gave it may have been killed
  /// before it could. At most one caller at a time for one call (the call table sees to that).
  bool Complete(uint32_t call, uint32_t sequence, uint32_t status, uint64_t result_offset,
                uint64_t result_bytes) noexcept;
  /// `message` becomes the result: in the room the client has offered when it is longer than the call's output slot and
  /// fits there, else in the slot, cut to kSlotOutputBytes.
  struct Room {
    uint64_t offset = 0, bytes = 0;
  };
  bool CompleteError(uint32_t call, uint32_t sequence, uint32_t status, std::span<const char> message,
                     Room room) noexcept;
  bool CompleteError(uint32_t call, uint32_t sequence, uint32_t status, std::span<const char> message) noexcept {
    return CompleteError(call, sequence, status, message, Room{});
  }
  /// The result is `bytes` long and waits in call entry `parked`: asks the client for room. false: answered before.
  bool NeedRoom(uint32_t call, uint32_t sequence, uint32_t parked, uint64_t bytes) noexcept;
  /// The same, for the host, which does not know whether the one who parked the result came to say so and to wake the
  /// client: does nothing if the client has taken note.
  void NeedRoomStill(uint32_t index, uint32_t sequence, uint32_t parked, uint64_t result_bytes) noexcept;

 private:
  ServerWindow(segment::WindowSlot& slot, uint32_t index, UniqueFd memfd, UniqueFd complete_event,
               Mapping mapping) noexcept;
  [[nodiscard]] WindowHeader& header() const noexcept;
  [[nodiscard]] SubmissionRecord& record(uint32_t position) const noexcept;
  [[nodiscard]] std::atomic<uint64_t>& note(uint32_t index) const noexcept;
  [[nodiscard]] WindowCall& call(uint32_t index) const noexcept;
  [[nodiscard]] bool Answer(uint32_t call, uint32_t sequence, CallState state, uint32_t status, uint32_t parked,
                            uint64_t result_offset, uint64_t result_bytes) noexcept;
  void Tell(uint32_t call) noexcept;

  segment::WindowSlot& slot_;
  uint32_t index_;
  UniqueFd memfd_;
  UniqueFd complete_event_;
  Mapping mapping_;
  uint32_t peeked_head_ = 0;
  uint32_t last_call_ = 0;  // looked at last
  bool protected_ = false;
  std::atomic<bool> descriptor_lost_{false};
};

}  // namespace praas::window
