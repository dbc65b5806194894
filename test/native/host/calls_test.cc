// Invocations through a real host and real workers on threads, over every transport.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include "host/host_fixture.h"

namespace praas::test {
namespace {

class Calls : public ::testing::TestWithParam<const char*> {
 protected:
  TestProcess process_;
};

INSTANTIATE_TEST_SUITE_P(Transports, Calls, ::testing::Values("tcp", "shm"),
                         [](const auto& parameter) { return std::string(parameter.param); });

TEST_P(Calls, EchoOfEverySize) {
  HostRun host(process_);
  ASSERT_TRUE(host.status().ok()) << host.status().message();
  host.AddWorkers(1);
  Driver client = host.Client(GetParam());
  EXPECT_EQ(client->info().transport, GetParam()) << client->info().upgrade_reason;
  for (const size_t bytes : {0u, 1u, 4095u, 4096u, 4097u, 65'536u, 1u << 20, 8u << 20}) {
    const Bytes input = PatternOf(bytes);
    const Driver::Outcome outcome = client.Call(fn::kEcho, input);
    ASSERT_TRUE(outcome.status.ok()) << bytes << ": " << outcome.status.message();
    EXPECT_EQ(outcome.payload, input) << bytes;
  }
  const Driver::Outcome grown = client.Call(fn::kGrow, AsBytes("300000"));
  EXPECT_EQ(grown.payload, PatternOf(300'000));
  ExpectClean(client);
}

TEST_P(Calls, NamesAreResolved) {
  HostRun host(process_);
  host.AddWorkers(1);
  Driver client = host.Client(GetParam());
  const auto found = client->Resolve("grow", 0);
  const Driver::Outcome outcome = client.Wait(found);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.message();
  const Driver::Outcome missing = client.Wait(client->Resolve("growl", 0));
  EXPECT_EQ(missing.status.code(), Code::kFunctionUnknown);
  EXPECT_NE(missing.status.message().find("crash, echo"), std::string::npos) << missing.status.message();
  EXPECT_EQ(client.Call(fn::kFunctions, {}).status.code(), Code::kFunctionUnknown);
}

TEST_P(Calls, ErrorsOfFunctionsArrive) {
  HostRun host(process_);
  host.AddWorkers(1);
  Driver client = host.Client(GetParam());
  const Driver::Outcome outcome = client.Call(fn::kFail, AsBytes("{\"message\":\"no\"}"));
  EXPECT_EQ(outcome.status.code(), Code::kFunctionThrew);
  EXPECT_EQ(outcome.status.message(), "{\"message\":\"no\"}");
  ExpectClean(client);
}

TEST_P(Calls, ManyInFlightFromManyClients) {
  process_.assignment.calls = 16;  // far fewer than are submitted: back-pressure, not errors
  HostRun host(process_);
  host.AddWorkers(2);
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      Driver client = host.Client(GetParam());
      std::vector<Bytes> inputs;
      std::vector<uint64_t> calls;
      for (size_t i = 0; i < 60; ++i) inputs.push_back(PatternOf(i * 997 % 20'000 + static_cast<size_t>(t)));
      for (const Bytes& input : inputs) {
        auto call = client->Invoke(fn::kEcho, input, {}, 0, DeadlineIn(kWatchdogNs));
        ASSERT_TRUE(call.ok());
        calls.push_back(*call);
      }
      for (size_t i = 0; i < calls.size(); ++i) {
        const Driver::Outcome outcome = client.Wait(calls[i]);
        EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
        EXPECT_EQ(outcome.payload, inputs[i]);
      }
      EXPECT_EQ(client.repeated(), 0u);
    });
  }
  for (std::thread& thread : threads) thread.join();
  Driver client = host.Client("tcp");
  ExpectClean(client);
}

TEST_P(Calls, HotProcessesServeToo) {
  process_.assignment.hot_ms = 20;
  HostRun host(process_);
  host.AddWorkers(2);
  Driver client = host.Client(GetParam());
  for (int i = 0; i < 200; ++i) {
    const Bytes input = PatternOf(64);
    ASSERT_EQ(client.Call(fn::kEcho, input).payload, input);
  }
  ExpectClean(client);
}

TEST_P(Calls, AHotHostPollsForCallsThatComeByItAndForNoOthers) {
  process_.assignment.hot_ms = -1;
  HostRun host(process_);
  host.AddWorkers(1);
  Driver client = host.Client(GetParam());
  ASSERT_TRUE(client.Call(fn::kEcho, PatternOf(64)).status.ok());
  // Streams travel over the socket on every transport.
  const auto stream = client->OpenStream(fn::kStream, 0, DeadlineIn(50'000'000));
  ASSERT_TRUE(stream.ok());
  client.PollUntil([&] { return client.streams()[*stream].ended; });
  UniqueFd object(::shm_open(process_.assignment.segment.c_str(), O_RDWR | O_CLOEXEC, 0));
  auto segment = segment::Segment::Map(std::move(object), true);
  ASSERT_TRUE(segment.ok()) << segment.status().message();
  const auto asleep = [&] { return segment->participant(dispatch::kHostParticipant).sleeping.load() != 0; };
  if (GetParam() == std::string("shm")) {
    EXPECT_TRUE(Eventually(asleep));
    return;
  }
  for (int look = 0; look < 50; ++look, ::usleep(500)) ASSERT_FALSE(asleep());
}

TEST_P(Calls, DeadlinesAndCancellation) {
  process_.assignment.grace_ms = 60'000;  // its function ends by itself when it is cancelled
  HostRun host(process_);
  host.AddWorkers(1);
  Driver client = host.Client(GetParam());
  const Driver::Outcome late = client.Call(fn::kSleep, AsBytes("100000"), {}, DeadlineIn(30'000'000));
  EXPECT_EQ(late.status.code(), Code::kInvocationTimeout);

  // One runs, one is queued behind it: both can be cancelled.
  const auto running = client->Invoke(fn::kSleep, AsBytes("100000"), {}, 0, DeadlineIn(kWatchdogNs));
  const auto queued = client->Invoke(fn::kSleep, AsBytes("100000"), {}, 0, DeadlineIn(kWatchdogNs));
  ASSERT_TRUE(running.ok() && queued.ok());
  client->Cancel(*queued);
  EXPECT_EQ(client.Wait(*queued).status.code(), Code::kInvocationCancelled);
  client->Cancel(*running);
  (void)client.Wait(*running);  // the function had a say in how it ended
  ExpectClean(client);
}

TEST_P(Calls, NestedCallsGoThroughTheTable) {
  HostRun host(process_);
  host.AddWorkers(2);
  Driver client = host.Client(GetParam());
  for (const size_t bytes : {5u, 50'000u}) {
    const Bytes input = PatternOf(bytes);
    // A worker that has just answered counts as busy for some instructions more, and a synchronous call needs a free
    // one.
    ASSERT_TRUE(Eventually([&] { return StatsOf(client).find("\"running\":1") == std::string::npos; }));
    const Driver::Outcome outcome = client.Call(fn::kNested, input);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.message();
    EXPECT_EQ(outcome.payload, input);
  }
  ExpectClean(client);
}

TEST_P(Calls, ALeavingClientLeavesNothing) {
  HostRun host(process_);
  host.AddWorkers(1);
  Driver watcher = host.Client("tcp");
  {
    Driver client = host.Client(GetParam());
    const Bytes input = PatternOf(100'000);
    (void)client->Invoke(fn::kSleep, AsBytes("100000"), {}, 0, DeadlineIn(kWatchdogNs));
    for (int i = 0; i < 5; ++i) (void)client->Invoke(fn::kEcho, input, {}, 0, DeadlineIn(kWatchdogNs));
    client.Poll();
    EXPECT_TRUE(Eventually([&] {
      client.Poll();
      return StatsOf(watcher).find("\"callsInUse\":0,") == std::string::npos;
    }));
  }
  ExpectClean(watcher);
  EXPECT_TRUE(Eventually([&] { return StatsOf(watcher).find("\"windows\":0,") != std::string::npos; }));
}

TEST_P(Calls, TooLargeIsRefusedBeforeItIsSent) {
  process_.assignment.max_contiguous = 100'000;
  HostRun host(process_);
  host.AddWorkers(1);
  Driver client = host.Client(GetParam());
  const Bytes input = PatternOf(100'001);
  const auto call = client->Invoke(fn::kEcho, input, {}, 0, DeadlineIn(kWatchdogNs));
  EXPECT_EQ(call.ok() ? client.Wait(*call).status.code() : call.status().code(), Code::kPayloadTooLarge);
  const Driver::Outcome result = client.Call(fn::kGrow, AsBytes("100001"));
  EXPECT_EQ(result.status.code(), Code::kPayloadTooLarge);
  EXPECT_EQ(client.Call(fn::kGrow, AsBytes("100000")).payload, PatternOf(100'000));
  ExpectClean(client);
}

}  // namespace
}  // namespace praas::test
