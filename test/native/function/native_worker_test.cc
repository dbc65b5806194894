// praas-worker behind a real host: what its functions may do, and what becomes of their calls when they do something
// else.

#include <dirent.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "function/native_host.h"
#include "host/kept_state.h"
#include "window/layout.h"

namespace praas::test {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

/// A host whose workers are praas-worker.
class NativeWorkers : public ::testing::TestWithParam<const char*> {
 protected:
  void Start(const std::string& functions, uint32_t workers = 1, int64_t hot_ms = 1) {
    process_.assignment.workers = 0;
    process_.assignment.native_workers = workers;
    process_.assignment.native = functions;
    process_.assignment.hot_ms = hot_ms;
    host_ = StartNativeHost(process_.assignment);
    ASSERT_NE(host_, nullptr);
    client::ConnectOptions connect = OptionsFor(host_->port());
    connect.transport = GetParam();
    connect.window_bytes = 64u << 20;
    client_.reset(new Driver(Connect(connect)));  // in place: its sinks know its address
  }
  void TearDown() override {
    client_.reset();
    host_.reset();
  }

  uint32_t Index(const std::string& name) { return IndexOf(*client_, name); }
  Driver::Outcome Call(const std::string& name, std::span<const std::byte> input = {}, uint64_t deadline_ns = 0) {
    return client_->Call(Index(name), input, {}, deadline_ns);
  }
  std::string Text(const std::string& name, std::string_view input = {}) {
    const Driver::Outcome outcome = Call(name, AsBytes(input));
    EXPECT_TRUE(outcome.status.ok()) << name << ": " << outcome.status.message();
    return AsText(outcome.payload);
  }
  pid_t WorkerPid() { return PidIn(Call("worker_pid")); }
  /// The function ends its worker, its caller is told with these words, and the next call finds another worker.
  void ExpectCrash(const std::string& name, std::span<const std::byte> input, const std::vector<std::string>& words) {
    const pid_t before = WorkerPid();
    const Driver::Outcome outcome = Call(name, input);
    EXPECT_EQ(outcome.status.code(), Code::kWorkerCrashed) << name << ": " << outcome.status.message();
    for (const std::string& word : words) {
      EXPECT_NE(outcome.status.message().find(word), std::string::npos) << name << ": " << outcome.status.message();
    }
    EXPECT_NE(WorkerPid(), before) << name;
  }

