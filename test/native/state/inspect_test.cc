#include "state/inspect.h"

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
  EXPECT_EQ(Written(),
            R"({"state":{"keyCount":0,"buckets":64,"lastVersion":"0","pinCount":0,"lockCount":0,"repairs":0,)"
            R"("keys":[],"locks":[],"truncated":false}})");
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
  EXPECT_NE(text->find(R"("violations":[])"), std::string::npos) << *text;
  EXPECT_EQ(CodeOf(state::InspectJson(name)), Code::kSystem);
}

}  // namespace
}  // namespace praas::test
