#include "host/leases.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/clock.h"
#include "protocol/messages.h"

namespace praas::host {
namespace {

using protocol::LeaseEvent;
using protocol::LeaseOp;
using protocol::LeaseReply;
using protocol::LeaseRequest;

constexpr uint64_t kHealthyNs = 10'000'000'000;
/// Requests of one session that may wait.
constexpr std::ptrdiff_t kMaxQueued = 64;
constexpr uint64_t kMaxBackoffMs = 10'000;

Result<std::string> MakeKey() {
  std::array<uint8_t, protocol::kLeaseKeyBytes / 2> bytes;
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    return Status::System("getrandom").WithContext("key of a lease");
  }
  constexpr char kDigits[] = "0123456789abcdef";
  std::string key;
  for (const uint8_t byte : bytes) {
    key += kDigits[byte >> 4];
    key += kDigits[byte & 15];
  }
  return key;
}

/// {signal, exitCode, stderr} with who ended.
std::string FateOfWorker(const std::string& end) { return R"({"ended":"worker",)" + end.substr(1); }

}  // namespace

Leases::Leases(EventLoop& loop, Process& process, Supervisor& supervisor, WindowHost& windows)
    : workers(loop, process, supervisor,
              {.ready = [this](uint16_t participant) { SeatReady(participant); },
               .ended = [this](uint16_t participant, const WorkerEnd& end) { SeatEnded(participant, end); }}),
      loop_(loop),
      process_(process),
      windows_(windows) {}

Leases::~Leases() {
  loop_.CancelTimer(revoke_timer_);
  for (Queued& queued : queue_) loop_.CancelTimer(queued.timer);
  for (auto& [id, lease] : leases_) {
    loop_.CancelTimer(lease.timer);
    for (Seat& seat : lease.seats) loop_.CancelTimer(seat.timer);
    for (Waiting& waiting : lease.waiting) loop_.CancelTimer(waiting.timer);
  }
}

void Leases::Answer(uint64_t session, uint64_t call, const Result<LeaseReply>& reply) const {
  hooks.answer(session, call, reply);
}

void Leases::Notify(const Lease& lease, uint64_t id, LeaseEvent event, uint64_t aux, std::string_view text, Code code) {
  protocol::Frame notice{.type = protocol::FrameType::kLeaseNotice, .code = static_cast<uint16_t>(event), .call = id};
  notice.function = static_cast<uint32_t>(code);
  notice.aux = aux;
  hooks.notify(lease.session, notice, text);
}

Leases::Lease* Leases::Find(uint64_t id) noexcept {
  const auto found = leases_.find(id);
  return found == leases_.end() ? nullptr : &found->second;
}

/// One that `session` held.
const Leases::Ended* Leases::FindEnded(uint64_t session, uint64_t id) const noexcept {
  const auto found = std::find_if(ended_.begin(), ended_.end(), [session, id](const Ended& ended) {
    return ended.lease == id && ended.session == session;
  });
  return found == ended_.end() ? nullptr : &*found;
}

/// A lease that `session` holds.
Result<Leases::Lease*> Leases::Held(uint64_t session, uint64_t id) {
  if (Lease* lease = Find(id); lease != nullptr && lease->session == session) {
    if (lease->ending) return *lease->ending;
    return lease;
  }
  if (const Ended* ended = FindEnded(session, id)) return ended->why;
  return Status(Code::kLeaseClosed, "this connection holds no lease " + std::to_string(id));
}

std::pair<uint64_t, Leases::Seat*> Leases::SeatOf(uint16_t participant) noexcept {
  for (auto& [id, lease] : leases_) {
    for (Seat& seat : lease.seats) {
      if (seat.participant == participant) return {id, &seat};
    }
  }
  return {0, nullptr};
}

void Leases::Request(uint64_t session, int32_t client_pid, uint64_t call, LeaseOp op, const LeaseRequest& request) {
  switch (op) {
    case LeaseOp::kTake:
      return Take(session, client_pid, call, request);
    case LeaseOp::kRenew:
      return Renew(session, call, request);
    case LeaseOp::kRelease:
      return Release(session, call, request);
    case LeaseOp::kReport:
      return Report(session, call, request);
    case LeaseOp::kFate:
      return TellFate(session, call, request);
  }
  Answer(session, call, Status(Code::kUnsupported, "unknown operation " + std::to_string(static_cast<unsigned>(op))));
}

// -------------------------------------------------------------------------------------------------------------------
// taking

