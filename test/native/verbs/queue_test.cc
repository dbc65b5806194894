// Queue pairs on a real device, two of them in one OS process; scripts/rdma-vm makes one.
#include "verbs/queue.h"

#include <gtest/gtest.h>

#if PRAAS_VERBS_HEADERS

#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "support/child.h"

namespace praas::verbs {
namespace {

constexpr uint64_t kPatienceNs = 30'000'000'000;

/// One side of a connection: domain, queue, memory of `bytes`.
struct Side {
  explicit Side(const Context& context, size_t bytes = 1 << 20)
      : memory(bytes),
        domain(ProtectionDomain::Make(context).value()),
        completions(CompletionQueue::Make(context, 64).value()),
        region(MemoryRegion::Register(domain, memory, MemoryRegion::Access::kRemote).value()),
        pair(QueuePair::Make(domain, completions, {.sends = 16, .receives = 16}).value()) {}

  [[nodiscard]] RemoteMemory At(size_t offset) const { return region.remote().At(offset); }
  /// The next completion; sleeps for it if `sleeping`.
  ibv_wc Next(const Context& context, bool sleeping = false) {
    const uint64_t deadline_ns = DeadlineIn(kPatienceNs);
    std::array<ibv_wc, 1> got{};
    while (completions.Poll(got) == 0) {
      if (NowNs() > deadline_ns) {
        ADD_FAILURE() << "no completion on " << context.device();
        return {};
      }
      if (!sleeping) continue;
      completions.Disarm();
      EXPECT_TRUE(completions.Arm().ok());
      if (completions.Poll(got) != 0) break;
      pollfd ready{completions.fd(), POLLIN, 0};
      EXPECT_EQ(::poll(&ready, 1, PollTimeoutMs(deadline_ns)), 1) << "never woken";
    }
    return got[0];
  }

