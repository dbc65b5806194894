// The executable of a host with its agent: how it starts and ends, and what it leaves to the next when it is killed.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>

#include "base/base64url.h"
#include "host/host_fixture.h"
#include "host/worker_processes.h"
#include "protocol/agent_line.h"
#include "support/child.h"

namespace praas::test {
namespace {

/// praas-host as an agent runs it.
class Executable {
 public:
  /// In this process group, unless 0; `joined` is called when it is there, before it is told what to serve.
  explicit Executable(const host::Assignment& assignment, pid_t group = 0, const std::function<void()>& joined = {})
      : child_(Start(&control_, group)) {
    if (group != 0) EXPECT_TRUE(Eventually([&] { return ::getpgid(child_.pid()) == group; }));
    if (joined) joined();
    Say("assign", {{"process", assignment.process},
                   {"segment", assignment.segment},
                   {"queue", assignment.queue},
                   {"key", ToBase64Url(std::as_bytes(std::span(assignment.key)))},
                   {"socket", assignment.socket},
                   {"log", assignment.log},
                   {"objects", assignment.objects},
                   {"memory", std::to_string(assignment.memory_bytes)},
                   {"pool", std::to_string(assignment.pool_bytes)},
                   {"calls", std::to_string(assignment.calls)},
                   {"workers", std::to_string(assignment.workers)}});
  }

  void Say(std::string_view verb, const std::vector<std::pair<std::string_view, std::string>>& values) {
    const std::string line = protocol::FormatAgentLine(verb, values);
    EXPECT_EQ(::send(control_.get(), line.data(), line.size(), MSG_NOSIGNAL), static_cast<ssize_t>(line.size()));
  }
  /// The next line with this verb (and state).
  protocol::AgentLine Await(const std::string& verb, const std::string& state = {}) {
    while (true) {
      auto line = lines_.Next();
      if (line.ok() && line->has_value()) {
        auto parsed = protocol::ParseAgentLine(**line);
        EXPECT_TRUE(parsed.ok()) << **line;
        if (parsed.ok() && parsed->verb == verb && (state.empty() || parsed->Text("state") == state)) return *parsed;
        continue;
      }
      char buffer[4096];
      pollfd entry{control_.get(), POLLIN, 0};
      const ssize_t got = ::poll(&entry, 1, static_cast<int>(kWatchdogNs / 1'000'000)) > 0
                              ? ::recv(control_.get(), buffer, sizeof buffer, 0)
                              : -1;
      if (got <= 0) {
        ADD_FAILURE() << "the host never said " << verb;
        return {};
      }
      lines_.Add({buffer, static_cast<size_t>(got)});
    }
  }
  [[nodiscard]] Driver Client(const std::string& transport = "tcp") {
    client::ConnectOptions options = OptionsFor(port_);
    options.transport = transport;
    options.window_bytes = 64u << 20;
    return Connect(options);
  }
  void AwaitReady() {
    const protocol::AgentLine ready = Await("ready");
    port_ = static_cast<uint16_t>(ready.Number("port", 0, 0, 65535).value());
    attached_ = ready.Text("attached") == "1";
    worker_pid_ = static_cast<pid_t>(Await("worker", "ready").Number("pid", 0, 0, INT32_MAX).value());
  }
  [[nodiscard]] bool attached() const { return attached_; }
  [[nodiscard]] pid_t worker_pid() const { return worker_pid_; }
  void LeaveAgent() { control_.Reset(); }
  Child& child() { return child_; }

 private:
  static Child Start(UniqueFd* control, pid_t group) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    control->Reset(ends[0]);
    UniqueFd theirs(ends[1]);
    const std::string number = std::to_string(theirs.get());
    return Child::Fork([&] {
      ::fcntl(theirs.get(), F_SETFD, 0);
      if (group != 0 && ::setpgid(0, group) != 0) return 126;
      ::execl(PRAAS_HOST_PATH, PRAAS_HOST_PATH, "--control-fd", number.c_str(), "--", PRAAS_TEST_WORKER, nullptr);
      return 127;
    });
  }

