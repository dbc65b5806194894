#include "publication/published_reads.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "block.h"

namespace praas::publication {
namespace {

/// What reads over a mapping and over a device have in common.
class PublishedReadsTest : public ::testing::TestWithParam<bool> {
 protected:
  PublishedReadsTest() : device_(block_.area.memory()) {
    if (GetParam()) {
      reads_.UseArea(block_.area.memory());
    } else {
      reads_.UseDevice(std::ref(device_));
      block_.location.address = 4096;
    }
  }
  Got Read(std::string_view key) {
    std::vector<std::byte> memory;
    return Copied(reads_.Read(key, [&](uint64_t bytes) {
      memory.resize(bytes);
      return std::span(memory);
    }));
  }

  Block block_;
  Device device_;
  PublishedReads reads_;
};

const Got kAsk{Verdict::kAsk, 0, false, ""};

TEST_P(PublishedReadsTest, KnowsWhatTheHostHasTold) {
  block_.Write(5, "value");
  EXPECT_EQ(Read("key"), kAsk);
  reads_.Learn("key", block_.location);
  EXPECT_EQ(reads_.Find("key"), block_.location);
  EXPECT_EQ(Read("key"), (Got{Verdict::kRead, 5, false, "value"}));
  EXPECT_EQ(Read("other"), kAsk);
  block_.Write(6, std::string(3'000, 'x'));
  EXPECT_EQ(Read("key"), (Got{Verdict::kRead, 6, false, std::string(3'000, 'x')}));
  block_.Write(7, "");
  EXPECT_EQ(Read("key"), (Got{Verdict::kRead, 7, false, ""}));
  block_.WriteNothing(8, kAbsent);
  EXPECT_EQ(Read("key"), (Got{Verdict::kRead, 8, true, ""}));
  EXPECT_EQ(reads_.reads(), 4u);
  reads_.Learn("key", std::nullopt);
  EXPECT_EQ(Read("key"), kAsk);
}

TEST_P(PublishedReadsTest, ForgetsWhatHasMoved) {
  block_.Write(5, "value");
  reads_.Learn("key", block_.location);
  block_.writer().Open(block_.location.id + 1);
  EXPECT_EQ(Read("key"), kAsk);
  block_.writer().Open(block_.location.id);
  block_.Write(6, "value");
  EXPECT_EQ(Read("key"), kAsk) << "the host has to say where it is first";
  EXPECT_EQ(reads_.reads(), 0u);
}

TEST_P(PublishedReadsTest, AsksAndKeepsThePlaceWhileAValueIsElsewhere) {
  reads_.Learn("key", block_.location);
  block_.WriteNothing(5, kElsewhere);
  EXPECT_EQ(Read("key"), kAsk);
  block_.Write(6, "back");
  EXPECT_EQ(Read("key").value, "back");
}

TEST_P(PublishedReadsTest, BelievesNoPlaceOutsideTheArea) {
  block_.Write(5, "value");
  const Location place = block_.location;
  for (const Location wrong :
       {Location{place.id, place.offset + 8, place.capacity}, Location{place.id, kMaxAreaBytes, place.capacity},
        Location{place.id, place.offset, UINT64_MAX - 7}, Location{0, place.offset, place.capacity}}) {
    reads_.Learn("key", wrong);
    EXPECT_EQ(Read("key"), kAsk);
  }
}

TEST_P(PublishedReadsTest, ADeviceReadsOnlyWhatHasAnAddress) {
  block_.Write(5, "value");
  Location place = block_.location;
  place.address = 0;
  reads_.Learn("key", place);
  EXPECT_EQ(Read("key").verdict, GetParam() ? Verdict::kRead : Verdict::kAsk);
}

TEST_P(PublishedReadsTest, IsBounded) {
  constexpr uint32_t kMany = 5'000;
  block_.Write(5, "value");
  for (uint32_t i = 0; i < 2 * kMany + 1; ++i) {
    reads_.Learn(std::to_string(i), block_.location);
  }
  EXPECT_EQ(Read("0"), kAsk);
  EXPECT_EQ(Read(std::to_string(2 * kMany)).value, "value");
}

INSTANTIATE_TEST_SUITE_P(Over, PublishedReadsTest, ::testing::Bool(),
                         [](const auto& of) { return of.param ? "mapping" : "device"; });

TEST(PublishedReads, WithoutAWayToReadEverythingIsAsked) {
  PublishedReads reads;
  reads.Learn("key", Location{.id = 1, .offset = 0, .capacity = 4032});
  const auto none = [](uint64_t) { return std::span<std::byte>(); };
  EXPECT_EQ(reads.Read("key", none).verdict, Verdict::kAsk);
}

}  // namespace
}  // namespace praas::publication
