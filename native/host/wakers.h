#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dispatch/participant.h"

namespace praas::host {

/// One eventfd per participant, by which it is woken when it sleeps. Made at first use and kept while the host lives: a
/// later worker with the same index gets the same one, and a signal meant for its predecessor only makes it look
/// around.
class Wakers {
 public:
  Wakers();
  ~Wakers();
  Wakers(const Wakers&) = delete;
  Wakers& operator=(const Wakers&) = delete;

  /// The eventfd of a participant. I/O thread.
  [[nodiscard]] Result<int> Fd(uint16_t participant);
  /// From any thread. Nothing when the participant never had an eventfd.
  void Signal(uint16_t participant) const noexcept;

 private:
  std::array<std::atomic<int>, dispatch::kMaxParticipants> fds_;
};

}  // namespace praas::host
