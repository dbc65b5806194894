#pragma once

#include <cstdint>

#include "base/result.h"
#include "protocol/frame.h"

namespace praas::client {

/// Credit and order of both directions of one streaming call (docs/protocol.md, "Streams"). Pure bookkeeping.
class Stream {
 public:
  explicit Stream(uint64_t initial_credit) noexcept : send_credit_(initial_credit), receive_credit_(initial_credit) {}

  // --- sending ---
  [[nodiscard]] uint64_t room() const noexcept { return send_ended_ ? 0 : send_credit_; }
  [[nodiscard]] bool send_ended() const noexcept { return send_ended_; }
  /// Takes `bytes` of credit for the next chunk; its sequence number.
  uint64_t Send(uint64_t bytes, bool last) noexcept;
  /// The peer gave credit. kProtocolInvalid when it makes no sense.
  [[nodiscard]] Status OnCredit(uint64_t bytes);
  /// Room to announce to the user that has not been announced yet; clears the mark.
  [[nodiscard]] bool TakeRoomNews() noexcept;

  // --- receiving ---
  /// Checks an arriving chunk's header against order and credit.
  [[nodiscard]] Status OnChunk(const protocol::Frame& frame);
  /// The user is done with `bytes`. Returns the credit to give now: 0 while too little has come together.
  [[nodiscard]] uint64_t Consumed(uint64_t bytes) noexcept;

 private:
  uint64_t send_credit_;
  uint64_t send_sequence_ = 0;
  bool send_ended_ = false;
  bool room_news_ = true;  // the initial credit

  uint64_t receive_credit_;
  uint64_t receive_sequence_ = 0;
  bool receive_ended_ = false;
  uint64_t unconsumed_ = 0;  // received, not yet consumed by the user
  uint64_t owed_ = 0;        // consumed, credit not yet given
};

}  // namespace praas::client
