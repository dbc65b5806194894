#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace praas::host {

/// What the host's one I/O thread waits for: descriptors, timers and tasks of other threads, by epoll.
///
/// Everything but `Post` belongs to the thread that runs the loop. Handlers may watch and unwatch anything, themselves
/// included: an event of a descriptor that was unwatched after epoll_wait returned is dropped by its generation.
class EventLoop {
 public:
  using Handler = std::function<void(uint32_t events)>;  // EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR
  using WatchId = uint64_t;                              // 0 = none
  using TimerId = std::pair<uint64_t, uint64_t>;         // deadline and sequence; {0, 0} = none

  [[nodiscard]] static Result<std::unique_ptr<EventLoop>> Create();
  ~EventLoop();

  [[nodiscard]] Result<WatchId> Watch(int fd, uint32_t events, Handler handler);
  void Change(WatchId id, uint32_t events);
  /// Before the descriptor is closed. 0 and ids already gone are ignored.
  void Unwatch(WatchId id);

  TimerId At(uint64_t deadline_ns, std::function<void()> run);
  void CancelTimer(TimerId id);

  /// From any thread: runs `task` on the loop's thread soon. Tasks posted after the loop has ended never run.
  void Post(std::function<void()> task);
  /// From any thread, and async-signal-safe: makes a blocked Turn return.
  void Interrupt() noexcept;

  /// Handles what is ready. `block` = false only looks; otherwise sleeps until an event or the next timer. Returns how
  /// many handlers and tasks ran; timers are not counted, for they are no sign of anybody being there.
  size_t Turn(bool block);

 private:
  struct Watched;
  EventLoop() = default;
  size_t RunTasks();
  void RunTimers();

  UniqueFd epoll_;
  UniqueFd interrupt_;
  std::vector<std::unique_ptr<Watched>> watched_;  // by slot; the generation in a WatchId tells its users apart
  std::vector<uint32_t> free_slots_;
  uint32_t next_generation_ = 1;
  std::map<TimerId, std::function<void()>> timers_;
  uint64_t next_timer_ = 1;
  std::mutex tasks_mutex_;
  std::vector<std::function<void()>> tasks_;
};

}  // namespace praas::host
