#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "../publication/block.h"
#include "base/pidfd.h"
#include "base/process_id.h"
#include "dispatch/stream_channel.h"
#include "dispatch/stream_ring.h"
#include "host/process.h"
#include "host/repair.h"
#include "host_fixture.h"
#include "segment/arena_head.h"
#include "segment/call_check.h"
#include "segment/table_check.h"
#include "state/records.h"
#include "support/child.h"
#include "support/single_step.h"

/// A host that dies at any instruction of taking over what another one left: the one after it finds the same, and has
/// it whole.
namespace praas::test {
namespace {

using dispatch::Bell;
using dispatch::CallState;
using dispatch::CallWord;
using host::Process;
using LockMode = state::StateStore::LockMode;

constexpr uint16_t kHost = dispatch::kHostParticipant;
constexpr uint16_t kWorker = 1;
constexpr uint32_t kStream = 0;
constexpr uint64_t kOwner = 7;  // of locks

uint64_t Soon() { return DeadlineIn(kWatchdogNs); }

class TakeoverTest : public ::testing::Test {
 protected:
  void TearDown() override {
    worker_.reset();
    (void)mqueue::MessageQueue::Unlink(test_.assignment.queue);
  }

  /// A host and its worker in the middle of everything; then the host is dead, and nobody has noticed.
  void LeaveInTheMiddle() {
    worker_.reset();
    segment_.reset();
    (void)segment::Segment::Unlink(test_.assignment.segment);
    StartWorker();
    const Result<std::unique_ptr<Process>> former = Process::Open(test_.assignment, Soon());
    ASSERT_TRUE(former.ok()) << former.status().message();
    segment_.emplace(segment::Segment::Open(test_.assignment.segment, true).value());
    LeaveState(*(*former)->state);
    LeaveCalls(**former);
    LeaveWorker(**former);
  }
  void LeaveState(state::StateStore& store) {
    ASSERT_TRUE(store.Set("value", AsBytes("whole"), {.deadline_ns = Soon()}).ok());
    ASSERT_TRUE(store.Append("log", AsBytes("one,"), Soon()).ok());
    ASSERT_TRUE(store.Append("log", AsBytes("two"), Soon()).ok());
    ASSERT_TRUE(store.Publish("value", std::nullopt, Soon()).ok());
    ASSERT_TRUE(store.Lock("of a client", LockMode::kWrite, {kHost, kOwner}, Soon()).ok());
    ASSERT_TRUE(store.Pin("value", Soon()).ok());
  }
  /// In every state that a call can be in, with payloads in the pool, a window that is polled and a stream.
  void LeaveCalls(Process& process) {
    const segment::Segment& segment = *process.segment;
    segment::Header& header = process.header();
    ASSERT_TRUE(segment.Commit(header.participants, kWorker + 1).ok());
    ASSERT_TRUE(segment.Commit(header.windows, 1).ok());
    ASSERT_TRUE(segment.Commit(header.streams, 1).ok());
    ASSERT_TRUE(segment.Commit(header.functions, 1).ok());
    header.windows_used.store(1);
    header.function_count.store(1);
    dispatch::Dispatcher& host = *process.dispatcher;
    dispatch::Dispatcher worker(segment, *process.doorbells, kWorker);
    const auto post = [&](dispatch::Origin origin) {
      const uint32_t index = host.Reserve().value();
      dispatch::CallEntry& entry = segment.call(index);
      entry.origin = origin;
      entry.origin_index = origin == dispatch::Origin::kWorker ? kWorker : 0;
      entry.deadline_ns = Soon();
      entry.stream = origin == dispatch::Origin::kHost ? kStream + 1 : 0;
      const auto block = process.pool->inputs().Allocate(5'000, dispatch::CallBlockOwner(index), Soon());
      ASSERT_TRUE(block.ok());
      entry.input = {block->offset, 5'000, block->block, dispatch::Place::kPoolInput, {}};
      host.Post(index);
    };
    post(dispatch::Origin::kHost);
    const uint32_t done = worker.ClaimAny().value();
    ASSERT_TRUE(worker.BeginCompletion(done, WordOf(done).generation));
    worker.FinishCompletion(done);
    post(dispatch::Origin::kHost);
    const uint32_t completing = worker.ClaimAny().value();
    ASSERT_TRUE(worker.BeginCompletion(completing, WordOf(completing).generation));
    post(dispatch::Origin::kWindow);
    const uint32_t running = worker.ClaimAny().value();
    worker.Begin(running, WordOf(running).generation);
    ASSERT_TRUE(process.pool->outputs().Allocate(5'000, dispatch::CallBlockOwner(running), Soon()).ok());
    post(dispatch::Origin::kWorker);
    const uint32_t queued = running + 1;
    ASSERT_EQ(WordOf(queued).state, CallState::kQueued);
    former_bell_ = {queued, WordOf(queued).generation};
    (void)host.Reserve();
    worker.AnnounceSleep();
    worker.AnnounceAwake();
    worker.OfferCredit();
    segment::WindowSlot& window = segment.window(0);
    window.state.store(1);
    window.poller.store(kWorker);
    window.consumer.store(kWorker + 1);
    segment.At<dispatch::StreamRing>(header.streams, kStream).in_use.store(1);
  }
  /// An OS process that goes on, in the middle of a section of the state and one of the data arena, with a value that
  /// it has not published yet. It has its own view of the segment: a child of a host would have that one's hold on it.
  void StartWorker() {
    worker_.emplace(Child::Fork([this] {
      (void)::setpgid(0, 0);
      formed_.Await();
      const segment::Segment segment = segment::Segment::Open(test_.assignment.segment, true).value();
      segment::Arena arena = segment::Arena::Data(segment, kWorker);
      state::StateStore store(segment, arena, kWorker);
      const segment::BlockOwner unpublished{segment::BlockOwner::Kind::kParticipant, kWorker, 0};
      auto& mutex = const_cast<segment::RobustMutex&>(arena.mutex());
      if (!store.Lock("of a worker", LockMode::kWrite, {kWorker, kOwner}, Soon()).ok() ||
          !arena.Allocate(300, unpublished, Soon()).ok() ||
          !segment::Holds(state::Records(segment).head().mutex.Lock(kWorker, Soon())) ||
          !segment::Holds(mutex.Lock(kWorker, Soon()))) {
        return 8;
      }
      there_.Set();
      for (;;) ::pause();
    }));
  }
  void LeaveWorker(Process& process) {
    formed_.Set();
    there_.Await();
    dispatch::Participant& worker = process.segment->participant(kWorker);
    const ProcessId id = ProcessId::Of(worker_->pid()).value();
    worker.kind = static_cast<uint32_t>(dispatch::WorkerKind(dispatch::Lane::kNode));
    worker.pid.store(id.pid);
    worker.pid_start_time = id.start_time;
    worker.state.store(static_cast<uint32_t>(dispatch::ParticipantState::kReady));
    host_generation_ = process.header().host_generation.load();
  }

  /// What the next host says of it, and does with it.
  void TakeOver() {
    Result<std::unique_ptr<Process>> opened = Process::Open(test_.assignment, Soon());
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    Process& process = **opened;
    EXPECT_TRUE(process.segment->attached());
    EXPECT_FALSE(worker_->Running()) << "a former worker goes on writing";
    EXPECT_GT(process.header().host_generation.load(), host_generation_);
    ExpectSound(process);
    ExpectState(process);
    ExpectNothingOfFormerCalls(process);
    ExpectServes(process);
    ExpectSound(process);
    EXPECT_TRUE(test_.Read(test_.assignment.objects).starts_with("host " + std::to_string(::getpid()) + " "));
  }
  static void ExpectSound(Process& process) {
    for (const std::string& violation : segment::CheckCalls(*process.segment)) ADD_FAILURE() << violation;
    for (const std::string& violation : segment::CheckTables(*process.segment)) ADD_FAILURE() << violation;
    for (const std::string& violation : process.state->Check()) ADD_FAILURE() << violation;
    for (const segment::Arena* arena : {process.data.get(), &process.pool->inputs(), &process.pool->outputs()}) {
      for (const std::string& violation : arena->Check()) ADD_FAILURE() << violation;
    }
  }
  static std::string Get(Process& process, std::string_view key) {
    const Result<std::vector<std::byte>> value = process.state->Get(key, Soon());
    return value.ok() ? AsText(*value) : value.status().message();
  }
  static void ExpectState(Process& process) {
    EXPECT_EQ(Get(process, "value"), "whole");
    EXPECT_EQ(Get(process, "log"), "one,two");
    EXPECT_EQ(process.data->usage().used_blocks, 2u);
    state::StateHead& head = state::Records(*process.segment).head();
    EXPECT_EQ(head.pins.used.load(), 0u);
    EXPECT_EQ(head.locks.used.load(), 0u);
    EXPECT_EQ(head.holders.used.load(), 0u);
    for (const std::string_view lock : {"of a client", "of a worker"}) {
      const auto ticket = process.state->Lock(lock, LockMode::kWrite, {kHost, kOwner + 1}, Soon());
      ASSERT_TRUE(ticket.ok() && ticket->granted) << lock;
    }
    EXPECT_TRUE(process.state->UnlockAll({kHost, kOwner + 1}, Soon()).ok());
    ASSERT_TRUE(process.state->RenewAll(Soon()).ok());
    const auto location = process.state->Locate("value", Soon());
    ASSERT_TRUE(location.ok() && location->has_value());
    EXPECT_EQ(publication::Mapped(process.area->memory(), **location).value, "whole");
    EXPECT_TRUE(process.state->Set("value", AsBytes("newer"), {.deadline_ns = Soon()}).ok());
    EXPECT_EQ(Get(process, "value"), "newer");
  }
  void ExpectNothingOfFormerCalls(Process& process) {
    EXPECT_EQ(process.dispatcher->in_use(), 0u);
    EXPECT_FALSE(process.dispatcher->NextCompletion());
    EXPECT_FALSE(process.dispatcher->AnyPoller());
    EXPECT_EQ(process.pool->inputs().usage().used_blocks, 0u);
    EXPECT_EQ(process.pool->outputs().usage().used_blocks, 0u);
    EXPECT_EQ(process.header().function_count.load(), 0u);
    EXPECT_EQ(process.segment->window(0).state.load(), 0u);
    EXPECT_EQ(process.segment->window(0).consumer.load(), 0u);
    EXPECT_EQ(process.segment->At<dispatch::StreamRing>(process.header().streams, kStream).in_use.load(), 0u);
    const dispatch::Participant& worker = process.segment->participant(kWorker);
    EXPECT_EQ(worker.state.load(), static_cast<uint32_t>(dispatch::ParticipantState::kFree));
    EXPECT_EQ(worker.pid.load(), 0);
    EXPECT_EQ(worker.credit.load(), dispatch::kCreditNone);
  }
  /// A call, by a worker in the former one's place.
  void ExpectServes(Process& process) {
    dispatch::Dispatcher worker(*process.segment, *process.doorbells, kWorker);
    EXPECT_FALSE(worker.Claim(former_bell_));
    EXPECT_FALSE(worker.ClaimAny());
    const auto index = process.dispatcher->Reserve();
    ASSERT_TRUE(index.has_value());
    dispatch::CallEntry& entry = process.segment->call(*index);
    entry.origin = dispatch::Origin::kHost;
    entry.origin_index = kHost;
    entry.deadline_ns = Soon();
    entry.depth = 0;
    entry.input = {};
    entry.output = {};
    entry.stream = 0;
    worker.AnnounceSleep();
    process.dispatcher->Post(*index);
    const auto bell = process.doorbells->of(dispatch::Lane::kNode)->TryReceive();
    ASSERT_TRUE(bell && worker.Claim(*bell));
    worker.AnnounceAwake();
    ASSERT_TRUE(worker.BeginCompletion(bell->index, bell->generation));
    worker.FinishCompletion(bell->index);
    ASSERT_EQ(process.dispatcher->NextCompletion(), index);
    process.dispatcher->Free(*index);
    EXPECT_EQ(process.dispatcher->in_use(), 0u);
  }

  [[nodiscard]] CallWord WordOf(uint32_t index) const { return CallWord::Unpack(segment_->call(index).word.load()); }

  /// All that is not a table's unused rest, nor data.
  [[nodiscard]] Parts Watched() const {
    const segment::Header& header = segment_->header();
    const auto part = [&](uint64_t offset, uint64_t bytes) {
      return std::span<const std::byte>(segment_->base() + offset, bytes);
    };
    const auto first = [&](const segment::Region& region, uint64_t records) {
      return part(region.offset, records * region.stride);
    };
    Parts parts = {part(0, sizeof(segment::Header)),
                   first(header.participants, kWorker + 1),
                   first(header.calls, header.calls.capacity),
                   first(header.windows, 1),
                   first(header.streams, 1),
                   first(header.state_keys, 3),
                   first(header.pins, 3),
                   first(header.locks, 3),
                   first(header.lock_holders, 3),
                   first(header.publications, 2),
                   part(header.state_head, sizeof(state::StateHead))};
    for (size_t arena = 0; arena < std::size(header.arena_heads); ++arena) {
      parts.push_back(part(header.arena_heads[arena], sizeof(segment::ArenaHead)));
      parts.push_back(first(header.arena_blocks[arena], 8));
    }
    return parts;
  }

  TestProcess test_;
  std::optional<segment::Segment> segment_;  // a look at what the others share
  const Signpost formed_;
  const Signpost there_;
  std::optional<Child> worker_;
  Bell former_bell_{};
  uint32_t host_generation_ = 0;
};

/// A part of Process::Open: from the function that it begins with until the one that follows on it. Of its changes as
/// many are tried as take a second; those of the state's repair are all looked at in state/crash_test.cc.
struct Phase {
  const char* name;
  const void* from;
  const void* until;
  uint64_t most;

  friend void PrintTo(const Phase& phase, std::ostream* out) { *out << phase.name; }
};

class TakeoverPhaseTest : public TakeoverTest, public ::testing::WithParamInterface<Phase> {};

INSTANTIATE_TEST_SUITE_P(
    Host, TakeoverPhaseTest,
    ::testing::Values(
        Phase{"Attaches", nullptr, CodeOf(&host::EndFormerWorkers), 12},
        Phase{"EndsWorkers", CodeOf(&Pidfd::Open), CodeOf(&host::ForgetFormerHost), 12},
        Phase{"ForgetsItsHost", CodeOf(&host::ForgetFormerHost), CodeOf(&segment::Arena::Recover), 12},
        Phase{"RecoversData", CodeOf(&segment::Arena::Recover), CodeOf(&state::StateStore::RepairAfterHost), 3},
        Phase{"MakesThePool", CodeOf(&dispatch::Doorbells::Create), CodeOf(&dispatch::Dispatcher::ResetTable), 12},
        Phase{"ResetsTheTable", CodeOf(&dispatch::Dispatcher::ResetTable), nullptr, 6}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(TakeoverPhaseTest, IsBegunAnewByTheNextHost) {
  KillAtEveryChange({
      .watched = [this] { return Watched(); },
      .reset = [this] { LeaveInTheMiddle(); },
      .operation =
          [this] {
            if (!Process::Open(test_.assignment, Soon()).ok()) ::_exit(8);
          },
      .from = GetParam().from,
      .until = GetParam().until,
      .verify = [this](bool) { TakeOver(); },
      .most = GetParam().most,
  });
}

}  // namespace
}  // namespace praas::test
