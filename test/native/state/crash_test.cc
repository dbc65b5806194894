#include <functional>
#include <optional>
#include <random>

#include "../publication/block.h"
#include "../support/child.h"
#include "../support/single_step.h"
#include "segment/arena_head.h"
#include "store_fixture.h"

/// Death at any instruction.
namespace praas::test {
namespace {

using Mode = state::StateStore::LockMode;

/// A child is led through one operation, instruction by instruction. After each change it makes, a twin of the store
/// becomes what its death would leave: that must be sound, and every key hold its value from before or after. Then some
/// children are really killed.
class InstructionTest : public StoreTest {
 protected:
  static constexpr uint16_t kVictim = 1;

  /// `reset` brings the store back to where `prepare` and `operation` start from; `verify` looks at it after a death.
  void KillEverywhere(const std::function<void()>& reset, const std::function<void(Participant&)>& prepare,
                      const std::function<void(Participant&)>& operation, const std::function<void()>& verify) {
    std::optional<Participant> worker;  // the child's
    const auto begin = [&] { prepare(worker.emplace(segment(), kVictim, &area())); };
    const auto act = [&] { operation(*worker); };
    const auto repair_and_verify = [&] {
      if (before_reclaim_) before_reclaim_();
      const Status status = Reclaimed();
      ASSERT_TRUE(status.ok()) << status.message();
      ExpectSound();
      verify();
    };
    LookAtEveryChange({
        .objects = {{own_.segment.fd(), BytesOf(own_.segment), twin_.segment.fd(), BytesOf(twin_.segment)},
                    {own_.area.fd(), own_.area.memory(), twin_.area.fd(), twin_.area.memory()}},
        .mutexes = {&state::Records(twin_.segment).head().mutex,
                    const_cast<segment::RobustMutex*>(&twin_.host->arena.mutex())},
        .reset =
            [&] {
              ASSERT_TRUE(Reclaimed().ok());
              reset();
            },
        .prepare = begin,
        .operation = act,
        .look =
            [&] {
              seen_ = &twin_;
              repair_and_verify();
              seen_ = &own_;
            },
    });
    if (IsSkipped() || HasFailure() || kills_ == 0) return;
    ASSERT_TRUE(Reclaimed().ok());
    const segment::Header& header = own_.segment.header();
    KillAtEveryChange({
        .watched =
            [&] {
              return Parts{BytesOf(own_.segment).subspan(header.state_head, sizeof(state::StateHead)),
                           BytesOf(own_.segment).subspan(header.arena_heads[0], sizeof(segment::ArenaHead))};
            },
        .reset = reset,
        .prepare = begin,
        .operation = act,
        .verify = [&](bool) { repair_and_verify(); },
        .most = kills_,
    });
  }
  static std::span<std::byte> BytesOf(const segment::Segment& segment) {
    return {segment.base(), segment.header().segment_bytes};
  }
  Status Reclaimed() { return store().ReclaimParticipant(kVictim, Soon()); }

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

