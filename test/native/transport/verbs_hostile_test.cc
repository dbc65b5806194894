// Clients that break the protocol of RDMA, over a real device: their own connection ends, and nobody else is harmed.
#include <gtest/gtest.h>

#include "support/rdma.h"

#if PRAAS_VERBS_HEADERS

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>
#include <random>
#include <string>
#include <thread>

#include "client/exchange.h"
#include "client/handshake.h"
#include "transport/over_verbs.h"
#include "transport/tcp.h"
#include "transport/verbs_link.h"

namespace praas::test {
namespace {

using transport::Message;
using transport::MessageKind;
using transport::MessageMode;
using transport::VerbsLink;

using VerbsHostile = OverVerbs;

/// A client of the test's own, which keeps to the protocol as far as the test wants.
class RawClient {
 public:
  explicit RawClient(uint16_t port, bool ready = true)
      : context_(verbs::Context::Open({}).value()),
        completions_(verbs::CompletionQueue::Make(*context_, 256).value()),
        wire_("tcp", std::move(*transport::TcpConnect("127.0.0.1", port, DeadlineIn(kWatchdogNs)))),
        memory_(
            static_cast<std::byte*>(std::aligned_alloc(4096, (VerbsLink::MemoryBytes(kSlots) + 4095) / 4096 * 4096))),
        link_(VerbsLink::Make(*context_, completions_, nullptr, {memory_, VerbsLink::MemoryBytes(kSlots)}, kSlots)
                  .value()) {
    client::ConnectOptions options = OptionsFor(0);
    options.transport = "verbs";
    EXPECT_TRUE(client::Handshake(wire_, options, DeadlineIn(kWatchdogNs)).ok());
    protocol::Frame frame;
    frame.type = protocol::FrameType::kUpgrade;
    wire_.writer().PushCopy(frame, protocol::Encode(protocol::UpgradeRequest{
                                       .transport = "verbs", .window_bytes = 32u << 20, .verbs = link_->end()}));
    const auto answer = client::Exchange(wire_, {protocol::FrameType::kUpgradeOffer}, DeadlineIn(kWatchdogNs));
    const auto offer = protocol::DecodeUpgradeOffer(answer->payload);
    EXPECT_TRUE(offer.ok() && offer->verbs);
    host_ = *offer->verbs;
    if (ready) {
      EXPECT_TRUE(link_->PostReceives(2 * kSlots).ok());
    }
    EXPECT_TRUE(link_->Connect(host_).ok());
  }
  ~RawClient() {
    link_.reset();
    std::free(memory_);
  }
  [[nodiscard]] VerbsLink& link() { return *link_; }
  /// Of the messages the host receives from this client.
  [[nodiscard]] verbs::RemoteMemory host_memory() const { return {host_.memory_address, host_.memory_key}; }
  /// The next completion.
  ibv_wc Next() {
    EXPECT_TRUE(link_->Ring().ok());
    std::array<ibv_wc, 1> got{};
    const uint64_t deadline_ns = DeadlineIn(kWatchdogNs);
    while (completions_.Poll(got) == 0 && NowNs() < deadline_ns) {
    }
    return got[0];
  }
  /// What the host said when it ended the connection.
  std::string Refusal() {
    const auto answer = client::Exchange(wire_, {protocol::FrameType::kUpgradeOffer}, DeadlineIn(kWatchdogNs));
    if (!answer.ok()) return answer.status().message();
    const auto offer = protocol::DecodeUpgradeOffer(answer->payload);
    return offer.ok() && offer->refused ? offer->refused->message : "no refusal";
  }

  /// A completion, if there is one. false: the connection has ended.
  bool Poll(std::optional<ibv_wc>& completion) {
    completion.reset();
    if (!link_->Ring().ok()) return false;
    std::array<ibv_wc, 1> got{};
    const int count = completions_.Poll(got);
    if (count > 0) completion = got[0];
    return count >= 0 && (!completion || completion->status == IBV_WC_SUCCESS);
  }

  static constexpr uint32_t kSlots = 4;

