#include "function/mailbox.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "state/store_fixture.h"

namespace praas::test {
namespace {

using MailboxTest = StoreTest;

TEST_F(MailboxTest, WhoMeetsOthersUntilTheDeadlineIsToldSo) {
  constexpr uint64_t kOver = 0;
  Participant other(segment(), 1);
  function::Mailbox mailbox(store());
  std::atomic<bool> met{false};
  std::thread others([&] {
    function::Mailbox theirs(other.store);
    const std::vector<std::byte> message(1u << 20);  // long enough to read for others to come between
    while (!met) {
      EXPECT_TRUE(theirs.Put("k", message, Soon()).ok());
      EXPECT_TRUE(theirs.TryTake("k", Soon()).ok());
    }
  });
  Status status;
  while (status.ok() || status.code() == Code::kSegmentStuck) status = mailbox.TryTake("k", kOver).status();
  met = true;
  others.join();
  EXPECT_EQ(status.code(), Code::kInvocationTimeout) << status.message();
  EXPECT_NE(status.message().find("\"k\""), std::string::npos) << status.message();
}

}  // namespace
}  // namespace praas::test
