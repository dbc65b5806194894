// What a host makes of clients that are slow, wrong, silent or gone, and state and streams of those that are none.

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <deque>
#include <optional>

#include "host/host_fixture.h"
#include "host/raw_client.h"
#include "protocol/messages.h"

namespace praas::test {
namespace {

using protocol::Frame;
using protocol::FrameType;

class Sessions : public ::testing::Test {
 protected:
  TestProcess process_;
};

TEST_F(Sessions, AnotherVersionIsTold) {
  HostRun host(process_);
  RawClient client(host.port());
  std::array<std::byte, protocol::kHeaderBytes> header;
  protocol::EncodeHeader({.type = FrameType::kHello}, header);
  header[4] = std::byte{99};
  client.Send(header);
  EXPECT_EQ(client.ReadReject(), Code::kProtocolVersion);
}

TEST_F(Sessions, ListsItsLeases) {
  HostRun host(process_);
  Driver client = Connect(OptionsFor(host.port()));
  const Driver::Outcome leases = client.Wait(client->Request(
      FrameType::kAdmin, static_cast<uint16_t>(protocol::AdminOp::kLeases), {}, {}, DeadlineIn(kWatchdogNs)));
  EXPECT_TRUE(leases.status.ok()) << leases.status.message();
  EXPECT_NE(AsText(leases.payload).find("\"leases\":[]"), std::string::npos) << AsText(leases.payload);
}

TEST_F(Sessions, NonsenseIsRefused) {
  HostRun host(process_);
  {
    RawClient client(host.port());
    client.Send(AsBytes("GET / HTTP/1.1\r\nHost: somewhere\r\nAccept: everything there is, please\r\n\r\n"));
    EXPECT_EQ(client.ReadReject(), Code::kProtocolInvalid);
  }
  {
    RawClient client(host.port());  // a call before the hello
    client.Send({.type = FrameType::kCall, .call = 1}, {});
    EXPECT_EQ(client.ReadReject(), Code::kProtocolInvalid);
  }
  {
    RawClient client(host.port());  // a hello that is none
    client.Send({.type = FrameType::kHello}, AsBytes("hello"));
    EXPECT_EQ(client.ReadReject(), Code::kProtocolInvalid);
  }
}

TEST_F(Sessions, SilentAndSlowClientsAreSentAway) {
  HostRun host(process_);
  RawClient silent(host.port());
  RawClient slow(host.port());
  slow.Send(AsBytes("PRAS"));
  EXPECT_EQ(silent.ReadReject(), Code::kConnectionTimeout);
  EXPECT_EQ(slow.ReadReject(), Code::kConnectionTimeout);
}

TEST_F(Sessions, AClientThatStopsWithinAPayloadLeavesNothing) {
  HostRun host(process_);
  host.AddWorkers(1);
  Driver watcher = host.Client();
  {
    RawClient client(host.port());
    client.Hello("p", TokenFor(protocol::kAllVerbs));
    client.SendHeader({.type = FrameType::kCall, .call = 1, .function = fn::kEcho, .payload_bytes = 100'000});
    client.Send(PatternOf(50'000));
    EXPECT_TRUE(Eventually([&] { return StatsOf(watcher).find("\"callsInUse\":1,") != std::string::npos; }))
        << "its call is not in the table";
  }
  ExpectClean(watcher);
}

TEST_F(Sessions, APayloadThatNeverEndsMissesItsDeadline) {
  HostRun host(process_);
  host.AddWorkers(1);
  Driver watcher = host.Client();
  RawClient client(host.port());
  client.Hello("p", TokenFor(protocol::kAllVerbs));
  client.SendHeader(
      {.type = FrameType::kCall, .call = 1, .function = fn::kEcho, .payload_bytes = 100'000, .deadline_us = 20'000});
  client.Send(PatternOf(10));
  ExpectClean(watcher);  // its entry and its block come back although the client is still there
}

/// The beginning of a state request that sets a value.
Frame SetFrame(uint64_t bytes, uint64_t deadline_us) {
  return {.type = FrameType::kState,
          .code = static_cast<uint16_t>(protocol::StateOp::kSet),
          .call = 1,
          .payload_bytes = bytes,
          .deadline_us = deadline_us};
}

TEST_F(Sessions, AStateRequestThatNeverEndsMissesItsDeadline) {
  HostRun host(process_);
  RawClient client(host.port());
  client.Hello("p", TokenFor(protocol::kAllVerbs));
  ASSERT_EQ(client.ReadFrame().type, FrameType::kWelcome);
  client.SendHeader(SetFrame(100'000, 20'000));
  client.Send(PatternOf(10));
  const Frame reply = client.ReadFrame();
  EXPECT_EQ(reply.type, FrameType::kStateReply);
  EXPECT_EQ(reply.call, 1u);
  EXPECT_EQ(static_cast<Code>(reply.code), Code::kInvocationTimeout);
  client.Send(PatternOf(100'000 - 10));  // too late, and not taken for anything else
  client.Send({.type = FrameType::kPing}, {});
  EXPECT_EQ(client.ReadFrame().type, FrameType::kPong);
}

size_t ResidentBytes() {
  size_t all = 0;
  size_t resident = 0;
  FILE* file = std::fopen("/proc/self/statm", "r");
  EXPECT_EQ(std::fscanf(file, "%zu %zu", &all, &resident), 2);
  std::fclose(file);
  return resident * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

TEST_F(Sessions, AStateRequestTakesMemoryAsItArrives) {
  constexpr size_t kClients = 32;
  HostRun host(process_);
  std::deque<RawClient> clients;
  for (size_t i = 0; i < kClients; ++i) {
    clients.emplace_back(host.port()).Hello("p", TokenFor(protocol::kAllVerbs));
    ASSERT_EQ(clients.back().ReadFrame().type, FrameType::kWelcome);
  }
  const size_t before = ResidentBytes();
  for (RawClient& client : clients) {
    // Both in one segment: when the host answers the ping it has seen the header.
    std::array<std::byte, 2 * protocol::kHeaderBytes> bytes;
    protocol::EncodeHeader({.type = FrameType::kPing}, std::span(bytes).first<protocol::kHeaderBytes>());
    protocol::EncodeHeader(SetFrame(process_.assignment.max_contiguous, 0),
                           std::span(bytes).last<protocol::kHeaderBytes>());
    client.Send(bytes);
    EXPECT_EQ(client.ReadFrame().type, FrameType::kPong);
  }
  EXPECT_LT(ResidentBytes(), before + kClients * process_.assignment.max_contiguous / 4);
}

// Sanitizers reserve more address space than a limit may leave.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_F(Sessions, AStateRequestThereIsNoMemoryForIsRefused) {
  process_.assignment.max_contiguous = protocol::kMaxPayload;
  HostRun host(process_);
  RawClient client(host.port());
  client.Hello("p", TokenFor(protocol::kAllVerbs));
  ASSERT_EQ(client.ReadFrame().type, FrameType::kWelcome);
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_AS, &limit), 0);
  const rlimit little{1u << 30, limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_AS, &little), 0);
  client.SendHeader(SetFrame(protocol::kMaxPayload, 0));
  const Frame reply = client.ReadFrame();
  ::setrlimit(RLIMIT_AS, &limit);
  EXPECT_EQ(reply.type, FrameType::kStateReply);
  EXPECT_EQ(static_cast<Code>(reply.code), Code::kSystem);
  Driver other = host.Client();
  EXPECT_NE(StatsOf(other), "");
}
#endif

TEST_F(Sessions, ResolveWaitsForTheFirstWorker) {
  HostRun host(process_);
  Driver client = host.Client();
  const auto late = client->Resolve("echo", DeadlineIn(30'000'000));
  EXPECT_EQ(client.Wait(late).status.code(), Code::kInvocationTimeout);
  const auto early = client->Resolve("echo", DeadlineIn(kWatchdogNs));
  client.Poll();
  host.AddWorkers(1);
  EXPECT_TRUE(client.Wait(early).status.ok());
}

TEST_F(Sessions, StateOverTheWire) {
  HostRun host(process_);
  Driver client = host.Client();
  const auto run = [&](const protocol::StateRequest& request, Bytes* payload) {
    Driver::Outcome outcome = client.Wait(client::SubmitState(*client, request, DeadlineIn(kWatchdogNs)));
    *payload = outcome.payload;
    return outcome.status;
  };
  const auto decode = [](protocol::StateOp op, const Bytes& payload) {
    auto reply = protocol::DecodeStateReply(op, payload);
    EXPECT_TRUE(reply.ok()) << reply.status().message();
    return reply.ok() ? *reply : protocol::StateReply();
  };
  Bytes payload;
  const Bytes value = PatternOf(3u << 20);
  protocol::StateRequest set{.op = protocol::StateOp::kSet, .key = "k"};
  set.data = value;
  ASSERT_TRUE(run(set, &payload).ok());
  const uint64_t version = decode(set.op, payload).version;
  ASSERT_TRUE(run({.op = protocol::StateOp::kGet, .key = "k"}, &payload).ok());
  EXPECT_TRUE(std::ranges::equal(decode(protocol::StateOp::kGet, payload).data, value));
  protocol::StateRequest part{.op = protocol::StateOp::kGet, .key = "k"};
  part.offset = 100;
  part.length = 7;
  ASSERT_TRUE(run(part, &payload).ok());
  EXPECT_TRUE(std::ranges::equal(decode(part.op, payload).data, std::span(value).subspan(100, 7)));
  set.version = version + 1;
  EXPECT_EQ(run(set, &payload).code(), Code::kStateVersion);
  protocol::StateRequest append{.op = protocol::StateOp::kAppend, .key = "k"};
  append.data = AsBytes("end");
  ASSERT_TRUE(run(append, &payload).ok());
  ASSERT_TRUE(run({.op = protocol::StateOp::kStat, .key = "k"}, &payload).ok());
  EXPECT_EQ(decode(protocol::StateOp::kStat, payload).infos.at(0).bytes, value.size() + 3);
  protocol::StateRequest keys{.op = protocol::StateOp::kKeys};
  keys.limit = 10;
  ASSERT_TRUE(run(keys, &payload).ok());
  EXPECT_EQ(decode(keys.op, payload).infos.size(), 1u);
  ASSERT_TRUE(run({.op = protocol::StateOp::kDelete, .key = "k"}, &payload).ok());
  EXPECT_EQ(run({.op = protocol::StateOp::kGet, .key = "k"}, &payload).code(), Code::kStateNotFound);
}

TEST_F(Sessions, PublishedValuesAreReadTheSameOverEveryTransport) {
  HostRun host(process_);
  Driver writer = host.Client();
  const auto ask = [](Driver& client, protocol::StateRequest request) {
    Driver::Outcome outcome = client.Wait(client::SubmitState(*client, request, DeadlineIn(kWatchdogNs)));
    return outcome;
  };
  const auto set = [&](std::string_view value) {
    protocol::StateRequest request{.op = protocol::StateOp::kSet, .key = "k"};
    request.data = AsBytes(value);
    ASSERT_TRUE(ask(writer, request).status.ok());
  };
  for (const std::string transport : {"tcp", "shm"}) {
    SCOPED_TRACE(transport);
    Driver client = host.Client(transport);
    ASSERT_EQ(client->info().transport, transport);
    uint32_t asked = 0;
    const auto read = [&]() -> std::optional<std::string> {
      std::vector<std::byte> memory;
      publication::Outcome here;
      if (client->published() != nullptr) {
        here = client->published()->Read("k", [&](uint64_t bytes) {
          memory.resize(bytes);
          return std::span(memory);
        });
      }
      if (here.verdict == publication::Verdict::kRead) {
        return here.absent ? std::nullopt : std::optional(std::string(AsText(here.value)));
      }
      ++asked;
      const Driver::Outcome outcome = ask(client, {.op = protocol::StateOp::kRead, .key = "k"});
      const auto reply = protocol::DecodeStateReply(protocol::StateOp::kRead, outcome.payload);
      EXPECT_TRUE(outcome.status.ok() && reply.ok());
      if (client->published() != nullptr) client->published()->Learn("k", reply->place);
      return reply->existed ? std::optional(std::string(AsText(reply->data))) : std::nullopt;
    };
    EXPECT_EQ(read(), std::nullopt);
    set("not published");
    EXPECT_EQ(read(), "not published");
    protocol::StateRequest publish{.op = protocol::StateOp::kPublish, .key = "k"};
    publish.capacity = 100;
    ASSERT_TRUE(ask(client, publish).status.ok());
    for (int i = 0; i < 20; ++i) {
      set("value " + std::to_string(i));
      EXPECT_EQ(read(), "value " + std::to_string(i));
    }
    ASSERT_TRUE(ask(writer, {.op = protocol::StateOp::kDelete, .key = "k"}).status.ok());
    EXPECT_EQ(read(), std::nullopt);
    const uint32_t before = asked;
    ASSERT_EQ(client->published() != nullptr, transport == "shm");
    if (client->published() != nullptr) {
      EXPECT_EQ(client->published()->reads(), 20u);
    }
    set(std::string(5'000, 'x'));
    EXPECT_EQ(read(), std::string(5'000, 'x'));
    EXPECT_EQ(asked, before + 1) << "it is larger than its publication";
    ASSERT_TRUE(ask(client, {.op = protocol::StateOp::kUnpublish, .key = "k"}).status.ok());
    EXPECT_EQ(read(), std::string(5'000, 'x'));
    ASSERT_TRUE(ask(writer, {.op = protocol::StateOp::kDelete, .key = "k"}).status.ok());
  }
}

TEST_F(Sessions, ReadsOfArraysAndReservedNamesAreRefused) {
  HostRun host(process_);
  Driver client = host.Client();
  const auto code = [&](protocol::StateOp op, const std::string& key) {
    return client.Wait(client::SubmitState(*client, {.op = op, .key = key}, DeadlineIn(kWatchdogNs))).status.code();
  };
  EXPECT_EQ(code(protocol::StateOp::kRead, "\x01mailbox/x"), Code::kNameInvalid);
  EXPECT_EQ(code(protocol::StateOp::kPublish, "\x01mailbox/x"), Code::kNameInvalid);
  for (const std::string prefix : {"\x01", "\x01mailbox/"}) {
    const protocol::StateRequest keys{.op = protocol::StateOp::kKeys, .prefix = prefix, .limit = 10};
    EXPECT_EQ(client.Wait(client::SubmitState(*client, keys, DeadlineIn(kWatchdogNs))).status.code(),
              Code::kNameInvalid);
  }
  protocol::StateRequest large{.op = protocol::StateOp::kPublish, .key = "k"};
  large.capacity = UINT64_MAX;
  EXPECT_EQ(client.Wait(client::SubmitState(*client, large, DeadlineIn(kWatchdogNs))).status.code(),
            Code::kStateMemory);
}

TEST_F(Sessions, StreamsGoBothWaysInBoundedMemory) {
  HostRun host(process_);
  host.AddWorkers(1);
  Driver client = host.Client();
  const auto call = client->OpenStream(fn::kStream, 0, DeadlineIn(kWatchdogNs));
  ASSERT_TRUE(call.ok());
  const Bytes sent = PatternOf(6u << 20);
  size_t at = 0;
  size_t step = 1;
  bool last = false;
  client.PollUntil([&] {
    while (!last) {
      const size_t bytes = std::min(step, sent.size() - at);
      const bool ends = at + bytes == sent.size();
      const auto taken = client->SendChunk(*call, std::span(sent).subspan(at, bytes), ends);
      if (!taken.ok() || *taken == 0) break;
      at += *taken;
      last = ends && *taken == bytes;
      step = step * 3 % 300'000 + 1;
    }
    return client.streams()[*call].ended;
  });
  EXPECT_TRUE(client.streams()[*call].status.ok()) << client.streams()[*call].status.message();
  EXPECT_EQ(client.streams()[*call].received, sent);
  ExpectClean(client);
}

TEST_F(Sessions, StreamsEndEarly) {
  HostRun host(process_);
  host.AddWorkers(1);
  Driver client = host.Client();
  // A stream where one payload is expected, and the reverse.
  const auto wrong = client->OpenStream(fn::kEcho, 0, DeadlineIn(kWatchdogNs));
  ASSERT_TRUE(wrong.ok());
  client.PollUntil([&] { return client.streams()[*wrong].ended; });
  EXPECT_EQ(client.streams()[*wrong].status.code(), Code::kArgumentInvalid);
  EXPECT_EQ(client.Call(fn::kStream, {}).status.code(), Code::kArgumentInvalid);

  const auto cancelled = client->OpenStream(fn::kStream, 0, DeadlineIn(kWatchdogNs));
  (void)client->SendChunk(*cancelled, AsBytes("some"), false);
  client.PollUntil([&] { return client.streams()[*cancelled].received.size() == 4; });
  client->Cancel(*cancelled);
  client.PollUntil([&] { return client.streams()[*cancelled].ended; });
  EXPECT_FALSE(client.streams()[*cancelled].status.ok());

  const auto late = client->OpenStream(fn::kStream, 0, DeadlineIn(50'000'000));
  client.PollUntil([&] { return client.streams()[*late].ended; });
  EXPECT_EQ(client.streams()[*late].status.code(), Code::kInvocationTimeout);
  {
    Driver leaving = host.Client();
    const auto left = leaving->OpenStream(fn::kStream, 0, DeadlineIn(kWatchdogNs));
    (void)leaving->SendChunk(*left, PatternOf(100'000), false);
    leaving.PollUntil([&] { return leaving.streams()[*left].received.size() > 0; });
  }
  ExpectClean(client);
}

/// Whose reader leaves what lies between unread: more than may be sent to it, and less than the rings hold.
class LeftStreams : public Sessions {
 protected:
  void Send(Driver& client, uint32_t function, bool end) {
    const auto opened = client->OpenStream(function, 0, DeadlineIn(kWatchdogNs));
    ASSERT_TRUE(opened.ok());
    call_ = *opened;
    client.streams()[call_].consume = false;
    const Bytes sent = PatternOf(protocol::kInitialStreamCredit + (1u << 20));
    size_t at = 0;
    client.PollUntil([&] {
      while (at < sent.size()) {
        const auto taken = client->SendChunk(call_, std::span(sent).subspan(at), end);
        if (!taken.ok() || *taken == 0) break;
        at += *taken;
      }
      return at == sent.size();
    });
  }
  void Leave(Driver& client) {
    client->Cancel(call_);
    client.PollUntil([&] { return client.streams()[call_].ended; });
    EXPECT_EQ(client.streams()[call_].status.code(), Code::kInvocationCancelled);
    ExpectClean(client);
  }

  uint64_t call_ = 0;
};

TEST_F(LeftStreams, EndAfterTheirFunctions) {
  HostRun host(process_);
  host.AddWorkers(1);
  Driver client = host.Client();
  ASSERT_NO_FATAL_FAILURE(Send(client, fn::kStream, true));
  ASSERT_TRUE(Eventually([&] { return StatsOf(client).find("\"running\":1") == std::string::npos; }));
  EXPECT_NE(StatsOf(client).find("\"callsInUse\":1,"), std::string::npos);
  Leave(client);
}

TEST_F(LeftStreams, EndWithFunctionsThatEndWellNevertheless) {
  HostRun host(process_);
  host.AddWorkers(1);
  Driver client = host.Client();
  ASSERT_NO_FATAL_FAILURE(Send(client, fn::kStubborn, false));
  Leave(client);
}

TEST_F(Sessions, DrainFinishesWhatRuns) {
  HostRun host(process_);
  host.AddWorkers(1);
  Driver client = host.Client();
  const auto running = client->Invoke(fn::kSleep, AsBytes("100"), {}, 0, DeadlineIn(kWatchdogNs));
  client.Poll();
  ASSERT_TRUE(Eventually([&] { return StatsOf(client).find("\"running\":1") != std::string::npos; }));
  host->Drain(60'000);
  EXPECT_TRUE(client.Wait(running).status.ok());
  EXPECT_TRUE(Eventually([&] { return host->drained(); }));
}

}  // namespace
}  // namespace praas::test
