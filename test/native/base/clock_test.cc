#include "base/clock.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "base/tick_clock.h"

namespace praas {
namespace {

TEST(Clock, DeadlinesAreNotLateAndHardlyEarly) {
  for (const uint64_t ns : {uint64_t{1}, uint64_t{999'999'999}, uint64_t{1'000'000'000}, uint64_t{60'000'000'000}}) {
    const uint64_t before = NowNs();
    const uint64_t deadline_ns = DeadlineIn(ns);
    EXPECT_LE(deadline_ns, NowNs() + ns);
    // A tick early; more when the machine was stopped.
    EXPECT_GE(deadline_ns, before + ns - (ns < 1'000'000'000 ? 0 : ns / 2));
  }
  EXPECT_EQ(DeadlineIn(kNoDeadline), kNoDeadline);
}

TEST(Clock, HasPassedAgreesWithTheExactTime) {
  EXPECT_TRUE(HasPassed(0));
  EXPECT_FALSE(HasPassed(kNoDeadline));
  for (int i = 0; i < 1000; ++i) {
    EXPECT_TRUE(HasPassed(NowNs()));
    EXPECT_FALSE(HasPassed(NowNs() + 1'000'000'000));
  }
  // Near, where the last tick of the timer cannot tell.
  const uint64_t deadline_ns = NowNs() + 5'000'000;
  while (!HasPassed(deadline_ns)) {
  }
  EXPECT_GE(NowNs(), deadline_ns);
}

TEST(TickClock, GoesWithTheClock) {
  constexpr uint64_t kOff = 100'000;
  TickClock clock;
  const uint64_t until_ns = NowNs() + 100'000'000;  // past its calibration
  for (uint64_t before = NowNs(); before < until_ns; before = NowNs()) {
    const uint64_t now = clock.Now();
    const uint64_t after = NowNs();
    ASSERT_GE(now + kOff, before);
    ASSERT_LE(now, after + kOff);
  }
}

}  // namespace
}  // namespace praas
