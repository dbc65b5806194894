#include "worker/peers.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace praas::worker {

Peers::Peers(Core& core) : core_(core) {}

void Peers::Signal(uint16_t participant) {
  if (participant == core_.self) return core_.SignalOwner();
  if (participant == dispatch::kHostParticipant) return Core::Signal(core_.host_event.get());
  if (participant >= peers_.size()) return;

  Peer& peer = peers_[participant];
  const uint32_t generation = core_.segment.participant(participant).generation.load(std::memory_order_acquire);
  const int fd = peer.fd.load(std::memory_order_acquire);
  if (fd >= 0 && peer.generation.load(std::memory_order_acquire) == generation) return Core::Signal(fd);

  Send({.type = ControlType::kRelay, .index = participant, .generation = generation});
  // Generations start at 1 when a worker is first spawned; 0 here would mean that nothing was asked yet.
  if (peer.asked.exchange(generation, std::memory_order_acq_rel) != generation) {
    Send({.type = ControlType::kWantPeer, .index = participant, .generation = generation});
  }
}

void Peers::Send(const ControlMessage& message) {
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (core_.control.Send(message).code() != Code::kBackpressure) return;
    // The host reads this socket all the time; one that does not is about to be killed, and its workers with it.
    pollfd writable{core_.control.fd(), POLLOUT, 0};
    (void)::poll(&writable, 1, 50);
  }
}

void Peers::Learn(uint32_t participant, uint32_t generation, UniqueFd fd) {
  if (participant >= peers_.size() || !fd) return;
  Peer& peer = peers_[participant];
  const int known = peer.fd.load(std::memory_order_relaxed);
  if (known >= 0) {
    // Replaced under its number: a thread that has just read the number signals the old or the new object, never
    // another.
    if (::dup3(fd.get(), known, O_CLOEXEC) < 0) return;
  } else {
    peer.fd.store(fd.get(), std::memory_order_release);
    owned_.push_back(std::move(fd));
  }
  peer.generation.store(generation, std::memory_order_release);
}

}  // namespace praas::worker