 private:
  std::unique_ptr<verbs::Context> context_;
  verbs::CompletionQueue completions_;
  transport::StreamTransport wire_;
  std::byte* memory_;
  std::unique_ptr<VerbsLink> link_;
  protocol::VerbsEnd host_;
};

TEST_F(VerbsHostile, WhoSpeaksTheProtocolIsAnswered) {
  RawClient raw(host_->port());
  std::fill_n(raw.link().Outbox(2).begin(), 5, std::byte{'x'});
  raw.link().Send(MessageKind::kCall, 2, {.sequence = 9, .function = fn::kEcho, .bytes = 5}, 5);
  const ibv_wc reply = raw.Next();
  ASSERT_EQ(reply.status, IBV_WC_SUCCESS);
  const auto tag = transport::DecodeTag(be32toh(reply.imm_data), RawClient::kSlots);
  ASSERT_TRUE(tag.ok());
  EXPECT_EQ(tag->slot, 2u);
  const auto message = raw.link().Received(MessageKind::kReply, 2);
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->sequence, 9u);
  EXPECT_EQ(message->bytes, 5u);
  EXPECT_EQ(raw.link().Inbox(2)[4], std::byte{'x'});
}

TEST_F(VerbsHostile, OthersMemoryCannotBeReached) {
  Driver other = Client();
  RawClient victim(host_->port());
  struct Attack {
    const char* what;
    verbs::RemoteMemory target;
  };
  const uint64_t window = (VerbsLink::MemoryBytes(RawClient::kSlots) + 4095) / 4096 * 4096;
  for (int which = 0; which < 3; ++which) {
    RawClient attacker(host_->port());
    const Attack attack = which == 0   ? Attack{"another client's memory with its valid key", victim.host_memory()}
                          : which == 1 ? Attack{"behind its own memory", attacker.host_memory().At(window)}
                                       : Attack{"in front of its own memory", attacker.host_memory().At(-4096ull)};
    SCOPED_TRACE(attack.what);
    attacker.link().Write(attacker.link().Outbox(0).first(1000), attacker.link().local_key(), attack.target);
    attacker.link().Send(MessageKind::kHello, 0, {}, 0, 1);
    EXPECT_EQ(attacker.Next().status, IBV_WC_REM_ACCESS_ERR);
    ExpectWorks(other, "verbs");
  }
  victim.link().Send(MessageKind::kCall, 0, {.sequence = 1, .function = fn::kEcho}, 0);
  EXPECT_EQ(victim.Next().status, IBV_WC_SUCCESS) << "the victim goes on";
  ExpectClean(other);
}

TEST_F(VerbsHostile, WhatBreaksTheProtocolBreaksThatConnection) {
  Driver other = Client();
  const auto refusal = [&](auto send) {
    RawClient raw(host_->port());
    send(raw.link());
    EXPECT_TRUE(raw.link().Ring().ok());
    return raw.Refusal();
  };
  EXPECT_NE(refusal([](VerbsLink& link) {
              link.Send(MessageKind::kCall, 0, {.function = fn::kStuck, .deadline_us = 1'000'000}, 0);
              link.Send(MessageKind::kCall, 0, {.function = fn::kEcho}, 0);
            }).find("slot that is in use"),
            std::string::npos);
  EXPECT_NE(refusal([](VerbsLink& link) { link.Send(MessageKind::kRoom, 1, {}, 0); }).find("nobody has asked for"),
            std::string::npos);
  EXPECT_NE(refusal([](VerbsLink& link) { link.Send(MessageKind::kReply, 1, {}, 0); }).find("only hosts say"),
            std::string::npos);
  EXPECT_NE(refusal([](VerbsLink& link) { link.Tell(MessageKind::kNext, 3); }).find("not sent in chunks"),
            std::string::npos);
  EXPECT_NE(refusal([](VerbsLink& link) { link.Send(MessageKind::kCall, 0, {.bytes = 5000}, 0); }).find("RDMA message"),
            std::string::npos);
  ExpectWorks(other, "verbs");
  ExpectClean(other);
}

TEST_F(VerbsHostile, WhoSendsWithoutEndIsEnded) {
  Driver other = Client();
  RawClient raw(host_->port(), false);
  // The host cannot answer, and must not collect answers.
  for (int i = 0; i < 200; ++i) raw.link().Tell(MessageKind::kHello, 0);
  EXPECT_TRUE(raw.link().Ring().ok());
  EXPECT_NE(raw.Refusal().find("second hello"), std::string::npos);
  ExpectWorks(other, "verbs");
}

TEST_F(VerbsHostile, FailedWritesUseUpNobodysReceives) {
  Driver other = Client();
  for (int i = 0; i < 70; ++i) {  // more than a session's share
    RawClient raw(host_->port());
    raw.link().Write(raw.link().Outbox(0).first(100), raw.link().local_key(), {0x1000, 0x7777});
    raw.link().Tell(MessageKind::kHello, 0);
    EXPECT_EQ(raw.Next().status, IBV_WC_REM_ACCESS_ERR);
  }
  ExpectWorks(other, "verbs");
}

TEST_F(VerbsHostile, AnInputThatCannotBeReadBreaksThatConnection) {
  Driver other = Client();
  RawClient raw(host_->port());
  raw.link().Send(MessageKind::kCall, 0,
                  {.mode = MessageMode::kRemote,
                   .function = fn::kEcho,
                   .bytes = 100'000,
                   .input_address = 0x1000,
                   .input_key = 0x7777},
                  0);
  EXPECT_TRUE(raw.link().Ring().ok());
  EXPECT_NE(raw.Refusal().find("status"), std::string::npos);
  ExpectWorks(other, "verbs");
  ExpectClean(other);
}

TEST_F(VerbsHostile, AClientThatDoesNotReceiveIsGivenUp) {
  Driver other = Client();
  RawClient raw(host_->port(), false);
  raw.link().Send(MessageKind::kCall, 0, {.function = fn::kEcho}, 0);
  EXPECT_TRUE(raw.link().Ring().ok());
  EXPECT_NE(raw.Refusal().find("RNR"), std::string::npos);
  ExpectWorks(other, "verbs");
}

/// Says whatever comes into its mind, more often than not what could be meant: so it gets beyond its first message.
class RandomClient {
 public:
  RandomClient(uint16_t port, uint32_t seed)
      : raw_(port),
        random_(seed),
        payload_(verbs::MemoryRegion::Register(raw_.link().domain(), memory_, verbs::MemoryRegion::Access::kRemote)
                     .value()) {}

