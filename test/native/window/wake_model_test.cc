// Every interleaving of the two sleep/wake hand-overs of a client window, on x86's memory model (store buffers), and
// proof that the models find the bugs they are for: each is run with one piece of the protocol left out.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include "support/interleave.h"

namespace praas::window {
namespace {

using praas::testing::Interleave;
using praas::testing::TsoMemory;

/// What is left out.
enum class Mutation {
  kNone,
  kClientFence,     // between publishing and looking at needs_wake
  kAbandonRecheck,  // the worker sleeps without looking at the ring again
  kAbandonFence,    // between setting needs_wake and looking at the ring
  kReleaseRecheck,  // a consumer leaves without looking at the ring again
  kReclaim,         // the host leaves a dead worker's window alone
  kSignalAlways,    // (not a bug) a signal per submission instead of one per stretch
  kStretchBlind,    // "signalled before" is taken as enough even when that was consumed
  kBusyWorker,      // (not a bug) the poller runs a function and never looks; the client signals before it sleeps
  kBusyUnnoticed,   // the same, but the client sleeps without a signal
};

// --- submissions: one client, a hot worker that adopted the window, the host
// -------------------------------------------------

struct Submissions {
#if defined(__SANITIZE_THREAD__)
  static constexpr uint8_t kCount = 2;  // the exploration has one thread and is ten times slower under the sanitizer
#else
  static constexpr uint8_t kCount = 3;  // submissions
#endif
  static constexpr uint8_t kReturns = 1;  // how often the worker comes back and adopts the window again
  enum Thread : size_t { kClient, kWorker, kHost, kThreads };
  /// kTail: how many records have their turn. It is never read as such: "turn of the record at head" is tail > head.
  enum Word : size_t { kTail, kHead, kNeedsWake, kPoller, kConsumer, kWords };

