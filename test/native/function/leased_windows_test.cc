// Windows of leased workers: whose they are when their clients come and go.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <optional>
#include <string>

#include "function/native_leases.h"

namespace praas::test {
namespace {

/// Clients on the same machine, whose ends the host sees itself: their windows are others' before their worker knows.
class LeasedWindows : public NativeLeases {
 protected:
  static constexpr uint32_t kOpen = 1;  // segment::WindowSlot::state

  void Watch() {
    auto segment = segment::Segment::Map(
        UniqueFd(::shm_open(process_.assignment.segment.c_str(), O_RDONLY | O_CLOEXEC, 0)), false);
    ASSERT_TRUE(segment.ok()) << segment.status().message();
    segment_.emplace(*std::move(segment));
  }
  [[nodiscard]] const segment::Header& header() const { return segment_->header(); }
  [[nodiscard]] uint32_t OpenWindows() const {
    uint32_t open = 0;
    for (uint32_t index = 0; index < header().windows_used.load(); ++index) {
      open += segment_->window(index).state.load() != 0;
    }
    return open;
  }
  /// Clients of the process that come and go, until a window has to be one that was used before.
  void UseEveryWindow() {
    client::ConnectOptions options = OptionsFor(host_->port());
    options.transport = "shm";
    while (header().windows_used.load() < header().windows.committed.load() && !HasFailure()) {
      Driver passing = Connect(options);
    }
  }

  std::optional<segment::Segment> segment_;
};

INSTANTIATE_TEST_SUITE_P(Transports, LeasedWindows, ::testing::Values("shm"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(LeasedWindows, TheEndOfAClientThatIsToldLateIsNotThatOfTheNext) {
  Start(InC("until_cancelled") + InC("echo"));
  ASSERT_NO_FATAL_FAILURE(Watch());
  const LeaseReply lease = Take({.ttl_ms = 600'000});
  Driver busy = Worker(lease);
  const auto call = busy->Invoke(Index("until_cancelled"), AsBytes("how"), {}, 0, DeadlineIn(10 * kWatchdogNs));
  ASSERT_TRUE(call.ok()) << call.status().message();
  busy.Poll();
  ASSERT_TRUE(Eventually([&] { return NumberIn(Leases(), "executionNs") > 0; }));

  // Of this one the worker comes to know when its function has returned, and then tells the host that it has ended.
  const segment::WindowSlot& window = segment_->window(header().windows_used.load());
  const uint32_t before = window.generation.load();
  { Driver left = Worker(lease); }
  ASSERT_TRUE(Eventually([&] { return window.generation.load() == before + 2; })) << "it is given back";
  UseEveryWindow();
  Driver next = Worker(lease);
  ASSERT_TRUE(Eventually([&] { return window.state.load() == kOpen; })) << "it has got another window";
  busy->Cancel(*call);
  (void)busy.Wait(call);

  // The worker tells the end of this one after that of the other.
  {
    client::ConnectOptions options = WorkerOptions(lease.key, 0);
    options.transport = "tcp";
    Driver last = Connect(options);
    EXPECT_EQ(AsText(last.Call(Index("echo"), AsBytes("x")).payload), "x");
  }
  ASSERT_TRUE(Eventually([&] { return OpenWindows() == 2; })) << "of those who stay: " << OpenWindows();
  const Driver::Outcome resolved = next.Wait(next->Resolve("echo", DeadlineIn(kWatchdogNs)));
  EXPECT_TRUE(resolved.status.ok()) << "taken for the one who left: " << resolved.status.message();
  const Driver::Outcome outcome = next.Call(Index("echo"), AsBytes("y"));
  EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
  EXPECT_EQ(AsText(outcome.payload), "y");
}

}  // namespace
}  // namespace praas::test
