#pragma once

#include <atomic>
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

/// Threads that wait for the kernel and whom nobody waits for any more.
inline std::atomic<int> unanswered{0};

/// How long the kernel may take to tell of devices.
inline constexpr uint64_t kPatienceNs = 3'000'000'000;

/// What `ask` says, which asks the kernel for devices, if it does so before the deadline. While the kernel removes a
/// device it lets everybody wait, uninterruptibly, until all have closed that device; then `ask` goes on in a thread of
/// its own. `Answer` can be made of a Status.
template <typename Answer, typename Ask>
[[nodiscard]] Answer AnswerInTime(Ask ask, uint64_t deadline_ns = DeadlineIn(kPatienceNs)) {
  const auto late = [] {
    return Answer(Status(Code::kUnsupported,
                         "the kernel does not answer about RDMA devices: one is being removed and still in use"));
  };
  if (unanswered.load() > 0) return late();
  struct Question {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<Answer> answer;
    bool given_up = false;
  };
  const auto question = std::make_shared<Question>();
  try {
    std::thread([question, ask = std::move(ask)] {
      Answer answer = ask();
      const std::lock_guard lock(question->mutex);
      if (question->given_up) {
        --unanswered;
        return;
      }
      question->answer.emplace(std::move(answer));
      question->changed.notify_one();
    }).detach();
  } catch (const std::system_error& error) {
    return Answer(Status(Code::kUnsupported, std::string("no thread to ask for RDMA devices: ") + error.what()));
  }
  const uint64_t now = NowNs();
  const std::chrono::nanoseconds patience(deadline_ns > now ? deadline_ns - now : 0);
  std::unique_lock lock(question->mutex);
  if (!question->changed.wait_for(lock, patience, [&] { return question->answer.has_value(); })) {
    question->given_up = true;
    ++unanswered;
    return late();
  }
  return *std::move(question->answer);
}

}  // namespace praas::verbs
