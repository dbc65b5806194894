#include <chrono>
#include <thread>

#include "store_fixture.h"

namespace praas::test {
namespace {

class RewriteTest : public StoreTest {
 protected:
  /// Somebody appends to "log" and comes to no end. Returns the pin that says so.
  uint32_t ReserveAppend(Participant& other) {
    const Result<state::Pinned> pinned = other.store.Pin("log", Soon());
    EXPECT_TRUE(pinned.ok());
    state::KeyEntry& entry = records().key(1);
    entry.append_block = state::ValueRef::Unpack(entry.value.load()).block;
    entry.append_pin = pinned->pin;
    entry.append_token = 12345;
    return pinned->pin;
  }
};

TEST_F(RewriteTest, AppendsCreateAndExtend) {
  const uint64_t first = Append("log", "one,");
  EXPECT_EQ(Get("log"), "one,");
  const uint64_t second = Append("log", "two,");
  EXPECT_GT(second, first);
  EXPECT_EQ(Get("log"), "one,two,");
  const uint64_t third = Append("log", "");
  EXPECT_GT(third, second);
  EXPECT_EQ(Get("log"), "one,two,");
  EXPECT_EQ(store().Stat("log", Soon())->version, third);
  ExpectBlocks(1);
}

TEST_F(RewriteTest, AppendsEmptyToNothing) {
  Append("log", "");
  EXPECT_EQ(Get("log"), "");
}

TEST_F(RewriteTest, AppendRoomGrowsGeometrically) {
  // Moving to a new block each time room runs out: with doubling, 1 MiB in 100-byte steps moves some 14 times.
  std::string expected;
  uint32_t moves = 0;
  uint64_t place = 0;
  for (int i = 0; expected.size() < (1u << 20); ++i) {
    const std::string step(100, static_cast<char>('a' + i % 26));
    Append("log", step);
    expected += step;
    Result<state::Pinned> pinned = store().Pin("log", Soon());
    ASSERT_TRUE(pinned.ok());
    if (pinned->offset != place) ++moves;
    place = pinned->offset;
    store().Unpin(pinned->pin);
  }
  EXPECT_EQ(Get("log"), expected);
  EXPECT_LT(moves, 25u);
  ExpectBlocks(1);
}

TEST_F(RewriteTest, LargeAppendsGoInPlaceToo) {
  std::string expected;
  uint32_t moves = 0;
  uint64_t place = 0;
  for (int i = 0; i < 40; ++i) {
    const std::string step(100'000, static_cast<char>('a' + i % 26));
    Append("log", step);
    expected += step;
    Result<state::Pinned> pinned = store().Pin("log", Soon());
    ASSERT_TRUE(pinned.ok());
    if (pinned->offset != place) ++moves;
    place = pinned->offset;
    store().Unpin(pinned->pin);
  }
  EXPECT_EQ(Get("log"), expected);
  EXPECT_LT(moves, 10u);
}

TEST_F(RewriteTest, PinnedBytesDoNotChangeUnderAppends) {
  Append("log", "first");
  Append("log", "-second");
  Result<state::Pinned> pinned = store().Pin("log", Soon());
  ASSERT_TRUE(pinned.ok());
  Append("log", "-third");
  EXPECT_EQ(PinnedText(*pinned), "first-second");
  Append("log", std::string(100'000, 'x'));
  EXPECT_EQ(PinnedText(*pinned), "first-second");
  store().Unpin(pinned->pin);
  EXPECT_EQ(Get("log")->size(), 18 + 100'000u);
}

TEST_F(RewriteTest, PatchesACopy) {
  const auto patch = [&](uint64_t offset, std::string_view bytes) {
    return store().Set("text", AsBytes(bytes), {.offset = offset, .deadline_ns = Soon()});
  };
  EXPECT_TRUE(patch(0, "0123456789").ok());  // an absent key has no bytes: offset 0 is its end
  EXPECT_TRUE(patch(2, "ab").ok());
  EXPECT_EQ(Get("text"), "01ab456789");
  EXPECT_TRUE(patch(8, "XYZ").ok());
  EXPECT_EQ(Get("text"), "01ab4567XYZ");
  EXPECT_TRUE(patch(11, "!").ok());
  EXPECT_EQ(Get("text"), "01ab4567XYZ!");
  EXPECT_TRUE(patch(12, "").ok());
  EXPECT_EQ(CodeOf(patch(13, "gap")), Code::kStateRange);
  EXPECT_EQ(CodeOf(patch(13, "")), Code::kStateRange);
  EXPECT_EQ(CodeOf(patch(UINT64_MAX, "x")), Code::kStateRange);
  EXPECT_EQ(Get("text"), "01ab4567XYZ!");
  EXPECT_EQ(CodeOf(store().Set("absent", AsBytes("x"), {.offset = 1, .deadline_ns = Soon()})), Code::kStateRange);
  EXPECT_EQ(Get("absent"), std::nullopt);
  ExpectBlocks(1);
}

TEST_F(RewriteTest, PatchesLargeValues) {
  std::string expected(300'000, '.');
  Set("text", expected);
  Result<state::Pinned> before = store().Pin("text", Soon());
  ASSERT_TRUE(before.ok());
  for (const uint64_t offset : {0u, 5'000u, 299'990u, 300'010u}) {
    const std::string part(20, 'p');
    Result<uint64_t> version = store().Set("text", AsBytes(part), {.offset = offset, .deadline_ns = Soon()});
    ASSERT_TRUE(version.ok()) << version.status().message();
    if (expected.size() < offset + part.size()) expected.resize(offset + part.size());
    expected.replace(offset, part.size(), part);
    EXPECT_EQ(Get("text"), expected);
  }
  EXPECT_EQ(PinnedText(*before), std::string(300'000, '.'));
  store().Unpin(before->pin);
  ExpectSound();
  ExpectBlocks(1);
}

TEST_F(RewriteTest, PatchesUnderCompareAndSet) {
  const uint64_t version = Set("text", "0123");
  EXPECT_EQ(CodeOf(store().Set("text", AsBytes("x"), {.if_version = version + 1, .offset = 0, .deadline_ns = Soon()})),
            Code::kStateVersion);
  EXPECT_EQ(CodeOf(store().Set("text", AsBytes("x"), {.if_version = 0, .offset = 0, .deadline_ns = Soon()})),
            Code::kStateVersion);
  EXPECT_TRUE(store().Set("text", AsBytes("x"), {.if_version = version, .offset = 0, .deadline_ns = Soon()}).ok());
  EXPECT_EQ(Get("text"), "x123");
}

TEST_F(RewriteTest, AnotherAppendWaitsForTheOneThatReservedTheRoom) {
  Append("log", std::string(50'000, 'a'));
  Append("log", "b");  // now there is room behind the value
  // What a participant leaves behind that died in the middle of a large append: a reservation and its pin.
  Participant dead(segment(), 7);
  Result<state::Pinned> pinned = dead.store.Pin("log", Soon());
  ASSERT_TRUE(pinned.ok());
  const state::Records all = records();
  state::KeyEntry& entry = all.key(1);
  entry.append_block = state::ValueRef::Unpack(entry.value.load()).block;
  entry.append_pin = pinned->pin;
  entry.append_token = 12345;
  // A live reservation that does not get on: the value moves, and the late comer finds another block.
  Append("log", "c");
  EXPECT_EQ(Get("log"), std::string(50'000, 'a') + "bc");
  EXPECT_EQ(entry.append_token, 0u);
  // One whose participant was reclaimed is void at once.
  Result<state::Pinned> again = dead.store.Pin("log", Soon());
  ASSERT_TRUE(again.ok());
  entry.append_block = state::ValueRef::Unpack(entry.value.load()).block;
  entry.append_pin = again->pin;
  entry.append_token = 12346;
  ASSERT_TRUE(store().ReclaimParticipant(7, Soon()).ok());
  Append("log", "d");
  EXPECT_EQ(store().Stat("log", Soon())->bytes, 50'003u);
  ExpectBlocks(1);
}

TEST_F(RewriteTest, NothingIsLostAmongThreads) {
  // Appends of every kind, patches and sets of other keys at one time.
  constexpr int kThreads = 4;
  constexpr int kRounds = 60;
  std::vector<std::thread> threads;
  std::atomic<uint64_t> appended{0};
  Set("patched", std::string(20'000, '.'));
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        const std::string mark(static_cast<size_t>(i % 3 == 0 ? 6'000 : 10 * (t + 1)), static_cast<char>('a' + t));
        if (store().Append("log", AsBytes(mark), Soon()).ok()) appended += mark.size();
        const std::string own = "own" + std::to_string(t);
        EXPECT_TRUE(store().Set(own, AsBytes(mark), {.deadline_ns = Soon()}).ok());
        Result<std::vector<std::byte>> value = store().Get(own, Soon());
        EXPECT_TRUE(value.ok() && AsText(*value) == mark);
        const auto offset = static_cast<uint64_t>(t * 5'000 + i);
        EXPECT_TRUE(store()
                        .Set("patched", AsBytes(std::string(1, static_cast<char>('a' + t))),
                             {.offset = offset, .deadline_ns = Soon()})
                        .ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store().Stat("log", Soon())->bytes, appended.load());
  std::string expected(20'000, '.');
  for (int t = 0; t < kThreads; ++t)
    expected.replace(static_cast<size_t>(t) * 5'000, kRounds, std::string(kRounds, static_cast<char>('a' + t)));
  EXPECT_EQ(Get("patched"), expected);
  ExpectSound();
  ExpectBlocks(2 + kThreads);
}

TEST_F(RewriteTest, ContentionEndsAtTheDeadline) {
  // A reservation is held and the deadline has passed: one attempt, then the answer.
  Append("log", std::string(50'000, 'a'));
  Append("log", "b");
  Participant other(segment(), 7);
  const uint32_t pin = ReserveAppend(other);
  EXPECT_EQ(CodeOf(store().Append("log", AsBytes("c"), NowNs())), Code::kStateContended);
  // As early as a store wants to know, which others have to wait for.
  Participant host(segment(), 8);
  host.store.LimitContention(0);
  EXPECT_EQ(CodeOf(host.store.Append("log", AsBytes("c"), Soon())), Code::kStateContended);
  EXPECT_EQ(store().Stat("log", Soon())->bytes, 50'001u);
  other.store.Unpin(pin);
  Append("log", "c");
  EXPECT_EQ(store().Stat("log", Soon())->bytes, 50'002u);
}

TEST_F(RewriteTest, WaitingForOthersIsNoContention) {
  Append("log", std::string(50'000, 'a'));
  Append("log", "b");
  Participant other(segment(), 7);
  const uint32_t pin = ReserveAppend(other);
  Participant host(segment(), 8);
  constexpr uint64_t kLimitNs = 250'000'000;  // more than a reservation is waited for
  host.store.LimitContention(kLimitNs);
  // The mutex is held for longer than that, by somebody who has stopped inside.
  auto& mutex = const_cast<segment::RobustMutex&>(store().mutex());
  ASSERT_EQ(mutex.TryLock(7), segment::LockOutcome::kAcquired);
  std::thread appending([&host] { EXPECT_TRUE(host.store.Append("log", AsBytes("c"), Soon()).ok()); });
  const uint64_t until_ns = DeadlineIn(kLimitNs + 100'000'000);
  while (NowNs() < until_ns) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  mutex.Unlock();
  appending.join();
  EXPECT_EQ(store().Stat("log", Soon())->bytes, 50'002u);
  other.store.Unpin(pin);
}

}  // namespace
}  // namespace praas::test
