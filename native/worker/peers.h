#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "base/unique_fd.h"
#include "dispatch/participant.h"
#include "worker/core.h"

namespace praas::worker {

/// How this worker wakes other participants. It is given the host's eventfd and its own; another worker's is asked for
/// when it is first needed, and until it comes the host relays.
class Peers {
 public:
  explicit Peers(Core& core);

  /// Any thread. Never blocks for longer than it takes to hand the host one packet.
  void Signal(uint16_t participant);
  /// Watchdog: the eventfd of `participant` in its life `generation`.
  void Learn(uint32_t participant, uint32_t generation, UniqueFd fd);

 private:
  struct Peer {
    std::atomic<int> fd{-1};  // owned; its number stays the same for good, so that a signaller never uses a closed one
    std::atomic<uint32_t> generation{0};
    std::atomic<uint32_t> asked{0};  // generation asked for
  };
  void Send(const ControlMessage& message);

  Core& core_;
  std::array<Peer, dispatch::kMaxParticipants> peers_;
  std::vector<UniqueFd> owned_;  // watchdog thread only
};

}  // namespace praas::worker
