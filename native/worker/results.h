#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/result.h"
#include "worker/core.h"
#include "worker/result_areas.h"
#include "worker/running.h"
#include "worker/streams.h"
#include "worker/windows.h"

namespace praas::worker {

/// Puts results and errors where the origin of a call wants them, and frees what the call held.
///
/// Who answers is decided by Dispatcher::BeginCompletion, once per call. The owner thread answers with the function's
/// result; the watchdog answers at the deadline. A function that runs on after that answer keeps reading its input and
/// writing its output, so both change hands before the entry does: their blocks then belong to this worker, not to the
/// call, and are freed when the function settles, or by the host when it kills the worker.
class Results {
 public:
  Results(Core& core, RunningTable& running, Windows& windows, Streams& streams, ResultAreas& areas)
      : core_(core), running_(running), windows_(windows), streams_(streams), areas_(areas) {}

  // --- owner ---
  [[nodiscard]] Result<std::span<std::byte>> Allocate(Running& record, uint64_t bytes);
  [[nodiscard]] Status Complete(Running& record, std::span<const std::byte> result);
  [[nodiscard]] Status Fail(Running& record, Code code, std::string_view message);
  /// Answers a claimed entry that is not going to run. `window`: of an entry that came from one, if it is mapped.
  void Reject(uint32_t index, MappedWindow* window, Code code, std::string_view message);
  /// Copies the parked result of a kDeliver entry claimed by this worker into the room its client has given.
  void Deliver(uint32_t index);

  // --- watchdog ---
  /// The deadline of the invocation that `word` of `record` named has passed: answers kInvocationTimeout, or, while the
  /// function writes where the client reads, leaves word that it is overdue. false: the owner has settled it meanwhile.
  [[nodiscard]] bool Expire(Running& record, uint64_t word);

 private:
  struct Target {
    uint32_t index;
    dispatch::Origin origin;
    uint64_t origin_call;
    window::ServerWindow* window;
  };
  /// Where a result of `bytes` bytes is built; nothing is recorded yet.
  struct Place {
    Running::Output kind;
    dispatch::PayloadRef ref;
    std::span<std::byte> memory;
    bool in_area;
  };
  [[nodiscard]] Result<Place> Choose(Running& record, uint64_t bytes);
  [[nodiscard]] Result<Place> ChooseArea(Running& record, uint64_t bytes);
  [[nodiscard]] Status PlaceInPool(Running& record, std::span<const std::byte> result);
  [[nodiscard]] std::optional<uint64_t> InInput(const Running& record,
                                                std::span<const std::byte> result) const noexcept;
  [[nodiscard]] Status PlaceInWindow(Running& record, std::span<const std::byte> result);
  [[nodiscard]] Status Park(Running& record, std::span<const std::byte> result);
  /// The result in a pool output block: the one it was built in, or a copy.
  [[nodiscard]] Status ToBlock(Running& record, std::span<const std::byte> result, dispatch::PayloadRef* ref);
  [[nodiscard]] Result<dispatch::PayloadRef> AllocateBlock(uint32_t index, uint64_t bytes);
  void FreeOutput(const dispatch::PayloadRef& ref);
  /// Leaves an answer in its block until the client has given room for it.
  void ParkBlock(const Target& target, const dispatch::PayloadRef& ref, Code code);
  /// An error too long for where the client expects it. false: it fits, or there is no memory for it here either.
  [[nodiscard]] bool ParkError(const Target& target, Code code, std::string_view message);
  void AnswerError(const Target& target, Code code, std::string_view message);
  void DropOutput(Running& record);
  void CloseArea(Running& record) noexcept;
  /// The end of an invocation the watchdog has answered.
  [[nodiscard]] Status SettleLate(Running& record);
  void Settle(Running& record, bool failed, uint64_t bytes_out);
  void CountCopy(uint64_t bytes) noexcept;

  Core& core_;
  RunningTable& running_;
  Windows& windows_;
  Streams& streams_;
  ResultAreas& areas_;
};

}  // namespace praas::worker
