#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "client/call_table.h"
#include "protocol/frame.h"
#include "protocol/frame_reader.h"
#include "publication/published_reads.h"
#include "transport/byte_stream.h"
#include "transport/direct_transport.h"
#include "transport/stream_transport.h"
#include "transport/transport.h"

namespace praas::client {

struct ConnectOptions {
  std::string host{};  // name or address
  uint16_t port = 0;
  std::string process{};  // process id; the host refuses another with kProcessUnknown
  std::string token{};    // protocol/token.h; not needed with a lease key
  /// "auto": shm when on the same machine, else verbs where both sides have an RDMA device, else tcp. "shm", "verbs":
  /// fails if impossible. "tcp".
  std::string transport = "auto";
  uint64_t timeout_ns = 5'000'000'000;  // whole set-up
  uint64_t window_bytes = 1ull << 30;   // reserved (not committed) for payloads of shm and verbs
  bool checksum = false;                // payload checksums
  /// Of a connection to a worker of a lease, which the process's own connection has taken; it takes the token's place.
  /// `transport` counts as ever.
  std::string lease_key{};
  uint32_t lease_worker = 0;
};

struct ServerInfo {
  std::string process{};
  std::string transport{};       // what is in use
  std::string upgrade_reason{};  // why not a faster one, when it was asked for or possible
  uint64_t max_contiguous = 0;   // largest whole payload, bytes
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
  uint64_t call = 0;
  enum class Kind { kChunk, kRoom, kEnd } kind = Kind::kEnd;
  std::span<const std::byte> chunk{};  // kChunk: valid inside the sink only
  uint64_t room = 0;                   // kRoom: bytes that may be sent now
  Status status{};                     // kEnd
};

/// What the host says of a lease that this connection has taken.
struct LeaseNotice {
  uint64_t lease = 0;
  protocol::LeaseEvent event{};
  Code code = Code::kOk;  // kEnded: why
  uint32_t worker = 0;
  uint64_t remaining_ms = 0;  // kEnding
  std::string text{};
};

/// A client's connection to one process: the TCP socket (handshake, liveness, names, state, streams) and the transport
/// its calls take. Single-threaded and non-blocking after Connect: the owner polls `fds()` and calls Poll, or uses the
/// blocking Wait. Everything in flight ends with an error when the host goes away, at its deadline at the latest:
/// deadlines are watched here too, whatever the peer does.
class Connection : private protocol::FrameSink {
 public:
  using ReplySink = std::function<void(const transport::Reply&)>;
  using StreamSink = std::function<void(const StreamEvent&)>;
  using NoticeSink = std::function<void(const LeaseNotice&)>;

  /// Blocks up to options.timeout_ns: connect, handshake, upgrade. Safe to run on another thread than the later owner.
  [[nodiscard]] static Result<std::unique_ptr<Connection>> Connect(const ConnectOptions& options);
  /// The same over a stream that is connected already; `name` is what info().transport says without an upgrade and must
  /// outlive the connection.
  [[nodiscard]] static Result<std::unique_ptr<Connection>> Over(std::unique_ptr<transport::ByteStream> stream,
                                                                const char* name, const ConnectOptions& options);
  ~Connection() override;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  [[nodiscard]] const ServerInfo& info() const noexcept { return info_; }

