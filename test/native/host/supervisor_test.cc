// Workers that are OS processes: started, killed, stopped, replaced.

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <thread>

#include "host/host_fixture.h"
#include "host/kept_state.h"
#include "host/window_memory.h"
#include "host/worker_processes.h"
#include "segment/arena.h"
#include "state/state_store.h"
#include "support/no_descriptors.h"
#include "window/intake.h"

namespace praas::test {
namespace {

class Supervised : public ::testing::Test {
 protected:
  TestProcess process_;
};

TEST_F(Supervised, AKilledWorkerIsAnsweredForAndReplaced) {
  for (const char* transport : {"tcp", "shm"}) {
    HostRun host(process_, kWorkerCommand);
    ASSERT_TRUE(host.status().ok()) << host.status().message();
    ASSERT_TRUE(host.AwaitReady(1));
    Driver client = host.Client(transport);
    const pid_t before = PidOf(client);
    const Driver::Outcome killed = client.Call(fn::kCrash, {});
    EXPECT_EQ(killed.status.code(), Code::kWorkerCrashed) << killed.status.message();
    EXPECT_TRUE(killed.status.message().starts_with(R"({"signal":9,"stderr":"last words)")) << killed.status.message();
    const Driver::Outcome left = client.Call(fn::kCrash, AsBytes("7"));
    EXPECT_TRUE(left.status.message().starts_with(R"({"exitCode":7,"stderr":"last words)")) << left.status.message();
    EXPECT_NE(PidOf(client), before);
    EXPECT_TRUE(Gone(before));
    ExpectClean(client);
    host.Stop();
  }
  EXPECT_NE(process_.Read(process_.assignment.log).find("stderr | last words"), std::string::npos);
}

TEST_F(Supervised, AnIdempotentCallThatKillsItsWorkersIsNotGivenToAll) {
  for (const char* transport : {"tcp", "shm"}) {
    HostRun host(process_, kWorkerCommand);
    ASSERT_TRUE(host.AwaitReady(1));
    Driver client = host.Client(transport);
    const auto segment = segment::Segment::Open(process_.assignment.segment, true);
    ASSERT_TRUE(segment.ok()) << segment.status().message();
    const auto& deaths = segment->header().repairs;
    const auto before = deaths.load();
    const auto call = client->Invoke(fn::kCrash, {}, {}, protocol::kIdempotent, DeadlineIn(kWatchdogNs));
    const Driver::Outcome killed = client.Wait(call);
    EXPECT_EQ(killed.status.code(), Code::kWorkerCrashed) << killed.status.message();
    ExpectClean(client);
    EXPECT_EQ(deaths.load() - before, dispatch::kMostDeaths + 1);
    host.Stop();
  }
}

TEST_F(Supervised, ACallPastItsDeadlineHasMissedItHoweverItsWorkerEnds) {
  for (const char* transport : {"tcp", "shm"}) {
    HostRun host(process_, kWorkerCommand);
    ASSERT_TRUE(host.AwaitReady(1));
    Driver client = host.Client(transport);
    const pid_t worker = PidOf(client);
    // A worker that is stopped says nothing at the deadline. This client does not look either, until all is over.
    const auto call = client->Invoke(fn::kStop, {}, {}, 0, DeadlineIn(500'000'000));
    client.Poll();
    Driver other = host.Client();
    EXPECT_NE(PidOf(other), worker);
    const Driver::Outcome outcome = client.Wait(call);
    EXPECT_EQ(outcome.status.code(), Code::kInvocationTimeout) << outcome.status.message();
    ExpectClean(client);
    host.Stop();
  }
}

/// What a worker leaves that is killed while it takes a submission: the test writes in its name.
class KilledConsumer : public Supervised {
 protected:
  void SetUp() override {
    host_.emplace(process_, kWorkerCommand);
    ASSERT_TRUE(host_->AwaitReady(1));
    client_.reset(new Driver(host_->Client("shm")));  // in place: its sinks know its address
    worker_ = PidOf(*client_);
    segment_.emplace(segment::Segment::Open(process_.assignment.segment, true).value());
    window_.emplace();
    participant_ = ParticipantOf(*segment_, worker_);
    segment_->window(0).consumer.store(uint32_t{participant_} + 1);
  }
  void Submit(const Bytes& input) {
    call_ = (*client_)->Invoke(fn::kEcho, input, {}, 0, DeadlineIn(kWatchdogNs));
    ASSERT_TRUE(call_.ok());
    const uint32_t head = window_->header().submit_head;
    ASSERT_EQ(window_->record(head).turn, head + 1);
  }
  /// An entry as it is made of the submission, and noted there.
  dispatch::CallEntry& MakeEntry() {
    const window::SubmissionRecord& record = window_->record(window_->header().submit_head);
    dispatch::CallEntry& entry = segment_->call(kEntry);
    EXPECT_EQ(dispatch::CallWord::Unpack(entry.word.load()).state, dispatch::CallState::kFree);
    window::Submission submission{};
    submission.call = record.call;
    submission.sequence = record.sequence;
    submission.function = record.function;
    window::FillEntry(entry, submission, 0, NowNs());
    window_->note(record.call) = uint64_t{record.sequence} << 32 | (kEntry + 1);
    return entry;
  }
  static void SetWord(dispatch::CallEntry& entry, dispatch::CallState state, uint16_t owner) {
    auto word = dispatch::CallWord::Unpack(entry.word.load());
    word.state = state;
    word.owner = owner;
    entry.word.store(word.Pack());
  }
  Driver::Outcome KillWorker() {
    EXPECT_EQ(::kill(worker_, SIGKILL), 0);
    Driver::Outcome outcome = client_->Wait(call_);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
    return outcome;
  }

  static constexpr uint32_t kEntry = 5;
  std::optional<HostRun> host_;
  std::unique_ptr<Driver> client_;
  pid_t worker_ = 0;
  uint16_t participant_ = 0;
  std::optional<segment::Segment> segment_;
  std::optional<WindowMemory> window_;
  Result<uint64_t> call_{0};
};

TEST_F(KilledConsumer, BeforeItPostsTheCallLeavesItToTheNext) {
  const Bytes input = PatternOf(100);
  Submit(input);
  SetWord(MakeEntry(), dispatch::CallState::kReserved, participant_);
  EXPECT_EQ(KillWorker().payload, input);
  EXPECT_NE(PidOf(*client_), worker_);
  ExpectClean(*client_);
}

TEST_F(KilledConsumer, AfterItHasPostedTheCallWhoseResultWaitsForRoomHasItRunOnce) {
  Submit(PatternOf(100));
  // Another worker has run it meanwhile.
  constexpr uint64_t kResultBytes = 77;
  dispatch::CallEntry& entry = MakeEntry();
  entry.output = {
      .offset = kEntry * (dispatch::kSlotInputBytes + dispatch::kSlotOutputBytes) + dispatch::kSlotInputBytes,
      .bytes = kResultBytes,
      .block = 0,
      .place = dispatch::Place::kSlot,
      .reserved = {}};
  SetWord(entry, dispatch::CallState::kParked, dispatch::kHostParticipant);
  EXPECT_EQ(KillWorker().payload, Bytes(kResultBytes)) << "what waited, and no echo";
  ExpectClean(*client_);
}

TEST_F(Supervised, AWorkerGetsAWindowFromAHostWithoutDescriptors) {
  if (const char* obstacle = NoDescriptors::Obstacle()) GTEST_SKIP() << obstacle;
  HostRun host(process_, kWorkerCommand);
  ASSERT_TRUE(host.AwaitReady(1));
  Driver client = host.Client("shm");
  const Driver::Outcome outcome = [&] {
    const NoDescriptors none;
    return client.Call(fn::kEcho, PatternOf(100));
  }();
  EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
  EXPECT_EQ(outcome.payload, PatternOf(100));
  ExpectClean(client);
}

TEST_F(Supervised, QueuedCallsSurviveTheirWorkersNeighbour) {
  HostRun host(process_, kWorkerCommand);
  ASSERT_TRUE(host.AwaitReady(1));
  Driver client = host.Client();
  const Bytes input = PatternOf(20'000);
  const auto crash = client->Invoke(fn::kCrash, {}, {}, 0, DeadlineIn(kWatchdogNs));
  std::vector<uint64_t> queued;
  for (int i = 0; i < 10; ++i) queued.push_back(*client->Invoke(fn::kEcho, input, {}, 0, DeadlineIn(kWatchdogNs)));
  EXPECT_EQ(client.Wait(crash).status.code(), Code::kWorkerCrashed);
  for (const uint64_t call : queued) {
    const Driver::Outcome outcome = client.Wait(call);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
    EXPECT_EQ(outcome.payload, input);
  }
  ExpectClean(client);
}

TEST_F(Supervised, LocksOfAKilledWorkerAreReleasedAfterSomebodyHasKeptTheStateForLong) {
  HostRun host(process_, kWorkerCommand);
  ASSERT_TRUE(host.AwaitReady(1));
  Driver client = host.Client();
  const pid_t worker = PidOf(client);
  auto segment = segment::Segment::Open(process_.assignment.segment, true);
  ASSERT_TRUE(segment.ok()) << segment.status().message();
  const uint16_t participant = ParticipantOf(*segment, worker);
  segment::Arena arena = segment::Arena::Data(*segment, participant);
  state::StateStore store(*segment, arena, participant);
  const auto held = store.Lock("l", state::StateStore::LockMode::kWrite, {participant, 1}, DeadlineIn(kWatchdogNs));
  ASSERT_TRUE(held.ok() && held->granted);
  {
    const KeptState kept(process_);
    ASSERT_EQ(::kill(worker, SIGKILL), 0);
    const auto state = [&] { return segment->participant(participant).state.load(); };
    constexpr auto kDead = static_cast<uint32_t>(dispatch::ParticipantState::kDead);
    ASSERT_TRUE(Eventually([&] { return state() == kDead; }));
    // The host waits for the mutex for ten seconds at a time.
    const uint64_t tried_ns = DeadlineIn(11'000'000'000);
    while (state() == kDead && NowNs() < tried_ns) ::usleep(1000);
    EXPECT_EQ(state(), kDead) << "its place was given away with its locks";
  }
  protocol::StateRequest lock{.op = protocol::StateOp::kLock, .key = "l"};
  lock.mode = protocol::LockMode::kWrite;
  EXPECT_TRUE(client.Wait(client::SubmitState(*client, lock, DeadlineIn(20'000'000'000))).status.ok());
}

TEST_F(Supervised, AStoppedWorkerIsKilledAfterTheDeadline) {
  HostRun host(process_, kWorkerCommand);
  ASSERT_TRUE(host.AwaitReady(1));
  Driver client = host.Client();
  const pid_t stopped = PidOf(client);
  const Driver::Outcome outcome = client.Call(fn::kStop, {}, {}, DeadlineIn(50'000'000));
  EXPECT_EQ(outcome.status.code(), Code::kInvocationTimeout);
  EXPECT_TRUE(Eventually([&] { return Gone(stopped); }));
  EXPECT_NE(PidOf(client), stopped);
  ExpectClean(client);
}

TEST_F(Supervised, AStoppedWorkerWithoutACallIsKilledWhenCallsWait) {
  struct Case {
    const char* transport;
    int64_t hot_ms;
  };
  for (const Case& each : {Case{"tcp", 0}, Case{"shm", 0}, Case{"shm", -1}}) {
    SCOPED_TRACE(std::string(each.transport) + (each.hot_ms == 0 ? ", warm" : ", hot"));
    process_.assignment.hot_ms = each.hot_ms;
    HostRun host(process_, kWorkerCommand);
    ASSERT_TRUE(host.AwaitReady(1));
    Driver client = host.Client(each.transport);
    const pid_t stopped = PidOf(client);
    ExpectClean(client);  // the worker may be about to give back the entry of the call that was answered
    ASSERT_EQ(::kill(stopped, SIGSTOP), 0);
    EXPECT_NE(PidOf(client), stopped);
    EXPECT_TRUE(Gone(stopped));
    ExpectClean(client);
    host.Stop();
  }
  EXPECT_NE(process_.Read(process_.assignment.log).find("host | killed: calls wait"), std::string::npos)
      << process_.Read(process_.assignment.log);
}

TEST_F(Supervised, AnIdleWorkerThatTakesItsNoticesIsNotKilledHoweverLongCallsWait) {
  process_.assignment.workers = 2;
  HostRun host(process_, kWorkerCommand);
  ASSERT_TRUE(host.AwaitReady(2));
  auto segment = segment::Segment::Open(process_.assignment.segment, true);
  ASSERT_TRUE(segment.ok()) << segment.status().message();
  Driver client = host.Client();
  const pid_t slow = PidOf(client);
  ExpectClean(client);
  // In the place of a worker that is never quick enough to get a call: it does nothing but look around.
  ASSERT_EQ(::kill(slow, SIGSTOP), 0);
  dispatch::Participant& participant = segment->participant(ParticipantOf(*segment, slow));
  std::atomic<bool> over{false};
  std::thread looks([&] {
    while (!over.load()) {
      participant.notices.exchange(0);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  const auto running = client->Invoke(fn::kSleep, AsBytes("4000"), {}, 0, DeadlineIn(kWatchdogNs));
  EXPECT_NE(PidOf(client), slow);  // waits for the other worker
  EXPECT_TRUE(client.Wait(running).status.ok());
  EXPECT_EQ(participant.pid.load(), slow);
  EXPECT_EQ(::kill(slow, 0), 0);
  over = true;
  looks.join();
  ASSERT_EQ(::kill(slow, SIGCONT), 0);
  ExpectClean(client);
}

TEST_F(Supervised, AWorkerWithACallHasUntilTheDeadlineOfThatHoweverLongOthersWait) {
  HostRun host(process_, kWorkerCommand);
  ASSERT_TRUE(host.AwaitReady(1));
  Driver client = host.Client();
  const pid_t worker = PidOf(client);
  const auto running = client->Invoke(fn::kSleep, AsBytes("4000"), {}, 0, DeadlineIn(kWatchdogNs));
  EXPECT_EQ(PidOf(client), worker);
  EXPECT_TRUE(client.Wait(running).status.ok());
}

TEST_F(Supervised, AFunctionThatNeverReturnsCostsItsWorker) {
  HostRun host(process_, kWorkerCommand);
  ASSERT_TRUE(host.AwaitReady(1));
  Driver client = host.Client();
  const pid_t stuck = PidOf(client);
  EXPECT_EQ(client.Call(fn::kStuck, {}, {}, DeadlineIn(50'000'000)).status.code(), Code::kInvocationTimeout);
  EXPECT_TRUE(Eventually([&] { return Gone(stuck); }));
  EXPECT_NE(PidOf(client), stuck);
}

TEST_F(Supervised, ASpareTakesOver) {
  process_.assignment.spares = 1;
  HostRun host(process_, kWorkerCommand);
  ASSERT_TRUE(host.AwaitReady(1));
  Driver client = host.Client();
  EXPECT_EQ(client.Call(fn::kCrash, {}).status.code(), Code::kWorkerCrashed);
  (void)PidOf(client);
  ExpectClean(client);
}

TEST_F(Supervised, StreamsOfAKilledWorkerEnd) {
  HostRun host(process_, kWorkerCommand);
  ASSERT_TRUE(host.AwaitReady(1));
  Driver client = host.Client();
  const pid_t worker = PidOf(client);
  const auto stream = client->OpenStream(fn::kStream, 0, DeadlineIn(kWatchdogNs));
  (void)client->SendChunk(*stream, PatternOf(100'000), false);
  client.PollUntil([&] { return client.streams()[*stream].received.size() == 100'000; });
  ::kill(worker, SIGKILL);
  client.PollUntil([&] { return client.streams()[*stream].ended; });
  EXPECT_EQ(client.streams()[*stream].status.code(), Code::kWorkerCrashed);
  ExpectClean(client);
}

TEST_F(Supervised, AnApplicationThatCannotLoadSaysWhy) {
  process_.assignment.app = "fail:no such module";
  HostRun host(process_, kWorkerCommand);
  Driver client = host.Client();
  const Driver::Outcome outcome = client.Wait(client->Resolve("echo", DeadlineIn(kWatchdogNs)));
  EXPECT_EQ(outcome.status.code(), Code::kProcessFailed);
  EXPECT_NE(outcome.status.message().find("no such module"), std::string::npos) << outcome.status.message();
}

TEST_F(Supervised, WorkersThatEndAtOnceFailTheProcess) {
  process_.assignment.app = "exit";
  HostRun host(process_, kWorkerCommand);
  Driver client = host.Client();
  const Driver::Outcome outcome = client.Wait(client->Resolve("echo", DeadlineIn(kWatchdogNs)));
  EXPECT_EQ(outcome.status.code(), Code::kProcessFailed);
  EXPECT_NE(outcome.status.message().find("nothing to load"), std::string::npos) << outcome.status.message();
}

TEST_F(Supervised, ACommandThatDoesNotExistFailsTheProcess) {
  HostRun host(process_, {"/nonexistent/worker"});
  ASSERT_TRUE(host.status().ok()) << host.status().message();
  Driver client = host.Client();
  const Driver::Outcome outcome = client.Wait(client->Resolve("echo", DeadlineIn(kWatchdogNs)));
  EXPECT_EQ(outcome.status.code(), Code::kProcessFailed);
  EXPECT_NE(outcome.status.message().find("/nonexistent/worker"), std::string::npos) << outcome.status.message();
}

TEST_F(Supervised, ASecondHostIsTurnedAway) {
  HostRun first(process_);
  ASSERT_TRUE(first.status().ok());
  TestProcess other;
  other.assignment.segment = process_.assignment.segment;
  const HostRun second(other);
  EXPECT_EQ(second.status().code(), Code::kProcessBusy);
}

}  // namespace
}  // namespace praas::test
