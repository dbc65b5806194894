#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "base/status.h"

namespace praas::verbs {

/// Threads that wait for the kernel and whom nobody waits for any more.
inline std::atomic<int> unanswered{0};

/// What `ask` says, which asks the kernel for devices, if it does so within three seconds. While the kernel removes a device
/// it lets everybody wait, uninterruptibly, until all have closed that device; then `ask` goes on in a thread of its
/// own. `Answer` can be made of a Status.
template <typename Answer, typename Ask>
[[nodiscard]] Answer AnswerInTime(Ask ask) {
  constexpr std::chrono::seconds kPatience(3);
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
  std::unique_lock lock(question->mutex);
  if (!question->changed.wait_for(lock, kPatience, [&] { return question->answer.has_value(); })) {
    question->given_up = true;
    ++unanswered;
    return late();
  }
  return *std::move(question->answer);
}

}  // namespace praas::verbs
