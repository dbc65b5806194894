#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dispatch/doorbell.h"
#include "dispatch/participant.h"

/// Messages between a host and one of its workers over a SOCK_SEQPACKET socket pair (the worker finds its end in the fd
/// named by PRAAS_WORKER_FD). Off the path of a call. Each packet: u32 type, then fields, at most kMaxPacket bytes; fds
/// by SCM_RIGHTS. The socket's end is the liveness signal in both directions.
namespace praas::worker {

inline constexpr size_t kMaxPacket = 64 * 1024;
/// Longer messages travel in a sealed memfd that accompanies an empty packet: 1,024 functions with names of 255 bytes.
inline constexpr size_t kMaxMessage = 1024 * 1024;

enum class ControlType : uint32_t {
  // host → worker
  kAttach = 1,  // first packet once the host has a process: who the worker is; fds: segment, pool, own eventfd, host's,
                // publication area
  kLoad = 2,    // load this application (JSON text, for the worker's language runtime); index 1: to be leased
  kWindow = 3,  // fds: memfd, client's completion eventfd of window `index`
  kWindowGone = 4,   // unmap window `index`
  kPeer = 5,         // fd: eventfd of participant `index`
  kDrain = 6,        // finish what runs, then exit 0
  kLease = 7,        // terms: serve this lease, or its new terms
  kLeaseWindow = 8,  // fds: memfd, completion and submission eventfds of window `index`, which this worker alone serves
  kLeaseSocket = 9,  // the same, and the socket of the client whose calls go through it; text "checksum" or empty
  kLeaseEnd = 10,    // terms: leave this lease
  // worker → host
  kReady = 16,       // functions it offers
  kLoadFailed = 17,  // text: why
  kWantWindow = 18,
  kWantPeer = 19,
  kRelay = 20,  // please signal participant `index` (its eventfd is not known here yet)
  kDrained = 21,
  kLeaseLeft = 22,        // terms: it serves nobody any more
  kConnectionEnded = 23,  // of the client that has window `index` in its `generation`
};

struct FunctionInfo {
  std::string name;               // 1 … 255 bytes
  uint32_t flags = 0;             // segment::FunctionFlags
  uint32_t max_output_pages = 0;  // see segment::Function

  friend bool operator==(const FunctionInfo&, const FunctionInfo&) = default;
};

struct Attach {
  uint16_t participant = 0;
  uint32_t generation = 0;
  dispatch::Lane lane = dispatch::Lane::kNode;
  uint32_t doorbell_kind = 0;
  dispatch::LaneSet lanes{};  // that have a doorbell
  std::string queue_name{};   // see dispatch::Doorbells::QueueName
  int64_t hot_ns = 0;         // −1 always hot, 0 always warm
  uint32_t concurrency = 1;   // invocations of async functions one worker runs at a time
  uint64_t grace_ns = 0;      // after a missed deadline, until the worker is killed
  uint64_t default_timeout_ns = 0;
  uint64_t max_contiguous = 0;
  uint64_t worker_memory_bytes = 0;  // private memory of a native worker; 0 = not limited
  std::string process_id{};          // 1 … 255 bytes
};

/// What a worker has to know of the lease it serves.
struct LeaseTerms {
  uint64_t lease = 0;
  int64_t hot_ns = 0;       // in place of that of the process
  uint64_t expires_ns = 0;  // CLOCK_MONOTONIC

  friend bool operator==(const LeaseTerms&, const LeaseTerms&) = default;
};

struct ControlMessage {
  ControlType type{};
  uint32_t index = 0;
  uint32_t generation = 0;
  std::string text{};
  Attach attach{};
  std::vector<FunctionInfo> functions{};
  LeaseTerms terms{};
  std::vector<UniqueFd> fds{};
};

/// Both ends of the socket pair. Every received packet is validated: type, lengths, the number of fds its type has.
/// Send is thread-safe; Receive belongs to one thread at a time.
class ControlSocket {
 public:
  explicit ControlSocket(UniqueFd fd);
  [[nodiscard]] static Result<std::pair<UniqueFd, UniqueFd>> Pair();  // CLOEXEC

  /// Never blocks; kBackpressure when the socket is full, kConnectionLost when the other side is gone, kArgumentInvalid
  /// for a message the other side would refuse. The fds are duplicated into the packet and stay the caller's.
  [[nodiscard]] Status Send(const ControlMessage& message, std::span<const int> lent = {});
  /// nullopt: nothing until the deadline (0: do not wait). kConnectionLost: the other side is gone. kProtocolInvalid:
  /// it sent something malformed; its fds are closed and the socket can go on, but the peer is not to be trusted.
  /// kSystem with EMFILE: this process has no descriptors left for those of a message, which is lost.
  [[nodiscard]] Result<std::optional<ControlMessage>> Receive(uint64_t deadline_ns);
  [[nodiscard]] int fd() const noexcept;

 private:
  UniqueFd fd_;
};

}  // namespace praas::worker
