#include "window/server_window.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <random>

#include "support/child.h"
#include "window/support.h"

namespace praas::window {
namespace {

constexpr uint16_t kWorker = 7;

/// The window as a client sees it that does not keep to the rules: raw memory.
class RawClient {
 public:
  explicit RawClient(const TestWindow& window) : bytes_(window.bytes) {
    void* mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, window.created.memfd.get(), 0);
    EXPECT_NE(mapped, MAP_FAILED);
    base_ = static_cast<std::byte*>(mapped);
  }
  ~RawClient() { munmap(base_, bytes_); }
  RawClient(const RawClient&) = delete;

  [[nodiscard]] WindowHeader& header() const { return *reinterpret_cast<WindowHeader*>(base_); }
  [[nodiscard]] WindowCall& call(uint32_t index) const {
    return reinterpret_cast<WindowCall*>(base_ + kCallsOffset)[index];
  }
  [[nodiscard]] std::byte* base() const { return base_; }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  [[nodiscard]] SubmissionRecord& record(uint32_t position) const {
    return reinterpret_cast<SubmissionRecord*>(base_ + kRingOffset)[position % kRing];
  }
  struct Request {
    uint32_t call = 0;
    uint32_t sequence = 1;
    uint16_t flags = 0;
    uint64_t input_offset = 0, input_bytes = 0, output_offset = 0, output_capacity = 0;
  };
  void Push(const Request& request) {
    SubmissionRecord& place = record(tail_);
    place.call = static_cast<uint16_t>(request.call);
    place.sequence = request.sequence;
    place.flags = request.flags;
    place.input_offset = request.input_offset;
    place.input_bytes = request.input_bytes;
    place.output_offset = request.output_offset;
    place.output_capacity = request.output_capacity;
    place.turn = ++tail_;
  }
  [[nodiscard]] std::string Message(uint32_t index) const {
    return {reinterpret_cast<const char*>(base_) + call(index).result_offset, call(index).result_bytes};
  }

