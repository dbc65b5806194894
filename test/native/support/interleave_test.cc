#include "support/interleave.h"

#include <gtest/gtest.h>

namespace praas::testing {
namespace {

/// Two threads that each raise a flag and then look at the other's (Dekker): at least one has to see the other.
struct Dekker {
  enum Word : size_t { kFlag0, kFlag1 };
  TsoMemory<2, 2> memory;
  std::array<uint8_t, 2> pc{};
  std::array<uint8_t, 2> saw_other{};
  auto operator<=>(const Dekker&) const = default;
};

Interleave<Dekker> DekkerModel(bool fence) {
  Interleave<Dekker> model;
  for (size_t self = 0; self < 2; ++self) {
    model.Add("thread " + std::to_string(self), [self, fence](Dekker& s) {
      switch (s.pc[self]) {
        case 0:
          if (!s.memory.Store(self, self, 1)) return false;
          break;
        case 1:
          if (fence && !s.memory.Fenced(self)) return false;
          break;
        case 2:
          s.saw_other[self] = s.memory.Load(self, 1 - self);
          break;
        default:
          return false;
      }
      ++s.pc[self];
      return true;
    });
    model.Add("drain " + std::to_string(self), [self](Dekker& s) { return s.memory.Drain(self); });
  }
  return model;
}

std::string NobodySaw(const Dekker& s) { return s.saw_other[0] + s.saw_other[1] == 0 ? "neither saw the other" : ""; }

TEST(Interleave, AFenceBetweenStoreAndLoadMakesDekkerHold) {
  const auto report = DekkerModel(/*fence=*/true).Explore({}, {.terminal = NobodySaw});
  EXPECT_TRUE(report.ok()) << report.Text();
  EXPECT_GT(report.terminals, 1u);
}

TEST(Interleave, StoreBuffersBreakDekkerWithoutTheFence) {
  const auto report = DekkerModel(/*fence=*/false).Explore({}, {.terminal = NobodySaw});
  EXPECT_FALSE(report.ok());
  EXPECT_EQ(report.violation, "neither saw the other");
  EXPECT_FALSE(report.trace.empty());
}

struct Counter {
  uint8_t value = 0;
  std::array<uint8_t, 2> pc{};
  std::array<uint8_t, 2> read{};
  bool held = false;
  auto operator<=>(const Counter&) const = default;
};

TEST(Interleave, FindsALostUpdateWithAShortestTrace) {
  Interleave<Counter> model;
  for (size_t self = 0; self < 2; ++self) {
    model.Add(self == 0 ? "a" : "b", [self](Counter& s) {
      if (s.pc[self] == 2) return false;
      if (s.pc[self] == 0) {
        s.read[self] = s.value;
      } else {
        s.value = s.read[self] + 1;
      }
      ++s.pc[self];
      return true;
    });
  }
  const auto report =
      model.Explore({}, {.terminal = [](const Counter& s) { return s.value == 2 ? "" : "lost update"; }});
  EXPECT_EQ(report.violation, "lost update");
  EXPECT_EQ(report.trace.size(), 4u);
}

TEST(Interleave, KillsAThreadBetweenAnyTwoSteps) {
  // A lock whose holder may die: without repair the other thread is stuck in some interleaving, with repair in none.
  for (const bool repair : {false, true}) {
    Interleave<Counter> model;
    model.Add(
        "victim",
        [](Counter& s) {
          if (s.pc[0] == 2 || (s.pc[0] == 0 && s.held)) return false;
          s.held = s.pc[0]++ == 0;
          return true;
        },
        [repair](Counter& s) {
          if (repair && s.pc[0] == 1) s.held = false;
        });
    model.Add("other", [](Counter& s) {
      if (s.pc[1] == 1 || s.held) return false;
      return ++s.pc[1] == 1;
    });
    const auto report = model.Explore(
        {},
        {.terminal = [](const Counter& s) { return s.pc[1] == 1 ? "" : "waits for a dead holder"; }, .max_kills = 1});
    EXPECT_EQ(report.ok(), repair) << report.Text();
  }
}

TEST(Interleave, GoalFindsAThreadThatPollsForEver) {
  // The poller alternates between two states and never blocks, so no state is terminal; the work is lost all the same.
  Interleave<Counter> model;
  model.Add("poller", [](Counter& s) {
    s.pc[0] ^= 1;
    return true;
  });
  const auto report = model.Explore({}, {.goal = [](const Counter& s) { return s.value == 1; }});
  EXPECT_FALSE(report.ok());
  EXPECT_EQ(report.terminals, 0u);
}

TEST(Interleave, SaysWhenItGaveUp) {
  const auto report = DekkerModel(true).Explore({}, {.max_states = 10});
  EXPECT_FALSE(report.ok());
  EXPECT_TRUE(report.violation.empty());
}

}  // namespace
}  // namespace praas::testing
