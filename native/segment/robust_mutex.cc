#include "segment/robust_mutex.h"

#include <linux/futex.h>

#include <algorithm>
#include <cerrno>

#include "base/clock.h"
#include "base/spin.h"

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace praas::segment {
namespace {

constexpr uint32_t kSpins = 64;  // about as long as a section lasts
constexpr uint64_t kSliceNs = 50'000'000;

constexpr uint64_t Pack(uint64_t acquisitions, uint32_t owner) noexcept { return acquisitions << 16 | owner; }

/// The futex word of a robust mutex holds the thread id of its owner, or a bit once that is dead; that is the kernel's
/// contract for finding dead owners (set_robust_list(2)). Where it lies in the mutex is known for glibc; elsewhere 0.
uint32_t FutexWord(const pthread_mutex_t& mutex) noexcept {
#if defined(__GLIBC__)
  return static_cast<uint32_t>(__atomic_load_n(&mutex.__data.__lock, __ATOMIC_RELAXED));
#else
  (void)mutex;
  return 0;
#endif
}

/// pthread_mutex_timedlock, known to ThreadSanitizer also where it takes the mutex over from a dead owner.
int TimedLock(pthread_mutex_t* mutex, const timespec& until) noexcept {
  const int result = pthread_mutex_timedlock(mutex, &until);
#if defined(__SANITIZE_THREAD__)
  // Its interceptor counts only a result of 0 as a lock and then reports the unlock.
  if (result == EOWNERDEAD) {
    __tsan_mutex_pre_lock(mutex, 0);
    __tsan_mutex_post_lock(mutex, 0, 0);
  }
#endif
  return result;
}

}  // namespace

Status RobustMutex::Init() noexcept {
  pthread_mutexattr_t attributes;
  int error = pthread_mutexattr_init(&attributes);
  if (error != 0) return Status::System("pthread_mutexattr_init", error);
  error = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  if (error == 0) error = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  if (error == 0) error = pthread_mutex_init(&mutex_, &attributes);
  pthread_mutexattr_destroy(&attributes);
  if (error != 0) return Status::System("pthread_mutex_init of a robust process-shared mutex", error);
  owner_.store(0, std::memory_order_relaxed);
  return Status::Ok();
}

LockOutcome RobustMutex::Enter(int result, uint16_t participant) noexcept {
  if (result == EBUSY || result == ETIMEDOUT) return LockOutcome::kTimeout;
  if (result != 0 && result != EOWNERDEAD) return LockOutcome::kBroken;
  const uint64_t acquisitions = (owner_.load(std::memory_order_relaxed) >> 16) + 1;
  owner_.store(Pack(acquisitions, static_cast<uint16_t>(participant + 1)), std::memory_order_relaxed);
  return result == 0 ? LockOutcome::kAcquired : LockOutcome::kOwnerDied;
}

LockOutcome RobustMutex::TryLock(uint16_t participant) noexcept {
  return Enter(pthread_mutex_trylock(&mutex_), participant);
}

LockOutcome RobustMutex::Lock(uint16_t participant, uint64_t deadline_ns) noexcept {
  SpinYield spin;
  LockOutcome outcome = TryLock(participant);
  while (outcome == LockOutcome::kTimeout && spin.steps() < kSpins) {
    spin.Step();
    outcome = TryLock(participant);
  }
  while (outcome == LockOutcome::kTimeout) {
    const uint64_t now = NowNs();
    if (now >= deadline_ns) return outcome;
    // pthread_mutex_timedlock knows the wall clock only (pthread_mutex_clocklock needs glibc 2.30). Short slices keep
    // the deadline monotonic where the wall clock is set meanwhile.
    const timespec until = ToTimespec(WallNs() + std::min(kSliceNs, deadline_ns - now));
    outcome = Enter(TimedLock(&mutex_, until), participant);
  }
  return outcome;
}

void RobustMutex::Unlock() noexcept {
  owner_.store(owner_.load(std::memory_order_relaxed) & ~uint64_t{0xffff}, std::memory_order_relaxed);
  pthread_mutex_unlock(&mutex_);
}

void RobustMutex::MakeConsistent() noexcept { pthread_mutex_consistent(&mutex_); }

void RobustMutex::Heartbeat() noexcept { owner_.fetch_add(1u << 16, std::memory_order_relaxed); }

RobustMutex::Owner RobustMutex::Observe() const noexcept {
  const uint64_t word = owner_.load(std::memory_order_acquire);
  Owner owner;
  const uint32_t futex = FutexWord(mutex_);
  owner.tid = static_cast<pid_t>(futex & FUTEX_TID_MASK);
  owner.died = (futex & FUTEX_OWNER_DIED) != 0;
  owner.acquisitions = word >> 16;
  const auto participant = static_cast<uint16_t>(word);
#if defined(__GLIBC__)
  owner.held = owner.tid != 0;  // a dead owner's participant stays until the next locker comes; its thread id does not
#else
  owner.held = participant != 0;
#endif
  if (owner.held && participant != 0) owner.participant = static_cast<uint16_t>(participant - 1);
  return owner;
}

std::optional<RobustMutex::Owner> StuckWatch::Sample(const RobustMutex& mutex, uint64_t now_ns,
                                                     uint64_t limit_ns) noexcept {
  const RobustMutex::Owner owner = mutex.Observe();
  if (!owner.held || owner.acquisitions != last_.acquisitions || owner.tid != last_.tid || !last_.held) {
    last_ = owner;
    since_ns_ = now_ns;
    return std::nullopt;
  }
  if (now_ns - since_ns_ <= limit_ns) return std::nullopt;
  return owner;
}

}  // namespace praas::segment
