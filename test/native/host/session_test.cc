// What a host makes of clients that are slow, wrong, silent or gone, and state, locks and streams of those that are
// none.

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include "host/host_fixture.h"
#include "protocol/messages.h"
#include "transport/tcp.h"

namespace praas::test {
namespace {

using protocol::Frame;
using protocol::FrameType;

class Sessions : public ::testing::Test {
 protected:
  TestProcess process_;
};

/// A socket whose bytes the test says itself.
class RawClient {
 public:
  explicit RawClient(uint16_t port) {
    auto connected = transport::TcpConnect("127.0.0.1", port, DeadlineIn(kWatchdogNs));
    EXPECT_TRUE(connected.ok());
    stream_ = std::move(*connected);
  }
  void Send(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
      auto sent = stream_->Write(std::span(&part, 1));
      if (!sent.ok()) return;
      bytes = bytes.subspan(*sent);
      if (*sent == 0) WaitFor(POLLOUT);
    }
  }
  void Send(Frame frame, std::span<const std::byte> payload) {
    frame.payload_bytes = payload.size();
    std::array<std::byte, protocol::kHeaderBytes> header;
    protocol::EncodeHeader(frame, header);
    Send(header);
    Send(payload);
  }
  void Hello(const std::string& process, const std::string& token) {
    protocol::Hello hello;
    hello.process = process;
    hello.token = token;
    hello.client_pid = ::getpid();
    Send({.type = FrameType::kHello}, Encode(hello));
  }
  /// Everything until the host closes.
  Bytes ReadAll() {
    Bytes all;
    while (true) {
      std::array<std::byte, 4096> buffer;
      auto got = stream_->Read(buffer);
      if (!got.ok()) return all;
      if (*got == 0) {
        if (!WaitFor(POLLIN)) return all;
        continue;
      }
      all.insert(all.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(*got));
    }
  }
  /// The reject that the host closed with.
  Code ReadReject() {
    const Bytes all = ReadAll();
    if (all.size() < protocol::kHeaderBytes) return Code::kOk;
    auto frame = protocol::DecodeHeader(
        std::span<const std::byte, protocol::kHeaderBytes>(all.data(), protocol::kHeaderBytes), protocol::kMaxPayload);
    if (!frame.ok() || frame->type != FrameType::kReject) return Code::kOk;
    auto reject = protocol::DecodeReject(std::span(all).subspan(protocol::kHeaderBytes));
    return reject.ok() ? reject->code : Code::kOk;
  }

 private:
  bool WaitFor(short events) {
    pollfd entry{stream_->fd(), events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(kWatchdogNs / 1'000'000));
    EXPECT_GT(ready, 0) << "the host neither answers nor closes";
    return ready > 0;
  }
  std::unique_ptr<transport::TcpStream> stream_;
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
    Frame frame{.type = FrameType::kCall, .call = 1, .function = fn::kEcho};
    frame.payload_bytes = 100'000;
    std::array<std::byte, protocol::kHeaderBytes> header;
    protocol::EncodeHeader(frame, header);
    client.Send(header);
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
  Frame frame{.type = FrameType::kCall, .call = 1, .function = fn::kEcho};
  frame.payload_bytes = 100'000;
  frame.deadline_us = 20'000;
  std::array<std::byte, protocol::kHeaderBytes> header;
  protocol::EncodeHeader(frame, header);
  client.Send(header);
  client.Send(PatternOf(10));
  ExpectClean(watcher);  // its entry and its block come back although the client is still there
}

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
  protocol::StateRequest large{.op = protocol::StateOp::kPublish, .key = "k"};
  large.capacity = UINT64_MAX;
  EXPECT_EQ(client.Wait(client::SubmitState(*client, large, DeadlineIn(kWatchdogNs))).status.code(),
            Code::kStateMemory);
}

TEST_F(Sessions, LocksAreGrantedTimedOutWithdrawnAndReleased) {
  HostRun host(process_);
  Driver first = host.Client();
  const auto lock = [](Driver& client, uint64_t deadline_ns) {
    protocol::StateRequest request{.op = protocol::StateOp::kLock, .key = "l"};
    request.mode = protocol::LockMode::kWrite;
    return client::SubmitState(*client, request, deadline_ns);
  };
  ASSERT_TRUE(first.Wait(lock(first, DeadlineIn(kWatchdogNs))).status.ok());
  Driver second = host.Client();
  EXPECT_EQ(second.Wait(lock(second, DeadlineIn(20'000'000))).status.code(), Code::kStateLockTimeout);
  const auto withdrawn = lock(second, DeadlineIn(kWatchdogNs));
  second.Poll();
  second->Cancel(*withdrawn);
  EXPECT_EQ(second.Wait(withdrawn).status.code(), Code::kInvocationCancelled);
  const auto waiting = lock(second, DeadlineIn(kWatchdogNs));
  second.Poll();
  first->Close();  // its end releases what it holds
  EXPECT_TRUE(second.Wait(waiting).status.ok());
  protocol::StateRequest foreign{.op = protocol::StateOp::kUnlock};
  foreign.lock = 12'345;
  EXPECT_EQ(second.Wait(client::SubmitState(*second, foreign, DeadlineIn(kWatchdogNs))).status.code(),
            Code::kStateLockLost);
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
