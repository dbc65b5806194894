// Leases over a real host with real praas-workers: what their holders get, and what becomes of it when somebody dies or
// time is over.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "function/spec.h"
#include "host/host_fixture.h"
#include "protocol/agent_line.h"
#include "protocol/lease_messages.h"
#include "support/rdma.h"

namespace praas::test {
namespace {

using protocol::LeaseEvent;
using protocol::LeaseOp;
using protocol::LeaseReply;
using protocol::LeaseRequest;

std::string Line(const std::string& name, const char* library, function::Abi abi, uint64_t max_output) {
  std::vector<std::pair<std::string_view, std::string>> values = {
      {"name", name}, {"library", library}, {"abi", std::string(function::AbiName(abi))}, {"flags", "0"}};
  if (max_output != 0) values.emplace_back("maxOutput", std::to_string(max_output));
  return protocol::FormatAgentLine("function", values);
}
std::string Raw(const std::string& name) { return Line(name, PRAAS_TEST_RFAAS_LIBRARY, function::Abi::kRaw, 300'000); }
std::string InC(const std::string& name) { return Line(name, PRAAS_TEST_C_LIBRARY, function::Abi::kC, 0); }

/// The number behind `"key":`.
uint64_t NumberIn(const std::string& json, const std::string& key) {
  const size_t at = json.find('"' + key + "\":");
  EXPECT_NE(at, std::string::npos) << key << " in " << json;
  return at == std::string::npos ? 0 : std::stoull(json.substr(at + key.size() + 3));
}

/// Stops a worker and ends its control socket, the only one of its kind that it has: for its host it is dead, and will
/// not be missed for a second.
Status LetDieUnnoticed(pid_t worker) {
  EXPECT_EQ(::kill(worker, SIGSTOP), 0);
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, worker, 0)));
  if (!process) return Status::System("pidfd_open");
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(worker) + "/fd")) {
    const int number = std::stoi(entry.path().filename());
    const UniqueFd theirs(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), number, 0)));
    if (!theirs) return Status::System("pidfd_getfd");
    int type = 0;
    socklen_t bytes = sizeof type;
    if (::getsockopt(theirs.get(), SOL_SOCKET, SO_TYPE, &type, &bytes) != 0 || type != SOCK_SEQPACKET) continue;
    return ::shutdown(theirs.get(), SHUT_RDWR) == 0 ? Status::Ok() : Status::System("shutdown");
  }
  return {Code::kInternal, "the worker has no control socket"};
}

class NativeLeases : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (std::string(GetParam()) != "verbs") return;
    if (const std::string reason = NoRdmaDevice(); !reason.empty()) GTEST_SKIP() << reason;
  }
  /// How much longer everything takes with an emulated device, in an emulated machine, or under a sanitizer.
  [[nodiscard]] static uint64_t slow() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    constexpr uint64_t kSanitized = 4;
#else
    constexpr uint64_t kSanitized = 1;
