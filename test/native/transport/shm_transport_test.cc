#include "transport/shm_transport.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "window/support.h"

namespace praas::transport {
namespace {

using window::DrainEvent;
using window::TestSegment;
using window::TestServer;
using window::TestWindow;
using window::WaitReadable;

std::vector<std::byte> Bytes(size_t size, uint64_t seed = 0) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = window::Pattern(i + seed);
  return bytes;
}

struct Answer {
  Status status;
  std::vector<std::byte> payload;
  const std::byte* address = nullptr;
};

class ShmTransportTest : public testing::Test {
 protected:
  void Open(uint64_t window_bytes = 64u << 20) {
    test_window_ = std::make_unique<TestWindow>(window_bytes);
    auto transport = ShmTransport::Create(test_window_->ForClient());
    ASSERT_TRUE(transport.ok()) << transport.status().message();
    transport_ = std::move(transport).value();
    server_ = std::make_unique<TestServer>(test_window_->Server(segment_), test_window_->created.submit_event.get());
  }
  void SetUp() override { Open(); }

  Request MakeRequest(uint32_t function, std::span<const std::byte> input, std::span<std::byte> output = {}) {
    return {.call = ++last_id_, .function = function, .flags = 0, .deadline_ns = 0, .input = input, .output = output};
  }
  uint64_t Submit(const Request& request) {
    auto taken = transport_->Submit(request);
    EXPECT_TRUE(taken.ok()) << taken.status().message();
    EXPECT_TRUE(taken.ok() && taken.value());
    return request.call;
  }
  size_t PollOnce() {
    return transport_->Poll([this](const Reply& reply) {
      EXPECT_FALSE(answers_.contains(reply.call)) << "answered twice";
      answers_[reply.call] = {reply.status, {reply.payload.begin(), reply.payload.end()}, reply.payload.data()};
    });
  }
  /// Polls, then sleeps, as an owner does.
  void Settle(size_t count) {
    while (answers_.size() < count) {
      for (int i = 0; i < 200 && answers_.size() < count; ++i) PollOnce();
      if (answers_.size() >= count || !transport_->PrepareToSleep()) continue;
      ASSERT_TRUE(WaitReadable(transport_->fd())) << "lost wake-up";
    }
  }
  Answer Call(const Request& request) {
    answers_.clear();
    const uint64_t id = Submit(request);
    Settle(1);
    return answers_[id];
  }

