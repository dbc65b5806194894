// The contract of transport.h over every backend, against a real host with real workers.
//
// A new backend is one more entry of AllBackends: a name and how to make one for a host.

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/handshake.h"
#include "host/host_fixture.h"
#include "support/rdma.h"
#include "transport/direct_transport.h"
#include "transport/loopback.h"
#include "transport/stream_transport.h"
#include "transport/tcp.h"

namespace praas::test {
namespace {

using transport::Buffer;
using transport::Reply;
using transport::Request;
using transport::Transport;

/// One connection of the backend under test.
class Backend {
 public:
  virtual ~Backend() = default;
  [[nodiscard]] virtual Transport& transport() = 0;
  /// What the owner of a transport does besides Poll: keeps an eye on the connection it came from.
  virtual void Attend() {}
};

/// Carries bytes between a loopback pair and the host, so that a real host meets the pair's faults.
class Relay {
 public:
  Relay(const transport::LoopbackFaults& faults, uint16_t port) {
    Result<transport::LoopbackPair> pair = transport::LoopbackPair::Create(faults);
    EXPECT_TRUE(pair.ok());
    pair_.emplace(std::move(*pair));
    near_ = pair_->TakeServer();
    Result<std::unique_ptr<transport::TcpStream>> far =
        transport::TcpConnect("127.0.0.1", port, DeadlineIn(kWatchdogNs));
    EXPECT_TRUE(far.ok()) << far.status().message();
    far_ = std::move(*far);
    thread_ = std::thread([this] { Run(); });
  }
  ~Relay() {
    stop_ = true;
    thread_.join();
  }
  [[nodiscard]] std::unique_ptr<transport::ByteStream> TakeClient() { return pair_->TakeClient(); }

 private:
  struct Direction {
    transport::ByteStream& from;
    transport::ByteStream& to;
    Bytes bytes = Bytes(64 * 1024);
    size_t begin = 0, end = 0;

    /// false: one of the sides has ended.
    bool Move() {
      if (begin == end) {
        const Result<size_t> got = from.Read(bytes);
        if (!got.ok()) return false;
        begin = 0;
        end = *got;
      }
      if (begin == end) return true;
      const iovec part{bytes.data() + begin, end - begin};
      const Result<size_t> sent = to.Write({&part, 1});
      if (!sent.ok()) return false;
      begin += *sent;
      return true;
    }
  };
  void Run() {
    Direction out{*near_, *far_}, in{*far_, *near_};
    while (!stop_ && out.Move() && in.Move()) {
      pair_->Step();
      pollfd waiting[] = {{near_->fd(), POLLIN, 0}, {far_->fd(), POLLIN, 0}};
      if (out.begin == out.end && in.begin == in.end) ::poll(waiting, 2, 1);
    }
    near_->Close();
    far_->Close();
  }

  std::optional<transport::LoopbackPair> pair_;
  std::unique_ptr<transport::ByteStream> near_, far_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

class StreamBackend : public Backend {
 public:
  StreamBackend(const char* name, std::unique_ptr<transport::ByteStream> stream, std::unique_ptr<Relay> relay = nullptr)
      : relay_(std::move(relay)), transport_(name, std::move(stream)) {
    const Result<protocol::Welcome> welcome = client::Handshake(transport_, OptionsFor(0), DeadlineIn(kWatchdogNs));
    EXPECT_TRUE(welcome.ok()) << welcome.status().message();
  }
  Transport& transport() override { return transport_; }

 private:
  std::unique_ptr<Relay> relay_;
  transport::StreamTransport transport_;
};

class DirectBackend : public Backend {
 public:
  DirectBackend(const char* name, std::unique_ptr<transport::ByteStream> stream) : wire_("tcp", std::move(stream)) {
    client::ConnectOptions options = OptionsFor(0);
    options.transport = name;
    options.window_bytes = 64u << 20;
    const Result<protocol::Welcome> welcome = client::Handshake(wire_, options, DeadlineIn(kWatchdogNs));
    EXPECT_TRUE(welcome.ok()) << welcome.status().message();
    Result<client::Upgraded> upgraded = client::Upgrade(wire_, options, *welcome, DeadlineIn(kWatchdogNs));
    EXPECT_TRUE(upgraded.ok()) << upgraded.status().message();
    direct_ = std::move(upgraded->transport);
    EXPECT_STREQ(direct_->name(), name);
  }
  Transport& transport() override { return *direct_; }
  void Attend() override {
    wire_.Poll([](const Reply&) {});
    if (!wire_.lost().ok()) direct_->Fail(wire_.lost());
  }