  std::vector<std::byte> memory;
  ProtectionDomain domain;
  CompletionQueue completions;
  MemoryRegion region;
  QueuePair pair;
};

class Queue : public ::testing::Test {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<Context>> opened = Context::Open({});
    if (!opened.ok()) GTEST_SKIP() << opened.status().message();
    context_ = std::move(*opened);
  }
  void Connect(Side& a, Side& b) {
    ASSERT_TRUE(a.pair.Connect(b.pair.endpoint()).ok());
    const Status connected = b.pair.Connect(a.pair.endpoint());
    ASSERT_TRUE(connected.ok()) << connected.message();
  }
  std::unique_ptr<Context> context_;
};

TEST_F(Queue, WritesArriveWithTheirNumberBeforeItIsSeen) {
  for (const bool sleeping : {false, true}) {
    Side client(*context_);
    Side server(*context_);
    Connect(client, server);
    // Inline, and from registered memory.
    for (const size_t bytes :
         {size_t{0}, size_t{1}, size_t{64}, size_t{client.pair.inline_bytes() + 1}, size_t{100'000}}) {
      SCOPED_TRACE(bytes);
      for (uint32_t round = 0; round < 5; ++round) {
        std::fill_n(client.memory.begin(), bytes, static_cast<std::byte>(round + 1));
        ASSERT_TRUE(server.pair.PostReceives(1).ok());
        client.pair.WriteWithImmediate(std::span(client.memory).first(bytes), client.region.local_key(),
                                       server.At(4096), 0xabcd0000 + round, 8);
        ASSERT_TRUE(client.pair.Ring().ok());
        const ibv_wc received = server.Next(*context_, sleeping);
        EXPECT_TRUE(StatusOf(*context_, received).ok()) << StatusOf(*context_, received).message();
        EXPECT_EQ(received.opcode, IBV_WC_RECV_RDMA_WITH_IMM);
        EXPECT_EQ(be32toh(received.imm_data), 0xabcd0000 + round);
        EXPECT_EQ(received.byte_len, bytes);
        EXPECT_TRUE(std::equal(client.memory.begin(), client.memory.begin() + static_cast<ptrdiff_t>(bytes),
                               server.memory.begin() + 4096));
        EXPECT_EQ(client.Next(*context_, sleeping).wr_id, 8u);
      }
    }
  }
}

TEST_F(Queue, ReadsAndWritesReachMemoryOfThePeerWithoutIt) {
  Side client(*context_);
  Side server(*context_);
  Connect(client, server);
  for (size_t i = 0; i < server.memory.size(); ++i) server.memory[i] = static_cast<std::byte>(i * 31 + (i >> 12));
  client.pair.Read(client.memory, client.region.local_key(), server.At(0), 1);
  ASSERT_TRUE(client.pair.Ring().ok());
  EXPECT_TRUE(StatusOf(*context_, client.Next(*context_)).ok());
  EXPECT_EQ(client.memory, server.memory);
  std::fill(client.memory.begin(), client.memory.end(), std::byte{9});
  client.pair.Write(client.memory, client.region.local_key(), server.At(0), 2);
  ASSERT_TRUE(client.pair.Ring().ok());
  EXPECT_TRUE(StatusOf(*context_, client.Next(*context_)).ok());
  EXPECT_EQ(client.memory, server.memory);
  std::array<ibv_wc, 1> none{};
  EXPECT_EQ(server.completions.Poll(none), 0) << "the peer hears nothing of it";
}

TEST_F(Queue, AnotherConnectionsKeyOpensNothing) {
  Side client(*context_);
  Side server(*context_);
  Side other(*context_);
  Connect(client, server);
  const std::vector<std::byte> before = other.memory;
  ASSERT_TRUE(server.pair.PostReceives(1).ok());
  client.pair.WriteWithImmediate(std::span(client.memory).first(100), client.region.local_key(), other.At(0), 1, 1);
  ASSERT_TRUE(client.pair.Ring().ok());
  const ibv_wc refused = client.Next(*context_);
  EXPECT_EQ(refused.status, IBV_WC_REM_ACCESS_ERR) << StatusOf(*context_, refused).message();
  EXPECT_EQ(StatusOf(*context_, refused).code(), Code::kConnectionLost);
  EXPECT_NE(StatusOf(*context_, refused).message().find("vendor code"), std::string::npos);
  EXPECT_EQ(other.memory, before);
}

TEST_F(Queue, OutsideOfTheWindowIsRefused) {
  Side client(*context_);
  Side server(*context_, 4096);
  Connect(client, server);
  client.pair.Write(std::span(client.memory).first(200), client.region.local_key(), server.At(4000), 1);
  ASSERT_TRUE(client.pair.Ring().ok());
  EXPECT_EQ(client.Next(*context_).status, IBV_WC_REM_ACCESS_ERR);
}

TEST_F(Queue, APeerThatIsNotReadyIsGivenUpInTime) {
  Side client(*context_);
  Side server(*context_);
  Connect(client, server);
  client.pair.WriteWithImmediate(std::span(client.memory).first(10), client.region.local_key(), server.At(0), 1, 1);
  ASSERT_TRUE(client.pair.Ring().ok());
  EXPECT_EQ(client.Next(*context_).status, IBV_WC_RNR_RETRY_EXC_ERR) << "no receive was posted";
}

TEST_F(Queue, AFailedPairFinishesItsWork) {
  Side client(*context_);
  Side server(*context_);
  Connect(client, server);
  ASSERT_TRUE(server.pair.PostReceives(3).ok());
  ASSERT_TRUE(server.pair.Fail().ok());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(server.Next(*context_).status, IBV_WC_WR_FLUSH_ERR);
}

TEST_F(Queue, MemoryBeyondTheLimitIsAnErrorThatNamesIt) {
  auto child = test::Child::Fork([this] {
    const rlimit limit{1 << 20, 1 << 20};
    if (::setrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 10;
    // The limit does not hold for whoever has CAP_IPC_LOCK.
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) return 11;
    auto context = Context::Open({});
    if (!context.ok()) return 12;
    auto domain = ProtectionDomain::Make(**context);
    if (!domain.ok()) return 13;
    std::vector<std::byte> memory(8 << 20);
    const auto fits = MemoryRegion::Register(*domain, std::span(memory).first(4096), MemoryRegion::Access::kLocal);
    if (!fits.ok()) return 14;
    const auto refused = MemoryRegion::Register(*domain, memory, MemoryRegion::Access::kLocal);
    if (refused.ok()) return 15;
    if (refused.status().code() != Code::kBackpressure) return 16;
    return refused.status().message().find("1048576") != std::string::npos ? 0 : 17;
  });
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(Queue, WhatIsNotThereCannotBeChosen) {
  EXPECT_EQ(Context::Open({.device = "no_such_device"}).status().code(), Code::kUnsupported);
  EXPECT_EQ(Context::Open({.device = context_->device(), .port = 200}).status().code(), Code::kUnsupported);
  EXPECT_EQ(Context::Open({.device = context_->device(), .gid_index = 250}).status().code(), Code::kUnsupported);
  EXPECT_EQ(context_->TakeEvent().kind, Context::Event::Kind::kNone);
}

TEST_F(Queue, MoreWorkThanTheDeviceHoldsWaitsForRoom) {
  constexpr uint32_t kWorks = 500;
  constexpr uint64_t kLast = 77;
  Side client(*context_);
  Side server(*context_);
  Connect(client, server);
  for (uint32_t i = 0; i < kWorks; ++i) {
    client.memory[i] = static_cast<std::byte>(i);
    client.pair.Write(std::span(client.memory).subspan(i, 1), client.region.local_key(), server.At(i),
                      i + 1 == kWorks ? kLast : 0);
  }
  uint64_t last = 0;
  while (last != kLast) {
    ASSERT_TRUE(client.pair.Ring().ok());
    const ibv_wc done = client.Next(*context_);
    ASSERT_EQ(done.status, IBV_WC_SUCCESS);
    client.pair.Finished();
    last = done.wr_id;
  }
  EXPECT_FALSE(client.pair.queued());
  EXPECT_TRUE(std::equal(client.memory.begin(), client.memory.begin() + kWorks, server.memory.begin()));
}

TEST_F(Queue, OneReceiveQueueServesPairsOfSeveralDomains) {
  auto shared_domain = ProtectionDomain::Make(*context_).value();
  auto shared = SharedReceiveQueue::Make(shared_domain, 32).value();
  auto completions = CompletionQueue::Make(*context_, 64).value();
  ASSERT_TRUE(shared.Post(4).ok());
  Side clients[] = {Side(*context_), Side(*context_)};
  std::vector<Side> servers;
  for (Side& client : clients) {
    Side& server = servers.emplace_back(*context_);
    server.pair = QueuePair::Make(server.domain, completions, {.sends = 16, .shared = &shared}).value();
    Connect(client, server);
    client.pair.WriteWithImmediate(std::span(client.memory).first(8), client.region.local_key(), server.At(0), 5, 1);
    ASSERT_TRUE(client.pair.Ring().ok());
    ASSERT_EQ(client.Next(*context_).status, IBV_WC_SUCCESS);
    std::array<ibv_wc, 1> got{};
    const uint64_t deadline_ns = DeadlineIn(kPatienceNs);
    while (completions.Poll(got) == 0) ASSERT_LT(NowNs(), deadline_ns);
    EXPECT_EQ(got[0].status, IBV_WC_SUCCESS);
    EXPECT_EQ(got[0].qp_num, server.pair.endpoint().queue_pair) << "says which pair it is from";
  }
}

}  // namespace
}  // namespace praas::verbs

#endif