void Leases::Take(uint64_t session, int32_t client_pid, uint64_t call, const LeaseRequest& request) {
  const auto refuse = [&](Status why) { Answer(session, call, std::move(why)); };
  if (closed_) return refuse(*closed_);
  if (Status refused = hooks.refuses(); !refused.ok()) return refuse(std::move(refused));
  if (request.ttl_ms == 0) return refuse(Status(Code::kArgumentInvalid, "a lease lasts 1 ms at least"));
  if (request.workers > workers.capacity()) {
    return refuse(Status(Code::kArgumentInvalid, std::to_string(request.workers) +
                                                     " workers are asked for; this process leases at most " +
                                                     std::to_string(workers.capacity()) + " (leaseWorkers)"));
  }
  const dispatch::LaneSet lanes = process_.assignment.lanes();
  const bool native = request.lane == protocol::LeaseLane::kNative ||
                      (request.lane == protocol::LeaseLane::kAny && !lanes[static_cast<size_t>(dispatch::Lane::kNode)]);
  const dispatch::Lane lane = native ? dispatch::Lane::kNative : dispatch::Lane::kNode;
  if (!lanes[static_cast<size_t>(lane)]) {
    return refuse(Status(Code::kArgumentInvalid, std::string("the application has no ") +
                                                     (native ? "native functions" : "functions in TypeScript")));
  }
  if (std::count_if(queue_.begin(), queue_.end(), [&](const Queued& each) { return each.session == session; }) >=
      kMaxQueued) {
    return refuse(Status(Code::kBackpressure, "this connection waits for " + std::to_string(kMaxQueued) + " leases"));
  }
  queue_.push_back({session, client_pid, call, lane, NowNs(), request, {}});
  GrantQueued();
  if (queue_.empty() || queue_.back().session != session || queue_.back().call != call) return;
  const auto unavailable = [this, session, call] {
    const auto found = std::find_if(queue_.begin(), queue_.end(), [&](const Queued& queued) {
      return queued.session == session && queued.call == call;
    });
    if (found == queue_.end()) return;
    const uint32_t wanted = found->request.workers;
    queue_.erase(found);
    Answer(session, call,
           Status(Code::kLeaseUnavailable, std::to_string(wanted) + " workers were asked for; " +
                                               std::to_string(workers.free()) + " of " +
                                               std::to_string(workers.capacity()) + " can be leased now"));
    GrantQueued();  // it may have kept smaller ones waiting
  };
  if (request.wait_ms == 0) return unavailable();
  queue_.back().timer = loop_.At(DeadlineIn(request.wait_ms * kMillisecondNs), unavailable);
}

void Leases::GrantQueued() {
  if (std::exchange(granting_, true)) return;  // what ends at once while it is granted comes here again
  while (!queue_.empty() && queue_.front().request.workers <= workers.free()) {
    const Queued queued = std::move(queue_.front());
    queue_.pop_front();
    loop_.CancelTimer(queued.timer);
    Grant(queued);
  }
  granting_ = false;
}

void Leases::Grant(const Queued& queued) {
  Result<std::string> key = MakeKey();
  if (!key.ok()) return Answer(queued.session, queued.call, key.status());
  const uint64_t id = next_++;
  Lease& lease = leases_[id];
  lease.session = queued.session;
  lease.client_pid = queued.client_pid;
  lease.call = queued.call;
  lease.name = queued.request.name;
  lease.key = *std::move(key);
  lease.lane = queued.lane;
  lease.hot_ms = queued.request.hot_ms;
  lease.ttl_ms = queued.request.ttl_ms;
  lease.asked_ns = queued.asked_ns;
  lease.allocated_ns = NowNs();
  lease.seats.resize(queued.request.workers);
  for (Seat& seat : lease.seats) {
    if (Status status = FillSeat(lease, seat); !status.ok()) return End(id, status);
  }
  ActivateIfReady(id);
}

Status Leases::FillSeat(Lease& lease, Seat& seat) {
  Result<uint16_t> participant = seat.reserved ? workers.Refill(lease.lane) : workers.Take(lease.lane);
  if (!participant.ok()) return participant.status();
  seat.reserved = true;
  seat.participant = *participant;
  seat.pid = workers.PidOf(*participant);
  return Status::Ok();
}

/// Its worker is the next one's, or its place is.
void Leases::EmptySeat(Seat& seat) {
  if (!std::exchange(seat.reserved, false)) return;
  if (seat.participant != 0) {
    workers.GiveBack(std::exchange(seat.participant, 0));
  } else {
    workers.Forgo();
  }
}

void Leases::SeatReady(uint16_t participant) {
  const auto [id, seat] = SeatOf(participant);
  if (seat == nullptr) return;
  Lease& lease = leases_.at(id);
  if (lease.ending) return FinishIfLeft(id);
  if (lease.granted_ns == 0) return ActivateIfReady(id);
  // In place of one that has died.
  Serve(id, lease, *seat);
  Notify(lease, id, LeaseEvent::kWorkerReady, static_cast<uint64_t>(seat - lease.seats.data()), {});
}

