#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "protocol/frame.h"
#include "transport/transport.h"

namespace praas::client {

struct ConnectOptions {
  std::string host;      // name or address
  uint16_t port = 0;
  std::string process;   // process id; the host refuses another with kProcessUnknown
  std::string token;     // required by every host
  std::string transport = "auto";  // "auto" (shm when on the same machine, else tcp), "shm" (fails if impossible), "tcp"
  uint64_t timeout_ns = 5'000'000'000;       // whole set-up
  uint64_t window_bytes = 1ull << 30;        // reserved (not committed) size of a shm window
  bool checksum = false;                     // payload checksums
};

struct ServerInfo {
  std::string process;
  std::string transport;       // what was picked
  std::string upgrade_reason;  // why not shm, when it was asked for or possible
  uint64_t max_contiguous = 0; // largest whole payload, bytes
  uint32_t max_in_flight = 0;
  uint64_t default_timeout_ns = 0;
  int32_t host_pid = 0;
};

struct FunctionRef {
  uint32_t index;
  uint32_t flags;  // segment::FunctionFlags
};

/// One chunk of a stream, or its end, coming back.
struct StreamEvent {
  uint64_t call;
  enum class Kind { kChunk, kRoom, kEnd } kind;
  std::span<const std::byte> chunk;  // kChunk: valid inside the sink only
  uint64_t room = 0;                 // kRoom: bytes that may be sent now
  Status status;                     // kEnd
};

/// A client's connection to one process: the TCP socket (handshake, liveness, names, state, streams) and the transport its
/// calls take. Single-threaded and non-blocking after Connect: the owner polls `fds()` and calls Poll, or uses the blocking
/// Wait. Everything in flight ends with an error when the host goes away, at its deadline at the latest: deadlines are
/// watched here too, whatever the peer does.
class Connection {
 public:
  using ReplySink = std::function<void(const transport::Reply&)>;
  using StreamSink = std::function<void(const StreamEvent&)>;

  /// Blocks up to options.timeout_ns: connect, handshake, upgrade. Safe to run on another thread than the later owner.
  [[nodiscard]] static Result<std::unique_ptr<Connection>> Connect(const ConnectOptions& options);
  ~Connection();

  [[nodiscard]] const ServerInfo& info() const noexcept;

  /// All of these return a call id at once (never 0); the outcome comes through Poll's sink. Requests that find no room wait
  /// in the connection in order, up to their deadline (kBackpressure). `input` must stay valid until the reply.
  [[nodiscard]] Result<uint64_t> Resolve(std::string_view function, uint64_t deadline_ns);  // reply payload: FunctionRef
  [[nodiscard]] Result<uint64_t> Invoke(uint32_t function, std::span<const std::byte> input, std::span<std::byte> output,
                                        uint32_t flags, uint64_t deadline_ns);
  /// State and admin requests: `arguments` are encoded by client/state_request.h; reply payload is decoded there too.
  [[nodiscard]] Result<uint64_t> Request(protocol::FrameType type, uint16_t op, std::span<const std::byte> arguments,
                                         std::span<const std::byte> data, uint64_t deadline_ns);
  void Cancel(uint64_t call);

  /// Streaming calls go over TCP on every transport. Send takes at most the room announced by kRoom events.
  [[nodiscard]] Result<uint64_t> OpenStream(uint32_t function, uint32_t flags, uint64_t deadline_ns);
  [[nodiscard]] Result<size_t> SendChunk(uint64_t call, std::span<const std::byte> bytes, bool last);
  void ConsumedChunk(uint64_t call, uint64_t bytes);  // gives the host credit for more

  /// Non-blocking progress; returns the number of events handed out.
  size_t Poll(const ReplySink& replies, const StreamSink& streams);
  /// Polls (spinning up to `spin_ns`, then sleeping) until `call` has been handed to `replies` or the deadline.
  void WaitFor(uint64_t call, uint64_t spin_ns, const ReplySink& replies, const StreamSink& streams);
  /// fds to watch: the socket (read, and write while wants_write()), and the transport's when it is not the socket.
  [[nodiscard]] int socket_fd() const noexcept;
  [[nodiscard]] int transport_fd() const noexcept;  // −1: same as the socket
  [[nodiscard]] bool wants_write() const noexcept;
  [[nodiscard]] bool PrepareToSleep();
  [[nodiscard]] uint64_t next_deadline_ns() const noexcept;
  [[nodiscard]] size_t in_flight() const noexcept;

  [[nodiscard]] Result<transport::Buffer> Allocate(uint64_t bytes);
  void Release(const transport::Buffer& buffer);

  /// Idempotent. Everything in flight gets kConnectionClosed at the next Poll.
  void Close() noexcept;
  [[nodiscard]] bool closed() const noexcept;
};

}  // namespace praas::client