  UniqueFd control_;
  Child child_;
  protocol::LineSplitter lines_;
  uint16_t port_ = 0;
  bool attached_ = false;
  pid_t worker_pid_ = 0;
};

class HostExecutable : public ::testing::Test {
 protected:
  TestProcess process_;
};

TEST_F(HostExecutable, AKilledHostLeavesItsStateToTheNext) {
  Bytes payload;
  {
    Executable first(process_.assignment);
    first.AwaitReady();
    EXPECT_FALSE(first.attached());
    Driver client = first.Client("shm");
    protocol::StateRequest set{.op = protocol::StateOp::kSet, .key = "kept"};
    const Bytes value = PatternOf(50'000);
    set.data = value;
    ASSERT_TRUE(client.Wait(client::SubmitState(*client, set, DeadlineIn(kWatchdogNs))).status.ok());
    // Killed with calls in every stage.
    const auto running = client->Invoke(fn::kSleep, AsBytes("100000"), {}, 0, DeadlineIn(kWatchdogNs));
    const auto queued = client->Invoke(fn::kEcho, value, {}, 0, DeadlineIn(kWatchdogNs));
    client.Poll();
    const pid_t worker = first.worker_pid();
    EXPECT_EQ(first.child().Kill(), 128 + SIGKILL);
    for (const auto& call : {running, queued}) EXPECT_EQ(client.Wait(call).status.code(), Code::kHostLost);
    EXPECT_TRUE(Eventually([&] { return Gone(worker); }));  // workers end with their host
  }
  Executable second(process_.assignment);
  second.AwaitReady();
  EXPECT_TRUE(second.attached());
  Driver client = second.Client();
  protocol::StateRequest get{.op = protocol::StateOp::kGet, .key = "kept"};
  Driver::Outcome outcome = client.Wait(client::SubmitState(*client, get, DeadlineIn(kWatchdogNs)));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.message();
  EXPECT_TRUE(std::ranges::equal(protocol::DecodeStateReply(get.op, outcome.payload)->data, PatternOf(50'000)));
  EXPECT_EQ(client.Call(fn::kEcho, AsBytes("again")).payload, Bytes(AsBytes("again").begin(), AsBytes("again").end()));
  ExpectClean(client);
  second.Say("stop", {});
  EXPECT_EQ(second.child().Wait(), 0);
}

TEST_F(HostExecutable, WhatFunctionsHaveForkedEndsWithTheHostOrIsEndedByTheNext) {
  pid_t worker = 0;
  pid_t forked = 0;
  {
    Executable killed(process_.assignment);
    killed.AwaitReady();
    Driver client = killed.Client();
    worker = killed.worker_pid();
    forked = PidOf(client, fn::kFork);
    killed.child().Kill();
    ASSERT_TRUE(Eventually([&] { return Gone(worker); }));
    EXPECT_FALSE(Gone(forked));
  }
  {
    Executable next(process_.assignment);
    next.AwaitReady();
    EXPECT_TRUE(Eventually([&] { return Gone(forked); }));
    Driver client = next.Client();
    worker = next.worker_pid();
    forked = PidOf(client, fn::kFork);
    next.LeaveAgent();
    EXPECT_EQ(next.child().Wait(), 0);
    EXPECT_TRUE(Eventually([&] { return Gone(worker) && Gone(forked); }));
  }
}

TEST_F(HostExecutable, AStrangersGroupWithTheNumberOfAWorkerIsLeftAlone) {
  // A daemon: what it forked goes on in its group and session, and it has ended itself.
  int pids[2];
  ASSERT_EQ(::pipe2(pids, O_CLOEXEC), 0);
  Child daemon = Child::Fork([&] {
    ::setsid();
    const pid_t child = ::fork();
    while (child == 0) ::pause();
    return ::write(pids[1], &child, sizeof child) == sizeof child ? 0 : 1;
  });
  const pid_t group = daemon.pid();
  ASSERT_EQ(daemon.Wait(), 0);
  pid_t stranger = 0;
  ASSERT_EQ(::read(pids[0], &stranger, sizeof stranger), static_cast<ssize_t>(sizeof stranger));
  for (const int end : pids) ::close(end);
  {
    Executable killed(process_.assignment);
    killed.AwaitReady();
    auto segment = segment::Segment::Open(process_.assignment.segment, true);
    ASSERT_TRUE(segment.ok()) << segment.status().message();
    segment->participant(1).pid.store(group);
    killed.child().Kill();
  }
  Executable next(process_.assignment);
  next.AwaitReady();
  EXPECT_FALSE(Gone(stranger));
  ::kill(stranger, SIGKILL);
  next.Say("stop", {});
  EXPECT_EQ(next.child().Wait(), 0);
}

TEST_F(HostExecutable, AHostDoesNotEndItsOwnGroupWhateverARecordSays) {
  // As of an agent that was started by a script, which may have ended, and has the pid of a worker of long ago.
  for (const bool there : {true, false}) {
    SCOPED_TRACE(there);
    Child script = Child::Fork([] { return ::pause(); });
    const pid_t group = script.pid();
    ASSERT_EQ(::setpgid(group, group), 0);
    {
      Executable killed(process_.assignment);
      killed.AwaitReady();
      auto segment = segment::Segment::Open(process_.assignment.segment, true);
      ASSERT_TRUE(segment.ok()) << segment.status().message();
      segment->participant(1).pid.store(group);
      segment->participant(1).pid_start_time = ProcessId::Of(group)->start_time;
      killed.child().Kill();
    }
    Executable next(process_.assignment, group, [&] {
      if (!there) script.Kill();
    });
    next.AwaitReady();
    EXPECT_EQ(::getpgid(next.child().pid()), group);
    EXPECT_EQ(ProcessId::Of(group).has_value(), there);
    next.Say("stop", {});
    EXPECT_EQ(next.child().Wait(), 0);
  }
}

TEST_F(HostExecutable, TheAgentsEndIsTheHosts) {
  Executable host(process_.assignment);
  host.AwaitReady();
  EXPECT_TRUE(TestProcess::Exists(process_.assignment.socket));
  const std::string objects = process_.Read(process_.assignment.objects);
  EXPECT_EQ(objects.find("host " + std::to_string(host.child().pid()) + " "), 0u) << objects;
  EXPECT_NE(objects.find("\nshm " + process_.assignment.segment + "\n"), std::string::npos) << objects;
  EXPECT_NE(objects.find("\nmq " + process_.assignment.queue + "\n"), std::string::npos) << objects;
  EXPECT_NE(objects.find("\nsocket " + process_.assignment.socket + "\n"), std::string::npos) << objects;
  host.LeaveAgent();
  EXPECT_EQ(host.child().Wait(), 0);
  EXPECT_TRUE(TestProcess::Exists("/dev/shm" + process_.assignment.segment));
  EXPECT_FALSE(TestProcess::Exists(process_.assignment.socket));
  EXPECT_TRUE(Eventually([&] { return Gone(host.worker_pid()); }));
}

TEST_F(HostExecutable, TerminationDrains) {
  Executable host(process_.assignment);
  host.AwaitReady();
  Driver client = host.Client();
  const auto running = client->Invoke(fn::kSleep, AsBytes("200"), {}, 0, DeadlineIn(kWatchdogNs));
  client.Poll();
  ASSERT_TRUE(Eventually([&] { return StatsOf(client).find("\"running\":1") != std::string::npos; }));
  host.child().Signal(SIGTERM);
  EXPECT_TRUE(client.Wait(running).status.ok());
  (void)host.Await("drained");
  EXPECT_EQ(host.child().Wait(), 0);
}

TEST_F(HostExecutable, ABadAssignmentIsAnswered) {
  process_.assignment.segment = "no-slash";
  Executable host(process_.assignment);
  const protocol::AgentLine failed = host.Await("failed");
  EXPECT_EQ(failed.Text("code"), "ERR_ARGUMENT_INVALID");
  host.Say("stop", {});
  EXPECT_EQ(host.child().Wait(), 0);
  process_.assignment.segment = "/none";
}
}  // namespace
}  // namespace praas::test
