// A stream's rings into which the other end writes what it likes: a producer and a consumer must stay inside the pool
// and come to an end. The input: the blocks there are, then writes and steps in turn.

#include <algorithm>
#include <memory>
#include <optional>

#include "base/clock.h"
#include "dispatch/stream_channel.h"
#include "segment/segment.h"
#include "support.h"
#include "unnamed_segment.h"
#include "window/pool.h"

namespace {

using namespace praas;
using namespace praas::dispatch;
using fuzz::Check;

constexpr uint64_t kDeadlineNs = 10'000'000'000;

class Target {
 public:
  Target() {
    segment_.emplace(fuzz::UnnamedSegment(4u << 20));
    Check(segment_->Commit(segment_->header().streams, 1).ok());
    auto pool = window::Pool::Create(*segment_);
    Check(pool.ok());
    pool_ = std::move(pool).value();
  }
  [[nodiscard]] StreamRing& ring() { return segment_->At<StreamRing>(segment_->header().streams, 0); }
  [[nodiscard]] window::Pool& pool() { return *pool_; }
  void Clear() {
    for (segment::Arena* arena : {&pool_->inputs(), &pool_->outputs()}) {
      Check(arena->ReclaimIf([](uint32_t, const segment::Block&) { return true; }, DeadlineIn(kDeadlineNs)).ok());
      Check(arena->usage().used_bytes == 0 && arena->Check().empty());
    }
    ResetStream(ring(), 0);
  }

 private:
  std::optional<segment::Segment> segment_;
  std::unique_ptr<window::Pool> pool_;
};

Target& TheTarget() {
  static Target target;
  return target;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Target& target = TheTarget();
  target.Clear();
  fuzz::Input input(data, size);
  ChunkRing& ring = target.ring().input;
  ChunkProducer producer(ring, target.pool(), Place::kPoolInput, 0);
  ChunkConsumer consumer(ring, target.pool(), Place::kPoolInput);
  const uint64_t deadline_ns = DeadlineIn(kDeadlineNs);
  while (!input.empty()) {
    switch (input.Take<uint8_t>() % 6) {
      case 0: {
        const fuzz::Patch patch = fuzz::TakePatch(&input);
        const size_t at = patch.offset % sizeof ring;
        std::copy_n(patch.bytes.begin(), std::min(patch.bytes.size(), sizeof ring - at),
                    reinterpret_cast<std::byte*>(&ring) + at);
        break;
      }
      case 1:
        (void)producer.Write(input.Take(input.Take<uint8_t>()), deadline_ns);
        break;
      case 2: {
        const auto chunk = consumer.Peek();
        if (!chunk.ok() || !chunk->has_value()) break;
        Check((*chunk)->bytes.size() <= kStreamChunkBytes);
        std::vector<std::byte> copy((*chunk)->bytes.begin(), (*chunk)->bytes.end());  // all of it is there
        (void)consumer.Release((*chunk)->ref, deadline_ns);
        break;
      }
      case 3:
        (void)consumer.Discard(deadline_ns);
        break;
      case 4:
        producer.End();
        break;
      default:
        Check(producer.room() <= kStreamChunks && consumer.available() <= kStreamChunks);
        (void)consumer.end();
    }
  }
  return 0;
}
