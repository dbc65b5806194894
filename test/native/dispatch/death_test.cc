#include <gtest/gtest.h>
#include <mqueue.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "dispatch/dispatcher.h"
#include "mqueue/message_queue.h"
#include "segment/call_check.h"
#include "segment/segment.h"
#include "segment/table_check.h"
#include "support/single_step.h"

/// A participant that dies at any instruction of the hand-over of calls: each call is answered once, by whoever took it
/// over or as crashed, and whoever has to be woken is.
namespace praas::dispatch {
namespace {

using test::Deaths;
using test::KillAtEveryChange;

constexpr uint16_t kVictim = 1;
constexpr uint16_t kSurvivor = 2;
constexpr uint32_t kCallCount = 64;

/// Ids of calls, as their origins know them.
constexpr uint64_t kFirst = 100;
constexpr uint64_t kSecond = 200;
constexpr uint64_t kNext = 300;

class DeathTest : public ::testing::TestWithParam<DoorbellKind> {
 protected:
  void SetUp() override {
    name_ = "/praas-test-death-" + std::to_string(::getpid());
    auto segment = segment::Segment::CreateOrAttach({.name = name_,
                                                     .process_id = "death",
                                                     .memory_bytes = 1u << 20,
                                                     .pool_bytes = 1u << 20,
                                                     .calls = kCallCount,
                                                     .format = {}});
    ASSERT_TRUE(segment.ok()) << segment.status().message();
    segment_.emplace(std::move(segment).value());
    ASSERT_TRUE(segment_->Commit(segment_->header().participants, 3).ok());
    ASSERT_TRUE(segment_->Commit(segment_->header().windows, 1).ok());
    if (GetParam() == DoorbellKind::kFutex) ::setenv("PRAAS_DOORBELL", "futex", 1);
    std::string why;
    auto doorbells = Doorbells::Create(*segment_, name_, {true, false}, &why);
    ::unsetenv("PRAAS_DOORBELL");
    ASSERT_TRUE(doorbells.ok()) << doorbells.status().message();
    doorbells_ = std::move(doorbells).value();
    ASSERT_EQ(doorbells_->kind(), GetParam()) << why;
    for (uint16_t i = 0; i < 3; ++i) {
      segment_->participant(i).state.store(static_cast<uint32_t>(ParticipantState::kReady));
      segment_->participant(i).pid.store(::getpid());
      segment_->participant(i).kind = static_cast<uint32_t>(i == 0 ? ParticipantKind::kHost : WorkerKind(Lane::kNode));
      dispatcher_[i].emplace(*segment_, *doorbells_, i);
    }
  }
  void TearDown() override {
    if (!segment_) return;
    EXPECT_TRUE(segment::Segment::Unlink(name_).ok());
    EXPECT_TRUE(mqueue::MessageQueue::Unlink(Doorbells::QueueName(name_, Lane::kNode)).ok());
  }

  Dispatcher& host() { return *dispatcher_[kHostParticipant]; }
  Dispatcher& victim() { return *dispatcher_[kVictim]; }
  Dispatcher& survivor() { return *dispatcher_[kSurvivor]; }
  Doorbell& doorbell() { return *doorbells_->of(Lane::kNode); }
  CallWord WordOf(uint32_t index) const { return CallWord::Unpack(segment_->call(index).word.load()); }