  TestSegment segment_;
  std::unique_ptr<TestWindow> test_window_;
  std::unique_ptr<ShmTransport> transport_;
  std::unique_ptr<TestServer> server_;
  std::map<uint64_t, Answer> answers_;
  uint64_t last_id_ = 0;
};

TEST_F(ShmTransportTest, EchoesAllSizesFromPlainAndFromAllocatedMemory) {
  server_->Start();
  for (const size_t size : {0u, 1u, 4095u, 4096u, 4097u, 65'536u, 16u << 20}) {
    SCOPED_TRACE(size);
    const auto input = Bytes(size, size);
    for (int again = 0; again < 2; ++again) {  // the second time with a learned result size
      const Answer answer = Call(MakeRequest(window::kEcho, input));
      EXPECT_TRUE(answer.status.ok()) << answer.status.message();
      EXPECT_EQ(answer.payload, input);
    }
    auto in = transport_->Allocate(size + 1);
    auto out = transport_->Allocate(size + 1);
    ASSERT_TRUE(in.ok() && out.ok());
    std::copy(input.begin(), input.end(), in->data);
    const auto before = transport_->counters();
    const Answer answer = Call(MakeRequest(window::kEcho, {in->data, size}, {out->data, size + 1}));
    EXPECT_EQ(answer.payload, input);
    if (size > 0) {
      EXPECT_EQ(answer.address, out->data) << "the result was to be written where the caller wants it";
      EXPECT_EQ(transport_->counters().in_place_inputs, before.in_place_inputs + 1);
    }
    EXPECT_EQ(transport_->counters().copied_bytes, before.copied_bytes);
    EXPECT_EQ(transport_->counters().staged_bytes, before.staged_bytes);
    transport_->Release(*in);
    transport_->Release(*out);
  }
}

TEST_F(ShmTransportTest, SmallInputsAreStagedLargeOnesCopiedOnce) {
  server_->Start();
  Call(MakeRequest(window::kEcho, Bytes(4096)));
  EXPECT_EQ(transport_->counters().staged_bytes, 4096u);
  EXPECT_EQ(transport_->counters().copied_bytes, 0u);
  Call(MakeRequest(window::kEcho, Bytes(4097)));
  EXPECT_EQ(transport_->counters().staged_bytes, 4096u);
  EXPECT_EQ(transport_->counters().copied_bytes, 4097u);
}

TEST_F(ShmTransportTest, ResultCanBeTheInputAsItStands) {
  server_->Start();
  for (const size_t size : {1u, 4096u, 100'000u}) {
    const auto input = Bytes(size);
    EXPECT_EQ(Call(MakeRequest(window::kReturnInput, input)).payload, input);
  }
}

TEST_F(ShmTransportTest, NoRoomIsLearnedFromResultsThatAreTheInput) {
  server_->Start();
  constexpr size_t kBytes = 1u << 20;
  const auto buffer = transport_->Allocate(kBytes);
  ASSERT_TRUE(buffer.ok());
  const uint64_t commits = transport_->counters().window.commits;
  for (int again = 0; again < 3; ++again) {
    EXPECT_EQ(Call(MakeRequest(window::kReturnInput, {buffer->data, kBytes})).address, buffer->data);
  }
  // At most that of the slot: no block for a result was offered.
  EXPECT_LE(transport_->counters().window.commits, commits + 1);
}

TEST_F(ShmTransportTest, ResultOfPlainOutputIsCopiedThere) {
  server_->Start();
  const auto input = Bytes(10'000);
  std::vector<std::byte> output(10'000);
  const Answer answer = Call(MakeRequest(window::kEcho, input, output));
  EXPECT_EQ(answer.address, output.data());
  EXPECT_EQ(output, input);
}

TEST_F(ShmTransportTest, LargerResultsAreGivenRoomAndTheirSizeIsLearned) {
  server_->Start();
  const uint64_t size = 300'000;
  const std::span<const std::byte> input = std::as_bytes(std::span(&size, 1));
  EXPECT_EQ(Call(MakeRequest(window::kProduce, input)).payload, Bytes(size));
  EXPECT_EQ(transport_->counters().rooms_given, 1u);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Call(MakeRequest(window::kProduce, input)).payload, Bytes(size));
  EXPECT_EQ(transport_->counters().rooms_given, 1u) << "room should have been offered at once";

  // The caller's own output is too small: the result comes in the transport's memory.
  auto small = transport_->Allocate(100);
  ASSERT_TRUE(small.ok());
  const Answer answer = Call(MakeRequest(window::kProduce, input, {small->data, 100}));
  EXPECT_EQ(answer.payload, Bytes(size));
  EXPECT_EQ(transport_->counters().rooms_given, 2u);
  server_->Stop();
  EXPECT_EQ(server_->parked(), 0u);
}

TEST_F(ShmTransportTest, AResultThatCannotFitIsAnErrorAndDroppedByTheServer) {
  Open(8u << 20);
  server_->Start();
  const uint64_t size = 9u << 20;
  const Answer answer = Call(MakeRequest(window::kProduce, std::as_bytes(std::span(&size, 1))));
  EXPECT_EQ(answer.status.code(), Code::kPayloadTooLarge) << answer.status.message();
  // Its slot and the server's copy come back.
  while (transport_->counters().window.submissions < 2) PollOnce();
  Call(MakeRequest(window::kEcho, Bytes(1)));
  server_->Stop();
  EXPECT_EQ(server_->parked(), 0u);
}

TEST_F(ShmTransportTest, AResultWaitsForRoomUntilTheCallerReleasesSome) {
  Open(8u << 20);
  server_->Start();
  auto hog = transport_->Allocate(5u << 20);
  ASSERT_TRUE(hog.ok());
  const uint64_t size = 4u << 20;
  const uint64_t id = Submit(MakeRequest(window::kProduce, std::as_bytes(std::span(&size, 1))));
  while (transport_->counters().rooms_given == 0) PollOnce();
  PollOnce();
  EXPECT_TRUE(answers_.empty());
  EXPECT_TRUE(transport_->PrepareToSleep());
  transport_->Release(*hog);
  EXPECT_FALSE(transport_->PrepareToSleep()) << "there is room now, and nobody else would say so";
  Settle(1);
  EXPECT_EQ(answers_[id].payload, Bytes(size));
}

TEST_F(ShmTransportTest, ErrorsCarryStatusAndMessage) {
  server_->Start();
  for (const size_t size : {0u, 1u, 4096u}) {
    const std::string message(size, 'x');
    const Answer answer = Call(MakeRequest(window::kThrow, std::as_bytes(std::span(message))));
    EXPECT_EQ(answer.status.code(), Code::kFunctionThrew);
    EXPECT_EQ(answer.status.message(), message);
    EXPECT_TRUE(answer.payload.empty());
  }
  // Longer than a slot: whole when the result's room holds it, else cut.
  const std::string longer(10'000, 'y');
  auto room = transport_->Allocate(10'000);
  ASSERT_TRUE(room.ok());
  EXPECT_EQ(
      Call(MakeRequest(window::kThrow, std::as_bytes(std::span(longer)), {room->data, room->bytes})).status.message(),
      longer);
  EXPECT_EQ(Call(MakeRequest(window::kThrow, std::as_bytes(std::span(longer)))).status.message(),
            longer.substr(0, 4096));
}

TEST_F(ShmTransportTest, Serves256InFlightOutOfOrder) {
  server_->hold = window::kCalls;
  server_->Start();
  for (int round = 0; round < 3; ++round) {
    answers_.clear();
    std::map<uint64_t, std::vector<std::byte>> expected;
    for (uint32_t i = 0; i < window::kCalls; ++i) {
      const auto input = Bytes(i * 37 % 6000, i);
      expected[Submit(MakeRequest(window::kHold, input))] = input;
      if (i + 1 < window::kCalls) PollOnce();
    }
    // All are held until the last one came: another one finds no room.
    auto full = transport_->Submit(MakeRequest(window::kHold, {}));
    ASSERT_TRUE(full.ok());
    if (answers_.empty()) {
      EXPECT_FALSE(full.value());
    }
    Settle(window::kCalls);
    for (const auto& [id, input] : expected) EXPECT_EQ(answers_[id].payload, input);
  }
}

TEST_F(ShmTransportTest, AbandonedCallKeepsItsMemoryUntilTheServerIsDone) {
  auto in = transport_->Allocate(8192);
  auto out = transport_->Allocate(8192);
  ASSERT_TRUE(in.ok() && out.ok());
  const uint64_t id = Submit(MakeRequest(window::kEcho, {in->data, 8192}, {out->data, 8192}));
  transport_->Abandon(id);
  transport_->Release(*in);
  transport_->Release(*out);
  auto other = transport_->Allocate(8192);
  ASSERT_TRUE(other.ok());
  EXPECT_NE(other->data, in->data);
  EXPECT_NE(other->data, out->data);
  EXPECT_EQ(PollOnce(), 0u);

  EXPECT_EQ(server_->Consume(), 1u);
  EXPECT_EQ(PollOnce(), 1u);
  EXPECT_TRUE(answers_[id].payload.empty());
  auto again = transport_->Allocate(8192);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->data == in->data || again->data == out->data) << "the memory should be free now";
}

TEST_F(ShmTransportTest, AbandonedCallsThatNeedRoomAreDroppedByTheServer) {
  const uint64_t size = 100'000;
  // Before the server asked for room, and after.
  const uint64_t early = Submit(MakeRequest(window::kProduce, std::as_bytes(std::span(&size, 1))));
  transport_->Abandon(early);
  EXPECT_EQ(server_->Consume(), 1u);
  EXPECT_EQ(server_->parked(), 1u);
  EXPECT_EQ(PollOnce(), 0u);
  EXPECT_EQ(server_->Consume(), 1u);
  EXPECT_EQ(server_->parked(), 0u);
  EXPECT_EQ(PollOnce(), 1u);
  EXPECT_EQ(answers_[early].status.code(), Code::kInvocationCancelled);

  Open(8u << 20);
  auto hog = transport_->Allocate(3u << 20);
  ASSERT_TRUE(hog.ok());
  const uint64_t large = 4u << 20;
  const uint64_t late = Submit(MakeRequest(window::kProduce, std::as_bytes(std::span(&large, 1))));
  EXPECT_EQ(server_->Consume(), 1u);
  EXPECT_EQ(PollOnce(), 0u);  // no room: the result waits
  transport_->Abandon(late);
  EXPECT_EQ(server_->Consume(), 1u);
  EXPECT_EQ(server_->parked(), 0u);
  EXPECT_EQ(PollOnce(), 1u);
  EXPECT_EQ(answers_[late].status.code(), Code::kInvocationCancelled);
}

TEST_F(ShmTransportTest, CancelReachesTheServer) {
  const uint64_t id = Submit(MakeRequest(window::kEcho, Bytes(10)));
  transport_->Cancel(id + 1);  // unknown: nothing happens
  EXPECT_FALSE(server_->window().cancelled(0, 1));
  transport_->Cancel(id);
  EXPECT_TRUE(server_->window().cancelled(0, 1));
  server_->Consume();
  EXPECT_EQ(PollOnce(), 1u);
  Submit(MakeRequest(window::kEcho, Bytes(10)));
  EXPECT_FALSE(server_->window().cancelled(0, 2)) << "the next call of the slot";
}

TEST_F(ShmTransportTest, FailAnswersEverythingInFlightOnce) {
  const uint64_t answered = Submit(MakeRequest(window::kEcho, Bytes(10)));
  server_->Consume();
  const uint64_t open = Submit(MakeRequest(window::kEcho, Bytes(20)));
  auto buffer = transport_->Allocate(100);
  ASSERT_TRUE(buffer.ok());
  transport_->Fail(Status(Code::kHostLost, "gone"));
  transport_->Fail(Status(Code::kInternal, "only the first reason counts"));
  EXPECT_FALSE(transport_->PrepareToSleep());
  EXPECT_EQ(PollOnce(), 2u);
  EXPECT_EQ(answers_[answered].payload, Bytes(10));
  EXPECT_EQ(answers_[open].status.code(), Code::kHostLost);
  EXPECT_EQ(PollOnce(), 0u);
  EXPECT_TRUE(transport_->PrepareToSleep());

  auto refused = transport_->Submit(MakeRequest(window::kEcho, {}));
  EXPECT_EQ(refused.status().code(), Code::kHostLost);
  // The server may be slow and not dead: a late answer finds the memory mapped and is ignored.
  server_->Consume();
  EXPECT_EQ(PollOnce(), 0u);
  buffer->data[99] = std::byte{1};
  EXPECT_FALSE(transport_->closed());
}

TEST_F(ShmTransportTest, CloseAnswersEverythingInFlight) {
  const uint64_t id = Submit(MakeRequest(window::kEcho, Bytes(10)));
  auto buffer = transport_->Allocate(100);
  ASSERT_TRUE(buffer.ok());
  transport_->Close();
  transport_->Close();
  EXPECT_TRUE(transport_->closed());
  EXPECT_EQ(PollOnce(), 1u);
  EXPECT_EQ(answers_[id].status.code(), Code::kConnectionClosed);
  EXPECT_EQ(PollOnce(), 0u);
  EXPECT_EQ(transport_->Submit(MakeRequest(window::kEcho, {})).status().code(), Code::kConnectionClosed);
  EXPECT_EQ(transport_->Allocate(1).status().code(), Code::kConnectionClosed);
  EXPECT_EQ(transport_->fd(), -1);
  transport_->Release(*buffer);
  transport_->Cancel(id);
  transport_->Abandon(id);
  EXPECT_TRUE(transport_->PrepareToSleep());
}

TEST_F(ShmTransportTest, SinksMaySubmitPollAndClose) {
  uint64_t replies = 0;
  Submit(MakeRequest(window::kEcho, Bytes(10)));
  Submit(MakeRequest(window::kEcho, Bytes(20)));
  server_->Consume();
  Transport::Sink sink = [&](const Reply& reply) {
    ++replies;
    if (replies == 1) {
      Submit(MakeRequest(window::kEcho, reply.payload));
      server_->Consume();
      EXPECT_EQ(transport_->Poll(sink), 1u) << "the new one; the second is already in the outer batch";
      return;
    }
    if (replies == 3) {
      Submit(MakeRequest(window::kEcho, {}));
      transport_->Close();
      ASSERT_FALSE(reply.payload.empty());
      EXPECT_EQ(reply.payload[0], window::Pattern(0)) << "the payload stays until Poll returns";
    }
    if (replies == 4) {
      EXPECT_EQ(reply.status.code(), Code::kConnectionClosed);
    }
  };
  transport_->Poll(sink);
  EXPECT_EQ(replies, 4u);
}

TEST_F(ShmTransportTest, RefusesReleasedMemoryAndWhatIsTooLarge) {
  auto buffer = transport_->Allocate(8192);
  ASSERT_TRUE(buffer.ok());
  auto neighbour = transport_->Allocate(8192);
  ASSERT_TRUE(neighbour.ok());
  // A range over two buffers belongs to neither.
  EXPECT_EQ(transport_->Submit(MakeRequest(window::kEcho, {buffer->data + 1, 8192})).status().code(),
            Code::kArgumentInvalid);
  transport_->Release(*buffer);
  EXPECT_EQ(transport_->Submit(MakeRequest(window::kEcho, {buffer->data, 100})).status().code(),
            Code::kArgumentInvalid);
  EXPECT_EQ(transport_->Submit(MakeRequest(window::kEcho, {}, {buffer->data, 100})).status().code(),
            Code::kArgumentInvalid);
  EXPECT_EQ(transport_->Allocate(1ull << 40).status().code(), Code::kPayloadTooLarge);
  EXPECT_EQ(transport_->Allocate(UINT64_MAX).status().code(), Code::kPayloadTooLarge);
  EXPECT_EQ(transport_->Submit(MakeRequest(window::kEcho, Bytes(65u << 20))).status().code(), Code::kPayloadTooLarge);
  auto most = transport_->Allocate(50u << 20);
  ASSERT_TRUE(most.ok());
  EXPECT_EQ(transport_->Allocate(50u << 20).status().code(), Code::kBackpressure);
  auto later = transport_->Submit(MakeRequest(window::kEcho, Bytes(32u << 20)));
  ASSERT_TRUE(later.ok());
  EXPECT_FALSE(later.value()) << "there may be room later";
  // None of these may have leaked a call slot.
  answers_.clear();
  for (uint32_t i = 0; i < window::kCalls; ++i) Submit(MakeRequest(window::kEcho, {}));
}

TEST_F(ShmTransportTest, AResultOutsideWhatWasOfferedIsAProtocolError) {
  for (const uint64_t offset :
       {uint64_t{0}, uint64_t{64}, window::SlotInputOffset(1), UINT64_MAX - 5, uint64_t{60} << 20}) {
    answers_.clear();
    const uint64_t id = Submit(MakeRequest(window::kEcho, Bytes(10)));
    ASSERT_TRUE(server_->window().TryConsume(1));
    const auto submission = server_->window().Peek();
    ASSERT_TRUE(submission.has_value());
    EXPECT_TRUE(server_->window().Complete(submission->call, submission->sequence, 0, offset, 100));
    server_->window().Taken();
    EXPECT_FALSE(server_->window().EndConsume(1));
    EXPECT_EQ(PollOnce(), 1u);
    EXPECT_EQ(answers_[id].status.code(), Code::kProtocolInvalid);
  }
}

TEST_F(ShmTransportTest, GivesMemoryBackWhenIdle) {
  server_->Start();
  Call(MakeRequest(window::kEcho, Bytes(16u << 20)));
  transport_->Trim();
  struct stat info {};
  ASSERT_EQ(fstat(test_window_->created.memfd.get(), &info), 0);
  EXPECT_LE(static_cast<uint64_t>(info.st_blocks) * 512, window::kSlotsOffset);
  EXPECT_EQ(Call(MakeRequest(window::kEcho, Bytes(5000))).payload, Bytes(5000));
}

}  // namespace
}  // namespace praas::transport
