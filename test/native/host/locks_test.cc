// Locks as clients ask a host for them.

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "host/host_fixture.h"
#include "host/kept_state.h"
#include "host/raw_client.h"
#include "protocol/messages.h"

namespace praas::test {
namespace {

using protocol::Frame;
using protocol::FrameType;
using protocol::StateOp;

protocol::StateRequest LockOf(const std::string& name) {
  protocol::StateRequest request{.op = StateOp::kLock, .key = name};
  request.mode = protocol::LockMode::kWrite;
  return request;
}
protocol::StateRequest UnlockOf(uint64_t lock) {
  protocol::StateRequest request{.op = StateOp::kUnlock};
  request.lock = lock;
  return request;
}

/// A connection whose state requests have the numbers and deadlines that the test gives them.
class LockClient {
 public:
  explicit LockClient(uint16_t port) : client_(port) {
    client_.Hello("p", TokenFor(protocol::kAllVerbs));
    EXPECT_EQ(client_.ReadFrame().type, FrameType::kWelcome);
  }
  void Ask(uint64_t call, const protocol::StateRequest& request, uint64_t deadline_us = 20'000'000) {
    const Frame frame{
        .type = FrameType::kState, .code = static_cast<uint16_t>(request.op), .call = call, .deadline_us = deadline_us};
    client_.Send(frame, EncodeHead(request));
  }
  void Cancel(uint64_t call) { client_.Send({.type = FrameType::kCancel, .call = call}, {}); }
  struct Answer {
    uint64_t call;
    Code code;
    uint64_t lock;  // of a lock that was granted
  };
  Answer Next() {
    Bytes payload;
    const Frame frame = client_.ReadFrame(&payload);
    EXPECT_EQ(frame.type, FrameType::kStateReply);
    const auto granted = protocol::DecodeStateReply(StateOp::kLock, payload);
    return {frame.call, static_cast<Code>(frame.code), granted.ok() ? granted->lock : 0};
  }
  /// Says goodbye; returns when the host has closed the connection.
  void Leave() {
    client_.Send({.type = FrameType::kGoodbye}, {});
    EXPECT_TRUE(client_.ReadAll().empty());
  }
  RawClient& raw() { return client_; }

