#include "dispatch/doorbell.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "base/clock.h"
#include "dispatch/futex_queue.h"
#include "mqueue/message_queue.h"

namespace praas::dispatch {
namespace {

class QueueDoorbell final : public Doorbell {
 public:
  explicit QueueDoorbell(mqueue::MessageQueue queue) : queue_(std::move(queue)) {}

  DoorbellKind kind() const noexcept override { return DoorbellKind::kMessageQueue; }

  bool Ring(Bell bell) noexcept override {
    std::array<std::byte, sizeof(Bell)> message;
    std::memcpy(message.data(), &bell, sizeof bell);
    const Result<bool> sent = queue_.TrySend(message);
    return sent.ok() && *sent;
  }

  std::optional<Bell> TryReceive() noexcept override {
    std::array<std::byte, sizeof(Bell)> message;
    return Parse(queue_.TryReceive(message), message);
  }

  std::optional<Bell> Receive(uint64_t deadline_ns) noexcept override {
    std::array<std::byte, sizeof(Bell)> message;
    return Parse(queue_.Receive(message, deadline_ns), message);
  }

  int fd() const noexcept override { return queue_.fd(); }

 private:
  static std::optional<Bell> Parse(Result<std::optional<size_t>> got, std::span<const std::byte> message) noexcept {
    if (!got.ok() || !got->has_value() || **got != sizeof(Bell)) return std::nullopt;
    Bell bell;
    std::memcpy(&bell, message.data(), sizeof bell);
    return bell;  // index and generation are checked by the claim
  }

  mqueue::MessageQueue queue_;
};

class FutexDoorbell final : public Doorbell {
 public:
  explicit FutexDoorbell(FutexQueue& queue) : queue_(queue) {}

  DoorbellKind kind() const noexcept override { return DoorbellKind::kFutex; }

  bool Ring(Bell bell) noexcept override {
    for (auto& slot : queue_.bells) {
      uint64_t empty = 0;
      if (slot.load(std::memory_order_relaxed) == 0 && slot.compare_exchange_strong(empty, PackCredit(bell))) {
        queue_.rung.fetch_add(1);
        if (queue_.waiters.load() != 0) syscall(SYS_futex, &queue_.rung, FUTEX_WAKE, 1, nullptr, nullptr, 0);
        return true;
      }
    }
    return false;
  }

  std::optional<Bell> TryReceive() noexcept override {
    for (auto& slot : queue_.bells) {
      if (slot.load(std::memory_order_relaxed) == 0) continue;
      const uint64_t bell = slot.exchange(0);
      if (bell != 0) return UnpackCredit(bell);
    }
    return std::nullopt;
  }

  std::optional<Bell> Receive(uint64_t deadline_ns) noexcept override {
    for (;;) {
      const uint32_t seen = queue_.rung.load();
      if (auto bell = TryReceive()) return bell;
      if (NowNs() >= deadline_ns) return std::nullopt;
      // FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time. The queue is in shared memory: no FUTEX_PRIVATE_FLAG.
      const timespec until = ToTimespec(deadline_ns);
      queue_.waiters.fetch_add(1);
      const long outcome = syscall(SYS_futex, &queue_.rung, FUTEX_WAIT_BITSET, seen,
                                   deadline_ns == kNoDeadline ? nullptr : &until, nullptr, FUTEX_BITSET_MATCH_ANY);
      const int error = errno;
      queue_.waiters.fetch_sub(1);
      if (outcome != 0 && error == EINTR) return std::nullopt;
    }
  }

  int fd() const noexcept override { return -1; }

 private:
  FutexQueue& queue_;
};

FutexQueue& QueueOf(const segment::Segment& segment, Lane lane) {
  constexpr uint64_t kEach = segment::kFutexQueueBytes / kLanes;
  static_assert(sizeof(FutexQueue) <= kEach && kEach % alignof(FutexQueue) == 0);
  return *reinterpret_cast<FutexQueue*>(segment.base() + segment.header().futex_queue +
                                        static_cast<uint64_t>(lane) * kEach);
}

constexpr std::array<Lane, kLanes> kAllLanes = {Lane::kNode, Lane::kNative};

}  // namespace

std::string Doorbells::QueueName(const std::string& name, Lane lane) {
  return lane == Lane::kNative ? name + "-native" : name;
}

LaneSet Doorbells::lanes() const noexcept {
  LaneSet lanes{};
  for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] = bells_[lane] != nullptr;
  return lanes;
}

Result<std::unique_ptr<Doorbells>> Doorbells::Create(const segment::Segment& segment, const std::string& name,
                                                     const LaneSet& lanes, std::string* why) {
  for (const Lane lane : kAllLanes) {
    FutexQueue& futex_queue = QueueOf(segment, lane);
    for (auto& bell : futex_queue.bells) bell.store(0);
    futex_queue.waiters.store(0);
  }
  std::unique_ptr<Doorbells> made(new Doorbells(DoorbellKind::kMessageQueue));
  const char* forced = std::getenv("PRAAS_DOORBELL");
  const bool futex = forced != nullptr && std::string_view(forced) == "futex";
  std::string reason = futex ? "PRAAS_DOORBELL=futex" : "";
  for (const Lane lane : kAllLanes) {
    if (!lanes[static_cast<size_t>(lane)] || !reason.empty()) continue;
    Result<mqueue::MessageQueue> queue =
        mqueue::MessageQueue::Create(QueueName(name, lane), {.depth = 10, .message_bytes = sizeof(Bell)});
    if (queue.ok()) {
      made->bells_[static_cast<size_t>(lane)] = std::make_unique<QueueDoorbell>(std::move(*queue));
    } else {
      reason = queue.status().message();
    }
  }
  if (!reason.empty()) {
    // All lanes alike: a queue that was to be had for one of them would only make the others harder to explain.
    for (const Lane lane : kAllLanes) {
      if (made->of(lane) != nullptr) (void)mqueue::MessageQueue::Unlink(QueueName(name, lane));
    }
    if (why != nullptr) *why = reason;
    Result<std::unique_ptr<Doorbells>> futexes = Open(segment, DoorbellKind::kFutex, name, lanes);
    if (!futexes.ok()) return futexes.status();
    made = std::move(*futexes);
  }
  segment.header().doorbell_kind.store(static_cast<uint32_t>(made->kind_));
  return made;
}

Result<std::unique_ptr<Doorbells>> Doorbells::Open(const segment::Segment& segment, DoorbellKind kind,
                                                   const std::string& name, const LaneSet& lanes) {
  if (kind != DoorbellKind::kMessageQueue && kind != DoorbellKind::kFutex) {
    return Status(Code::kSegmentInvalid, "unknown doorbell kind " + std::to_string(static_cast<uint32_t>(kind)));
  }
  std::unique_ptr<Doorbells> opened(new Doorbells(kind));
  for (const Lane lane : kAllLanes) {
    if (!lanes[static_cast<size_t>(lane)]) continue;
    std::unique_ptr<Doorbell>& bell = opened->bells_[static_cast<size_t>(lane)];
    if (kind == DoorbellKind::kFutex) {
      bell = std::make_unique<FutexDoorbell>(QueueOf(segment, lane));
      continue;
    }
    Result<mqueue::MessageQueue> queue = mqueue::MessageQueue::Open(QueueName(name, lane));
    if (!queue.ok()) return queue.status();
    bell = std::make_unique<QueueDoorbell>(std::move(*queue));
  }
  return opened;
}

}  // namespace praas::dispatch
