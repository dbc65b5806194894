#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "support/single_step.h"
#include "window_client.h"

/// A worker that dies at any instruction of a call's life, from taking it to having answered it: every call is answered
/// once, nothing of it stays behind, and other workers go on.
namespace praas::worker {
namespace {

using test::Deaths;

constexpr uint16_t kVictim = 1;
constexpr uint16_t kNext = 2;

/// Gives back what it was given.
void Echo(WorkerRuntime& runtime, const Invocation& invocation) {
  auto output = runtime.AllocateOutput(invocation.handle, invocation.input.size());
  if (output.ok() && !invocation.input.empty()) {
    std::memcpy(output->bytes.data(), invocation.input.data(), invocation.input.size());
  }
  (void)runtime.Complete(invocation.handle, output.ok() ? output->bytes : std::span<std::byte>());
}

/// Serves one call.
void ServeOne(WorkerRuntime& runtime) {
  for (;;) {
    const std::optional<Invocation> invocation = runtime.TryNext(true);
    if (!invocation) continue;
    return Echo(runtime, *invocation);
  }
}

class DeathTest : public ::testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__)
    GTEST_SKIP() << "the life of a call is some 100,000 instructions under this sanitizer";
#endif
  }
  void Start(int64_t hot_ns) {
    client_.reset();
    host_ = std::make_unique<MiniHost>(MiniHost::Options{.hot_ns = hot_ns});
  }
  /// The victim, which keeps `runtime_` for what it does next.
  void Attach() {
    host_->ForgetLinks();
    runtime_ = AttachWorker(std::move(control_));
  }
  void ExpectAnswer(const MiniHost::Reply& reply, bool may_fail) {
    if (reply.code == Code::kOk) {
      EXPECT_TRUE(Equal(reply.payload, input_));
    } else {
      EXPECT_TRUE(may_fail);
      EXPECT_EQ(reply.code, Code::kWorkerCrashed);
    }
  }
  void ExpectAnswer(const window::ClientWindow::Completion& completion) {
    if (completion.status == static_cast<uint32_t>(Code::kOk)) {
      EXPECT_TRUE(Equal(client_->Payload(completion), input_));
    } else {
      EXPECT_EQ(completion.status, static_cast<uint32_t>(Code::kWorkerCrashed));
    }
  }

  std::unique_ptr<MiniHost> host_;
  std::unique_ptr<WindowClient> client_;
  UniqueFd control_;
  std::unique_ptr<WorkerRuntime> runtime_;
  std::vector<std::byte> input_;
};

TEST_F(DeathTest, OverACallOfTheHost) {
  input_ = Pattern(5'000);  // larger than a slot, so that blocks change hands
  for (const uint16_t flags : {uint16_t{0}, uint16_t{dispatch::kCallIdempotent}}) {
    Deaths deaths;
    deaths.most = 12;
    uint32_t index = 0;
    deaths.reset = [&] {
      Start(0);
      host_->Post(0, input_);
      control_ = host_->AddWorker(kVictim);
    };
    deaths.prepare = [&] { Attach(); };
    deaths.before_steps = [&](test::Stepped& victim) {
      ASSERT_TRUE(host_->AwaitReady(kVictim));
      victim.Run();
      ExpectAnswer(host_->Await(), false);
      index = host_->Post(0, input_, {.flags = flags});
    };
    deaths.watched = [&] { return host_->Shared(); };
    // The second call is looked at: the first one is the first of everything.
    deaths.operation = [&] {
      ServeOne(*runtime_);
      ::raise(SIGSTOP);
      ServeOne(*runtime_);
    };
    deaths.verify = [&](bool) {
      const bool begun = dispatch::HasBegun(host_->segment().call(index));
      host_->Bury(kVictim);
      const WorkerThread next(*host_, kNext, Echo);
      ExpectAnswer(host_->Await(), flags == 0 && begun);
      EXPECT_FALSE(host_->TryTake().has_value()) << "answered twice";
      host_->Post(0, input_);
      ExpectAnswer(host_->Await(), false);
      host_->ExpectClean();
    };
    KillAtEveryChange(deaths);
    if (IsSkipped() || HasFailure()) return;
  }
}

/// A worker in another one's place: from its first instruction until it is there, and from then until it has answered a
/// call of the host and, as its poller, one of a window, both of which were there before it.
class BeginningDeathTest : public DeathTest, public ::testing::WithParamInterface<bool> {};

INSTANTIATE_TEST_SUITE_P(Until, BeginningDeathTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "ItsFirstCalls" : "ItIsThere"; });

