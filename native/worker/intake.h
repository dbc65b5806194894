#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "worker/core.h"
#include "worker/inbox.h"
#include "worker/lease.h"
#include "worker/results.h"
#include "worker/running.h"
#include "worker/runtime.h"
#include "worker/windows.h"

namespace praas::worker {

class DoorbellBridge;
class Watchdog;

/// Where calls come from: this worker's credit, the rings of adopted windows, the call table, the doorbell. Owner
/// thread only. Nothing here blocks, except that the first call from a client's window waits for its mapping.
class Intake {
 public:
  struct Parts {
    Core& core;
    Inbox& inbox;
    RunningTable& running;
    Windows& windows;
    Results& results;
    Watchdog& watchdog;
    DoorbellBridge& bridge;
    Lease& lease;
  };
  explicit Intake(const Parts& parts)
      : core_(parts.core),
        inbox_(parts.inbox),
        running_(parts.running),
        windows_(parts.windows),
        results_(parts.results),
        watchdog_(parts.watchdog),
        bridge_(parts.bridge),
        lease_(parts.lease) {}

  /// What this worker offers, in the order in which it knows them.
  void SetFunctions(const std::vector<FunctionInfo>& functions);

  [[nodiscard]] std::optional<Invocation> Next(dispatch::Takes takes);
  /// Whether Next might find something: what a polling loop looks at between two calls of it.
  [[nodiscard]] bool HasWork(dispatch::Takes takes);
  /// The same, only for the ways of hot calls: adopted windows and the credit.
  [[nodiscard]] bool HasArrived() const noexcept;
  /// Withdraws credit and windows, announces sleep, then looks everywhere once more. true: the owner may block.
  [[nodiscard]] bool PrepareToSleep(dispatch::Takes takes);
  void Awake() noexcept;

 private:
  [[nodiscard]] std::optional<uint32_t> FindClaimed(dispatch::Takes takes);
  [[nodiscard]] std::optional<Invocation> NextLeased(dispatch::Takes takes);
  [[nodiscard]] bool PrepareLeasedToSleep(dispatch::Takes takes);
  [[nodiscard]] bool dedicated() const noexcept { return core_.dedicated.load(std::memory_order_relaxed); }
  [[nodiscard]] std::optional<uint32_t> ClaimByBell();
  [[nodiscard]] std::optional<Invocation> Begin(uint32_t index);
  [[nodiscard]] bool TakesStream(uint32_t function) const noexcept;
  /// The position, among the functions this worker offers, of the one the process knows by this index.
  [[nodiscard]] std::optional<uint32_t> Offered(uint32_t function);
  [[nodiscard]] Status Fill(Running& record, uint32_t index, MappedWindow* mapped);
  void OwnInput(Running& record) noexcept;
  /// Takes the credit back. nullopt: it was idle or not offered.
  [[nodiscard]] std::optional<dispatch::Bell> RetractCredit() noexcept;
  /// A bell this worker cannot serve now: others may.
  void PassOn(dispatch::Bell bell) noexcept { core_.dispatcher->Ring(bell.index); }

  Core& core_;
  Inbox& inbox_;
  RunningTable& running_;
  Windows& windows_;
  Results& results_;
  Watchdog& watchdog_;
  DoorbellBridge& bridge_;
  Lease& lease_;
  std::unordered_map<std::string, uint32_t> positions_;  // by name
  std::vector<std::optional<uint32_t>> offered_here_;    // by index in the process; grows with its table
  std::optional<uint32_t> pending_;                      // claimed while preparing to sleep
  bool offered_ = false;                                 // credit
  bool woken_ = false;                                   // look at the doorbell once
  bool everywhere_ = false;                              // look at all windows once
  uint32_t polls_ = 0;
  uint32_t turns_ = 0;
};

}  // namespace praas::worker