  TsoMemory<kThreads, kWords> memory;
  uint8_t event = 0;        // the submission eventfd, as the kernel has it
  uint8_t worker_dead = 0;  // what the host's pidfd says: 1 died, 2 handled
  std::array<uint8_t, kThreads> pc{};
  std::array<uint8_t, kThreads> resume{};  // where the consuming routine returns to
  uint8_t published = 0, signalled = 0;    // client's own
  std::array<uint8_t, kThreads> seen{};    // a value read in one step and used in the next
  uint8_t returned = 0;
  auto operator<=>(const Submissions&) const = default;
};

using S = Submissions;

/// TryConsume, Peek/Taken until empty, EndConsume with its re-check: steps 10 … 15 of worker and host. Returns false
/// when the thread cannot move.
bool ConsumeStep(S& s, size_t self, uint8_t me, Mutation mutation) {
  switch (s.pc[self]) {
    case 10:  // TryConsume
      if (!s.memory.Fenced(self)) return false;
      if (s.memory.word(S::kConsumer) != 0) {
        s.pc[self] = s.resume[self];
        return true;
      }
      s.memory.word(S::kConsumer) = me;
      s.pc[self] = 11;
      return true;
    case 11:  // Peek: head and the turn there, which is what races
      s.seen[self] = s.memory.Load(self, S::kTail);
      s.pc[self] = s.seen[self] == s.memory.Load(self, S::kHead) ? 13 : 12;
      return true;
    case 12:  // Taken: a seq_cst store of the head
      if (!s.memory.Fenced(self)) return false;
      s.memory.word(S::kHead) = static_cast<uint8_t>(s.memory.word(S::kHead) + 1);
      s.pc[self] = 11;
      return true;
    case 13:  // EndConsume
      if (!s.memory.Fenced(self)) return false;
      if (s.memory.word(S::kConsumer) == me) s.memory.word(S::kConsumer) = 0;
      s.pc[self] = mutation == Mutation::kReleaseRecheck ? s.resume[self] : 14;
      return true;
    case 14:  // … and its re-check
      s.pc[self] = s.memory.Load(self, S::kTail) != s.memory.Load(self, S::kHead) ? uint8_t{10} : s.resume[self];
      return true;
    default:
      return false;
  }
}

Interleave<S> SubmissionModel(Mutation mutation, bool killable) {
  Interleave<S> model;
  model.Add("client", [mutation](S& s) {
    const size_t self = S::kClient;
    switch (s.pc[self]) {
      case 0:  // publish
        if (s.published == S::kCount) {
          s.pc[self] = 5;
          return true;
        }
        if (!s.memory.Store(self, S::kTail, static_cast<uint8_t>(s.published + 1))) return false;
        ++s.published;
        s.pc[self] = 1;
        return true;
      case 1:  // fence
        if (mutation != Mutation::kClientFence && !s.memory.Fenced(self)) return false;
        s.pc[self] = 2;
        return true;
      case 2:
        s.pc[self] = s.memory.Load(self, S::kNeedsWake) != 0 ? 3 : 0;
        return true;
      case 3:  // SignalUnconsumed: nothing to do when all is consumed or a signal is on its way
        s.seen[self] = s.memory.Load(self, S::kHead);
        if (s.seen[self] == s.published || (mutation != Mutation::kSignalAlways && s.seen[self] < s.signalled) ||
            (mutation == Mutation::kStretchBlind && s.signalled != 0)) {
          s.pc[self] = s.published == S::kCount ? 5 : 0;
          return true;
        }
        s.pc[self] = 4;
        return true;
      case 4:
        s.signalled = s.published;
        s.event = 1;
        s.pc[self] = s.published == S::kCount ? 5 : 0;
        return true;
      case 5:  // PrepareToSleep
        if (mutation != Mutation::kBusyWorker) return false;
        s.seen[self] = s.memory.Load(self, S::kHead);
        if (s.seen[self] != s.published && s.seen[self] >= s.signalled) s.event = 1;
        s.pc[self] = 6;
        return true;
      default:
        return false;
    }
  });
  model.Add("client drain", [](S& s) { return s.memory.Drain(S::kClient); });

  // Begins as the poller, with needs_wake clear. Looks, then gives up at any time (it may look again or sleep: both are
  // explored, because the choice is another thread's: "worker tires").
  auto worker_step = [mutation](S& s) {
    const size_t self = S::kWorker;
    if (mutation == Mutation::kBusyWorker || mutation == Mutation::kBusyUnnoticed) return false;
    switch (s.pc[self]) {
      case 0:  // poll
        if (s.memory.Load(self, S::kTail) == s.memory.Load(self, S::kHead)) return false;
        s.resume[self] = 0;
        s.pc[self] = 10;
        return true;
      case 1:  // Abandon: needs_wake = 1
        if (mutation == Mutation::kAbandonFence) {
          if (!s.memory.Store(self, S::kNeedsWake, 1)) return false;
        } else {
          if (!s.memory.Fenced(self)) return false;
          s.memory.word(S::kNeedsWake) = 1;
        }
        s.pc[self] = 2;
        return true;
      case 2:  // poller = 0; a plain store with the fences left out
        if (mutation == Mutation::kAbandonFence) {
          if (!s.memory.Store(self, S::kPoller, 0)) return false;
        } else {
          if (!s.memory.Fenced(self)) return false;
          s.memory.word(S::kPoller) = 0;
        }
        s.pc[self] = mutation == Mutation::kAbandonRecheck ? 4 : 3;
        return true;
      case 3:  // re-check
        s.resume[self] = 4;
        s.pc[self] = s.memory.Load(self, S::kTail) != s.memory.Load(self, S::kHead) ? 10 : 4;
        return true;
      case 4:  // sleeps; something else wakes it once and it adopts the window again
        if (s.returned == S::kReturns || !s.memory.Fenced(self)) return false;
        ++s.returned;
        s.memory.word(S::kPoller) = 2;
        s.pc[self] = 5;
        return true;
      case 5:
        if (!s.memory.Fenced(self)) return false;
        s.memory.word(S::kNeedsWake) = 0;
        s.pc[self] = 0;
        return true;
      default:
        return ConsumeStep(s, self, 2, mutation);
    }
  };
  auto worker_death = [](S& s) { s.worker_dead = 1; };
  if (killable) {
    model.Add("worker", worker_step, worker_death);
  } else {
    model.Add("worker", worker_step);
  }
  model.Add("worker tires", [mutation](S& s) {
    if (s.pc[S::kWorker] != 0 || s.worker_dead != 0) return false;
    if (mutation == Mutation::kBusyWorker || mutation == Mutation::kBusyUnnoticed) return false;
    s.pc[S::kWorker] = 1;
    return true;
  });
  model.Add("worker drain", [](S& s) { return s.memory.Drain(S::kWorker); });

  model.Add("host", [mutation](S& s) {
    const size_t self = S::kHost;
    switch (s.pc[self]) {
      case 0:  // epoll: a death or a signal
        if (s.worker_dead == 1 && mutation != Mutation::kReclaim) {
          s.worker_dead = 2;
          s.pc[self] = 1;
          return true;
        }
        if (s.event == 0) return false;
        s.event = 0;
        s.resume[self] = 0;
        s.pc[self] = 10;
        return true;
      case 1:  // Reclaim: needs_wake, poller (only while it is the dead one's), consumer, look
        s.pc[self] = s.memory.Load(self, S::kPoller) == 2 ? 2 : 4;
        return true;
      case 2:
        if (!s.memory.Fenced(self)) return false;
        s.memory.word(S::kNeedsWake) = 1;
        s.pc[self] = 3;
        return true;
      case 3:
        if (!s.memory.Fenced(self)) return false;
        s.memory.word(S::kPoller) = 0;
        s.pc[self] = 4;
        return true;
      case 4:
        if (!s.memory.Fenced(self)) return false;
        if (s.memory.word(S::kConsumer) == 2) s.memory.word(S::kConsumer) = 0;
        s.resume[self] = 0;
        s.pc[self] = s.memory.Load(self, S::kTail) != s.memory.Load(self, S::kHead) ? 10 : 0;
        return true;
      default:
        return ConsumeStep(s, self, 1, mutation);
    }
  });
  model.Add("host drain", [](S& s) { return s.memory.Drain(S::kHost); });
  return model;
}

constexpr const char* kLostSubmission = "lost wake-up: a submission was never consumed";

Interleave<S>::Report ExploreSubmissions(Mutation mutation, uint32_t kills) {
  S initial;
  initial.memory.word(S::kPoller) = 2;
  return SubmissionModel(mutation, kills > 0)
      .Explore(initial,
               {.terminal =
                    [](const S& s) {
                      if (s.memory.word(S::kHead) != S::kCount) return kLostSubmission;
                      return s.memory.word(S::kConsumer) != 0 ? "the ring stays locked" : "";
                    },
                .invariant =
                    [](const S& s) { return s.memory.word(S::kHead) > s.published ? "consumed before published" : ""; },
                .goal = [](const S& s) { return s.memory.word(S::kHead) == S::kCount; },
                .max_kills = kills});
}

TEST(SubmissionWakeModel, LosesNothing) {
  const auto report = ExploreSubmissions(Mutation::kNone, 0);
  EXPECT_TRUE(report.ok()) << report.Text();
  EXPECT_GT(report.states, 1000u);
}

TEST(SubmissionWakeModel, LosesNothingWhenTheWorkerIsKilledAnywhere) {
  const auto report = ExploreSubmissions(Mutation::kNone, 1);
  EXPECT_TRUE(report.ok()) << report.Text();
}

TEST(SubmissionWakeModel, FindsEachPieceThatIsLeftOut) {
  for (const Mutation mutation : {Mutation::kClientFence, Mutation::kAbandonRecheck, Mutation::kAbandonFence,
                                  Mutation::kReleaseRecheck, Mutation::kStretchBlind}) {
    const auto report = ExploreSubmissions(mutation, 0);
    EXPECT_EQ(report.violation, kLostSubmission) << "mutation " << static_cast<int>(mutation) << ": " << report.Text();
  }
  EXPECT_EQ(ExploreSubmissions(Mutation::kReclaim, 1).violation, kLostSubmission);
}

TEST(SubmissionWakeModel, OneSignalPerStretchIsAsGoodAsOnePerSubmission) {
  const auto report = ExploreSubmissions(Mutation::kSignalAlways, 1);
  EXPECT_TRUE(report.ok()) << report.Text();
}

TEST(SubmissionWakeModel, AClientThatSleepsDoesNotDependOnABusyPoller) {
  const auto report = ExploreSubmissions(Mutation::kBusyWorker, 0);
  EXPECT_TRUE(report.ok()) << report.Text();
  EXPECT_EQ(ExploreSubmissions(Mutation::kBusyUnnoticed, 0).violation, kLostSubmission);
}

// --- completions: two completers, a client that sleeps in between
// --------------------------------------------------------------

struct Completions {
  enum Thread : size_t { kFirst, kSecond, kClient, kThreads };
  enum Word : size_t { kWord0, kWord1, kBits, kSleeping, kWords };

