#include "state/key_index.h"

#include <map>
#include <random>
#include <thread>

#include "store_fixture.h"

namespace praas::test {
namespace {

using KeyIndexTest = StoreTest;

TEST_F(KeyIndexTest, TenThousandKeys) {
  constexpr int kKeys = 10'000;
  for (int i = 0; i < kKeys; ++i) Set("key/" + std::to_string(i), std::to_string(i * 7));
  EXPECT_EQ(store().key_count(), static_cast<uint32_t>(kKeys));
  EXPECT_GE(records().head().bucket_count, kKeys / 2u - 1);
  for (int i = 0; i < kKeys; i += 13) EXPECT_EQ(Get("key/" + std::to_string(i)), std::to_string(i * 7));
  ExpectSound();

  // Pages of the list, in byte order, are all keys.
  std::vector<std::string> listed;
  for (std::string after;;) {
    Result<std::vector<state::KeyInfo>> page = store().Keys("key/", after, 777, Soon());
    ASSERT_TRUE(page.ok());
    if (page->empty()) break;
    EXPECT_LE(page->size(), 777u);
    for (const state::KeyInfo& info : *page) listed.push_back(info.key);
    after = listed.back();
  }
  EXPECT_EQ(listed.size(), static_cast<size_t>(kKeys));
  EXPECT_TRUE(std::is_sorted(listed.begin(), listed.end()));

  for (int i = 0; i < kKeys; ++i) Delete("key/" + std::to_string(i));
  EXPECT_EQ(store().key_count(), 0u);
  ExpectBlocks(0);
}

TEST_F(KeyIndexTest, ListsByPrefixAndPlace) {
  for (const char* key : {"b/2", "a", "b/1", "c", "b", "b/10"}) Set(key, key);
  const auto names = [&](std::string_view prefix, std::string_view after, uint32_t limit) {
    std::string text;
    Result<std::vector<state::KeyInfo>> keys = store().Keys(prefix, after, limit, Soon());
    EXPECT_TRUE(keys.ok());
    for (const state::KeyInfo& info : *keys) text += info.key + " ";
    return text;
  };
  EXPECT_EQ(names("", "", 100), "a b b/1 b/10 b/2 c ");
  EXPECT_EQ(names("b/", "", 100), "b/1 b/10 b/2 ");
  EXPECT_EQ(names("b/", "b/1", 100), "b/10 b/2 ");
  EXPECT_EQ(names("", "b", 2), "b/1 b/10 ");
  EXPECT_EQ(names("", "z", 100), "");
  EXPECT_EQ(names("", "", 0), "");
}

TEST_F(KeyIndexTest, AgreesWithAModel) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::map<std::string, std::string> model;
  for (int step = 0; step < 5'000; ++step) {
    const std::string key = "k" + std::to_string(random() % 300);
    switch (random() % 4) {
      case 0:
      case 1:
        Set(key, model[key] = std::to_string(random()));
        break;
      case 2: {
        Result<bool> deleted = store().Delete(key, std::nullopt, Soon());
        ASSERT_TRUE(deleted.ok());
        EXPECT_EQ(*deleted, model.erase(key) == 1);
        break;
      }
      default:
        Append(key, "+");
        model[key] += "+";
    }
    EXPECT_EQ(store().key_count(), model.size());
  }
  for (int i = 0; i < 300; ++i) {
    const std::string key = "k" + std::to_string(i);
    const auto found = model.find(key);
    EXPECT_EQ(Get(key), found == model.end() ? std::nullopt : std::optional(found->second));
  }
  ExpectBlocks(static_cast<uint32_t>(model.size()));
}

TEST_F(KeyIndexTest, KeysThatStayAreListedOnceWhileOthersComeAndGo) {
  for (int i = 0; i < 500; ++i) Set("stays/" + std::to_string(i), "s");
  std::atomic<bool> stop{false};
  std::thread churn([&] {
    for (int i = 0; !stop; ++i) {
      const std::string key = "moves/" + std::to_string(i % 400);
      EXPECT_TRUE(store().Set(key, AsBytes("m"), {.deadline_ns = Soon()}).ok());
      EXPECT_TRUE(store().Delete("moves/" + std::to_string((i + 200) % 400), std::nullopt, Soon()).ok());
    }
  });
  for (int round = 0; round < 20; ++round) {
    Result<std::vector<state::KeyInfo>> keys = store().Keys("", "", 100'000, Soon());
    EXPECT_TRUE(keys.ok());
    std::map<std::string, int> count;
    for (const state::KeyInfo& info : *keys) ++count[info.key];
    int stays = 0;
    for (const auto& [key, times] : count) {
      EXPECT_EQ(times, 1) << key;
      stays += key.starts_with("stays/") ? 1 : 0;
    }
    EXPECT_EQ(stays, 500);
  }
  stop = true;
  churn.join();
}

TEST_F(KeyIndexTest, RebuildFindsEverything) {
  for (int i = 0; i < 3'000; ++i) Set("key/" + std::to_string(i), std::to_string(i));
  for (int i = 0; i < 3'000; i += 3) Delete("key/" + std::to_string(i));
  // Nonsense in everything that is derived.
  state::StateHead& head = records().head();
  head.keys.free = 77;
  head.keys.high = 5;
  head.keys.used = 9'999;
  head.bucket_count = 64;
  for (uint32_t i = 0; i < 64; ++i) records().bucket(i) = 3;
  head.dirty = 1;
  EXPECT_EQ(Get("key/1"), "1");
  EXPECT_EQ(head.repairs.load(), 1u);
  EXPECT_EQ(store().key_count(), 2'000u);
  for (int i = 0; i < 3'000; ++i) {
    EXPECT_EQ(Get("key/" + std::to_string(i)), i % 3 == 0 ? std::nullopt : std::optional(std::to_string(i)));
  }
  ExpectSound();
  for (int i = 0; i < 3'000; ++i) Set("key/" + std::to_string(i), "again");
  EXPECT_EQ(store().key_count(), 3'000u);
}

}  // namespace
}  // namespace praas::test
