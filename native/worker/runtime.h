#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dispatch/dispatcher.h"
#include "segment/segment.h"
#include "state/state_store.h"
#include "worker/control.h"

namespace praas::worker {

class ResultAreas;

/// One invocation this worker has claimed. Copies of untrusted fields, validated.
struct Invocation {
  uint64_t handle = 0;  // call entry index and generation; names the invocation everywhere in this worker
  uint32_t function = 0;
  uint32_t flags = 0;  // dispatch::CallFlags
  bool stream = false;
  uint16_t depth = 0;
  uint64_t deadline_ns = 0;
  std::span<const std::byte> input;  // in place or a small copy: valid until the invocation is completed or failed
};

/// Where a result is being built: the final place, so that it is written once.
struct Output {
  std::span<std::byte> bytes;
};

/// A finished nested call.
struct NestedReply {
  uint64_t call = 0;  // what Post returned
  Status status;
  std::span<const std::byte> payload;  // valid until FreeNested(call)
};

/// A worker as the core sees it, whatever language runs the functions: takes calls by credit, doorbell, drain or
/// straight from a window, gives their input in place, puts results where their origin wants them. One per OS process.
///
/// Threads: the owner thread calls everything. A native *watchdog* thread of its own reads the control socket, ends the
/// process within 100 ms of the host's end, answers invocations at their deadline (kInvocationTimeout) and, `grace_ns`
/// later, kills the process if the function still runs; it works even when the owner thread never returns from user
/// code.
class WorkerRuntime {
 public:
  struct Options {
    std::function<void()> on_exit{};  // test hook in place of _exit; default: _exit(0) / raise(SIGKILL)
    /// A client's window is about to be unmapped: views of it have to go first. On the owner thread.
    std::function<void(std::span<std::byte>)> on_unmap{};
  };
  /// Reads kAttach (blocking until deadline: a pre-warmed worker waits here or in its own loop on control_fd()), maps
  /// the segment and the pool, opens the doorbell, starts the watchdog.
  [[nodiscard]] static Result<std::unique_ptr<WorkerRuntime>> Attach(UniqueFd control, Options options,
                                                                     uint64_t deadline_ns);
  ~WorkerRuntime();

  [[nodiscard]] const struct Attach& attach() const noexcept;
  /// The application to load, as the host's kLoad said it (JSON). Blocks until it came or the deadline.
  [[nodiscard]] Result<std::string> WaitForLoad(uint64_t deadline_ns);
  /// Before Ready: from here on functions can write to nothing but their own results. Payloads are mapped read-only,
  /// and each result is built in whole pages between inaccessible address space (worker/result_areas.h).
  /// `without_state`: no function uses the state of the process either, and it becomes inaccessible.
  [[nodiscard]] Status Guard(bool without_state);
  [[nodiscard]] bool guarded() const noexcept;
  /// Before a function runs that may not ask for an output.
  void CloseUnusedAreas() noexcept;
  [[nodiscard]] Status Ready(const std::vector<FunctionInfo>& functions);
  [[nodiscard]] Status LoadFailed(std::string_view why);
  [[nodiscard]] bool draining() const noexcept;
  /// After the owner saw draining() and has nothing in progress: tells the host.
  void Drained();

  // --- taking calls ---
  /// Next invocation without blocking: credit, doorbell, table, adopted windows. nullopt: none. Offers a credit while
  /// `hot`; call with `capacity` = false when this worker may not run another one now (nothing is claimed then, but
  /// nested completions and notices still count as activity).
  [[nodiscard]] std::optional<Invocation> TryNext(bool capacity) { return TryNext(TakesOf(capacity)); }
  /// The same for a worker that waits within a call: kNested.
  [[nodiscard]] std::optional<Invocation> TryNext(dispatch::Takes takes);
  /// What a polling owner does between two TryNext in vain: looks briefly where hot calls come. true: one has.
  [[nodiscard]] bool LookOut() const noexcept;
  /// Announces sleep, withdraws credit, gives windows back, re-checks everything. true: nothing there, the owner may
  /// wait on doorbell_fd() and event_fd(). false: call TryNext, NextNested, TakeNotices and TakeCancellations again.
  [[nodiscard]] bool PrepareToSleep(bool capacity) { return PrepareToSleep(TakesOf(capacity)); }
  [[nodiscard]] bool PrepareToSleep(dispatch::Takes takes);
  void Awake();  // after PrepareToSleep returned true and the wait is over
  /// PrepareToSleep + a blocking native wait (doorbell or eventfd, whichever comes first) until the deadline + Awake.
  void Sleep(bool capacity, uint64_t deadline_ns) { Sleep(TakesOf(capacity), deadline_ns); }
  void Sleep(dispatch::Takes takes, uint64_t deadline_ns);
  [[nodiscard]] int doorbell_fd()
      const noexcept;  // message queue; −1 for futex (then event_fd is signalled by a bridge thread)
  [[nodiscard]] int event_fd() const noexcept;  // completions, notices, cancellations, control
  [[nodiscard]] int64_t hot_ns() const noexcept;
  /// It is there to be leased: doorbell_fd() then tells of all that concerns its lease, also while it has no capacity.
  [[nodiscard]] bool dedicated() const noexcept;

