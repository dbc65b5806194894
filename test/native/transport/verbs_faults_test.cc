// RDMA that goes wrong, over a real device with real hosts: every call ends, nobody else is harmed, and what can go on
// does so over TCP.
#include <gtest/gtest.h>

#include "support/rdma.h"

#if PRAAS_VERBS_HEADERS

#include <dirent.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <thread>

#include "support/child.h"
#include "support/verbs_hooks.h"
#include "transport/over_verbs.h"
#include "transport/verbs_transport.h"
#include "verbs/memory_budget.h"

// gcc asks for the one without a size, too, which stays the library's.
#pragma GCC diagnostic ignored "-Wsized-deallocation"
/// What is given back is empty from then on, in the host of these tests, too: who uses it nevertheless shall not find
/// what was there and go on.
void operator delete(void* memory, size_t bytes) noexcept {
  if (memory != nullptr) ::explicit_bzero(memory, bytes);
  ::operator delete(memory);
}

namespace praas::test {
namespace {

size_t OpenDescriptors() {
  DIR* const folder = ::opendir("/proc/self/fd");
  size_t count = 0;
  while (::readdir(folder) != nullptr) ++count;
  ::closedir(folder);
  return count;
}

/// Once what was closed by others is gone: the same for a while.
size_t SettledDescriptors() {
  constexpr int kLooks = 10;
  size_t count = OpenDescriptors();
  for (int same = 0; same < kLooks;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const size_t now = OpenDescriptors();
    same = now == count ? same + 1 : 0;
    count = now;
  }
  return count;
}

/// Output of a command.
std::string Shell(const std::string& command) {
  std::string text;
  FILE* const pipe = ::popen(command.c_str(), "r");
  std::array<char, 4096> part;
  while (std::fgets(part.data(), part.size(), pipe) != nullptr) text += part.data();
  ::pclose(pipe);
  return text;
}

bool IsGuest() { return std::getenv("RDMA_VM") != nullptr; }
/// Device and link, which nobody else uses in a guest of scripts/rdma-vm.
bool MayTakeAway() { return IsGuest() && ::geteuid() == 0; }
std::string NetworkInterface() {
  std::string name = Shell("cat /sys/class/infiniband/rxe0/parent");
  name.erase(name.find_last_not_of('\n') + 1);
  return name;
}

class VerbsFaults : public OverVerbs {
 protected:
  void SetUp() override {
    hooks_.emplace();
    OverVerbs::SetUp();
  }
  void TearDown() override {
    OverVerbs::TearDown();
    hooks_.reset();
  }

