// Leased workers that die: what the holder of the lease and callers hear, and that another takes their place.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <filesystem>
#include <optional>
#include <string>
#include <thread>

#include "function/native_leases.h"

namespace praas::test {
namespace {

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

class LeasedWorkers : public NativeLeases {};

INSTANTIATE_TEST_SUITE_P(Transports, LeasedWorkers, ::testing::Values("tcp", "shm", "verbs"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(LeasedWorkers, AWorkerThatDiesIsReplaced) {
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

TEST_P(LeasedWorkers, CallsOfAWorkerThatDiesGoToNoOther) {
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

TEST_P(LeasedWorkers, AWorkerWhoseMemoryAFunctionHasClosedIsReplaced) {
  // The first needs no descriptor for its result, the second one for memory that no call had before.
  Start(Raw("close_memory", 16) + Raw("copy"));
  const LeaseReply lease = Take({.ttl_ms = 60'000});
  Driver calls = Worker(lease);
  const Driver::Outcome closed = calls.Call(Index("close_memory"), {});
  EXPECT_TRUE(closed.status.ok()) << closed.status.message();
  ExpectLost(calls.Call(Index("copy"), PatternOf(5000)), Code::kWorkerCrashed);
  ASSERT_TRUE(HasNotice(LeaseEvent::kWorkerReady));
  Driver again = Worker(lease);
  EXPECT_EQ(again.Call(Index("copy"), PatternOf(5000)).payload, PatternOf(5000));
}

TEST_P(LeasedWorkers, AWorkerThatDiesWhileItsHolderConnectsIsNotTakenForAnythingElse) {
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

TEST_P(LeasedWorkers, AWorkerThatHasDiedAndIsNotMissedYetIsBeingReplaced) {
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

TEST_P(LeasedWorkers, AFaultInAFunctionIsTold) {
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

}  // namespace
}  // namespace praas::test