  TestProcess process_;
  std::unique_ptr<host::Host> host_;
  std::unique_ptr<Driver> client_;
};

INSTANTIATE_TEST_SUITE_P(Transports, NativeWorkers, ::testing::Values("tcp", "shm"),
                         [](const auto& info) { return std::string(info.param); });

std::vector<std::byte> Number(uint32_t number) {
  std::vector<std::byte> bytes(sizeof number);
  std::memcpy(bytes.data(), &number, sizeof number);
  return bytes;
}

TEST_P(NativeWorkers, RawFunctionsTakeAndGiveEverySize) {
  Start(Raw("copy") + Raw("full"));
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{15}, size_t{16}, size_t{4095}, size_t{4096}, size_t{4097},
                             size_t{8192}, size_t{100'000}, kMaxOutput - 1, size_t{kMaxOutput}}) {
    const Bytes input = PatternOf(bytes);
    const Driver::Outcome outcome = Call("copy", input);
    EXPECT_TRUE(outcome.status.ok()) << bytes << ": " << outcome.status.message();
    EXPECT_EQ(outcome.payload, input) << bytes;
  }
  const Driver::Outcome full = Call("full", Number(kMaxOutput));
  EXPECT_EQ(full.payload, Bytes(kMaxOutput, std::byte{7})) << "to the last byte";
  ExpectClean(*client_);
}

TEST_P(NativeWorkers, ManyCallsInFlightGetTheirOwnResults) {
  Start(Raw("copy"), 2, GetParam() == std::string("shm") ? -1 : 0);
  const uint32_t copy = Index("copy");
  std::vector<Bytes> inputs;
  std::vector<uint64_t> calls;
  for (size_t i = 0; i < 40; ++i) inputs.push_back(Bytes(1 + i * 1777, static_cast<std::byte>(i)));
  for (int round = 0; round < 5; ++round) {
    calls.clear();
    for (const Bytes& input : inputs) {
      auto call = (*client_)->Invoke(copy, input, {}, 0, DeadlineIn(kWatchdogNs));
      ASSERT_TRUE(call.ok()) << call.status().message();
      calls.push_back(*call);
    }
    for (size_t i = 0; i < calls.size(); ++i) {
      const Driver::Outcome outcome = client_->Wait(calls[i]);
      EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
      EXPECT_EQ(outcome.payload, inputs[i]) << i;
    }
  }
  ExpectClean(*client_);
}

TEST_P(NativeWorkers, RawFunctionsMayWriteToTheirInput) {
  Start(Raw("write_input") + Raw("copy"));
  for (const size_t bytes : {size_t{10}, size_t{4096}, size_t{20'000}}) {
    Bytes input = PatternOf(bytes);
    const Bytes before = input;
    const Driver::Outcome outcome = Call("write_input", input);
    ASSERT_EQ(outcome.payload.size(), bytes) << outcome.status.message();
    for (size_t i = 0; i < bytes; ++i) ASSERT_EQ(outcome.payload[i], before[i] ^ std::byte{0x20});
    EXPECT_EQ(Call("copy", input).payload, before) << "the next call sees what its caller wrote";
  }
}

TEST_P(NativeWorkers, OverrunsAreFoundAndEndTheWorker) {
  Start(Raw("worker_pid") + Raw("overrun_byte") + Raw("overrun_page") + Raw("overrun_far") + Raw("overrun_jump") +
        Raw("underrun_byte") + Raw("underrun_far") + Raw("copy"));
  const std::vector<std::byte> capacity = Number(kMaxOutput);
  ExpectCrash("overrun_byte", capacity, {"overrun_byte", "maxOutput", std::to_string(kMaxOutput)});
  for (const char* name : {"overrun_page", "overrun_far", "overrun_jump", "underrun_far"}) {
    ExpectCrash(name, capacity, {name, kSanitized ? name : "\"signal\":11"});
  }
  ExpectCrash("underrun_byte", capacity, {"underrun_byte"});
  EXPECT_EQ(Call("copy", PatternOf(5000)).payload, PatternOf(5000));
}

TEST_P(NativeWorkers, ATooLargeSizeIsAnErrorAndNotAResult) {
  Start(Raw("worker_pid") + Raw("result_too_large") + Raw("result_largest"));
  const pid_t before = WorkerPid();
  const Driver::Outcome outcome = Call("result_too_large", Number(kMaxOutput));
  EXPECT_EQ(outcome.status.code(), Code::kFunctionResult) << outcome.status.message();
  EXPECT_NE(outcome.status.message().find(std::to_string(kMaxOutput + 1)), std::string::npos);
  EXPECT_EQ(Call("result_largest").status.code(), Code::kFunctionResult);
  EXPECT_EQ(WorkerPid(), before) << "nothing has happened to it";
}

TEST_P(NativeWorkers, CrashesAreToldWithSignalAndLastWords) {
  Start(Raw("worker_pid") + Raw("segfault") + Raw("divide_by_zero") + Raw("aborts") + Raw("exits") +
        Raw("exits_with_3") + Raw("kills_itself"));
  const std::string nothing = "\"";
  ExpectCrash("segfault", {}, {kSanitized ? nothing : "\"signal\":11", "about to write to address 8"});
  ExpectCrash("divide_by_zero", {}, {kSanitized ? nothing : "\"signal\":8"});
  ExpectCrash("aborts", {}, {"\"signal\":6"});
  ExpectCrash("exits", {}, {"\"exitCode\":0", "called exit()"});
  ExpectCrash("exits_with_3", {}, {"\"exitCode\":3"});
  ExpectCrash("kills_itself", {}, {"\"signal\":9"});
}

TEST_P(NativeWorkers, AStackOverflowIsCalledOne) {
  if (kSanitized) GTEST_SKIP() << "the sanitizer has its own words for it";
  Start(Raw("worker_pid") + Raw("stack_overflow"));
  ExpectCrash("stack_overflow", {}, {"\"signal\":11", "overflowed its stack"});
}

TEST_P(NativeWorkers, AnExceptionThatLeavesARawFunctionEndsTheWorkerWithItsText) {
  Start(Raw("worker_pid") + Raw("throws"));
  ExpectCrash("throws", {}, {"throws", "\"signal\":6", "std::runtime_error", "nobody catches this"});
}

TEST_P(NativeWorkers, AFunctionThatNeverReturnsIsEndedAtItsDeadline) {
  Start(Raw("worker_pid") + Raw("infinite_loop"));
  const pid_t before = WorkerPid();
  const Driver::Outcome outcome = Call("infinite_loop", {}, DeadlineIn(50'000'000));
  EXPECT_EQ(outcome.status.code(), Code::kInvocationTimeout) << outcome.status.message();
  EXPECT_NE(WorkerPid(), before);
}

TEST_P(NativeWorkers, ClosingEveryDescriptorEndsTheWorkerAndLosesNoCall) {
  Start(Raw("worker_pid") + Raw("close_descriptors") + Raw("copy"));
  const pid_t before = WorkerPid();
  // Whether its own result can still be told is a matter of who is awake; that the caller hears of it is not.
  const uint64_t deadline = DeadlineIn(kWatchdogNs);
  const Driver::Outcome outcome = Call("close_descriptors", PatternOf(10), deadline);
  EXPECT_LT(NowNs(), deadline) << "nobody woke the client";
  if (outcome.status.ok()) {
    EXPECT_EQ(outcome.payload, PatternOf(10));
  } else {
    EXPECT_EQ(outcome.status.code(), Code::kWorkerCrashed) << outcome.status.message();
  }
  // A worker that is still there may be given this one.
  const Driver::Outcome next = Call("copy", PatternOf(5000));
  EXPECT_TRUE(next.status.ok()) << next.status.message();
  EXPECT_EQ(next.payload, PatternOf(5000));
  EXPECT_TRUE(Eventually([&] { return ::kill(before, 0) != 0; }));
  EXPECT_NE(WorkerPid(), before);
}

TEST_P(NativeWorkers, ACallThatAWorkerCannotBeginGoesToAnother) {
  // The first needs no descriptor for its result, the second one for memory that no call had before.
  Start(Raw("worker_pid", 16) + Raw("close_memory", 16) + Raw("copy"));
  const pid_t before = WorkerPid();
  const Driver::Outcome closed = Call("close_memory");
  EXPECT_TRUE(closed.status.ok()) << closed.status.message();
  const Driver::Outcome copied = Call("copy", PatternOf(5000));
  EXPECT_TRUE(copied.status.ok()) << CodeName(copied.status.code()) << ": " << copied.status.message();
  EXPECT_EQ(copied.payload, PatternOf(5000));
  EXPECT_NE(WorkerPid(), before);
}

TEST_P(NativeWorkers, AWorkerWithoutMemoryForAnOutputIsReplaced) {
  Start(InC("forget_memory") + InC("filled"));
  const Driver::Outcome closed = Call("forget_memory");
  EXPECT_TRUE(closed.status.ok()) << closed.status.message();
  const Driver::Outcome lost = Call("filled", AsBytes("100000"));
  EXPECT_EQ(lost.status.code(), Code::kWorkerCrashed) << lost.status.message();
  EXPECT_EQ(Call("filled", AsBytes("100000")).payload, Bytes(100'000, std::byte{7}));
}

TEST_P(NativeWorkers, AForkedChildIsNoSecondWorkerAndDoesNotOutliveTheFirst) {
  Start(Raw("worker_pid") + Raw("forks") + Raw("leaves_a_child") + Raw("kills_itself") + Raw("copy"));
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(Call("forks", PatternOf(8)).payload, PatternOf(8));
    EXPECT_EQ(Call("copy", PatternOf(9)).payload, PatternOf(9));
  }
  const Driver::Outcome left = Call("leaves_a_child");
  uint32_t child = 0;
  ASSERT_EQ(left.payload.size(), sizeof child) << left.status.message();
  std::memcpy(&child, left.payload.data(), sizeof child);
  EXPECT_EQ(::kill(static_cast<pid_t>(child), 0), 0);
  ExpectCrash("kills_itself", {}, {});
  EXPECT_TRUE(Eventually([&] { return ::kill(static_cast<pid_t>(child), 0) != 0; }));
  ExpectClean(*client_);
}

TEST_P(NativeWorkers, AnIdempotentCallIsRunAgainWhenItsWorkerIsKilled) {
  Start(Raw("worker_pid") + Raw("sleeps_forever", 16, segment::kFunctionIdempotent), 2);
  const uint32_t function = Index("sleeps_forever");
  auto call = (*client_)->Invoke(function, {}, {}, protocol::kIdempotent, DeadlineIn(kWatchdogNs));
  ASSERT_TRUE(call.ok());
  const auto busy = [&] {
    const std::string stats = StatsOf(*client_);
    const size_t at = stats.find("\"running\":1");
    if (at == std::string::npos) return pid_t{0};
    const size_t pid = stats.rfind("\"pid\":", at);
    return static_cast<pid_t>(std::atoi(stats.c_str() + pid + 6));
  };
  pid_t first = 0;
  ASSERT_TRUE(Eventually([&] { return (first = busy()) != 0; }));
  ASSERT_EQ(::kill(first, SIGKILL), 0);
  pid_t second = 0;
  EXPECT_TRUE(Eventually([&] { return (second = busy()) != 0 && second != first; }));
  // It would never end by itself; the end of the host ends it.
}

TEST_P(NativeWorkers, PayloadsOfOthersCannotBeWritten) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer has mappings of its own";
  Start(Raw("worker_pid") + Raw("copy"));
  for (const size_t bytes : {size_t{100}, size_t{10'000}, size_t{200'000}}) (void)Call("copy", PatternOf(bytes));
  std::ifstream maps("/proc/" + std::to_string(WorkerPid()) + "/maps");
  uint64_t writable = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("memfd:praas-pool") == std::string::npos && line.find("memfd:praas-window") == std::string::npos) {
      continue;
    }
    size_t begin = 0;
    size_t end = 0;
    char permissions[8] = {};
    ASSERT_EQ(std::sscanf(line.c_str(), "%zx-%zx %7s", &begin, &end, permissions), 3) << line;
    // Headers and calls of a window, which tell of calls and are no payloads, and one result area.
    if (permissions[1] == 'w') writable += end - begin;
  }
  EXPECT_LE(writable, window::kSlotsOffset + (kMaxOutput + 8192));
  std::ifstream again("/proc/" + std::to_string(WorkerPid()) + "/maps");
  const std::string all((std::istreambuf_iterator<char>(again)), {});
  EXPECT_NE(all.find("---s"), std::string::npos) << "state, which no raw function uses, is out of reach";
}

TEST_P(NativeWorkers, FunctionsOfTheCInterfaceShareStateAndCallEachOther) {
  Start(InC("reverse") + InC("state_set") + InC("state_get") + InC("state_array") + InC("invoke") + InC("descend") +
        InC("put") + InC("get") + InC("fails") + InC("inner") + InC("filled"));
  EXPECT_EQ(Text("reverse", "stressed"), "desserts");
  EXPECT_EQ(Text("inner", "xinsidex"), "inside");
  EXPECT_EQ(Text("filled", "100000"), std::string(100'000, '\x07'));
  EXPECT_EQ(Text("invoke", "reverse abc"), "cba");
  EXPECT_EQ(Text("descend", "12"), "12") << "calls itself with one worker";
  (void)Text("state_set", "key value");
  EXPECT_EQ(Text("state_get", "key").find("value"), 0u);
  (void)Text("put", "box first");
  (void)Text("put", "box second");
  EXPECT_EQ(Text("get", "box"), "first");
  EXPECT_EQ(Text("get", "box"), "second");
  const Driver::Outcome failed = Call("fails", AsBytes("x"));
  EXPECT_EQ(failed.status.code(), Code::kFunctionThrew);
  EXPECT_NE(failed.status.message().find("asked to fail with 42 and x"), std::string::npos);
  ExpectClean(*client_);
}

TEST_P(NativeWorkers, TheSameNextToRawFunctions) {
  Start(InC("reverse") + InC("filled") + InC("invoke") + InC("state_set") + InC("state_get") + Raw("copy") +
        Raw("twice"));
  EXPECT_EQ(Text("filled", "100000"), std::string(100'000, '\x07'));
  EXPECT_EQ(Text("invoke", "copy through"), "through");
  EXPECT_EQ(Text("invoke", "invoke reverse abc").find("cba"), 0u);
  (void)Text("state_set", "key value");
  EXPECT_EQ(Text("state_get", "key").find("value"), 0u);
  EXPECT_EQ(Call("copy", PatternOf(50'000)).payload, PatternOf(50'000));
  ExpectClean(*client_);
}

TEST_P(NativeWorkers, MoreCallsThanTheDoorbellHoldsBellsWakeAsManyWorkers) {
  Start(Raw("sleeps_forever", 16), 24, 0);
  ASSERT_TRUE(Eventually([&] { return host_->ready_workers() == 24; }));
  const uint32_t function = Index("sleeps_forever");
  std::vector<uint64_t> calls;
  for (int i = 0; i < 24; ++i) {
    auto call = (*client_)->Invoke(function, {}, {}, 0, DeadlineIn(kWatchdogNs));
    ASSERT_TRUE(call.ok());
    calls.push_back(*call);
    client_->Poll();
  }
  const auto running = [&] {
    const std::string stats = StatsOf(*client_);
    size_t count = 0;
    for (size_t at = 0; (at = stats.find("\"running\":1,", at)) != std::string::npos; ++at) ++count;
    return count;
  };
  EXPECT_TRUE(Eventually([&] { return running() == 24; })) << running();
  for (const uint64_t call : calls) (*client_)->Cancel(call);
}

TEST_P(NativeWorkers, AnInputThatWasChangedStaysSoWhileOthersRunOnTop) {
  Start(InC("change_and_invoke") + InC("reverse") + Raw("copy"));
  for (const size_t bytes : {size_t{8}, size_t{5000}, size_t{20'000}}) {
    const std::string input(bytes, 'a');
    EXPECT_EQ(Text("change_and_invoke", input), "b" + std::string(bytes - 1, 'a')) << bytes;
  }
  ExpectClean(*client_);
}

TEST_P(NativeWorkers, MessagesAreNoState) {
  Start(InC("put") + InC("state_keys") + InC("state_get"));
  (void)Text("put", "box hidden");
  EXPECT_EQ(Text("state_keys", "").find("mailbox"), std::string::npos);
  EXPECT_EQ(Text("state_get", "\x01mailbox/box").find("ERR_NAME_INVALID"), 0u);
}

/// What is asked of locks while somebody is stopped inside the state.
class NativeLocks : public NativeWorkers {
 protected:
  uint64_t AskFor(const std::string& name) {
    protocol::StateRequest lock{.op = protocol::StateOp::kLock, .key = name};
    lock.mode = protocol::LockMode::kWrite;
    return client::SubmitState(**client_, lock, DeadlineIn(20'000'000'000)).value();
  }
  /// The function has put its key into the state: it is where the test wants it.
  [[nodiscard]] bool HasKey(const std::string& key) {
    return Eventually([&] {
      const protocol::StateRequest stat{.op = protocol::StateOp::kStat, .key = key};
      return client_->Wait(client::SubmitState(**client_, stat, DeadlineIn(kWatchdogNs))).status.ok();
    });
  }
};
INSTANTIATE_TEST_SUITE_P(Transports, NativeLocks, ::testing::Values("shm"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(NativeLocks, AreReleasedWithTheInvocationThatCouldNotReleaseThem) {
  Start(InC("unlock_late"));
  const uint32_t function = Index("unlock_late");
  const auto call = (*client_)->Invoke(function, AsBytes("l 300"), {}, 0, DeadlineIn(1'500'000'000));
  ASSERT_TRUE(HasKey("l"));
  {
    const KeptState kept(process_);
    EXPECT_EQ(client_->Wait(call).status.code(), Code::kInvocationTimeout);
  }
  const Driver::Outcome next = client_->Wait(AskFor("l"));
  EXPECT_TRUE(next.status.ok()) << next.status.message();
}

TEST_P(NativeLocks, AreGivenUpWithTheInvocationThatDidNotGetThem) {
  Start(InC("lock_in_time"));
  const uint32_t function = Index("lock_in_time");
  const auto held = client_->Wait(AskFor("l"));
  ASSERT_TRUE(held.status.ok()) << held.status.message();
  const auto call = (*client_)->Invoke(function, AsBytes("l 200"), {}, 0, DeadlineIn(kWatchdogNs));
  ASSERT_TRUE(HasKey("l"));
  ::usleep(50'000);  // it waits now
  {
    const KeptState kept(process_);
    ::usleep(2'000'000);
  }
  const Driver::Outcome late = client_->Wait(call);
  EXPECT_EQ(AsText(late.payload).find("ERR_STATE_LOCK_TIMEOUT"), 0u) << late.status.message();
  client_.reset();  // and what it held
  client_.reset(new Driver(Connect(OptionsFor(host_->port()))));
  const Driver::Outcome next = client_->Wait(AskFor("l"));
  EXPECT_TRUE(next.status.ok()) << next.status.message();
}

TEST_P(NativeWorkers, WhatCannotBeLoadedFailsTheProcessWithItsReason) {
  Start(Line("f", "/nowhere/lib.so", function::Abi::kC));
  const Driver::Outcome outcome = client_->Wait((*client_)->Resolve("f", DeadlineIn(kWatchdogNs)));
  EXPECT_EQ(outcome.status.code(), Code::kProcessFailed);
  EXPECT_NE(outcome.status.message().find("/nowhere/lib.so"), std::string::npos) << outcome.status.message();
}

}  // namespace
}  // namespace praas::test
