// Many clients at a time, and clients that take nothing.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <deque>
#include <filesystem>

#include "host/host_fixture.h"
#include "host/raw_client.h"
#include "host/worker_processes.h"
#include "support/child.h"

namespace praas::test {
namespace {

using protocol::FrameType;

constexpr size_t kCrowd = 10'000;
/// Besides its connections each side has few.
constexpr rlim_t kDescriptors = kCrowd + 500;

size_t Descriptors() {
  const std::filesystem::directory_iterator open("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(open), end(open)));
}

protocol::Frame Call(uint64_t call) { return {.type = FrameType::kCall, .call = call, .function = fn::kEcho}; }

/// One call of a client that is connected.
bool Echoes(RawClient& client, uint64_t call) {
  client.Send(Call(call), AsBytes("hello"));
  Bytes payload;
  const protocol::Frame reply = client.ReadFrame(&payload);
  return reply.type == FrameType::kReply && reply.code == 0 && reply.call == call && AsText(payload) == "hello";
}

/// Connects, calls twice over each connection, and stays until it is killed. Says so after each round.
int BeACrowd(uint16_t port, const Signpost& called) {
  std::deque<RawClient> clients;
  for (size_t i = 0; i < kCrowd; ++i) {
    RawClient& client = clients.emplace_back(port);
    client.Hello("p", TokenFor(protocol::kVerbInvoke));
    if (client.ReadFrame().type != FrameType::kWelcome) return 1;
  }
  for (uint64_t round = 1; round <= 2; ++round) {
    for (RawClient& client : clients) {
      if (!Echoes(client, round)) return 2;
    }
    called.Set();
  }
  ::pause();
  return 0;
}

TEST(Crowds, TenThousandConnectionsAreServedAndLeaveNothing) {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_max < kDescriptors) {
    GTEST_SKIP() << "RLIMIT_NOFILE is " << limit.rlim_max << " here, and " << kDescriptors << " are needed";
  }
  const rlimit enough{std::max(limit.rlim_cur, kDescriptors), limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &enough), 0);

  TestProcess process;
  // Before there are threads; the port comes later.
  int port_pipe[2];
  ASSERT_EQ(::pipe2(port_pipe, O_CLOEXEC), 0);
  Signpost called;
  Child crowd = Child::Fork([&] {
    uint16_t port = 0;
    if (::read(port_pipe[0], &port, sizeof port) != sizeof port) return 3;
    return BeACrowd(port, called);
  });
  // A worker of its own: what is counted here is the host's and the one client's.
  HostRun host(process, kWorkerCommand);
  ASSERT_TRUE(host.AwaitReady(1));
  Driver other = host.Client();
  const size_t before = Descriptors();
  const uint16_t port = host.port();
  ASSERT_EQ(::write(port_pipe[1], &port, sizeof port), static_cast<ssize_t>(sizeof port));
  for (int round = 0; round < 2; ++round) called.Await();
  EXPECT_TRUE(crowd.Running());
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(other.Call(fn::kEcho, AsBytes("x")).status.ok());
  EXPECT_EQ(Descriptors(), before + kCrowd);
  crowd.Kill();
  EXPECT_TRUE(Eventually([&] { return Descriptors() == before; })) << Descriptors() << " instead of " << before;
  EXPECT_TRUE(other.Call(fn::kEcho, AsBytes("x")).status.ok());
  ExpectClean(other);
  ::close(port_pipe[0]);
  ::close(port_pipe[1]);
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

TEST(Crowds, StrangersKeepNobodyOut) {
  constexpr size_t kMost = 256;
  TestProcess process;
  HostRun host(process);
  host.AddWorkers(1);
  std::deque<RawClient> strangers;
  for (size_t i = 0; i < kMost; ++i) strangers.emplace_back(host.port());
  strangers.front().Send(AsBytes("PRAS"));
  RawClient late(host.port());
  EXPECT_EQ(strangers.front().ReadReject(), Code::kConnectionRefused);
  late.Hello("p", TokenFor(protocol::kVerbInvoke));
  EXPECT_EQ(late.ReadFrame().type, FrameType::kWelcome);
  // Who was let in does not count any more, and is not who goes.
  for (size_t i = 0; i < 2 * kMost; ++i) {
    strangers.pop_front();
    strangers.emplace_back(host.port());
    ASSERT_TRUE(Echoes(late, i + 1));
  }
  strangers.back().Hello("p", TokenFor(protocol::kVerbInvoke));
  EXPECT_EQ(strangers.back().ReadFrame().type, FrameType::kWelcome);
}

TEST(Crowds, AClientThatNeverReadsHoldsUpNobody) {
  constexpr size_t kInput = 256u << 10;
  constexpr uint64_t kMost = 256u << 20;  // far more than sockets and queues hold
  TestProcess process;
  HostRun host(process);
  host.AddWorkers(1);
  Driver other = host.Client();
  {
    RawClient deaf(host.port());
    deaf.Hello("p", TokenFor(protocol::kVerbInvoke));
    uint64_t calls = 0;
    uint64_t sent = 0;
    Bytes rest;
    const auto send = [&] {
      size_t moved = 0;
      for (size_t now = 1; now > 0; moved += now) {
        if (rest.empty()) {
          protocol::Frame frame = Call(++calls);
          frame.payload_bytes = kInput;
          rest.resize(protocol::kHeaderBytes + kInput);
          protocol::EncodeHeader(frame, std::span(rest).first<protocol::kHeaderBytes>());
        }
        now = deaf.SendSome(rest);
        rest.erase(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(now));
      }
      sent += moved;
      return moved;
    };
    // Until the host takes no more of it while it does much else.
    do {
      for (int i = 0; i < 50; ++i) ASSERT_TRUE(other.Call(fn::kEcho, AsBytes("x")).status.ok());
    } while (send() > 0 && sent < kMost);
    EXPECT_LT(sent, kMost) << "the host takes whatever comes";
    const Bytes large = PatternOf(4u << 20);
    for (int i = 0; i < 10; ++i) {
      const Driver::Outcome outcome = other.Call(fn::kEcho, large);
      ASSERT_TRUE(outcome.status.ok()) << outcome.status.message();
      EXPECT_EQ(outcome.payload, large);
    }
  }
  ExpectClean(other);
}

}  // namespace
}  // namespace praas::test