 private:
  transport::StreamTransport wire_;
  std::unique_ptr<transport::DirectTransport> direct_;
};

struct BackendFactory {
  std::string name;
  std::function<std::unique_ptr<Backend>(uint16_t port)> make;

  friend void PrintTo(const BackendFactory& factory, std::ostream* out) { *out << factory.name; }
};

std::unique_ptr<transport::ByteStream> Dial(uint16_t port) {
  Result<std::unique_ptr<transport::TcpStream>> stream =
      transport::TcpConnect("127.0.0.1", port, DeadlineIn(kWatchdogNs));
  EXPECT_TRUE(stream.ok()) << stream.status().message();
  return std::move(*stream);
}

BackendFactory Loopback(std::string name, const transport::LoopbackFaults& faults) {
  return {std::move(name), [faults](uint16_t port) {
            std::printf("loopback: %s\n", faults.ToText().c_str());
            auto relay = std::make_unique<Relay>(faults, port);
            auto stream = relay->TakeClient();
            return std::make_unique<StreamBackend>("loopback", std::move(stream), std::move(relay));
          }};
}

std::vector<BackendFactory> AllBackends() {
  return {
      {"tcp", [](uint16_t port) { return std::make_unique<StreamBackend>("tcp", Dial(port)); }},
      {"shm", [](uint16_t port) { return std::make_unique<DirectBackend>("shm", Dial(port)); }},
      {"verbs", [](uint16_t port) { return std::make_unique<DirectBackend>("verbs", Dial(port)); }},
      Loopback("loopback", {}),
      Loopback("loopbackSplits", {.seed = 11, .split = 600'000}),
      Loopback("loopbackDelays", {.seed = 12, .stall = 300'000, .max_delay = 4}),
      Loopback("loopbackSplitsAndDelays", {.seed = 13, .split = 300'000, .stall = 100'000, .max_delay = 3}),
  };
}

class Conformance : public ::testing::TestWithParam<BackendFactory> {
 protected:
  Conformance() : host_(process_) {}
  ~Conformance() override {
    backend_.reset();
    host_.Stop();
  }
  void SetUp() override {
    if (GetParam().name == "verbs") {
      if (const std::string reason = NoRdmaDevice(); !reason.empty()) GTEST_SKIP() << reason;
    }
    ASSERT_TRUE(host_.status().ok()) << host_.status().message();
    host_.AddWorkers(1);
    backend_ = GetParam().make(host_.port());
  }

  [[nodiscard]] Transport& transport() { return backend_->transport(); }

  struct Outcome {
    Status status{};
    Bytes payload{};
    const std::byte* lay_at = nullptr;
  };

  size_t Poll() {
    backend_->Attend();
    return transport().Poll([this](const Reply& reply) {
      EXPECT_FALSE(outcomes_.contains(reply.call)) << "call " << reply.call << " was answered twice";
      outcomes_[reply.call] = {reply.status, {reply.payload.begin(), reply.payload.end()}, reply.payload.data()};
      if (on_reply_) on_reply_(reply);
    });
  }
  template <typename Predicate>
  void PollUntil(Predicate predicate) {
    const uint64_t deadline = DeadlineIn(kWatchdogNs);
    while (!predicate()) {
      if (Poll() == 0) std::this_thread::yield();
      ASSERT_LT(NowNs(), deadline) << "nothing happened";
    }
  }

  /// Submits, making room by polling as an owner does.
  uint64_t Submit(uint32_t function, std::span<const std::byte> input, std::span<std::byte> output = {},
                  uint64_t deadline_ns = DeadlineIn(kWatchdogNs)) {
    Request request;
    request.call = ++last_call_;
    request.function = function;
    request.deadline_ns = deadline_ns;
    request.input = input;
    request.output = output;
    PollUntil([&] {
      const Result<bool> taken = transport().Submit(request);
      EXPECT_TRUE(taken.ok()) << taken.status().message();
      return !taken.ok() || *taken;
    });
    return request.call;
  }
  Outcome& Await(uint64_t call) {
    PollUntil([&] { return outcomes_.contains(call); });
    return outcomes_[call];
  }
  Outcome& Call(uint32_t function, std::span<const std::byte> input, std::span<std::byte> output = {}) {
    return Await(Submit(function, input, output));
  }

  TestProcess process_;
  HostRun host_;
  std::unique_ptr<Backend> backend_;
  std::map<uint64_t, Outcome> outcomes_;
  std::function<void(const Reply&)> on_reply_;
  uint64_t last_call_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Backends, Conformance, ::testing::ValuesIn(AllBackends()),
                         [](const auto& parameter) { return parameter.param.name; });

const size_t kSizes[] = {0, 1, 63, 4095, 4096, 4097, 65'536, 1'000'003};

TEST_P(Conformance, InputsAndResultsOfEverySize) {
  for (const size_t size : kSizes) {
    const Bytes input = Pattern(size, static_cast<uint32_t>(size));
    const Outcome& outcome = Call(fn::kEcho, input);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
    EXPECT_EQ(outcome.payload, input) << size;
  }
}

TEST_P(Conformance, ResultsLieInTheOutputWhenTheyFit) {
  for (const size_t size : kSizes) {
    const Bytes input = Pattern(size, static_cast<uint32_t>(size));
    Bytes output(size + 5, std::byte{9});
    const Outcome& outcome = Call(fn::kEcho, input, output);
    EXPECT_EQ(outcome.payload, input) << size;
    if (size > 0) {
      EXPECT_EQ(outcome.lay_at, output.data()) << size;
    }
    EXPECT_TRUE(std::all_of(output.begin() + static_cast<ptrdiff_t>(size), output.end(),
                            [](std::byte b) { return b == std::byte{9}; }));
  }
}

TEST_P(Conformance, ResultsLargerThanTheOutputArriveAllTheSame) {
  Bytes output(100, std::byte{9});
  const Outcome& outcome = Call(fn::kGrow, AsBytes("300000"), output);
  EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
  EXPECT_EQ(outcome.payload, PatternOf(300'000));
  EXPECT_EQ(output, Bytes(100, std::byte{9}));
}

TEST_P(Conformance, AllocatedMemoryIsUsedForBoth) {
  constexpr size_t kSize = 200'000;
  Result<Buffer> input = transport().Allocate(kSize);
  Result<Buffer> output = transport().Allocate(kSize);
  ASSERT_TRUE(input.ok() && output.ok());
  const Bytes pattern = Pattern(kSize, 1);
  std::copy(pattern.begin(), pattern.end(), input->data);
  for (int i = 0; i < 3; ++i) {
    const Outcome& outcome = Call(fn::kEcho, {input->data, kSize}, {output->data, kSize});
    EXPECT_EQ(outcome.payload, pattern);
    EXPECT_TRUE(outcome.lay_at == output->data || outcome.lay_at == input->data);
  }
  transport().Release(*input);
  transport().Release(*output);
  EXPECT_TRUE(transport().Allocate(0).ok());
}

TEST_P(Conformance, FunctionErrorsAndUnknownFunctions) {
  const Outcome& threw = Call(fn::kFail, AsBytes(R"({"name":"Error"})"));
  EXPECT_EQ(threw.status.code(), Code::kFunctionThrew);
  EXPECT_EQ(threw.status.message(), R"({"name":"Error"})");
  EXPECT_TRUE(threw.payload.empty());
  EXPECT_EQ(Call(12345, {}).status.code(), Code::kFunctionUnknown);
  EXPECT_TRUE(Call(fn::kEcho, {}).status.ok());
}

TEST_P(Conformance, LongErrorsArriveWhole) {
  Result<Buffer> output = transport().Allocate(100'000);
  ASSERT_TRUE(output.ok());
  const std::span<std::byte> memory(output->data, 100'000);
  for (const size_t size : {4095, 4096, 4097, 20'000}) {
    const std::string text(size, 'x');
    for (const bool offered : {false, true}) {
      const Outcome& threw = Call(fn::kFail, AsBytes(text), offered ? memory : std::span<std::byte>());
      EXPECT_EQ(threw.status.code(), Code::kFunctionThrew);
      EXPECT_TRUE(threw.status.message() == text) << threw.status.message().size() << " of " << size;
    }
  }
  transport().Release(*output);
}

TEST_P(Conformance, ManyInFlightEachGetTheirOwnResult) {
  std::mt19937 random(7);
  std::map<uint64_t, Bytes> expected;
  std::vector<Bytes> inputs;
  for (uint32_t i = 0; i < 300; ++i) inputs.push_back(Pattern(random() % (random() % 8 == 0 ? 60'000 : 500), i));
  for (const Bytes& input : inputs) expected[Submit(fn::kEcho, input)] = input;
  for (const auto& [call, input] : expected) EXPECT_EQ(Await(call).payload, input);
  EXPECT_EQ(Poll(), 0u);
}

TEST_P(Conformance, DeadlinesAreKeptByThePeer) {
  const uint64_t call = Submit(fn::kStuck, {}, {}, DeadlineIn(50'000'000));
  EXPECT_EQ(Await(call).status.code(), Code::kInvocationTimeout);
}

TEST_P(Conformance, CancelEndsARunningCall) {
  const uint64_t call = Submit(fn::kSleep, AsBytes("60000"));
  for (int i = 0; i < 10; ++i) Poll();
  transport().Cancel(call);
  const Outcome& outcome = Await(call);
  EXPECT_TRUE(outcome.status.ok() || outcome.status.code() == Code::kInvocationCancelled) << outcome.status.message();
  transport().Cancel(call);
  transport().Cancel(99'999);
  EXPECT_TRUE(Call(fn::kEcho, {}).status.ok());
}

TEST_P(Conformance, AnAbandonedCallLeavesTheCallersMemoryAlone) {
  constexpr size_t kSize = 100'000;
  auto input = std::make_unique<Bytes>(Pattern(kSize, 1));
  auto output = std::make_unique<Bytes>(kSize, std::byte{3});
  const uint64_t call = Submit(fn::kEcho, *input, *output);
  transport().Abandon(call);
  input.reset();
  const Outcome& outcome = Await(call);
  EXPECT_TRUE(outcome.payload.empty());
  EXPECT_EQ(*output, Bytes(kSize, std::byte{3}));
  EXPECT_TRUE(Call(fn::kEcho, {}).status.ok());
}

TEST_P(Conformance, SinksMaySubmit) {
  int left = 30;
  on_reply_ = [&](const Reply&) {
    if (--left <= 0) return;
    Request request;
    request.call = ++last_call_;
    request.function = fn::kEcho;
    request.deadline_ns = DeadlineIn(kWatchdogNs);
    EXPECT_TRUE(*transport().Submit(request));
  };
  Submit(fn::kEcho, {});
  PollUntil([&] { return left == 0; });
}

TEST_P(Conformance, ItsDescriptorsTellWhenToPoll) {
  for (int i = 0; i < 20; ++i) {
    const Bytes input = Pattern(static_cast<size_t>(i) * 997, 1);
    const uint64_t call = Submit(fn::kEcho, input);
    const uint64_t deadline = DeadlineIn(kWatchdogNs);
    while (!outcomes_.contains(call) && NowNs() < deadline) {
      if (Poll() > 0 || !transport().PrepareToSleep()) continue;
      pollfd waiting{transport().fd(), static_cast<short>(POLLIN | (transport().wants_write() ? POLLOUT : 0)), 0};
      ASSERT_GT(::poll(&waiting, 1, 60'000), 0) << "slept through an answer";
    }
    EXPECT_EQ(outcomes_[call].payload, input);
  }
}

TEST_P(Conformance, TheEndOfThePeerFailsEveryCallOnce) {
  std::vector<uint64_t> calls;
  const Bytes input = Pattern(5000, 1);
  for (int i = 0; i < 5; ++i) calls.push_back(Submit(fn::kStuck, input));
  for (int i = 0; i < 10; ++i) Poll();
  host_.Stop();
  for (const uint64_t call : calls) {
    const Code code = Await(call).status.code();
    // A host that is stopped in order may still say what became of a call.
    EXPECT_TRUE(code == Code::kHostLost || code == Code::kConnectionLost || code == Code::kWorkerCrashed ||
                code == Code::kProcessDraining || code == Code::kInvocationCancelled)
        << CodeName(code);
  }
  PollUntil([&] {
    Request request;
    request.call = ++last_call_;
    request.deadline_ns = DeadlineIn(kWatchdogNs);
    return !transport().Submit(request).ok();
  });
  PollUntil([&] { return outcomes_.size() + 1 >= last_call_; });
}

TEST_P(Conformance, CloseFailsEveryCallOnceAndIsFinal) {
  std::vector<uint64_t> calls;
  for (int i = 0; i < 5; ++i) calls.push_back(Submit(fn::kStuck, {}));
  transport().Close();
  transport().Close();
  EXPECT_TRUE(transport().closed());
  for (const uint64_t call : calls) EXPECT_EQ(Await(call).status.code(), Code::kConnectionClosed);
  Request request;
  request.call = ++last_call_;
  EXPECT_EQ(transport().Submit(request).status().code(), Code::kConnectionClosed);
  EXPECT_EQ(transport().Allocate(10).status().code(), Code::kConnectionClosed);
  EXPECT_EQ(Poll(), 0u);
}

/// Faults that break delivery: whatever happens, every call ends, and no result is wrong.
void CheckUnderFaults(uint16_t port, const transport::LoopbackFaults& faults) {
  SCOPED_TRACE(faults.ToText());
  Relay relay(faults, port);
  client::ConnectOptions options = OptionsFor(0);
  options.checksum = true;
  options.timeout_ns = 1'000'000'000;
  Result<std::unique_ptr<client::Connection>> connection =
      client::Connection::Over(relay.TakeClient(), "loopback", options);
  if (!connection.ok()) return;
  Driver driver(std::move(*connection));
  std::mt19937 random(static_cast<uint32_t>(faults.seed));
  std::vector<Bytes> inputs;
  std::vector<Result<uint64_t>> calls;
  for (uint32_t i = 0; i < 60; ++i) inputs.push_back(Pattern(random() % 20'000, i));
  for (const Bytes& input : inputs) calls.push_back(driver->Invoke(fn::kEcho, input, {}, 0, DeadlineIn(400'000'000)));
  for (size_t i = 0; i < calls.size(); ++i) {
    const Driver::Outcome outcome = driver.Wait(calls[i]);
    if (outcome.status.ok()) {
      EXPECT_EQ(outcome.payload, inputs[i]);
    } else {
      EXPECT_NE(outcome.status.code(), Code::kInternal) << outcome.status.message();
    }
  }
  EXPECT_EQ(driver.repeated(), 0u);
  EXPECT_EQ(driver->in_flight(), 0u);
}

class FaultyLoopback : public ::testing::Test {
 protected:
  FaultyLoopback() : host_(process_) { host_.AddWorkers(1); }
  TestProcess process_;
  HostRun host_;
};

TEST_F(FaultyLoopback, LostConnections) {
  for (uint64_t seed = 1; seed <= 6; ++seed)
    CheckUnderFaults(host_.port(), {.seed = seed, .split = 200'000, .cut_after = seed * 40'000});
}

TEST_F(FaultyLoopback, LostBytes) {
  for (uint64_t seed = 1; seed <= 4; ++seed)
    CheckUnderFaults(host_.port(), {.seed = seed, .split = 500'000, .lose_byte = 30'000});
}

TEST_F(FaultyLoopback, CorruptedBytes) {
  for (uint64_t seed = 1; seed <= 4; ++seed)
    CheckUnderFaults(host_.port(), {.seed = seed, .split = 500'000, .corrupt = 50'000});
}

}  // namespace
}  // namespace praas::test
