#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "dispatch/call_entry.h"
#include "segment/segment.h"

namespace praas::dispatch {

enum class DoorbellKind : uint32_t { kMessageQueue = 1, kFutex = 2 };

/// How senders wake one of the workers that sleep. A bell is a hint: it may be dropped (queue full) or lost (its
/// receiver killed), because workers drain every queued call entry before they sleep and the host rings again after a
/// death.
class Doorbell {
 public:
  virtual ~Doorbell() = default;
  [[nodiscard]] virtual DoorbellKind kind() const noexcept = 0;
  /// Never blocks. false: full, the bell was dropped.
  [[nodiscard]] virtual bool Ring(Bell bell) noexcept = 0;
  [[nodiscard]] virtual std::optional<Bell> TryReceive() noexcept = 0;
  /// Blocks until a bell, the deadline (nullopt) or a signal (nullopt). Wakes exactly one of several waiters.
  [[nodiscard]] virtual std::optional<Bell> Receive(uint64_t deadline_ns) noexcept = 0;
  /// Readable while bells are queued; −1 when this kind cannot be polled (futex).
  [[nodiscard]] virtual int fd() const noexcept = 0;
};

/// The lanes of a process that have workers, and so a doorbell.
using LaneSet = std::array<bool, kLanes>;

/// The doorbells of a process: one for each lane that has workers, all of one kind.
class Doorbells {
 public:
  /// Host: POSIX queues (depth 10, 8-byte messages, mode 0600), or the futex queues in the segment when the system has
  /// no mqueue, no queue left, or RLIMIT_MSGQUEUE is used up; `why` then says so. PRAAS_DOORBELL=futex forces it.
  [[nodiscard]] static Result<std::unique_ptr<Doorbells>> Create(const segment::Segment& segment,
                                                                 const std::string& name, const LaneSet& lanes,
                                                                 std::string* why);
  /// Workers: what the host chose. Queues are opened by name.
  [[nodiscard]] static Result<std::unique_ptr<Doorbells>> Open(const segment::Segment& segment, DoorbellKind kind,
                                                               const std::string& name, const LaneSet& lanes);
  /// Name of the queue of a lane, given that of the process.
  [[nodiscard]] static std::string QueueName(const std::string& name, Lane lane);

  /// nullptr: the lane has no workers.
  [[nodiscard]] Doorbell* of(Lane lane) const noexcept { return bells_[static_cast<size_t>(lane)].get(); }
  [[nodiscard]] DoorbellKind kind() const noexcept { return kind_; }
  [[nodiscard]] LaneSet lanes() const noexcept;

 private:
  explicit Doorbells(DoorbellKind kind) noexcept : kind_(kind) {}

  DoorbellKind kind_;
  std::array<std::unique_ptr<Doorbell>, kLanes> bells_;
};

}  // namespace praas::dispatch
