// A worker as its host sees it: a control socket, and what comes by it.

#include "host/worker_link.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/clock.h"
#include "client/driver.h"
#include "support/child.h"
#include "support/no_descriptors.h"

namespace praas::host {
namespace {

using worker::ControlMessage;
using worker::ControlSocket;
using worker::ControlType;

/// Too long for a packet: its bytes come as a descriptor.
ControlMessage LongMessage() {
  ControlMessage message{.type = ControlType::kReady};
  for (int i = 0; i < 1000; ++i) message.functions.push_back({std::string(200, 'f') + std::to_string(i), 0});
  return message;
}

class WorkerLinks : public ::testing::Test {
 protected:
  void Connect() {
    auto pair = ControlSocket::Pair();
    ASSERT_TRUE(pair.ok());
    worker_.emplace(std::move(pair->second));
    auto loop = EventLoop::Create();
    ASSERT_TRUE(loop.ok());
    loop_ = std::move(*loop);
    auto link = WorkerLink::External(*loop_, std::move(pair->first), ::getpid(),
                                     {.message = [this](WorkerLink&, const ControlMessage&) { ++messages_; },
                                      .output = {},
                                      .ended = [this](WorkerLink&, const WorkerEnd&) { ended_ = true; }});
    ASSERT_TRUE(link.ok());
    link_ = std::move(*link);
  }
  template <typename There>
  void TurnUntil(There there) {
    const uint64_t deadline_ns = DeadlineIn(test::kWatchdogNs);
    while (!there() && NowNs() < deadline_ns) loop_->Turn(false);
  }

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<WorkerLink> link_;
  std::optional<ControlSocket> worker_;
  int messages_ = 0;
  bool ended_ = false;
};

TEST_F(WorkerLinks, TakeMessagesOfAnyLength) {
  Connect();
  ASSERT_TRUE(worker_->Send({.type = ControlType::kDrained}).ok());
  ASSERT_TRUE(worker_->Send(LongMessage()).ok());
  TurnUntil([&] { return messages_ == 2; });
  EXPECT_EQ(messages_, 2);
  EXPECT_FALSE(ended_);
}

TEST_F(WorkerLinks, SayThatTheHostHasNoDescriptorsForWhatAWorkerSends) {
  if (const char* obstacle = test::NoDescriptors::Obstacle()) GTEST_SKIP() << obstacle;
  Connect();
  // A child, which may open what this process may not.
  EXPECT_EQ(test::Child::Fork([&] { return worker_->Send(LongMessage()).ok() ? 0 : 1; }).Wait(), 0);
  {
    const test::NoDescriptors none;
    TurnUntil([&] { return ended_; });
  }
  EXPECT_TRUE(ended_);
  EXPECT_EQ(messages_, 0);
  EXPECT_NE(link_->failure.find("Too many open files"), std::string::npos) << link_->failure;
}

}  // namespace
}  // namespace praas::host
