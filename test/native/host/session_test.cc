// What a host makes of clients that are slow, wrong, silent or gone, and state, locks and streams of those that are
// none.

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <deque>
#include <optional>

#include "host/host_fixture.h"
#include "host/kept_state.h"
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

/// The header of a state request that sets a value.
std::array<std::byte, protocol::kHeaderBytes> SetHeader(uint64_t bytes, uint64_t deadline_us) {
  std::array<std::byte, protocol::kHeaderBytes> header;
  protocol::EncodeHeader({.type = FrameType::kState,
                          .code = static_cast<uint16_t>(protocol::StateOp::kSet),
                          .call = 1,
                          .payload_bytes = bytes,
                          .deadline_us = deadline_us},
                         header);
  return header;
}

TEST_F(Sessions, AStateRequestThatNeverEndsMissesItsDeadline) {
  HostRun host(process_);
  RawClient client(host.port());
  client.Hello("p", TokenFor(protocol::kAllVerbs));
  ASSERT_EQ(client.ReadFrame().type, FrameType::kWelcome);
  client.Send(SetHeader(100'000, 20'000));
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
    const auto header = SetHeader(process_.assignment.max_contiguous, 0);
    std::copy(header.begin(), header.end(), bytes.begin() + protocol::kHeaderBytes);
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
  client.Send(SetHeader(protocol::kMaxPayload, 0));
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

protocol::StateRequest LockOf(const std::string& name) {
  protocol::StateRequest request{.op = protocol::StateOp::kLock, .key = name};
  request.mode = protocol::LockMode::kWrite;
  return request;
}
protocol::StateRequest UnlockOf(uint64_t lock) {
  protocol::StateRequest request{.op = protocol::StateOp::kUnlock};
  request.lock = lock;
  return request;
}

/// A connection whose state requests have the numbers and deadlines that the test gives them.
class LockClient {
 public:
  explicit LockClient(uint16_t port) : client_(port) {
    client_.Hello("p", TokenFor(protocol::kAllVerbs));
    EXPECT_EQ(client_.ReadFrame().type, FrameType::kWelcome);
  }
  void Ask(uint64_t call, const protocol::StateRequest& request, uint64_t deadline_us = 20'000'000) {
    const Frame frame{
        .type = FrameType::kState, .code = static_cast<uint16_t>(request.op), .call = call, .deadline_us = deadline_us};
    client_.Send(frame, EncodeHead(request));
  }
  void Cancel(uint64_t call) { client_.Send({.type = FrameType::kCancel, .call = call}, {}); }
  struct Answer {
    uint64_t call;
    Code code;
    uint64_t lock;  // of a lock that was granted
  };
  Answer Next() {
    Bytes payload;
    const Frame frame = client_.ReadFrame(&payload);
    EXPECT_EQ(frame.type, FrameType::kStateReply);
    const auto granted = protocol::DecodeStateReply(protocol::StateOp::kLock, payload);
    return {frame.call, static_cast<Code>(frame.code), granted.ok() ? granted->lock : 0};
  }
  /// Says goodbye; returns when the host has closed the connection.
  void Leave() {
    client_.Send({.type = FrameType::kGoodbye}, {});
    EXPECT_TRUE(client_.ReadAll().empty());
  }
  RawClient& raw() { return client_; }

 private:
  RawClient client_;
};

TEST_F(Sessions, LocksThatWaitLetTheirReleasePass) {
  constexpr uint64_t kLocks = 300;
  HostRun host(process_);
  LockClient client(host.port());
  for (uint64_t call = 1; call <= kLocks; ++call) client.Ask(call, LockOf("l"));
  LockClient::Answer answer = client.Next();
  ASSERT_EQ(answer.call, 1u);
  client.Cancel(kLocks);
  const LockClient::Answer withdrawn = client.Next();
  EXPECT_EQ(withdrawn.call, kLocks);
  EXPECT_EQ(withdrawn.code, Code::kInvocationCancelled);
  for (uint64_t call = 1; call < kLocks; ++call) {
    ASSERT_EQ(answer.call, call);
    ASSERT_EQ(answer.code, Code::kOk);
    client.Ask(kLocks + call, UnlockOf(answer.lock));
    // The release and the next grant, in either order.
    for (int each = 0; each < (call + 1 < kLocks ? 2 : 1); ++each) {
      const LockClient::Answer next = client.Next();
      ASSERT_EQ(next.code, Code::kOk);
      if (next.call != kLocks + call) answer = next;
    }
  }
}

TEST_F(Sessions, MoreLocksThanASessionMayWaitForAreRefused) {
  constexpr uint64_t kLocks = 4096;
  HostRun host(process_);
  LockClient client(host.port());
  client.Ask(1, LockOf("l"));
  const LockClient::Answer held = client.Next();
  ASSERT_EQ(held.code, Code::kOk);
  for (uint64_t call = 2; call <= kLocks + 2; ++call) client.Ask(call, LockOf("l"));
  LockClient::Answer answer = client.Next();
  EXPECT_EQ(answer.call, kLocks + 2);
  EXPECT_EQ(answer.code, Code::kBackpressure);
  client.Ask(kLocks + 3, UnlockOf(held.lock));
  for (int each = 0; each < 2; ++each) {
    answer = client.Next();
    EXPECT_TRUE(answer.call == 2 || answer.call == kLocks + 3) << answer.call;
    EXPECT_EQ(answer.code, Code::kOk);
  }
  client.raw().Send(
      {.type = FrameType::kState, .code = static_cast<uint16_t>(protocol::StateOp::kLock), .call = kLocks + 5},
      Bytes(5000));
  answer = client.Next();
  EXPECT_EQ(answer.call, kLocks + 5);
  EXPECT_EQ(answer.code, Code::kPayloadTooLarge);
}

// The host waits for the state's mutex for two seconds at a time.

TEST_F(Sessions, LocksAreReleasedAfterSomebodyHasKeptTheStateForLong) {
  HostRun host(process_);
  LockClient leaves(host.port());
  leaves.Ask(1, LockOf("of who leaves"));
  ASSERT_EQ(leaves.Next().code, Code::kOk);
  LockClient stays(host.port());
  stays.Ask(1, LockOf("of who stays"));
  const LockClient::Answer held = stays.Next();
  ASSERT_EQ(held.code, Code::kOk);

  std::optional<KeptState> kept(process_);
  leaves.Leave();
  stays.Ask(2, UnlockOf(held.lock));
  stays.Ask(3, {.op = protocol::StateOp::kStat, .key = "k"}, 100'000);
  const LockClient::Answer tried = stays.Next();
  EXPECT_EQ(tried.call, 3u) << "the host has not tried to release them by now";
  EXPECT_EQ(tried.code, Code::kInvocationTimeout);
  kept.reset();

  const LockClient::Answer released = stays.Next();
  EXPECT_EQ(released.call, 2u);
  EXPECT_EQ(released.code, Code::kOk);
  Driver next = host.Client();
  for (const char* name : {"of who leaves", "of who stays"}) {
    EXPECT_TRUE(next.Wait(client::SubmitState(*next, LockOf(name), DeadlineIn(20'000'000'000))).status.ok()) << name;
  }
}

TEST_F(Sessions, LocksThatWaitAreWithdrawnAfterSomebodyHasKeptTheStateForLong) {
  HostRun host(process_);
  LockClient holder(host.port());
  holder.Ask(1, LockOf("l"));
  const LockClient::Answer held = holder.Next();
  ASSERT_EQ(held.code, Code::kOk);
  LockClient waits(host.port());
  waits.Ask(1, LockOf("l"));
  waits.Ask(2, LockOf("l"), 1'000'000);
  waits.Ask(3, {.op = protocol::StateOp::kStat, .key = "k"});
  EXPECT_EQ(waits.Next().call, 3u) << "not both wait";

  std::optional<KeptState> kept(process_);
  waits.Cancel(1);
  const LockClient::Answer first = waits.Next();
  const LockClient::Answer second = waits.Next();
  EXPECT_EQ(std::min(first.call, second.call), 1u);
  EXPECT_EQ(first.call == 1 ? first.code : second.code, Code::kInvocationCancelled);
  EXPECT_EQ(first.call == 2 ? first.code : second.code, Code::kStateLockTimeout);
  kept.reset();

  holder.Ask(2, UnlockOf(held.lock));
  EXPECT_EQ(holder.Next().code, Code::kOk);
  Driver next = host.Client();
  EXPECT_TRUE(next.Wait(client::SubmitState(*next, LockOf("l"), DeadlineIn(20'000'000'000))).status.ok());
}

TEST_F(Sessions, ALockIsReleasedHoweverLateThatIsAsked) {
  HostRun host(process_);
  RawClient holder(host.port());
  holder.Hello("p", TokenFor(protocol::kAllVerbs));
  ASSERT_EQ(holder.ReadFrame().type, FrameType::kWelcome);
  protocol::StateRequest lock{.op = protocol::StateOp::kLock, .key = "l"};
  lock.mode = protocol::LockMode::kWrite;
  holder.Send({.type = FrameType::kState, .code = static_cast<uint16_t>(lock.op), .call = 1}, EncodeHead(lock));
  Bytes payload;
  ASSERT_EQ(holder.ReadFrame(&payload).code, static_cast<uint16_t>(Code::kOk));
  const auto granted = protocol::DecodeStateReply(lock.op, payload);
  ASSERT_TRUE(granted.ok()) << granted.status().message();

  protocol::StateRequest unlock{.op = protocol::StateOp::kUnlock};
  unlock.lock = granted->lock;
  // Past when the service thread gets to it.
  Frame late{.type = FrameType::kState, .code = static_cast<uint16_t>(unlock.op), .call = 2};
  late.deadline_us = 1;
  holder.Send(late, EncodeHead(unlock));
  Driver next = host.Client();
  EXPECT_TRUE(next.Wait(client::SubmitState(*next, lock, DeadlineIn(kWatchdogNs))).status.ok());
}

TEST_F(Sessions, ALockIsReleasedHoweverSlowlyThatArrives) {
  HostRun host(process_);
  RawClient holder(host.port());
  holder.Hello("p", TokenFor(protocol::kAllVerbs));
  ASSERT_EQ(holder.ReadFrame().type, FrameType::kWelcome);
  protocol::StateRequest lock{.op = protocol::StateOp::kLock, .key = "l"};
  lock.mode = protocol::LockMode::kWrite;
  holder.Send({.type = FrameType::kState, .code = static_cast<uint16_t>(lock.op), .call = 1}, EncodeHead(lock));
  Bytes payload;
  ASSERT_EQ(holder.ReadFrame(&payload).code, static_cast<uint16_t>(Code::kOk));
  const auto granted = protocol::DecodeStateReply(lock.op, payload);
  ASSERT_TRUE(granted.ok()) << granted.status().message();

  protocol::StateRequest unlock{.op = protocol::StateOp::kUnlock};
  unlock.lock = granted->lock;
  const std::vector<std::byte> head = EncodeHead(unlock);
  std::array<std::byte, protocol::kHeaderBytes> header;
  protocol::EncodeHeader({.type = FrameType::kState,
                          .code = static_cast<uint16_t>(unlock.op),
                          .call = 2,
                          .payload_bytes = head.size(),
                          .deadline_us = 1},
                         header);
  holder.Send(header);
  holder.Send(std::span(head).first(1));
  // Another request that arrives as slowly misses its deadline meanwhile.
  RawClient other(host.port());
  other.Hello("p", TokenFor(protocol::kAllVerbs));
  ASSERT_EQ(other.ReadFrame().type, FrameType::kWelcome);
  other.Send(SetHeader(100, 20'000));
  EXPECT_EQ(static_cast<Code>(other.ReadFrame().code), Code::kInvocationTimeout);

  holder.Send(std::span(head).subspan(1));
  const Frame released = holder.ReadFrame();
  EXPECT_EQ(released.type, FrameType::kStateReply);
  EXPECT_EQ(released.code, static_cast<uint16_t>(Code::kOk));
  Driver next = host.Client();
  EXPECT_TRUE(next.Wait(client::SubmitState(*next, lock, DeadlineIn(kWatchdogNs))).status.ok());
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

TEST_F(Sessions, AStreamWhoseReaderLeavesAfterItsFunctionEndsToo) {
  HostRun host(process_);
  host.AddWorkers(1);
  Driver client = host.Client();
  const auto call = client->OpenStream(fn::kStream, 0, DeadlineIn(kWatchdogNs));
  ASSERT_TRUE(call.ok());
  client.streams()[*call].consume = false;
  // More than may be sent to somebody who reads nothing, and less than what lies between.
  const Bytes sent = PatternOf(protocol::kInitialStreamCredit + (1u << 20));
  size_t at = 0;
  client.PollUntil([&] {
    while (at < sent.size()) {
      const auto taken = client->SendChunk(*call, std::span(sent).subspan(at), true);
      if (!taken.ok() || *taken == 0) break;
      at += *taken;
    }
    return at == sent.size();
  });
  ASSERT_TRUE(Eventually([&] { return StatsOf(client).find("\"running\":1") == std::string::npos; }));
  EXPECT_NE(StatsOf(client).find("\"callsInUse\":1,"), std::string::npos);
  client->Cancel(*call);
  client.PollUntil([&] { return client.streams()[*call].ended; });
  EXPECT_EQ(client.streams()[*call].status.code(), Code::kInvocationCancelled);
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
