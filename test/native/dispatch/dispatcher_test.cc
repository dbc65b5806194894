#include "dispatch/dispatcher.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/spin.h"
#include "mqueue/message_queue.h"

namespace praas::dispatch {
namespace {

constexpr uint16_t kWorkerA = 1;
constexpr uint16_t kWorkerB = 2;

/// A segment with a doorbell, as host (0) and two workers see it.
class DispatcherTest : public ::testing::TestWithParam<DoorbellKind> {
 protected:
  void SetUp() override {
    name_ = "/praas-test-dispatch-" + std::to_string(getpid());
    segment::CreateOptions options;
    options.name = name_;
    options.process_id = "dispatch";
    options.memory_bytes = 1 << 20;
    options.pool_bytes = 1 << 20;
    options.calls = 64;
    auto segment = segment::Segment::CreateOrAttach(options);
    ASSERT_TRUE(segment.ok()) << segment.status().message();
    segment_ = std::make_unique<segment::Segment>(std::move(*segment));
    ASSERT_TRUE(segment_->Commit(segment_->header().participants, 8).ok());
    ASSERT_TRUE(segment_->Commit(segment_->header().calls, 64).ok());
    if (GetParam() == DoorbellKind::kFutex) setenv("PRAAS_DOORBELL", "futex", 1);
    std::string why;
    auto doorbells = Doorbells::Create(*segment_, name_, {true, true}, &why);
    unsetenv("PRAAS_DOORBELL");
    ASSERT_TRUE(doorbells.ok()) << doorbells.status().message();
    doorbells_ = std::move(*doorbells);
    doorbell_ = doorbells_->of(Lane::kNode);
    ASSERT_EQ(doorbells_->kind(), GetParam()) << why;
    for (uint16_t i = 0; i < 3; ++i) {
      segment_->participant(i).state.store(static_cast<uint32_t>(ParticipantState::kReady));
      segment_->participant(i).kind = static_cast<uint32_t>(i == 0 ? ParticipantKind::kHost : WorkerKind(Lane::kNode));
      dispatcher_[i] = std::make_unique<Dispatcher>(*segment_, *doorbells_, i);
    }
  }

  void TearDown() override {
    if (segment_) {
      EXPECT_TRUE(segment::Segment::Unlink(name_).ok());
    }
    for (const Lane lane : {Lane::kNode, Lane::kNative}) {
      EXPECT_TRUE(mqueue::MessageQueue::Unlink(Doorbells::QueueName(name_, lane)).ok());
    }
  }

  Dispatcher& host() { return *dispatcher_[0]; }
  Dispatcher& a() { return *dispatcher_[kWorkerA]; }
  Dispatcher& b() { return *dispatcher_[kWorkerB]; }

  CallWord WordOf(uint32_t index) { return CallWord::Unpack(segment_->call(index).word.load()); }

