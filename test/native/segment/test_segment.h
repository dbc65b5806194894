#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

#include "segment/segment.h"

namespace praas::test {

/// A name nobody else uses, in this process or another.
inline std::string UniqueSegmentName() {
  static std::atomic<int> count{0};
  return "/praas-test-" + std::to_string(::getpid()) + "-" + std::to_string(count.fetch_add(1));
}

/// A fresh segment that is removed with its object.
class TestSegment {
 public:
  explicit TestSegment(uint64_t memory_bytes, uint64_t pool_bytes = 1u << 20) : name_(UniqueSegmentName()) {
    auto segment = segment::Segment::CreateOrAttach(
        {.name = name_, .process_id = "test", .memory_bytes = memory_bytes, .pool_bytes = pool_bytes, .format = {}});
    if (!segment.ok()) {
      ADD_FAILURE() << segment.status().message();
      ::abort();
    }
    segment_.emplace(std::move(segment).value());
  }
  ~TestSegment() { EXPECT_TRUE(segment::Segment::Unlink(name_).ok()); }
  TestSegment(const TestSegment&) = delete;
  TestSegment& operator=(const TestSegment&) = delete;

  [[nodiscard]] segment::Segment& get() { return *segment_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] uint64_t BackedBytes() const {
    struct stat info {};
    return ::fstat(segment_->fd(), &info) == 0 ? static_cast<uint64_t>(info.st_blocks) * 512 : 0;
  }
  /// Ends the host's hold, as its death would.
  void Leave() { segment_.reset(); }

 private:
  std::string name_;
  std::optional<segment::Segment> segment_;
};

}  // namespace praas::test
