#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "publication/area.h"
#include "publication/reader.h"
#include "publication/words.h"
#include "publication/writer.h"

namespace praas::publication {

/// An area with one block, at its second page.
struct Block {
  explicit Block(uint64_t capacity = CapacityOf(1), uint64_t id = 7)
      : area(Area::Create(kMinAreaBytes + PagesFor(capacity) * kPageBytes).value()),
        location{.id = id, .offset = kPageBytes, .capacity = CapacityOf(PagesFor(capacity))} {
    EXPECT_TRUE(area.Commit(area.bytes()).ok());
    Writer(memory()).Open(id);
  }
  [[nodiscard]] std::span<std::byte> memory() const { return area.BlockAt(location.offset, location.capacity); }
  [[nodiscard]] Writer writer() const { return Writer(memory()); }
  void Write(uint64_t version, std::string_view value) const {
    Writer to = writer();
    to.Supersede(version);
    to.Begin();
    to.Fill(std::as_bytes(std::span(value)));
    to.Finish(version);
  }
  void WriteNothing(uint64_t version, Flags why) const {
    Writer to = writer();
    to.Supersede(version);
    to.Begin();
    to.FinishWithout(version, why);
  }

  Area area;
  Location location;
};

/// What a reader got, its value copied.
struct Got {
  Verdict verdict;
  uint64_t version;
  bool absent;
  std::string value;

  friend bool operator==(const Got&, const Got&) = default;
};
inline Got Copied(const Outcome& outcome) {
  return {outcome.verdict,
          outcome.version,
          outcome.absent,
          {reinterpret_cast<const char*>(outcome.value.data()), outcome.value.size()}};
}

inline Got Mapped(std::span<const std::byte> area, const Location& location) {
  std::vector<std::byte> memory;
  return Copied(ReadMapped(area, location, [&](uint64_t bytes) {
    memory.resize(bytes);
    return std::span(memory);
  }));
}

/// A device whose looks at the words of a block have no order among each other.
class Device {
 public:
  explicit Device(std::span<const std::byte> area, uint32_t seed = 1) : area_(area), random_(seed) {}

  std::span<const std::byte> operator()(const Location& location, uint64_t bytes) {
    const uint64_t words = (bytes + kWordBytes - 1) / kWordBytes;
    order_.resize(words);
    for (uint64_t i = 0; i < words; ++i) order_[i] = static_cast<uint32_t>(i);
    // Smaller than anything a device moves at a time.
    for (uint64_t i = words; i > 1; --i) std::swap(order_[i - 1], order_[random_() % i]);
    memory_.resize(words * kWordBytes);
    for (const uint32_t word : order_) {
      CopyFromShared(memory_.data() + word * kWordBytes, area_.data() + location.offset + word * kWordBytes,
                     kWordBytes);
    }
    ++fetches_;
    return std::span(memory_).first(bytes);
  }
  [[nodiscard]] uint32_t fetches() const noexcept { return fetches_; }

 private:
  std::span<const std::byte> area_;
  std::minstd_rand random_;
  std::vector<uint32_t> order_;
  std::vector<std::byte> memory_;
  uint32_t fetches_ = 0;
};

inline Got FetchedFrom(std::span<const std::byte> area, const Location& location, uint64_t expected = 0) {
  Device device(area);
  return Copied(ReadFetched(std::ref(device), location, expected));
}

}  // namespace praas::publication