  /// A call of the host with nothing in it.
  uint32_t ReserveFor(Dispatcher& sender, Origin origin, uint16_t origin_index) {
    const auto index = sender.Reserve();
    EXPECT_TRUE(index.has_value());
    CallEntry& entry = segment_->call(*index);
    entry.origin = origin;
    entry.origin_index = origin_index;
    entry.kind = CallKind::kInvoke;
    entry.flags = 0;
    entry.depth = 0;
    entry.input = {};
    entry.deaths = 0;
    entry.deadline_ns = DeadlineIn(60'000'000'000);
    return *index;
  }
  uint32_t PostFromHost(uint16_t flags = 0) {
    const uint32_t index = ReserveFor(host(), Origin::kHost, 0);
    segment_->call(index).flags = flags;
    host().Post(index);
    return index;
  }

  std::string name_;
  std::unique_ptr<segment::Segment> segment_;
  std::unique_ptr<Doorbells> doorbells_;
  Doorbell* doorbell_ = nullptr;  // of the lane the workers are in
  std::unique_ptr<Dispatcher> dispatcher_[3];
};

INSTANTIATE_TEST_SUITE_P(Doorbells, DispatcherTest,
                         ::testing::Values(DoorbellKind::kMessageQueue, DoorbellKind::kFutex), [](const auto& info) {
                           return info.param == DoorbellKind::kFutex ? "Futex" : "MessageQueue";
                         });

TEST_P(DispatcherTest, ACallGoesFromQueuedToFree) {
  const uint32_t index = PostFromHost();
  EXPECT_EQ(WordOf(index).state, CallState::kQueued);
  ASSERT_EQ(a().ClaimAny(), index);
  EXPECT_EQ(WordOf(index).owner, kWorkerA);
  EXPECT_FALSE(b().ClaimAny().has_value());
  const uint32_t generation = WordOf(index).generation;
  ASSERT_TRUE(a().BeginCompletion(index, generation));
  EXPECT_FALSE(a().BeginCompletion(index, generation)) << "the second to complete must lose";
  EXPECT_FALSE(host().NextCompletion().has_value());
  a().FinishCompletion(index);
  ASSERT_EQ(host().NextCompletion(), index);
  EXPECT_FALSE(host().NextCompletion().has_value());
  host().Free(index);
  EXPECT_EQ(WordOf(index).state, CallState::kFree);
  EXPECT_EQ(WordOf(index).generation, generation + 1);
}

/// Functions 0 for Node workers and 1 for native ones, and a native worker.
class LaneTest : public DispatcherTest {
 protected:
  static constexpr uint16_t kNative = 3;
  void SetUp() override {
    DispatcherTest::SetUp();
    segment::Header& header = segment_->header();
    ASSERT_TRUE(segment_->Commit(header.functions, 2).ok());
    segment_->function(1).flags = segment::kFunctionNative;
    header.function_count.store(2);
    segment_->participant(kNative).state.store(static_cast<uint32_t>(ParticipantState::kReady));
    segment_->participant(kNative).kind = static_cast<uint32_t>(ParticipantKind::kNativeWorker);
    native_ = std::make_unique<Dispatcher>(*segment_, *doorbells_, kNative, Lane::kNative);
  }
  uint32_t PostCallOf(uint32_t function) {
    const uint32_t index = ReserveFor(host(), Origin::kHost, 0);
    segment_->call(index).function = function;
    host().Post(index);
    return index;
  }
  std::unique_ptr<Dispatcher> native_;
};

INSTANTIATE_TEST_SUITE_P(Doorbells, LaneTest, ::testing::Values(DoorbellKind::kMessageQueue, DoorbellKind::kFutex),
                         [](const auto& info) {
                           return info.param == DoorbellKind::kFutex ? "Futex" : "MessageQueue";
                         });

TEST_P(LaneTest, ACallIsClaimedByWorkersOfItsFunctionsLanguageOnly) {
  const uint32_t of_native = PostCallOf(1);
  EXPECT_FALSE(a().HasQueued());
  EXPECT_FALSE(a().ClaimAny().has_value());
  const uint32_t of_node = PostCallOf(0);
  EXPECT_EQ(native_->ClaimAny(), of_native);
  EXPECT_FALSE(native_->ClaimAny().has_value());
  EXPECT_EQ(b().ClaimAny(), of_node);
}

TEST_P(LaneTest, AStaleHintLeadsToNoCallOfTheOtherLane) {
  // Claimed by its bell, the call leaves its hint behind; its entry becomes one of the other lane's.
  const uint32_t index = PostCallOf(1);
  const uint32_t generation = WordOf(index).generation;
  ASSERT_TRUE(native_->Claim({index, generation}));
  ASSERT_TRUE(native_->BeginCompletion(index, generation));
  native_->FinishCompletion(index);
  host().Free(*host().NextCompletion());
  segment_->header().hints[static_cast<size_t>(Lane::kNative)].queued[index / 64].fetch_or(uint64_t{1} << (index % 64));
  std::vector<uint32_t> of_node;
  while (of_node.empty() || of_node.back() != index) of_node.push_back(PostCallOf(0));

  EXPECT_FALSE(native_->ClaimAny(Takes::kNested).has_value());
  EXPECT_FALSE(native_->ClaimAny().has_value());
  for (size_t i = 0; i < of_node.size(); ++i) EXPECT_TRUE(a().ClaimAny().has_value());
  EXPECT_EQ(WordOf(index).owner, kWorkerA);
}

TEST_P(LaneTest, BellsAndCreditsStayInTheirLane) {
  a().AnnounceSleep();
  native_->AnnounceSleep();
  const uint32_t of_native = PostCallOf(1);
  EXPECT_FALSE(doorbells_->of(Lane::kNode)->TryReceive().has_value());
  const auto bell = doorbells_->of(Lane::kNative)->TryReceive();
  ASSERT_TRUE(bell.has_value());
  EXPECT_EQ(bell->index, of_native);
  EXPECT_TRUE(native_->Claim(*bell));
  native_->AnnounceAwake();
  a().AnnounceAwake();

  a().OfferCredit();
  (void)PostCallOf(1);
  EXPECT_FALSE(a().TakeCredited().has_value());
  const uint32_t of_node = PostCallOf(0);
  const auto credited = a().TakeCredited();
  ASSERT_TRUE(credited.has_value());
  EXPECT_EQ(credited->index, of_node);
}

TEST_P(LaneTest, AWorkerThatWaitsTakesNestedCallsOnlyAndIsWokenForThem) {
  std::vector<uint16_t> signalled;
  host().SetWaker([&](uint16_t participant) { signalled.push_back(participant); });
  native_->AnnounceSleep(Takes::kNested);
  const uint32_t from_client = PostCallOf(1);
  EXPECT_FALSE(doorbells_->of(Lane::kNative)->TryReceive().has_value()) << "nobody listens for new calls";
  EXPECT_TRUE(signalled.empty());
  EXPECT_TRUE(native_->HasQueued());
  EXPECT_FALSE(native_->HasQueued(Takes::kNested));
  EXPECT_FALSE(native_->ClaimAny(Takes::kNested).has_value());

  const uint32_t nested = ReserveFor(host(), Origin::kHost, 0);
  segment_->call(nested).function = 1;
  segment_->call(nested).depth = 1;
  host().Post(nested);
  EXPECT_EQ(signalled, std::vector<uint16_t>{kNative});
  EXPECT_TRUE(native_->HasQueued(Takes::kNested));
  EXPECT_EQ(native_->ClaimAny(Takes::kNested), nested);
  EXPECT_FALSE(native_->HasQueued(Takes::kNested));
  native_->AnnounceAwake();
  EXPECT_EQ(segment_->header().hints[static_cast<size_t>(Lane::kNative)].waiters[0].load(), 0u);
  EXPECT_EQ(native_->ClaimAny(), from_client) << "left for who takes new calls";
}

TEST_P(LaneTest, AWorkerOfAnotherLaneIsNoFreeWorker) {
  segment_->participant(kWorkerA).running.store(1);
  segment_->participant(kWorkerB).running.store(1);
  for (uint32_t i = 0; i < 2; ++i) {
    const uint32_t index = PostCallOf(0);
    ASSERT_EQ((i == 0 ? a() : b()).ClaimAny(), index);
  }
  EXPECT_TRUE(host().WorkerIdle(Lane::kNative));
  EXPECT_FALSE(host().WorkerIdle(Lane::kNode));
}

TEST_P(LaneTest, ADeadWorkersHintsGoInEveryLane) {
  native_->OfferCredit();
  native_->AnnounceSleep();
  host().ReclaimParticipant(kNative, [](uint32_t, Dispatcher::Orphan) {});
  for (const auto& lane : segment_->header().hints) {
    EXPECT_EQ(lane.hot[0].load(), 0u);
    EXPECT_EQ(lane.sleepers[0].load(), 0u);
  }
}

TEST_P(LaneTest, ALaneWithoutWorkersHasNoDoorbell) {
  std::string why;
  const std::string name = name_ + "-one";
  if (GetParam() == DoorbellKind::kFutex) setenv("PRAAS_DOORBELL", "futex", 1);
  auto only = Doorbells::Create(*segment_, name, {false, true}, &why);
  unsetenv("PRAAS_DOORBELL");
  ASSERT_TRUE(only.ok()) << only.status().message();
  EXPECT_EQ((*only)->of(Lane::kNode), nullptr);
  ASSERT_NE((*only)->of(Lane::kNative), nullptr);
  EXPECT_FALSE(mqueue::MessageQueue::Open(name).ok());
  auto opened = Doorbells::Open(*segment_, (*only)->kind(), name, (*only)->lanes());
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  EXPECT_TRUE((*only)->of(Lane::kNative)->Ring({5, 7}));
  const auto bell = (*opened)->of(Lane::kNative)->TryReceive();
  ASSERT_TRUE(bell.has_value());
  EXPECT_EQ(bell->index, 5u);
  EXPECT_TRUE(mqueue::MessageQueue::Unlink(Doorbells::QueueName(name, Lane::kNative)).ok());
}

TEST_P(DispatcherTest, ABellOfAnEarlierGenerationClaimsNothing) {
  const uint32_t index = PostFromHost();
  const Bell bell{index, WordOf(index).generation};
  EXPECT_FALSE(a().Claim({index, bell.generation + 1}));
  EXPECT_FALSE(a().Claim({1'000'000, bell.generation}));
  EXPECT_TRUE(a().Claim(bell));
  EXPECT_FALSE(b().Claim(bell));
}

TEST_P(DispatcherTest, APollingWorkerGetsTheCallByCreditWithoutABell) {
  a().OfferCredit();
  const uint32_t index = PostFromHost();
  EXPECT_FALSE(doorbell_->TryReceive().has_value());
  const auto bell = a().TakeCredited();
  ASSERT_TRUE(bell.has_value());
  EXPECT_EQ(bell->index, index);
  EXPECT_TRUE(a().Claim(*bell));
  EXPECT_FALSE(a().TakeCredited().has_value()) << "a credit is good for one call";
}

TEST_P(DispatcherTest, WithdrawingACreditReturnsTheBellThatCameFirst) {
  a().OfferCredit();
  EXPECT_FALSE(a().WithdrawCredit().has_value());
  a().OfferCredit();
  const uint32_t index = PostFromHost();
  const auto bell = a().WithdrawCredit();
  ASSERT_TRUE(bell.has_value());
  EXPECT_EQ(bell->index, index);
}

TEST_P(DispatcherTest, RingsOnlyWhenAWorkerSleeps) {
  PostFromHost();
  EXPECT_FALSE(doorbell_->TryReceive().has_value()) << "everybody is awake and drains before sleeping";
  a().AnnounceSleep();
  const uint32_t index = PostFromHost();
  const auto bell = doorbell_->TryReceive();
  ASSERT_TRUE(bell.has_value());
  EXPECT_EQ(bell->index, index);
  a().AnnounceAwake();
  PostFromHost();
  EXPECT_FALSE(doorbell_->TryReceive().has_value());
}

TEST_P(DispatcherTest, AFullDoorbellDropsBellsAndTheTableKeepsTheCalls) {
  a().AnnounceSleep();
  std::set<uint32_t> posted;
  for (int i = 0; i < 40; ++i) posted.insert(PostFromHost());
  EXPECT_EQ(posted.size(), 40u);
  EXPECT_GT(segment_->participant(0).counters.bells_dropped.load(), 0u);
  std::set<uint32_t> claimed;
  while (auto index = a().ClaimAny()) claimed.insert(*index);
  EXPECT_EQ(claimed, posted);
}

TEST_P(DispatcherTest, AFullTableIsBackPressure) {
  for (int i = 0; i < 64; ++i) EXPECT_TRUE(host().Reserve().has_value());
  EXPECT_FALSE(host().Reserve().has_value());
  host().ReleaseReserved(17);
  EXPECT_EQ(host().Reserve(), 17u);
}

TEST_P(DispatcherTest, CancelTakesAQueuedCallBackAndTellsARunningOne) {
  const uint32_t queued = PostFromHost();
  EXPECT_TRUE(host().Cancel(queued, WordOf(queued).generation, Code::kInvocationCancelled));
  EXPECT_EQ(WordOf(queued).state, CallState::kDone);
  EXPECT_FALSE(a().ClaimAny().has_value());
  host().Free(queued);

  const uint32_t running = PostFromHost();
  ASSERT_EQ(a().ClaimAny(), running);
  EXPECT_FALSE(host().Cancel(running, WordOf(running).generation, Code::kInvocationCancelled));
  EXPECT_EQ(segment_->call(running).cancel.load(), 1u);
  EXPECT_EQ(a().TakeNotices(), static_cast<uint32_t>(kNoticeCancel));
}

TEST_P(DispatcherTest, CompletionWakesASleepingOriginOnly) {
  std::vector<uint16_t> woken;
  a().SetWaker([&](uint16_t participant) { woken.push_back(participant); });
  uint32_t index = PostFromHost();
  ASSERT_EQ(a().ClaimAny(), index);
  ASSERT_TRUE(a().BeginCompletion(index, WordOf(index).generation));
  a().FinishCompletion(index);
  EXPECT_TRUE(woken.empty());
  host().Free(*host().NextCompletion());

  host().AnnounceSleep(Takes::kNothing);
  index = PostFromHost();
  ASSERT_EQ(a().ClaimAny(), index);
  ASSERT_TRUE(a().BeginCompletion(index, WordOf(index).generation));
  a().FinishCompletion(index);
  EXPECT_EQ(woken, std::vector<uint16_t>{0});
}

TEST_P(DispatcherTest, ReclaimSortsWhatADeadWorkerLeft) {
  const uint32_t crashed = PostFromHost();
  const uint32_t again = PostFromHost(kCallIdempotent);
  const uint32_t unbegun = PostFromHost();
  const uint32_t undone = PostFromHost();
  for (const uint32_t index : {crashed, again, unbegun, undone}) {
    ASSERT_TRUE(a().Claim({index, WordOf(index).generation}));
    if (index != unbegun) a().Begin(index, WordOf(index).generation);
  }
  a().UndoBegin(undone, WordOf(undone).generation);
  a().UndoBegin(crashed, WordOf(crashed).generation - 1);  // too late: that call is over
  const uint32_t reserved = ReserveFor(a(), Origin::kWorker, kWorkerA);
  const uint32_t nested_queued = ReserveFor(a(), Origin::kWorker, kWorkerA);
  a().Post(nested_queued);
  const uint32_t nested_running = ReserveFor(a(), Origin::kWorker, kWorkerA);
  a().Post(nested_running);
  ASSERT_TRUE(b().Claim({nested_running, WordOf(nested_running).generation}));
  a().OfferCredit();

  std::set<uint32_t> failed;
  std::set<uint32_t> dropped;
  host().ReclaimParticipant(kWorkerA, [&](uint32_t index, Dispatcher::Orphan what) {
    (what == Dispatcher::Orphan::kFail ? failed : dropped).insert(index);
    EXPECT_EQ(WordOf(index).owner, kHostParticipant);
    host().Free(index);
  });
  EXPECT_EQ(failed, (std::set<uint32_t>{crashed}));
  EXPECT_EQ(dropped, (std::set<uint32_t>{reserved, nested_queued}));
  EXPECT_EQ(segment_->participant(kWorkerA).credit.load(), kCreditNone);
  for (const uint32_t index : {again, unbegun, undone}) EXPECT_EQ(b().ClaimAny(), index);

  // The nested call that runs elsewhere is told to stop; its result belongs to nobody and the host drops it.
  EXPECT_EQ(segment_->call(nested_running).cancel.load(), 1u);
  EXPECT_TRUE(host().IsOrigin(kWorkerA));
  ASSERT_TRUE(b().BeginCompletion(nested_running, WordOf(nested_running).generation));
  b().FinishCompletion(nested_running);
  ASSERT_EQ(host().DropFinished(kWorkerA), nested_running);
  host().Free(nested_running);
  EXPECT_FALSE(host().DropFinished(kWorkerA).has_value());
  EXPECT_FALSE(host().IsOrigin(kWorkerA));
}

TEST_P(DispatcherTest, ACallThatWorkersDieWithFailsThoughItMayRunAgain) {
  for (const bool begun : {false, true}) {
    const uint32_t index = PostFromHost(begun ? kCallIdempotent : 0);
    uint32_t failed = 0;
    const auto die = [&] {
      ASSERT_EQ(a().ClaimAny(), index);
      if (begun) a().Begin(index, WordOf(index).generation);
      host().ReclaimParticipant(kWorkerA, [&](uint32_t orphan, Dispatcher::Orphan what) {
        EXPECT_EQ(what, Dispatcher::Orphan::kFail);
        ++failed;
        host().Free(orphan);
      });
    };
    for (uint32_t death = 0; death < kMostDeaths; ++death) die();
    EXPECT_EQ(failed, 0u);
    die();
    EXPECT_EQ(failed, 1u);
  }
}

TEST_P(DispatcherTest, AnAnswerWhoseWorkerDiedBeforeTellingIsToldOnce) {
  const uint32_t untold = PostFromHost();
  const uint32_t told = PostFromHost();
  ASSERT_TRUE(a().Claim({told, WordOf(told).generation}));
  ASSERT_TRUE(a().BeginCompletion(told, WordOf(told).generation));
  a().FinishCompletion(told);
  ASSERT_EQ(host().NextCompletion(), told);
  ASSERT_TRUE(a().Claim({untold, WordOf(untold).generation}));
  ASSERT_TRUE(a().BeginCompletion(untold, WordOf(untold).generation));
  a().FinishCompletion(untold);
  for (auto& bits : segment_->participant(kHostParticipant).completions) bits.store(0);

  const auto none = [](uint32_t, Dispatcher::Orphan) { FAIL(); };
  host().ReclaimParticipant(kWorkerA, none);
  EXPECT_EQ(host().NextCompletion(), untold);
  host().ReclaimParticipant(kWorkerB, none);
  EXPECT_FALSE(host().NextCompletion().has_value());
  host().Free(untold);
  host().Free(told);
}

TEST_P(DispatcherTest, ADeliveryIsNotRepeatedAndKeepsItsBlockWhenCancelled) {
  const uint32_t claimed = PostFromHost(kCallIdempotent);
  segment_->call(claimed).kind = CallKind::kDeliver;
  ASSERT_TRUE(a().Claim({claimed, WordOf(claimed).generation}));
  std::set<uint32_t> failed;
  host().ReclaimParticipant(kWorkerA, [&](uint32_t index, Dispatcher::Orphan what) {
    EXPECT_EQ(what, Dispatcher::Orphan::kFail);
    failed.insert(index);
    host().Free(index);
  });
  EXPECT_EQ(failed, (std::set<uint32_t>{claimed}));

  const uint32_t queued = PostFromHost();
  segment_->call(queued).kind = CallKind::kDeliver;
  segment_->call(queued).output = {.offset = 4096, .bytes = 8, .block = 3, .place = Place::kPoolOutput, .reserved = {}};
  EXPECT_TRUE(host().Cancel(queued, WordOf(queued).generation, Code::kInvocationTimeout));
  EXPECT_EQ(segment_->call(queued).output.block, 3u);
}

TEST_P(DispatcherTest, ResetMakesEveryEntryFreeUnderANewGeneration) {
  const uint32_t index = PostFromHost();
  const uint32_t generation = WordOf(index).generation;
  host().ResetTable();
  EXPECT_EQ(host().in_use(), 0u);
  EXPECT_FALSE(a().Claim({index, generation}));
  EXPECT_FALSE(a().HasQueued());
}

/// A worker as short as can be: polls for a while when `hot`, else sleeps at the doorbell; completes what it gets.
void Serve(segment::Segment& segment, Doorbell& doorbell, Dispatcher& self, bool hot, const std::atomic<bool>& stop) {
  auto finish = [&](uint32_t index) {
    const uint32_t generation = CallWord::Unpack(segment.call(index).word.load()).generation;
    if (self.BeginCompletion(index, generation)) self.FinishCompletion(index);
  };
  auto claim = [&](std::optional<Bell> bell) {
    if (bell && self.Claim(*bell)) finish(bell->index);
    return bell.has_value();
  };
  while (!stop.load()) {
    SpinYield spin;
    while (hot && spin.steps() < 2000) {
      self.OfferCredit();
      if (claim(self.TakeCredited())) break;
      spin.Step();
    }
    while (auto index = self.ClaimAny()) finish(*index);
    if (claim(self.WithdrawCredit())) continue;
    self.AnnounceSleep();
    if (!self.HasQueued()) {
      const auto bell = doorbell.Receive(DeadlineIn(20'000'000));
      self.AnnounceAwake();
      claim(bell);
    } else {
      self.AnnounceAwake();
    }
  }
}

TEST_P(DispatcherTest, MixedHotAndSleepingWorkersAnswerEveryCallOnce) {
  std::atomic<bool> stop{false};
  std::thread worker_a([&] { Serve(*segment_, *doorbell_, a(), true, stop); });
  std::thread worker_b([&] { Serve(*segment_, *doorbell_, b(), false, stop); });
  constexpr uint32_t kTotal = 20'000;
  uint32_t posted = 0;
  uint32_t answered = 0;
  const uint64_t watchdog = DeadlineIn(60'000'000'000);
  while (answered < kTotal && NowNs() < watchdog) {
    // In bursts, so that the workers run dry and go to sleep in between.
    const uint32_t burst = posted % 7 == 0 ? 12 : 1;
    for (uint32_t i = 0; i < burst && posted < kTotal; ++i) {
      const auto index = host().Reserve();
      if (!index) break;
      CallEntry& entry = segment_->call(*index);
      entry.origin = Origin::kHost;
      entry.origin_index = 0;
      entry.flags = 0;
      host().Post(*index);
      ++posted;
    }
    while (answered < posted && NowNs() < watchdog) {
      if (const auto index = host().NextCompletion()) {
        host().Free(*index);
        ++answered;
      } else {
        sched_yield();
      }
    }
  }
  stop.store(true);
  worker_a.join();
  worker_b.join();
  EXPECT_EQ(answered, kTotal);
  EXPECT_EQ(host().in_use(), 0u);
}

TEST_P(DispatcherTest, KilledWorkersLoseNoCall) {
  constexpr int kRounds = 60;
  uint32_t crashed = 0;
  for (int round = 0; round < kRounds; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      const std::atomic<bool> never{false};
      Serve(*segment_, *doorbell_, a(), round % 2 == 0, never);
      _exit(0);
    }
    uint32_t posted = 0;
    uint32_t answered = 0;
    auto collect = [&] {
      while (const auto index = host().NextCompletion()) {
        host().Free(*index);
        ++answered;
      }
    };
    // The child dies in the middle of its work, at a different place in every round.
    const uint32_t dies_after = static_cast<uint32_t>(round * 13 % 97);
    while (answered <= dies_after) {
      if (posted < answered + 8) {
        PostFromHost(round % 3 == 0 ? kCallIdempotent : 0);
        ++posted;
      }
      collect();
    }
    ASSERT_EQ(kill(child, SIGKILL), 0);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    host().ReclaimParticipant(kWorkerA, [&](uint32_t index, Dispatcher::Orphan what) {
      EXPECT_EQ(what, Dispatcher::Orphan::kFail);
      host().Free(index);
      ++answered;
      ++crashed;
    });
    // What the dead worker had not claimed, or was idempotent, the other one runs.
    while (const auto index = b().ClaimAny()) {
      ASSERT_TRUE(b().BeginCompletion(*index, WordOf(*index).generation));
      b().FinishCompletion(*index);
    }
    collect();
    ASSERT_EQ(answered, posted) << "round " << round;
    ASSERT_EQ(host().in_use(), 0u);
    while (doorbell_->TryReceive()) {
    }
  }
  RecordProperty("crashed_calls", static_cast<int>(crashed));
}

}  // namespace
}  // namespace praas::dispatch
