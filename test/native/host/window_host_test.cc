// What becomes of windows that were offered, as the host's I/O thread sees it: a loop that the test turns itself.

#include "host/window_host.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <future>
#include <memory>
#include <utility>

#include "base/clock.h"
#include "host/host_fixture.h"
#include "window/handover.h"

namespace praas::host {
namespace {

using test::kWatchdogNs;

class WindowHosts : public ::testing::Test {
 protected:
  static constexpr uint64_t kSession = 7;

  void SetUp() override {
    auto loop = EventLoop::Create();
    ASSERT_TRUE(loop.ok()) << loop.status().message();
    loop_ = std::move(*loop);
    auto process = Process::Open(names_.assignment, DeadlineIn(kWatchdogNs));
    ASSERT_TRUE(process.ok()) << process.status().message();
    process_ = std::move(*process);
    calls_ = std::make_unique<Calls>(*loop_, *process_, [] {});
    windows_ = std::make_unique<WindowHost>(*loop_, *process_, *calls_);
    windows_->offers.lives = [](uint64_t) { return true; };
    windows_->refuses = [] { return Status::Ok(); };
    windows_->tell_workers = [](const worker::ControlMessage&) {};
    windows_->Listen();
  }
  void TearDown() override {
    windows_.reset();
    calls_.reset();
    if (process_ != nullptr) process_->LeaveInOrder();
  }

  protocol::UpgradeOffer Offer() {
    const auto offer = windows_->Offer(kSession, {.client_pid = ::getpid(), .window_bytes = 0});
    EXPECT_TRUE(offer.ok()) << offer.status().message();
    return offer.ok() ? *offer : protocol::UpgradeOffer();
  }
  /// What a client gets for it.
  Result<window::Handover> Fetch(const protocol::UpgradeOffer& offer) {
    auto fetched = std::async(std::launch::async,
                              [&] { return window::Receive(offer.socket_path, offer.nonce, DeadlineIn(kWatchdogNs)); });
    while (fetched.wait_for(std::chrono::seconds(0)) != std::future_status::ready) loop_->Turn(false);
    return fetched.get();
  }

  test::TestProcess names_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<Process> process_;
  std::unique_ptr<Calls> calls_;
  std::unique_ptr<WindowHost> windows_;
};

TEST_F(WindowHosts, AnOfferIsGoodOnce) {
  const protocol::UpgradeOffer offer = Offer();
  EXPECT_TRUE(Fetch(offer).ok());
  EXPECT_EQ(Fetch(offer).status().code(), Code::kUpgradeFailed);
  EXPECT_EQ(windows_->Offer(kSession, {}).status().code(), Code::kUpgradeFailed) << "it has one";
  EXPECT_EQ(windows_->open_count(), 1u);
}

TEST_F(WindowHosts, AnOfferToASessionThatHasGotAWindowMeanwhileIsVoid) {
  const protocol::UpgradeOffer offer = Offer();
  const Result<window::Handover> by_rdma = windows_->Open(kSession, ::getpid(), names_.assignment.window_bytes);
  ASSERT_TRUE(by_rdma.ok()) << by_rdma.status().message();
  EXPECT_EQ(Fetch(offer).status().code(), Code::kUpgradeFailed);
  EXPECT_EQ(windows_->open_count(), 1u);
  windows_->SessionClosed(kSession);
  EXPECT_EQ(windows_->open_count(), 0u);
}

}  // namespace
}  // namespace praas::host