  TsoMemory<kThreads, kWords> memory;
  uint8_t event = 0;
  std::array<uint8_t, kThreads> pc{};
  std::array<uint8_t, 2> delivered{};
  uint8_t told = 0;  // bits the client has taken before it slept
  uint8_t dead = 0;  // completers that died, for the host to repair: bit each
  auto operator<=>(const Completions&) const = default;
};

using C = Completions;

enum class Flaw { kNone, kNoRecheck, kNoFence, kCompleterNoFence, kTakesTheFlag, kNoRepair, kClearsLate };

/// Response word, completion bit, then the look at client_sleeping: what ServerWindow::Complete does. `call` is 0 or 1.
bool CompleteStep(C& s, size_t self, size_t call, Flaw flaw) {
  const auto bit = static_cast<uint8_t>(1u << call);
  switch (s.pc[self]) {
    case 0:  // the CAS to kDone
      if (!s.memory.Fenced(self)) return false;
      s.memory.word(C::kWord0 + call) = 1;
      break;
    case 1:  // fetch_or; without its fence: a look that overtakes it (modelled by swapping the two)
      if (flaw == Flaw::kCompleterNoFence) {
        s.pc[self] = s.memory.Load(self, C::kSleeping) != 0 ? 4 : 5;
        return true;
      }
      if (!s.memory.Fenced(self)) return false;
      s.memory.word(C::kBits) |= bit;
      break;
    case 2:
      if (flaw == Flaw::kTakesTheFlag) {
        if (!s.memory.Fenced(self)) return false;
        const bool slept = s.memory.word(C::kSleeping) != 0;
        s.memory.word(C::kSleeping) = 0;
        s.pc[self] = slept ? 3 : 6;
        return true;
      }
      s.pc[self] = s.memory.Load(self, C::kSleeping) != 0 ? 3 : 6;
      return true;
    case 3:
      s.event = 1;
      s.pc[self] = 6;
      return true;
    case 4:  // flawed order: bit, then signal
      s.memory.word(C::kBits) |= bit;
      s.pc[self] = 3;
      return true;
    case 5:  // flawed order: bit, no signal
      s.memory.word(C::kBits) |= bit;
      s.pc[self] = 6;
      return true;
    default:
      return false;
  }
  ++s.pc[self];
  return true;
}

Interleave<C> CompletionModel(Flaw flaw) {
  Interleave<C> model;
  for (size_t call = 0; call < 2; ++call) {
    model.Add(
        "completer " + std::to_string(call), [call, flaw](C& s) { return CompleteStep(s, call, call, flaw); },
        [call, flaw](C& s) {
          // What is left of it: the host repairs the call by completing it again, from the start.
          if (flaw != Flaw::kNoRepair) s.dead |= static_cast<uint8_t>(1u << call);
        });
    model.Add("host repairs " + std::to_string(call), [call](C& s) {
      if ((s.dead >> call & 1) == 0 || !s.memory.Fenced(call)) return false;
      s.dead &= static_cast<uint8_t>(~(1u << call));
      // Complete() again, as one step: its own hand-over is the completers' above. It sees whatever state was left.
      s.memory.word(C::kWord0 + call) = 1;
      s.memory.word(C::kBits) |= static_cast<uint8_t>(1u << call);
      if (s.memory.word(C::kSleeping) != 0) s.event = 1;
      return true;
    });
  }
  model.Add("client", [flaw](C& s) {
    const size_t self = C::kClient;
    switch (s.pc[self]) {
      case 0: {  // Collect: of a single open call look at its word, else exchange the bits; deliver what the words say
        if (s.delivered[0] != s.delivered[1]) {
          const size_t open = s.delivered[0] != 0 ? 1 : 0;
          if (s.memory.Load(self, C::kWord0 + open) != 0) s.delivered[open] = 1;
          s.pc[self] = s.delivered[open] != 0 ? 9 : 1;
          return true;
        }
        if (!s.memory.Fenced(self)) return false;
        const auto bits = static_cast<uint8_t>(s.memory.word(C::kBits) | std::exchange(s.told, uint8_t{0}));
        s.memory.word(C::kBits) = 0;
        for (size_t call = 0; call < 2; ++call) {
          if ((bits >> call & 1) != 0 && s.memory.word(C::kWord0 + call) != 0) s.delivered[call] = 1;
        }
        s.pc[self] = s.delivered[0] != 0 && s.delivered[1] != 0 ? 9 : 1;
        return true;
      }
      case 1:  // PrepareToSleep: client_sleeping = 1
        if (!s.memory.Store(self, C::kSleeping, 1)) return false;
        s.pc[self] = 2;
        return true;
      case 2:
        if (flaw != Flaw::kNoFence && !s.memory.Fenced(self)) return false;
        s.pc[self] = flaw == Flaw::kNoRecheck ? 4 : 3;
        return true;
      case 3:  // re-check: bits that tell of what was seen without them are no reason to stay awake
        s.pc[self] = s.memory.Load(self, C::kBits) != 0 ? 10 : 4;
        return true;
      case 10: {
        if (!s.memory.Fenced(self)) return false;
        s.told |= std::exchange(s.memory.word(C::kBits), uint8_t{0});
        for (size_t call = 0; call < 2; ++call) {
          const auto bit = static_cast<uint8_t>(1u << call);
          if (s.delivered[call] != 0 || s.memory.word(C::kWord0 + call) == 0) s.told &= static_cast<uint8_t>(~bit);
        }
        s.pc[self] = s.told != 0 ? 5 : 4;
        return true;
      }
      case 4:  // epoll on the completion event
        if (s.event == 0) return false;
        s.pc[self] = 5;
        return true;
      case 5:  // Awake: client_sleeping = 0, then the event is read, then Collect
        if (flaw == Flaw::kClearsLate) {
          s.pc[self] = 7;
          return true;
        }
        if (!s.memory.Store(self, C::kSleeping, 0)) return false;
        s.pc[self] = 6;
        return true;
      case 6:
        s.event = 0;
        s.pc[self] = 0;
        return true;
      case 7: {  // flawed: collect, then clear the event that may stand for a later bit
        if (!s.memory.Fenced(self)) return false;
        const uint8_t bits = s.memory.word(C::kBits);
        s.memory.word(C::kBits) = 0;
        for (size_t call = 0; call < 2; ++call) {
          if ((bits >> call & 1) != 0) s.delivered[call] = 1;
        }
        s.pc[self] = 8;
        return true;
      }
      case 8:
        s.event = 0;
        s.pc[self] = s.delivered[0] != 0 && s.delivered[1] != 0 ? 9 : 4;
        return true;
      default:
        return false;
    }
  });
  for (size_t thread = 0; thread < C::kThreads; ++thread) {
    model.Add("drain " + std::to_string(thread), [thread](C& s) { return s.memory.Drain(thread); });
  }
  return model;
}

constexpr const char* kLostCompletion = "lost wake-up: a completion was never collected";

Interleave<C>::Report ExploreCompletions(Flaw flaw, uint32_t kills) {
  auto delivered = [](const C& s) { return s.delivered[0] != 0 && s.delivered[1] != 0; };
  return CompletionModel(flaw).Explore(
      {}, {.terminal = [delivered](const C& s) { return delivered(s) ? "" : kLostCompletion; },
           .goal = delivered,
           .max_kills = kills});
}

TEST(CompletionWakeModel, LosesNothing) {
  const auto report = ExploreCompletions(Flaw::kNone, 0);
  EXPECT_TRUE(report.ok()) << report.Text();
  EXPECT_GT(report.states, 500u);
}

TEST(CompletionWakeModel, LosesNothingWhenCompletersAreKilledAnywhere) {
  const auto report = ExploreCompletions(Flaw::kNone, 2);
  EXPECT_TRUE(report.ok()) << report.Text();
}

TEST(CompletionWakeModel, FindsEachPieceThatIsLeftOut) {
  for (const Flaw flaw : {Flaw::kNoRecheck, Flaw::kNoFence, Flaw::kCompleterNoFence, Flaw::kClearsLate}) {
    const auto report = ExploreCompletions(flaw, 0);
    EXPECT_EQ(report.violation, kLostCompletion) << "flaw " << static_cast<int>(flaw) << ": " << report.Text();
  }
  EXPECT_EQ(ExploreCompletions(Flaw::kNoRepair, 1).violation, kLostCompletion);
}

TEST(CompletionWakeModel, ACompleterMustNotTakeTheFlag) {
  // Taking client_sleeping saves a write per further completion, but a completer killed between taking it and the write
  // takes the wake-up with it, and the repair finds nobody sleeping.
  EXPECT_TRUE(ExploreCompletions(Flaw::kTakesTheFlag, 0).ok());
  EXPECT_EQ(ExploreCompletions(Flaw::kTakesTheFlag, 1).violation, kLostCompletion);
}

}  // namespace
}  // namespace praas::window
