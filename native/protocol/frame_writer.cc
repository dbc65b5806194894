#include "protocol/frame_writer.h"

#include <algorithm>
#include <array>
#include <utility>

namespace praas::protocol {

FrameWriter::Run& FrameWriter::RunForPacking(size_t bytes) {
  if (runs_.empty() || !runs_.back().payload.empty() || runs_.back().packed.size() + bytes > kPackBytes) {
    Run& run = runs_.emplace_back();
    run.packed = std::exchange(spare_, {});
  }
  return runs_.back();
}

void FrameWriter::Push(Frame frame, std::span<const std::byte> payload, Done done, std::span<const std::byte> prefix) {
  frame.payload_bytes = prefix.size() + payload.size();
  if (checksum_ && frame.payload_bytes > 0) {
    frame.flags |= kPayloadChecksum;
    frame.payload_crc = Crc32c(payload, Crc32c(prefix));
  }
  const bool direct = payload.size() >= kDirectBytes;
  Run& run = RunForPacking(kHeaderBytes + prefix.size() + (direct ? 0 : payload.size()));
  const size_t at = run.packed.size();
  run.packed.resize(at + kHeaderBytes);
  EncodeHeader(frame, std::span<std::byte, kHeaderBytes>(run.packed.data() + at, kHeaderBytes));
  run.packed.insert(run.packed.end(), prefix.begin(), prefix.end());
  (prefix.size() < kDirectBytes ? staged_bytes_ : copied_bytes_) += prefix.size();
  queued_bytes_ += kHeaderBytes + frame.payload_bytes;
  ++frames_;
  if (direct) {
    run.payload = payload;
    run.done = std::move(done);
    run.last_frame_at = at;
    run.type = frame.type;
    run.call = frame.call;
    return;
  }
  run.packed.insert(run.packed.end(), payload.begin(), payload.end());
  staged_bytes_ += payload.size();
  if (done) done(Status::Ok());
}

Result<bool> FrameWriter::Flush(transport::ByteStream& stream) {
  while (!runs_.empty()) {
    std::array<iovec, kMaxParts> parts;
    size_t count = 0;
    size_t offered = 0;
    for (const Run& run : runs_) {
      if (count + 2 > kMaxParts) break;
      const size_t packed_sent = std::min(run.sent, run.packed.size());
      const size_t payload_sent = run.sent - packed_sent;
      if (packed_sent < run.packed.size()) {
        parts[count++] = {const_cast<std::byte*>(run.packed.data()) + packed_sent, run.packed.size() - packed_sent};
      }
      if (payload_sent < run.payload.size()) {
        parts[count++] = {const_cast<std::byte*>(run.payload.data()) + payload_sent, run.payload.size() - payload_sent};
      }
      offered += run.size() - run.sent;
    }
    ++writes_;
    Result<size_t> written = stream.Write(std::span<const iovec>(parts.data(), count));
    if (!written.ok()) return written.status();
    Consume(*written);
    // A short write means that the stream is full; asking again would only cost a system call.
    if (*written < offered) return false;
  }
  return true;
}

void FrameWriter::Consume(size_t bytes) {
  // Callbacks run when all runs know what was sent of them: they may push, withdraw or abort.
  std::vector<Done> finished;
  queued_bytes_ -= bytes;
  while (bytes > 0) {
    Run& run = runs_.front();
    const size_t take = std::min(bytes, run.size() - run.sent);
    const size_t payload_before = run.sent - std::min(run.sent, run.packed.size());
    run.sent += take;
    bytes -= take;
    const size_t payload_after = run.sent - std::min(run.sent, run.packed.size());
    if (run.payload_copy.empty()) direct_bytes_ += payload_after - payload_before;
    if (run.sent < run.size()) break;
    if (run.done) finished.push_back(std::move(run.done));
    if (run.packed.capacity() > spare_.capacity() && run.packed.capacity() <= 2 * kPackBytes) {
      spare_ = std::move(run.packed);
      spare_.clear();
    }
    runs_.pop_front();
  }
  for (const Done& done : finished) done(Status::Ok());
}

bool FrameWriter::Withdraw(FrameType type, uint64_t call) {
  const auto run = std::find_if(runs_.begin(), runs_.end(), [&](const Run& candidate) {
    return !candidate.payload.empty() && candidate.call == call && candidate.type == type;
  });
  if (run == runs_.end()) return false;
  if (run->sent > run->last_frame_at) {
    OwnPayload(*run);
    return false;
  }
  queued_bytes_ -= run->size() - run->last_frame_at;
  --frames_;
  run->packed.resize(run->last_frame_at);
  run->payload = {};
  run->payload_copy.clear();
  run->done = {};
  if (run->sent == run->packed.size()) runs_.erase(run);
  return true;
}

void FrameWriter::Detach(FrameType type, uint64_t call) {
  for (Run& run : runs_) {
    if (!run.payload.empty() && run.call == call && run.type == type) OwnPayload(run);
  }
}

void FrameWriter::OwnPayload(Run& run) {
  run.done = {};
  if (!run.payload_copy.empty()) return;
  run.payload_copy.assign(run.payload.begin(), run.payload.end());
  copied_bytes_ += run.payload.size();
  run.payload = run.payload_copy;
}

void FrameWriter::Abort(const Status& status) {
  std::deque<Run> runs = std::exchange(runs_, {});
  queued_bytes_ = 0;
  for (Run& run : runs) {
    if (run.done) run.done(status);
  }
}

}  // namespace praas::protocol
