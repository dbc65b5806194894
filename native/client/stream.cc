#include "client/stream.h"

#include <algorithm>
#include <string>
#include <utility>

namespace praas::client {
namespace {

// One kCredit frame per this many consumed bytes, or when the user has consumed everything.
constexpr uint64_t kCreditBatch = protocol::kMaxChunkBytes;

}  // namespace

uint64_t Stream::Send(uint64_t bytes, bool last) noexcept {
  send_credit_ -= bytes;
  send_ended_ = last;
  return send_sequence_++;
}

Status Stream::OnCredit(uint64_t bytes) {
  if (bytes == 0 || bytes > protocol::kMaxPayload || send_credit_ + bytes > protocol::kMaxPayload) {
    return Status(Code::kProtocolInvalid, "stream credit of " + std::to_string(bytes) + " bytes");
  }
  send_credit_ += bytes;
  room_news_ = true;
  return Status::Ok();
}

bool Stream::TakeRoomNews() noexcept {
  const bool news = room_news_ && !send_ended_;
  room_news_ = false;
  return news;
}

Status Stream::OnChunk(const protocol::Frame& frame) {
  if (receive_ended_) return Status(Code::kProtocolInvalid, "a chunk after the last one");
  if (frame.aux != receive_sequence_) {
    return Status(Code::kProtocolInvalid, "chunk " + std::to_string(frame.aux) + " of a stream where " +
                                              std::to_string(receive_sequence_) + " is next");
  }
  if (frame.payload_bytes > receive_credit_)
    return Status(Code::kProtocolInvalid, "a chunk larger than the credit given");
  receive_credit_ -= frame.payload_bytes;
  unconsumed_ += frame.payload_bytes;
  ++receive_sequence_;
  receive_ended_ = (frame.flags & protocol::kLast) != 0;
  return Status::Ok();
}

uint64_t Stream::Consumed(uint64_t bytes) noexcept {
  const uint64_t consumed = std::min(bytes, unconsumed_);
  unconsumed_ -= consumed;
  owed_ += consumed;
  if (receive_ended_ || owed_ == 0 || (owed_ < kCreditBatch && unconsumed_ > 0)) return 0;
  receive_credit_ += owed_;
  return std::exchange(owed_, 0);
}

}  // namespace praas::client
