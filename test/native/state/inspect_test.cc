#include "state/inspect.h"

#include <cstring>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "store_fixture.h"

namespace praas::test {
namespace {

using Mode = state::StateStore::LockMode;

class InspectTest : public StoreTest {
 protected:
  std::string Written() {
    JsonWriter json;
    json.BeginObject();
    state::WriteState(segment(), json);
    json.EndObject();
    return json.Take();
  }
  void ExpectHas(const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " is missing in " << text;
  }
};

TEST_F(InspectTest, AnEmptyStore) {
  EXPECT_EQ(
      Written(),
      R"({"state":{"keyCount":0,"buckets":64,"lastVersion":"0","pinCount":0,"lockCount":0,"publicationCount":0,"repairs":0,)"
      R"("keys":[],"locks":[],"publications":[],"truncated":false}})");
}

TEST_F(InspectTest, KeysAndLocks) {
  Set("a \"quoted\" key", "12345");
  ASSERT_TRUE(store().Array("grid", 9, 80, Soon()).ok());
  ASSERT_TRUE(store().Lock("l", Mode::kRead, {0, UINT64_MAX}, Soon()).ok());
  ASSERT_TRUE(store().Lock("l", Mode::kWrite, {3, 8}, Soon()).ok());
  const std::string text = Written();
  ExpectHas(text, R"("keyCount":2)");
  ExpectHas(text, R"({"key":"a \"quoted\" key","kind":"value","elementType":0,"bytes":5,"version":"1","modifiedMs":)");
  ExpectHas(text, R"({"key":"grid","kind":"array","elementType":9,"bytes":80,"version":"2","modifiedMs":)");
  ExpectHas(text, R"("pins":1)");
  ExpectHas(text,
            R"({"name":"l","holders":[{"participant":0,"owner":"18446744073709551615","mode":"read","granted":true},)"
            R"({"participant":3,"owner":"8","mode":"write","granted":false}]})");
}

TEST_F(InspectTest, StopsSomewhere) {
  for (uint32_t i = 0; i < state::kMaxInspected; ++i) Set("key" + std::to_string(i), "v");
  ExpectHas(Written(), R"("truncated":false)");
  Set("one more", "v");
  ExpectHas(Written(), R"("truncated":true)");
}

TEST_F(InspectTest, WhatCannotBeRightIsLeftOut) {
  Set("good", "v");
  Set("bad", "v");
  records().key(2).value = state::ValueRef{.block = 0x7fff'ffff, .kind = state::KeyKind::kValue}.Pack();
  records().head().keys.high = UINT32_MAX;
  const std::string text = Written();
  ExpectHas(text, R"("key":"good")");
  EXPECT_EQ(text.find("\"bad\""), std::string::npos);
  records().head().dirty = 1;  // so that the store is whole again
}

TEST(InspectByName, ReadOnlyAndWithoutTheMutex) {
  const std::string name = "/praas-test-state-inspect-" + std::to_string(::getpid());
  Result<segment::Segment> made = segment::Segment::CreateOrAttach({.name = name,
                                                                    .process_id = "test",
                                                                    .memory_bytes = 1u << 20,
                                                                    .pool_bytes = 1u << 20,
                                                                    .calls = 64,
                                                                    .format = &state::StateStore::Format});
  ASSERT_TRUE(made.ok()) << made.status().message();
  Participant host(*made, 0);
  ASSERT_TRUE(host.store.Set("key", AsBytes("value"), {.deadline_ns = Soon()}).ok());
  ASSERT_EQ(state::Records(*made).head().mutex.Lock(0, Soon()), segment::LockOutcome::kAcquired);
  Result<std::string> text = state::InspectJson(name);
  state::Records(*made).head().mutex.Unlock();
  EXPECT_TRUE(segment::Segment::Unlink(name).ok());
  ASSERT_TRUE(text.ok()) << text.status().message();
  EXPECT_NE(text->find(R"("state":{"keyCount":1,)"), std::string::npos) << *text;
  EXPECT_NE(text->find(R"("unchecked":["state: was in use)"), std::string::npos) << *text;
  EXPECT_NE(text->find(R"("violations":[])"), std::string::npos) << *text;
  EXPECT_EQ(CodeOf(state::InspectJson(name)), Code::kSystem);
}

/// What is found without the mutex, after a write to what only the store writes.
class StateDamageTest : public ::testing::Test {
 protected:
  StateDamageTest() : name_("/praas-test-state-damage-" + std::to_string(::getpid())) {
    Result<segment::Segment> made = segment::Segment::CreateOrAttach({.name = name_,
                                                                      .process_id = "test",
                                                                      .memory_bytes = 1u << 20,
                                                                      .pool_bytes = 1u << 20,
                                                                      .calls = 64,
                                                                      .format = &state::StateStore::Format});
    EXPECT_TRUE(made.ok()) << made.status().message();
    segment_.emplace(std::move(made).value());
    host_.emplace(*segment_, 0);
    for (const char* key : {"a", "b", "c"}) {
      EXPECT_TRUE(host_->store.Set(key, AsBytes("value"), {.deadline_ns = Soon()}).ok());
    }
    EXPECT_TRUE(host_->store.Delete("b", std::nullopt, Soon()).ok());
    EXPECT_TRUE(host_->store.Pin("a", Soon()).ok());
    EXPECT_TRUE(host_->store.Lock("l", Mode::kRead, {0, 1}, Soon()).ok());
    EXPECT_TRUE(host_->store.Lock("l", Mode::kWrite, {3, 8}, Soon()).ok());
  }
  ~StateDamageTest() override { EXPECT_TRUE(segment::Segment::Unlink(name_).ok()); }

  [[nodiscard]] state::Records records() const { return state::Records(*segment_); }
  state::StateHead& head() { return records().head(); }

  std::string Inspected() {
    Result<std::string> text = state::InspectJson(name_, "test");
    EXPECT_TRUE(text.ok()) << text.status().message();
    return text.ok() ? *text : std::string();
  }

  template <typename T, typename Damage>
  void ExpectFinding(T& object, Damage damage, const std::string& what) {
    std::vector<std::byte> before(sizeof object);
    std::memcpy(before.data(), static_cast<void*>(&object), before.size());
    damage(object);
    const std::string text = Inspected();
    EXPECT_NE(text.find(what), std::string::npos) << what << " is missing in " << text;
    std::memcpy(static_cast<void*>(&object), before.data(), before.size());
  }

  std::string name_;
  std::optional<segment::Segment> segment_;
  std::optional<Participant> host_;
};

TEST_F(StateDamageTest, IsNoneInASoundStore) {
  EXPECT_NE(Inspected().find(R"("violations":[])"), std::string::npos) << Inspected();
}

TEST_F(StateDamageTest, Head) {
  using state::StateHead;
  const std::string keys = std::to_string(segment_->header().state_keys.committed.load());
  ExpectFinding(
      head(), [](StateHead& h) { h.keys.high = UINT32_MAX; },
      "state.keys.high: expected at most " + keys + ", found 4294967295");
  ExpectFinding(
      head(), [](StateHead& h) { h.holders.high = 1u << 30; }, "state.holders.high: expected at most ");
  ExpectFinding(
      head(), [](StateHead& h) { h.bucket_count = 0; }, "state.bucket_count: expected 64 … ");
  ExpectFinding(
      head(), [](StateHead& h) { h.dirty.store(2); }, "state.dirty: expected 0 or 1, found 2");
  ExpectFinding(
      head(), [](StateHead& h) { std::memset(static_cast<void*>(&h.mutex), 0, sizeof h.mutex); },
      "state.mutex: expected kind ");
  ExpectFinding(
      head(), [](StateHead& h) { h.keys.free = 7; }, "state.keys.free: leads to record 7 of 3");
  ExpectFinding(
      head(), [](StateHead& h) { h.keys.used.store(9); }, "state keys: 2 published, 9 counted");
  ExpectFinding(
      head(), [](StateHead& h) { h.lock_buckets[5] = 99; }, "state.lock_buckets[5]: leads to record 99 of 1");
  ExpectFinding(
      head(), [](StateHead& h) { h.owner_buckets[0] = 99; }, "state.owner_buckets[0]: leads to record 99 of 2");
  ExpectFinding(
      head(), [](StateHead& h) { h.hash_seed ^= 1; }, "state key 1 has a wrong hash");
}

TEST_F(StateDamageTest, KeysAndPins) {
  using state::KeyEntry;
  using state::PinRecord;
  ExpectFinding(
      records().key(1), [](KeyEntry& k) { k.next = 1; }, "leads to record 1 again");
  ExpectFinding(
      records().key(1), [](KeyEntry& k) { k.next = 1u << 31; }, "leads to record 2147483648 of 3");
  ExpectFinding(
      records().key(1), [](KeyEntry& k) { k.value.store(UINT64_MAX); },
      "state key 1 names a block that is not its value");
  ExpectFinding(
      records().key(1), [](KeyEntry& k) { k.name.bytes[0] = 'x'; }, "state key 1 has a wrong hash");
  ExpectFinding(
      records().key(3), [](KeyEntry& k) { k.unused[7] = 1; }, "state.keys[3].reserved: not zero");
  ExpectFinding(
      records().pin(1),
      [](PinRecord& p) {
        p.word.store(state::PinWord{1, 5000}.Pack());
      },
      "state.pins[1].participant: expected one of ");
  ExpectFinding(
      records().pin(1),
      [](PinRecord& p) {
        p.word.store(state::PinWord{900, 0}.Pack());
      },
      "pin 1 names block 900, which is no value");
  ExpectFinding(
      records().pin(1), [](PinRecord& p) { p.reserved[0] = 1; }, "state.pins[1].reserved: not zero");
  ExpectFinding(
      records().bucket(0), [](uint32_t& b) { b = 4000; }, "state.buckets[0]: leads to record 4000 of 3");
}

TEST_F(StateDamageTest, Locks) {
  using state::HolderWord;
  using state::LockHolder;
  using state::LockRecord;
  ExpectFinding(
      records().lock(1), [](LockRecord& l) { l.first = 50; }, "state.locks[1].first: leads to record 50 of 2");
  ExpectFinding(
      records().lock(1), [](LockRecord& l) { l.next = 1; }, "leads to record 1 again");
  ExpectFinding(
      records().lock(1), [](LockRecord& l) { l.used.store(4); }, "state.locks[1].used: expected 0 or 1, found 4");
  ExpectFinding(
      records().lock(1), [](LockRecord& l) { l.writers = 7; }, "lock 1 is shared with a writer");
  ExpectFinding(
      records().lock(1), [](LockRecord& l) { l.unused[63] = 1; }, "state.locks[1].reserved: not zero");
  ExpectFinding(
      records().holder(2), [](LockHolder& h) { h.next = 2; }, "leads to record 2 again");
  ExpectFinding(
      records().holder(2), [](LockHolder& h) { h.owner_next = 2; }, "leads to record 2 again");
  ExpectFinding(
      records().holder(2), [](LockHolder& h) { h.reserved[1] = 1; }, "state.holders[2].reserved: not zero");
  const auto word = [](HolderWord changed) { return [changed](LockHolder& h) { h.word.store(changed.Pack()); }; };
  using State = state::HolderState;
  ExpectFinding(records().holder(2), word({static_cast<State>(7), 1, 3, 1}), "state.holders[2].state: expected free, ");
  ExpectFinding(records().holder(2), word({State::kWaiting, 9, 3, 1}), "state.holders[2].mode: expected read or write");
  ExpectFinding(records().holder(2), word({State::kWaiting, 1, 5000, 1}),
                "state.holders[2].participant: expected one of ");
  ExpectFinding(records().holder(2), word({State::kWaiting, 1, 3, 77}), "lock holder 2 holds no lock");
}

TEST_F(StateDamageTest, IsLookedForBehindADamagedHeaderToo) {
  segment_->header().state_head = 1;
  const std::string text = Inspected();
  EXPECT_NE(text.find("header.state_head: expected "), std::string::npos) << text;
  EXPECT_NE(text.find(R"("state":{"keyCount":2,)"), std::string::npos) << text;
  EXPECT_NE(text.find(R"({"key":"c",)"), std::string::npos) << text;
}

TEST_F(StateDamageTest, WildWritesNeverCrashAnInspection) {
  std::mt19937 random(2);
  const segment::Header& header = segment_->header();
  const uint64_t places[] = {header.state_head,     header.state_buckets.offset,   header.state_keys.offset,
                             header.pins.offset,    header.locks.offset,           header.lock_holders.offset,
                             header.arena_heads[0], header.arena_blocks[0].offset, header.publications.offset};
  for (int round = 0; round < 300; ++round) {
    const size_t size = 1u << random() % 9;
    std::byte* const at = segment_->base() + places[random() % std::size(places)] + random() % (2048 - size);
    const std::vector<std::byte> before(at, at + size);
    for (size_t i = 0; i < size; ++i) at[i] = static_cast<std::byte>(round % 3 == 0 ? random() % 4 : random());
    (void)state::InspectJson(name_);
    std::memcpy(at, before.data(), size);
  }
  EXPECT_NE(Inspected().find(R"("violations":[])"), std::string::npos);
}

}  // namespace
}  // namespace praas::test
