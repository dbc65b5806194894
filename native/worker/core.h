#pragma once

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <utility>

#include "base/clock.h"
#include "base/tick_clock.h"
#include "base/unique_fd.h"
#include "dispatch/dispatcher.h"
#include "dispatch/doorbell.h"
#include "publication/area.h"
#include "segment/segment.h"
#include "window/pool.h"
#include "window/server_window.h"
#include "worker/control.h"

namespace praas::worker {

/// What the parts of a worker runtime share: mappings, dispatch and the ways to reach the host. Made once by
/// WorkerRuntime::Attach, before any thread starts, and outlives all parts.
struct Core {
  Core(struct Attach attach_, segment::Segment segment_, publication::Area area_, UniqueFd event_, UniqueFd host_event_,
       ControlSocket control_)
      : attach(std::move(attach_)),
        segment(std::move(segment_)),
        area(std::move(area_)),
        event(std::move(event_)),
        host_event(std::move(host_event_)),
        control(std::move(control_)),
        self(attach.participant),
        me(segment.participant(self)),
        calls(segment.header().calls.capacity) {}

  const struct Attach attach;
  const segment::Segment segment;
  const publication::Area area;
  std::unique_ptr<window::Pool> pool;
  std::unique_ptr<dispatch::Doorbells> doorbells;
  std::unique_ptr<dispatch::Dispatcher> dispatcher;
  const UniqueFd event;       // wakes the owner thread
  const UniqueFd host_event;  // wakes the host
  ControlSocket control;
  const uint16_t self;
  dispatch::Participant& me;
  const uint32_t calls;
  TickClock clock;  // owner thread
  /// Payloads are mapped read-only and results are built in areas of their own: some function of this worker cannot be
  /// told how much it may write. Set before the worker is ready.
  std::atomic<bool> guarded{false};

  /// Whether this worker is there to be leased; set before it is ready.
  std::atomic<bool> dedicated{false};
  /// Of the lease it serves; written by the watchdog, `expires_ns` (0: none) also by the owner when it has left.
  struct LeaseState {
    std::atomic<uint64_t> id{0};
    std::atomic<uint64_t> expires_ns{0};
    std::atomic<bool> ending{false};  // the owner has been told
  } lease;
  /// How long it polls after a call: −1 always, 0 not at all.
  std::atomic<int64_t> hot_ns{attach.hot_ns};

  /// A window of a client, as this worker serves it.
  [[nodiscard]] Result<std::unique_ptr<window::ServerWindow>> MapWindow(uint32_t index, UniqueFd memfd,
                                                                        UniqueFd complete_event) const {
    if (index >= segment.header().windows.committed.load(std::memory_order_acquire)) {
      return Status(Code::kProtocolInvalid, "a window that does not exist");
    }
    auto window = window::ServerWindow::Map(segment, index, std::move(memfd), std::move(complete_event));
    if (window.ok() && guarded.load(std::memory_order_acquire)) {
      if (Status status = (*window)->ProtectPayloads(); !status.ok()) return status;
    }
    return window;
  }

  /// Guards what the owner thread and the watchdog may both touch of a running invocation: its large output, its chunk
  /// in hand, its answer at the deadline. Never held while user code runs; the path of a small call does not take it.
  std::mutex mutex;

  /// That of this worker's lane.
  [[nodiscard]] dispatch::Doorbell& doorbell() const noexcept { return *doorbells->of(attach.lane); }

  /// Makes event_fd readable. Safe on any thread.
  void SignalOwner() const noexcept { Signal(event.get()); }
  static void Signal(int event_fd) noexcept {
    const uint64_t one = 1;
    // EAGAIN: the counter is full, so the sleeper has reason enough to wake. Anything else: this is no event any more.
    if (::write(event_fd, &one, sizeof one) < 0 && errno != EAGAIN) DescriptorLost();
  }
  /// A function has closed a descriptor of this runtime: nobody can be woken any more, so that the only way to tell is
  /// to end. The host then tells again whatever was not told.
  [[noreturn]] static void DescriptorLost() noexcept {
    static constexpr char kText[] = "praas: a function has closed descriptors of the worker, which cannot go on\n";
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kText, sizeof kText - 1);
    ::abort();
  }
  /// After an answer in this window and before its entry is freed: if it could not be written, or a sleeping client not
  /// be woken, this worker ends while the entry is still there, from which the host sees that the client has to be
  /// told.
  static void EndUnlessTold(const window::ServerWindow& window) noexcept {
    if (window.descriptor_lost()) DescriptorLost();
  }
  /// When the owner thread goes to sleep and when it has woken.
  void CountAwake(bool awake) const noexcept {
    const uint64_t since_ns = me.counters.awake_since_ns.load(std::memory_order_relaxed);
    if (awake == (since_ns != 0)) return;
    const uint64_t now_ns = NowNs();
    if (!awake) Count(me.counters.awake_ns, now_ns - since_ns);
    me.counters.awake_since_ns.store(awake ? now_ns : 0, std::memory_order_relaxed);
  }
  /// Counters have one writer, the owner thread: a plain addition, not a locked one.
  static void Count(std::atomic<uint64_t>& counter, uint64_t by) noexcept {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }
};

/// Internal mutexes of the segment are held for microseconds; one that is not had within this time has a stopped owner,
/// whom the host kills after one second.
inline constexpr uint64_t kArenaWaitNs = 3'000'000'000;

}  // namespace praas::worker