  /// A reserved entry, filled in: of the host, or of a worker's own.
  uint32_t Fill(Dispatcher& sender, uint16_t self, uint64_t id, uint16_t flags = 0) {
    const auto index = sender.Reserve();
    if (!index) ::abort();
    CallEntry& entry = segment_->call(*index);
    entry.function = 0;
    entry.origin = self == kHostParticipant ? Origin::kHost : Origin::kWorker;
    entry.origin_index = self;
    entry.origin_call = id;
    entry.kind = CallKind::kInvoke;
    entry.flags = flags;
    entry.depth = self == kHostParticipant ? 0 : 1;
    entry.input = {};
    entry.output = {};
    entry.status = 0;
    entry.stream = 0;
    entry.deaths = 0;
    entry.deadline_ns = DeadlineIn(600'000'000'000);
    return *index;
  }
  uint32_t PostFromHost(uint64_t id, uint16_t flags = 0) {
    const uint32_t index = Fill(host(), kHostParticipant, id, flags);
    host().Post(index);
    return index;
  }
  /// What a function's end is.
  void Complete(Dispatcher& worker, uint32_t index, Code status = Code::kOk) {
    if (!worker.BeginCompletion(index, WordOf(index).generation)) return;
    segment_->call(index).status = static_cast<uint32_t>(status);
    worker.FinishCompletion(index);
  }

  /// As in a new segment, but for generations.
  void Reset() {
    host().ResetTable();
    while (doorbell().TryReceive()) {
    }
    answers_.clear();
  }

  /// What the host does after a death; then the survivor serves what there is, woken by nothing but a bell when
  /// `asleep`.
  void Bury(bool asleep) {
    std::vector<uint32_t> failed;
    std::vector<uint32_t> dropped;
    host().ReclaimParticipant(kVictim, [&](uint32_t index, Dispatcher::Orphan what) {
      (what == Dispatcher::Orphan::kFail ? failed : dropped).push_back(index);
    });
    for (const uint32_t index : failed) {
      segment_->call(index).status = static_cast<uint32_t>(Code::kWorkerCrashed);
      host().FinishCompletion(index);
    }
    for (const uint32_t index : dropped) host().Free(index);

    std::optional<Bell> bell = doorbell().TryReceive();
    if (asleep && AnyQueued()) {
      EXPECT_TRUE(bell.has_value()) << "a call is queued, and nobody is woken for it";
    }
    for (; bell; bell = doorbell().TryReceive()) {
      if (survivor().Claim(*bell)) Complete(survivor(), bell->index);
    }
    while (const auto index = survivor().ClaimAny()) Complete(survivor(), *index);
    for (uint32_t index = 0; index < kCallCount; ++index) {
      if (WordOf(index).state == CallState::kClaimed) Complete(survivor(), index);  // ran there all the time
    }
    EXPECT_FALSE(AnyQueued()) << "a queued call that no hint leads to";
    while (const auto index = host().NextCompletion()) {
      const CallEntry& entry = segment_->call(*index);
      answers_[entry.origin_call].push_back(static_cast<Code>(entry.status));
      host().Free(*index);
    }
    while (const auto index = host().DropFinished(kVictim)) host().Free(*index);
    EXPECT_FALSE(host().IsOrigin(kVictim));
    EXPECT_EQ(host().in_use(), 0u);
    EXPECT_EQ(segment_->participant(kVictim).credit.load(), kCreditNone);
    for (const std::string& violation : segment::CheckCalls(*segment_)) ADD_FAILURE() << violation;
    for (const std::string& violation : segment::CheckTables(*segment_)) ADD_FAILURE() << violation;

    // Another worker in the victim's place has nothing of it, and calls go on.
    const uint32_t index = PostFromHost(kNext);
    ASSERT_EQ(victim().ClaimAny(), index);
    Complete(victim(), index);
    ASSERT_EQ(host().NextCompletion(), index);
    host().Free(index);
  }
  bool AnyQueued() const {
    for (uint32_t index = 0; index < kCallCount; ++index) {
      if (WordOf(index).state == CallState::kQueued) return true;
    }
    return false;
  }

  void ExpectAnswered(uint64_t id, std::initializer_list<Code> allowed) {
    const std::vector<Code>& got = answers_[id];
    ASSERT_EQ(got.size(), 1u) << "answers to call " << id;
    EXPECT_TRUE(std::find(allowed.begin(), allowed.end(), got[0]) != allowed.end()) << CodeName(got[0]);
  }

  /// Deaths in all that host and workers share, and of what lies in the queue.
  Deaths Base() {
    const segment::Header& header = segment_->header();
    const auto part = [this](uint64_t offset, uint64_t bytes) {
      return std::span<const std::byte>(segment_->base() + offset, bytes);
    };
    Deaths deaths;
    deaths.watched = [&header, part] {
      return test::Parts{part(0, sizeof(segment::Header)), part(header.participants.offset, 3 * sizeof(Participant)),
                         part(header.calls.offset, kCallCount * sizeof(CallEntry)),
                         part(header.futex_queue, segment::kFutexQueueBytes)};
    };
    if (GetParam() == DoorbellKind::kMessageQueue) {
      deaths.kernel = [this] {
        mq_attr attributes{};
        ::mq_getattr(doorbell().fd(), &attributes);
        return static_cast<uint64_t>(attributes.mq_curmsgs);
      };
    }
    deaths.reset = [this] { Reset(); };
    return deaths;
  }

  std::string name_;
  std::optional<segment::Segment> segment_;
  std::unique_ptr<Doorbells> doorbells_;
  std::array<std::optional<Dispatcher>, 3> dispatcher_;
  std::map<uint64_t, std::vector<Code>> answers_;
};

INSTANTIATE_TEST_SUITE_P(Doorbells, DeathTest, ::testing::Values(DoorbellKind::kMessageQueue, DoorbellKind::kFutex),
                         [](const auto& info) {
                           return info.param == DoorbellKind::kFutex ? "Futex" : "MessageQueue";
                         });

TEST_P(DeathTest, BetweenABellAndItsFunction) {
  for (const uint16_t flags : {uint16_t{0}, uint16_t{kCallIdempotent}}) {
    Deaths deaths = Base();
    uint32_t index = 0;
    deaths.reset = [&] {
      Reset();
      survivor().AnnounceSleep();
      index = PostFromHost(kFirst, flags);
    };
    deaths.prepare = [&] { victim().AnnounceSleep(); };
    deaths.operation = [&] {
      const auto bell = doorbell().Receive(DeadlineIn(60'000'000'000));
      victim().AnnounceAwake();
      if (!bell || !victim().Claim(*bell)) ::_exit(8);
      victim().Begin(bell->index, bell->generation);
    };
    deaths.verify = [&](bool over) {
      const bool claimed = !AnyQueued();
      EXPECT_TRUE(claimed || !over);
      const bool begun = HasBegun(segment_->call(index));
      EXPECT_TRUE(begun || !over);
      Bury(true);
      ExpectAnswered(kFirst, {begun && flags == 0 ? Code::kWorkerCrashed : Code::kOk});
    };
    KillAtEveryChange(deaths);
    if (IsSkipped() || HasFailure()) return;
  }
}

TEST_P(DeathTest, WhileDrainingTheTable) {
  Deaths deaths = Base();
  deaths.reset = [&] {
    Reset();
    survivor().AnnounceSleep();
    PostFromHost(kFirst);
    PostFromHost(kSecond);
  };
  deaths.operation = [&] {
    while (const auto index = victim().ClaimAny()) Complete(victim(), *index);
    victim().AnnounceSleep();
  };
  deaths.verify = [&](bool over) {
    Bury(true);
    ExpectAnswered(kFirst, {Code::kOk, Code::kWorkerCrashed});
    ExpectAnswered(kSecond, {Code::kOk, Code::kWorkerCrashed});
    if (over) ExpectAnswered(kSecond, {Code::kOk});
  };
  KillAtEveryChange(deaths);
}

TEST_P(DeathTest, WithACallInItsCredit) {
  Deaths deaths = Base();
  deaths.reset = [&] {
    Reset();
    victim().OfferCredit();
    PostFromHost(kFirst);
  };
  deaths.operation = [&] {
    const auto bell = victim().TakeCredited();
    if (!bell || !victim().Claim(*bell)) ::_exit(8);
    Complete(victim(), bell->index);
  };
  deaths.verify = [&](bool over) {
    Bury(false);
    ExpectAnswered(kFirst, {Code::kOk, Code::kWorkerCrashed});
    if (over) ExpectAnswered(kFirst, {Code::kOk});
  };
  KillAtEveryChange(deaths);
}

TEST_P(DeathTest, OnItsWayToSleep) {
  Deaths deaths = Base();
  deaths.reset = [&] {
    Reset();
    survivor().AnnounceSleep();
  };
  deaths.operation = [&] {
    for (const Takes takes : {Takes::kAll, Takes::kNested}) {
      victim().OfferCredit();
      if (victim().WithdrawCredit()) ::_exit(8);
      victim().AnnounceSleep(takes);
      victim().AnnounceAwake();
    }
  };
  // Nobody has noticed yet when the next call comes.
  deaths.verify = [&](bool) {
    PostFromHost(kFirst);
    Bury(true);
    ExpectAnswered(kFirst, {Code::kOk});
  };
  KillAtEveryChange(deaths);
}

TEST_P(DeathTest, WhileItAnswers) {
  for (const uint16_t flags : {uint16_t{0}, uint16_t{kCallIdempotent}}) {
    Deaths deaths = Base();
    uint32_t index = 0;
    deaths.reset = [&] {
      Reset();
      index = PostFromHost(kFirst, flags);
    };
    deaths.prepare = [&] {
      if (victim().ClaimAny() != index) ::_exit(8);
      victim().Begin(index, WordOf(index).generation);
    };
    deaths.operation = [&] { Complete(victim(), index, Code::kFunctionThrew); };
    deaths.verify = [&](bool over) {
      Bury(false);
      // The victim's answer, or that it died, or what another made of it.
      ExpectAnswered(kFirst, {Code::kFunctionThrew, flags != 0 ? Code::kOk : Code::kWorkerCrashed});
      if (over) ExpectAnswered(kFirst, {Code::kFunctionThrew});
    };
    KillAtEveryChange(deaths);
    if (IsSkipped() || HasFailure()) return;
  }
}

TEST_P(DeathTest, WhileItPostsACallOfItsOwn) {
  for (const bool taken : {false, true}) {
    Deaths deaths = Base();
    deaths.reset = [&] {
      Reset();
      survivor().AnnounceSleep();
    };
    deaths.operation = [&] { victim().Post(Fill(victim(), kVictim, kFirst)); };
    deaths.verify = [&](bool) {
      // Another may have begun with it before the death is noticed.
      if (taken) (void)survivor().ClaimAny();
      Bury(true);
      EXPECT_EQ(answers_.count(kFirst), 0u) << "nobody waits for it";
    };
    KillAtEveryChange(deaths);
    if (IsSkipped() || HasFailure()) return;
  }
}

TEST_P(DeathTest, WhileItTakesAnAnswer) {
  Deaths deaths = Base();
  deaths.prepare = [&] {
    const uint32_t index = Fill(victim(), kVictim, kFirst);
    victim().Post(index);
    if (survivor().ClaimAny() != index) ::_exit(8);
    Complete(survivor(), index);
  };
  deaths.operation = [&] {
    const auto index = victim().NextCompletion();
    if (!index) ::_exit(8);
    victim().Free(*index);
  };
  deaths.verify = [&](bool) {
    Bury(false);
    EXPECT_EQ(answers_.count(kFirst), 0u);
  };
  KillAtEveryChange(deaths);
}

TEST_P(DeathTest, WhileItCancels) {
  for (const bool runs : {false, true}) {
    Deaths deaths = Base();
    uint32_t index = 0;
    deaths.reset = [&] {
      Reset();
      index = Fill(victim(), kVictim, kFirst);
      victim().Post(index);
      if (runs) {
        ASSERT_EQ(survivor().ClaimAny(), index);
      }
    };
    deaths.operation = [&] {
      if (victim().Cancel(index, WordOf(index).generation, Code::kInvocationCancelled)) victim().Free(index);
    };
    deaths.verify = [&](bool) {
      Bury(false);
      EXPECT_EQ(answers_.count(kFirst), 0u);
    };
    KillAtEveryChange(deaths);
    if (IsSkipped() || HasFailure()) return;
  }
}

TEST_P(DeathTest, WhileItDropsAParkedAnswer) {
  Deaths deaths = Base();
  uint32_t index = 0;
  deaths.reset = [&] {
    Reset();
    index = Fill(host(), kHostParticipant, kFirst);
    segment_->call(index).origin = Origin::kWindow;
    host().Post(index);
    ASSERT_EQ(survivor().ClaimAny(), index);
    ASSERT_TRUE(survivor().BeginCompletion(index, WordOf(index).generation));
    survivor().Park(index);
  };
  deaths.operation = [&] {
    if (!victim().Unpark(index, kHostParticipant, kFirst, Dispatcher::Unparked::kDrop)) ::_exit(8);
    victim().ReleaseReserved(index);
  };
  deaths.verify = [&](bool over) {
    // Nobody has begun to drop it, or it is dropped: its block may be gone.
    if (WordOf(index).state == CallState::kParked) {
      EXPECT_FALSE(over);
      host().Free(index);
    }
    Bury(false);
    EXPECT_EQ(answers_.count(kFirst), 0u);
  };
  KillAtEveryChange(deaths);
}

/// The host's own death: the next one starts with an empty table, whatever the former one was at.
TEST_P(DeathTest, OfTheHost) {
  Deaths deaths = Base();
  deaths.most = 8;
  deaths.reset = [&] {
    Reset();
    survivor().AnnounceSleep();
    victim().OfferCredit();
    for (const uint64_t id : {kFirst, kSecond, kNext}) PostFromHost(id, id == kSecond ? kCallIdempotent : 0);
    ASSERT_TRUE(victim().ClaimAny().has_value());
    ASSERT_TRUE(victim().ClaimAny().has_value());
    victim().Post(Fill(victim(), kVictim, kFirst));
  };
  deaths.operation = [&] {
    PostFromHost(kFirst);
    host().ReclaimParticipant(kVictim, [this](uint32_t index, Dispatcher::Orphan) { host().Free(index); });
    (void)host().Cancel(*survivor().ClaimAny(), 0, Code::kInvocationTimeout);
    host().ResetTable();
  };
  deaths.verify = [&](bool) {
    Reset();
    EXPECT_FALSE(survivor().HasQueued());
    Bury(true);
  };
  KillAtEveryChange(deaths);
}

}  // namespace
}  // namespace praas::dispatch
