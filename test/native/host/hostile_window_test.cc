// Clients of this user that write into their windows what no client of ours would.

#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>
#include <utility>

#include "host/host_fixture.h"
#include "host/raw_client.h"
#include "host/window_memory.h"
#include "host/worker_processes.h"
#include "protocol/messages.h"
#include "window/handover.h"
#include "window/layout.h"

namespace praas::test {
namespace {

/// Asks for a window, which is not fetched.
protocol::UpgradeOffer OfferTo(RawClient& client) {
  client.Send({.type = protocol::FrameType::kUpgrade}, Encode(protocol::UpgradeRequest{.transport = "shm"}));
  Bytes payload;
  EXPECT_EQ(client.ReadFrame(&payload).type, protocol::FrameType::kUpgradeOffer);
  const auto offer = protocol::DecodeUpgradeOffer(payload);
  EXPECT_TRUE(offer.ok() && !offer->refused);
  return offer.ok() ? *offer : protocol::UpgradeOffer();
}

TEST(HostileWindows, WhoAsksForManyTakesThemFromNobody) {
  TestProcess process;
  HostRun host(process);
  RawClient hostile(host.port());
  hostile.Hello("p", TokenFor(protocol::kVerbInvoke));
  ASSERT_EQ(hostile.ReadFrame().type, protocol::FrameType::kWelcome);
  protocol::UpgradeOffer former;
  protocol::UpgradeOffer last = OfferTo(hostile);
  for (int i = 0; i < 1'100; ++i) former = std::exchange(last, OfferTo(hostile));
  EXPECT_EQ(host.Client("shm")->info().transport, "shm");
  const auto receive = [](const protocol::UpgradeOffer& offer) {
    return window::Receive(offer.socket_path, offer.nonce, DeadlineIn(kWatchdogNs)).status().code();
  };
  EXPECT_EQ(receive(former), Code::kUpgradeFailed);
  EXPECT_EQ(receive(last), Code::kOk);
}

TEST(HostileWindows, OneThatIsNeverEmptyKeepsNobodyWaiting) {
  TestProcess process;
  HostRun host(process);
  host.AddWorkers(1);
  Driver other = host.Client();
  Driver hostile = host.Client("shm");
  ASSERT_TRUE(hostile.Call(fn::kEcho, AsBytes("x")).status.ok());
  const WindowMemory window;
  ASSERT_TRUE(window.there());

  std::atomic<bool> stop{false};
  std::thread feeder([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      const uint32_t head = window.header().submit_head.load();
      for (uint32_t position = head; position != head + window::kRing; ++position) {
        window.record(position).call = window::kCalls;  // there is no such call
        window.record(position).turn.store(position + 1, std::memory_order_relaxed);
      }
    }
  });
  const uint32_t before = window.header().submit_head.load();
  (void)hostile->Invoke(fn::kEcho, AsBytes("x"), {}, 0, DeadlineIn(kWatchdogNs));  // says that there is something
  EXPECT_TRUE(Eventually([&] { return window.header().submit_head.load() - before > window::kRing; }))
      << "nobody consumes";
  for (int i = 0; i < 5; ++i) {
    const Driver::Outcome outcome = other.Call(fn::kEcho, AsBytes("x"));
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.message();
  }
  stop.store(true);
  feeder.join();
  hostile->Close();
  ExpectClean(other);
}

/// A submission that the only worker of a host keeps to itself, as the test does in its name.
class Withheld {
 public:
  Withheld() {
    worker_ = PidOf(client_);
    auto segment = segment::Segment::Open(process_.assignment.segment, true);
    EXPECT_TRUE(segment.ok()) << segment.status().message();
    segment_.emplace(*std::move(segment));
    slot().consumer.store(uint32_t{ParticipantOf(*segment_, worker_)} + 1);
    const auto call = client_->Invoke(fn::kEcho, AsBytes("x"), {}, 0, DeadlineIn(kWatchdogNs));
    EXPECT_TRUE(call.ok());
    call_ = *call;
  }
  [[nodiscard]] segment::WindowSlot& slot() { return segment_->window(0); }
  [[nodiscard]] pid_t worker() const { return worker_; }
  [[nodiscard]] Driver& client() { return client_; }
  [[nodiscard]] uint64_t call() const { return call_; }

 private:
  [[nodiscard]] Driver Client() {
    EXPECT_TRUE(host_.AwaitReady(1));
    return host_.Client("shm");
  }

  TestProcess process_;
  HostRun host_{process_, kWorkerCommand};
  Driver client_ = Client();
  std::optional<segment::Segment> segment_;
  pid_t worker_ = 0;
  uint64_t call_ = 0;
};

TEST(HostileWindows, AWorkerThatGetsOnIsNotEndedWhateverTheWindowSays) {
  Withheld withheld;
  // The client has written back what the worker has consumed: its window looks as if nobody came. Longer than a
  // consumer may take that is stopped.
  const uint64_t until_ns = DeadlineIn(2'500'000'000);
  while (NowNs() < until_ns) {
    withheld.slot().turns.fetch_add(1);
    withheld.client().Poll();
    ::usleep(1'000);
  }
  EXPECT_FALSE(Gone(withheld.worker()));
  withheld.slot().consumer.store(0);
  EXPECT_TRUE(withheld.client().Wait(withheld.call()).status.ok());
  EXPECT_EQ(PidOf(withheld.client()), withheld.worker());
  ExpectClean(withheld.client());
}

TEST(HostileWindows, AConsumerThatDoesNotGetOnIsEndedWhateverTheWindowSays) {
  Withheld withheld;
  EXPECT_TRUE(withheld.client().Wait(withheld.call()).status.ok());
  EXPECT_TRUE(Gone(withheld.worker()));
  ExpectClean(withheld.client());
}

}  // namespace
}  // namespace praas::test
