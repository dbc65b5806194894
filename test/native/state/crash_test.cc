#include <sys/wait.h>

#include <functional>
#include <random>

#include "../publication/block.h"
#include "../support/child.h"
#include "../support/stepped.h"
#include "store_fixture.h"

/// Death at any instruction.
namespace praas::test {
namespace {

using Mode = state::StateStore::LockMode;

/// Single-steps a child through one operation, kills it after a chosen number of instructions, and looks at what it
/// left: the segment must be sound, and every key hold its value from before or after.
class InstructionTest : public StoreTest {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "most instructions would be ThreadSanitizer's, and a child of one thread has no races";
#endif
  }

  static constexpr uint16_t kVictim = 1;
  // Instructions to step through per test, at some 5 µs each. A kill is a fork and some thousand steps, so the
  // instructions are sampled; every run samples others.
  static constexpr uint64_t kStepBudget = 30'000;

  /// Instructions executed before the operation was over or `limit` was reached; the child is gone in any case. nullopt
  /// when this machine does not let us trace.
  std::optional<uint64_t> RunAndKill(const std::function<void(Participant&)>& prepare,
                                     const std::function<void(Participant&)>& operation, uint64_t limit) {
    std::optional<Participant> worker;
    Stepped child([&] { prepare(worker.emplace(segment(), kVictim, &area())); }, [&] { operation(*worker); });
    if (!child.alive()) return std::nullopt;
    uint64_t steps = 0;
    while (steps < limit) {
      child.Step();
      if (!child.alive()) break;
      ++steps;
    }
    return steps;
  }

  /// `reset` brings the segment back to where `prepare` and `operation` start from; `verify` looks at it after a death.
  void KillEverywhere(const std::function<void()>& reset, const std::function<void(Participant&)>& prepare,
                      const std::function<void(Participant&)>& operation, const std::function<void()>& verify) {
    reset();
    const std::optional<uint64_t> total = RunAndKill(prepare, operation, UINT64_MAX);
    if (!total) GTEST_SKIP() << "ptrace is not permitted here";
    ASSERT_TRUE(store().ReclaimParticipant(kVictim, Soon()).ok());
    const uint64_t seed = std::random_device{}();
    std::mt19937_64 random(seed);
    const uint64_t samples = std::clamp<uint64_t>(2 * kStepBudget / std::max<uint64_t>(1, *total), 4, 60);
    for (uint64_t i = 0; i < samples; ++i) {
      reset();
      const uint64_t first = *total * i / samples;
      const uint64_t limit = first + random() % std::max<uint64_t>(1, *total / samples);
      SCOPED_TRACE("killed after " + std::to_string(limit) + " of " + std::to_string(*total) + " instructions, seed " +
                   std::to_string(seed));
      ASSERT_TRUE(RunAndKill(prepare, operation, limit).has_value());
      if (before_reclaim_) before_reclaim_();
      const Status status = store().ReclaimParticipant(kVictim, Soon());
      ASSERT_TRUE(status.ok()) << status.message();
      ExpectSound();
      verify();
      if (HasFailure()) return;
    }
  }

  void Remove(std::string_view key) { ASSERT_TRUE(store().Delete(key, std::nullopt, Soon()).ok()); }
  void ExpectOneOf(std::string_view key, std::initializer_list<std::optional<std::string>> allowed) {
    const std::optional<std::string> value = Get(key);
    EXPECT_TRUE(std::find(allowed.begin(), allowed.end(), value) != allowed.end())
        << key << " is " << (value ? value->substr(0, 40) : "absent");
    EXPECT_EQ(store().key_count(), Get(key) ? 2u : 1u);
    EXPECT_EQ(Get("bystander"), "untouched");
    ExpectBlocks(Get(key) ? 2 : 1);
    EXPECT_EQ(records().head().pins.used.load(), 0u);
  }
  static void Nothing(Participant&) {}

