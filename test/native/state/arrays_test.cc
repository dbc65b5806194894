#include <thread>

#include "store_fixture.h"

namespace praas::test {
namespace {

using state::ElementType;
using ArrayTest = StoreTest;

constexpr auto kFloat64 = static_cast<uint32_t>(ElementType::kFloat64);
constexpr auto kInt32 = static_cast<uint32_t>(ElementType::kInt32);

TEST_F(ArrayTest, IsMadeZeroedAndSharedInPlace) {
  Set("filler", std::string(1 << 20, 'f'));  // so that the array gets memory that was used before
  Delete("filler");
  Result<state::Pinned> array = store().Array("grid", kFloat64, 1 << 20, Soon());
  ASSERT_TRUE(array.ok()) << array.status().message();
  EXPECT_EQ(array->bytes, 1u << 20);
  EXPECT_EQ(PinnedText(*array), std::string(1 << 20, '\0'));
  segment().data()[array->offset + 5] = std::byte{42};

  Participant worker(segment(), 1);
  Result<state::Pinned> same = worker.store.Array("grid", kFloat64, 1 << 20, Soon());
  ASSERT_TRUE(same.ok());
  EXPECT_EQ(same->offset, array->offset);
  EXPECT_EQ(same->version, array->version);
  EXPECT_EQ(segment().data()[same->offset + 5], std::byte{42});

  Result<state::KeyInfo> info = store().Stat("grid", Soon());
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->kind, state::KeyKind::kArray);
  EXPECT_EQ(info->element_type, kFloat64);
  worker.store.Unpin(same->pin);
  store().Unpin(array->pin);
  ExpectBlocks(1);
}

TEST_F(ArrayTest, RefusesOtherKindsAndSizes) {
  Set("value", "v");
  EXPECT_EQ(CodeOf(store().Array("value", kInt32, 4, Soon())), Code::kStateType);
  ASSERT_TRUE(store().Array("array", kInt32, 400, Soon()).ok());
  EXPECT_EQ(CodeOf(store().Array("array", kFloat64, 400, Soon())), Code::kStateType);
  EXPECT_EQ(CodeOf(store().Array("array", kInt32, 396, Soon())), Code::kStateRange);
  EXPECT_EQ(CodeOf(store().Array("array", kInt32, 404, Soon())), Code::kStateRange);
  EXPECT_EQ(CodeOf(store().Set("array", AsBytes("x"), {.deadline_ns = Soon()})), Code::kStateType);
  EXPECT_EQ(CodeOf(store().Set("array", AsBytes("x"), {.offset = 0, .deadline_ns = Soon()})), Code::kStateType);
  EXPECT_EQ(CodeOf(store().Append("array", AsBytes("x"), Soon())), Code::kStateType);
  EXPECT_EQ(CodeOf(store().Array("new", 0, 4, Soon())), Code::kArgumentInvalid);
  EXPECT_EQ(CodeOf(store().Array("new", 12, 4, Soon())), Code::kArgumentInvalid);
  EXPECT_EQ(CodeOf(store().Array("new", kInt32, 0, Soon())), Code::kArgumentInvalid);
  EXPECT_EQ(CodeOf(store().Array("new", kInt32, 6, Soon())), Code::kArgumentInvalid);
  EXPECT_EQ(CodeOf(store().Array("new", kFloat64, UINT64_MAX - 7, Soon())), Code::kArgumentInvalid);
  EXPECT_EQ(store().key_count(), 2u);
}

TEST_F(ArrayTest, EveryElementTypeHasItsSize) {
  const std::pair<ElementType, uint64_t> sizes[] = {
      {ElementType::kInt8, 1},     {ElementType::kUint8, 1},    {ElementType::kUint8Clamped, 1},
      {ElementType::kInt16, 2},    {ElementType::kUint16, 2},   {ElementType::kInt32, 4},
      {ElementType::kUint32, 4},   {ElementType::kFloat32, 4},  {ElementType::kFloat64, 8},
      {ElementType::kBigInt64, 8}, {ElementType::kBigUint64, 8}};
  for (const auto& [type, bytes] : sizes) {
    const auto code = static_cast<uint32_t>(type);
    const std::string name = "array" + std::to_string(code);
    if (bytes > 1) {
      EXPECT_EQ(CodeOf(store().Array(name, code, bytes + 1, Soon())), Code::kArgumentInvalid);
    }
    EXPECT_EQ(CodeOf(store().Array(name, code, bytes * 3, Soon())), Code::kOk);
  }
}

TEST_F(ArrayTest, ReadsAndSurvivesDeleteWhilePinned) {
  Result<state::Pinned> array = store().Array("grid", kInt32, 40'000, Soon());
  ASSERT_TRUE(array.ok());
  std::memset(segment().data() + array->offset, 'z', array->bytes);
  EXPECT_EQ(Get("grid"), std::string(40'000, 'z'));
  Delete("grid");
  EXPECT_EQ(PinnedText(*array), std::string(40'000, 'z'));
  Result<state::Pinned> anew = store().Array("grid", kInt32, 40'000, Soon());
  ASSERT_TRUE(anew.ok());
  EXPECT_NE(anew->offset, array->offset);
  EXPECT_GT(anew->version, array->version);
  EXPECT_EQ(PinnedText(*anew), std::string(40'000, '\0'));
  store().Unpin(array->pin);
  ExpectBlocks(1);
}

TEST_F(ArrayTest, IsMadeOnceAmongThreads) {
  std::vector<std::thread> threads;
  std::vector<uint64_t> offsets(4);
  for (size_t t = 0; t < offsets.size(); ++t) {
    threads.emplace_back([&, t] {
      Result<state::Pinned> array = store().Array("grid", kFloat64, 80'000, Soon());
      if (array.ok()) offsets[t] = array->offset;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const uint64_t offset : offsets) EXPECT_EQ(offset, offsets[0]);
  ExpectBlocks(1);
}

}  // namespace
}  // namespace praas::test