  /// All of these return a call id at once (never 0); the outcome comes through Poll's sink. Requests that find no room
  /// wait in the connection in order, up to their deadline (kBackpressure); locks and their releases need none. `input`
  /// must stay valid until the reply, or ReadsInput says no. Nothing is written to the socket before the next Poll, so
  /// that requests made together travel together. `deadline_ns` is CLOCK_MONOTONIC; 0 means the host's default timeout
  /// from now.
  [[nodiscard]] Result<uint64_t> Resolve(std::string_view function,
                                         uint64_t deadline_ns);  // payload: FunctionRef's bytes
  [[nodiscard]] Result<uint64_t> Invoke(uint32_t function, std::span<const std::byte> input,
                                        std::span<std::byte> output, uint32_t flags, uint64_t deadline_ns);
  /// Whether the memory given as the input of `call` may still be read: not once it was copied into the window.
  [[nodiscard]] bool ReadsInput(uint64_t call) noexcept;
  /// State, lease and admin requests (kState, kLease, kAdmin): `arguments` are encoded by client/state_request.h or
  /// protocol/lease_messages.h and copied, `data` is sent right behind them and must stay valid until the reply; the
  /// reply's payload is decoded there too.
  [[nodiscard]] Result<uint64_t> Request(protocol::FrameType type, uint16_t op, std::span<const std::byte> arguments,
                                         std::span<const std::byte> data, uint64_t deadline_ns);
  /// Called by Poll with what the host says of leases unasked.
  void SetNoticeSink(NoticeSink sink) { notices_ = std::move(sink); }
  /// Reads of published values that need no request; it learns places from who decodes the answers to StateOp::kRead.
  /// nullptr: this connection has to ask for every read.
  [[nodiscard]] publication::PublishedReads* published() noexcept { return direct_ ? direct_->published() : nullptr; }
  /// Asks for an early end; the reply still comes, by the call's deadline at the latest. A lock that still waits is
  /// withdrawn.
  void Cancel(uint64_t call);

  /// Streaming calls go over TCP on every transport. SendChunk copies what it takes: at most the room announced by
  /// kRoom events (StreamEvent::room is the total that may be sent now). `last` counts only when all of `bytes` were
  /// taken.
  [[nodiscard]] Result<uint64_t> OpenStream(uint32_t function, uint32_t flags, uint64_t deadline_ns);
  [[nodiscard]] Result<size_t> SendChunk(uint64_t call, std::span<const std::byte> bytes, bool last);
  void ConsumedChunk(uint64_t call, uint64_t bytes);  // gives the host credit for more

  /// Non-blocking progress; returns the number of events handed out. Sinks may call everything but Poll and WaitFor
  /// (which do nothing then), and must not destroy the connection.
  size_t Poll(const ReplySink& replies, const StreamSink& streams);
  /// What a polling owner does between two Polls in vain: looks briefly whether the last call is answered.
  void LookOut() const noexcept;
  /// Polls (spinning up to `spin_ns`, then sleeping) until `call` has been handed to `replies` or the deadline.
  void WaitFor(uint64_t call, uint64_t spin_ns, const ReplySink& replies, const StreamSink& streams);
  /// To watch: the socket (read, and write while wants_write()), and the transport's when it is not the socket.
  [[nodiscard]] int socket_fd() const noexcept { return wire_->fd(); }
  /// −1: same as the socket, which it may become at any time.
  [[nodiscard]] int transport_fd() const noexcept { return direct_ ? direct_->fd() : -1; }
  [[nodiscard]] bool wants_write() const noexcept { return wire_->wants_write(); }
  /// Before waiting on the fds: false when Poll has something to do already. The wait must end by next_deadline_ns().
  [[nodiscard]] bool PrepareToSleep();
  [[nodiscard]] uint64_t next_deadline_ns() const noexcept { return calls_.earliest_deadline_ns(); }
  [[nodiscard]] size_t in_flight() const noexcept { return calls_.open(); }

  /// Where large results that come through the socket go: see StreamTransport::SetResultMemory.
  void SetResultMemory(transport::StreamTransport::ResultMemory memory) { wire_->SetResultMemory(std::move(memory)); }
  [[nodiscard]] Result<transport::Buffer> Allocate(uint64_t bytes);
  void Release(const transport::Buffer& buffer);
  /// Gives memory that nothing uses back to the system; for a connection that rests.
  void Trim();

  /// Why the connection ended other than by Close; ok while it lives. Allocated memory stays valid until Close.
  [[nodiscard]] const Status& lost() const noexcept { return wire_->lost(); }
  /// Idempotent. Everything in flight gets kConnectionClosed at the next Poll.
  void Close() noexcept;
  [[nodiscard]] bool closed() const noexcept { return closed_; }

