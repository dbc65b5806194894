// What a token lets its holder do, over the socket and through a window, and when that ends.

#include <gtest/gtest.h>

#include "host/host_fixture.h"
#include "protocol/lease_messages.h"
#include "protocol/messages.h"
#include "support/rdma.h"

namespace praas::test {
namespace {

using protocol::AdminOp;
using protocol::FrameType;
using protocol::StateOp;
using protocol::Token;

class Permissions : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (std::string(GetParam()) != "verbs") return;
    if (const std::string reason = NoRdmaDevice(); !reason.empty()) GTEST_SKIP() << reason;
  }
  [[nodiscard]] client::ConnectOptions With(uint16_t port, const std::string& token,
                                            const char* transport = GetParam()) {
    client::ConnectOptions options = OptionsFor(port);
    options.token = token;
    options.transport = transport;
    options.window_bytes = 64u << 20;
    return options;
  }
  [[nodiscard]] Driver Holder(HostRun& host, uint8_t verbs) {
    // Who may not call gets no window, as transport "auto" takes it.
    const char* transport = (verbs & protocol::kVerbInvoke) != 0 ? GetParam() : "tcp";
    return Connect(With(host.port(), TokenFor(verbs), transport));
  }
  static Code CodeOf(Driver& client, const Result<uint64_t>& call) { return client.Wait(call).status.code(); }
  static Code State(Driver& client, protocol::StateRequest request) {
    return CodeOf(client, client::SubmitState(*client, request, DeadlineIn(kWatchdogNs)));
  }
  static Code Lock(Driver& client, protocol::LockMode mode) {
    protocol::StateRequest request{.op = StateOp::kLock, .key = std::string("lock ") + char('0' + char(mode))};
    request.mode = mode;
    return State(client, request);
  }

  TestProcess process_;
};

