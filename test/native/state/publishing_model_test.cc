// Every interleaving of two writers of a published key, a reader and the host, on x86's memory model (store buffers),
// with a writer killed anywhere; and proof that the model finds what each safeguard is for.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <string>

#include "support/interleave.h"

namespace praas::state {
namespace {

using praas::testing::Interleave;
using praas::testing::TsoMemory;

/// What is left out.
enum class Mutation {
  kNone,
  kSupersede,       // the head is not told before the truth changes
  kClaim,           // two may copy at a time
  kSecondSequence,  // the reader does not look at the sequence again
  kSecondLook,      // who has copied does not look whether the truth has changed meanwhile
  kRenew,           // the host does not look at what a dead writer left
};

struct S {
  enum Thread : size_t { kA, kB, kHost, kReader, kThreads };
  enum Word : size_t { kLatest, kSequence, kVersion, kFirst, kSecond, kTruth, kToken, kMutex, kWords };

  TsoMemory<kThreads, kWords> memory;
  std::array<uint8_t, kThreads> pc{};
  std::array<uint8_t, kThreads> version{};  // that a writer sets, then copies
  uint8_t last = 0;                         // version given to anybody
  uint8_t visible = 0;                      // of the truth, to whoever enters the next section
  uint8_t dead = 0;                         // bits
  std::array<uint8_t, 5> read{};            // sequence, latest, version, first, second
  uint8_t from = 0;                         // what was visible when the reader began
  auto operator<=>(const S&) const = default;
};

constexpr uint8_t kDone = 99;

uint8_t Me(size_t thread) { return static_cast<uint8_t>(thread + 1); }
bool IsDead(const S& s, uint8_t who) { return who != 0 && (s.dead >> (who - 1) & 1) != 0; }

/// Sections are stepped store by store, because readers see into them.
bool WriterStep(S& s, size_t self, Mutation mutation) {
  auto& memory = s.memory;
  uint8_t& pc = s.pc[self];
  const auto store = [&](S::Word word, uint8_t value, uint8_t next) {
    if (!memory.Store(self, word, value)) return false;
    pc = next;
    return true;
  };
  switch (pc) {
    case 0:     // enter
    case 20: {  // enter again, having copied
      const uint8_t owner = memory.word(S::kMutex);
      // A dead process's stores are in memory before anybody hears of its death.
      if (!memory.Fenced(self) || (owner != 0 && !(IsDead(s, owner) && memory.Fenced(owner - 1)))) return false;
      memory.word(S::kMutex) = Me(self);
      pc = pc == 0 ? (self == S::kHost ? 3 : 1) : 21;
      return true;
    }
    case 1:
      s.version[self] = ++s.last;
      if (mutation == Mutation::kSupersede) {
        pc = 2;
        return true;
      }
      return store(S::kLatest, s.last, 2);
    case 2:
      return store(S::kTruth, s.version[self], 3);
    case 3:  // the head names the truth, should somebody have died between the two
      if (memory.Load(self, S::kLatest) != memory.Load(self, S::kTruth) && mutation != Mutation::kSupersede) {
        return store(S::kLatest, memory.Load(self, S::kTruth), 8);
      }
      pc = 8;
      return true;
    case 8: {  // who copies?
      const uint8_t copier = memory.Load(self, S::kToken);
      const bool current =
          memory.Load(self, S::kSequence) % 2 == 0 && memory.Load(self, S::kVersion) == memory.Load(self, S::kTruth);
      // A claim ends with the claimant's pin, which the host takes back when the death is known.
      const bool taken = copier != 0 && !(IsDead(s, copier) && memory.Fenced(copier - 1));
      if ((taken && mutation != Mutation::kClaim) || current) {
        pc = 30;
        return true;
      }
      s.version[self] = memory.Load(self, S::kTruth);
      return store(S::kToken, Me(self), 4);
    }
    case 4:
      return store(S::kSequence, memory.Load(self, S::kSequence) | 1, 5);
    case 5:  // leave
      if (!memory.Fenced(self)) return false;
      s.visible = memory.word(S::kTruth);
      memory.word(S::kMutex) = 0;
      pc = 6;
      return true;
    case 6:
      return store(S::kFirst, s.version[self], 7);
    case 7:
      return store(S::kSecond, s.version[self], 20);
    case 21:
      if (mutation == Mutation::kSupersede) return store(S::kLatest, s.version[self], 22);
      pc = 22;
      return true;
    case 22:
      return store(S::kVersion, s.version[self], 23);
    case 23:
      return store(S::kToken, 0, 24);
    case 24:
      return store(S::kSequence, static_cast<uint8_t>((memory.Load(self, S::kSequence) | 1) + 1),
                   mutation == Mutation::kSecondLook ? 30 : 3);
    case 30:  // leave for good
      if (!memory.Fenced(self)) return false;
      s.visible = memory.word(S::kTruth);
      memory.word(S::kMutex) = 0;
      pc = kDone;
      return true;
    default:
      return false;
  }
}

bool HostStep(S& s, Mutation mutation) {
  if (mutation == Mutation::kRenew) return false;
  for (const size_t writer : {S::kA, S::kB}) {
    // It hears of the death of one, and looks when all that one did is in memory.
    if (IsDead(s, Me(writer)) && s.memory.Fenced(writer)) return WriterStep(s, S::kHost, mutation);
  }
  return false;
}

bool ReaderStep(S& s, Mutation mutation) {
  uint8_t& pc = s.pc[S::kReader];
  const auto again = [&] {
    s.read = {};
    s.from = 0;
    pc = 0;
  };
  switch (pc) {
    case 0:
      s.from = s.visible;
      s.read[0] = s.memory.Load(S::kReader, S::kSequence);
      pc = 1;
      if (s.read[0] % 2 != 0) again();
      return true;
    case 1:
      s.read[1] = s.memory.Load(S::kReader, S::kLatest);
      pc = 2;
      return true;
    case 2:
      s.read[2] = s.memory.Load(S::kReader, S::kVersion);
      pc = 3;
      if (s.read[1] != s.read[2]) again();
      return true;
    case 3:
      s.read[3] = s.memory.Load(S::kReader, S::kFirst);
      pc = 4;
      return true;
    case 4:
      s.read[4] = s.memory.Load(S::kReader, S::kSecond);
      pc = 5;
      return true;
    case 5:
      if (mutation != Mutation::kSecondSequence && s.memory.Load(S::kReader, S::kSequence) != s.read[0]) {
        again();
      } else {
        pc = kDone;
      }
      return true;
    default:
      return false;
  }
}

Interleave<S>::Report Explore(Mutation mutation, uint32_t kills) {
  Interleave<S> model;
  for (const size_t writer : {S::kA, S::kB}) {
    model.Add(
        writer == S::kA ? "A" : "B", [writer, mutation](S& s) { return WriterStep(s, writer, mutation); },
        [writer](S& s) { s.dead = static_cast<uint8_t>(s.dead | 1 << writer); });
  }
  model.Add("host", [mutation](S& s) { return HostStep(s, mutation); });
  model.Add("reader", [mutation](S& s) { return ReaderStep(s, mutation); });
  for (size_t thread = 0; thread < S::kReader; ++thread) {
    model.Add("drain", [thread](S& s) { return s.memory.Drain(thread); });
  }
  const auto invariant = [](const S& s) -> std::string {
    if (s.pc[S::kReader] != kDone) return {};
    const uint8_t version = s.read[2];
    if (s.read[3] != version || s.read[4] != version) return "torn";
    if (version < s.from) return "older than what was there before";
    return {};
  };
  const auto terminal = [](const S& s) -> std::string {
    const bool whole = s.memory.word(S::kSequence) % 2 == 0 && s.memory.word(S::kLatest) == s.memory.word(S::kVersion);
    if (!whole || s.memory.word(S::kVersion) != s.memory.word(S::kTruth)) return "not published at the end";
    return {};
  };
  return model.Explore(S{}, {.terminal = terminal, .invariant = invariant, .max_kills = kills});
}

TEST(PublishingModel, EveryInterleaving) {
  const auto report = Explore(Mutation::kNone, 0);
  EXPECT_TRUE(report.ok()) << report.Text();
  EXPECT_GT(report.terminals, 0u);
}

TEST(PublishingModel, EveryInterleavingWithAWriterKilled) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the exploration has one thread and is ten times slower under the sanitizer";
#endif
  const auto report = Explore(Mutation::kNone, 1);
  EXPECT_TRUE(report.ok()) << report.Text();
}

TEST(PublishingModel, FindsWhatEachSafeguardIsFor) {
  EXPECT_EQ(Explore(Mutation::kSupersede, 0).violation, "older than what was there before");
  EXPECT_EQ(Explore(Mutation::kClaim, 0).violation, "torn");
  EXPECT_EQ(Explore(Mutation::kSecondSequence, 0).violation, "torn");
  EXPECT_EQ(Explore(Mutation::kSecondLook, 0).violation, "not published at the end");
  EXPECT_EQ(Explore(Mutation::kRenew, 1).violation, "not published at the end");
}

}  // namespace
}  // namespace praas::state
