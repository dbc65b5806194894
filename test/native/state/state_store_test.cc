#include "state/state_store.h"

#include <algorithm>

#include "store_fixture.h"

namespace praas::test {
namespace {

using state::KeyInfo;
using state::KeyKind;
using ValueTest = StoreTest;

TEST_F(ValueTest, GetsWhatWasSet) {
  const uint64_t before = WallNs();
  const uint64_t version = Set("greeting", "hello");
  KeyInfo info;
  Result<std::vector<std::byte>> value = store().Get("greeting", Soon(), &info);
  ASSERT_TRUE(value.ok());
  EXPECT_EQ(AsText(*value), "hello");
  EXPECT_EQ(info.key, "greeting");
  EXPECT_EQ(info.kind, KeyKind::kValue);
  EXPECT_EQ(info.element_type, 0u);
  EXPECT_EQ(info.bytes, 5u);
  EXPECT_EQ(info.version, version);
  EXPECT_GE(info.modified_wall_ns, before);
  EXPECT_EQ(store().key_count(), 1u);
}

TEST_F(ValueTest, ReplacesAndFreesTheOldBlock) {
  const uint64_t first = Set("key", "one");
  const uint64_t second = Set("key", std::string(100'000, 'x'));
  EXPECT_GT(second, first);
  EXPECT_EQ(Get("key"), std::string(100'000, 'x'));
  ExpectBlocks(1);
}

TEST_F(ValueTest, KeepsEmptyValues) {
  Set("empty", "");
  EXPECT_EQ(Get("empty"), "");
  EXPECT_EQ(store().Stat("empty", Soon())->bytes, 0u);
}

TEST_F(ValueTest, SizesAroundWhatIsCopiedInsideASection) {
  for (const size_t bytes : {4095u, 4096u, 4097u, 8192u, 1'000'000u}) {
    std::string value(bytes, '\0');
    for (size_t i = 0; i < bytes; ++i) value[i] = static_cast<char>(i * 31 + bytes);
    Set("sized", value);
    EXPECT_EQ(Get("sized"), value);
  }
}

TEST_F(ValueTest, AbsentKeys) {
  EXPECT_EQ(CodeOf(store().Get("none", Soon())), Code::kStateNotFound);
  EXPECT_EQ(CodeOf(store().Stat("none", Soon())), Code::kStateNotFound);
  EXPECT_EQ(CodeOf(store().Pin("none", Soon())), Code::kStateNotFound);
  std::byte out[4];
  EXPECT_EQ(CodeOf(store().Read("none", 0, out, Soon())), Code::kStateNotFound);
  Result<bool> deleted = store().Delete("none", std::nullopt, Soon());
  ASSERT_TRUE(deleted.ok());
  EXPECT_FALSE(*deleted);
}

TEST_F(ValueTest, RefusesBadNames) {
  const std::string longest(255, 'k');
  Set(longest, "fits");
  EXPECT_EQ(Get(longest), "fits");
  for (const std::string& name :
       {std::string(), std::string(256, 'k'), std::string("\xff\xfe"), std::string("\xc3"), std::string("a\0b", 3)}) {
    EXPECT_EQ(CodeOf(store().Set(name, AsBytes("x"), {.deadline_ns = Soon()})), Code::kNameInvalid);
    EXPECT_EQ(CodeOf(store().Get(name, Soon())), Code::kNameInvalid);
    EXPECT_EQ(CodeOf(store().Append(name, AsBytes("x"), Soon())), Code::kNameInvalid);
    EXPECT_EQ(CodeOf(store().Delete(name, std::nullopt, Soon())), Code::kNameInvalid);
    EXPECT_EQ(CodeOf(store().Stat(name, Soon())), Code::kNameInvalid);
    EXPECT_EQ(CodeOf(store().Pin(name, Soon())), Code::kNameInvalid);
    EXPECT_EQ(CodeOf(store().Array(name, 2, 8, Soon())), Code::kNameInvalid);
    EXPECT_EQ(CodeOf(store().Lock(name, state::StateStore::LockMode::kRead, {0, 1}, Soon())), Code::kNameInvalid);
  }
  Set("schlüssel/鍵", "ok");
  EXPECT_EQ(Get("schlüssel/鍵"), "ok");
}

TEST_F(ValueTest, ComparesAndSets) {
  const auto set = [&](uint64_t if_version, std::string_view value) {
    return store().Set("cas", AsBytes(value), {.if_version = if_version, .deadline_ns = Soon()});
  };
  EXPECT_EQ(CodeOf(set(7, "x")), Code::kStateVersion);
  Result<uint64_t> first = set(0, "a");
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(CodeOf(set(0, "b")), Code::kStateVersion);
  EXPECT_EQ(Get("cas"), "a");
  Result<uint64_t> second = set(*first, "c");
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(CodeOf(set(*first, "d")), Code::kStateVersion);
  EXPECT_EQ(Get("cas"), "c");
  EXPECT_EQ(CodeOf(store().Delete("cas", *first, Soon())), Code::kStateVersion);
  EXPECT_EQ(CodeOf(store().Delete("cas", 0, Soon())), Code::kStateVersion);
  Result<bool> deleted = store().Delete("cas", *second, Soon());
  ASSERT_TRUE(deleted.ok());
  EXPECT_TRUE(*deleted);
  ExpectBlocks(0);
}

TEST_F(ValueTest, NeverReusesVersions) {
  const uint64_t first = Set("key", "a");
  Delete("key");
  EXPECT_EQ(Get("key"), std::nullopt);
  EXPECT_EQ(store().key_count(), 0u);
  const uint64_t second = Set("key", "a");
  EXPECT_GT(second, first);
  EXPECT_EQ(CodeOf(store().Set("key", AsBytes("b"), {.if_version = first, .deadline_ns = Soon()})),
            Code::kStateVersion);
}

TEST_F(ValueTest, ReadsParts) {
  Set("text", "0123456789");
  std::byte out[4];
  Result<uint64_t> read = store().Read("text", 3, out, Soon());
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(AsText({out, *read}), "3456");
  read = store().Read("text", 8, out, Soon());
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(AsText({out, *read}), "89");
  read = store().Read("text", 10, out, Soon());
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(*read, 0u);
  EXPECT_EQ(CodeOf(store().Read("text", 11, out, Soon())), Code::kStateRange);
  EXPECT_EQ(CodeOf(store().Read("text", UINT64_MAX, out, Soon())), Code::kStateRange);

  const std::string large(50'000, 'l');
  Set("text", "ab" + large + "yz");
  std::vector<std::byte> most(50'003);
  read = store().Read("text", 1, most, Soon());
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(AsText({most.data(), *read}), "b" + large + "yz");
}

TEST_F(ValueTest, MemoryLimitIsAnErrorThatPasses) {
  const std::string megabyte(1 << 20, 'm');
  int stored = 0;
  Status status;
  for (; stored < 1000; ++stored) {
    Result<uint64_t> version = store().Set("m" + std::to_string(stored), AsBytes(megabyte), {.deadline_ns = Soon()});
    if (version.ok()) continue;
    status = version.status();
    break;
  }
  EXPECT_EQ(status.code(), Code::kStateMemory) << status.message();
  EXPECT_GT(stored, 50);
  EXPECT_LT(stored, 65);
  EXPECT_EQ(Get("m0"), megabyte);
  EXPECT_EQ(CodeOf(store().Append("m0", AsBytes(megabyte), Soon())), Code::kStateMemory);
  EXPECT_EQ(CodeOf(store().Array("array", 2, 2 << 20, Soon())), Code::kStateMemory);
  EXPECT_EQ(Get("array"), std::nullopt);
  Delete("m0");
  Set("again", megabyte);
  EXPECT_EQ(CodeOf(store().Set("whole", AsBytes(std::string(65 << 20, 'w')), {.deadline_ns = Soon()})),
            Code::kStateMemory);
  for (int i = 1; i < stored; ++i) Delete("m" + std::to_string(i));
  Delete("again");
  ExpectBlocks(0);
}

TEST_F(ValueTest, ReportsAMutexThatIsNotReleased) {
  Set("key", "value");
  ASSERT_EQ(records().head().mutex.Lock(1, Soon()), segment::LockOutcome::kAcquired);
  EXPECT_EQ(CodeOf(store().Get("key", NowNs())), Code::kSegmentStuck);
  EXPECT_EQ(CodeOf(store().Set("key", AsBytes("x"), {.deadline_ns = NowNs()})), Code::kSegmentStuck);
  EXPECT_EQ(CodeOf(store().Append("key", AsBytes("x"), NowNs())), Code::kSegmentStuck);
  EXPECT_EQ(CodeOf(store().Delete("key", std::nullopt, NowNs())), Code::kSegmentStuck);
  EXPECT_EQ(CodeOf(store().Keys("", "", 10, NowNs())), Code::kSegmentStuck);
  EXPECT_EQ(CodeOf(store().Array("array", 2, 64, NowNs())), Code::kSegmentStuck);
  EXPECT_EQ(CodeOf(store().Lock("lock", state::StateStore::LockMode::kRead, {0, 1}, NowNs())), Code::kSegmentStuck);
  records().head().mutex.Unlock();
  EXPECT_EQ(Get("key"), "value");
  ExpectBlocks(1);
}

}  // namespace
}  // namespace praas::test
