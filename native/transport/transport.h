#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"

namespace praas::transport {

/// Memory a client got from `Transport::Allocate`. On shm it lies in the window and calls use it without a copy.
struct Buffer {
  std::byte* data = nullptr;
  uint64_t bytes = 0;
  uint64_t handle = 0;
};

struct Request {
  uint64_t call = 0;      // the connection's id of this call, unique while in flight
  uint32_t function = 0;  // resolved index
  uint32_t flags = 0;     // protocol::FrameFlags subset: kIdempotent, kSync
  uint64_t deadline_ns = 0;
  /// Input bytes; they must stay unchanged until the reply. Inside an allocated buffer: used in place.
  std::span<const std::byte> input{};
  /// Where the result shall go: inside an allocated buffer (zero-copy on shm), or empty: the transport's own memory.
  std::span<std::byte> output{};
};

struct Reply {
  uint64_t call = 0;
  Status status{};  // error message or, for kFunctionThrew and kWorkerCrashed, its JSON as message
  std::span<const std::byte>
      payload{};  // valid inside the sink only, unless it lies in `Request::output` or `Request::input`
};

/// Client side of one connection's calls: `tcp`, `loopback` (both over a ByteStream), `shm`; later `verbs`. Chosen at
/// run time.
///
/// Single-threaded and non-blocking: Submit and Poll are called by the thread that owns the connection. Replies come in
/// any order. When the peer dies, every call in flight gets kConnectionLost (or kHostLost) through Poll, exactly once.
class Transport {
 public:
  using Sink = std::function<void(const Reply&)>;

  virtual ~Transport() = default;
  [[nodiscard]] virtual const char* name() const noexcept = 0;

  /// true: taken. false: no room now (window or socket full); try again after Poll made progress.
  [[nodiscard]] virtual Result<bool> Submit(const Request& request) = 0;
  /// Asks the peer to give up; the reply still comes (kInvocationCancelled, or the result when that was faster).
  virtual void Cancel(uint64_t call) = 0;
  /// The owner has answered the call itself (deadline): cancels it, and from now on neither reads its input nor writes
  /// to its output, unless they lie in an allocated buffer (which then is not handed out anew while the peer may still
  /// use it). The reply still comes through Poll, with an empty payload; until then the call counts as in flight.
  virtual void Abandon(uint64_t call) { Cancel(call); }
  /// Moves what can be moved and hands finished calls to `sink`. Returns how many. Never blocks.
  virtual size_t Poll(const Sink& sink) = 0;

  /// Readable when Poll would have something to do, provided PrepareToSleep returned true before waiting on it.
  [[nodiscard]] virtual int fd() const noexcept = 0;
  [[nodiscard]] virtual bool wants_write() const noexcept = 0;
  /// Arms the wake-up; false when there is already something to poll. After waking, call Poll.
  [[nodiscard]] virtual bool PrepareToSleep() = 0;

  /// Memory for inputs and outputs; plain memory on stream transports. kBackpressure/kPayloadTooLarge when there is
  /// none.
  [[nodiscard]] virtual Result<Buffer> Allocate(uint64_t bytes) = 0;
  virtual void Release(const Buffer& buffer) = 0;

  virtual void Close() noexcept = 0;
  [[nodiscard]] virtual bool closed() const noexcept = 0;
};

}  // namespace praas::transport
