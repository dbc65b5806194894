#include "client/connection.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "client/driver.h"

namespace praas::test {
namespace {

using protocol::StateOp;
using protocol::StateRequest;

constexpr uint64_t kSoonNs = 30'000'000;

TEST(Connection, ResolvesNames) {
  FrameServer server;
  Driver driver = Connect(server);
  for (uint32_t index = 0; index < kFunctionCount; ++index) {
    const Driver::Outcome outcome = driver.Wait(driver->Resolve(kFunctionNames[index], 0));
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.message();
    transport::Reply reply;
    reply.payload = outcome.payload;
    const Result<client::FunctionRef> function = client::DecodeFunctionRef(reply);
    ASSERT_TRUE(function.ok());
    EXPECT_EQ(function->index, index);
    EXPECT_EQ(function->flags, index == kStreamEcho ? 1u : 0u);
  }
  EXPECT_EQ(driver.Wait(driver->Resolve("nothing", 0)).status.code(), Code::kFunctionUnknown);
  EXPECT_EQ(driver->Resolve("", 0).status().code(), Code::kNameInvalid);
  EXPECT_EQ(driver->Resolve(std::string(256, 'f'), 0).status().code(), Code::kNameInvalid);
  EXPECT_EQ(driver->Resolve("\xff", 0).status().code(), Code::kNameInvalid);
}

TEST(Connection, CallsOfAllSizes) {
  for (const bool checksum : {false, true}) {
    FrameServer server;
    client::ConnectOptions options = OptionsFor(server.port());
    options.checksum = checksum;
    Driver driver = Connect(options);
    for (const size_t size : {0, 1, 64, 4095, 4096, 4097, 65'536, 1'000'000, 16 << 20}) {
      const Bytes input = Pattern(size, static_cast<uint32_t>(size));
      Driver::Outcome outcome = driver.Call(kEcho, input);
      EXPECT_TRUE(outcome.status.ok());
      EXPECT_EQ(outcome.payload, input) << size;

      Bytes output(size + 1);
      outcome = driver.Call(kEcho, input, output);
      EXPECT_EQ(outcome.payload, input) << size;
      EXPECT_EQ(outcome.lay_at, output.data()) << "a result that fits lies in the output given";
      if (size > 0) {
        Bytes small(size - 1, std::byte{7});
        outcome = driver.Call(kEcho, input, small);
        EXPECT_EQ(outcome.payload, input) << size;
        EXPECT_EQ(small, Bytes(size - 1, std::byte{7}));
      }
    }
  }
}

TEST(Connection, ErrorsOfFunctionsAreOutcomes) {
  FrameServer server;
  Driver driver = Connect(server);
  const Driver::Outcome outcome = driver.Call(kThrow, ToBytes(R"({"name":"Error"})"));
  EXPECT_EQ(outcome.status.code(), Code::kFunctionThrew);
  EXPECT_EQ(outcome.status.message(), R"({"name":"Error"})");
  EXPECT_TRUE(outcome.payload.empty());
  EXPECT_EQ(driver.Call(1000, {}).status.code(), Code::kFunctionUnknown);
}

TEST(Connection, TooLargeInputsAreRefusedBeforeAByteIsSent) {
  FrameServer server({.max_contiguous = 1000});
  Driver driver = Connect(server);
  const Bytes input(1001);
  EXPECT_EQ(driver->Invoke(kEcho, input, {}, 0, 0).status().code(), Code::kPayloadTooLarge);
  EXPECT_TRUE(driver.Call(kEcho, std::span(input).first(1000)).status.ok());
  EXPECT_EQ(driver->in_flight(), 0u);
  EXPECT_EQ(driver->Allocate(1001).status().code(), Code::kPayloadTooLarge);
}

TEST(Connection, RequestsMadeTogetherTravelTogether) {
  FrameServer server;
  Driver driver = Connect(server);
  const Bytes input = Pattern(64, 1);
  driver.Call(kEcho, input);
  const uint64_t writes = driver->counters().writes;
  std::vector<uint64_t> calls;
  for (int i = 0; i < 32; ++i) calls.push_back(*driver->Invoke(kEcho, input, {}, 0, 0));
  EXPECT_EQ(driver->counters().writes, writes);
  EXPECT_TRUE(driver->wants_write());
  for (const uint64_t call : calls) EXPECT_EQ(driver.Wait(call).payload, input);
  EXPECT_EQ(driver->counters().writes, writes + 1);
}

TEST(Connection, LargePayloadsAreNotCopied) {
  FrameServer server;
  Driver driver = Connect(server);
  const Bytes input = Pattern(1 << 20, 1);
  Bytes output(1 << 20);
  const uint64_t staged = driver->counters().staged_bytes;
  for (int i = 0; i < 8; ++i) EXPECT_EQ(driver.Call(kEcho, input, output).payload, input);
  EXPECT_LE(driver->counters().staged_bytes - staged, 8u * 4096);
}

TEST(Connection, RepliesComeInAnyOrder) {
  FrameServer server;
  Driver driver = Connect(server);
  std::vector<uint64_t> calls;
  std::vector<Bytes> inputs;
  for (uint32_t i = 0; i < 20; ++i) inputs.push_back(Pattern(i * 1000, i));
  for (const Bytes& input : inputs) calls.push_back(*driver->Invoke(kHold, input, {}, 0, 0));
  std::vector<uint64_t> order;
  driver.on_reply = [&](uint64_t call) { order.push_back(call); };
  const uint64_t last = *driver->Invoke(kEcho, {}, {}, 0, 0);
  driver.Wait(last);
  server.ReleaseHeld();
  for (size_t i = 0; i < calls.size(); ++i) EXPECT_EQ(driver.Wait(calls[i]).payload, inputs[i]);
  EXPECT_EQ(order.front(), last);
  EXPECT_EQ(order[1], calls.back());
  EXPECT_EQ(order.back(), calls.front());
}

TEST(Connection, MoreThanMaxInFlightWaitsInOrder) {
  FrameServer server({.max_in_flight = 4});
  Driver driver = Connect(server);
  std::vector<uint64_t> calls;
  std::vector<Bytes> inputs;
  for (uint32_t i = 0; i < 20; ++i) inputs.push_back(Pattern(i * 500, i));
  for (const Bytes& input : inputs) calls.push_back(*driver->Invoke(kHold, input, {}, 0, 0));
  EXPECT_EQ(driver->in_flight(), 20u);
  while (!driver.outcomes().contains(calls.back())) {
    driver.Poll();
    server.ReleaseHeld();
  }
  for (size_t i = 0; i < calls.size(); ++i) EXPECT_EQ(driver.Wait(calls[i]).payload, inputs[i]);
  EXPECT_EQ(server.most_in_flight(), 4u);
  EXPECT_EQ(driver.repeated(), 0u);
}

TEST(Connection, StateGetsThroughWhenCallsFillTheSession) {
  FrameServer server({.max_in_flight = 16});
  Driver driver = Connect(server);
  std::vector<uint64_t> calls;
  for (int i = 0; i < 40; ++i) calls.push_back(*driver->Invoke(kHold, {}, {}, 0, 0));
  const Bytes data = ToBytes("v");
  const StateRequest set{.op = StateOp::kSet, .key = "k", .data = data};
  EXPECT_TRUE(driver.Wait(client::SubmitState(*driver, set, 0)).status.ok());
  EXPECT_LT(server.most_in_flight(), 16u);
}

TEST(Connection, WhatFindsNoRoomEndsAtItsDeadline) {
  FrameServer server({.max_in_flight = 1});
  Driver driver = Connect(server);
  const uint64_t held = *driver->Invoke(kHold, {}, {}, 0, 0);
  EXPECT_EQ(driver.Call(kEcho, {}, {}, DeadlineIn(kSoonNs)).status.code(), Code::kBackpressure);
  server.ReleaseHeld();
  driver.PollUntil([&] { return driver.outcomes().contains(held) || (server.ReleaseHeld(), false); });
  EXPECT_TRUE(driver.Call(kEcho, {}).status.ok());
}

TEST(Connection, DeadlinesHoldWhateverTheHostDoes) {
  FrameServer server;
  Driver driver = Connect(server);
  Bytes output(100);
  const Bytes input = Pattern(50, 1);
  EXPECT_EQ(driver.Call(kHold, input, output, DeadlineIn(kSoonNs)).status.code(), Code::kInvocationTimeout);
  EXPECT_EQ(driver->in_flight(), 0u);
  EXPECT_EQ(driver->next_deadline_ns(), kNoDeadline);
  // The host was told, and its late answer is nobody's.
  driver.PollUntil([&] { return server.held() == 0; });
  EXPECT_EQ(driver.Call(kEcho, input).payload, input);
  EXPECT_EQ(driver.Call(kEcho, input, {}, 1).status.code(), Code::kInvocationTimeout) << "a deadline long past";
  EXPECT_EQ(driver.repeated(), 0u);
}

TEST(Connection, TheDefaultDeadlineIsTheHosts) {
  FrameServer server({.default_timeout_ns = kSoonNs});
  Driver driver = Connect(server);
  EXPECT_EQ(driver.Wait(driver->Invoke(kHold, {}, {}, 0, 0)).status.code(), Code::kInvocationTimeout);
}

TEST(Connection, APeerThatStopsReadingDoesNotHoldMemoryPastTheDeadline) {
  FrameServer server;
  Driver driver = Connect(server);
  server.StopReading(true);
  auto input = std::make_unique<Bytes>(Pattern(16 << 20, 1));
  auto unsent = std::make_unique<Bytes>(Pattern(1 << 20, 2));
  const uint64_t first = *driver->Invoke(kEcho, *input, {}, 0, DeadlineIn(kSoonNs));
  const uint64_t second = *driver->Invoke(kEcho, *unsent, {}, 0, DeadlineIn(kSoonNs));
  EXPECT_EQ(driver.Wait(first).status.code(), Code::kInvocationTimeout);
  EXPECT_EQ(driver.Wait(second).status.code(), Code::kInvocationTimeout);
  input.reset();
  unsent.reset();
  server.StopReading(false);
  const Bytes small = Pattern(10, 3);
  EXPECT_EQ(driver.Call(kEcho, small).payload, small);
}

TEST(Connection, AResultThatIsArrivingAtTheDeadlineDoesNotTouchTheOutput) {
  // The reply stops in the middle; the deadline passes; the rest comes later.
  constexpr size_t kSize = 8 << 20;
  FrameServer server;
  Driver driver = Connect(server);
  auto output = std::make_unique<Bytes>(kSize);
  const uint64_t call = *driver->Invoke(kHold, {}, *output, 0, DeadlineIn(kSoonNs * 3));
  driver.PollUntil([&] { return server.held() == 1; });
  server.StopReading(true);
  std::array<std::byte, protocol::kHeaderBytes> header;
  protocol::EncodeHeader({.type = protocol::FrameType::kReply, .call = call, .payload_bytes = kSize}, header);
  server.WriteRaw(header);
  const Bytes half = Pattern(kSize / 2, 1);
  std::thread writer([&] { server.WriteRaw(half); });
  EXPECT_EQ(driver.Wait(call).status.code(), Code::kInvocationTimeout);
  output.reset();
  const uint64_t next = *driver->Invoke(kEcho, half, {}, 0, DeadlineIn(kWatchdogNs));
  driver.Poll();
  writer.join();
  std::thread second_writer([&] {
    server.WriteRaw(half);
    server.StopReading(false);
  });
  EXPECT_EQ(driver.Wait(next).payload, half);
  second_writer.join();
}

TEST(Connection, CancelAsksTheHost) {
  FrameServer server;
  Driver driver = Connect(server);
  const uint64_t call = *driver->Invoke(kHold, {}, {}, 0, 0);
  driver.PollUntil([&] { return server.held() == 1; });
  driver->Cancel(call);
  EXPECT_EQ(driver.Wait(call).status.code(), Code::kInvocationCancelled);
  driver->Cancel(call);
  driver->Cancel(12345);
  EXPECT_TRUE(driver.Call(kEcho, {}).status.ok());
}

TEST(Connection, CancelOfWhatWaitsIsDecidedHere) {
  FrameServer server({.max_in_flight = 1});
  Driver driver = Connect(server);
  const uint64_t held = *driver->Invoke(kHold, {}, {}, 0, 0);
  const uint64_t waiting = *driver->Invoke(kHold, {}, {}, 0, 0);
  driver->Cancel(waiting);
  EXPECT_EQ(driver.Wait(waiting).status.code(), Code::kInvocationCancelled);
  driver.PollUntil([&] { return server.held() == 1; });
  server.ReleaseHeld();
  EXPECT_TRUE(driver.Wait(held).status.ok());
  EXPECT_EQ(server.held(), 0u);
}

TEST(Connection, TheEndOfTheHostEndsEverythingOnce) {
  FrameServer server({.max_in_flight = 8});
  Driver driver = Connect(server);
  std::vector<uint64_t> calls;
  const Bytes large = Pattern(1 << 20, 1);
  for (int i = 0; i < 20; ++i) calls.push_back(*driver->Invoke(kHold, large, {}, 0, 0));
  const StateRequest lock{.op = StateOp::kLock, .key = "taken"};
  calls.push_back(*client::SubmitState(*driver, lock, 0));
  const uint64_t stream = *driver->OpenStream(kStreamEcho, 0, 0);
  driver.PollUntil([&] { return server.held() > 0; });
  server.DropSessions();
  for (const uint64_t call : calls) EXPECT_EQ(driver.Wait(call).status.code(), Code::kHostLost);
  driver.PollUntil([&] { return driver.streams()[stream].ended; });
  EXPECT_EQ(driver.streams()[stream].status.code(), Code::kHostLost);
  EXPECT_EQ(driver->in_flight(), 0u);
  EXPECT_EQ(driver->lost().code(), Code::kHostLost);
  EXPECT_EQ(driver->Invoke(kEcho, {}, {}, 0, 0).status().code(), Code::kHostLost);
  EXPECT_EQ(driver->Resolve("echo", 0).status().code(), Code::kHostLost);
  EXPECT_EQ(driver->OpenStream(kStreamEcho, 0, 0).status().code(), Code::kHostLost);
  EXPECT_EQ(driver->SendChunk(stream, {}, true).status().code(), Code::kHostLost);
  EXPECT_FALSE(driver->closed());
  for (int i = 0; i < 5; ++i) EXPECT_EQ(driver.Poll(), 0u);
  EXPECT_EQ(driver.repeated(), 0u);
}

TEST(Connection, AGoodbyeSaysWhy) {
  FrameServer server;
  Driver driver = Connect(server);
  const uint64_t call = *driver->Invoke(kHold, {}, {}, 0, 0);
  driver.PollUntil([&] { return server.held() == 1; });
  server.Goodbye(Code::kProcessDraining, "moving");
  EXPECT_TRUE(driver.Call(kEcho, {}).status.ok()) << "what is in flight still finishes";
  server.DropSessions();
  const Driver::Outcome outcome = driver.Wait(call);
  EXPECT_EQ(outcome.status.code(), Code::kProcessDraining);
  EXPECT_NE(outcome.status.message().find("moving"), std::string::npos);
}

TEST(Connection, CloseEndsEverythingOnce) {
  FrameServer server({.max_in_flight = 2});
  Driver driver = Connect(server);
  std::vector<uint64_t> calls;
  for (int i = 0; i < 5; ++i) calls.push_back(*driver->Invoke(kHold, {}, {}, 0, 0));
  driver.Poll();
  driver->Close();
  driver->Close();
  EXPECT_TRUE(driver->closed());
  EXPECT_FALSE(driver->PrepareToSleep());
  for (const uint64_t call : calls) EXPECT_EQ(driver.Wait(call).status.code(), Code::kConnectionClosed);
  EXPECT_EQ(driver.Poll(), 0u);
  EXPECT_EQ(driver.repeated(), 0u);
  EXPECT_TRUE(driver->lost().ok());
  EXPECT_EQ(driver->Invoke(kEcho, {}, {}, 0, 0).status().code(), Code::kConnectionClosed);
  EXPECT_EQ(driver->Allocate(10).status().code(), Code::kConnectionClosed);
  driver->Cancel(calls[0]);
}

TEST(Connection, SinksMayCallBack) {
  FrameServer server;
  Driver driver = Connect(server);
  int depth = 0;
  uint64_t last = 0;
  driver.on_reply = [&](uint64_t) {
    EXPECT_EQ(driver.Poll(), 0u) << "a Poll within a sink does nothing";
    if (++depth < 50) last = *driver->Invoke(kEcho, {}, {}, 0, 0);
  };
  driver.Call(kEcho, {});
  driver.PollUntil([&] { return depth == 50; });
  EXPECT_TRUE(driver.outcomes().contains(last));

  std::vector<uint64_t> calls;
  for (int i = 0; i < 10; ++i) calls.push_back(*driver->Invoke(kEcho, {}, {}, 0, 0));
  driver.on_reply = [&](uint64_t) { driver->Close(); };
  for (const uint64_t call : calls) driver.Wait(call);
  EXPECT_EQ(driver.repeated(), 0u);
  EXPECT_EQ(driver->in_flight(), 0u);
}

TEST(Connection, BytesThatAreNoFrameEndIt) {
  FrameServer server;
  Driver driver = Connect(server);
  const uint64_t call = *driver->Invoke(kHold, {}, {}, 0, 0);
  driver.PollUntil([&] { return server.held() == 1; });
  server.WriteRaw(Bytes(64, std::byte{'x'}));
  EXPECT_EQ(driver.Wait(call).status.code(), Code::kProtocolInvalid);
  EXPECT_EQ(driver->lost().code(), Code::kProtocolInvalid);
}

TEST(Connection, AnswersOfTheWrongKindEndIt) {
  using protocol::FrameType;
  for (const FrameType type :
       {FrameType::kResolved, FrameType::kStateReply, FrameType::kAdminReply, FrameType::kData, FrameType::kHello}) {
    FrameServer server;
    Driver driver = Connect(server);
    const uint64_t call = *driver->Invoke(kHold, {}, {}, 0, 0);
    driver.PollUntil([&] { return server.held() == 1; });
    server.WithWriter([&](protocol::FrameWriter& writer) {
      const Bytes payload(1);
      writer.PushCopy({.type = type, .call = type == FrameType::kHello ? 0 : call}, payload);
    });
    EXPECT_EQ(driver.Wait(call).status.code(), Code::kProtocolInvalid) << static_cast<int>(type);
  }
}

TEST(Connection, AnswersNobodyWaitsForAreSkipped) {
  using protocol::FrameType;
  FrameServer server;
  Driver driver = Connect(server);
  server.WithWriter([&](protocol::FrameWriter& writer) {
    const Bytes payload(100'000);
    for (const FrameType type :
         {FrameType::kReply, FrameType::kResolved, FrameType::kStateReply, FrameType::kAdminReply, FrameType::kData}) {
      writer.PushCopy({.type = type, .call = 4711}, payload);
    }
    writer.Push({.type = FrameType::kCredit, .call = 4711, .aux = 10});
    writer.Push({.type = FrameType::kPing, .aux = 5});
    writer.Push({.type = FrameType::kPong, .aux = 5});
  });
  EXPECT_TRUE(driver.Call(kEcho, {}).status.ok());
}

TEST(Connection, ACorruptResultFailsItsCallOnly) {
  FrameServer server;
  client::ConnectOptions options = OptionsFor(server.port());
  options.checksum = true;
  Driver driver = Connect(options);
  for (const size_t size : {size_t{100}, size_t{100'000}}) {
    const uint64_t call = *driver->Invoke(kHold, {}, {}, 0, DeadlineIn(kWatchdogNs));
    driver.PollUntil([&] { return server.held() == 1; });
    const Bytes payload = Pattern(size, 1);
    std::array<std::byte, protocol::kHeaderBytes> header;
    protocol::EncodeHeader({.type = protocol::FrameType::kReply,
                            .flags = protocol::kPayloadChecksum,
                            .call = call,
                            .payload_bytes = size,
                            .payload_crc = protocol::Crc32c(payload) ^ 1},
                           header);
    server.WriteRaw(header);
    server.WriteRaw(payload);
    EXPECT_EQ(driver.Wait(call).status.code(), Code::kPayloadCorrupt);
    server.ReleaseHeld();
    EXPECT_EQ(driver.Call(kEcho, payload).payload, payload);
  }
}

TEST(Connection, StateOperations) {
  FrameServer server;
  Driver driver = Connect(server);
  const auto run = [&](const StateRequest& request) {
    const Driver::Outcome outcome = driver.Wait(client::SubmitState(*driver, request, DeadlineIn(kWatchdogNs)));
    transport::Reply reply;
    reply.status = outcome.status;
    reply.payload = outcome.payload;
    Result<protocol::StateReply> decoded = client::DecodeStateReply(request.op, reply);
    if (decoded.ok()) {
      static Bytes kept;
      kept.assign(decoded->data.begin(), decoded->data.end());
      decoded->data = kept;
    }
    return decoded;
  };
  for (const size_t size : {0, 10, 100'000, 16 << 20}) {
    const Bytes value = Pattern(size, 1);
    const Result<protocol::StateReply> set = run({.op = StateOp::kSet, .key = "k", .data = value});
    ASSERT_TRUE(set.ok()) << set.status().message();
    EXPECT_GT(set->version, 0u);
    const Result<protocol::StateReply> got = run({.op = StateOp::kGet, .key = "k"});
    ASSERT_TRUE(got.ok());
    EXPECT_TRUE(std::equal(got->data.begin(), got->data.end(), value.begin(), value.end()));
    EXPECT_EQ(got->infos[0].bytes, size);
  }
  EXPECT_TRUE(run({.op = StateOp::kDelete, .key = "k"})->existed);
  EXPECT_FALSE(run({.op = StateOp::kDelete, .key = "k"})->existed);
  EXPECT_EQ(run({.op = StateOp::kGet, .key = "k"}).status().code(), Code::kStateNotFound);
  EXPECT_EQ(run({.op = StateOp::kGet, .key = ""}).status().code(), Code::kNameInvalid);
  EXPECT_EQ(run({.op = StateOp::kLock, .key = std::string(256, 'l')}).status().code(), Code::kNameInvalid);
  EXPECT_EQ(run({.op = StateOp::kKeys, .prefix = "\xff", .limit = 1}).status().code(), Code::kNameInvalid);
  EXPECT_EQ(run({.op = StateOp::kKeys, .limit = 0}).status().code(), Code::kArgumentInvalid);
  const Bytes large((16 << 20) + 1);
  EXPECT_EQ(run({.op = StateOp::kSet, .key = "k", .data = large}).status().code(), Code::kPayloadTooLarge);
  EXPECT_EQ(driver->Request(protocol::FrameType::kCall, 1, {}, {}, 0).status().code(), Code::kArgumentInvalid);
}

TEST(Connection, ALockGrantedTooLateIsGivenBack) {
  FrameServer server;
  Driver driver = Connect(server);
  server.StopReading(true);
  const StateRequest lock{.op = StateOp::kLock, .key = "free", .mode = protocol::LockMode::kWrite};
  EXPECT_EQ(driver.Wait(client::SubmitState(*driver, lock, DeadlineIn(kSoonNs))).status.code(),
            Code::kStateLockTimeout);
  server.StopReading(false);
  driver.PollUntil([&] { return server.unlocks() == 1; });
  EXPECT_EQ(driver->in_flight(), 0u);
}

TEST(Connection, AWaitingLockCanBeWithdrawn) {
  FrameServer server;
  Driver driver = Connect(server);
  const StateRequest lock{.op = StateOp::kLock, .key = "taken"};
  const uint64_t waiting = *client::SubmitState(*driver, lock, 0);
  driver.Poll();
  driver->Cancel(waiting);
  EXPECT_EQ(driver.Wait(waiting).status.code(), Code::kInvocationCancelled);
  const uint64_t granted = *client::SubmitState(*driver, lock, 0);
  driver.PollUntil([&] { return (server.GrantLocks(), driver.outcomes().contains(granted)); });
  EXPECT_TRUE(driver.Wait(granted).status.ok());
}

TEST(Connection, LocksThatWaitLeaveRoomForOthers) {
  FrameServer server({.max_in_flight = 2});
  Driver driver = Connect(server);
  const StateRequest lock{.op = StateOp::kLock, .key = "taken"};
  std::vector<uint64_t> locks;
  for (int i = 0; i < 5; ++i) locks.push_back(*client::SubmitState(*driver, lock, 0));
  driver.PollUntil([&] { return server.locks_waiting() == locks.size(); });
  const Bytes value = ToBytes("v");
  const StateRequest set{.op = StateOp::kSet, .key = "k", .data = value};
  EXPECT_TRUE(driver.Wait(client::SubmitState(*driver, set, DeadlineIn(kWatchdogNs))).status.ok());
  EXPECT_TRUE(driver.Call(kEcho, {}).status.ok());
  driver->Cancel(locks.back());
  EXPECT_EQ(driver.Wait(locks.back()).status.code(), Code::kInvocationCancelled);
  server.GrantLocks();
  for (size_t i = 0; i + 1 < locks.size(); ++i) EXPECT_TRUE(driver.Wait(locks[i]).status.ok());
}

TEST(Connection, LocksAndReleasesPassWhatWaitsForRoom) {
  FrameServer server({.max_in_flight = 1});
  Driver driver = Connect(server);
  const uint64_t stream = *driver->OpenStream(kStreamEcho, 0, 0);
  driver.PollUntil([&] { return driver.streams()[stream].room > 0; });
  const Bytes value = ToBytes("v");
  const StateRequest set{.op = StateOp::kSet, .key = "k", .data = value};
  const uint64_t waiting = *client::SubmitState(*driver, set, 0);
  const StateRequest lock{.op = StateOp::kLock, .key = "free"};
  EXPECT_TRUE(driver.Wait(client::SubmitState(*driver, lock, DeadlineIn(kWatchdogNs))).status.ok());
  const StateRequest unlock{.op = StateOp::kUnlock, .lock = 99};
  EXPECT_TRUE(driver.Wait(client::SubmitState(*driver, unlock, DeadlineIn(kWatchdogNs))).status.ok());
  EXPECT_FALSE(driver.outcomes().contains(waiting));
  ASSERT_TRUE(driver->SendChunk(stream, {}, true).ok());
  EXPECT_TRUE(driver.Wait(waiting).status.ok());
}

TEST(Connection, AdministrationIsText) {
  FrameServer server;
  Driver driver = Connect(server);
  const Driver::Outcome outcome = driver.Wait(client::SubmitAdmin(*driver, 1, R"({"a":1})", 0));
  transport::Reply reply;
  reply.status = outcome.status;
  reply.payload = outcome.payload;
  EXPECT_EQ(*client::DecodeAdminReply(reply), R"({"a":1})");
}

TEST(Connection, BuffersAreMemory) {
  FrameServer server;
  Driver driver = Connect(server);
  Result<transport::Buffer> buffer = driver->Allocate(100'000);
  ASSERT_TRUE(buffer.ok());
  const Bytes input = Pattern(100'000, 1);
  std::copy(input.begin(), input.end(), buffer->data);
  const Driver::Outcome outcome = driver.Call(kEcho, {buffer->data, buffer->bytes}, {buffer->data, buffer->bytes});
  EXPECT_EQ(outcome.payload, input);
  EXPECT_EQ(outcome.lay_at, buffer->data);
  driver->Release(*buffer);
  driver->Release(*buffer);
  EXPECT_TRUE(driver->Allocate(0).ok());
}

TEST(Connection, SpinsThenSleeps) {
  FrameServer server;
  Driver driver = Connect(server);
  const uint64_t spun = *driver->Invoke(kEcho, {}, {}, 0, 0);
  EXPECT_TRUE(driver.Wait(spun, 1'000'000'000).status.ok());
  const uint64_t slept = *driver->Invoke(kHold, {}, {}, 0, 0);
  std::thread releaser([&] {
    while (server.held() == 0) std::this_thread::yield();
    server.ReleaseHeld();
  });
  EXPECT_TRUE(driver.Wait(slept, 1000).status.ok());
  releaser.join();
  EXPECT_EQ(driver.Wait(424242).status.code(), Code::kInternal) << "an unknown call is not waited for";
}

}  // namespace
}  // namespace praas::test