TEST_P(BeginningDeathTest, FromItsBegin) {
  input_ = Pattern(5'000);
  Deaths deaths;
  deaths.most = 6;
  deaths.reset = [&] {
    Start(-1);
    host_->SetFunctions(FunctionNames(8));
    client_ = std::make_unique<WindowClient>(host_->OpenWindow(0));
    (void)client_->Submit({.input = input_, .output_capacity = input_.size(), .flags = window::kFlagIdempotent});
    host_->Post(0, input_, {.flags = dispatch::kCallIdempotent});
    control_ = host_->AddWorker(kVictim);
    host_->dispatcher().Notify(kVictim, dispatch::kNoticeWindow);
  };
  deaths.before_steps = [&](test::Stepped&) { host_->AnswerWorkers(); };
  deaths.watched = [&] { return host_->Shared(); };
  (GetParam() ? deaths.from : deaths.until) =
      test::CodeOf(static_cast<std::optional<Invocation> (WorkerRuntime::*)(dispatch::Takes)>(&WorkerRuntime::TryNext));
  deaths.operation = [&] {
    Attach();
    (void)runtime_->TakeNotices();
    ServeOne(*runtime_);
    ServeOne(*runtime_);
  };
  deaths.verify = [&](bool over) {
    if (GetParam() && over) {
      EXPECT_TRUE(client_->window().HasAnswer());
      EXPECT_TRUE(host_->dispatcher().HasCompletion());
    }
    host_->Bury(kVictim);
    const WorkerThread next(*host_, kNext, Echo);
    ExpectAnswer(host_->Await(), false);
    const auto completion = client_->Await();
    EXPECT_EQ(completion.status, static_cast<uint32_t>(Code::kOk));
    ExpectAnswer(completion);
    client_->window().Close(completion.call);
    EXPECT_FALSE(host_->TryTake().has_value() || client_->Poll()) << "answered twice";
    host_->ExpectClean();
  };
  KillAtEveryChange(deaths);
}

/// What the worker is at: answering where the client has room for the result, once more a call that may be run twice;
/// asking it for room; writing the result there.
enum class At { kAnswering, kAnsweringIdempotent, kAskingForRoom, kDelivering };

class WindowDeathTest : public DeathTest, public ::testing::WithParamInterface<At> {
 protected:
  static bool answering() { return GetParam() == At::kAnswering || GetParam() == At::kAnsweringIdempotent; }
  void Submit(bool with_room) {
    (void)client_->Submit(
        {.input = input_,
         .output_capacity = with_room ? input_.size() : 0,
         .flags = GetParam() == At::kAnsweringIdempotent ? uint16_t{window::kFlagIdempotent} : uint16_t{0}});
  }
  /// The next answer, unless that is a result which needs room: then it gets some.
  std::optional<window::ClientWindow::Completion> Next() {
    const auto completion = client_->Await();
    if (!completion.need_room) {
      client_->window().Close(completion.call);
      return completion;
    }
    const uint64_t bytes = completion.result_bytes;
    (void)client_->window().GiveRoom(completion.call, client_->Allocate(bytes), bytes);
    return std::nullopt;
  }
  window::ClientWindow::Completion Answer() {
    for (;;) {
      if (auto completion = Next()) return *completion;
    }
  }
};

std::string NameOf(const ::testing::TestParamInfo<At>& info) {
  static constexpr const char* kNames[] = {"Answering", "AnsweringIdempotent", "AskingForRoom", "Delivering"};
  return kNames[static_cast<size_t>(info.param)];
}
INSTANTIATE_TEST_SUITE_P(At, WindowDeathTest,
                         ::testing::Values(At::kAnswering, At::kAnsweringIdempotent, At::kAskingForRoom,
                                           At::kDelivering),
                         NameOf);

TEST_P(WindowDeathTest, OverACallFromARing) {
  input_ = Pattern(5'000);
  Deaths deaths;
  deaths.most = 12;
  deaths.reset = [&] {
    Start(-1);
    client_ = std::make_unique<WindowClient>(host_->OpenWindow(0));
    Submit(true);
    control_ = host_->AddWorker(kVictim);
  };
  deaths.prepare = [&] { Attach(); };
  // With the first call the victim maps the window and becomes its poller. The second one is looked at.
  deaths.before_steps = [&](test::Stepped& victim) {
    ASSERT_TRUE(host_->AwaitReady(kVictim));
    victim.Run();
    ASSERT_EQ(Answer().status, static_cast<uint32_t>(Code::kOk));
    Submit(answering());
    if (GetParam() != At::kDelivering) return;
    victim.Run();
    ASSERT_FALSE(Next().has_value());
  };
  deaths.watched = [&] { return host_->Shared(); };
  deaths.operation = [&] {
    ServeOne(*runtime_);
    ::raise(SIGSTOP);
    ServeOne(*runtime_);
    if (GetParam() != At::kDelivering) return;
    ::raise(SIGSTOP);
    (void)runtime_->TryNext(true);
  };
  deaths.verify = [&](bool over) {
    if (over && GetParam() != At::kAskingForRoom) {
      EXPECT_TRUE(client_->window().HasAnswer());
    }
    std::span<std::byte> reused;
    if (GetParam() == At::kAnsweringIdempotent && client_->window().HasAnswer()) {
      // Answered, although the host may not know it: its memory is the client's again, for whatever it likes.
      const auto completion = Answer();
      ExpectAnswer(completion);
      reused = client_->window().Bytes(completion.result_offset, completion.result_bytes);
      std::fill(reused.begin(), reused.end(), std::byte{0x5a});
    }
    host_->Bury(kVictim);
    const WorkerThread next(*host_, kNext, Echo);
    if (!reused.empty()) {
      host_->ExpectClean();
      EXPECT_TRUE(std::all_of(reused.begin(), reused.end(), [](std::byte b) { return b == std::byte{0x5a}; }))
          << "a call was run again after it had been answered";
      return;
    }
    ExpectAnswer(Answer());
    EXPECT_FALSE(client_->Poll()) << "answered twice";
    Submit(answering());
    const auto completion = Answer();
    EXPECT_EQ(completion.status, static_cast<uint32_t>(Code::kOk));
    ExpectAnswer(completion);
    host_->ExpectClean();
  };
  KillAtEveryChange(deaths);
}

/// What a worker that is there to be leased is at: becoming that of a lease and answering what lies in the window it is
/// given; answering a call of its holder; leaving.
enum class Leased { kTaken, kAnswering, kLeaving };

class LeaseDeathTest : public DeathTest, public ::testing::WithParamInterface<Leased> {
 protected:
  void Submit() { (void)client_->Submit({.input = input_, .output_capacity = input_.size()}); }
  bool AnyBegun() {
    const segment::Segment& segment = host_->segment();
    for (uint32_t index = 0; index < segment.header().calls.capacity; ++index) {
      if (dispatch::HasBegun(segment.call(index))) return true;
    }
    return false;
  }
};

std::string NameOfLeased(const ::testing::TestParamInfo<Leased>& info) {
  static constexpr const char* kNames[] = {"ItIsTaken", "ItAnswers", "ItLeaves"};
  return kNames[static_cast<size_t>(info.param)];
}
INSTANTIATE_TEST_SUITE_P(While, LeaseDeathTest, ::testing::Values(Leased::kTaken, Leased::kAnswering, Leased::kLeaving),
                         NameOfLeased);

TEST_P(LeaseDeathTest, OfADedicatedWorker) {
  input_ = Pattern(5'000);
  Deaths deaths;
  deaths.most = 6;
  deaths.reset = [&] {
    Start(0);
    client_ = std::make_unique<WindowClient>(host_->OpenWindow(0, 128u << 20, kVictim));
    Submit();
    control_ = host_->AddWorker(kVictim, true);
  };
  deaths.prepare = [&] { Attach(); };
  deaths.before_steps = [&](test::Stepped& victim) {
    ASSERT_TRUE(host_->AwaitReady(kVictim));
    host_->Lease(kVictim, 0, -1);
    if (GetParam() == Leased::kTaken) return;
    victim.Run();
    const auto completion = client_->Await();
    ASSERT_EQ(completion.status, static_cast<uint32_t>(Code::kOk));
    client_->window().Close(completion.call);
    Submit();
    if (GetParam() == Leased::kAnswering) return;
    victim.Run();
    host_->EndLease(kVictim);
    Submit();
    victim.Run();
  };
  deaths.watched = [&] { return host_->Shared(); };
  deaths.kernel = [&] { return uint64_t{host_->HasLeft(kVictim)}; };
  deaths.operation = [&] {
    ServeOne(*runtime_);
    if (GetParam() == Leased::kTaken) return;
    ::raise(SIGSTOP);
    if (GetParam() == Leased::kAnswering) return ServeOne(*runtime_);
    std::optional<Invocation> running;
    while (!running) running = runtime_->TryNext(true);
    uint64_t news = 0;
    (void)!::read(runtime_->event_fd(), &news, sizeof news);
    ::raise(SIGSTOP);
    pollfd told{runtime_->event_fd(), POLLIN, 0};
    ::poll(&told, 1, -1);
    ::raise(SIGSTOP);
    // It leaves when the call is answered that it runs, whatever else lies in its ring.
    while (runtime_->hot_ns() != 0) {
      if (running) Echo(*runtime_, *running);
      running = runtime_->TryNext(true);
    }
  };
  deaths.verify = [&](bool over) {
    if (over) {
      EXPECT_TRUE(client_->Poll());
      EXPECT_TRUE(GetParam() != Leased::kLeaving || Eventually([&] { return host_->HasLeft(kVictim); }));
    }
    const bool begun = AnyBegun();
    host_->Bury(kVictim);
    size_t answers = 0;
    for (; client_->Poll(); ++answers) {
      const auto completion = client_->Await();
      ExpectAnswer(completion);
      client_->window().Close(completion.call);
    }
    EXPECT_LE(answers, 1u) << "answered twice, or taken after the end";
    EXPECT_TRUE(answers > 0 || !begun) << "a call that ran is not answered";
    // What nobody took ends with the session of its client.
    host_->EndSession(0);
    host_->ExpectClean();

    // Another one takes its place, in the same window's number.
    client_ = std::make_unique<WindowClient>(host_->OpenWindow(0, 128u << 20, kNext));
    Submit();
    const WorkerThread next(*host_, kNext, Echo, true);
    host_->Lease(kNext, 0, -1);
    const auto completion = client_->Await();
    EXPECT_EQ(completion.status, static_cast<uint32_t>(Code::kOk));
    ExpectAnswer(completion);
    client_->window().Close(completion.call);
    host_->ExpectClean();
  };
  KillAtEveryChange(deaths);
}

}  // namespace
}  // namespace praas::worker
