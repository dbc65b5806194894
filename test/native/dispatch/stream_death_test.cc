#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "dispatch/stream_channel.h"
#include "segment/arena_head.h"
#include "support/single_step.h"

/// An end of a stream that dies at any instruction: the blocks of its chunks are found by their call, wherever they
/// are.
namespace praas::dispatch {
namespace {

constexpr uint32_t kCall = 3;

uint64_t Soon() { return DeadlineIn(60'000'000'000); }

class StreamDeathTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string name = "/praas-test-stream-death-" + std::to_string(::getpid());
    auto segment = segment::Segment::CreateOrAttach({.name = name,
                                                     .process_id = "stream",
                                                     .memory_bytes = 1u << 20,
                                                     .pool_bytes = 4u << 20,
                                                     .calls = 64,
                                                     .format = {}});
    ASSERT_TRUE(segment.ok()) << segment.status().message();
    segment_.emplace(std::move(segment).value());
    ASSERT_TRUE(segment::Segment::Unlink(name).ok());
    ASSERT_TRUE(segment_->Commit(segment_->header().streams, 1).ok());
    auto pool = window::Pool::Create(*segment_);
    ASSERT_TRUE(pool.ok()) << pool.status().message();
    pool_ = std::move(pool).value();
  }
  ChunkRing& ring() { return segment_->At<StreamRing>(segment_->header().streams, 0).output; }
  /// A worker's: windows and pools are not inherited.
  std::unique_ptr<window::Pool> MapPool() {
    auto mapped = window::Pool::Map(UniqueFd(::dup(pool_->fd())), *segment_, 1);
    if (!mapped.ok()) ::_exit(8);
    return std::move(mapped).value();
  }
  void Reset() {
    ResetStream(segment_->At<StreamRing>(segment_->header().streams, 0), kCall);
    ASSERT_EQ(pool_->outputs().usage().used_blocks, 0u);
  }
  void ExpectReclaimed() {
    ASSERT_TRUE(
        pool_->outputs()
            .ReclaimIf([](uint32_t, const segment::Block& block) { return block.owner == CallBlockOwner(kCall); },
                       Soon())
            .ok());
    EXPECT_EQ(pool_->outputs().usage().used_blocks, 0u);
    for (const std::string& violation : pool_->outputs().Check()) ADD_FAILURE() << violation;
  }
  test::Parts Shared() {
    const segment::Header& header = segment_->header();
    return {{segment_->base() + header.streams.offset, sizeof(StreamRing)},
            {segment_->base() + header.arena_heads[2], sizeof(segment::ArenaHead)},
            {segment_->base() + header.arena_blocks[2].offset, 8 * sizeof(segment::Block)}};
  }

  std::optional<segment::Segment> segment_;
  std::unique_ptr<window::Pool> pool_;
  std::unique_ptr<window::Pool> victims_;
};

TEST_F(StreamDeathTest, OfTheProducer) {
  const std::vector<std::byte> bytes(500, std::byte{7});
  test::KillAtEveryChange({
      .watched = [&] { return Shared(); },
      .reset = [&] { Reset(); },
      .prepare = [&] { victims_ = MapPool(); },
      .operation =
          [&] {
            ChunkProducer producer(ring(), *victims_, Place::kPoolOutput, kCall);
            if (!producer.Write(bytes, Soon()).ok() || !producer.Write(bytes, Soon()).ok()) ::_exit(9);
            producer.End();
          },
      .verify =
          [&](bool over) {
            // What is in the ring is whole.
            ChunkConsumer consumer(ring(), *pool_, Place::kPoolOutput);
            EXPECT_TRUE(over ? consumer.available() == 2 : consumer.available() <= 2);
            const auto chunk = consumer.Peek();
            ASSERT_TRUE(chunk.ok()) << chunk.status().message();
            if (chunk->has_value()) {
              EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), (*chunk)->bytes.begin(), (*chunk)->bytes.end()));
            }
            ExpectReclaimed();
          },
      .most = 20,
  });
}

TEST_F(StreamDeathTest, OfTheConsumer) {
  const std::vector<std::byte> bytes(500, std::byte{7});
  test::KillAtEveryChange({
      .watched = [&] { return Shared(); },
      .reset =
          [&] {
            Reset();
            ChunkProducer producer(ring(), *pool_, Place::kPoolOutput, kCall);
            for (int i = 0; i < 2; ++i) ASSERT_TRUE(producer.Write(bytes, Soon()).value());
          },
      .prepare = [&] { victims_ = MapPool(); },
      .operation =
          [&] {
            ChunkConsumer consumer(ring(), *victims_, Place::kPoolOutput);
            if (!consumer.Discard(Soon()).ok()) ::_exit(9);
          },
      .verify = [&](bool) { ExpectReclaimed(); },
      .most = 20,
  });
}

}  // namespace
}  // namespace praas::dispatch
