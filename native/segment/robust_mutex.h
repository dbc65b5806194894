#pragma once

#include <pthread.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <optional>

#include "base/status.h"

namespace praas::segment {

/// A participant that did not say who it is (pool arenas of tools, tests).
inline constexpr uint16_t kUnknownParticipant = 0xffff;

enum class LockOutcome {
  kAcquired,
  kOwnerDied,  // acquired, but the last owner died inside: repair what it guards, then MakeConsistent
  kTimeout,
  kBroken,  // an owner gave up without MakeConsistent, or this is no mutex; only Init helps
};

[[nodiscard]] constexpr bool Holds(LockOutcome outcome) noexcept {
  return outcome == LockOutcome::kAcquired || outcome == LockOutcome::kOwnerDied;
}

/// Process-shared robust mutex in shared memory. Held for bounded native sections only: never across user code, growth
/// or I/O.
///
/// The death of an owner hands the mutex over with kOwnerDied. An owner that is merely stopped keeps it for ever, so
/// the host watches who holds it (StuckWatch), kills an owner that does not get on, and the next locker repairs. Not a
/// C++ object with a constructor: it lies in mapped memory, where Init makes it.
class RobustMutex {
 public:
  /// While nobody else can use it: at creation, or by a new host before it starts workers.
  [[nodiscard]] Status Init() noexcept;

  /// Tries at least once, also when the deadline has passed.
  [[nodiscard]] LockOutcome Lock(uint16_t participant, uint64_t deadline_ns) noexcept;
  [[nodiscard]] LockOutcome TryLock(uint16_t participant) noexcept;
  void Unlock() noexcept;

  /// Owner after kOwnerDied: what the mutex guards is whole again.
  void MakeConsistent() noexcept;
  /// Owner in a section that takes long by nature (a repair): "I am getting on".
  void Heartbeat() noexcept;

  struct Owner {
    bool held = false;
    bool died = false;  // the last owner died inside; the next locker repairs. Known where `tid` is
    uint16_t participant = kUnknownParticipant;  // unknown in the few instructions around locking, too
    pid_t tid = 0;                               // thread that holds it; 0 where the C library does not tell
    uint64_t acquisitions = 0;                   // with heartbeats: unchanged means no progress
  };
  [[nodiscard]] Owner Observe() const noexcept;

 private:
  LockOutcome Enter(int result, uint16_t participant) noexcept;

  pthread_mutex_t mutex_;
  std::atomic<uint64_t> owner_;  // participant + 1 in the low 16 bits (0 = nobody), acquisitions above
};

/// Unlocks when destroyed, if locked.
class MutexGuard {
 public:
  MutexGuard(RobustMutex& mutex, uint16_t participant, uint64_t deadline_ns) noexcept
      : mutex_(mutex), outcome_(mutex.Lock(participant, deadline_ns)) {}
  struct Try {};
  MutexGuard(RobustMutex& mutex, uint16_t participant, Try) noexcept
      : mutex_(mutex), outcome_(mutex.TryLock(participant)) {}
  MutexGuard(const MutexGuard&) = delete;
  MutexGuard& operator=(const MutexGuard&) = delete;
  ~MutexGuard() { Unlock(); }

  [[nodiscard]] LockOutcome outcome() const noexcept { return outcome_; }
  [[nodiscard]] bool held() const noexcept { return Holds(outcome_); }
  void Unlock() noexcept {
    if (!held()) return;
    mutex_.Unlock();
    outcome_ = LockOutcome::kTimeout;
  }

 private:
  RobustMutex& mutex_;
  LockOutcome outcome_;
};

/// Finds an owner that does not get on. One per mutex, in the host; Sample it a few times a second.
class StuckWatch {
 public:
  static constexpr uint64_t kLimitNs = 1'000'000'000;

  /// The owner, once the same acquisition has been seen for more than `limit_ns`.
  [[nodiscard]] std::optional<RobustMutex::Owner> Sample(const RobustMutex& mutex, uint64_t now_ns,
                                                         uint64_t limit_ns = kLimitNs) noexcept;

 private:
  RobustMutex::Owner last_;
  uint64_t since_ns_ = 0;
};

}  // namespace praas::segment