#endif
    return std::string(GetParam()) == "verbs" ? 20 : kSanitized;
  }

  void Start(const std::string& functions, uint32_t lease_workers = 8) {
    process_.assignment.workers = 0;
    process_.assignment.native_workers = 1;
    process_.assignment.lease_workers = lease_workers;
    process_.assignment.native = functions;
    StartHost();
  }
  void StartHost() {
    host::HostOptions options;
    options.worker_commands[static_cast<size_t>(dispatch::Lane::kNative)] = {PRAAS_WORKER_PATH};
    options.assignment = process_.assignment;
    auto started = host::Host::Start(std::move(options));
    ASSERT_TRUE(started.ok()) << started.status().message();
    host_ = std::move(*started);
    holder_ = NewHolder();
  }
  void TearDown() override {
    holder_.reset();
    host_.reset();
  }

  std::unique_ptr<Driver> NewHolder() {
    std::unique_ptr<Driver> holder(new Driver(Connect(OptionsFor(host_->port()))));
    (*holder)->SetNoticeSink([this](const client::LeaseNotice& notice) { notices_.push_back(notice); });
    return holder;
  }
  Result<LeaseReply> Ask(Driver& holder, LeaseOp op, const LeaseRequest& request, uint64_t timeout_ns = kWatchdogNs) {
    const Driver::Outcome outcome = holder.Wait(holder->Request(protocol::FrameType::kLease, static_cast<uint16_t>(op),
                                                                Encode(request), {}, DeadlineIn(timeout_ns)));
    if (!outcome.status.ok()) return outcome.status;
    return protocol::DecodeLeaseReply(outcome.payload);
  }
  LeaseReply Take(LeaseRequest request) {
    Result<LeaseReply> reply = Ask(*holder_, LeaseOp::kTake, request);
    EXPECT_TRUE(reply.ok()) << reply.status().message();
    return reply.ok() ? *reply : LeaseReply{};
  }
  Result<LeaseReply> Release(uint64_t lease) { return Ask(*holder_, LeaseOp::kRelease, {.lease = lease}); }

  client::ConnectOptions WorkerOptions(const std::string& key, uint32_t worker) {
    client::ConnectOptions options = OptionsFor(host_->port());
    options.transport = GetParam();
    options.window_bytes = 64u << 20;
    options.lease_key = key;
    options.lease_worker = worker;
    return options;
  }
  Driver Worker(const LeaseReply& lease, uint32_t worker = 0) { return Connect(WorkerOptions(lease.key, worker)); }
  uint32_t Index(const std::string& name) {
    const Driver::Outcome outcome = holder_->Wait((*holder_)->Resolve(name, DeadlineIn(kWatchdogNs)));
    EXPECT_TRUE(outcome.status.ok()) << name << ": " << outcome.status.message();
    client::FunctionRef function{};
    if (outcome.payload.size() == sizeof function) std::memcpy(&function, outcome.payload.data(), sizeof function);
    return function.index;
  }
  pid_t PidOf(Driver& worker) {
    const Driver::Outcome outcome = worker.Call(Index("worker_pid"), {});
    uint32_t pid = 0;
    EXPECT_EQ(outcome.payload.size(), sizeof pid) << outcome.status.message();
    if (outcome.payload.size() == sizeof pid) std::memcpy(&pid, outcome.payload.data(), sizeof pid);
    return static_cast<pid_t>(pid);
  }
  [[nodiscard]] bool HasNotice(LeaseEvent event) {
    return Eventually([&] {
      holder_->Poll();
      return std::any_of(notices_.begin(), notices_.end(), [&](const auto& notice) { return notice.event == event; });
    });
  }
  const client::LeaseNotice& NoticeOf(LeaseEvent event) {
    return *std::find_if(notices_.begin(), notices_.end(), [&](const auto& notice) { return notice.event == event; });
  }
  std::string Leases() {
    const Driver::Outcome outcome = holder_->Wait((*holder_)->Request(protocol::FrameType::kAdmin,
                                                                      static_cast<uint16_t>(protocol::AdminOp::kLeases),
                                                                      {}, {}, DeadlineIn(kWatchdogNs)));
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
    return AsText(outcome.payload);
  }
  /// A call that lost its worker fails with one of these, by transport.
  void ExpectLost(const Driver::Outcome& outcome, Code told) {
    if (std::string(GetParam()) == "shm") {
      EXPECT_EQ(outcome.status.code(), told) << outcome.status.message();
    } else {
      EXPECT_TRUE(outcome.status.code() == Code::kConnectionLost || outcome.status.code() == told ||
                  outcome.status.code() == Code::kLeaseClosed)
          << outcome.status.message();
    }
  }

  TestProcess process_;
  std::unique_ptr<host::Host> host_;
  std::unique_ptr<Driver> holder_;
  std::vector<client::LeaseNotice> notices_;
};

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