  std::optional<VerbsHooks> hooks_;
};

TEST_F(VerbsFaults, CallsInFlightOnABrokenQueuePairFailOrAreMadeAgain) {
  Driver client = Client();
  Driver other = Client();
  ASSERT_EQ(hooks_->pairs().size(), 4u) << "of the first client, its end at the host, and those of the second";
  const Bytes input = Pattern(10'000, 1);
  const uint64_t deadline = DeadlineIn(kWatchdogNs);
  const auto once = client->Invoke(fn::kSleep, AsBytes("300"), {}, 0, deadline);
  const auto again = client->Invoke(fn::kEcho, input, {}, protocol::kIdempotent, deadline);
  client.Poll();
  EXPECT_TRUE(client->ReadsInput(*again)) << "it may have to be sent once more";
  hooks_->Fail(hooks_->pairs()[0]);
  const Driver::Outcome lost = client.Wait(once);
  EXPECT_EQ(lost.status.code(), Code::kConnectionLost) << lost.status.message();
  EXPECT_NE(lost.status.message().find("status"), std::string::npos) << lost.status.message();
  const Driver::Outcome made = client.Wait(again);
  EXPECT_TRUE(made.status.ok()) << made.status.message();
  EXPECT_EQ(made.payload, input);
  ExpectWorks(client, "tcp", "RDMA");
  ExpectWorks(other, "verbs");
  EXPECT_TRUE(Eventually([&] { return hooks_->pairs().size() == 2; })) << "the host keeps its end of the broken one";
  EXPECT_EQ(client.repeated(), 0u);
  ExpectClean(other);
}

TEST_F(VerbsFaults, TheHostsEndBreaking) {
  Driver client = Client();
  hooks_->Fail(hooks_->pairs()[1]);
  const Bytes input = Pattern(100, 1);
  // Whoever notices first: the call fails or, made after the host has said so, goes over the socket.
  const Driver::Outcome outcome = client.Call(fn::kEcho, input);
  EXPECT_TRUE(outcome.status.ok() || outcome.status.code() == Code::kConnectionLost) << outcome.status.message();
  ExpectWorks(client, "tcp");
  Driver next = Client();
  ExpectWorks(next, "verbs");
}

TEST_F(VerbsFaults, AClientThatRestsWhenTheHostEndsRdmaIsAnsweredAtOnce) {
  Driver client = Client();
  hooks_->Report(hooks_->pairs()[1]->context, IBV_EVENT_DEVICE_FATAL);
  // What the host says is taken by a Poll that has nothing else to do, as an event loop makes it.
  pollfd said{client->socket_fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&said, 1, 60'000), 1);
  client.Poll();
  const Bytes input = Pattern(10, 1);
  EXPECT_EQ(client.Call(fn::kEcho, input).payload, input) << "a call that sleeps before it looks";
  EXPECT_EQ(client->info().transport, "tcp");
  EXPECT_TRUE(Eventually([&] { return hooks_->pairs().empty(); }));
}

TEST_F(VerbsFaults, BuffersOfABrokenConnectionStayUsable) {
  Driver client = Client();
  constexpr size_t kSize = 50'000;
  const auto input = client->Allocate(kSize);
  const auto output = client->Allocate(kSize);
  ASSERT_TRUE(input.ok() && output.ok());
  const Bytes pattern = Pattern(kSize, 3);
  std::copy(pattern.begin(), pattern.end(), input->data);
  EXPECT_EQ(client.Call(fn::kEcho, {input->data, kSize}, {output->data, kSize}).payload, pattern);
  hooks_->Fail(hooks_->pairs()[0]);
  client.Wait(client->Invoke(fn::kEcho, {}, {}, protocol::kIdempotent, DeadlineIn(kWatchdogNs)));
  std::fill_n(output->data, kSize, std::byte{0});
  EXPECT_EQ(client.Call(fn::kEcho, {input->data, kSize}, {output->data, kSize}).payload, pattern);
  EXPECT_TRUE(std::equal(pattern.begin(), pattern.end(), output->data));
  EXPECT_EQ(client->info().transport, "tcp");
  client->Release(*input);
  client->Release(*output);
}

TEST_F(VerbsFaults, FatalEventsOfAClientsDevice) {
  for (const ibv_event_type type : {IBV_EVENT_DEVICE_FATAL, IBV_EVENT_PORT_ERR}) {
    Driver client = Client();
    const auto call = client->Invoke(fn::kSleep, AsBytes("60000"), {}, 0, DeadlineIn(kWatchdogNs));
    client.Poll();
    hooks_->Report(hooks_->pairs()[0]->context, type);
    EXPECT_EQ(client.Wait(call).status.code(), Code::kConnectionLost);
    ExpectWorks(client, "tcp", type == IBV_EVENT_PORT_ERR ? "port has gone down" : "device has failed");
    client->Close();
    ASSERT_TRUE(Eventually([&] { return hooks_->pairs().empty(); }));
  }
}

TEST_F(VerbsFaults, AnotherPortOfTheDeviceIsOfNoConcern) {
  Driver client = Client();
  hooks_->Report(hooks_->pairs()[0]->context, IBV_EVENT_PORT_ERR, nullptr, 2);
  hooks_->Report(hooks_->pairs()[1]->context, IBV_EVENT_PORT_ERR, nullptr, 2);
  for (int i = 0; i < 3; ++i) ExpectWorks(client, "verbs");
}

TEST_F(VerbsFaults, FatalEventsOfTheHostsDevice) {
  Driver client = Client();
  const auto call = client->Invoke(fn::kSleep, AsBytes("60000"), {}, 0, DeadlineIn(kWatchdogNs));
  client.Poll();
  hooks_->Report(hooks_->pairs()[1]->context, IBV_EVENT_DEVICE_FATAL);
  EXPECT_EQ(client.Wait(call).status.code(), Code::kConnectionLost);
  ExpectWorks(client, "tcp", "(event ");
  Driver next = Client();  // the host opens the device again
  ExpectWorks(next, "verbs");
}

TEST_F(VerbsFaults, AnEventOfOneQueuePairEndsThatOneOnly) {
  Driver client = Client();
  Driver other = Client();
  hooks_->Report(hooks_->pairs()[1]->context, IBV_EVENT_QP_FATAL, hooks_->pairs()[1]);
  client.PollUntil([&] { return client->info().transport == "tcp"; });
  ExpectWorks(client, "tcp", "(event ");
  ExpectWorks(other, "verbs");
}

TEST_F(VerbsFaults, CompletionsThatAreLostWhileAConnectionIsRemovedBreakTheOthers) {
  Driver leaving = Client();
  Driver other = Client();
  ExpectWorks(leaving, "verbs");
  ExpectWorks(other, "verbs");
  hooks_->LoseCompletionsAfter(hooks_->pairs()[1]);
  leaving->Close();
  other.PollUntil([&] { return other->info().transport == "tcp"; });
  ExpectWorks(other, "tcp", "a completion queue is lost");
  Driver next = Client();  // the host opens the device again
  ExpectWorks(next, "verbs");
}

TEST_F(VerbsFaults, CompletionsThatAreLostWithTheLastConnectionHarmNobody) {
  Driver leaving = Client();
  ExpectWorks(leaving, "verbs");
  hooks_->LoseCompletionsAfter(hooks_->pairs()[1]);
  leaving->Close();
  ASSERT_TRUE(Eventually([&] { return hooks_->pairs().empty(); }));
  Driver next = Client();
  ExpectWorks(next, "verbs");
}

TEST_F(VerbsFaults, AClientKilledAmidItsTransfersLeavesNothing) {
  Driver other = Client();
  const uint16_t port = host_->port();
  for (int round = 0; round < 3; ++round) {
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    auto child = Child::Fork([&] {
      ::setenv("PRAAS_IB_MEMORY", "8000000", 1);
      client::ConnectOptions options = OptionsFor(port);
      options.transport = "verbs";
      auto connection = client::Connection::Connect(options);
      if (!connection.ok()) return 1;
      Driver client(std::move(*connection));
      const Bytes input = Pattern(1'000'000, 1);
      for (int i = 0; i < 8; ++i) (void)client->Invoke(fn::kEcho, input, {}, 0, DeadlineIn(kWatchdogNs));
      client.Poll();
      if (::write(ready[1], "r", 1) != 1) return 2;
      while (true) client.Poll();
    });
    char byte = 0;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(20 * round));
    EXPECT_EQ(child.Kill(), 128 + SIGKILL);
    ::close(ready[0]);
    ::close(ready[1]);
    ExpectWorks(other, "verbs");
  }
  EXPECT_TRUE(Eventually([&] { return StatsOf(other).find("\"windows\":1") != std::string::npos; })) << StatsOf(other);
  ExpectClean(other);
}

TEST_F(VerbsFaults, ADrainWaitsForResultsOnTheirWay) {
  Driver client = Client();
  const auto call = client->Invoke(fn::kGrow, AsBytes("4000000"), {}, 0, DeadlineIn(kWatchdogNs));
  client.Poll();
  ASSERT_TRUE(
      Eventually([&] { return client.Poll() == 0 && StatsOf(client).find("\"callsInUse\":0,") != std::string::npos; }));
  (*host_)->Drain(60'000);
  EXPECT_EQ(client.Wait(call).payload, PatternOf(4'000'000));
}

TEST_F(VerbsFaults, WithoutRegisteredMemoryPayloadsComeInPiecesAndThenOverTcp) {
  verbs::MemoryBudget& budget = verbs::MemoryBudget::OfThisProcess();
  Driver client = Client();
  const uint64_t rest = budget.left();
  ASSERT_TRUE(budget.Take(rest));
  const Bytes input = Pattern(200'000, 7);
  Bytes output(250'000);
  for (int i = 0; i < 2; ++i) {
    const Driver::Outcome outcome = client.Call(fn::kEcho, input, output);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
    EXPECT_EQ(outcome.payload, input);
  }
  EXPECT_EQ(client->info().transport, "verbs");

  client::ConnectOptions options = OptionsFor(host_->port());
  options.transport = "auto";
  EXPECT_EQ(client::Connection::Connect([&] {
              client::ConnectOptions only = options;
              only.transport = "verbs";
              return only;
            }())
                .status()
                .code(),
            Code::kUpgradeFailed);
  budget.Give(rest);
  ExpectWorks(client, "verbs");
}

TEST_F(VerbsFaults, ManyConnectionsLeaveNothing) {
  constexpr int kConnections = 1000;
  const auto resources = [] { return IsGuest() ? Shell("rdma resource show") : std::string(); };
  const auto connect = [&] {
    Driver client = Client();
    EXPECT_TRUE(client.Call(fn::kEcho, AsBytes("hello")).status.ok());
  };
  Driver other = Client();
  connect();  // what is made once is made
  ASSERT_TRUE(Eventually([&] { return hooks_->pairs().size() == 2; }));
  ASSERT_TRUE(Eventually([&] { return StatsOf(other).find("\"windows\":1") != std::string::npos; }));
  const size_t descriptors = SettledDescriptors();
  const std::string before = resources();
  const uint64_t budget = verbs::MemoryBudget::OfThisProcess().left();
  for (int i = 0; i < kConnections && !HasFailure(); ++i) connect();
  EXPECT_TRUE(Eventually([&] { return hooks_->pairs().size() == 2; }));
  EXPECT_TRUE(Eventually([&] { return OpenDescriptors() == descriptors; })) << descriptors << ", " << OpenDescriptors();
  EXPECT_TRUE(Eventually([&] { return resources() == before; })) << before << resources();
  EXPECT_EQ(verbs::MemoryBudget::OfThisProcess().left(), budget);
  EXPECT_TRUE(Eventually([&] { return StatsOf(other).find("\"windows\":1") != std::string::npos; })) << StatsOf(other);
}

TEST_F(VerbsFaults, ALinkThatGoesDownAndComesBack) {
  if (!MayTakeAway()) GTEST_SKIP() << "only as root in a guest of scripts/rdma-vm may a test take the link down";
  Driver client = Client();
  const auto call = client->Invoke(fn::kSleep, AsBytes("60000"), {}, 0, DeadlineIn(kWatchdogNs));
  client.Poll();
  Shell("ip link set " + NetworkInterface() + " down");
  EXPECT_EQ(client.Wait(call).status.code(), Code::kConnectionLost);
  ExpectWorks(client, "tcp");
  client::ConnectOptions options = OptionsFor(host_->port());
  options.transport = "verbs";
  const Status refused = client::Connection::Connect(options).status();
  EXPECT_EQ(refused.code(), Code::kUpgradeFailed) << refused.message();
  EXPECT_NE(refused.message().find("not active"), std::string::npos) << refused.message();
  Shell("ip link set " + NetworkInterface() + " up");
  ASSERT_TRUE(Eventually([&] { return client::Connection::Connect(options).ok(); }));
  Driver again = Client();
  ExpectWorks(again, "verbs");
}

TEST_F(VerbsFaults, ADeviceThatIsRemovedUnderLoad) {
  if (!MayTakeAway()) GTEST_SKIP() << "only as root in a guest of scripts/rdma-vm may a test remove the device";
  const std::string interface = NetworkInterface();
  {
    Driver client = Client();
    // Not a forked child, which would keep the device open itself.
    std::atomic<int> removed{-1};
    std::thread removal([&] { removed = std::system("rdma link delete rxe0"); });
    client::ConnectOptions options = OptionsFor(host_->port());
    options.transport = "verbs";
    EXPECT_TRUE(Eventually([&] {
      return client::Connection::Connect(options).status().code() == Code::kUpgradeFailed;
    })) << "new connections find no device";
    // Those that were there go on, or over TCP, but go on.
    for (int i = 0; i < 20; ++i) {
      const Bytes input = Pattern(static_cast<size_t>(i) * 1000, 1);
      const auto call = client->Invoke(fn::kEcho, input, {}, protocol::kIdempotent, DeadlineIn(kWatchdogNs));
      EXPECT_EQ(client.Wait(call).payload, input);
    }
    client->Close();
    host_.reset();
    removal.join();
    EXPECT_EQ(removed, 0) << "nobody holds the device any more";
  }
  Shell("rdma link add rxe0 type rxe netdev " + interface);
  ASSERT_TRUE(Eventually([] { return NoRdmaDevice().empty(); }));
}

}  // namespace
}  // namespace praas::test

#endif