  struct Counters {
    uint64_t staged_bytes = 0;  // payload bytes that went through a staging buffer on the socket
    uint64_t direct_bytes = 0;  // payload bytes moved between the socket and their final memory
    uint64_t writes = 0;        // system calls that wrote to the socket
    uint64_t frames_sent = 0;
    uint64_t frames_received = 0;
  };
  [[nodiscard]] Counters counters() const noexcept;

 private:
  Connection(std::unique_ptr<transport::StreamTransport> wire, uint64_t stream_credit, ServerInfo info);
  [[nodiscard]] static Result<std::unique_ptr<Connection>> Establish(std::unique_ptr<transport::ByteStream> stream,
                                                                     const char* name, const ConnectOptions& options,
                                                                     uint64_t deadline_ns);

  // Frames of the socket that are no replies to calls (connection_frames.cc).
  Result<protocol::Placement> OnHeader(const protocol::Frame& frame) override;
  Status OnFrame(const protocol::Frame& frame, std::span<std::byte> payload) override;
  Status OnCorrupt(const protocol::Frame& frame) override;
  [[nodiscard]] Status OnAnswer(const protocol::Frame& frame, Call& call, std::span<const std::byte> payload);
  void ReturnLock(std::span<const std::byte> lock_reply);
  void EndStream(Call& call, Status status);

  // Submission (connection_submit.cc).
  [[nodiscard]] Status CheckOpen() const;
  [[nodiscard]] uint64_t DeadlineOf(uint64_t deadline_ns) const noexcept;
  [[nodiscard]] uint64_t Enqueue(Call& call);
  [[nodiscard]] bool Send(Call& call);
  [[nodiscard]] bool TryRequest(Call& call);
  [[nodiscard]] Result<bool> TrySubmit(Call& call);
  [[nodiscard]] bool HasRoom() const noexcept;
  void SendRequest(Call& call);
  void CountAnswer(const Call& call) noexcept;
  void SendCancel(uint64_t call);
  void Drain(std::deque<uint64_t>& queue);

  // Progress (connection.cc).
  void FallBack();
  [[nodiscard]] bool TryAgain(const transport::Reply& reply);
  size_t PollOnce(const ReplySink& replies, const StreamSink& streams, bool look_at_everything);
  void OnReply(const transport::Reply& reply);
  void HandOut(uint64_t call, Status status, std::span<const std::byte> payload);
  void Settle(Call& call, Status status);
  void EmitStream(const StreamEvent& event);
  void HandOutSettled();
  void AnnounceRoom();
  void Expire(uint64_t now_ns);
  void FailAll(const Status& status);

  ServerInfo info_;
  uint64_t stream_credit_;
  std::unique_ptr<transport::StreamTransport> wire_;
  std::unique_ptr<transport::DirectTransport> direct_;   // takes the calls when there is one
  std::unique_ptr<transport::DirectTransport> retired_;  // broken: only memory from Allocate is still in use
  CallTable calls_;
  std::deque<uint64_t> waiting_calls_;     // kInvoke without room
  std::deque<uint64_t> waiting_requests_;  // everything else: must not queue behind calls that wait for it
  uint32_t requests_in_flight_ = 0;        // sent and unanswered, other than kInvoke
  uint32_t locks_in_flight_ = 0;           // of these: locks and their releases
  struct Settled {
    uint64_t call;
    Status status;
  };
  std::vector<Settled> settled_{};     // outcomes known here, to be handed out by Poll
  std::vector<uint64_t> room_news_{};  // streams with room to announce
  transport::Transport::Sink on_reply_;
  NoticeSink notices_;

  const ReplySink* replies_ = nullptr;  // of the Poll in progress
  const StreamSink* streams_ = nullptr;
  size_t events_ = 0;
  uint32_t polls_ = 0;
  bool slept_ = true;       // the next Poll looks at the socket
  bool room_made_ = false;  // a buffer was released: what waits may fit now
  bool closed_ = false;
};

}  // namespace praas::client
