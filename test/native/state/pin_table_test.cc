#include "state/pin_table.h"

#include <thread>

#include "../support/child.h"
#include "store_fixture.h"

namespace praas::test {
namespace {

using PinTest = StoreTest;

TEST_F(PinTest, KeepsAValueThatIsSetAnewOrDeleted) {
  const uint64_t version = Set("key", "old");
  Result<state::Pinned> pinned = store().Pin("key", Soon());
  ASSERT_TRUE(pinned.ok());
  EXPECT_EQ(pinned->version, version);
  Set("key", "new");
  EXPECT_EQ(PinnedText(*pinned), "old");
  EXPECT_EQ(Get("key"), "new");
  ExpectBlocks(2);
  Delete("key");
  Set("other", std::string(100, 'o'));
  EXPECT_EQ(PinnedText(*pinned), "old");
  store().Unpin(pinned->pin);
  ExpectBlocks(1);
}

TEST_F(PinTest, CountsWithinTheProcess) {
  Set("key", "value");
  Result<state::Pinned> first = store().Pin("key", Soon());
  Result<state::Pinned> second = store().Pin("key", Soon());
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->pin, second->pin);
  EXPECT_EQ(records().head().pins.used.load(), 1u);
  Delete("key");
  store().Unpin(first->pin);
  EXPECT_EQ(PinnedText(*second), "value");
  ExpectBlocks(1);
  store().Unpin(second->pin);
  ExpectBlocks(0);
  store().Unpin(second->pin);  // once too often: nothing
  store().Unpin(4711);
  EXPECT_EQ(records().head().pins.used.load(), 0u);
}

TEST_F(PinTest, IsReleasedLaterWhenTheMutexIsTaken) {
  Set("key", "value");
  Result<state::Pinned> pinned = store().Pin("key", Soon());
  ASSERT_TRUE(pinned.ok());
  Delete("key");
  ASSERT_EQ(records().head().mutex.Lock(1, Soon()), segment::LockOutcome::kAcquired);
  store().Unpin(pinned->pin);
  EXPECT_EQ(records().head().pins.used.load(), 1u);
  records().head().mutex.Unlock();
  EXPECT_EQ(Get("key"), std::nullopt);  // any operation will do
  EXPECT_EQ(records().head().pins.used.load(), 0u);
  ExpectBlocks(0);
}

TEST_F(PinTest, ManyBlocks) {
  // More pins than were committed at creation.
  std::vector<uint32_t> pins;
  for (int i = 0; i < 1000; ++i) {
    const std::string key = "key" + std::to_string(i);
    Set(key, key);
    Result<state::Pinned> pinned = store().Pin(key, Soon());
    ASSERT_TRUE(pinned.ok()) << pinned.status().message();
    pins.push_back(pinned->pin);
  }
  ExpectSound();
  for (const uint32_t pin : pins) store().Unpin(pin);
  EXPECT_EQ(records().head().pins.used.load(), 0u);
}

TEST_F(PinTest, OfADeadProcessAreReclaimed) {
  Set("kept", "kept");
  Set("gone", "gone");
  Signpost there;
  Child child = Child::Fork([&] {
    Participant worker(segment(), 1);
    if (!worker.store.Pin("kept", Soon()).ok() || !worker.store.Pin("gone", Soon()).ok()) return 1;
    there.Set();
    for (;;) ::pause();
  });
  there.Await();
  Delete("gone");
  ExpectBlocks(2);
  child.Kill();
  ASSERT_TRUE(store().ReclaimParticipant(1, Soon()).ok());
  EXPECT_EQ(records().head().pins.used.load(), 0u);
  EXPECT_EQ(Get("kept"), "kept");
  ExpectBlocks(1);
}

TEST_F(PinTest, ThreadsPinAndUnpinOneKey) {
  Set("key", std::string(100, '0'));
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 300; ++i) {
        Result<state::Pinned> pinned = store().Pin("key", Soon());
        ASSERT_TRUE(pinned.ok());
        const std::string text = PinnedText(*pinned);
        EXPECT_EQ(text, std::string(100, text[0]));
        store().Unpin(pinned->pin);
      }
    });
  }
  threads.emplace_back([&] {
    for (int i = 0; i < 300; ++i) Set("key", std::string(100, static_cast<char>('0' + i % 10)));
  });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Get("key"), std::string(100, '9'));
  EXPECT_EQ(records().head().pins.used.load(), 0u);
  ExpectBlocks(1);
}

}  // namespace
}  // namespace praas::test
