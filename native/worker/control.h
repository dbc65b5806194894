#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dispatch/participant.h"

/// Messages between a host and one of its workers over a SOCK_SEQPACKET socket pair (the worker finds its end in the fd named
/// by PRAAS_WORKER_FD). Off the path of a call. Each packet: u32 type, then fields, at most kMaxPacket bytes; fds by SCM_RIGHTS.
/// The socket's end is the liveness signal in both directions.
namespace praas::worker {

inline constexpr size_t kMaxPacket = 64 * 1024;

enum class ControlType : uint32_t {
  // host → worker
  kAttach = 1,     // first packet once the host has a process: who the worker is; fds: segment, pool, own eventfd, host eventfd
  kLoad = 2,       // load this application (JSON text, for the worker's language runtime)
  kWindow = 3,     // fds: memfd, client's completion eventfd of window `index`
  kWindowGone = 4, // unmap window `index`
  kPeer = 5,       // fd: eventfd of participant `index`
  kDrain = 6,      // finish what runs, then exit 0
  // worker → host
  kReady = 16,       // functions it offers
  kLoadFailed = 17,  // text: why
  kWantWindow = 18,
  kWantPeer = 19,
  kRelay = 20,       // please signal participant `index` (its eventfd is not known here yet)
  kDrained = 21,
};

struct FunctionInfo {
  std::string name;
  uint32_t flags;  // segment::FunctionFlags
};

struct Attach {
  uint16_t participant;
  uint32_t generation;
  uint32_t doorbell_kind;
  std::string queue_name;
  int64_t hot_ns;        // −1 always hot, 0 always warm
  uint32_t concurrency;  // invocations of async functions one worker runs at a time
  uint64_t grace_ns;     // after a missed deadline, until the worker is killed
  uint64_t default_timeout_ns;
  uint64_t max_contiguous;
  std::string process_id;
};

struct ControlMessage {
  ControlType type;
  uint32_t index = 0;
  uint32_t generation = 0;
  std::string text;
  Attach attach{};
  std::vector<FunctionInfo> functions;
  std::vector<UniqueFd> fds;
};

/// Both ends of the socket pair. Blocking with deadline; every received packet is validated.
class ControlSocket {
 public:
  explicit ControlSocket(UniqueFd fd);
  [[nodiscard]] static Result<std::pair<UniqueFd, UniqueFd>> Pair();  // CLOEXEC

  [[nodiscard]] Status Send(const ControlMessage& message);  // non-blocking; kBackpressure when the socket is full
  /// nullopt: nothing until the deadline. kConnectionLost: the other side is gone.
  [[nodiscard]] Result<std::optional<ControlMessage>> Receive(uint64_t deadline_ns);
  [[nodiscard]] int fd() const noexcept;

 private:
  UniqueFd fd_;
};

}  // namespace praas::worker
