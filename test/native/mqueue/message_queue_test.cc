#include "mqueue/message_queue.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <mqueue.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <string>
#include <thread>

#include "base/clock.h"
#include "support/child.h"

namespace praas::mqueue {
namespace {

class MessageQueueTest : public ::testing::Test {
 protected:
  ~MessageQueueTest() override { EXPECT_TRUE(MessageQueue::Unlink(name_).ok()); }

  MessageQueue Make() {
    Result<MessageQueue> queue = MessageQueue::Create(name_, {.depth = 2, .message_bytes = 8});
    EXPECT_TRUE(queue.ok()) << queue.status().message();
    return std::move(*queue);
  }

  const std::string name_ = "/praas-test-mq-" + std::to_string(getpid());
  std::array<std::byte, 8> message_{std::byte{1}, std::byte{2}};
  std::array<std::byte, 8> into_{};
};

TEST_F(MessageQueueTest, CarriesMessagesInOrderAndSaysWhenFullOrEmpty) {
  MessageQueue queue = Make();
  EXPECT_FALSE(queue.TryReceive(into_)->has_value());
  EXPECT_TRUE(*queue.TrySend(message_));
  message_[0] = std::byte{9};
  EXPECT_TRUE(*queue.TrySend(message_));
  EXPECT_FALSE(*queue.TrySend(message_));  // depth 2
  EXPECT_EQ(queue.TryReceive(into_)->value(), 8u);
  EXPECT_EQ(into_[0], std::byte{1});
  EXPECT_EQ(queue.TryReceive(into_)->value(), 8u);
  EXPECT_EQ(into_[0], std::byte{9});
}

TEST_F(MessageQueueTest, RefusesAMessageThatIsTooLong) {
  MessageQueue queue = Make();
  std::array<std::byte, 9> longer{};
  const Result<bool> sent = queue.TrySend(longer);
  ASSERT_FALSE(sent.ok());
  EXPECT_EQ(sent.status().sys_errno(), EMSGSIZE);
}

TEST_F(MessageQueueTest, BlocksUntilAMessageAndUntilTheDeadline) {
  MessageQueue queue = Make();
  EXPECT_FALSE(queue.Receive(into_, DeadlineIn(1'000'000))->has_value());
  std::thread sender([&] { EXPECT_TRUE(*queue.TrySend(message_)); });
  const auto got = queue.Receive(into_, DeadlineIn(60'000'000'000));
  sender.join();
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->value(), 8u);
}

TEST_F(MessageQueueTest, IsPollable) {
  MessageQueue queue = Make();
  pollfd watched{.fd = queue.fd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&watched, 1, 0), 0);
  EXPECT_TRUE(*queue.TrySend(message_));
  EXPECT_EQ(poll(&watched, 1, 0), 1);
}

TEST_F(MessageQueueTest, CreateReplacesAQueueThatADeadOwnerLeft) {
  MessageQueue old = Make();
  EXPECT_TRUE(*old.TrySend(message_));
  MessageQueue fresh = Make();
  EXPECT_FALSE(fresh.TryReceive(into_)->has_value());
}

TEST_F(MessageQueueTest, OpenFindsItAndReportsAMissingOne) {
  EXPECT_EQ(MessageQueue::Open(name_).status().sys_errno(), ENOENT);
  MessageQueue queue = Make();
  Result<MessageQueue> other = MessageQueue::Open(name_);
  ASSERT_TRUE(other.ok()) << other.status().message();
  EXPECT_TRUE(*other->TrySend(message_));
  EXPECT_TRUE(queue.TryReceive(into_)->has_value());
}

TEST_F(MessageQueueTest, OpenToOthersIsRefused) {
  MessageQueue queue = Make();
  ASSERT_EQ(fchmod(queue.fd(), 0660), 0);
  EXPECT_EQ(MessageQueue::Open(name_).status().sys_errno(), EACCES);
}

TEST_F(MessageQueueTest, ANameThatAnotherUserHasTakenIsNotUsed) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can be two other users";
  for (const mode_t mode : {0600, 0666}) {
    test::Child squatter = test::Child::Fork([&] {
      if (setuid(65533) != 0) return 2;
      umask(0);
      return mq_open(name_.c_str(), O_CREAT | O_EXCL | O_RDWR, mode, nullptr) >= 0 ? 0 : 3;
    });
    ASSERT_EQ(squatter.Wait(), 0);
    test::Child victim = test::Child::Fork([&] {
      if (setuid(65534) != 0) return 2;
      const Status refused = MessageQueue::Create(name_, {}).status();
      if (refused.message().find("another user has taken the name") == std::string::npos) return 3;
      return MessageQueue::Open(name_).status().sys_errno() == EACCES ? 0 : 4;
    });
    EXPECT_EQ(victim.Wait(), 0) << "mode " << std::oct << mode;
    ASSERT_TRUE(MessageQueue::Unlink(name_).ok());
  }
}

TEST_F(MessageQueueTest, NamesTheLimitWhenTheUsersQuotaIsUsedUp) {
  const pid_t child = fork();
  if (child == 0) {
    const rlimit none{0, 0};
    if (setrlimit(RLIMIT_MSGQUEUE, &none) != 0) _exit(2);
    const Result<MessageQueue> queue = MessageQueue::Create(name_, {});
    if (queue.ok()) _exit(3);
    _exit(queue.status().message().find("ulimit -q") != std::string::npos ? 0 : 4);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 3) {
    GTEST_SKIP() << "this user (CAP_SYS_RESOURCE) is not bound by RLIMIT_MSGQUEUE";
  }
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(MessageQueueTest, OneMessageWakesOneOfSeveralReceivers) {
  MessageQueue queue = Make();
  constexpr int kReceivers = 3;
  std::array<std::thread, kReceivers> receivers;
  std::array<int, kReceivers> got{};
  for (int i = 0; i < kReceivers; ++i) {
    receivers[i] = std::thread([&, i] {
      std::array<std::byte, 8> into{};
      const auto outcome = queue.Receive(into, DeadlineIn(300'000'000));
      got[i] = outcome.ok() && outcome->has_value();
    });
  }
  EXPECT_TRUE(*queue.TrySend(message_));
  for (auto& receiver : receivers) receiver.join();
  EXPECT_EQ(got[0] + got[1] + got[2], 1);
}

}  // namespace
}  // namespace praas::mqueue
