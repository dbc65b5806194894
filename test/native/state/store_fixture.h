#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "publication/area.h"
#include "segment/arena.h"
#include "segment/segment.h"
#include "state/records.h"
#include "state/state_store.h"

namespace praas::test {

inline std::span<const std::byte> AsBytes(std::string_view text) { return std::as_bytes(std::span(text)); }
inline std::string AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
/// Far enough that only a hang meets it.
inline uint64_t Soon() { return DeadlineIn(60'000'000'000u); }

/// One participant's view of a segment: what an OS process has.
struct Participant {
  Participant(const segment::Segment& segment, uint16_t self, const publication::Area* area = nullptr)
      : arena(segment::Arena::Data(segment, self)), store(segment, arena, self, area) {}
  segment::Arena arena;
  state::StateStore store;
};

/// A fresh segment with an empty store and a publication area, as its host has them. Forked children map the same.
struct TestStore {
  explicit TestStore(uint64_t memory_bytes)
      : segment(Make(memory_bytes)), area(publication::Area::Create(kAreaBytes).value()) {
    host.emplace(segment, 0, &area);
  }
  TestStore(const TestStore&) = delete;

  static constexpr uint64_t kAreaBytes = 1u << 20;
  segment::Segment segment;
  publication::Area area;
  std::optional<Participant> host;

 private:
  static segment::Segment Make(uint64_t memory_bytes) {
    static std::atomic<uint32_t> counter{0};
    const std::string name = "/praas-test-state-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
    Result<segment::Segment> created = segment::Segment::CreateOrAttach({.name = name,
                                                                         .process_id = "test",
                                                                         .memory_bytes = memory_bytes,
                                                                         .pool_bytes = 1u << 20,
                                                                         .calls = 64,
                                                                         .format = &state::StateStore::Format});
    if (!created.ok()) {
      ADD_FAILURE() << created.status().message();
      ::_exit(1);
    }
    (void)segment::Segment::Unlink(name).ok();
    return std::move(created).value();
  }
};

/// One store, seen by participant 0.
class StoreTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kMemoryBytes = 64ull << 20;
  static constexpr uint64_t kAreaBytes = TestStore::kAreaBytes;
  explicit StoreTest(uint64_t memory_bytes = kMemoryBytes) : own_(memory_bytes) {}

  ~StoreTest() override { ExpectSound(); }

  void ExpectSound() {
    for (const std::string& violation : store().Check()) ADD_FAILURE() << violation;
    for (const std::string& violation : arena().Check()) ADD_FAILURE() << violation;
  }
  /// Every block is a key's value, pinned, or gone.
  void ExpectBlocks(uint32_t count) { EXPECT_EQ(arena().usage().used_blocks, count); }

  [[nodiscard]] state::StateStore& store() { return seen_->host->store; }
  [[nodiscard]] segment::Arena& arena() { return seen_->host->arena; }
  [[nodiscard]] const publication::Area& area() const { return seen_->area; }
  [[nodiscard]] const segment::Segment& segment() const { return seen_->segment; }
  [[nodiscard]] state::Records records() const { return state::Records(seen_->segment); }

  uint64_t Set(std::string_view key, std::string_view value) {
    Result<uint64_t> version = store().Set(key, AsBytes(value), {.deadline_ns = Soon()});
    EXPECT_TRUE(version.ok()) << version.status().message();
    return version.ok() ? *version : 0;
  }
  std::optional<std::string> Get(std::string_view key) {
    Result<std::vector<std::byte>> value = store().Get(key, Soon());
    if (value.ok()) return AsText(*value);
    EXPECT_EQ(value.status().code(), Code::kStateNotFound) << value.status().message();
    return std::nullopt;
  }
  void Delete(std::string_view key) {
    Result<bool> deleted = store().Delete(key, std::nullopt, Soon());
    ASSERT_TRUE(deleted.ok()) << deleted.status().message();
    EXPECT_TRUE(*deleted);
  }
  std::string PinnedText(const state::Pinned& pinned) {
    return AsText({segment().data() + pinned.offset, pinned.bytes});
  }
  uint64_t Append(std::string_view key, std::string_view value) {
    Result<uint64_t> version = store().Append(key, AsBytes(value), Soon());
    EXPECT_TRUE(version.ok()) << version.status().message();
    return version.ok() ? *version : 0;
  }

  TestStore own_;
  TestStore* seen_ = &own_;  // what all of the above is about
};

template <typename T>
Code CodeOf(const Result<T>& result) {
  return result.ok() ? Code::kOk : result.status().code();
}

}  // namespace praas::test