  /// What a reader without a store gets of "key": nullopt when it has to ask.
  std::optional<std::optional<std::string>> Published() {
    const Result<std::optional<publication::Location>> location = store().Locate("key", Soon());
    if (!location.ok() || !location.value()) return std::nullopt;
    const publication::Got got = publication::Mapped(area().memory(), *location.value());
    EXPECT_NE(got.verdict, publication::Verdict::kMoved);
    if (got.verdict != publication::Verdict::kRead) return std::nullopt;
    return got.absent ? std::nullopt : std::optional(got.value);
  }
  /// A publication says at any time what the state says, or that one should ask; after the host has looked it says it.
  void KillWhilePublished(const std::function<void()>& reset, const std::function<void(Participant&)>& operation) {
    before_reclaim_ = [this] {
      const publication::Got got = publication::Mapped(area().memory(), where_);
      // Before anybody gets to see the state: what is read must be what the state will be found to be.
      before_.reset();
      if (got.verdict != publication::Verdict::kRead) return;
      before_.emplace(got.absent ? std::nullopt : std::optional(got.value));
    };
    KillEverywhere(
        [&] {
          reset();
          where_ = store().Locate("key", Soon()).value().value();
        },
        Nothing, operation,
        [&] {
          const std::optional<std::string> truth = Get("key");
          EXPECT_EQ(Published(), std::optional<std::optional<std::string>>(std::in_place, truth));
          if (before_) {
            EXPECT_EQ(*before_, truth);
          }
          EXPECT_EQ(records().head().pins.used.load(), 0u);
        });
  }

