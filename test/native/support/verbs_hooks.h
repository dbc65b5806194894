#pragma once

#include "verbs/library.h"

#if PRAAS_VERBS_HEADERS

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace praas::test {

/// Stands between the code under test and libibverbs while it lives, so that a test can do to queue pairs and devices
/// what drivers and hardware do: the pairs are real, and fail as real ones.
class VerbsHooks {
 public:
  VerbsHooks() : library_(const_cast<verbs::Library*>(verbs::Library::Load().value())), real_(*library_) {
    current_ = this;
    library_->close_device = CloseDevice;
    library_->get_async_event = GetAsyncEvent;
    library_->ack_async_event = AckAsyncEvent;
    library_->create_qp = CreateQp;
    library_->destroy_qp = DestroyQp;
  }
  ~VerbsHooks() {
    *library_ = real_;
    current_ = nullptr;
  }

  /// Queue pairs in the order in which they were made, those that still are.
  [[nodiscard]] std::vector<ibv_qp*> pairs() {
    const std::lock_guard lock(mutex_);
    return pairs_;
  }
  /// As a driver does when it finds the pair broken.
  void Fail(ibv_qp* pair) {
    ibv_qp_attr error{};
    error.qp_state = IBV_QPS_ERR;
    real_.modify_qp(pair, &error, IBV_QP_STATE);
  }
  /// From when `pair` is destroyed, completion queues of its device are lost: as a removed device's, in the middle of
  /// what somebody does with it. What is opened afterwards is not.
  void LoseCompletionsAfter(ibv_qp* pair) {
    const std::lock_guard lock(mutex_);
    last_pair_ = pair;
  }
  /// Makes `context` report an event. Nothing can be made in it afterwards.
  void Report(ibv_context* context, ibv_event_type type, ibv_qp* pair = nullptr, int port = 1) {
    const std::lock_guard lock(mutex_);
    ibv_async_event event{};
    event.event_type = type;
    event.element.port_num = port;
    if (pair != nullptr) event.element.qp = pair;
    events_[context].push_back(event);
    // Something readable in the place of the descriptor, and whoever waits for it waits for that.
    const std::vector<Waiting> waiting = WaitingFor(context->async_fd);
    const int readable = ::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    ::dup2(readable, context->async_fd);
    ::close(readable);
    for (const Waiting& each : waiting) {
      epoll_event watch{.events = each.events, .data = {.u64 = each.data}};
      ::epoll_ctl(each.epoll, EPOLL_CTL_ADD, context->async_fd, &watch);
    }
  }

 private:
  struct Waiting {
    int epoll;
    uint32_t events;
    uint64_t data;
  };
  /// What epoll descriptors of this process know of `fd`, as the kernel tells.
  static std::vector<Waiting> WaitingFor(int fd) {
    std::vector<Waiting> found;
    for (int epoll = 3; epoll < 1024; ++epoll) {
      std::ifstream lines("/proc/self/fdinfo/" + std::to_string(epoll));
      for (std::string line; std::getline(lines, line);) {
        int target = -1;
        unsigned events = 0;
        unsigned long long data = 0;
        if (std::sscanf(line.c_str(), "tfd: %d events: %x data: %llx", &target, &events, &data) == 3 && target == fd) {
          found.push_back({epoll, events, data});
        }
      }
    }
    return found;
  }

  static int CloseDevice(ibv_context* context) {
    {
      const std::lock_guard lock(current_->mutex_);
      current_->events_.erase(context);
    }
    return current_->real_.close_device(context);
  }
  static int GetAsyncEvent(ibv_context* context, ibv_async_event* event) {
    {
      const std::lock_guard lock(current_->mutex_);
      const auto found = current_->events_.find(context);
      if (found != current_->events_.end()) {
        if (found->second.empty()) {
          eventfd_t count = 0;
          ::eventfd_read(context->async_fd, &count);
          return -1;
        }
        *event = found->second.front();
        found->second.erase(found->second.begin());
        return 0;
      }
    }
    return current_->real_.get_async_event(context, event);
  }
  /// Injected events are nobody's; the tests that inject see no others.
  static void AckAsyncEvent(ibv_async_event* event) {
    if (current_->events_.empty()) current_->real_.ack_async_event(event);
  }
  static ibv_qp* CreateQp(ibv_pd* domain, ibv_qp_init_attr* attributes) {
    ibv_qp* const pair = current_->real_.create_qp(domain, attributes);
    const std::lock_guard lock(current_->mutex_);
    if (pair != nullptr) current_->pairs_.push_back(pair);
    return pair;
  }
  static int DestroyQp(ibv_qp* pair) {
    {
      const std::lock_guard lock(current_->mutex_);
      std::erase(current_->pairs_, pair);
      // Here, because who destroys it is who polls.
      if (pair == current_->last_pair_) {
        current_->last_pair_ = nullptr;
        pair->context->ops.poll_cq = [](ibv_cq*, int, ibv_wc*) { return -1; };
      }
    }
    return current_->real_.destroy_qp(pair);
  }

  static inline VerbsHooks* current_ = nullptr;
  verbs::Library* const library_;
  const verbs::Library real_;
  std::mutex mutex_;
  std::vector<ibv_qp*> pairs_;
  ibv_qp* last_pair_ = nullptr;
  std::map<ibv_context*, std::vector<ibv_async_event>> events_;
};

}  // namespace praas::test

#endif
