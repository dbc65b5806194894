#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "host/event_loop.h"
#include "host/lease_account.h"
#include "host/lease_workers.h"
#include "host/process.h"
#include "host/window_host.h"
#include "protocol/frame.h"
#include "protocol/lease_messages.h"

namespace praas::host {

/// One of a lease's workers, as a connection to it has been admitted.
struct LeaseSeat {
  uint64_t lease = 0;
  uint32_t worker = 0;       // 0 … workers of the lease − 1
  uint16_t participant = 0;  // who that is now
};

/// Rights to workers for a time. A lease belongs to the session that took it and ends with it, when its time is over,
/// or when the process takes it back; its workers then leave it within kLeaveNs or are killed. A worker that dies is
/// replaced. Who waits for workers is served in order. I/O thread.
///
/// Split by step: leases.cc (taking, workers, connections to them), leases_requests.cc, leases_end.cc,
/// leases_report.cc.
class Leases {
 public:
  /// What a lease's workers get to finish when it ends.
  static constexpr uint64_t kLeaveNs = 20'000'000;

  struct Hooks {
    std::function<void(uint64_t session, uint64_t call, const Result<protocol::LeaseReply>&)> answer;
    std::function<void(uint64_t session, const protocol::Frame& notice, std::string_view text)> notify;
    /// A session whose calls a worker of a lease has served ends.
    std::function<void(uint64_t session, const Status& why)> end_session;
    std::function<Status()> refuses;
  };

  Leases(EventLoop& loop, Process& process, Supervisor& supervisor, WindowHost& windows);
  ~Leases();

  Hooks hooks;
  LeaseWorkers workers;

  /// A request of a session; `hooks.answer` follows, at once or later.
  void Request(uint64_t session, int32_t client_pid, uint64_t call, protocol::LeaseOp op,
               const protocol::LeaseRequest& request);
  /// A session that shows the key of a lease. kLeaseClosed, kLeaseExpired, kLeaseRevoked, kLeaseUnavailable (the worker
  /// is being replaced).
  [[nodiscard]] Result<LeaseSeat> Admit(uint64_t session, const std::string& key, uint32_t worker);
  /// The worker goes on with that session's client. `socket` is a copy.
  [[nodiscard]] Status HandOver(const LeaseSeat& seat, int32_t client_pid, UniqueFd socket, bool checksum);
  /// A request of that session is given up; only those that wait can be.
  void Cancel(uint64_t session, uint64_t call);
  /// That session ends, or does so at once: `why` is what its leases end with.
  void SessionClosed(uint64_t session, const Status& why);
  void OnWorkerMessage(uint16_t participant, const worker::ControlMessage& message);

  /// Takes back all of them, after a notice to their holders. No more are given.
  void RevokeAll(const Status& why, uint64_t in_ns);
  [[nodiscard]] bool empty() const noexcept { return leases_.empty(); }
  [[nodiscard]] std::string Json() const;

 private:
  static constexpr uint64_t kMillisecondNs = 1'000'000;
  /// Sessions that were handed over are named by numbers no session of the host has.
  static constexpr uint64_t kHandedOver = uint64_t{1} << 63;