  std::function<void()> before_reclaim_;
  publication::Location where_;
  std::optional<std::optional<std::string>> before_;
};

TEST_F(InstructionTest, Insert) {
  Set("bystander", "untouched");
  KillEverywhere(
      [&] { Remove("key"); }, Nothing,
      [](Participant& worker) { (void)worker.store.Set("key", AsBytes("new"), {.deadline_ns = Soon()}).ok(); },
      [&] {
        ExpectOneOf("key", {std::nullopt, "new"});
      });
}

TEST_F(InstructionTest, Replace) {
  Set("bystander", "untouched");
  KillEverywhere(
      [&] { Set("key", "old"); }, Nothing,
      [](Participant& worker) { (void)worker.store.Set("key", AsBytes("new"), {.deadline_ns = Soon()}).ok(); },
      [&] {
        ExpectOneOf("key", {"old", "new"});
      });
}

TEST_F(InstructionTest, DeleteKey) {
  Set("bystander", "untouched");
  KillEverywhere([&] { Set("key", "old"); }, Nothing,
                 [](Participant& worker) { (void)worker.store.Delete("key", std::nullopt, Soon()).ok(); },
                 [&] {
                   ExpectOneOf("key", {"old", std::nullopt});
                 });
}

TEST_F(InstructionTest, AppendInPlace) {
  Set("bystander", "untouched");
  KillEverywhere([&] { Remove("key"), Append("key", "old"), Append("key", "+"); }, Nothing,
                 [](Participant& worker) { (void)worker.store.Append("key", AsBytes("new"), Soon()).ok(); },
                 [&] {
                   ExpectOneOf("key", {"old+", "old+new"});
                 });
}

TEST_F(InstructionTest, LargeAppendInPlace) {
  Set("bystander", "untouched");
  const std::string old(5'000, 'o');
  const std::string more(4'100, 'n');
  KillEverywhere([&] { Remove("key"), Append("key", old), Append("key", "+"); }, Nothing,
                 [&](Participant& worker) { (void)worker.store.Append("key", AsBytes(more), Soon()).ok(); },
                 [&] {
                   ExpectOneOf("key", {old + "+", old + "+" + more});
                   Append("key", more);  // nobody has the room behind it any more
                   EXPECT_TRUE(Get("key")->ends_with(more));
                 });
}

TEST_F(InstructionTest, AppendToANewBlock) {
  Set("bystander", "untouched");
  const std::string old(4'100, 'o');
  const std::string more(200, 'n');
  KillEverywhere([&] { Set("key", old); }, Nothing,
                 [&](Participant& worker) { (void)worker.store.Append("key", AsBytes(more), Soon()).ok(); },
                 [&] {
                   ExpectOneOf("key", {old, old + more});
                 });
}

TEST_F(InstructionTest, MakeAnArray) {
  Set("bystander", "untouched");
  KillEverywhere([&] { Remove("key"); }, Nothing,
                 [](Participant& worker) { (void)worker.store.Array("key", 2, 300, Soon()).ok(); },
                 [&] {
                   ExpectOneOf("key", {std::nullopt, std::string(300, '\0')});
                 });
}

TEST_F(InstructionTest, UnpinADeletedValue) {
  Set("bystander", "untouched");
  uint32_t pin = 0;
  KillEverywhere([&] { Set("key", "old"); },
                 [&](Participant& worker) {
                   Result<state::Pinned> pinned = worker.store.Pin("key", Soon());
                   if (!pinned.ok() || !worker.store.Delete("key", std::nullopt, Soon()).ok()) ::_exit(8);
                   pin = pinned->pin;
                 },
                 [&](Participant& worker) { worker.store.Unpin(pin); }, [&] { ExpectOneOf("key", {std::nullopt}); });
}

TEST_F(InstructionTest, PinAndRead) {
  Set("bystander", "untouched");
  const std::string value(4'100, 'v');
  KillEverywhere([&] { Set("key", value); }, Nothing,
                 [](Participant& worker) { (void)worker.store.Get("key", Soon()).ok(); },
                 [&] { ExpectOneOf("key", {value}); });
}

TEST_F(InstructionTest, LockAndUnlock) {
  bool told = false;
  store().OnGrant([&](uint16_t participant) { told |= participant == 0; });
  KillEverywhere(
      [&] {
        ASSERT_TRUE(store().UnlockAll({0, 1}, Soon()).ok());
        told = false;
      },
      [&](Participant& worker) {
        if (!worker.store.Lock("lock", Mode::kWrite, {kVictim, 1}, Soon()).ok()) ::_exit(8);
        // Another participant waits behind it; its process is this test's.
        if (!worker.store.Lock("lock", Mode::kRead, {0, 1}, Soon()).ok()) ::_exit(8);
      },
      [](Participant& worker) {
        (void)worker.store.UnlockAll({kVictim, 1}, Soon()).ok();
        (void)worker.store.Lock("lock", Mode::kWrite, {kVictim, 2}, Soon()).ok();
        (void)worker.store.Lock("another", Mode::kWrite, {kVictim, 2}, Soon()).ok();
      },
      [&] {
        EXPECT_EQ(records().head().locks.used.load(), 1u);
        EXPECT_EQ(records().head().holders.used.load(), 1u);
        EXPECT_TRUE(told);
      });
}

TEST_F(InstructionTest, SetPublished) {
  ASSERT_TRUE(store().Publish("key", std::nullopt, Soon()).ok());
  KillWhilePublished(
      [&] { Set("key", "old"); },
      [](Participant& worker) { (void)worker.store.Set("key", AsBytes("new"), {.deadline_ns = Soon()}).ok(); });
}

TEST_F(InstructionTest, SetPublishedLarge) {
  const std::string old(5'000, 'o');
  const std::string fresh(6'000, 'n');
  ASSERT_TRUE(store().Publish("key", 10'000, Soon()).ok());
  KillWhilePublished(
      [&] { Set("key", old); },
      [&](Participant& worker) { (void)worker.store.Set("key", AsBytes(fresh), {.deadline_ns = Soon()}).ok(); });
}

TEST_F(InstructionTest, AppendToPublished) {
  ASSERT_TRUE(store().Publish("key", std::nullopt, Soon()).ok());
  KillWhilePublished([&] { Remove("key"), Append("key", "old"), Append("key", "+"); },
                     [](Participant& worker) { (void)worker.store.Append("key", AsBytes("new"), Soon()).ok(); });
}

TEST_F(InstructionTest, DeletePublished) {
  ASSERT_TRUE(store().Publish("key", std::nullopt, Soon()).ok());
  KillWhilePublished([&] { Set("key", "old"); },
                     [](Participant& worker) { (void)worker.store.Delete("key", std::nullopt, Soon()).ok(); });
}

TEST_F(InstructionTest, PublishAndUnpublish) {
  Set("bystander", "untouched");
  Set("key", "value");
  ASSERT_TRUE(store().Publish("bystander", std::nullopt, Soon()).ok());
  KillEverywhere([&] { ASSERT_TRUE(store().Unpublish("key", Soon()).ok()); }, Nothing,
                 [](Participant& worker) {
                   (void)worker.store.Publish("key", std::nullopt, Soon()).ok();
                   (void)worker.store.Publish("key", 5'000, Soon()).ok();
                   (void)worker.store.Unpublish("key", Soon()).ok();
                 },
                 [&] {
                   const auto bystander = store().Locate("bystander", Soon()).value().value();
                   EXPECT_EQ(publication::Mapped(area().memory(), bystander).value, "untouched");
                   if (store().Locate("key", Soon()).value()) {
                     EXPECT_EQ(Published(), std::optional<std::optional<std::string>>("value"));
                   }
                   ASSERT_TRUE(store().Publish("key", 9'000, Soon()).ok());
                   EXPECT_EQ(Published(), std::optional<std::optional<std::string>>("value"));
                 });
}

}  // namespace
}  // namespace praas::test
