#include "window/client_window.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <array>
#include <cstring>
#include <set>

#include "base/clock.h"
#include "support/child.h"
#include "window/support.h"

namespace praas::window {
namespace {

class ClientWindowTest : public testing::Test {
 protected:
  uint32_t Open() {
    auto call = client_->Open();
    EXPECT_TRUE(call.ok() && call->has_value());
    return **call;
  }
  uint32_t SubmitEmpty(uint32_t function = kEcho) {
    const uint32_t call = Open();
    client_->Submit(
        call, {.function = function, .output_offset = SlotOutputOffset(call), .output_capacity = kSlotOutputBytes});
    return call;
  }
  std::vector<ClientWindow::Completion> Collect() {
    std::vector<ClientWindow::Completion> completions;
    client_->Collect(completions);
    return completions;
  }
  [[nodiscard]] uint64_t CommittedBytes() const {
    struct stat info {};
    EXPECT_EQ(fstat(window_.created.memfd.get(), &info), 0);
    return static_cast<uint64_t>(info.st_blocks) * 512;
  }
  bool Signalled() {
    const bool signalled = WaitReadable(window_.created.submit_event.get(), 0);
    if (signalled) DrainEvent(window_.created.submit_event.get());
    return signalled;
  }

  TestSegment segment_;
  TestWindow window_;
  std::unique_ptr<ClientWindow> client_ = window_.Client();
  std::unique_ptr<ServerWindow> server_ = window_.Server(segment_);
};

TEST_F(ClientWindowTest, RefusesAnotherLayout) {
  auto* base = static_cast<std::byte*>(
      mmap(nullptr, kPayloadOffset, PROT_READ | PROT_WRITE, MAP_SHARED, window_.created.memfd.get(), 0));
  ASSERT_NE(base, MAP_FAILED);
  auto* header = reinterpret_cast<WindowHeader*>(base);
  header->layout_version = kLayoutVersion + 1;
  EXPECT_EQ(ClientWindow::Map(window_.ForClient()).status().code(), Code::kProtocolVersion);
  header->layout_version = kLayoutVersion;
  header->slots_offset += 64;
  EXPECT_EQ(ClientWindow::Map(window_.ForClient()).status().code(), Code::kProtocolInvalid);
  header->slots_offset -= 64;
  EXPECT_TRUE(ClientWindow::Map(window_.ForClient()).ok());
  munmap(base, kPayloadOffset);
}

TEST_F(ClientWindowTest, CommitsMemoryInStepsAndTrimsWhatIsFree) {
  EXPECT_LE(CommittedBytes(), kSlotsOffset);
  auto small = client_->payload().Allocate(100);
  ASSERT_TRUE(small.ok());
  EXPECT_EQ(client_->payload().committed_bytes(), PayloadArea::kCommitBytes);
  auto same_step = client_->payload().Allocate(100);
  ASSERT_TRUE(same_step.ok());
  EXPECT_EQ(client_->counters().commits, 1u);
  auto large = client_->payload().Allocate(10u << 20);
  ASSERT_TRUE(large.ok());
  EXPECT_GE(CommittedBytes(), 10u << 20);
  std::memset(client_->Bytes(*large, 10u << 20).data(), 1, 10u << 20);
  std::memset(client_->Bytes(*small, 100).data(), 2, 100);

  client_->payload().allocator().Release(*large);
  client_->Trim(2u << 20);
  EXPECT_LE(client_->payload().committed_bytes(), (2u << 20) + 2 * PayloadArea::kCommitBytes);
  EXPECT_GE(client_->payload().committed_bytes(), 2u << 20);
  client_->Trim(0);
  EXPECT_EQ(client_->payload().committed_bytes(), PayloadArea::kCommitBytes) << "the step with the small blocks";
  EXPECT_LE(CommittedBytes(), kSlotsOffset + PayloadArea::kCommitBytes);
  EXPECT_EQ(client_->Bytes(*small, 100)[99], std::byte{2});
  EXPECT_TRUE(client_->payload().Allocate(10u << 20).ok());
}

TEST_F(ClientWindowTest, TrimKeepsSlotsOfOpenCalls) {
  const uint32_t call = Open();
  client_->Bytes(SlotInputOffset(call), 1)[0] = std::byte{9};
  client_->Trim(0);
  EXPECT_EQ(client_->Bytes(SlotInputOffset(call), 1)[0], std::byte{9});
  client_->Close(call);
  client_->Trim(0);
  EXPECT_LE(CommittedBytes(), kSlotsOffset);
  Open();
  EXPECT_GT(CommittedBytes(), kSlotsOffset);
}

TEST_F(ClientWindowTest, NoMemoryIsAnErrorOfTheCallThatNeededIt) {
  // The file size limit stands in for an exhausted machine: fallocate refuses, touching the page would have worked or
  // killed.
  auto child = test::Child::Fork([this] {
    auto window = window_.Client();
    const rlimit limit{kPayloadOffset + (1u << 20), kPayloadOffset + (1u << 20)};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 10;
    const auto fits = window->payload().Allocate(512u << 10);
    if (!fits.ok()) return 11;
    const auto refused = window->payload().Allocate(8u << 20);
    if (refused.ok()) return 12;
    if (refused.status().code() != Code::kStateMemory) return 13;
    if (window->payload().allocator().blocks() != 1) return 14;  // nothing may be left allocated
    const auto again = window->payload().Allocate(100);
    return again.ok() ? 0 : 15;
  });
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(ClientWindowTest, EveryCallOnceAndNoMore) {
  std::set<uint32_t> calls;
  for (uint32_t i = 0; i < kCalls; ++i) calls.insert(Open());
  EXPECT_EQ(calls.size(), kCalls);
  auto none = client_->Open();
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->has_value());
  client_->Close(17);
  EXPECT_EQ(Open(), 17u);
}

TEST_F(ClientWindowTest, AllCallsFitTheRingBesideOneThatWasAnsweredBeforeItWasTaken) {
  const uint32_t call = SubmitEmpty();
  ASSERT_TRUE(server_->TryConsume(1));
  ASSERT_TRUE(server_->Peek().has_value());
  EXPECT_TRUE(server_->Complete(call, 1, 0, 0, 0));  // by a worker; the consumer is killed before Taken
  ASSERT_EQ(Collect().size(), 1u);
  client_->Close(call);
  for (uint32_t i = 0; i < kCalls; ++i) SubmitEmpty();
  EXPECT_TRUE(server_->Reclaim(1));
  ASSERT_TRUE(server_->TryConsume(2));
  std::set<uint32_t> seen;
  while (const auto submission = server_->Peek()) {
    seen.insert(submission->call);
    server_->Taken();
  }
  EXPECT_EQ(seen.size(), kCalls);
}

TEST_F(ClientWindowTest, NoCallIsOpenedWhileAStoppedConsumerKeepsTheRingFull) {
  ASSERT_TRUE(server_->TryConsume(1));
  std::array<uint32_t, kCalls> uses{};
  uint32_t submitted = 0;
  for (;;) {
    const auto call = client_->Open().value();
    if (!call.has_value()) break;
    client_->Submit(*call, {.function = kEcho, .output_offset = SlotOutputOffset(*call), .output_capacity = 4096});
    ASSERT_LT(++submitted, kRing);
    ASSERT_TRUE(server_->Complete(*call, ++uses[*call], 0, 0, 0));
    ASSERT_EQ(Collect().size(), 1u);
    client_->Close(*call);
  }
  EXPECT_EQ(submitted, kRing - kCalls + 1);
  EXPECT_FALSE(server_->Peek().has_value()) << "all were answered: none is left";
  EXPECT_TRUE(client_->Open().value().has_value());
}

TEST_F(ClientWindowTest, OneOpenCallIsSeenWithoutItsBitAndSleepIsNotDisturbedByIt) {
  const uint32_t call = SubmitEmpty();
  ASSERT_TRUE(server_->TryConsume(1));
  const auto submission = server_->Peek();
  ASSERT_TRUE(submission.has_value());
  EXPECT_FALSE(client_->HasAnswer());
  EXPECT_TRUE(server_->Complete(call, submission->sequence, 0, 0, 0));
  EXPECT_TRUE(client_->HasAnswer());
  auto* header = reinterpret_cast<WindowHeader*>(client_->Bytes(0, 4096).data());
  const uint64_t bits = header->completions[call / 64].exchange(0);
  ASSERT_EQ(Collect().size(), 1u);
  header->completions[call / 64] = bits;
  EXPECT_FALSE(client_->HasAnswer()) << "once";
  client_->Close(call);
  EXPECT_TRUE(client_->PrepareToSleep()) << "its bit is still set, and tells nothing new";
}

TEST_F(ClientWindowTest, ALateAnswerDoesNotCompleteTheNextCallOfTheSlot) {
  const uint32_t call = SubmitEmpty();
  ASSERT_TRUE(server_->TryConsume(1));
  const auto first = server_->Peek();
  ASSERT_TRUE(first.has_value());
  server_->Taken();
  EXPECT_TRUE(server_->Complete(call, first->sequence, 0, 0, 0));
  ASSERT_EQ(Collect().size(), 1u);
  client_->Close(call);

  ASSERT_EQ(SubmitEmpty(), call);
  EXPECT_FALSE(server_->Complete(call, first->sequence, 0, 0, 0)) << "an earlier sequence";
  EXPECT_FALSE(server_->NeedRoom(call, first->sequence, 3, 10));
  EXPECT_TRUE(Collect().empty());
  const auto second = server_->Peek();
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->sequence, first->sequence + 1);
  EXPECT_TRUE(server_->Complete(call, second->sequence, 0, 0, 0));
  EXPECT_FALSE(server_->Complete(call, second->sequence, 0, 0, 0)) << "somebody answered before";
  EXPECT_EQ(Collect().size(), 1u);
  EXPECT_TRUE(Collect().empty());
  server_->Taken();
  EXPECT_FALSE(server_->EndConsume(1));
}

TEST_F(ClientWindowTest, ACompletionToldTwiceIsCollectedOnce) {
  const uint32_t call = SubmitEmpty();
  ASSERT_TRUE(server_->TryConsume(1));
  const auto submission = server_->Peek();
  ASSERT_TRUE(submission.has_value());
  EXPECT_TRUE(server_->Complete(call, submission->sequence, 0, 0, 0));
  EXPECT_EQ(Collect().size(), 1u);
  EXPECT_FALSE(server_->Complete(call, submission->sequence, 0, 0, 0));  // a repair: sets the bit again
  EXPECT_TRUE(Collect().empty()) << "collected and not closed yet";
  client_->Close(call);
  EXPECT_FALSE(server_->Complete(call, submission->sequence, 0, 0, 0));
  EXPECT_TRUE(Collect().empty()) << "closed";
}

TEST_F(ClientWindowTest, ARepairTellsWhatAKilledWorkerDidNot) {
  // The worker got as far as kDone and was killed before it set the bit.
  const uint32_t call = SubmitEmpty();
  ASSERT_TRUE(server_->TryConsume(1));
  const auto submission = server_->Peek();
  ASSERT_TRUE(submission.has_value());
  ASSERT_TRUE(server_->Complete(call, submission->sequence, 0, 0, 0));
  auto* header = reinterpret_cast<WindowHeader*>(client_->Bytes(0, 4096).data());
  header->completions[call / 64] = 0;
  ASSERT_TRUE(client_->PrepareToSleep());
  DrainEvent(client_->complete_event());
  EXPECT_FALSE(server_->CompleteError(call, submission->sequence, static_cast<uint32_t>(Code::kWorkerCrashed),
                                      std::string_view("crashed")));
  EXPECT_TRUE(WaitReadable(client_->complete_event(), 0));
  const auto completions = Collect();
  ASSERT_EQ(completions.size(), 1u);
  EXPECT_EQ(completions[0].status, 0u) << "the answer that was there first stands";
}

TEST_F(ClientWindowTest, CancellingSignalsTheHostOnce) {
  const uint32_t call = SubmitEmpty();
  EXPECT_TRUE(Signalled());
  const uint32_t before = server_->cancels();
  EXPECT_FALSE(server_->cancelled(call, 1));
  client_->Cancel(call);
  EXPECT_TRUE(server_->cancelled(call, 1));
  EXPECT_NE(server_->cancels(), before);
  EXPECT_TRUE(Signalled()) << "its worker may wait inside the function and look at nothing";
  client_->Cancel(call);
  EXPECT_FALSE(Signalled());
}

TEST_F(ClientWindowTest, SignalsOncePerStretch) {
  EXPECT_FALSE(Signalled());
  SubmitEmpty();
  SubmitEmpty();
  SubmitEmpty();
  EXPECT_EQ(client_->counters().signals, 1u) << "needs_wake is set in a new window";
  EXPECT_TRUE(Signalled());
  EXPECT_TRUE(client_->PrepareToSleep());
  EXPECT_EQ(client_->counters().signals, 1u);
  client_->Awake();

  // Only part of what the signal was for is consumed: its receiver is still at it.
  ASSERT_TRUE(server_->TryConsume(0));
  ASSERT_TRUE(server_->Peek().has_value());
  server_->Taken();
  SubmitEmpty();
  EXPECT_EQ(client_->counters().signals, 2u) << "the signal covered one submission, and that is consumed";
  SubmitEmpty();
  EXPECT_EQ(client_->counters().signals, 2u);
  while (server_->Peek().has_value()) server_->Taken();
  EXPECT_FALSE(server_->EndConsume(0));
  SubmitEmpty();
  EXPECT_EQ(client_->counters().signals, 3u);
}

TEST_F(ClientWindowTest, APollerThatDoesNotLookIsReportedBeforeSleepAndAfterPatience) {
  ASSERT_TRUE(server_->Adopt(1));
  EXPECT_FALSE(server_->Adopt(2)) << "one poller";
  SubmitEmpty();
  EXPECT_FALSE(Signalled()) << "somebody polls";
  const uint64_t begin = NowNs();
  while (client_->counters().signals == 0) client_->Tend();
  EXPECT_GE(NowNs() - begin, ClientWindow::kPatienceNs);
  EXPECT_TRUE(Signalled());

  ASSERT_TRUE(server_->TryConsume(0));
  while (server_->Peek().has_value()) server_->Taken();
  EXPECT_FALSE(server_->EndConsume(0));
  SubmitEmpty();
  EXPECT_FALSE(Signalled());
  EXPECT_TRUE(client_->PrepareToSleep());
  EXPECT_TRUE(Signalled());
}

TEST_F(ClientWindowTest, CompletionEventOnlyForASleeper) {
  for (const bool sleeps : {false, true}) {
    const uint32_t call = SubmitEmpty();
    if (sleeps) {
      EXPECT_TRUE(client_->PrepareToSleep());
    }
    ASSERT_TRUE(server_->TryConsume(1));
    const auto submission = server_->Peek();
    ASSERT_TRUE(submission.has_value());
    EXPECT_TRUE(server_->Complete(call, submission->sequence, 0, 0, 0));
    server_->Taken();
    EXPECT_FALSE(server_->EndConsume(1));
    EXPECT_EQ(WaitReadable(client_->complete_event(), 0), sleeps);
    if (!sleeps) {
      EXPECT_FALSE(client_->PrepareToSleep()) << "there is a completion";
    }
    client_->Awake();
    EXPECT_FALSE(WaitReadable(client_->complete_event(), 0));
    EXPECT_EQ(Collect().size(), 1u);
    client_->Close(call);
  }
}

TEST_F(ClientWindowTest, TheRingGoesRoundAndItsCountersWrap) {
  auto* header = reinterpret_cast<WindowHeader*>(client_->Bytes(0, 4096).data());
  const uint32_t begin = 0u - 700;
  header->submit_head = begin;
  client_ = window_.Client();
  header = reinterpret_cast<WindowHeader*>(client_->Bytes(0, 4096).data());
  uint64_t signals = 0;
  for (uint32_t round = 0; round < 500; ++round) {
    std::set<uint32_t> submitted{SubmitEmpty(), SubmitEmpty(), SubmitEmpty()};
    EXPECT_EQ(client_->counters().signals, ++signals);
    ASSERT_TRUE(server_->TryConsume(1));
    while (const auto submission = server_->Peek()) {
      EXPECT_EQ(submitted.erase(submission->call), 1u);
      server_->Taken();
      ASSERT_TRUE(server_->Complete(submission->call, submission->sequence, 0, 0, 0));
    }
    EXPECT_TRUE(submitted.empty());
    ASSERT_FALSE(server_->EndConsume(1));
    const auto completions = Collect();
    ASSERT_EQ(completions.size(), 3u);
    for (const auto& completion : completions) client_->Close(completion.call);
  }
  EXPECT_EQ(header->submit_head, begin + 1500);
}

}  // namespace
}  // namespace praas::window