 private:
  uint64_t bytes_;
  std::byte* base_ = nullptr;
  uint32_t tail_ = 0;
};

class ServerWindowTest : public testing::Test {
 protected:
  TestSegment segment_;
  TestWindow window_;
  RawClient raw_{window_};
  std::unique_ptr<ServerWindow> server_ = window_.Server(segment_);
};

TEST(ServerWindow, SizesAreCheckedAndRoundedToPages) {
  EXPECT_EQ(ServerWindow::Create(kMinWindowBytes - 1).status().code(), Code::kArgumentInvalid);
  EXPECT_EQ(ServerWindow::Create(UINT64_MAX).status().code(), Code::kArgumentInvalid);
  EXPECT_EQ(ServerWindow::Create(0).status().code(), Code::kArgumentInvalid);
  TestSegment segment;
  auto odd = ServerWindow::Create(kMinWindowBytes + 1);
  ASSERT_TRUE(odd.ok());
  auto server = ServerWindow::Map(segment.get(), 0, std::move(odd->memfd), std::move(odd->complete_event));
  ASSERT_TRUE(server.ok());
  EXPECT_EQ((*server)->bytes(), kMinWindowBytes + 4096);
}

TEST_F(ServerWindowTest, AClientCannotResizeTheWindow) {
  const int fd = window_.created.memfd.get();
  EXPECT_NE(ftruncate(fd, 0), 0);
  EXPECT_EQ(errno, EPERM);
  EXPECT_NE(ftruncate(fd, static_cast<off_t>(window_.bytes - 4096)), 0);
  EXPECT_NE(ftruncate(fd, static_cast<off_t>(window_.bytes + 4096)), 0);
  EXPECT_EQ(errno, EPERM);
  EXPECT_NE(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
  EXPECT_EQ(errno, EPERM);
}

TEST_F(ServerWindowTest, RefusesMemoryThatIsNotSealed) {
  UniqueFd unsealed(memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(unsealed.get(), 64 << 20), 0);
  EXPECT_EQ(ServerWindow::Map(segment_.get(), 0, std::move(unsealed), UniqueFd()).status().code(),
            Code::kSegmentInvalid);
  EXPECT_FALSE(ServerWindow::Map(segment_.get(), 0, UniqueFd(), UniqueFd()).ok());
}

TEST_F(ServerWindowTest, RangesOutsideAreAnsweredAndSkipped) {
  const uint64_t end = window_.bytes;
  struct Case {
    uint64_t offset, bytes;
    bool valid;
  };
  const uint32_t index = 5;
  const Case cases[] = {
      {0, 0, true},
      {UINT64_MAX, 0, true},
      {kPayloadOffset, 1, true},
      {kPayloadOffset, end - kPayloadOffset, true},
      {end - 1, 1, true},
      {SlotInputOffset(index), 4096, true},
      {SlotInputOffset(index), 8192, true},
      {SlotOutputOffset(index), 4096, true},
      {end, 1, false},
      {end - 1, 2, false},
      {kPayloadOffset, end - kPayloadOffset + 1, false},
      {kPayloadOffset, UINT64_MAX, false},
      {UINT64_MAX, 1, false},
      {UINT64_MAX - 10, 20, false},
      {kPayloadOffset - 1, 2, false},
      {0, 1, false},
      {64, 64, false},
      {kRingOffset, 64, false},
      {kCallsOffset, 128, false},
      {SlotInputOffset(index) - 1, 1, false},  // the slots of the call before
      {SlotInputOffset(index), 8193, false},   // … and of the one after
      {SlotInputOffset(index + 1), 1, false},
      {SlotOutputOffset(index) + 4096, 1, false},
  };
  ASSERT_TRUE(server_->TryConsume(kWorker));
  uint32_t sequence = 0;
  for (const bool as_input : {true, false}) {
    for (const Case& c : cases) {
      SCOPED_TRACE(std::to_string(c.offset) + " + " + std::to_string(c.bytes) + (as_input ? " input" : " output"));
      WindowCall& call = raw_.call(index);
      const RawClient::Request request{.call = index,
                                       .sequence = ++sequence,
                                       .input_offset = as_input ? c.offset : 0,
                                       .input_bytes = as_input ? c.bytes : 0,
                                       .output_offset = as_input ? SlotOutputOffset(index) : c.offset,
                                       .output_capacity = as_input ? 4096 : c.bytes};
      raw_.Push(request);
      const auto submission = server_->Peek();
      EXPECT_EQ(submission.has_value(), c.valid);
      if (submission.has_value()) {
        server_->Taken();
        EXPECT_EQ(submission->input_bytes, request.input_bytes);
        EXPECT_EQ(server_->Bytes(submission->input_offset, submission->input_bytes).size(), request.input_bytes);
        EXPECT_TRUE(server_->Complete(index, sequence, 0, 0, 0));
        raw_.header().completions[0] = 0;
      } else {
        EXPECT_EQ(call.word, PackWord(sequence, CallState::kDone));
        EXPECT_EQ(call.status, static_cast<uint32_t>(Code::kProtocolInvalid));
        EXPECT_FALSE(raw_.Message(index).empty());
        EXPECT_NE(raw_.header().completions[0].exchange(0) & (1u << index), 0u);
      }
      EXPECT_FALSE(server_->HasSubmissions());
    }
  }
}

TEST_F(ServerWindowTest, RubbishInTheRingIsSkipped) {
  ASSERT_TRUE(server_->TryConsume(kWorker));
  raw_.Push({.call = kCalls});
  raw_.Push({.call = UINT16_MAX});
  raw_.Push({.call = 3, .sequence = 2});  // the use before it was not answered
  raw_.call(4).word = PackWord(9, CallState::kDone);
  raw_.Push({.call = 4, .sequence = 9});  // answered
  raw_.call(5).word = PackWord(9, static_cast<CallState>(77));
  raw_.Push({.call = 5, .sequence = 9});
  raw_.Push({.call = 7, .sequence = 1, .flags = kFlagRoomGiven});  // nobody asked for any
  raw_.call(6).word = PackWord(8, CallState::kDone);
  raw_.Push({.call = 6, .sequence = 9});
  const auto submission = server_->Peek();
  ASSERT_TRUE(submission.has_value());
  EXPECT_EQ(submission->call, 6u);
  server_->Taken();
  EXPECT_FALSE(server_->Peek().has_value());

  // Turns of other rounds are no submissions, and do not stand in the way of one.
  const uint32_t head = raw_.header().submit_head;
  raw_.record(head).turn = head + 1 + kRing;
  EXPECT_FALSE(server_->HasSubmissions());
  raw_.Push({.call = 6, .sequence = 9});
  EXPECT_TRUE(server_->HasSubmissions());
  EXPECT_TRUE(server_->Peek().has_value());
}

TEST_F(ServerWindowTest, AFullRingOfRubbishDoesNotHoldTheConsumer) {
  ASSERT_TRUE(server_->TryConsume(kWorker));
  for (uint32_t i = 0; i < kRing; ++i) raw_.Push({.call = UINT16_MAX});
  EXPECT_FALSE(server_->Peek().has_value());
  EXPECT_FALSE(server_->EndConsume(kWorker));
}

TEST_F(ServerWindowTest, WhatTheServerIsAskedAboutIsChecked) {
  EXPECT_FALSE(server_->Complete(kCalls, 1, 0, 0, 0));
  EXPECT_FALSE(server_->CompleteError(kCalls, 1, 1, std::string_view("x")));
  EXPECT_FALSE(server_->NeedRoom(UINT32_MAX, 1, 0, 0));
  EXPECT_FALSE(server_->cancelled(kCalls, 1));
  server_->Note(kCalls, 1, 1);
  EXPECT_TRUE(server_->Bytes(0, 10).empty()) << "header and calls are no payload";
  EXPECT_TRUE(server_->Bytes(window_.bytes - 1, 2).empty());
  EXPECT_TRUE(server_->Bytes(UINT64_MAX, 2).empty());
}

TEST_F(ServerWindowTest, TellsWhoConsumesAndInWhichTurn) {
  EXPECT_EQ(server_->consumer(), std::nullopt);
  ASSERT_TRUE(server_->TryConsume(kWorker));
  EXPECT_EQ(server_->consumer(), kWorker);
  const uint32_t turn = server_->turns();
  EXPECT_FALSE(server_->TryConsume(0));
  EXPECT_EQ(server_->turns(), turn) << "of who found somebody in place";
  EXPECT_FALSE(server_->EndConsume(kWorker));
  ASSERT_TRUE(server_->TryConsume(0));
  EXPECT_EQ(server_->consumer(), 0);
  EXPECT_EQ(server_->turns(), turn + 1);
  EXPECT_FALSE(server_->EndConsume(0));
  EXPECT_EQ(server_->consumer(), std::nullopt);
}

TEST_F(ServerWindowTest, ConsumingAndPollingHaveOneHolderEach) {
  ASSERT_TRUE(server_->TryConsume(kWorker));
  EXPECT_FALSE(server_->TryConsume(kWorker));
  EXPECT_FALSE(server_->TryConsume(0));
  EXPECT_FALSE(server_->EndConsume(0));  // not the holder: nothing is released
  EXPECT_FALSE(server_->TryConsume(0));
  EXPECT_FALSE(server_->EndConsume(kWorker));
  EXPECT_TRUE(server_->TryConsume(0)) << "participant 0 is the host";
  EXPECT_FALSE(server_->EndConsume(0));

  EXPECT_EQ(raw_.header().needs_wake, 1u) << "nobody polls a new window";
  ASSERT_TRUE(server_->Adopt(kWorker));
  EXPECT_EQ(raw_.header().needs_wake, 0u);
  EXPECT_FALSE(server_->Adopt(8));
  EXPECT_FALSE(server_->Abandon(kWorker));
  EXPECT_EQ(raw_.header().needs_wake, 1u);
  EXPECT_TRUE(server_->Adopt(8));
  raw_.Push({.call = 3});
  EXPECT_TRUE(server_->Abandon(8)) << "something came";
}

TEST_F(ServerWindowTest, ReclaimTakesBackOnlyWhatTheDeadHad) {
  ASSERT_TRUE(server_->Adopt(kWorker));
  ASSERT_TRUE(server_->TryConsume(8));
  raw_.Push({.call = 3});
  EXPECT_FALSE(server_->Reclaim(9));
  EXPECT_EQ(raw_.header().needs_wake, 0u);
  EXPECT_TRUE(server_->Reclaim(kWorker));
  EXPECT_EQ(raw_.header().needs_wake, 1u);
  EXPECT_FALSE(server_->TryConsume(0)) << "8 lives and consumes";
  EXPECT_TRUE(server_->Reclaim(8));
  EXPECT_TRUE(server_->TryConsume(0));
}

TEST_F(ServerWindowTest, AConsumerKilledBeforeTakenLosesNothing) {
  auto client = window_.Client();
  const uint32_t call = client->Open().value().value();
  client->Submit(call, {.function = kEcho, .output_offset = SlotOutputOffset(call), .output_capacity = 4096});
  for (const bool noted : {false, true}) {
    test::Signpost peeked;
    auto consumer = test::Child::Fork([&] {
      auto mine = window_.Server(segment_);
      if (!mine->TryConsume(kWorker)) return 1;
      const auto submission = mine->Peek();
      if (!submission.has_value()) return 2;
      if (noted) mine->Note(submission->call, submission->sequence, 42);
      peeked.Set();
      while (true) pause();
    });
    peeked.Await();
    EXPECT_FALSE(server_->TryConsume(0));
    EXPECT_EQ(consumer.Kill(), 128 + SIGKILL);
    EXPECT_TRUE(server_->Reclaim(kWorker));
    ASSERT_TRUE(server_->TryConsume(0));
    const auto again = server_->Peek();
    ASSERT_TRUE(again.has_value());
    EXPECT_EQ(again->call, call);
    EXPECT_EQ(again->sequence, 1u);
    EXPECT_EQ(again->entry, noted ? 42 : -1);
    EXPECT_TRUE(server_->EndConsume(0)) << "not taken: still there";
  }
  // Killed after the answer and before Taken: nothing is left to do.
  ASSERT_TRUE(server_->TryConsume(0));
  ASSERT_TRUE(server_->Peek().has_value());
  EXPECT_TRUE(server_->Complete(call, 1, 0, 0, 0));
  EXPECT_FALSE(server_->EndConsume(0) && server_->TryConsume(0) && server_->Peek().has_value());
  std::vector<ClientWindow::Completion> completions;
  client->Collect(completions);
  EXPECT_EQ(completions.size(), 1u);
}

/// Writes what is most likely to hurt, everywhere, until it is killed.
[[noreturn]] void Scribble(const RawClient& raw, uint32_t seed) {
  std::mt19937_64 random(seed);
  const uint64_t interesting[] = {0,
                                  1,
                                  UINT64_MAX,
                                  UINT64_MAX / 2,
                                  raw.bytes(),
                                  raw.bytes() - 1,
                                  kPayloadOffset,
                                  kPayloadOffset - 1,
                                  kSlotsOffset,
                                  4096,
                                  4097,
                                  kCalls,
                                  kCalls - 1,
                                  1ull << 32,
                                  1ull << 63};
  auto value = [&]() -> uint64_t {
    const uint64_t any = random();
    if (any % 3 == 0) return interesting[any / 3 % std::size(interesting)] + (any >> 60 & 3);
    return any % 3 == 1 ? any % raw.bytes() : any;
  };
  auto store = [&](uint64_t offset, uint64_t what) {
    reinterpret_cast<std::atomic<uint64_t>*>(raw.base() + offset / 8 * 8)->store(what, std::memory_order_relaxed);
  };
  while (true) {
    for (int i = 0; i < 64; ++i) {
      store(random() % kRingOffset, value());
      store(kRingOffset + random() % (kSlotsOffset - kRingOffset), value());
      store(random() % raw.bytes() / 4096 % 700 * 4096, value());
      // Now and then something the consumer will believe.
      const uint32_t position = raw.header().submit_head + random() % 4;
      SubmissionRecord& place = raw.record(position);
      const auto index = static_cast<uint32_t>(random() % (kCalls + 2));
      const auto sequence = static_cast<uint32_t>(random());
      const auto state = static_cast<CallState>(random() % 4);
      std::atomic_ref(place.call).store(static_cast<uint16_t>(index), std::memory_order_relaxed);
      std::atomic_ref(place.sequence).store(sequence, std::memory_order_relaxed);
      std::atomic_ref(place.flags).store(static_cast<uint16_t>(random() % 8), std::memory_order_relaxed);
      std::atomic_ref(place.input_offset).store(kPayloadOffset + value() % 4096, std::memory_order_relaxed);
      std::atomic_ref(place.input_bytes).store(value() % 100'000, std::memory_order_relaxed);
      std::atomic_ref(place.output_offset).store(raw.bytes() - value() % 200'000, std::memory_order_relaxed);
      std::atomic_ref(place.output_capacity).store(value() % 200'000, std::memory_order_relaxed);
      if (index < kCalls) raw.call(index).word.store(PackWord(sequence - random() % 2, state));
      place.turn.store(position + 1);
    }
  }
}

TEST_F(ServerWindowTest, AClientThatScribblesOverItsWindowHarmsNobodyElse) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  TestWindow other_window;
  TestServer other(other_window.Server(segment_, 1), other_window.created.submit_event.get(), 2);
  other.Start();
  auto scribbler = test::Child::Fork([&]() -> int { Scribble(RawClient(window_), seed); });

  uint64_t taken = 0;
  uint64_t answered = 0;
  for (int round = 0; round < 20'000 || taken < 1000; ++round) {
    ASSERT_TRUE(server_->TryConsume(kWorker)) << "the lock lies in the segment, out of its reach";
    for (uint32_t batch = 0; batch < 16; ++batch) {
      const auto s = server_->Peek();
      if (!s.has_value()) break;
      ASSERT_LT(s->call, kCalls);
      const std::span<std::byte> input = server_->Bytes(s->input_offset, s->input_bytes);
      const std::span<std::byte> output = server_->Bytes(s->output_offset, s->output_capacity);
      // What was validated stays valid, whatever the client writes now: both are used in full.
      ASSERT_EQ(input.size(), s->input_bytes);
      ASSERT_EQ(output.size(), s->output_capacity);
      if (taken % 16 == 0 && input.size() > 0 && output.size() > 0) {
        std::memmove(output.data(), input.data(), std::min(input.size(), output.size()));
        output.back() = input.back();
      }
      const std::string longer(10'000, 'e');
      switch (taken % 4) {
        case 0:
          answered += server_->Complete(s->call, s->sequence, 0, s->output_offset, 1);
          break;
        case 1:
          answered += server_->CompleteError(s->call, s->sequence, 7, longer);
          break;
        case 2:
          answered += server_->NeedRoom(s->call, s->sequence, 3, 1 << 20);
          break;
        default:
          answered += server_->Complete(s->call, s->sequence, 0, s->input_offset, s->input_bytes);
      }
      server_->Note(s->call, s->sequence, 5);
      server_->Taken();
      static_cast<void>(server_->cancelled(s->call, s->sequence));
      ++taken;
    }
    static_cast<void>(server_->EndConsume(kWorker));
  }
  EXPECT_GT(answered, 0u);
  EXPECT_EQ(segment_.slot(0).poller, 0u);
  EXPECT_EQ(scribbler.Kill(), 128 + SIGKILL);

  // Another client of the same server never noticed.
  auto client = other_window.Client();
  const uint32_t call = client->Open().value().value();
  client->Submit(call, {.function = kEcho, .output_offset = SlotOutputOffset(call), .output_capacity = 4096});
  std::vector<ClientWindow::Completion> completions;
  while (completions.empty()) {
    client->Collect(completions);
    client->Tend();
  }
  EXPECT_EQ(completions[0].status, 0u);
}

TEST_F(ServerWindowTest, ClientsKilledAtAnyMomentDoNotDisturbTheServer) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 40; ++round) {
    TestWindow window(kMinWindowBytes + (4u << 20));
    TestServer victim(window.Server(segment_, 1), window.created.submit_event.get(), 2);
    victim.spins = [] { return 200u; };
    victim.Start();
    test::Signpost started;
    auto client = test::Child::Fork([&] {
      auto mine = window.Client();
      std::vector<ClientWindow::Completion> completions;
      std::map<uint32_t, uint64_t> blocks;
      for (uint64_t calls = 0; true;) {
        while (auto call = mine->Open().value()) {
          const uint64_t bytes = calls * 997 % 20'000;
          const auto block = mine->payload().Allocate(bytes);
          if (!block.ok()) return 1;
          blocks[*call] = *block;
          mine->Submit(*call, {.function = calls % 3 == 0 ? kReturnInput : kEcho,
                               .input_offset = *block,
                               .input_bytes = bytes,
                               .output_offset = SlotOutputOffset(*call),
                               .output_capacity = 4096});
          if (++calls == 100) started.Set();
          if (calls % 7 == 0) break;
        }
        if (calls % 5 == 0 && mine->PrepareToSleep() && !WaitReadable(mine->complete_event())) return 2;
        mine->Awake();
        completions.clear();
        mine->Collect(completions);
        for (const auto& completion : completions) {
          if (completion.need_room) {
            mine->GiveUp(completion.call);
          } else {
            mine->payload().allocator().Release(blocks[completion.call]);
            mine->Close(completion.call);
          }
        }
        mine->Tend();
      }
    });
    started.Await();
    for (uint32_t i = random() % 3000; i > 0; --i) CpuRelax();
    EXPECT_EQ(client.Kill(), 128 + SIGKILL);
    victim.Stop();
    EXPECT_FALSE(victim.lost_wake_up);
    EXPECT_GT(victim.served, 0u);
    EXPECT_EQ(segment_.slot(1).consumer, 0u);
    EXPECT_EQ(segment_.slot(1).poller, 0u);
  }
}

}  // namespace
}  // namespace praas::window
