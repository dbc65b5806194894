#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/unique_fd.h"
#include "worker/core.h"
#include "worker/inbox.h"
#include "worker/running.h"
#include "worker/served_connection.h"
#include "worker/windows.h"

namespace praas::worker {

/// The lease a worker serves, for a worker that is there to be leased: the windows that it alone polls, and the
/// connections whose sockets were handed to it. It takes no calls of others. Owner thread; what the lease's end needs
/// while a function runs on, the watchdog does (Core::lease).
class Lease {
 public:
  Lease(Core& core, Inbox& inbox, RunningTable& running, Windows& windows);

  /// Takes over what the watchdog has received, and leaves the lease if it has to and nothing runs any more.
  void Integrate();
  /// Whether there are sockets to look at.
  [[nodiscard]] bool has_sockets() const noexcept { return !connections_.empty(); }
  /// Looks at the sockets: calls become submissions. true: something has come or gone.
  bool Poll();
  /// The same in a polling loop: what it finds need not be looked for again by the Poll that follows.
  bool Look() { return polled_ = Poll(); }
  /// Sends what has just been completed.
  void Deliver();
  /// That descriptor of a window is about to be closed here, though its client may keep it.
  void Unwatch(int fd) noexcept;
  /// The lease is over, and only what runs keeps this worker from leaving it.
  [[nodiscard]] bool leaving() const noexcept { return leaving_; }

  /// Readable when there may be something to do, provided that PrepareToSleep returned true: what Wait waits for.
  [[nodiscard]] int fd() const noexcept { return waiter_.get(); }
  [[nodiscard]] bool PrepareToSleep();
  /// true: the worker's eventfd is to be drained.
  [[nodiscard]] bool Wait(uint64_t deadline_ns);
  /// After fd() was readable.
  void Awake() noexcept { static_cast<void>(Wait(0)); }

 private:
  void Take(ControlMessage message);
  [[nodiscard]] bool IsCurrent(const ControlMessage& message) const;
  void AddWindow(ControlMessage message);
  void AddSocket(ControlMessage message);
  void Leave();
  [[nodiscard]] bool Watch(int fd, uint32_t events, void* whose = nullptr);
  void Bury();
  void TellEnded(uint32_t window, uint32_t generation);

  Core& core_;
  Inbox& inbox_;
  RunningTable& running_;
  Windows& windows_;
  UniqueFd waiter_;  // epoll: eventfd of the worker, windows' submissions, sockets, results
  std::vector<std::unique_ptr<ServedConnection>> connections_;
  uint64_t lease_ = 0;
  bool leaving_ = false;
  bool polled_ = false;
};

}  // namespace praas::worker