TEST_P(NativeLeases, AWorkerThatDiesIsReplaced) {
  Start(Raw("worker_pid") + Raw("copy") + Raw("infinite_loop"));
  const LeaseReply lease = Take({.workers = 2, .ttl_ms = 60'000});
  Driver one = Worker(lease, 0);
  Driver two = Worker(lease, 1);
  EXPECT_EQ(PidOf(one), static_cast<pid_t>(lease.pids[0]));
  const auto call = one->Invoke(Index("infinite_loop"), {}, {}, 0, DeadlineIn(kWatchdogNs));
  one.Poll();
  ASSERT_TRUE(Eventually([&] { return NumberIn(Leases(), "executionNs") > 20'000'000; }));
  ASSERT_EQ(::kill(static_cast<pid_t>(lease.pids[0]), SIGKILL), 0);
  ExpectLost(one.Wait(call), Code::kWorkerCrashed);
  const Result<LeaseReply> fate = Ask(*holder_, LeaseOp::kFate, {.lease = lease.lease, .worker = 0});
  if (fate.ok() && NumberIn(Leases(), "free") == 6) {
    EXPECT_TRUE(fate->text.find("\"signal\":9") != std::string::npos || fate->text.find("\"no\"") != std::string::npos)
        << fate->text;
  }
  const Bytes input = PatternOf(1000);
  EXPECT_EQ(two.Call(Index("copy"), input).payload, input) << "the other goes on";
  ASSERT_TRUE(HasNotice(LeaseEvent::kWorkerEnded));
  EXPECT_NE(NoticeOf(LeaseEvent::kWorkerEnded).text.find("\"signal\":9"), std::string::npos);
  ASSERT_TRUE(HasNotice(LeaseEvent::kWorkerReady));
  Driver again = Worker(lease, 0);
  EXPECT_NE(PidOf(again), static_cast<pid_t>(lease.pids[0]));
  const Result<LeaseReply> report = Release(lease.lease);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(NumberIn(report->text, "failures"), 1u) << report->text;
  EXPECT_EQ(NumberIn(report->text, "calls"), 4u) << report->text;
}

TEST_P(NativeLeases, CallsOfAWorkerThatDiesGoToNoOther) {
  Start(Raw("kills_itself"));
  const LeaseReply lease = Take({.ttl_ms = 60'000});
  Driver calls = Worker(lease);
  const auto call = calls->Invoke(Index("kills_itself"), {}, {}, protocol::kIdempotent, DeadlineIn(kWatchdogNs));
  calls.Poll();
  // Its client does not look before the host has cleaned up.
  const auto repairs = [&] { return NumberIn(StatsOf(*holder_), "repairs"); };
  ASSERT_TRUE(Eventually([&] { return repairs() > 0; }));
  EXPECT_TRUE(Eventually([&] { return NumberIn(StatsOf(*holder_), "callsInUse") == 0; }));
  EXPECT_EQ(repairs(), 1u) << "another worker has died of it";
  ExpectLost(calls.Wait(call), Code::kWorkerCrashed);
}

TEST_P(NativeLeases, AWorkerWhoseMemoryAFunctionHasClosedIsReplaced) {
  // The first needs no descriptor for its result, the second one for memory that no call had before.
  Start(Line("close_memory", PRAAS_TEST_RFAAS_LIBRARY, function::Abi::kRaw, 16) + Raw("copy"));
  const LeaseReply lease = Take({.ttl_ms = 60'000});
  Driver calls = Worker(lease);
  const Driver::Outcome closed = calls.Call(Index("close_memory"), {});
  EXPECT_TRUE(closed.status.ok()) << closed.status.message();
  ExpectLost(calls.Call(Index("copy"), PatternOf(5000)), Code::kWorkerCrashed);
  ASSERT_TRUE(HasNotice(LeaseEvent::kWorkerReady));
  Driver again = Worker(lease);
  EXPECT_EQ(again.Call(Index("copy"), PatternOf(5000)).payload, PatternOf(5000));
}

TEST_P(NativeLeases, AWorkerThatDiesWhileItsHolderConnectsIsNotTakenForAnythingElse) {
  Start(Raw("worker_pid"));
  for (uint32_t delay_us = 0; delay_us < 1'000; delay_us += 10) {
    const LeaseReply lease = Take({.workers = 1, .ttl_ms = 60'000});
    ASSERT_EQ(lease.pids.size(), 1u);
    std::thread killer([&] {
      ::usleep(delay_us * static_cast<useconds_t>(slow()));
      ::kill(static_cast<pid_t>(lease.pids[0]), SIGKILL);
    });
    const auto connection = client::Connection::Connect(WorkerOptions(lease.key, 0));
    killer.join();
    const Code code = connection.ok() ? Code::kOk : connection.status().code();
    EXPECT_TRUE(code == Code::kOk || code == Code::kLeaseUnavailable || code == Code::kWorkerCrashed ||
                code == Code::kConnectionLost)
        << delay_us << ": " << CodeName(code) << ": " << connection.status().message();
    ASSERT_TRUE(Release(lease.lease).ok());
  }
}

TEST_P(NativeLeases, AWorkerThatHasDiedAndIsNotMissedYetIsBeingReplaced) {
  Start(Raw("copy"));
  // As often as it takes here to ask before the worker is missed.
  for (bool asked = false; !asked;) {
    notices_.clear();
    const LeaseReply lease = Take({.ttl_ms = 600'000});
    ASSERT_EQ(lease.pids.size(), 1u);
    const auto worker = static_cast<pid_t>(lease.pids[0]);
    const Status ended = LetDieUnnoticed(worker);
    if (ended.sys_errno() == EPERM || ended.sys_errno() == ENOSYS) GTEST_SKIP() << ended.message();
    ASSERT_TRUE(ended.ok()) << ended.message();
    const Status status = client::Connection::Connect(WorkerOptions(lease.key, 0)).status();
    const std::optional<ProcessId> there = ProcessId::Of(worker);
    asked = there && there->Stopped();
    if (asked) {
      EXPECT_EQ(status.code(), Code::kLeaseUnavailable) << CodeName(status.code()) << ": " << status.message();
      ::kill(worker, SIGKILL);
    }
    ASSERT_TRUE(HasNotice(LeaseEvent::kWorkerReady));
    Driver again = Worker(lease);
    EXPECT_EQ(AsText(again.Call(Index("copy"), AsBytes("x")).payload), "x");
    ASSERT_TRUE(Release(lease.lease).ok());
  }
}

TEST_P(NativeLeases, AFaultInAFunctionIsTold) {
  Start(Raw("segfault") + Raw("copy") + Raw("worker_pid"));
  const LeaseReply lease = Take({.workers = 2, .ttl_ms = 60'000});
  Driver one = Worker(lease, 0);
  Driver two = Worker(lease, 1);
  ExpectLost(one.Call(Index("segfault"), {}), Code::kWorkerCrashed);
  const Result<LeaseReply> fate = Ask(*holder_, LeaseOp::kFate, {.lease = lease.lease, .worker = 0});
  ASSERT_TRUE(fate.ok()) << fate.status().message();
  EXPECT_NE(fate->text.find("segfault"), std::string::npos) << fate->text;
  const Bytes input = PatternOf(100);
  EXPECT_EQ(two.Call(Index("copy"), input).payload, input);
  ASSERT_TRUE(HasNotice(LeaseEvent::kWorkerReady));
  Driver again = Worker(lease, 0);
  EXPECT_EQ(again.Call(Index("copy"), input).payload, input);
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

/// Clients on the same machine, whose ends the host sees itself: their windows are others' before their worker knows.
class LeasedWindows : public NativeLeases {
 protected:
  static constexpr uint32_t kOpen = 1;  // segment::WindowSlot::state

  void Watch() {
    auto segment = segment::Segment::Map(
        UniqueFd(::shm_open(process_.assignment.segment.c_str(), O_RDONLY | O_CLOEXEC, 0)), false);
    ASSERT_TRUE(segment.ok()) << segment.status().message();
    segment_.emplace(*std::move(segment));
  }
  [[nodiscard]] const segment::Header& header() const { return segment_->header(); }
  [[nodiscard]] uint32_t OpenWindows() const {
    uint32_t open = 0;
    for (uint32_t index = 0; index < header().windows_used.load(); ++index) {
      open += segment_->window(index).state.load() != 0;
    }
    return open;
  }
  /// Clients of the process that come and go, until a window has to be one that was used before.
  void UseEveryWindow() {
    client::ConnectOptions options = OptionsFor(host_->port());
    options.transport = "shm";
    while (header().windows_used.load() < header().windows.committed.load() && !HasFailure()) {
      Driver passing = Connect(options);
    }
  }

  std::optional<segment::Segment> segment_;
};

INSTANTIATE_TEST_SUITE_P(Transports, LeasedWindows, ::testing::Values("shm"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(LeasedWindows, TheEndOfAClientThatIsToldLateIsNotThatOfTheNext) {
  Start(InC("until_cancelled") + InC("echo"));
  ASSERT_NO_FATAL_FAILURE(Watch());
  const LeaseReply lease = Take({.ttl_ms = 600'000});
  Driver busy = Worker(lease);
  const auto call = busy->Invoke(Index("until_cancelled"), AsBytes("how"), {}, 0, DeadlineIn(10 * kWatchdogNs));
  ASSERT_TRUE(call.ok()) << call.status().message();
  busy.Poll();
  ASSERT_TRUE(Eventually([&] { return NumberIn(Leases(), "executionNs") > 0; }));

  // Of this one the worker comes to know when its function has returned, and then tells the host that it has ended.
  const segment::WindowSlot& window = segment_->window(header().windows_used.load());
  const uint32_t before = window.generation.load();
  { Driver left = Worker(lease); }
  ASSERT_TRUE(Eventually([&] { return window.generation.load() == before + 2; })) << "it is given back";
  UseEveryWindow();
  Driver next = Worker(lease);
  ASSERT_TRUE(Eventually([&] { return window.state.load() == kOpen; })) << "it has got another window";
  busy->Cancel(*call);
  (void)busy.Wait(call);

  // The worker tells the end of this one after that of the other.
  {
    client::ConnectOptions options = WorkerOptions(lease.key, 0);
    options.transport = "tcp";
    Driver last = Connect(options);
    EXPECT_EQ(AsText(last.Call(Index("echo"), AsBytes("x")).payload), "x");
  }
  ASSERT_TRUE(Eventually([&] { return OpenWindows() == 2; })) << "of those who stay: " << OpenWindows();
  const Driver::Outcome resolved = next.Wait(next->Resolve("echo", DeadlineIn(kWatchdogNs)));
  EXPECT_TRUE(resolved.status.ok()) << "taken for the one who left: " << resolved.status.message();
  const Driver::Outcome outcome = next.Call(Index("echo"), AsBytes("y"));
  EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
  EXPECT_EQ(AsText(outcome.payload), "y");
}

}  // namespace
}  // namespace praas::test
