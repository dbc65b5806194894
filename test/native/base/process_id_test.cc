#include "base/process_id.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <thread>

#include "base/clock.h"
#include "base/pidfd.h"
#include "support/child.h"

namespace praas {
namespace {

using test::Child;
using test::Signpost;

constexpr uint64_t kWatchdogNs = 30'000'000'000;

int SleepForever() {
  for (;;) ::pause();
}

TEST(ProcessId, NamesThisProcess) {
  const ProcessId self = ProcessId::Self();
  EXPECT_EQ(self.pid, ::getpid());
  EXPECT_GT(self.start_time, 0u);
  EXPECT_EQ(ProcessId::Of(::getpid()), self);
  EXPECT_TRUE(self.Alive());
  EXPECT_FALSE(self.Stopped());
}

TEST(ProcessId, SurvivesACommandNameWithParentheses) {
  char name[16] = {};
  ASSERT_EQ(::prctl(PR_GET_NAME, name), 0);
  const ProcessId before = ProcessId::Self();
  ASSERT_EQ(::prctl(PR_SET_NAME, "a) Z 1 (b"), 0);
  EXPECT_EQ(ProcessId::Self(), before);
  EXPECT_TRUE(before.Alive());
  ASSERT_EQ(::prctl(PR_SET_NAME, name), 0);
}

TEST(ProcessId, FindsTheProcessOfAThread) {
  ProcessId found;
  std::thread([&] {
    found = ProcessId::OfThread(static_cast<pid_t>(::syscall(SYS_gettid))).value_or(ProcessId{});
  }).join();
  EXPECT_EQ(found, ProcessId::Self());
  EXPECT_FALSE(ProcessId::OfThread(0));
}

TEST(ProcessId, RefusesPidsNobodyHas) {
  EXPECT_FALSE(ProcessId::Of(0));
  EXPECT_FALSE(ProcessId::Of(-1));
  EXPECT_FALSE((ProcessId{0, 0}.Alive()));
}

TEST(ProcessId, AnotherStartTimeIsAnotherProcess) {
  ProcessId other = ProcessId::Self();
  other.start_time += 1;
  EXPECT_FALSE(other.Alive());
}

TEST(ProcessId, AZombieIsNotAlive) {
  Child child = Child::Fork(SleepForever);
  const ProcessId id = ProcessId::Of(child.pid()).value();
  EXPECT_TRUE(id.Alive());
  child.Signal(SIGKILL);
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child.pid()), &info, WEXITED | WNOWAIT), 0);
  EXPECT_TRUE(ProcessId::Of(child.pid()).has_value());  // still there, unreaped
  EXPECT_FALSE(id.Alive());
  child.Wait();
  EXPECT_FALSE(id.Alive());
}

TEST(ProcessId, AStoppedProcessIsAliveAndStopped) {
  Child child = Child::Fork(SleepForever);
  const ProcessId id = ProcessId::Of(child.pid()).value();
  child.Signal(SIGSTOP);
  child.WaitStopped();
  EXPECT_TRUE(id.Alive());
  EXPECT_TRUE(id.Stopped());
}

TEST(Pidfd, KillsAndSeesTheEnd) {
  Child child = Child::Fork(SleepForever);
  const ProcessId id = ProcessId::Of(child.pid()).value();
  auto pidfd = Pidfd::Open(id);
  ASSERT_TRUE(pidfd.ok()) << pidfd.status().message();
  ASSERT_TRUE(pidfd->has_value());
  EXPECT_EQ((*pidfd)->id(), id);

  auto ended = (*pidfd)->WaitEnd(NowNs());
  ASSERT_TRUE(ended.ok());
  EXPECT_FALSE(ended.value());

  ASSERT_TRUE((*pidfd)->Signal(SIGKILL).ok());
  ended = (*pidfd)->WaitEnd(DeadlineIn(kWatchdogNs));
  ASSERT_TRUE(ended.ok());
  EXPECT_TRUE(ended.value());
  child.Wait();
  EXPECT_TRUE((*pidfd)->Signal(SIGKILL).ok()) << "a signal that comes too late is no error";
}

TEST(Pidfd, RefusesAnotherProcessWithTheSamePid) {
  ProcessId stale = ProcessId::Self();
  stale.start_time -= 1;
  auto pidfd = Pidfd::Open(stale);
  ASSERT_TRUE(pidfd.ok());
  EXPECT_FALSE(pidfd->has_value());
  EXPECT_TRUE(KillAndWait(stale, NowNs()).ok());  // and this test goes on
  EXPECT_EQ(Pidfd::Open({0, 0}).status().code(), Code::kArgumentInvalid);
}

TEST(Pidfd, KillAndWaitEndsAStoppedProcess) {
  Child child = Child::Fork(SleepForever);
  const ProcessId id = ProcessId::Of(child.pid()).value();
  child.Signal(SIGSTOP);
  child.WaitStopped();
  ASSERT_TRUE(KillAndWait(id, DeadlineIn(kWatchdogNs)).ok());
  EXPECT_FALSE(id.Alive());
  EXPECT_EQ(child.Wait(), 128 + SIGKILL);
}

}  // namespace
}  // namespace praas
