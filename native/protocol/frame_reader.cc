#include "protocol/frame_reader.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace praas::protocol {

std::optional<uint64_t> FrameReader::current_call() const noexcept {
  if (!frame_ || !placed_ || kind_ != Placement::Kind::kInto) return std::nullopt;
  return frame_->call;
}

void FrameReader::DiscardCurrent() noexcept {
  if (!frame_ || !placed_) return;
  kind_ = Placement::Kind::kDiscard;
  target_ = {};
}

Result<FrameReader::State> FrameReader::Read(transport::ByteStream& stream, FrameSink& sink, size_t budget) {
  size_t taken = 0;
  bool drained = false;
  while (true) {
    // Serve what is buffered before reading more, and before saying that nothing is there.
    while (true) {
      Result<bool> advanced = Advance(sink);
      if (!advanced.ok()) return advanced.status();
      if (!*advanced) break;
    }
    if (frame_ && !placed_) return State::kPaused;
    if (drained) return State::kDrained;
    if (taken >= budget) return State::kMore;
    Result<size_t> got = Fill(stream);
    if (!got.ok()) return Lost(got.status());
    drained = *got == 0 || (short_ && stream.ShortReadsDrain());
    taken += *got;
  }
}

/// One step with buffered bytes: a header, a placement or a finished frame. false: needs bytes, or the sink.
Result<bool> FrameReader::Advance(FrameSink& sink) {
  if (!frame_) {
    if (buffered() < kHeaderBytes) return false;
    Result<Frame> frame =
        DecodeHeader(std::span<const std::byte, kHeaderBytes>(staging_.get() + begin_, kHeaderBytes), max_payload_);
    if (!frame.ok()) return frame.status();
    begin_ += kHeaderBytes;
    frame_ = *frame;
    placed_ = false;
    received_ = 0;
  }
  if (!placed_) {
    Result<bool> placed = Place(sink);
    if (!placed.ok() || !*placed) return placed;
  }
  TakeBuffered();
  // A small payload without a place of its own is complete when it lies in the staging buffer as a whole.
  const bool in_staging = kind_ == Placement::Kind::kScratch && frame_->payload_bytes < kDirectBytes;
  if (in_staging ? buffered() < frame_->payload_bytes : received_ < frame_->payload_bytes) return false;
  if (Status status = Finish(sink); !status.ok()) return status;
  return true;
}

Result<bool> FrameReader::Place(FrameSink& sink) {
  Result<Placement> placement = sink.OnHeader(*frame_);
  if (!placement.ok()) return placement.status();
  if (placement->kind == Placement::Kind::kNotNow) return false;
  placed_ = true;
  kind_ = placement->kind;
  target_ = {};
  const uint64_t bytes = frame_->payload_bytes;
  if (kind_ == Placement::Kind::kInto) {
    if (placement->into.size() < bytes) return Status(Code::kInternal, "a payload was placed in too little memory");
    target_ = placement->into.first(bytes);
  } else if (kind_ == Placement::Kind::kScratch && bytes >= kDirectBytes) {
    if (scratch_bytes_ < bytes) {
      scratch_bytes_ = std::bit_ceil(static_cast<size_t>(bytes));
      scratch_ = std::make_unique_for_overwrite<std::byte[]>(scratch_bytes_);
    }
    target_ = std::span(scratch_.get(), static_cast<size_t>(bytes));
  }
  if (bytes >= kDirectBytes) read_ahead_ = kSmallestRead;
  return true;
}

/// Moves buffered payload bytes to their place.
void FrameReader::TakeBuffered() noexcept {
  const size_t take = static_cast<size_t>(std::min<uint64_t>(buffered(), frame_->payload_bytes - received_));
  if (take == 0 || (kind_ == Placement::Kind::kScratch && target_.empty())) return;
  if (kind_ != Placement::Kind::kDiscard) {
    std::memcpy(target_.data() + received_, staging_.get() + begin_, take);
    staged_bytes_ += take;
  }
  begin_ += take;
  received_ += take;
}

Status FrameReader::Finish(FrameSink& sink) {
  const Frame frame = *frame_;
  std::span<std::byte> payload = target_;
  if (kind_ == Placement::Kind::kScratch && frame.payload_bytes < kDirectBytes) {
    payload = std::span(staging_.get() + begin_, static_cast<size_t>(frame.payload_bytes));
    begin_ += payload.size();
    staged_bytes_ += payload.size();
  }
  frame_.reset();
  placed_ = false;
  target_ = {};
  ++frames_;
  Status status;
  if (kind_ != Placement::Kind::kDiscard) {
    const bool intact = !(frame.flags & kPayloadChecksum) || Crc32c(payload) == frame.payload_crc;
    status = intact ? sink.OnFrame(frame, payload) : sink.OnCorrupt(frame);
  }
  if (scratch_bytes_ > kKeptScratchBytes) {
    scratch_.reset();
    scratch_bytes_ = 0;
  }
  return status;
}

/// One read from the stream: into the payload's place when nothing is left in staging, else into staging.
Result<size_t> FrameReader::Fill(transport::ByteStream& stream) {
  if (!staging_) staging_ = std::make_unique_for_overwrite<std::byte[]>(kStagingBytes);
  const bool direct = frame_ && placed_ && !target_.empty() && frame_->payload_bytes >= kDirectBytes;
  if (direct) {
    const std::span<std::byte> rest = target_.subspan(static_cast<size_t>(received_));
    Result<size_t> got = stream.Read(rest);
    if (got.ok()) {
      short_ = *got < rest.size();
      received_ += *got;
      direct_bytes_ += *got;
    }
    return got;
  }

  // What is left is less than a header or than a small payload: moving it to the front is cheap.
  if (begin_ > 0) {
    std::memmove(staging_.get(), staging_.get() + begin_, buffered());
    end_ -= begin_;
    begin_ = 0;
  }
  size_t wanted = read_ahead_;
  if (frame_ && placed_) {
    const uint64_t missing = frame_->payload_bytes - received_;
    wanted = std::max(wanted, static_cast<size_t>(std::min<uint64_t>(missing, kStagingBytes)));
  }
  const std::span<std::byte> room(staging_.get() + end_, std::min(wanted, kStagingBytes - end_));
  Result<size_t> got = stream.Read(room);
  if (!got.ok()) return got;
  end_ += *got;
  short_ = *got < room.size();
  if (!short_) read_ahead_ = std::min(read_ahead_ * 2, kStagingBytes);
  return got;
}

Status FrameReader::Lost(const Status& cause) const {
  if (!mid_frame() || cause.code() != Code::kConnectionLost) return cause;
  return cause.WithContext("within a frame");
}

}  // namespace praas::protocol