 private:
  RawClient client_;
};

class Locks : public ::testing::Test {
 protected:
  TestProcess process_;
};

TEST_F(Locks, AreGrantedTimedOutWithdrawnAndReleased) {
  HostRun host(process_);
  const auto lock = [](Driver& client, uint64_t deadline_ns) {
    return client::SubmitState(*client, LockOf("l"), deadline_ns);
  };
  Driver first = host.Client();
  ASSERT_TRUE(first.Wait(lock(first, DeadlineIn(kWatchdogNs))).status.ok());
  Driver second = host.Client();
  EXPECT_EQ(second.Wait(lock(second, DeadlineIn(20'000'000))).status.code(), Code::kStateLockTimeout);
  const auto withdrawn = lock(second, DeadlineIn(kWatchdogNs));
  second.Poll();
  second->Cancel(*withdrawn);
  EXPECT_EQ(second.Wait(withdrawn).status.code(), Code::kInvocationCancelled);
  const auto waiting = lock(second, DeadlineIn(kWatchdogNs));
  second.Poll();
  first->Close();  // its end releases what it holds
  EXPECT_TRUE(second.Wait(waiting).status.ok());
  EXPECT_EQ(second.Wait(client::SubmitState(*second, UnlockOf(12'345), DeadlineIn(kWatchdogNs))).status.code(),
            Code::kStateLockLost);
}

TEST_F(Locks, ThatWaitLetTheirReleasePass) {
  constexpr uint64_t kLocks = 300;
  HostRun host(process_);
  LockClient client(host.port());
  for (uint64_t call = 1; call <= kLocks; ++call) client.Ask(call, LockOf("l"));
  LockClient::Answer answer = client.Next();
  ASSERT_EQ(answer.call, 1u);
  client.Cancel(kLocks);
  const LockClient::Answer withdrawn = client.Next();
  EXPECT_EQ(withdrawn.call, kLocks);
  EXPECT_EQ(withdrawn.code, Code::kInvocationCancelled);
  for (uint64_t call = 1; call < kLocks; ++call) {
    ASSERT_EQ(answer.call, call);
    ASSERT_EQ(answer.code, Code::kOk);
    client.Ask(kLocks + call, UnlockOf(answer.lock));
    // The release and the next grant, in either order.
    for (int each = 0; each < (call + 1 < kLocks ? 2 : 1); ++each) {
      const LockClient::Answer next = client.Next();
      ASSERT_EQ(next.code, Code::kOk);
      if (next.call != kLocks + call) answer = next;
    }
  }
}

TEST_F(Locks, BeyondWhatASessionMayWaitForAreRefused) {
  constexpr uint64_t kLocks = 4096;
  HostRun host(process_);
  LockClient client(host.port());
  client.Ask(1, LockOf("l"));
  const LockClient::Answer held = client.Next();
  ASSERT_EQ(held.code, Code::kOk);
  for (uint64_t call = 2; call <= kLocks + 2; ++call) client.Ask(call, LockOf("l"));
  LockClient::Answer answer = client.Next();
  EXPECT_EQ(answer.call, kLocks + 2);
  EXPECT_EQ(answer.code, Code::kBackpressure);
  client.Ask(kLocks + 3, UnlockOf(held.lock));
  for (int each = 0; each < 2; ++each) {
    answer = client.Next();
    EXPECT_TRUE(answer.call == 2 || answer.call == kLocks + 3) << answer.call;
    EXPECT_EQ(answer.code, Code::kOk);
  }
  client.raw().Send({.type = FrameType::kState, .code = static_cast<uint16_t>(StateOp::kLock), .call = kLocks + 5},
                    Bytes(5000));
  answer = client.Next();
  EXPECT_EQ(answer.call, kLocks + 5);
  EXPECT_EQ(answer.code, Code::kPayloadTooLarge);
}

// The host waits for the state's mutex for two seconds at a time.

TEST_F(Locks, AreReleasedAfterSomebodyHasKeptTheStateForLong) {
  HostRun host(process_);
  LockClient leaves(host.port());
  leaves.Ask(1, LockOf("of who leaves"));
  ASSERT_EQ(leaves.Next().code, Code::kOk);
  LockClient stays(host.port());
  stays.Ask(1, LockOf("of who stays"));
  const LockClient::Answer held = stays.Next();
  ASSERT_EQ(held.code, Code::kOk);

  std::optional<KeptState> kept(process_);
  leaves.Leave();
  stays.Ask(2, UnlockOf(held.lock));
  stays.Ask(3, {.op = StateOp::kStat, .key = "k"}, 100'000);
  const LockClient::Answer tried = stays.Next();
  EXPECT_EQ(tried.call, 3u) << "the host has not tried to release them by now";
  EXPECT_EQ(tried.code, Code::kInvocationTimeout);
  kept.reset();

  const LockClient::Answer released = stays.Next();
  EXPECT_EQ(released.call, 2u);
  EXPECT_EQ(released.code, Code::kOk);
  Driver next = host.Client();
  for (const char* name : {"of who leaves", "of who stays"}) {
    EXPECT_TRUE(next.Wait(client::SubmitState(*next, LockOf(name), DeadlineIn(20'000'000'000))).status.ok()) << name;
  }
}

TEST_F(Locks, ThatWaitAreWithdrawnAfterSomebodyHasKeptTheStateForLong) {
  HostRun host(process_);
  LockClient holder(host.port());
  holder.Ask(1, LockOf("l"));
  const LockClient::Answer held = holder.Next();
  ASSERT_EQ(held.code, Code::kOk);
  LockClient waits(host.port());
  waits.Ask(1, LockOf("l"));
  waits.Ask(2, LockOf("l"), 1'000'000);
  waits.Ask(3, {.op = StateOp::kStat, .key = "k"});
  EXPECT_EQ(waits.Next().call, 3u) << "not both wait";

  std::optional<KeptState> kept(process_);
  waits.Cancel(1);
  const LockClient::Answer first = waits.Next();
  const LockClient::Answer second = waits.Next();
  EXPECT_EQ(std::min(first.call, second.call), 1u);
  EXPECT_EQ(first.call == 1 ? first.code : second.code, Code::kInvocationCancelled);
  EXPECT_EQ(first.call == 2 ? first.code : second.code, Code::kStateLockTimeout);
  kept.reset();

  holder.Ask(2, UnlockOf(held.lock));
  EXPECT_EQ(holder.Next().code, Code::kOk);
  Driver next = host.Client();
  EXPECT_TRUE(next.Wait(client::SubmitState(*next, LockOf("l"), DeadlineIn(20'000'000'000))).status.ok());
}

TEST_F(Locks, AreReleasedHoweverLateThatIsAsked) {
  HostRun host(process_);
  LockClient holder(host.port());
  holder.Ask(1, LockOf("l"));
  // Past when the service thread gets to it.
  holder.Ask(2, UnlockOf(holder.Next().lock), 1);
  Driver next = host.Client();
  EXPECT_TRUE(next.Wait(client::SubmitState(*next, LockOf("l"), DeadlineIn(kWatchdogNs))).status.ok());
}

TEST_F(Locks, AreReleasedHoweverSlowlyThatArrives) {
  HostRun host(process_);
  LockClient holder(host.port());
  holder.Ask(1, LockOf("l"));
  const std::vector<std::byte> unlock = EncodeHead(UnlockOf(holder.Next().lock));
  const auto header = [](StateOp op, uint64_t bytes, uint64_t deadline_us) {
    return Frame{.type = FrameType::kState,
                 .code = static_cast<uint16_t>(op),
                 .call = 2,
                 .payload_bytes = bytes,
                 .deadline_us = deadline_us};
  };
  holder.raw().SendHeader(header(StateOp::kUnlock, unlock.size(), 1));
  holder.raw().Send(std::span(unlock).first(1));
  // Another request that arrives as slowly misses its deadline meanwhile.
  LockClient other(host.port());
  other.raw().SendHeader(header(StateOp::kSet, 100, 20'000));
  EXPECT_EQ(other.Next().code, Code::kInvocationTimeout);

  holder.raw().Send(std::span(unlock).subspan(1));
  const LockClient::Answer released = holder.Next();
  EXPECT_EQ(released.call, 2u);
  EXPECT_EQ(released.code, Code::kOk);
  Driver next = host.Client();
  EXPECT_TRUE(next.Wait(client::SubmitState(*next, LockOf("l"), DeadlineIn(kWatchdogNs))).status.ok());
}

}  // namespace
}  // namespace praas::test