  // --- results ---
  /// `bytes` of memory at the result's final place (up to 4 KiB: memory of this worker, copied once). A second call for
  /// one invocation replaces the first.
  [[nodiscard]] Result<Output> AllocateOutput(uint64_t handle, uint64_t bytes);
  /// Ends this OS process: functions have closed what the worker needs to give this invocation to its own, which was
  /// not begun. Another worker runs it.
  [[noreturn]] void EndUnbegun(uint64_t handle) noexcept;
  /// Likewise, for an invocation that a function was given: no other call of this worker could have memory, either.
  [[noreturn]] static void EndLost() noexcept;
  /// Completes with: the allocated output (or a part of it that starts at its begin), the input as it stands, or other
  /// bytes (copied once into place). Whoever completes second (deadline, cancellation) finds kInvocationTimeout here;
  /// that is fine. Any other error is what the caller got instead of the result (no memory, too large, bytes from a
  /// streaming function). The invocation is over either way; kArgumentInvalid: there was none of this handle.
  [[nodiscard]] Status Complete(uint64_t handle, std::span<const std::byte> result);
  [[nodiscard]] Status Fail(uint64_t handle, Code code, std::string_view message);
  [[nodiscard]] bool Cancelled(uint64_t handle) const noexcept;  // cancelled, timed out, or its origin is gone
  /// Handles of running invocations whose cancellation or timeout has not been reported yet.
  [[nodiscard]] std::vector<uint64_t> TakeCancellations();

  // --- streams (docs/protocol.md, "Streams"); one reader and one writer per invocation ---
  /// Next input chunk in place, valid until NextChunk is called again; empty span + end=true at the end; nullopt: not
  /// yet.
  struct Chunk {
    std::span<const std::byte> bytes;
    bool end = false;
    Status status;
  };
  [[nodiscard]] std::optional<Chunk> NextChunk(uint64_t handle);
  /// false: no room now; a stream notice follows.
  [[nodiscard]] Result<bool> WriteChunk(uint64_t handle, std::span<const std::byte> bytes);

  // --- nested calls to the own process ---
  [[nodiscard]] std::optional<uint32_t> FindFunction(std::string_view name) const;
  [[nodiscard]] Result<uint64_t> Post(uint32_t function, std::span<const std::byte> input, uint32_t flags,
                                      uint16_t depth, uint64_t deadline_ns);
  [[nodiscard]] std::optional<NestedReply> NextNested();
  void FreeNested(uint64_t call);
  void CancelNested(uint64_t call);
  /// Blocks for one nested call; kInvocationDeadlock at once when no other worker is free.
  [[nodiscard]] Result<NestedReply> WaitNested(uint64_t call, uint64_t deadline_ns);

  [[nodiscard]] state::StateStore& state() noexcept;
  [[nodiscard]] const segment::Segment& segment() const noexcept;
  /// Notices since the last call (dispatch::ParticipantNotice bits).
  [[nodiscard]] uint32_t TakeNotices();

  /// The stable mapping that inputs and outputs around `address` lie in, for views that share one buffer object: the
  /// pool, a client's window, or this worker's memory for small results. Empty when `address` is in none.
  [[nodiscard]] std::span<std::byte> MappingOf(const std::byte* address) const noexcept;
  /// The object a payload is mapped from, and where its first byte is mapped; fd −1 for memory of this worker.
  struct Backing {
    int fd = -1;
    const std::byte* begin = nullptr;
  };
  [[nodiscard]] Backing BackingOf(const std::byte* address) const noexcept;
  [[nodiscard]] const ResultAreas& areas() const noexcept;

 private:
  [[nodiscard]] static constexpr dispatch::Takes TakesOf(bool capacity) noexcept {
    return capacity ? dispatch::Takes::kAll : dispatch::Takes::kNothing;
  }
  struct Parts;
  explicit WorkerRuntime(std::unique_ptr<Parts> parts) noexcept;
  std::unique_ptr<Parts> parts_;
};

}  // namespace praas::worker