  TestStore twin_{kMemoryBytes};
  uint64_t kills_ = kMostKills > 1 ? 3 : 0;
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
  for (TestStore* either : {&own_, &twin_}) {
    either->host->store.OnGrant([&](uint16_t participant) { told |= participant == 0; });
  }
  before_reclaim_ = [&] { told = false; };
  KillEverywhere(
      [&] {
        ASSERT_TRUE(store().UnlockAll({0, 1}, Soon()).ok());
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

TEST_F(InstructionTest, CompareAndSet) {
  Set("bystander", "untouched");
  uint64_t version = 0;
  KillEverywhere([&] { version = Set("key", "old"); }, Nothing,
                 [&](Participant& worker) {
                   (void)worker.store.Set("key", AsBytes("new"), {.if_version = version, .deadline_ns = Soon()}).ok();
                 },
                 [&] {
                   ExpectOneOf("key", {"old", "new"});
                   // What was compared holds for the next one: it wins exactly if the victim did not.
                   const bool won = Get("key") == "new";
                   const auto again =
                       store().Set("key", AsBytes("other"), {.if_version = version, .deadline_ns = Soon()});
                   EXPECT_EQ(CodeOf(again), won ? Code::kStateVersion : Code::kOk);
                 });
}

TEST_F(InstructionTest, CompareAndDelete) {
  Set("bystander", "untouched");
  uint64_t version = 0;
  KillEverywhere([&] { version = Set("key", "old"); }, Nothing,
                 [&](Participant& worker) { (void)worker.store.Delete("key", version, Soon()).ok(); },
                 [&] {
                   ExpectOneOf("key", {"old", std::nullopt});
                   const bool deleted = !Get("key").has_value();
                   EXPECT_EQ(store().Delete("key", version, Soon()).value(), !deleted);
                 });
}

TEST_F(InstructionTest, Patch) {
  Set("bystander", "untouched");
  KillEverywhere([&] { Set("key", "abcdef"); }, Nothing,
                 [](Participant& worker) {
                   (void)worker.store.Set("key", AsBytes("XYZ"), {.offset = 2, .deadline_ns = Soon()}).ok();
                 },
                 [&] {
                   ExpectOneOf("key", {"abcdef", "abXYZf"});
                 });
}

TEST_F(InstructionTest, GrantToAnother) {
  bool told = false;
  for (TestStore* either : {&own_, &twin_}) {
    either->host->store.OnGrant([&](uint16_t participant) { told |= participant == 0; });
  }
  before_reclaim_ = [&] { told = false; };
  uint32_t held = 0;
  uint32_t waits = 0;
  KillEverywhere(
      [&] {
        ASSERT_TRUE(store().UnlockAll({0, 1}, Soon()).ok());
      },
      [&](Participant& worker) {
        const auto mine = worker.store.Lock("lock", Mode::kWrite, {kVictim, 1}, Soon());
        const auto others = worker.store.Lock("lock", Mode::kWrite, {0, 1}, Soon());
        if (!mine.ok() || !mine->granted || !others.ok() || others->granted) ::_exit(8);
        held = mine->holder;
      },
      [&](Participant& worker) { (void)worker.store.Unlock(held, Soon()).ok(); },
      [&] {
        EXPECT_TRUE(told) << "whoever waited has to be told, whether the victim came to do it or not";
        EXPECT_EQ(records().head().locks.used.load(), 1u);
        EXPECT_EQ(records().head().holders.used.load(), 1u);
        ASSERT_TRUE(store().UnlockAll({0, 1}, Soon()).ok());
        const auto next = store().Lock("lock", Mode::kWrite, {0, 1}, Soon());
        ASSERT_TRUE(next.ok() && next->granted);
        waits = next->holder;
        EXPECT_TRUE(store().Unlock(waits, Soon()).ok());
      });
}

/// Leaves everything a participant can leave.
void LeaveEverything(const segment::Segment& segment, uint16_t dead) {
  static Participant* corpse;  // never destroyed: it died
  corpse = new Participant(segment, dead);
  if (!corpse->store.Pin("key", Soon()).ok() || !corpse->store.Delete("key", std::nullopt, Soon()).ok() ||
      !corpse->store.Lock("lock", Mode::kWrite, {dead, 1}, Soon()).ok() ||
      !corpse->store.Lock("lock", Mode::kRead, {dead, 2}, Soon()).ok() ||
      !corpse->arena.Allocate(300, {segment::BlockOwner::Kind::kParticipant, dead, 0}, Soon()).ok()) {
    ::_exit(9);
  }
}

TEST_F(InstructionTest, ReclaimOfAnother) {
  constexpr uint16_t kDead = 2;
  Set("bystander", "untouched");
  before_reclaim_ = [&] { ASSERT_TRUE(store().ReclaimParticipant(kDead, Soon()).ok()); };
  KillEverywhere(
      [&] {
        ASSERT_TRUE(store().ReclaimParticipant(kDead, Soon()).ok());
        Set("key", "value");
      },
      [&](Participant&) { LeaveEverything(segment(), kDead); },
      [](Participant& worker) { (void)worker.store.ReclaimParticipant(kDead, Soon()).ok(); },
      [&] {
        ExpectOneOf("key", {std::nullopt});
        EXPECT_EQ(records().head().locks.used.load(), 0u);
        EXPECT_EQ(records().head().holders.used.load(), 0u);
      });
}

TEST_F(InstructionTest, RepairByTheNextHost) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "a repair has too many instructions under this sanitizer";
#endif
  constexpr uint16_t kDead = 2;
  kills_ = 0;  // twice as long, and what a new host does has nothing to do with mutexes of dead owners
  Set("bystander", "untouched");
  Append("log", "text");
  ASSERT_TRUE(store().Publish("bystander", std::nullopt, Soon()).ok());
  const auto repair = [](Participant& host) {
    return host.arena.Recover().ok() && host.store.RepairAfterHost(Soon()).ok() && host.store.RenewAll(Soon()).ok();
  };
  before_reclaim_ = [&] { ASSERT_TRUE(repair(*seen_->host)); };
  KillEverywhere(
      [&] {
        ASSERT_TRUE(store().ReclaimParticipant(kDead, Soon()).ok());
        Set("key", "value");
      },
      [&](Participant&) { LeaveEverything(segment(), kDead); },
      [&](Participant& host) {
        if (!repair(host)) ::_exit(8);
      },
      [&] {
        EXPECT_EQ(Get("log"), "text");
        EXPECT_EQ(Get("bystander"), "untouched");
        EXPECT_EQ(Get("key"), std::nullopt);
        ExpectBlocks(2);
        EXPECT_EQ(records().head().pins.used.load(), 0u);
        EXPECT_EQ(records().head().locks.used.load(), 0u);
        EXPECT_EQ(records().head().holders.used.load(), 0u);
        const auto bystander = store().Locate("bystander", Soon()).value().value();
        EXPECT_EQ(publication::Mapped(area().memory(), bystander).value, "untouched");
      });
}

/// The next one to create it starts anew, or attaches to what is whole.
TEST(CreationTest, IsFinishedByTheNextOne) {
  if (!kStepping) GTEST_SKIP() << "instructions are not stepped through under ThreadSanitizer";
  const segment::CreateOptions options{.name = "/praas-test-creation-" + std::to_string(::getpid()),
                                       .process_id = "test",
                                       .memory_bytes = 1u << 20,
                                       .pool_bytes = 1u << 20,
                                       .calls = 64,
                                       .format = &state::StateStore::Format};
  constexpr uint32_t kFurther = 500;
  const uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  bool over = false;
  for (uint32_t calls = 0; !over; ++calls) {
    SCOPED_TRACE("killed after system call " + std::to_string(calls) + ", seed " + std::to_string(seed));
    {
      Stepped victim([&] { (void)segment::Segment::CreateOrAttach(options); });
      if (calls == 0 && !victim.alive()) GTEST_SKIP() << "ptrace is not permitted here";
      for (uint32_t i = 0; i < calls; ++i) victim.RunToSystemCall();
      over = !victim.alive();
      for (uint64_t further = random() % kFurther; further > 0 && victim.alive(); --further) victim.Step();
    }
    auto next = segment::Segment::CreateOrAttach(options);
    ASSERT_TRUE(next.ok()) << next.status().message();
    Participant host(*next, 0);
    if (next->attached()) {
      ASSERT_TRUE(host.arena.Recover().ok());
      ASSERT_TRUE(host.store.RepairAfterHost(Soon()).ok());
    }
    EXPECT_TRUE(host.store.Set("key", AsBytes("value"), {.deadline_ns = Soon()}).ok());
    for (const std::string& violation : host.store.Check()) ADD_FAILURE() << violation;
    for (const std::string& violation : host.arena.Check()) ADD_FAILURE() << violation;
    ASSERT_TRUE(segment::Segment::Unlink(options.name).ok());
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace praas::test
