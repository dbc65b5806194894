// Every interleaving of the hand-over of calls from a sender to two workers that poll, sleep and get killed, with the
// steps of dispatch/dispatcher.cc and dispatch/reclaim.cc: one step per atomic access.

#include <gtest/gtest.h>

#include <array>
#include <compare>
#include <cstdint>
#include <string>

#include "support/interleave.h"

namespace {

using praas::testing::Interleave;

constexpr uint8_t kEntries = 2;
constexpr uint8_t kWorkers = 2;
constexpr uint8_t kNobody = 0xff;

enum EntryState : uint8_t { kFree, kQueued, kClaimed, kDone };

// Worker program counters.
enum : uint8_t { kPoll, kLookCredit, kLookTable, kClaimBell, kRun, kWithdraw, kAnnounce, kRecheck, kBlocked };
// Sender program counters.
enum : uint8_t { kPublish, kTryCredit, kSetBit, kReadSleepers, kRing, kSetBitLate, kSent };

struct Worker {
  uint8_t pc = kPoll;
  uint8_t entry = 0;   // bell in hand, or entry it runs
  uint8_t cursor = 0;  // of the table scan
  uint8_t dead = 0;
  auto operator<=>(const Worker&) const = default;
};

struct Post {  // a posting in progress: the sender's, or the host's after a death
  uint8_t pc = kPublish;
  uint8_t entry = 0;
  uint8_t cursor = 0;
  auto operator<=>(const Post&) const = default;
};

struct State {
  std::array<uint8_t, kEntries> entry{};
  std::array<uint8_t, kEntries> owner{kNobody, kNobody};
  std::array<uint8_t, kEntries> queued{};
  std::array<uint8_t, kEntries> runs{};
  std::array<uint8_t, kWorkers> credit{};  // 0 none, 1 idle, entry + 2
  std::array<uint8_t, kWorkers> hot{};
  std::array<uint8_t, kWorkers> sleeper{};
  uint8_t bell = kNobody;  // a doorbell of depth one: the second bell is dropped
  std::array<Worker, kWorkers> worker{};
  Post sender{};
  Post host{};
  uint8_t host_victim = 0;
  uint8_t host_pc = 0;
  auto operator<=>(const State&) const = default;
};

struct Mutation {
  bool recheck_after_announce = true;
  bool bit_before_sleepers = true;
  bool ring_after_death = true;
  bool serve_withdrawn_credit = true;
};

bool Claim(State& s, uint8_t w, uint8_t e) {
  if (s.entry[e] != kQueued) return false;
  s.entry[e] = kClaimed;
  s.owner[e] = w;
  return true;
}

/// Dispatcher::Ring from the queued bit on. `host` posts have no credit step.
bool StepRing(State& s, Post& post, const Mutation& mutation, uint8_t finished) {
  switch (post.pc) {
    case kSetBit:
      if (mutation.bit_before_sleepers) s.queued[post.entry] = 1;
      post.pc = kReadSleepers;
      post.cursor = 0;
      return true;
    case kReadSleepers: {
      bool any = false;
      for (uint8_t w = 0; w < kWorkers; ++w) any = any || s.sleeper[w] != 0;  // one word in the real thing
      post.pc = any                            ? static_cast<uint8_t>(kRing)
                : mutation.bit_before_sleepers ? finished
                                               : static_cast<uint8_t>(kSetBitLate);
      return true;
    }
    case kRing:
      if (s.bell == kNobody) s.bell = post.entry;
      post.pc = mutation.bit_before_sleepers ? finished : static_cast<uint8_t>(kSetBitLate);
      return true;
    case kSetBitLate:  // the mutated order
      s.queued[post.entry] = 1;
      post.pc = finished;
      return true;
    default:
      return false;
  }
}

bool StepSender(State& s, const Mutation& mutation) {
  Post& post = s.sender;
  if (post.pc == kSent) {
    if (post.entry + 1 == kEntries) return false;
    post = Post{.pc = kPublish, .entry = static_cast<uint8_t>(post.entry + 1)};
  }
  switch (post.pc) {
    case kPublish:
      s.entry[post.entry] = kQueued;
      post.pc = kTryCredit;
      post.cursor = 0;
      return true;
    case kTryCredit: {
      const uint8_t w = post.cursor;
      if (s.hot[w] != 0 && s.credit[w] == 1) {
        s.credit[w] = static_cast<uint8_t>(post.entry + 2);
        post.pc = kSent;
        return true;
      }
      if (++post.cursor == kWorkers) post.pc = kSetBit;
      return true;
    }
    default:
      return StepRing(s, post, mutation, kSent);
  }
}

bool StepWorker(State& s, uint8_t w, const Mutation& mutation) {
  Worker& me = s.worker[w];
  switch (me.pc) {
    case kPoll:  // OfferCredit
      s.hot[w] = 1;
      if (s.credit[w] == 0) s.credit[w] = 1;
      me.pc = kLookCredit;
      return true;
    case kLookCredit:  // TakeCredited
      if (s.credit[w] >= 2) {
        me.entry = static_cast<uint8_t>(s.credit[w] - 2);
        s.credit[w] = 0;
        me.pc = kClaimBell;
      } else {
        me.pc = kLookTable;
        me.cursor = 0;
      }
      return true;
    case kLookTable:  // ClaimAny: clear the bit, then claim
      if (me.cursor == kEntries) {
        me.pc = kWithdraw;
        me.cursor = 0;
        return true;
      }
      if (s.queued[me.cursor] != 0) {
        s.queued[me.cursor] = 0;
        me.entry = me.cursor;
        me.pc = kClaimBell;
        return true;
      }
      ++me.cursor;
      return true;
    case kClaimBell:
      me.pc = Claim(s, w, me.entry) ? kRun : kPoll;
      return true;
    case kRun:
      if (s.entry[me.entry] == kClaimed && s.owner[me.entry] == w) {
        s.entry[me.entry] = kDone;
        ++s.runs[me.entry];
      }
      me.pc = kPoll;
      return true;
    case kWithdraw:
      s.hot[w] = 0;
      if (s.credit[w] >= 2 && mutation.serve_withdrawn_credit) {
        me.entry = static_cast<uint8_t>(s.credit[w] - 2);
        me.pc = kClaimBell;
      } else {
        me.pc = kAnnounce;
      }
      s.credit[w] = 0;
      return true;
    case kAnnounce:
      s.sleeper[w] = 1;
      me.pc = mutation.recheck_after_announce ? kRecheck : kBlocked;
      me.cursor = 0;
      return true;
    case kRecheck:
      if (me.cursor == kEntries) {
        me.pc = kBlocked;
        return true;
      }
      if (s.queued[me.cursor] != 0) {
        s.sleeper[w] = 0;
        me.pc = kPoll;
        return true;
      }
      ++me.cursor;
      return true;
    case kBlocked:  // mq_receive
      if (s.bell == kNobody) return false;
      me.entry = s.bell;
      s.bell = kNobody;
      s.sleeper[w] = 0;
      me.pc = kClaimBell;
      return true;
    default:
      return false;
  }
}

/// A worker between kLookTable and kWithdraw may also go on polling: the hot time is not over.
bool StepStayHot(State& s, uint8_t w) {
  Worker& me = s.worker[w];
  if (me.pc != kWithdraw) return false;
  if (s.credit[w] < 2) return false;  // nothing to find: polling on without progress is no step
  me.pc = kPoll;
  return true;
}

/// Dispatcher::ReclaimParticipant of the first dead worker.
bool StepHost(State& s, const Mutation& mutation) {
  enum : uint8_t { kIdle, kEntry, kRinging, kFinished };
  switch (s.host_pc) {
    case kIdle:
      for (uint8_t w = 0; w < kWorkers; ++w) {
        if (s.worker[w].dead == 0) continue;
        s.host_victim = w;
        s.hot[w] = s.sleeper[w] = s.credit[w] = 0;
        s.host_pc = kEntry;
        s.host = Post{.pc = kSetBit};
        return true;
      }
      return false;
    case kEntry:
      if (s.host.entry == kEntries) {
        s.host_pc = kFinished;
        return true;
      }
      if (s.entry[s.host.entry] == kClaimed && s.owner[s.host.entry] == s.host_victim) {
        s.entry[s.host.entry] = kDone;  // answered with ERR_WORKER_CRASHED
        ++s.host.entry;
        return true;
      }
      if (s.entry[s.host.entry] == kQueued && mutation.ring_after_death) {
        s.host.pc = kSetBit;
        s.host_pc = kRinging;
        return true;
      }
      ++s.host.entry;
      return true;
    case kRinging:
      if (StepRing(s, s.host, mutation, kSent)) return true;
      ++s.host.entry;
      s.host_pc = kEntry;
      return true;
    default:
      return false;
  }
}

Interleave<State>::Report Explore(const Mutation& mutation, uint32_t max_kills) {
  Interleave<State> model;
  model.Add("sender", [&](State& s) { return StepSender(s, mutation); });
  for (uint8_t w = 0; w < kWorkers; ++w) {
    // Only one of two workers is killed: with both dead nobody is left to run anything.
    Interleave<State>::Die die;
    if (w == 0) die = [](State& s) { s.worker[0].dead = 1; };
    model.Add(
        "worker " + std::to_string(w),
        [w, &mutation](State& s) { return s.worker[w].dead == 0 && StepWorker(s, w, mutation); }, die);
    model.Add("worker " + std::to_string(w) + " stays hot",
              [w](State& s) { return s.worker[w].dead == 0 && StepStayHot(s, w); });
  }
  model.Add("host", [&](State& s) { return StepHost(s, mutation); });

  return model.Explore(State{}, {.terminal = [](const State& s) -> std::string {
                                   for (uint8_t e = 0; e < kEntries; ++e) {
                                     if (s.entry[e] != kDone) return "call " + std::to_string(e) + " is left";
                                   }
                                   return "";
                                 },
                                 .invariant = [](const State& s) -> std::string {
                                   for (uint8_t e = 0; e < kEntries; ++e) {
                                     if (s.runs[e] > 1) return "call " + std::to_string(e) + " ran twice";
                                   }
                                   return "";
                                 },
                                 .goal =
                                     [](const State& s) {
                                       for (uint8_t e = 0; e < kEntries; ++e) {
                                         if (s.entry[e] != kDone) return false;
                                       }
                                       return true;
                                     },
                                 .max_kills = max_kills});
}

TEST(HandOver, LosesNoCall) {
  const auto report = Explore({}, 0);
  EXPECT_TRUE(report.ok()) << report.Text();
  EXPECT_GT(report.terminals, 0u);
}

TEST(HandOver, LosesNoCallWhenAWorkerIsKilledAnywhere) {
  const auto report = Explore({}, 1);
  EXPECT_TRUE(report.ok()) << report.Text();
}

TEST(HandOver, NeedsTheSecondLookBeforeSleeping) {
  EXPECT_FALSE(Explore({.recheck_after_announce = false}, 0).violation.empty());
}

TEST(HandOver, NeedsTheBitBeforeTheSleepersAreRead) {
  EXPECT_FALSE(Explore({.bit_before_sleepers = false}, 0).violation.empty());
}

TEST(HandOver, NeedsTheBellAfterADeath) { EXPECT_FALSE(Explore({.ring_after_death = false}, 1).violation.empty()); }

TEST(HandOver, NeedsToServeAWithdrawnCredit) {
  EXPECT_FALSE(Explore({.serve_withdrawn_credit = false}, 0).violation.empty());
}

}  // namespace
