// Leases over a real host with real praas-workers: what their holders get, and when they end.

#include <gtest/gtest.h>
#include <signal.h>

#include <string>

#include "function/native_leases.h"

namespace praas::test {
namespace {

INSTANTIATE_TEST_SUITE_P(Transports, NativeLeases, ::testing::Values("tcp", "shm", "verbs"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(NativeLeases, CallsOfEverySizeGoToTheLeasedWorker) {
  Start(Raw("copy") + Raw("worker_pid"));
  const LeaseReply lease = Take({.workers = 2, .ttl_ms = 60'000});
  ASSERT_EQ(lease.pids.size(), 2u);
  EXPECT_EQ(lease.key.size(), protocol::kLeaseKeyBytes);
  for (uint32_t worker = 0; worker < 2; ++worker) {
    Driver calls = Worker(lease, worker);
    EXPECT_EQ(calls->info().transport, GetParam());
    EXPECT_EQ(PidOf(calls), static_cast<pid_t>(lease.pids[worker]));
    for (const size_t bytes : {size_t{0}, size_t{1}, size_t{64}, size_t{4095}, size_t{4096}, size_t{4097},
                               size_t{100'000}, size_t{300'000}}) {
      const Bytes input = PatternOf(bytes);
      const Driver::Outcome outcome = calls.Call(Index("copy"), input);
      EXPECT_TRUE(outcome.status.ok()) << bytes << ": " << outcome.status.message();
      EXPECT_EQ(outcome.payload, input) << bytes;
    }
  }
  const Result<LeaseReply> report = Release(lease.lease);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(NumberIn(report->text, "calls"), 18u) << report->text;
  EXPECT_EQ(NumberIn(report->text, "failures"), 0u) << report->text;
  EXPECT_EQ(NumberIn(report->text, "bytesIn"), 2u * (1 + 64 + 4095 + 4096 + 4097 + 100'000 + 300'000)) << report->text;
  EXPECT_GT(NumberIn(report->text, "executionNs"), 0u);
  EXPECT_GT(NumberIn(report->text, "pollingNs"), NumberIn(report->text, "executionNs"));
  EXPECT_GE(NumberIn(report->text, "allocatedNs"), NumberIn(report->text, "pollingNs"));
}

TEST_P(NativeLeases, AreForWhoMayLeaseAndCall) {
  Start(Raw("copy"));
  for (const uint8_t lacks : {protocol::kVerbLease, protocol::kVerbInvoke}) {
    client::ConnectOptions options = OptionsFor(host_->port());
    options.token = TokenFor(protocol::kAllVerbs & ~lacks);
    Driver holder = Connect(options);
    const Status refused = Ask(holder, LeaseOp::kTake, {.ttl_ms = 60'000}).status();
    EXPECT_EQ(refused.code(), Code::kNotPermitted);
    EXPECT_NE(refused.message().find("does not allow " + protocol::VerbNames(lacks, "")), std::string::npos)
        << refused.message();
  }
  EXPECT_NE(Leases().find("\"leases\":[]"), std::string::npos) << Leases();
}

TEST_P(NativeLeases, TheirKeysAreForCallsAlone) {
  Start(Raw("copy"));
  const LeaseReply lease = Take({.ttl_ms = 60'000});
  const auto refused = [](const Driver::Outcome& outcome) {
    // By the host over shared memory, else by the worker.
    return outcome.status.code() == Code::kNotPermitted || outcome.status.code() == Code::kUnsupported;
  };
  Driver calls = Worker(lease);
  EXPECT_TRUE(calls.Call(Index("copy"), AsBytes("x")).status.ok());
  EXPECT_TRUE(refused(calls.Wait(client::SubmitState(
      *calls, {.op = protocol::StateOp::kSet, .key = "k", .data = AsBytes("v")}, DeadlineIn(kWatchdogNs)))));
  EXPECT_TRUE(refused(
      calls.Wait(client::SubmitState(*calls, {.op = protocol::StateOp::kRead, .key = "k"}, DeadlineIn(kWatchdogNs)))));
  EXPECT_TRUE(refused(calls.Wait(
      client::SubmitAdmin(*calls, static_cast<uint16_t>(protocol::AdminOp::kStats), "", DeadlineIn(kWatchdogNs)))));
  EXPECT_TRUE(refused(calls.Wait(calls->Request(protocol::FrameType::kLease, static_cast<uint16_t>(LeaseOp::kTake),
                                                Encode(LeaseRequest{.ttl_ms = 60'000}), {}, DeadlineIn(kWatchdogNs)))));
}

TEST_P(NativeLeases, WhatBecameOfThemIsToldToTheirHoldersAlone) {
  Start(Raw("copy"));
  const LeaseReply lease = Take({.ttl_ms = 60'000, .name = "mine"});
  Driver other = Connect(OptionsFor(host_->port()));
  const auto refused = [&](Driver& asked) {
    for (const LeaseOp op : {LeaseOp::kRenew, LeaseOp::kReport, LeaseOp::kFate, LeaseOp::kRelease}) {
      const Result<LeaseReply> reply = Ask(asked, op, {.lease = lease.lease, .ttl_ms = 1});
      EXPECT_EQ(reply.status().code(), Code::kLeaseClosed) << static_cast<int>(op);
      EXPECT_NE(reply.status().message().find("this connection holds no"), std::string::npos)
          << reply.status().message();
    }
  };
  refused(other);
  ASSERT_TRUE(Release(lease.lease).ok());
  refused(other);
  EXPECT_TRUE(Ask(*holder_, LeaseOp::kReport, {.lease = lease.lease}).ok());
}

TEST_P(NativeLeases, EndWithTheTokenOfTheirHolder) {
  Start(Raw("copy"));
  client::ConnectOptions options = OptionsFor(host_->port());
  std::optional<Driver> holder;
  Result<LeaseReply> lease = Status(Code::kInternal, "not taken");
  // As long as it takes here to have the lease before the token expires.
  for (uint64_t lasts_ms = 500; !lease.ok(); lasts_ms *= 2) {
    options.token = protocol::MintToken(
        kProcessKey, {.process = "p", .verbs = protocol::kAllVerbs, .expires_ms = NowMs() + lasts_ms});
    auto connection = client::Connection::Connect(options);
    if (!connection.ok()) continue;
    holder.emplace(*std::move(connection));
    lease = Ask(*holder, LeaseOp::kTake, {.ttl_ms = 3'600'000});
  }
  auto calls = client::Connection::Connect(WorkerOptions(lease->key, 0));
  if (calls.ok()) {
    Driver worker(*std::move(calls));
    Status status;
    while ((status = worker.Call(Index("copy"), AsBytes("x")).status).ok()) {
    }
  }
  EXPECT_TRUE(Eventually([&] { return Leases().find("\"leases\":[]") != std::string::npos; })) << Leases();
  EXPECT_EQ(client::Connection::Connect(WorkerOptions(lease->key, 0)).status().code(), Code::kTokenExpired);
  EXPECT_EQ(Ask(*holder, LeaseOp::kReport, {.lease = lease->lease}).status().code(), Code::kTokenExpired);
}

TEST_P(NativeLeases, ManyCallsInFlightGetTheirOwnResults) {
  Start(Raw("copy"));
  for (const int64_t hot_ms : {-1, 0}) {
    const LeaseReply lease = Take({.hot_ms = hot_ms, .ttl_ms = 60'000});
    Driver calls = Worker(lease);
    const uint32_t copy = Index("copy");
    std::vector<Bytes> inputs;
    for (size_t i = 0; i < 100; ++i) inputs.push_back(Bytes(1 + i * 577, static_cast<std::byte>(i)));
    for (int round = 0; round < 3; ++round) {
      std::vector<uint64_t> made;
      for (const Bytes& input : inputs) {
        auto call = calls->Invoke(copy, input, {}, 0, DeadlineIn(kWatchdogNs));
        ASSERT_TRUE(call.ok()) << call.status().message();
        made.push_back(*call);
      }
      for (size_t i = 0; i < made.size(); ++i) {
        const Driver::Outcome outcome = calls.Wait(made[i]);
        EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
        EXPECT_EQ(outcome.payload, inputs[i]) << i;
      }
    }
    ASSERT_TRUE(Release(lease.lease).ok());
  }
}

TEST_P(NativeLeases, WhoWaitsIsServedInOrderOrToldInTime) {
  Start(Raw("worker_pid"), 2);
  const LeaseReply first = Take({.workers = 2, .ttl_ms = 60'000});
  std::unique_ptr<Driver> other = NewHolder();
  EXPECT_EQ(Ask(*other, LeaseOp::kTake, {.ttl_ms = 60'000}).status().code(), Code::kLeaseUnavailable);
  EXPECT_EQ(Ask(*other, LeaseOp::kTake, {.ttl_ms = 60'000, .wait_ms = 20}).status().code(), Code::kLeaseUnavailable);
  EXPECT_EQ(Ask(*other, LeaseOp::kTake, {.workers = 3, .ttl_ms = 60'000}).status().code(), Code::kArgumentInvalid);
  const auto waiting =
      (*other)->Request(protocol::FrameType::kLease, static_cast<uint16_t>(LeaseOp::kTake),
                        Encode(LeaseRequest{.ttl_ms = 60'000, .wait_ms = 60'000}), {}, DeadlineIn(kWatchdogNs));
  other->Poll();
  ASSERT_TRUE(Eventually([&] { return NumberIn(Leases(), "waiting") == 1; }));
  ASSERT_TRUE(Release(first.lease).ok());
  const Driver::Outcome granted = other->Wait(waiting);
  ASSERT_TRUE(granted.status.ok()) << granted.status.message();
  const Result<LeaseReply> second = protocol::DecodeLeaseReply(granted.payload);
  ASSERT_TRUE(second.ok());
  EXPECT_TRUE(second->pids[0] == first.pids[0] || second->pids[0] == first.pids[1]) << "a worker is used again";
  EXPECT_EQ(Ask(*holder_, LeaseOp::kRelease, {.lease = second->lease}).status().code(), Code::kLeaseClosed)
      << "of another holder";
}

TEST_P(NativeLeases, ExpiryEndsItWhateverRuns) {
  Start(Raw("worker_pid") + Raw("infinite_loop"));
  const LeaseReply lease = Take({.ttl_ms = 200 * slow()});
  Driver calls = Worker(lease);
  const pid_t pid = PidOf(calls);
  const Driver::Outcome outcome = calls.Call(Index("infinite_loop"), {});
  ExpectLost(outcome, Code::kLeaseExpired);
  ASSERT_TRUE(HasNotice(LeaseEvent::kEnded));
  EXPECT_EQ(NoticeOf(LeaseEvent::kEnded).code, Code::kLeaseExpired);
  EXPECT_TRUE(Eventually([&] { return ::kill(pid, 0) != 0; })) << "it never returns";
  EXPECT_EQ(NumberIn(NoticeOf(LeaseEvent::kEnded).text, "calls"), 2u);
  EXPECT_EQ(NumberIn(NoticeOf(LeaseEvent::kEnded).text, "failures"), 1u);
  EXPECT_EQ(client::Connection::Connect(WorkerOptions(lease.key, 0)).status().code(), Code::kLeaseExpired);
  EXPECT_EQ(Ask(*holder_, LeaseOp::kRenew, {.lease = lease.lease, .ttl_ms = 100}).status().code(), Code::kLeaseExpired);
  const LeaseReply next = Take({.ttl_ms = 60'000});
  Driver again = Worker(next);
  EXPECT_NE(PidOf(again), pid);
}

TEST_P(NativeLeases, RenewalKeepsIt) {
  Start(Raw("worker_pid"));
  const LeaseReply lease = Take({.ttl_ms = 1000 * slow()});
  Driver calls = Worker(lease);
  const pid_t pid = PidOf(calls);
  for (int i = 0; i < 6; ++i) {
    ::usleep(static_cast<useconds_t>(200'000 * slow()));
    const Result<LeaseReply> renewed = Ask(*holder_, LeaseOp::kRenew, {.lease = lease.lease, .ttl_ms = 1000 * slow()});
    ASSERT_TRUE(renewed.ok()) << renewed.status().message();
    ASSERT_EQ(PidOf(calls), pid);
  }
  ASSERT_TRUE(HasNotice(LeaseEvent::kEnded)) << "unless nobody renews it";
  // In an emulated machine it may not come to leave in time.
  if (std::string(GetParam()) != "verbs") {
    EXPECT_TRUE(::kill(pid, 0) == 0) << "an idle worker leaves and lives";
  }
}

TEST_P(NativeLeases, AHolderThatGoesGivesItBack) {
  Start(Raw("worker_pid") + Raw("infinite_loop"), 1);
  {
    const LeaseReply lease = Take({.ttl_ms = 60'000});
    Driver calls = Worker(lease);
    const auto call = calls->Invoke(Index("infinite_loop"), {}, {}, 0, DeadlineIn(kWatchdogNs));
    calls.Poll();
    ASSERT_TRUE(call.ok());
    holder_.reset();
  }
  holder_ = NewHolder();
  const LeaseReply next = Take({.ttl_ms = 60'000, .wait_ms = 60'000});
  Driver calls = Worker(next);
  EXPECT_EQ(PidOf(calls), static_cast<pid_t>(next.pids[0]));
}

TEST_P(NativeLeases, DeadlinesAndCancellationsHold) {
  Start(Raw("worker_pid") + Raw("infinite_loop") + Raw("copy"));
  const LeaseReply lease = Take({.ttl_ms = 60'000});
  Driver calls = Worker(lease);
  const Driver::Outcome late = calls.Call(Index("infinite_loop"), {}, {}, DeadlineIn(slow() * 50'000'000));
  EXPECT_EQ(late.status.code(), Code::kInvocationTimeout) << late.status.message();
  ASSERT_TRUE(HasNotice(LeaseEvent::kWorkerReady)) << "a function that overruns its deadline ends its worker";
  Driver again = Worker(lease);
  const Bytes input = PatternOf(5000);
  EXPECT_EQ(again.Call(Index("copy"), input).payload, input);
}

TEST_P(NativeLeases, TheEndOfTheProcessTakesThemBack) {
  Start(Raw("worker_pid"));
  const LeaseReply lease = Take({.ttl_ms = 60'000});
  Driver calls = Worker(lease);
  static_cast<void>(PidOf(calls));
  host_->Drain(2'000);
  ASSERT_TRUE(HasNotice(LeaseEvent::kEnding));
  ASSERT_TRUE(HasNotice(LeaseEvent::kEnded));
  EXPECT_EQ(NoticeOf(LeaseEvent::kEnded).code, Code::kLeaseRevoked);
  EXPECT_TRUE(Eventually([&] { return host_->drained(); }));
}

TEST_P(NativeLeases, WhatAConnectionToAWorkerMayNotDo) {
  Start(Raw("copy"));
  const LeaseReply lease = Take({.ttl_ms = 60'000});
  EXPECT_EQ(client::Connection::Connect(WorkerOptions(std::string(32, '0'), 0)).status().code(), Code::kLeaseClosed);
  EXPECT_EQ(client::Connection::Connect(WorkerOptions(lease.key, 1)).status().code(), Code::kArgumentInvalid);
  EXPECT_EQ(client::Connection::Connect(WorkerOptions("short", 0)).status().code(), Code::kArgumentInvalid);
  Driver calls = Worker(lease);
  const Driver::Outcome unknown = calls.Call(900, {});
  EXPECT_EQ(unknown.status.code(), Code::kFunctionUnknown) << unknown.status.message();
  if (std::string(GetParam()) == "tcp") {
    const Driver::Outcome admin =
        calls.Wait(calls->Request(protocol::FrameType::kAdmin, static_cast<uint16_t>(protocol::AdminOp::kStats), {}, {},
                                  DeadlineIn(kWatchdogNs)));
    EXPECT_EQ(admin.status.code(), Code::kUnsupported) << admin.status.message();
  }
  EXPECT_EQ(calls.Call(Index("copy"), PatternOf(64)).payload, PatternOf(64)) << "and goes on";
}

}  // namespace
}  // namespace praas::test
