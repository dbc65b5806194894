#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "support/single_step.h"
#include "window/support.h"

/// A client that dies at any instruction: what the server sees of it is whole, and its ring comes to an end.
namespace praas::window {
namespace {

using test::Deaths;

constexpr uint16_t kServer = 1;
constexpr uint32_t kFunction = 42;
constexpr uint64_t kInputBytes = 64;

class ClientDeathTest : public ::testing::Test {
 protected:
  void Reset() {
    window_.emplace(1u << 22);
    server_ = window_->Server(segment_);
    segment_.slot().consumer.store(0);
  }
  /// The victim, which maps the window itself.
  void Attach() { client_ = window_->Client(); }
  uint32_t Submit() {
    const uint32_t call = client_->Open().value().value();
    std::memcpy(client_->Bytes(SlotInputOffset(call), kInputBytes).data(), input_.data(), input_.size());
    client_->Submit(call, {.function = kFunction,
                           .input_offset = SlotInputOffset(call),
                           .input_bytes = kInputBytes,
                           .output_offset = SlotOutputOffset(call),
                           .output_capacity = 4096});
    return call;
  }
  /// Consumes what there is. Every submission is one that the client has meant.
  uint32_t Consume(bool answer_with_need) {
    uint32_t taken = 0;
    EXPECT_TRUE(server_->TryConsume(kServer));
    while (const auto submission = server_->Peek()) {
      ++taken;
      if (submission->room_given) {
        EXPECT_EQ(submission->parked, 7u);
        EXPECT_EQ(submission->output_offset, kPayloadOffset);
        EXPECT_EQ(submission->output_capacity, 8192u);
      } else {
        EXPECT_EQ(submission->function, kFunction);
        EXPECT_EQ(submission->input_bytes, kInputBytes);
        const auto input = server_->Bytes(submission->input_offset, submission->input_bytes);
        EXPECT_TRUE(std::equal(input.begin(), input.end(), input_.begin(), input_.end()));
        EXPECT_EQ(submission->output_capacity, 4096u);
      }
      if (answer_with_need) {
        EXPECT_TRUE(server_->NeedRoom(submission->call, submission->sequence, 7, 8192));
      } else {
        EXPECT_TRUE(server_->Complete(submission->call, submission->sequence, 0, submission->output_offset, 4));
        EXPECT_FALSE(server_->Complete(submission->call, submission->sequence, 0, 0, 0)) << "answered twice";
      }
      server_->Taken();
    }
    EXPECT_FALSE(server_->EndConsume(kServer));
    return taken;
  }
  Deaths Base() {
    Deaths deaths;
    deaths.reset = [this] { Reset(); };
    deaths.prepare = [this] { Attach(); };
    deaths.watched = [this] {
      return test::Parts{{server_->base(), kSlotsOffset}, {server_->base() + SlotInputOffset(0), 2 * kInputBytes}};
    };
    return deaths;
  }

  const std::vector<std::byte> input_ = std::vector<std::byte>(kInputBytes, std::byte{0xa5});
  TestSegment segment_;
  std::optional<TestWindow> window_;
  std::unique_ptr<ServerWindow> server_;
  std::unique_ptr<ClientWindow> client_;
};

TEST_F(ClientDeathTest, WhileItSubmitsAndCancels) {
  Deaths deaths = Base();
  deaths.operation = [&] {
    client_->Cancel(Submit());
    (void)Submit();
    (void)client_->PrepareToSleep();
  };
  deaths.verify = [&](bool over) {
    const uint32_t taken = Consume(false);
    EXPECT_TRUE(over ? taken == 2 : taken <= 2) << taken;
  };
  KillAtEveryChange(deaths);
}

TEST_F(ClientDeathTest, WhileItGivesRoomAndTakesTheAnswer) {
  Deaths deaths = Base();
  deaths.before_steps = [&](test::Stepped& victim) {
    victim.Run();
    ASSERT_EQ(Consume(true), 1u);
  };
  deaths.operation = [&] {
    const uint32_t call = Submit();
    ::raise(SIGSTOP);
    std::vector<ClientWindow::Completion> completions;
    client_->Collect(completions);
    if (completions.size() != 1 || !completions[0].need_room) ::_exit(8);
    if (!client_->GiveRoom(call, kPayloadOffset, 8192)) ::_exit(9);
    client_->GiveUp(call);
  };
  deaths.verify = [&](bool over) {
    const uint32_t taken = Consume(false);
    EXPECT_TRUE(over ? taken == 1 : taken <= 1) << taken;
  };
  KillAtEveryChange(deaths);
}

}  // namespace
}  // namespace praas::window
