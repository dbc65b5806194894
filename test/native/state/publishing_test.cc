#include <signal.h>

#include <atomic>
#include <random>
#include <thread>

#include "../publication/block.h"
#include "../support/child.h"
#include "../support/stepped.h"
#include "store_fixture.h"

namespace praas::test {
namespace {

using publication::Got;
using publication::Location;
using publication::Verdict;

class PublishingTest : public StoreTest {
 protected:
  uint64_t Publish(std::string_view key, std::optional<uint64_t> capacity = std::nullopt) {
    Result<uint64_t> published = store().Publish(key, capacity, Soon());
    EXPECT_TRUE(published.ok()) << published.status().message();
    return published.ok() ? *published : 0;
  }
  std::optional<Location> Locate(std::string_view key) {
    Result<std::optional<Location>> found = store().Locate(key, Soon());
    EXPECT_TRUE(found.ok()) << found.status().message();
    return found.ok() ? *found : std::nullopt;
  }
  Got Read(std::string_view key) { return ReadAt(Locate(key).value()); }
  Got ReadAt(const Location& location) {
    const Got mapped = publication::Mapped(area().memory(), location);
    EXPECT_EQ(mapped, publication::FetchedFrom(area().memory(), location));
    return mapped;
  }
  static Got Value(uint64_t version, std::string_view value) {
    return {Verdict::kRead, version, false, std::string(value)};
  }
  static constexpr Verdict kAsk = Verdict::kAsk;
};

TEST_F(PublishingTest, EveryChangeIsThereWhenItReturns) {
  const uint64_t first = Set("key", "first");
  EXPECT_EQ(Publish("key"), publication::CapacityOf(1));
  EXPECT_EQ(Read("key"), Value(first, "first"));
  const uint64_t second = Set("key", "second");
  EXPECT_EQ(Read("key"), Value(second, "second"));
  const uint64_t third = Append("key", " and third");
  EXPECT_EQ(Read("key"), Value(third, "second and third"));
  const uint64_t in_place = Append("key", "!");
  EXPECT_EQ(Read("key"), Value(in_place, "second and third!"));
  const uint64_t patched = store().Set("key", AsBytes("S"), {.offset = 0, .deadline_ns = Soon()}).value();
  EXPECT_EQ(Read("key"), Value(patched, "Second and third!"));
  Delete("key");
  EXPECT_TRUE(Read("key").absent);
  EXPECT_GT(Read("key").version, patched);
  const uint64_t anew = Set("key", "anew");
  EXPECT_EQ(Read("key"), Value(anew, "anew"));
}

TEST_F(PublishingTest, LargeValuesToo) {
  const std::string large(100'000, 'l');
  Set("key", large);
  EXPECT_GE(Publish("key", 300'000), 300'000u);
  EXPECT_EQ(Read("key").value, large);
  const std::string other(200'000, 'o');
  const uint64_t second = Set("key", other);
  EXPECT_EQ(Read("key"), Value(second, other));
  const uint64_t third = Append("key", large);
  EXPECT_EQ(Read("key"), Value(third, other + large));
  const uint64_t fourth = store().Set("key", AsBytes(large), {.offset = 0, .deadline_ns = Soon()}).value();
  EXPECT_EQ(Read("key"), Value(fourth, large + other.substr(100'000) + large));
  EXPECT_EQ(records().head().pins.used.load(), 0u);
}

TEST_F(PublishingTest, AKeyMayBePublishedBeforeItExists) {
  Publish("key");
  EXPECT_TRUE(Read("key").absent);
  EXPECT_EQ(Read("key").verdict, Verdict::kRead);
  EXPECT_EQ(Read("key"), Value(Set("key", "value"), "value"));
}

TEST_F(PublishingTest, AValueThatDoesNotFitIsElsewhereUntilOneDoes) {
  Set("key", "small");
  const uint64_t capacity = Publish("key");
  Set("key", std::string(capacity, 'x'));
  EXPECT_EQ(Read("key").verdict, Verdict::kRead);
  Append("key", "y");
  EXPECT_EQ(Read("key").verdict, kAsk);
  EXPECT_EQ(Get("key"), std::string(capacity, 'x') + "y");
  EXPECT_EQ(Read("key"), (Set("key", "fits"), Read("key")));
  EXPECT_EQ(Read("key").value, "fits");
}

TEST_F(PublishingTest, MayBeGivenMoreRoomAndKeepsIt) {
  Set("key", "value");
  const uint64_t capacity = Publish("key");
  const Location before = Locate("key").value();
  EXPECT_EQ(Publish("key", 10), capacity);
  EXPECT_EQ(Locate("key"), before);
  const uint64_t more = Publish("key", 10'000);
  EXPECT_GE(more, 10'000u);
  EXPECT_NE(Locate("key"), before);
  EXPECT_EQ(ReadAt(before).verdict, Verdict::kMoved);
  EXPECT_EQ(Read("key").value, "value");
  EXPECT_EQ(Publish("key"), more);
}

TEST_F(PublishingTest, EndsWithUnpublish) {
  Set("key", "value");
  Publish("key");
  const Location before = Locate("key").value();
  EXPECT_EQ(*store().Unpublish("key", Soon()), true);
  EXPECT_EQ(*store().Unpublish("key", Soon()), false);
  EXPECT_EQ(Locate("key"), std::nullopt);
  EXPECT_EQ(ReadAt(before).verdict, Verdict::kMoved);
  Set("key", "other");
  EXPECT_EQ(ReadAt(before).verdict, Verdict::kMoved);
  // Another in its place is not mistaken for it.
  Set("other", "another's");
  Publish("other");
  EXPECT_EQ(Locate("other")->offset, before.offset);
  EXPECT_EQ(ReadAt(before).verdict, Verdict::kMoved);
  EXPECT_EQ(Read("other").value, "another's");
}

TEST_F(PublishingTest, ArraysAreNotPublished) {
  ASSERT_TRUE(store().Array("array", 2, 8, Soon()).ok());
  EXPECT_EQ(CodeOf(store().Publish("array", std::nullopt, Soon())), Code::kStateType);
  Publish("later");
  ASSERT_TRUE(store().Array("later", 2, 8, Soon()).ok());
  EXPECT_EQ(Read("later").verdict, kAsk);
  Delete("later");
  EXPECT_TRUE(Read("later").absent);
}

TEST_F(PublishingTest, TheAreaIsALimitThatPasses) {
  const uint64_t most = publication::CapacityOf(kAreaBytes / publication::kPageBytes);
  EXPECT_EQ(CodeOf(store().Publish("key", most + 1, Soon())), Code::kStateMemory);
  EXPECT_EQ(CodeOf(store().Publish("key", UINT64_MAX, Soon())), Code::kStateMemory);
  EXPECT_EQ(Locate("key"), std::nullopt);
  EXPECT_EQ(Publish("key", most), most);
  EXPECT_EQ(CodeOf(store().Publish("other", std::nullopt, Soon())), Code::kStateMemory);
  ASSERT_TRUE(store().Unpublish("key", Soon()).ok());
  for (uint64_t i = 0; i < kAreaBytes / publication::kPageBytes; ++i) Publish("key" + std::to_string(i));
  EXPECT_EQ(CodeOf(store().Publish("one more", std::nullopt, Soon())), Code::kStateMemory);
  ASSERT_TRUE(store().Unpublish("key7", Soon()).ok());
  ASSERT_TRUE(store().Unpublish("key9", Soon()).ok());
  EXPECT_EQ(CodeOf(store().Publish("two pages", 5000, Soon())), Code::kStateMemory);
  ASSERT_TRUE(store().Unpublish("key8", Soon()).ok());
  EXPECT_EQ(Publish("two pages", 5000), publication::CapacityOf(2));
}

TEST_F(PublishingTest, RefusesWhatIsNoName) {
  EXPECT_EQ(CodeOf(store().Publish("", std::nullopt, Soon())), Code::kNameInvalid);
  EXPECT_EQ(CodeOf(store().Unpublish(std::string(256, 'k'), Soon())), Code::kNameInvalid);
  EXPECT_EQ(CodeOf(store().Locate("a\0b", Soon())), Code::kOk);  // a literal ends there
  Participant without(segment(), 3);
  EXPECT_EQ(CodeOf(without.store.Publish("key", std::nullopt, Soon())), Code::kUnsupported);
}

TEST_F(PublishingTest, MemoryIsTakenAsItIsNeeded) {
  EXPECT_EQ(records().head().area_committed.load(), 0u);
  Publish("a", 5000);
  EXPECT_EQ(records().head().area_committed.load(), 2 * publication::kPageBytes);
  ASSERT_TRUE(store().Unpublish("a", Soon()).ok());
  Publish("b");
  EXPECT_EQ(records().head().area_committed.load(), 2 * publication::kPageBytes);
}

TEST_F(PublishingTest, ManyNames) {
  std::vector<std::string> names;
  for (uint32_t i = 0; i < 200; ++i) names.push_back(std::string(i % 250 + 1, static_cast<char>('a' + i % 26)));
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  for (const std::string& name : names) {
    Publish(name);
    Set(name, "of " + name);
  }
  for (const std::string& name : names) EXPECT_EQ(Read(name).value, "of " + name);
  ExpectSound();
  for (size_t i = 0; i < names.size(); i += 2) ASSERT_TRUE(store().Unpublish(names[i], Soon()).ok());
  for (size_t i = 0; i < names.size(); ++i) EXPECT_EQ(Locate(names[i]).has_value(), i % 2 == 1);
}

/// Of `size` bytes that say who wrote them.
std::string Marked(uint32_t writer, uint32_t number, size_t size) {
  std::string value = std::to_string(writer) + ":" + std::to_string(number) + ":";
  value.resize(std::max(size, value.size()), static_cast<char>('a' + (writer * 7 + number) % 26));
  return value;
}

TEST_F(PublishingTest, NeverShowsAnOlderValueThanWasSet) {
#if defined(__SANITIZE_THREAD__)
  constexpr uint32_t kSets = 300;
#else
  constexpr uint32_t kSets = 3'000;
#endif
  Set("key", "begin");
  Publish("key", 30'000);
  const Location location = Locate("key").value();
  std::atomic<bool> stop{false};
  std::atomic<uint32_t> read{0};
  const auto check = [&](const Got& got, uint64_t at_least) {
    if (got.verdict == kAsk) return at_least;
    EXPECT_EQ(got.verdict, Verdict::kRead);
    EXPECT_GE(got.version, at_least);
    read.fetch_add(1);
    if (got.absent || got.value == "begin") return got.version;
    const size_t first = got.value.find(':');
    const size_t second = got.value.find(':', first + 1);
    const auto writer = static_cast<uint32_t>(std::stoul(got.value));
    const auto number = static_cast<uint32_t>(std::stoul(got.value.substr(first + 1, second)));
    EXPECT_EQ(got.value, Marked(writer, number, got.value.size()));
    return got.version;
  };
  std::vector<std::thread> threads;
  for (uint32_t writer = 1; writer <= 3; ++writer) {
    threads.emplace_back([&, writer] {
      Participant own(segment(), static_cast<uint16_t>(writer), &area());
      std::minstd_rand random(writer);
      for (uint32_t number = 0; number < kSets; ++number) {
        uint64_t version = 0;
        if (random() % 20 == 0) {
          (void)own.store.Delete("key", std::nullopt, Soon()).ok();
        } else {
          const size_t size = random() % 4 == 0 ? 5'000 + random() % 20'000 : random() % 4'000;
          version = own.store.Set("key", AsBytes(Marked(writer, number, size)), {.deadline_ns = Soon()}).value();
        }
        check(publication::Mapped(area().memory(), location), version);
      }
    });
  }
  std::thread reader([&] {
    publication::Device device(area().memory());
    for (uint64_t last = 0, i = 0; !stop.load(); ++i) {
      last = check(i % 4 == 0 ? publication::Copied(publication::ReadFetched(std::ref(device), location, 100))
                              : publication::Mapped(area().memory(), location),
                   last);
    }
  });
  for (std::thread& thread : threads) thread.join();
  stop.store(true);
  reader.join();
  EXPECT_GT(read.load(), kSets / 10);
  ASSERT_TRUE(store().Renew("key", Soon()).ok());
  const Got last = Read("key");
  EXPECT_EQ(last.absent ? std::nullopt : std::optional(last.value), Get("key"));
}

TEST_F(PublishingTest, ACopierThatIsStoppedKeepsNobodyFromSetting) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "most instructions would be ThreadSanitizer's";
#endif
  const std::string large(20'000, 'l');
  Set("key", "small");
  Publish("key", 40'000);
  const Location location = Locate("key").value();  // the child may hold the mutex
  std::optional<Participant> worker;
  Stepped child([&] { worker.emplace(segment(), 1, &area()); },
                [&] { (void)worker->store.Set("key", AsBytes(large), {.deadline_ns = Soon()}).ok(); });
  if (!child.alive()) GTEST_SKIP() << "ptrace is not permitted here";
  // Into the middle of the copy: the claim is there and the sequence odd.
  const state::PublicationRecord& record = records().publication(1);
  while (child.alive() && record.copy_token == 0) child.Step();
  for (int i = 0; i < 3'000; ++i) child.Step();
  ASSERT_TRUE(child.alive());
  EXPECT_EQ(Get("key"), large);
  EXPECT_EQ(ReadAt(location).verdict, kAsk);
  const uint64_t version = Set("key", "by another");
  EXPECT_EQ(Get("key"), "by another");
  EXPECT_EQ(ReadAt(location).verdict, kAsk);
  EXPECT_EQ(CodeOf(store().Unpublish("key", Soon())), Code::kStateContended);
  EXPECT_EQ(CodeOf(store().Publish("key", 60'000, Soon())), Code::kStateContended);
  // It goes on, and notices that there is a newer value.
  while (child.alive() && record.copy_token != 0) child.Step();
  while (child.alive() && ReadAt(location).verdict == kAsk) {
    for (int i = 0; i < 500; ++i) child.Step();
  }
  EXPECT_EQ(ReadAt(location), Value(version, "by another"));
}

TEST_F(PublishingTest, ADeadCopierIsNoticedByTheHost) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "most instructions would be ThreadSanitizer's";
#endif
  const std::string large(20'000, 'l');
  Set("key", "small");
  Publish("key", 40'000);
  {
    std::optional<Participant> worker;
    Stepped child([&] { worker.emplace(segment(), 1, &area()); },
                  [&] { (void)worker->store.Set("key", AsBytes(large), {.deadline_ns = Soon()}).ok(); });
    if (!child.alive()) GTEST_SKIP() << "ptrace is not permitted here";
    while (child.alive() && records().publication(1).copy_token == 0) child.Step();
    for (int i = 0; i < 3'000; ++i) child.Step();
    ASSERT_TRUE(child.alive());
  }
  EXPECT_EQ(Read("key").verdict, kAsk);
  ASSERT_TRUE(store().ReclaimParticipant(1, Soon()).ok());
  EXPECT_EQ(Read("key").value, large);
}

TEST_F(PublishingTest, ANewHostPublishesInItsOwnArea) {
  const std::string large(50'000, 'l');
  Set("key", "value");
  Set("large", large);
  Publish("large");
  Publish("key");
  Publish("absent");
  const publication::Area fresh = publication::Area::Create(kAreaBytes).value();
  own_.host.reset();
  own_.host.emplace(segment(), 0, &fresh);
  ASSERT_TRUE(arena().Recover().ok());
  ASSERT_TRUE(store().RepairAfterHost(Soon()).ok());
  EXPECT_NE(publication::Mapped(fresh.memory(), Locate("key").value()).verdict, Verdict::kRead);
  ASSERT_TRUE(store().RenewAll(Soon()).ok());
  EXPECT_EQ(publication::Mapped(fresh.memory(), Locate("key").value()).value, "value");
  EXPECT_EQ(publication::Mapped(fresh.memory(), Locate("large").value()).value, large);
  EXPECT_TRUE(publication::Mapped(fresh.memory(), Locate("absent").value()).absent);
  EXPECT_EQ(publication::Mapped(fresh.memory(), (Set("key", "new"), Locate("key").value())).value, "new");
  own_.host.reset();
  own_.host.emplace(segment(), 0, &area());
}

TEST_F(PublishingTest, ANewHostWithASmallerAreaPublishesWhatFits) {
  Set("large", std::string(80'000, 'l'));
  Set("key", "value");
  Publish("large");
  Publish("key");
  const publication::Area fresh = publication::Area::Create(publication::kMinAreaBytes).value();
  own_.host.reset();
  own_.host.emplace(segment(), 0, &fresh);
  ASSERT_TRUE(arena().Recover().ok());
  ASSERT_TRUE(store().RepairAfterHost(Soon()).ok());
  ASSERT_TRUE(store().RenewAll(Soon()).ok());
  EXPECT_EQ(Locate("large"), std::nullopt);
  Set("large", std::string(80'000, 'm'));
  EXPECT_EQ(publication::Mapped(fresh.memory(), Locate("key").value()).value, "value");
  EXPECT_EQ(CodeOf(store().Publish("large", std::nullopt, Soon())), Code::kStateMemory);
  Set("large", "small now");
  EXPECT_EQ(CodeOf(store().Publish("large", std::nullopt, Soon())), Code::kStateMemory);  // it keeps its size
  EXPECT_EQ(*store().Unpublish("large", Soon()), true);
  Publish("large");
  EXPECT_EQ(publication::Mapped(fresh.memory(), Locate("large").value()).value, "small now");
  ExpectSound();
  own_.host.reset();
  own_.host.emplace(segment(), 0, &area());
}

}  // namespace
}  // namespace praas::test