  /// Until it has said enough, or the host has had enough.
  void Run() {
    const uint32_t messages = 1 + Below(60);
    for (uint32_t said = 0; said < messages; ++said) {
      if (Chance(70)) {
        Call(Below(RawClient::kSlots));
      } else {
        Anything(Below(RawClient::kSlots));
      }
      if (Chance(20) ? !Listen(Below(20)) : !Listen(1)) return;
    }
    (void)Listen(Below(50));
  }
  [[nodiscard]] uint32_t answered() const { return answered_; }

 private:
  uint32_t Below(uint32_t bound) { return static_cast<uint32_t>(random_() % bound); }
  bool Chance(uint32_t percent) { return Below(100) < percent; }
  uint64_t Size() {
    constexpr std::array<uint64_t, 10> kSizes = {0, 1, 64, 4095, 4096, 4097, 20'000, 100'000, 1ull << 32, UINT64_MAX};
    return Chance(80) ? kSizes[Below(8)] : kSizes[Below(kSizes.size())];
  }
  verbs::RemoteMemory Memory() {
    if (Chance(85)) return payload_.remote();
    return Chance(50) ? raw_.host_memory() : verbs::RemoteMemory{random_(), static_cast<uint32_t>(random_())};
  }

  void Call(uint32_t slot) {
    if (busy_[slot] && Chance(95)) return;
    busy_[slot] = true;
    Message call = {.mode = static_cast<MessageMode>(Below(3)),
                    .sequence = sequence_[slot] = static_cast<uint32_t>(random_()),
                    .function = Chance(90) ? fn::kEcho : fn::kFunctions + 1,
                    .deadline_us = Chance(90) ? 1 + Below(300'000) : random_(),
                    .bytes = Size()};
    if (call.mode == MessageMode::kInline) call.bytes = std::min<uint64_t>(call.bytes, transport::kMessagePayloadBytes);
    left_[slot] = call.bytes;
    const verbs::RemoteMemory input = Memory();
    call.input_address = input.address;
    call.input_key = input.key;
    if (Chance(70)) {
      const verbs::RemoteMemory output = Memory();
      call.output_address = output.address;
      call.output_key = output.key;
      call.output_bytes = Chance(80) ? memory_.size() : Size();
    }
    raw_.link().Send(MessageKind::kCall, slot, call,
                     call.mode == MessageMode::kInline ? static_cast<size_t>(call.bytes) : 0);
    if (Chance(10)) raw_.link().Tell(MessageKind::kCancel, slot);
  }

  /// Not what should come next.
  void Anything(uint32_t slot) {
    const auto kind = static_cast<MessageKind>(1 + Below(8));
    if (Chance(60)) return raw_.link().Tell(MessageKind::kCancel, slot);
    if (kind == MessageKind::kHello || kind == MessageKind::kNext || kind == MessageKind::kCancel) {
      return raw_.link().Tell(kind, slot);
    }
    raw_.link().Send(kind, slot,
                     {.mode = static_cast<MessageMode>(Below(5)),
                      .flags = static_cast<uint16_t>(Chance(90) ? Below(4) : random_()),
                      .sequence = Chance(80) ? sequence_[slot] : static_cast<uint32_t>(random_()),
                      .function = fn::kEcho,
                      .bytes = Size(),
                      .input_address = random_(),
                      .output_address = Chance(50) ? random_() : 0,
                      .output_bytes = Size(),
                      .output_key = static_cast<uint32_t>(random_())},
                     Below(transport::kMessagePayloadBytes));
  }

  /// Waits for that many messages of the host, none of them for long, and goes on with its calls.
  bool Listen(uint32_t messages) {
    for (uint32_t heard = 0; heard < messages; ++heard) {
      std::optional<ibv_wc> completion;
      const uint64_t deadline_ns = DeadlineIn(2'000'000);
      do {
        if (!raw_.Poll(completion)) return false;
        std::this_thread::yield();
      } while (!completion && NowNs() < deadline_ns);
      if (!completion) return true;
      if (completion->wr_id != verbs::kReceived) {
        raw_.link().Finished();
        continue;
      }
      if (!raw_.link().PostReceives(1).ok()) return false;
      const auto tag = transport::DecodeTag(be32toh(completion->imm_data), RawClient::kSlots);
      EXPECT_TRUE(tag.ok()) << "the host keeps to the protocol";
      if (tag.ok()) Answer(*tag);
    }
    return true;
  }
  void Answer(transport::MessageTag tag) {
    const uint32_t slot = tag.slot;
    if (Chance(5)) return;  // it does not go on
    switch (tag.kind) {
      case MessageKind::kReply:
        ++answered_;
        busy_[slot] = false;
        break;
      case MessageKind::kNeedRoom: {
        const verbs::RemoteMemory output = Chance(50) ? Memory() : verbs::RemoteMemory{};
        raw_.link().Send(MessageKind::kRoom, slot,
                         {.mode = Chance(20) ? MessageMode::kDropped : MessageMode::kInline,
                          .sequence = sequence_[slot],
                          .output_address = output.address,
                          .output_bytes = memory_.size(),
                          .output_key = output.key},
                         0);
        break;
      }
      case MessageKind::kChunk:
        raw_.link().Tell(MessageKind::kNext, slot);
        break;
      case MessageKind::kNext: {
        const auto bytes = Chance(90) ? std::min<uint64_t>(left_[slot], transport::kMessagePayloadBytes) : Below(5000);
        left_[slot] -= std::min(left_[slot], bytes);
        raw_.link().Send(MessageKind::kChunk, slot, {.sequence = sequence_[slot], .bytes = bytes},
                         std::min<size_t>(bytes, transport::kMessagePayloadBytes));
        break;
      }
      default:
        break;
    }
  }

  alignas(4096) std::array<std::byte, 200'704> memory_{};
  RawClient raw_;
  std::mt19937_64 random_;
  verbs::MemoryRegion payload_;
  std::array<bool, RawClient::kSlots> busy_{};
  std::array<uint32_t, RawClient::kSlots> sequence_{};
  std::array<uint64_t, RawClient::kSlots> left_{};  // of inputs in chunks
  uint32_t answered_ = 0;
};

/// --gtest_random_seed=N says other things, --gtest_repeat=N more of them. How many of its calls a client is answered
/// before it goes on depends on how fast the host is, so there are as many clients as it takes.
TEST_F(VerbsHostile, WhateverIsSaidInAnyOrderHarmsNobodyElse) {
  Driver other = Client();
  const auto first = static_cast<uint32_t>(::testing::UnitTest::GetInstance()->random_seed()) * 1000;
  constexpr uint32_t kClients = 100;
  constexpr uint32_t kAnswers = 100;
  uint32_t answered = 0;
  for (uint32_t round = 0; (round < kClients || answered <= kAnswers) && round < 4 * kClients && !HasFailure();
       ++round) {
    SCOPED_TRACE("seed " + std::to_string(first + round));
    RandomClient client(host_->port(), first + round);
    client.Run();
    answered += client.answered();
    if (round % 10 == 0) ExpectWorks(other, "verbs");
  }
  RecordProperty("answered", static_cast<int>(answered));
  EXPECT_GT(answered, kAnswers) << "they get to what the host does, and not only to where it refuses";
  EXPECT_TRUE(Eventually([&] { return StatsOf(other).find("\"windows\":1") != std::string::npos; })) << StatsOf(other);
  ExpectWorks(other, "verbs");
  ExpectClean(other);
}

}  // namespace
}  // namespace praas::test

#endif