void Leases::ActivateIfReady(uint64_t id) {
  Lease& lease = leases_.at(id);
  const bool ready = std::all_of(lease.seats.begin(), lease.seats.end(),
                                 [this](const Seat& seat) { return workers.IsReady(seat.participant); });
  if (!ready) return;
  lease.granted_ns = NowNs();
  lease.expires_ns = DeadlineIn(lease.ttl_ms * kMillisecondNs);
  LeaseWorkers::Phases slowest;
  for (Seat& seat : lease.seats) {
    Serve(id, lease, seat);
    const LeaseWorkers::Phases phases = workers.PhasesOf(seat.participant);
    if (phases.spawn_ns + phases.code_ns > slowest.spawn_ns + slowest.code_ns) slowest = phases;
  }
  ArmExpiry(id, lease);
  JsonWriter json;
  json.BeginObject();
  json.Number("allocateNs", lease.allocated_ns - lease.asked_ns);
  json.Number("spawnNs", slowest.spawn_ns);
  json.Number("codeNs", slowest.code_ns);
  json.EndObject();
  LeaseReply reply{.lease = id, .key = lease.key, .ttl_ms = lease.ttl_ms, .text = json.Take()};
  for (const Seat& seat : lease.seats) reply.pids.push_back(seat.pid);
  lease.answered = true;
  Answer(lease.session, lease.call, reply);
}

/// The worker of `seat`, which is ready, begins.
void Leases::Serve(uint64_t id, Lease& lease, Seat& seat) {
  seat.pid = workers.PidOf(seat.participant);
  seat.served_ns = NowNs();
  seat.meter.Begin(process_.segment->participant(seat.participant), NowNs());
  const int64_t hot_ns = lease.hot_ms < 0 ? -1 : lease.hot_ms * static_cast<int64_t>(kMillisecondNs);
  const worker::LeaseTerms terms{.lease = id, .hot_ns = hot_ns, .expires_ns = lease.expires_ns};
  if (!workers.Send(seat.participant, {.type = worker::ControlType::kLease, .terms = terms}).ok()) {
    workers.Kill(seat.participant);  // its end is noticed like any other
  }
}

// -------------------------------------------------------------------------------------------------------------------
// workers that die

void Leases::SeatEnded(uint16_t participant, const WorkerEnd& end) {
  const auto [id, seat] = SeatOf(participant);
  if (seat == nullptr) return;
  Lease& lease = leases_.at(id);
  const auto worker = static_cast<uint32_t>(seat - lease.seats.data());
  const bool served = lease.granted_ns != 0;
  seat->meter.Stop(NowNs(), true);
  // One that has answered calls can do its work: what ended it was one of them.
  const LeaseAccount used = seat->meter.Read(0);
  if (used.calls > used.failures || NowNs() - seat->served_ns >= kHealthyNs) seat->failures = 0;
  seat->before += used;
  seat->meter = {};
  seat->participant = 0;
  seat->leaving = false;
  if (lease.ending) EmptySeat(*seat);
  const std::string text = end.Json(dispatch::kSlotOutputBytes);
  seat->fate = FateOfWorker(text);
  seat->fate_ns = NowNs();
  EndSessions(*seat, lease.ending ? *lease.ending : Status(Code::kWorkerCrashed, text));
  if (lease.ending) return FinishIfLeft(id);
  if (!served) {
    std::string why = "the leased worker ended with " + end.Describe() + " before it was ready";
    if (!end.stderr_tail.empty()) why += "; its last words:\n" + end.stderr_tail;
    return End(id, Status(Code::kWorkerStart, why));
  }
  AnswerFates(lease, worker, seat->fate);
  Notify(lease, id, LeaseEvent::kWorkerEnded, worker, text);
  FillLater(id, worker);
}

void Leases::FillLater(uint64_t id, uint32_t worker) {
  Seat& seat = leases_.at(id).seats[worker];
  const uint32_t failures = std::min(seat.failures++, 10u);
  const uint64_t wait_ms = failures == 0 ? 0 : std::min<uint64_t>(50ull << failures, kMaxBackoffMs);
  seat.timer = loop_.At(DeadlineIn(wait_ms * kMillisecondNs), [this, id, worker] {
    Lease* const lease = Find(id);
    if (lease == nullptr || lease->ending) return;
    lease->seats[worker].timer = {};
    if (!FillSeat(*lease, lease->seats[worker]).ok()) return FillLater(id, worker);
    if (workers.IsReady(lease->seats[worker].participant)) SeatReady(lease->seats[worker].participant);
  });
}

void Leases::EndSessions(Seat& seat, const Status& why) {
  for (const uint64_t session : std::exchange(seat.sessions, {})) {
    if ((session & kHandedOver) != 0) {
      windows_.SessionClosed(session);
    } else {
      windows_.offers.Forget(session);
      hooks.end_session(session, why);
    }
  }
}

