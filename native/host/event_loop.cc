#include "host/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <array>
#include <cassert>

#include "base/clock.h"

namespace praas::host {
namespace {

constexpr uint64_t kInterruptToken = UINT64_MAX;

constexpr uint32_t SlotOf(uint64_t id) noexcept { return static_cast<uint32_t>(id); }
constexpr uint32_t GenerationOf(uint64_t id) noexcept { return static_cast<uint32_t>(id >> 32); }

}  // namespace

struct EventLoop::Watched {
  int fd = -1;
  uint32_t generation = 0;  // 0: the slot is free
  uint32_t events = 0;
  std::shared_ptr<Handler> handler;  // shared with the call in progress, which may unwatch itself
};

Result<std::unique_ptr<EventLoop>> EventLoop::Create() {
  std::unique_ptr<EventLoop> loop(new EventLoop());
  loop->epoll_.Reset(epoll_create1(EPOLL_CLOEXEC));
  if (!loop->epoll_) return Status::System("epoll_create1");
  loop->interrupt_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!loop->interrupt_) return Status::System("eventfd");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kInterruptToken;
  if (epoll_ctl(loop->epoll_.get(), EPOLL_CTL_ADD, loop->interrupt_.get(), &event) != 0) {
    return Status::System("epoll_ctl(ADD, eventfd)");
  }
  return loop;
}

EventLoop::~EventLoop() = default;

Result<EventLoop::WatchId> EventLoop::Watch(int fd, uint32_t events, Handler handler) {
  uint32_t slot = 0;
  if (free_slots_.empty()) {
    slot = static_cast<uint32_t>(watched_.size());
    watched_.push_back(std::make_unique<Watched>());
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  Watched& watched = *watched_[slot];
  const WatchId id = static_cast<uint64_t>(next_generation_) << 32 | slot;
  epoll_event event{};
  event.events = events;
  event.data.u64 = id;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    Status status = Status::System("epoll_ctl(ADD)");
    free_slots_.push_back(slot);
    return status;
  }
  watched.fd = fd;
  watched.generation = next_generation_;
  watched.events = events;
  watched.handler = std::make_shared<Handler>(std::move(handler));
  if (++next_generation_ == UINT32_MAX) next_generation_ = 1;  // kInterruptToken is never an id
  return id;
}

void EventLoop::Change(WatchId id, uint32_t events) {
  const uint32_t slot = SlotOf(id);
  if (id == 0 || slot >= watched_.size() || watched_[slot]->generation != GenerationOf(id)) return;
  Watched& watched = *watched_[slot];
  if (watched.events == events) return;
  epoll_event event{};
  event.events = events;
  event.data.u64 = id;
  // Fails only for a descriptor that was closed while watched, which is a bug of the caller.
  [[maybe_unused]] const int changed = epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, watched.fd, &event);
  assert(changed == 0);
  watched.events = events;
}

void EventLoop::Unwatch(WatchId id) {
  const uint32_t slot = SlotOf(id);
  if (id == 0 || slot >= watched_.size() || watched_[slot]->generation != GenerationOf(id)) return;
  Watched& watched = *watched_[slot];
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, watched.fd, nullptr);
  watched.generation = 0;
  watched.fd = -1;
  watched.handler.reset();
  free_slots_.push_back(slot);
}

EventLoop::TimerId EventLoop::At(uint64_t deadline_ns, std::function<void()> run) {
  const TimerId id{deadline_ns, next_timer_++};
  timers_.emplace(id, std::move(run));
  return id;
}

void EventLoop::CancelTimer(TimerId id) { timers_.erase(id); }

void EventLoop::Post(std::function<void()> task) {
  {
    std::lock_guard lock(tasks_mutex_);
    tasks_.push_back(std::move(task));
  }
  Interrupt();
}

void EventLoop::Interrupt() noexcept {
  const uint64_t one = 1;
  // EAGAIN means the counter is full, so the loop wakes up anyway.
  [[maybe_unused]] const ssize_t written = ::write(interrupt_.get(), &one, sizeof one);
}

size_t EventLoop::RunTasks() {
  std::vector<std::function<void()>> tasks;
  {
    std::lock_guard lock(tasks_mutex_);
    tasks.swap(tasks_);
  }
  for (auto& task : tasks) task();
  return tasks.size();
}

void EventLoop::RunTimers() {
  if (timers_.empty()) return;
  const uint64_t now = NowNs();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    auto timer = timers_.extract(timers_.begin());
    timer.mapped()();
  }
}

size_t EventLoop::Turn(bool block) {
  std::array<epoll_event, 64> events;
  const int timeout_ms = !block ? 0 : timers_.empty() ? -1 : PollTimeoutMs(timers_.begin()->first.first);
  const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
  size_t ran = 0;
  for (int i = 0; i < count; ++i) {
    const uint64_t id = events[i].data.u64;
    if (id == kInterruptToken) {
      uint64_t drained = 0;
      [[maybe_unused]] const ssize_t got = ::read(interrupt_.get(), &drained, sizeof drained);
      ran += RunTasks();
      continue;
    }
    const uint32_t slot = SlotOf(id);
    if (slot >= watched_.size() || watched_[slot]->generation != GenerationOf(id)) continue;
    const std::shared_ptr<Handler> handler = watched_[slot]->handler;
    (*handler)(events[i].events);
    ++ran;
  }
  RunTimers();
  return ran;
}

}  // namespace praas::host