  struct Seat {
    uint16_t participant = 0;  // 0: none at the moment
    uint32_t pid = 0;
    bool reserved = false;  // a worker's place is taken for it, whether there is one or not
    bool leaving = false;
    uint32_t failures = 0;   // in a row
    uint64_t served_ns = 0;  // since when its worker is there
    LeaseMeter meter{};
    LeaseAccount before{};          // of those who had the seat before
    std::string fate{};             // JSON: how the last one ended
    uint64_t fate_ns = 0;           // and when
    std::set<uint64_t> sessions{};  // whose windows it serves, handed-over ones included
    EventLoop::TimerId timer{};     // until it is filled again
  };
  struct Waiting {  // for the fate of a worker
    uint64_t session, call;
    uint32_t worker;
    EventLoop::TimerId timer;
  };
  struct Lease {
    uint64_t session = 0;
    int32_t client_pid = 0;
    uint64_t call = 0;      // that took it
    bool answered = false;  // which it has been
    bool used = false;      // its holder has come to know of it
    std::string name{};
    std::string key{};
    dispatch::Lane lane = dispatch::Lane::kNode;
    int64_t hot_ms = 0;
    uint64_t ttl_ms = 0;
    uint64_t granted_ns = 0;  // 0: its workers still start
    uint64_t expires_ns = 0;
    uint64_t asked_ns = 0, allocated_ns = 0;
    std::vector<Seat> seats{};
    std::vector<Waiting> waiting{};
    std::optional<Status> ending{};       // why
    std::optional<uint64_t> releasing{};  // call that is answered with the report
    EventLoop::TimerId timer{};           // expiry, then the kill of who does not leave
  };
  struct Queued {
    uint64_t session;
    int32_t client_pid;
    uint64_t call;
    dispatch::Lane lane;
    uint64_t asked_ns;
    protocol::LeaseRequest request;
    EventLoop::TimerId timer;
  };
  /// What is remembered of a lease that has ended.
  struct Ended {
    uint64_t lease;
    uint64_t session;  // its holder's
    std::string key;
    Status why;
    std::string report;
  };

  void Take(uint64_t session, int32_t client_pid, uint64_t call, const protocol::LeaseRequest& request);
  void GrantQueued();
  void Grant(const Queued& queued);
  [[nodiscard]] Status FillSeat(Lease& lease, Seat& seat);
  void EmptySeat(Seat& seat);
  void FillLater(uint64_t id, uint32_t worker);
  void SeatReady(uint16_t participant);
  void SeatEnded(uint16_t participant, const WorkerEnd& end);
  void ActivateIfReady(uint64_t id);
  void Serve(uint64_t id, Lease& lease, Seat& seat);
  void Renew(uint64_t session, uint64_t call, const protocol::LeaseRequest& request);
  void Release(uint64_t session, uint64_t call, const protocol::LeaseRequest& request);
  void Report(uint64_t session, uint64_t call, const protocol::LeaseRequest& request);
  void TellFate(uint64_t session, uint64_t call, const protocol::LeaseRequest& request);
  [[nodiscard]] static std::string FateOf(const Status& why);
  void AnswerFates(Lease& lease, uint32_t worker, const std::string& text);
  void ArmExpiry(uint64_t id, Lease& lease);
  void End(uint64_t id, const Status& why);
  void EndSessions(Seat& seat, const Status& why);
  void KillLeaving(uint64_t id);
  void FinishIfLeft(uint64_t id);
  void Notify(const Lease& lease, uint64_t id, protocol::LeaseEvent event, uint64_t aux, std::string_view text,
              Code code = Code::kOk);
  [[nodiscard]] Lease* Find(uint64_t id) noexcept;
  [[nodiscard]] const Ended* FindEnded(uint64_t session, uint64_t id) const noexcept;
  [[nodiscard]] Result<Lease*> Held(uint64_t session, uint64_t id);
  [[nodiscard]] std::pair<uint64_t, Seat*> SeatOf(uint16_t participant) noexcept;
  [[nodiscard]] LeaseAccount AccountOf(const Lease& lease, uint64_t now_ns) const noexcept;
  void WriteLease(uint64_t id, const Lease& lease, JsonWriter& json) const;
  [[nodiscard]] std::string ReportOf(uint64_t id, const Lease& lease) const;
  void Answer(uint64_t session, uint64_t call, const Result<protocol::LeaseReply>& reply) const;

  EventLoop& loop_;
  Process& process_;
  WindowHost& windows_;
  std::map<uint64_t, Lease> leases_;
  std::deque<Queued> queue_;
  bool granting_ = false;
  std::deque<Ended> ended_;
  LeaseAccount past_;  // of all that have ended
  uint64_t past_count_ = 0;
  uint64_t next_ = 1;
  uint64_t next_handed_over_ = 1;
  std::optional<Status> closed_;  // why none are given any more
  EventLoop::TimerId revoke_timer_{};
};

}  // namespace praas::host
