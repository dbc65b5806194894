#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "host/calls.h"
#include "host/event_loop.h"
#include "host/functions.h"
#include "host/leases.h"
#include "host/process.h"
#include "host/session_streams.h"
#include "host/state_service.h"
#include "host/verbs_host.h"
#include "host/window_host.h"
#include "protocol/frame_reader.h"
#include "protocol/frame_writer.h"
#include "protocol/messages.h"
#include "publication/published_reads.h"
#include "transport/byte_stream.h"

namespace praas::host {

class Session;

/// What every session uses. Outlives them.
struct SessionServices {
  EventLoop& loop;
  Process& process;
  Calls& calls;
  Functions& functions;
  StateService& state;
  WindowHost& windows;
  VerbsHost& verbs;
  StreamRings& rings;
  Leases& leases;
  std::string machine_id;
  uint64_t handshake_ns = 5'000'000'000;
  uint32_t callers = 0;                     // open sessions whose calls come over their sockets, not through a window
  uint32_t receiving_state = 0;             // state requests that have begun to arrive
  publication::PublishedReads published{};  // for clients that cannot read themselves
  /// A session by its id, nullptr once it has closed.
  std::function<Session*(uint64_t id)> find;
  std::function<void(Session&)> wrote;   // it has frames to flush before the loop sleeps
  std::function<void(Session&)> paused;  // it found no room for a call
  std::function<void(Session&)> closed;
  std::function<void(Session&, protocol::AdminOp, std::string argument, uint64_t call)> admin;
  /// Why calls are refused now: kProcessDraining, kProcessFailed; ok otherwise.
  std::function<Status()> refuses;
};

/// One TCP client: handshake, then calls, names, state, streams and administration, each answered when it is done, in
/// any order. Reads stop while there is no room for the next call or the client does not take its answers. I/O thread.
///
/// Split by step: session.cc (life and bytes), session_handshake.cc, session_calls.cc, session_requests.cc (all else).
class Session final : public protocol::FrameSink {
 public:
  Session(SessionServices& services, uint32_t slot, uint64_t id, std::unique_ptr<transport::ByteStream> stream);
  ~Session() override;

  [[nodiscard]] Status Start();
  [[nodiscard]] uint32_t slot() const noexcept { return slot_; }
  [[nodiscard]] uint64_t id() const noexcept { return id_; }
  [[nodiscard]] bool closed() const noexcept { return phase_ == Phase::kClosed; }
  [[nodiscard]] bool open() const noexcept { return phase_ == Phase::kOpen; }
  /// Has shown a token, or the key of a lease.
  [[nodiscard]] bool admitted() const noexcept { return verbs_ != 0; }
  /// Entries of the call table that name this session: its slot is not given to another before they are freed.
  [[nodiscard]] uint32_t in_flight() const noexcept { return in_flight_; }
  [[nodiscard]] const protocol::Hello& peer() const noexcept { return hello_; }
  /// Whether its client may do what needs any one of `verbs` (protocol/token.h): kNotPermitted.
  [[nodiscard]] Status Permits(uint8_t verbs) const;

  /// There may be room again for the call it stopped at.
  void Resume();
  /// Call `index` of this session is done.
  void Completed(uint32_t index);
  /// Chunks or room may have come for its streams.
  void PumpStreams();
  void Flush();
  void Tick(uint64_t now_ns);
  void Goodbye(const Status& why);
  /// Says why and ends, once that is sent.
  void Dismiss(const Status& why);
  /// Likewise, but waits for nothing.
  void TurnAway(const Status& why);
  /// Its calls come over the socket again.
  void VerbsBroke(const Status& why);
  void Close(const Status& why);

  void Reply(protocol::Frame frame, const Status& status);
  void ReplyLease(uint64_t call, const Result<protocol::LeaseReply>& reply);
  void Notify(const protocol::Frame& notice, std::string_view text);
  void ReplyAdmin(uint64_t call, const Result<std::string>& text);

  [[nodiscard]] Result<protocol::Placement> OnHeader(const protocol::Frame& frame) override;
  [[nodiscard]] Status OnFrame(const protocol::Frame& frame, std::span<std::byte> payload) override;
  [[nodiscard]] Status OnCorrupt(const protocol::Frame& frame) override;

 private:
  friend class SessionStreams;