// -------------------------------------------------------------------------------------------------------------------
// connections to workers

Result<LeaseSeat> Leases::Admit(uint64_t session, const std::string& key, uint32_t worker) {
  for (const Ended& ended : ended_) {
    if (protocol::SecretsEqual(ended.key, key)) return ended.why;
  }
  for (auto& [id, lease] : leases_) {
    if (!protocol::SecretsEqual(lease.key, key)) continue;
    if (lease.ending) return *lease.ending;
    if (worker >= lease.seats.size()) {
      return Status(Code::kArgumentInvalid, "the lease has " + std::to_string(lease.seats.size()) + " workers");
    }
    Seat& seat = lease.seats[worker];
    if (lease.granted_ns == 0 || !workers.IsReady(seat.participant)) {
      return Status(Code::kLeaseUnavailable, "the worker has ended and is being replaced");
    }
    seat.sessions.insert(session);
    lease.used = true;
    return LeaseSeat{id, worker, seat.participant};
  }
  return Status(Code::kLeaseClosed, "there is no lease with this key");
}

Status Leases::HandOver(const LeaseSeat& admitted, int32_t client_pid, UniqueFd socket, bool checksum) {
  Lease* const lease = Find(admitted.lease);
  if (lease == nullptr || lease->ending) return Status(Code::kLeaseClosed, "the lease is over");
  Seat& seat = lease->seats[admitted.worker];
  if (seat.participant != admitted.participant) return Status(Code::kLeaseUnavailable, "the worker has ended");
  const uint64_t session = kHandedOver | next_handed_over_++;
  if (Status status = windows_.OpenForSocket(session, client_pid, {admitted.participant, admitted.lease},
                                             std::move(socket), checksum);
      !status.ok()) {
    return status;
  }
  seat.sessions.insert(session);
  return Status::Ok();
}

void Leases::Cancel(uint64_t session, uint64_t call) {
  const auto found = std::find_if(queue_.begin(), queue_.end(), [&](const Queued& queued) {
    return queued.session == session && queued.call == call;
  });
  const Status cancelled(Code::kInvocationCancelled, "cancelled while it waited for workers");
  if (found != queue_.end()) {
    loop_.CancelTimer(found->timer);
    queue_.erase(found);
    Answer(session, call, cancelled);
    return GrantQueued();
  }
  for (const auto& [id, lease] : leases_) {
    // Granted, too, as long as its holder has not come to know of it.
    if (lease.session == session && lease.call == call && !lease.used && !lease.ending) return End(id, cancelled);
  }
}

void Leases::SessionClosed(uint64_t session, const Status& why) {
  std::vector<uint64_t> held;
  for (auto& [id, lease] : leases_) {
    for (Seat& seat : lease.seats) seat.sessions.erase(session);
    std::erase_if(lease.waiting, [&](const Waiting& waiting) {
      if (waiting.session != session) return false;
      loop_.CancelTimer(waiting.timer);
      return true;
    });
    if (lease.session == session) held.push_back(id);
  }
  std::erase_if(queue_, [&](const Queued& queued) {
    if (queued.session != session) return false;
    loop_.CancelTimer(queued.timer);
    return true;
  });
  for (const uint64_t id : held) {
    if (Lease* lease = Find(id); lease != nullptr && !lease->ending) {
      End(id, why);
    }
  }
  GrantQueued();
}

void Leases::OnWorkerMessage(uint16_t participant, const worker::ControlMessage& message) {
  if (message.type == worker::ControlType::kConnectionEnded) {
    const std::optional<uint64_t> session = windows_.SessionOf(message.index, message.generation, participant);
    if (!session) return;
    if (const auto [id, seat] = SeatOf(participant); seat != nullptr) seat->sessions.erase(*session);
    if ((*session & kHandedOver) != 0) {
      windows_.SessionClosed(*session);
    } else {
      hooks.end_session(*session, Status(Code::kUpgradeFailed, "the worker could not take the window"));
    }
    return;
  }
  if (message.type != worker::ControlType::kLeaseLeft) return;
  const auto [id, seat] = SeatOf(participant);
  if (seat == nullptr || message.terms.lease != id) return;
  if (!seat->leaving) {
    // By its own clock, which has been faster.
    const Lease& lease = leases_.at(id);
    if (lease.granted_ns == 0) return;
    End(id, Status(Code::kLeaseExpired, "the lease was not renewed in time"));
  }
  seat->leaving = false;
  seat->meter.Stop(NowNs(), false);
  seat->before += seat->meter.Read(0);
  seat->meter = {};
  EmptySeat(*seat);
  FinishIfLeft(id);
}

}  // namespace praas::host