INSTANTIATE_TEST_SUITE_P(Transports, Permissions, ::testing::Values("tcp", "shm", "verbs"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(Permissions, EachVerbAllowsItsRequestsAndNoOthers) {
  HostRun host(process_);
  host.AddWorkers(1);
  {
    Driver owner = host.Client();
    ASSERT_EQ(State(owner, {.op = StateOp::kSet, .key = "k", .data = AsBytes("v")}), Code::kOk);
    ASSERT_EQ(State(owner, {.op = StateOp::kPublish, .key = "k"}), Code::kOk);
  }
  for (uint32_t bit = 0; (1u << bit) <= protocol::kAllVerbs; ++bit) {
    const auto verb = static_cast<uint8_t>(1u << bit);
    SCOPED_TRACE(protocol::VerbNames(verb, ""));
    Driver client = Holder(host, verb);
    const auto expect = [&](uint8_t needed, Code code) {
      EXPECT_EQ(code, (verb & needed) != 0 ? Code::kOk : Code::kNotPermitted) << protocol::VerbNames(needed, " ");
    };
    expect(protocol::kVerbInvoke, client.Call(fn::kEcho, AsBytes("x")).status.code());
    expect(protocol::kVerbInvoke, client.Call(fn::kEcho, PatternOf(1u << 20)).status.code());
    expect(protocol::kVerbInvoke, CodeOf(client, client->Resolve("echo", DeadlineIn(kWatchdogNs))));
    for (const StateOp op : {StateOp::kGet, StateOp::kStat, StateOp::kRead}) {
      expect(protocol::kVerbStateRead, State(client, {.op = op, .key = "k"}));
    }
    expect(protocol::kVerbStateRead, State(client, {.op = StateOp::kKeys, .limit = 1}));
    expect(protocol::kVerbStateRead, Lock(client, protocol::LockMode::kRead));
    const Bytes large = PatternOf(2u << 20);
    expect(protocol::kVerbStateWrite, State(client, {.op = StateOp::kSet, .key = "large", .data = large}));
    expect(protocol::kVerbStateWrite, State(client, {.op = StateOp::kAppend, .key = "a", .data = AsBytes("v")}));
    expect(protocol::kVerbStateWrite, State(client, {.op = StateOp::kPublish, .key = "large"}));
    expect(protocol::kVerbStateWrite, State(client, {.op = StateOp::kUnpublish, .key = "large"}));
    expect(protocol::kVerbStateWrite, State(client, {.op = StateOp::kDelete, .key = "large"}));
    expect(protocol::kVerbStateWrite, Lock(client, protocol::LockMode::kWrite));
    for (const AdminOp op : {AdminOp::kStats, AdminOp::kInspect, AdminOp::kLeases}) {
      expect(protocol::kVerbAdmin,
             CodeOf(client, client::SubmitAdmin(*client, static_cast<uint16_t>(op), "", DeadlineIn(kWatchdogNs))));
    }
    const auto lease = [&](Driver& asked) {
      return CodeOf(asked,
                    asked->Request(FrameType::kLease, static_cast<uint16_t>(protocol::LeaseOp::kReport),
                                   protocol::Encode(protocol::LeaseRequest{.lease = 99}), {}, DeadlineIn(kWatchdogNs)));
    };
    EXPECT_EQ(lease(client), Code::kNotPermitted);  // whose workers are for calls
    Driver caller = Holder(host, verb | protocol::kVerbInvoke);
    EXPECT_EQ(lease(caller), verb == protocol::kVerbLease ? Code::kLeaseClosed : Code::kNotPermitted);
  }
}

TEST_P(Permissions, RefusedRequestsLeaveTheConnectionAndTheProcessAsTheyWere) {
  HostRun host(process_);
  host.AddWorkers(1);
  Driver client = Holder(host, protocol::kVerbInvoke);
  const Bytes large = PatternOf(1u << 20);
  for (int round = 0; round < 10; ++round) {
    EXPECT_EQ(State(client, {.op = StateOp::kSet, .key = "k", .data = large}), Code::kNotPermitted);
    const Driver::Outcome outcome = client.Call(fn::kEcho, large);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
    EXPECT_EQ(outcome.payload, large);
  }
  Driver owner = host.Client();
  EXPECT_EQ(State(owner, {.op = StateOp::kStat, .key = "k"}), Code::kStateNotFound);
  ExpectClean(owner);
}

TEST_P(Permissions, TheRefusalSaysWhatIsMissing) {
  HostRun host(process_);
  Driver client = Holder(host, protocol::kVerbInvoke | protocol::kVerbStateRead);
  const Driver::Outcome outcome = client.Wait(
      client::SubmitState(*client, {.op = StateOp::kSet, .key = "k", .data = AsBytes("v")}, DeadlineIn(kWatchdogNs)));
  EXPECT_EQ(outcome.status.message(),
            "the token of this connection does not allow state-write, which the request needs; it allows invoke, "
            "state-read");
}

TEST_P(Permissions, WhoMayNotCallGetsNoFasterTransport) {
  HostRun host(process_);
  const auto refused =
      client::Connection::Connect(With(host.port(), TokenFor(protocol::kVerbStateRead), "shm")).status();
  EXPECT_EQ(refused.code(), Code::kUpgradeFailed);
  EXPECT_NE(refused.message().find("ERR_NOT_PERMITTED"), std::string::npos) << refused.message();
  Driver reader = Connect(With(host.port(), TokenFor(protocol::kVerbStateRead), "auto"));
  EXPECT_EQ(reader->info().transport, "tcp");
}

TEST_P(Permissions, OnlyAnAdministratorDrains) {
  HostRun host(process_);
  host.AddWorkers(1);
  const auto drain = [](Driver& client) {
    return CodeOf(client,
                  client::SubmitAdmin(*client, static_cast<uint16_t>(AdminOp::kDrain), "", DeadlineIn(kWatchdogNs)));
  };
  Driver client = Holder(host, protocol::kAllVerbs & ~protocol::kVerbAdmin);
  EXPECT_EQ(drain(client), Code::kNotPermitted);
  EXPECT_FALSE(host->drained());
  Driver administrator = Holder(host, protocol::kVerbAdmin);
  EXPECT_EQ(drain(administrator), Code::kOk);
  client->Close();
  administrator->Close();
  EXPECT_TRUE(Eventually([&] { return host->drained(); }));
}

TEST_P(Permissions, WrongTokensAreToldApart) {
  HostRun host(process_);
  const auto connect = [&](const std::string& token, const char* process) {
    client::ConnectOptions options = With(host.port(), token);
    options.process = process;
    return client::Connection::Connect(options).status().code();
  };
  const std::string good = TokenFor(protocol::kAllVerbs);
  std::string forged = good;
  forged[20] = forged[20] == 'A' ? 'B' : 'A';
  const Token token{.process = "p", .verbs = protocol::kAllVerbs, .expires_ms = NowMs() + 3'600'000};
  EXPECT_EQ(connect(good, "p"), Code::kOk);
  EXPECT_EQ(connect("", "p"), Code::kTokenInvalid);
  EXPECT_EQ(connect(forged, "p"), Code::kTokenInvalid);
  EXPECT_EQ(connect(good + "A", "p"), Code::kTokenInvalid);
  EXPECT_EQ(connect(protocol::MintToken(std::string(32, 'x'), token), "p"), Code::kTokenInvalid);
  EXPECT_EQ(connect(forged, "q"), Code::kTokenInvalid);  // who has no token does not learn which process this is
  EXPECT_EQ(connect(good, "q"), Code::kProcessUnknown);
  Token other = token;
  other.process = "q";
  EXPECT_EQ(connect(protocol::MintToken(kProcessKey, other), "p"), Code::kTokenInvalid);
  EXPECT_EQ(connect(protocol::MintToken(kProcessKey, other), "q"), Code::kTokenInvalid);
  Token old = token;
  for (const uint64_t expired_ms : {uint64_t{0}, uint64_t{1}, NowMs()}) {
    old.expires_ms = expired_ms;
    EXPECT_EQ(connect(protocol::MintToken(kProcessKey, old), "p"), Code::kTokenExpired);
    old.ends_connections = !old.ends_connections;
  }
  Token eternal = token;
  eternal.expires_ms = UINT64_MAX;
  EXPECT_EQ(connect(protocol::MintToken(kProcessKey, eternal), "p"), Code::kOk);
}

/// A connection that ends with its token, and has half of its time left at least.
Driver Expiring(client::ConnectOptions options, uint8_t verbs) {
  for (uint64_t lasts_ms = 500;; lasts_ms *= 2) {
    const uint64_t begun_ms = NowMs();
    options.token =
        protocol::MintToken(kProcessKey, {.process = "p", .verbs = verbs, .expires_ms = begun_ms + lasts_ms});
    auto connection = client::Connection::Connect(options);
    const bool soon = NowMs() < begun_ms + lasts_ms / 2;
    if (connection.ok() && soon) return Driver(*std::move(connection));
    EXPECT_FALSE(soon) << connection.status().message();
  }
}

TEST_P(Permissions, AConnectionEndsWithItsToken) {
  HostRun host(process_);
  host.AddWorkers(1);
  Driver owner = host.Client();
  Driver client = Expiring(With(host.port(), ""), protocol::kAllVerbs);
  EXPECT_EQ(Lock(client, protocol::LockMode::kWrite), Code::kOk);
  protocol::StateRequest lock{.op = StateOp::kLock, .key = std::string("lock 2")};
  lock.mode = protocol::LockMode::kWrite;
  const auto waiting = client::SubmitState(*owner, lock, DeadlineIn(kWatchdogNs));
  // Calls go on until the end, and the first one after it says why.
  Status status;
  while ((status = client.Call(fn::kEcho, AsBytes("x")).status).ok()) {
  }
  EXPECT_EQ(status.code(), Code::kTokenExpired) << status.message();
  EXPECT_TRUE(owner.Wait(waiting).status.ok());  // its locks are free
  EXPECT_TRUE(owner.Call(fn::kEcho, AsBytes("x")).status.ok());
  client->Close();
  ExpectClean(owner);
}

TEST_P(Permissions, CallsInFlightEndWithTheToken) {
  HostRun host(process_);
  host.AddWorkers(1);
  Driver client = Expiring(With(host.port(), ""), protocol::kVerbInvoke);
  const Driver::Outcome outcome = client.Call(fn::kStuck, {});
  EXPECT_EQ(outcome.status.code(), Code::kTokenExpired) << outcome.status.message();
}

TEST_P(Permissions, AConnectionOutlivesATokenThatOnlyOpensIt) {
  HostRun host(process_);
  host.AddWorkers(1);
  // Two connections whose tokens expire at the same time: when one has ended, the other one's token has expired, too.
  std::optional<Driver> stays;
  std::optional<Driver> ends;
  for (uint64_t lasts_ms = 500; !stays || !ends; lasts_ms *= 2) {
    Token token{.process = "p", .verbs = protocol::kVerbInvoke, .expires_ms = NowMs() + lasts_ms};
    auto ending = client::Connection::Connect(With(host.port(), protocol::MintToken(kProcessKey, token)));
    token.ends_connections = false;
    auto staying = client::Connection::Connect(With(host.port(), protocol::MintToken(kProcessKey, token)));
    if (!ending.ok() || !staying.ok()) continue;
    ends.emplace(*std::move(ending));
    stays.emplace(*std::move(staying));
  }
  while (ends->Call(fn::kEcho, AsBytes("x")).status.ok()) {
  }
  EXPECT_TRUE(stays->Call(fn::kEcho, AsBytes("x")).status.ok());
}

}  // namespace
}  // namespace praas::test