  enum class Phase {
    kHandshake,
    kOpen,
    kHandingOver,  // the frame being read was the last for this host: a leased worker goes on
    kLeaving,      // the last frames are being sent
    kLingering,    // all is sent; waits for the peer to close, so that a reset does not overtake the last frames
    kClosed,
  };

  // session.cc
  void OnEvents(uint32_t events);
  void Read();
  void UpdateEvents();
  void Count() noexcept;
  void Leave();
  void Linger();
  void Wrote() {
    if (!std::exchange(unflushed_, true)) services_.wrote(*this);
  }

  // session_handshake.cc
  [[nodiscard]] Status OnHello(const protocol::Frame& frame, std::span<const std::byte> payload);
  [[nodiscard]] Status Admit(const protocol::Hello& hello);
  void EndWithToken();
  void Reject(const Status& why);

  // session_calls.cc
  [[nodiscard]] Result<protocol::Placement> OnCallHeader(const protocol::Frame& frame);
  [[nodiscard]] Status CheckCall(const protocol::Frame& frame) const;
  [[nodiscard]] uint64_t DeadlineOf(const protocol::Frame& frame) const;
  void PostReceived();
  void DropReceived();
  [[nodiscard]] StateService::Payload TakeReceivedState();
  void AnswerCall(uint32_t index);
  void FreeCall(uint32_t index);
  void Cancel(uint64_t call);
  void CancelAll();
  [[nodiscard]] bool Mine(const Calls::View& view) const noexcept;  // a running call of this session

  // session_requests.cc
  [[nodiscard]] Status PermitsState(const protocol::Frame& frame) const;
  [[nodiscard]] Result<protocol::Placement> OnStateHeader(const protocol::Frame& frame);
  void OnState(const protocol::Frame& frame);
  [[nodiscard]] bool AnswerRead(const protocol::Frame& frame, const std::string& key);
  void OnResolve(const protocol::Frame& frame, std::span<const std::byte> payload);
  void OnUpgrade(std::span<const std::byte> payload);
  [[nodiscard]] Result<protocol::UpgradeOffer> OfferFor(const Result<protocol::UpgradeRequest>& request);
  void RefuseUpgrade(const Status& why);
  void HandOver();
  void OnLease(const protocol::Frame& frame, std::span<const std::byte> payload);
  [[nodiscard]] Status OnAdmin(const protocol::Frame& frame, std::span<const std::byte> payload);

  SessionServices& services_;
  const uint32_t slot_;
  const uint64_t id_;
  std::unique_ptr<transport::ByteStream> stream_;
  protocol::FrameReader reader_;
  protocol::FrameWriter writer_;
  struct Moved {
    uint64_t in = 0, out = 0, staged = 0, copied = 0;
  };
  Moved counted_;  // of the reader's and the writer's bytes, in the host's counters
  SessionStreams streams_;
  Phase phase_ = Phase::kHandshake;
  protocol::Hello hello_;
  uint8_t verbs_ = 0;              // what its client may do
  uint64_t expires_ms_ = 0;        // since the epoch: when it ends with its token; 0 = it does not
  std::optional<LeaseSeat> seat_;  // set: its calls are for this leased worker
  EventLoop::WatchId watch_ = 0;
  EventLoop::TimerId timer_{};  // handshake, then the token's end, then lingering
  bool paused_ = false;         // the reader stopped at a frame there is no room for
  bool wants_write_ = false;
  bool unflushed_ = false;   // in the list of sessions to flush
  uint64_t stalled_ns_ = 0;  // since when the peer takes nothing; 0 = it does
  uint32_t in_flight_ = 0;

  // The frame being received.
  std::optional<uint64_t> waiting_deadline_;  // of the call there was no room for yet
  std::optional<uint32_t> receiving_;         // entry its payload goes to
  uint64_t receiving_call_ = 0;
  bool calls_ = false;  // counted in SessionServices::callers
  uint32_t refused_verbs_ = 0;
  bool has_window_ = false;  // was offered one: then only streams come over the socket, and calls if it took none
  StateService::Payload receiving_state_;
  uint64_t state_deadline_ns_ = 0;  // of the request that goes there

  uint32_t state_requests_ = 0;  // with the service thread, but locks
  uint32_t lock_requests_ = 0;   // neither granted nor refused
  uint64_t state_bytes_ = 0;
};

}  // namespace praas::host
