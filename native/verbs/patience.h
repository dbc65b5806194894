#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/status.h"

namespace praas::verbs {

/// So long, and so often, somebody looks whether the kernel has answered before it is taken for silent: three seconds,
/// of which those count in which this OS process ran. One that was stopped has not waited.
inline constexpr uint64_t kLookNs = 100'000'000;
inline constexpr int kMostLooks = 30;

/// Threads that wait for the kernel and whom nobody waits for any more.
struct Unanswered {
  std::mutex mutex;
  std::condition_variable changed;
  int threads = 0;
  bool silent = false;  // somebody has lost patience with the kernel since it answered last
  // By all together since it answered last, for those who each have little time.
  int looks = 0;
  uint64_t looked_ns = 0;

  void Look(uint64_t now_ns) noexcept {
    if (now_ns - looked_ns < kLookNs) return;
    looked_ns = now_ns;
    ++looks;
  }
  void Answered() noexcept {
    silent = false;
    looks = 0;
  }
};
/// Never destroyed: such a thread may outlive everything else.
[[nodiscard]] inline Unanswered& TheUnanswered() {
  static auto* const only = new Unanswered;
  return *only;
}

/// How long the kernel may take to tell of devices: until the caller's deadline, or until it is taken for silent.
class Patience {
 public:
  Patience(Unanswered& unanswered, uint64_t deadline_ns) noexcept
      : unanswered_(unanswered), deadline_ns_(deadline_ns) {}

  /// Whether `done`, which `changed` tells, comes in time.
  template <typename Done>
  [[nodiscard]] bool Wait(std::unique_lock<std::mutex>& lock, std::condition_variable& changed, Done done) {
    while (!done()) {
      const uint64_t now_ns = NowNs();
      if (looks_ == 0 || now_ns >= deadline_ns_) return false;
      --looks_;
      unanswered_.Look(now_ns);
      changed.wait_for(lock, std::chrono::nanoseconds(std::min(kLookNs, deadline_ns_ - now_ns)));
    }
    return true;
  }
  [[nodiscard]] bool lost() const noexcept { return looks_ == 0 || unanswered_.looks > kMostLooks; }

 private:
  Unanswered& unanswered_;
  uint64_t deadline_ns_;
  int looks_ = kMostLooks;
};

/// What `ask` says, which asks the kernel for devices, if it does so in time. While the kernel removes a device it lets
/// everybody wait, uninterruptibly, until all have closed that device; then `ask` goes on in a thread of its own, and
/// until that ends no other thread begins to wait. `Answer` can be made of a Status: kUnsupported means that the kernel
/// does not answer, kConnectionTimeout only that the caller had less time than it took.
template <typename Answer, typename Ask>
[[nodiscard]] Answer AnswerInTime(Ask ask, uint64_t deadline_ns = kNoDeadline) {
  Unanswered& unanswered = TheUnanswered();
  Patience patience(unanswered, deadline_ns);
  const auto late = [&unanswered, &patience] {
    if (patience.lost()) unanswered.silent = true;
    if (!unanswered.silent) {
      return Answer(Status(Code::kConnectionTimeout, "there was no time left to open an RDMA device"));
    }
    return Answer(Status(Code::kUnsupported,
                         "the kernel does not answer about RDMA devices: one is being removed and still in use"));
  };
  struct Question {
    std::condition_variable changed;
    std::optional<Answer> answer;
    bool given_up = false;
  };
  const auto question = std::make_shared<Question>();
  std::unique_lock lock(unanswered.mutex);
  const auto free = [&unanswered] { return unanswered.threads == 0 || unanswered.silent; };
  if (!patience.Wait(lock, unanswered.changed, free) || unanswered.threads > 0) return late();
  try {
    std::thread([question, &unanswered, ask = std::move(ask)] {
      Answer answer = ask();
      const std::lock_guard answering(unanswered.mutex);
      if (question->given_up) {
        if (--unanswered.threads > 0) return;
        unanswered.Answered();
        unanswered.changed.notify_all();
        return;
      }
      if (unanswered.threads == 0) unanswered.Answered();
      question->answer.emplace(std::move(answer));
      question->changed.notify_one();
    }).detach();
  } catch (const std::system_error& error) {
    return Answer(Status(Code::kUnsupported, std::string("no thread to ask for RDMA devices: ") + error.what()));
  }
  if (!patience.Wait(lock, question->changed, [&] { return question->answer.has_value(); })) {
    question->given_up = true;
    ++unanswered.threads;
    return late();
  }
  return *std::move(question->answer);
}

}  // namespace praas::verbs
