#include "worker/streams.h"

#include <mutex>
#include <utility>

#include "base/clock.h"

namespace praas::worker {
namespace {

bool Answered(const Running& record) noexcept { return (record.word.load(std::memory_order_acquire) & kAnswered) != 0; }

Status Late() { return Status(Code::kInvocationTimeout, "the deadline of the streaming call has passed"); }

}  // namespace

dispatch::StreamRing& Streams::RingOf(const Running& record) const noexcept {
  return core_.segment.At<dispatch::StreamRing>(core_.segment.header().streams, record.stream - 1);
}

Status Streams::ReleaseChunk(Running& record) {
  if (record.chunk.place == dispatch::Place::kNone) return Status::Ok();
  dispatch::ChunkConsumer input(RingOf(record).input, *core_.pool, dispatch::Place::kPoolInput);
  const dispatch::PayloadRef chunk = std::exchange(record.chunk, {});
  return input.Release(chunk, DeadlineIn(kArenaWaitNs));
}

std::optional<Streams::Chunk> Streams::Next(Running& record) {
  bool released = false;
  std::optional<Chunk> next;
  {
    const std::lock_guard lock(core_.mutex);
    if (Answered(record)) return Chunk{{}, true, Late()};
    released = record.chunk.place != dispatch::Place::kNone;
    if (Status status = ReleaseChunk(record); !status.ok()) return Chunk{{}, true, std::move(status)};

    dispatch::ChunkConsumer input(RingOf(record).input, *core_.pool, dispatch::Place::kPoolInput);
    auto chunk = input.Peek();
    if (!chunk.ok()) {
      next = Chunk{{}, true, chunk.status()};
    } else if (input.aborted()) {
      next = Chunk{{}, true, Status(Code::kStreamAborted, "the caller has aborted its stream")};
    } else if (chunk->has_value()) {
      record.chunk = (*chunk)->ref;
      Core::Count(core_.me.counters.bytes_in, (*chunk)->bytes.size());
      next = Chunk{(*chunk)->bytes, false, Status::Ok()};
    } else if (input.end() == dispatch::StreamEnd::kEnded) {
      next = Chunk{{}, true, Status::Ok()};
    }
  }
  if (released) NotifyHost();  // there is room again
  return next;
}

Result<bool> Streams::Write(Running& record, std::span<const std::byte> bytes) {
  {
    const std::lock_guard lock(core_.mutex);
    if (Answered(record)) return Late();
    dispatch::ChunkProducer output(RingOf(record).output, *core_.pool, dispatch::Place::kPoolOutput, record.index);
    auto written = output.Write(bytes, DeadlineIn(kArenaWaitNs));
    if (!written.ok() || !*written) return written;
    Core::Count(core_.me.counters.bytes_out, bytes.size());
    Core::Count(
        bytes.size() <= dispatch::kSlotOutputBytes ? core_.me.counters.staged_bytes : core_.me.counters.copied_bytes,
        bytes.size());
  }
  NotifyHost();
  return true;
}

void Streams::Finish(Running& record, dispatch::StreamEnd how) {
  const std::lock_guard lock(core_.mutex);
  if (Answered(record)) return;
  (void)ReleaseChunk(record);
  dispatch::ChunkProducer output(RingOf(record).output, *core_.pool, dispatch::Place::kPoolOutput, record.index);
  if (how == dispatch::StreamEnd::kEnded) {
    output.End();
  } else {
    output.Abort();
  }
}

void Streams::Expire(Running& record) {
  dispatch::ChunkProducer output(RingOf(record).output, *core_.pool, dispatch::Place::kPoolOutput, record.index);
  output.Abort();
  // The function may still read the chunk in hand. Its block is the host's to free now; what it reads is of no more
  // use.
  record.chunk = {};
}

}  // namespace praas::worker
