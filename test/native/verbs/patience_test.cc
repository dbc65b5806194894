#include "verbs/patience.h"

#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <optional>
#include <thread>
#include <utility>

#include "base/result.h"
#include "support/child.h"

namespace praas::test {
namespace {

using verbs::AnswerInTime;

/// A kernel that answers when the test says so.
class Kernel {
 public:
  ~Kernel() { Answer(); }
  [[nodiscard]] Result<int> Ask(uint64_t deadline_ns = kNoDeadline) {
    return AnswerInTime<Result<int>>(
        [answered = answered_] {
          answered.wait();
          return Result<int>(5);
        },
        deadline_ns);
  }
  void Answer() {
    if (!std::exchange(said_, true)) answer_.set_value();
  }

 private:
  std::promise<void> answer_;
  std::shared_future<void> answered_ = answer_.get_future().share();
  bool said_ = false;
};

TEST(Patience, WhoHasLessTimeThanTheKernelTakesIsLateAndInNobodysWay) {
  Kernel kernel;
  EXPECT_EQ(kernel.Ask(NowNs()).status().code(), Code::kConnectionTimeout);
  // While that one still waits.
  EXPECT_EQ(kernel.Ask(DeadlineIn(1'000'000)).status().code(), Code::kConnectionTimeout);
  std::future<Result<int>> other = std::async(std::launch::async, [&] { return kernel.Ask(); });
  kernel.Answer();
  const Result<int> answer = other.get();
  ASSERT_TRUE(answer.ok()) << answer.status().message();
  EXPECT_EQ(*answer, 5);
}

TEST(Patience, AKernelThatDoesNotAnswerIsAskedByOneThreadUntilItDoes) {
  std::optional<Kernel> kernel(std::in_place);
  EXPECT_EQ(kernel->Ask().status().code(), Code::kUnsupported);
  bool asked = false;
  const auto ask = [&] {
    return AnswerInTime<Result<int>>([&asked] {
      asked = true;
      return Result<int>(6);
    });
  };
  EXPECT_EQ(ask().status().code(), Code::kUnsupported);
  EXPECT_FALSE(asked);
  kernel->Answer();
  while (!ask().ok()) std::this_thread::yield();
  EXPECT_TRUE(asked);
}

TEST(Patience, ManyWithLittleTimeEachFindOutTogetherThatItDoesNotAnswer) {
  Kernel kernel;
  const auto ask = [&] { return kernel.Ask(DeadlineIn(150'000'000)).status().code(); };
  EXPECT_EQ(ask(), Code::kConnectionTimeout);
  int asked = 1;
  while (asked < 100 && ask() == Code::kConnectionTimeout) ++asked;
  EXPECT_LT(asked, 100);
  EXPECT_EQ(ask(), Code::kUnsupported);
  kernel.Answer();
  while (!kernel.Ask().ok()) std::this_thread::yield();
}

TEST(Patience, WhoWasStoppedHasNotWaited) {
  const Signpost asked;
  const Signpost answered;
  auto child = Child::Fork([&] {
    const auto answer = AnswerInTime<Result<int>>([&] {
      asked.Set();
      answered.Await();
      return Result<int>(5);
    });
    return answer.ok() ? *answer : 1;
  });
  asked.Await();
  child.Signal(SIGSTOP);
  child.WaitStopped();
  // Longer than anybody waits who runs; then long enough for somebody who counts that to give up.
  std::this_thread::sleep_for(std::chrono::milliseconds(3'500));
  child.Signal(SIGCONT);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  answered.Set();
  EXPECT_EQ(child.Wait(), 5);
}

}  // namespace
}  // namespace praas::test
