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

constexpr uint64_t kMillisecondNs = 1'000'000;
/// Ended ones that are remembered for who asks later.
constexpr size_t kRemembered = 256;
/// A connection may end before the host hears of the worker's end.
constexpr uint64_t kFateNs = 200 * kMillisecondNs;
/// How long the end of a worker stays the answer after another one has taken its place.
constexpr uint64_t kFateKeptNs = 5'000 * kMillisecondNs;
constexpr uint64_t kHealthyNs = 10'000 * kMillisecondNs;
/// Requests of one session that may wait.
constexpr std::ptrdiff_t kMaxQueued = 64;
constexpr uint64_t kMaxBackoffMs = 10'000;
/// Sessions that were handed over are named by numbers no session of the host has.
constexpr uint64_t kHandedOver = uint64_t{1} << 63;

std::string LaneName(dispatch::Lane lane) { return lane == dispatch::Lane::kNative ? "native" : "node"; }

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

std::string FateOfLease(const Status& why) {
  JsonWriter json;
  json.BeginObject();
  json.Text("ended", "lease");
  json.Text("code", CodeName(why.code()));
  json.Text("message", why.message());
  json.EndObject();
  return json.Take();
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

const Leases::Ended* Leases::FindEnded(uint64_t id) const noexcept {
  const auto found = std::find_if(ended_.begin(), ended_.end(), [id](const Ended& ended) { return ended.lease == id; });
  return found == ended_.end() ? nullptr : &*found;
}

/// A lease that `session` holds.
Result<Leases::Lease*> Leases::Held(uint64_t session, uint64_t id) {
  if (Lease* lease = Find(id); lease != nullptr && lease->session == session) {
    if (lease->ending) return *lease->ending;
    return lease;
  }
  if (const Ended* ended = FindEnded(id)) return ended->why;
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
      windows_.ForgetOffers(session);
      hooks.end_session(session, why);
    }
  }
}

// -------------------------------------------------------------------------------------------------------------------
// what holders ask

void Leases::ArmExpiry(uint64_t id, Lease& lease) {
  loop_.CancelTimer(lease.timer);
  lease.timer = loop_.At(lease.expires_ns,
                         [this, id] { End(id, Status(Code::kLeaseExpired, "the lease was not renewed in time")); });
}

void Leases::Renew(uint64_t session, uint64_t call, const LeaseRequest& request) {
  const Result<Lease*> held = Held(session, request.lease);
  if (!held.ok()) return Answer(session, call, held.status());
  if (request.ttl_ms == 0) return Answer(session, call, Status(Code::kArgumentInvalid, "a lease lasts 1 ms at least"));
  Lease& lease = **held;
  lease.used = true;
  if (lease.granted_ns != 0 && NowNs() >= lease.expires_ns) {
    // Its workers may be leaving already.
    const Status late(Code::kLeaseExpired, "the lease was not renewed in time");
    Answer(session, call, late);
    return End(request.lease, late);
  }
  if (lease.granted_ns == 0) return Answer(session, call, Status(Code::kLeaseClosed, "the lease has not begun"));
  lease.ttl_ms = request.ttl_ms;
  lease.expires_ns = DeadlineIn(request.ttl_ms * kMillisecondNs);
  ArmExpiry(request.lease, lease);
  const int64_t hot_ns = lease.hot_ms < 0 ? -1 : lease.hot_ms * static_cast<int64_t>(kMillisecondNs);
  for (const Seat& seat : lease.seats) {
    if (!workers.IsReady(seat.participant)) continue;
    const worker::LeaseTerms terms{.lease = request.lease, .hot_ns = hot_ns, .expires_ns = lease.expires_ns};
    if (!workers.Send(seat.participant, {.type = worker::ControlType::kLease, .terms = terms}).ok()) {
      workers.Kill(seat.participant);
    }
  }
  Answer(session, call, LeaseReply{.lease = request.lease, .ttl_ms = lease.ttl_ms});
}

void Leases::Release(uint64_t session, uint64_t call, const LeaseRequest& request) {
  if (const Ended* ended = FindEnded(request.lease); ended != nullptr) {
    return Answer(session, call, LeaseReply{.lease = request.lease, .text = ended->report});
  }
  Lease* const lease = Find(request.lease);
  if (lease == nullptr || lease->session != session || lease->releasing) {
    return Answer(session, call, Held(session, request.lease).status());
  }
  lease->releasing = call;
  if (!lease->ending) End(request.lease, Status(Code::kLeaseClosed, "the lease was released"));
}

void Leases::Report(uint64_t session, uint64_t call, const LeaseRequest& request) {
  if (const Ended* ended = FindEnded(request.lease); ended != nullptr) {
    return Answer(session, call, LeaseReply{.lease = request.lease, .text = ended->report});
  }
  Lease* const lease = Find(request.lease);
  if (lease == nullptr || lease->session != session) {
    return Answer(session, call, Held(session, request.lease).status());
  }
  lease->used = true;
  Answer(session, call, LeaseReply{.lease = request.lease, .text = ReportOf(request.lease, *lease)});
}

void Leases::TellFate(uint64_t session, uint64_t call, const LeaseRequest& request) {
  const auto answer = [&](std::string text) {
    Answer(session, call, LeaseReply{.lease = request.lease, .text = std::move(text)});
  };
  if (const Ended* ended = FindEnded(request.lease); ended != nullptr) return answer(FateOfLease(ended->why));
  Lease* const lease = Find(request.lease);
  if (lease == nullptr || lease->session != session || request.worker >= lease->seats.size()) {
    return Answer(session, call, Status(Code::kLeaseClosed, "this connection holds no such leased worker"));
  }
  if (lease->ending) return answer(FateOfLease(*lease->ending));
  const Seat& seat = lease->seats[request.worker];
  // Who asks late, because it was blocked, asks for the one before.
  const bool recent = seat.participant == 0 || NowNs() - seat.fate_ns < kFateKeptNs;
  if (!seat.fate.empty() && recent) return answer(seat.fate);
  const auto timer = loop_.At(DeadlineIn(kFateNs), [this, id = request.lease, worker = request.worker] {
    if (Lease* waited = Find(id)) AnswerFates(*waited, worker, R"({"ended":"no"})");
  });
  lease->waiting.push_back({session, call, request.worker, timer});
}

void Leases::AnswerFates(Lease& lease, uint32_t worker, const std::string& text) {
  std::vector<Waiting> told;
  std::erase_if(lease.waiting, [&](const Waiting& waiting) {
    if (waiting.worker != worker) return false;
    told.push_back(waiting);
    return true;
  });
  for (const Waiting& waiting : told) {
    loop_.CancelTimer(waiting.timer);
    Answer(waiting.session, waiting.call, LeaseReply{.text = text});
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

void Leases::SessionClosed(uint64_t session) {
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
      End(id, Status(Code::kLeaseClosed, "its holder has gone"));
    }
  }
  GrantQueued();
}

void Leases::OnWorkerMessage(uint16_t participant, const worker::ControlMessage& message) {
  if (message.type == worker::ControlType::kConnectionEnded) {
    const std::optional<uint64_t> session = windows_.SessionOf(message.index, participant);
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

// -------------------------------------------------------------------------------------------------------------------
// the end

void Leases::End(uint64_t id, const Status& why) {
  Lease& lease = leases_.at(id);
  if (lease.ending) return;
  lease.ending = why;
  loop_.CancelTimer(lease.timer);
  lease.timer = {};
  for (uint32_t worker = 0; worker < lease.seats.size(); ++worker) {
    Seat& seat = lease.seats[worker];
    loop_.CancelTimer(seat.timer);
    seat.timer = {};
    AnswerFates(lease, worker, FateOfLease(why));
    // Those of its own sessions; a handed-over socket the worker itself closes, or its end does.
    for (const uint64_t session : std::set<uint64_t>(seat.sessions)) {
      if ((session & kHandedOver) != 0) continue;
      seat.sessions.erase(session);
      windows_.ForgetOffers(session);
      hooks.end_session(session, why);
    }
    if (seat.participant == 0 || lease.granted_ns == 0) {
      // It serves nobody yet. One that still starts is of use to the next.
      EmptySeat(seat);
      continue;
    }
    seat.leaving = true;
    if (!workers.Send(seat.participant, {.type = worker::ControlType::kLeaseEnd, .terms = {.lease = id}}).ok()) {
      workers.Kill(seat.participant);
    }
  }
  lease.timer = loop_.At(DeadlineIn(kLeaveNs), [this, id] { KillLeaving(id); });
  FinishIfLeft(id);
}

void Leases::KillLeaving(uint64_t id) {
  Lease* const lease = Find(id);
  if (lease == nullptr) return;
  lease->timer = {};
  for (const Seat& seat : lease->seats) {
    if (seat.leaving) workers.Kill(seat.participant);
  }
}

void Leases::FinishIfLeft(uint64_t id) {
  Lease& lease = leases_.at(id);
  const bool left =
      std::none_of(lease.seats.begin(), lease.seats.end(), [](const Seat& seat) { return seat.participant != 0; });
  if (!left) return;
  loop_.CancelTimer(lease.timer);
  for (Seat& seat : lease.seats) EndSessions(seat, *lease.ending);
  const Status why = *lease.ending;
  const std::string report = ReportOf(id, lease);
  const bool begun = lease.granted_ns != 0;
  if (begun) {
    past_ += AccountOf(lease, NowNs());
    ++past_count_;
    ended_.push_back({id, lease.key, why, report});
    if (ended_.size() > kRemembered) ended_.pop_front();
  }
  const Lease over = std::move(lease);
  leases_.erase(id);
  if (!begun) {
    if (!over.answered) Answer(over.session, over.call, why);
    if (over.releasing) Answer(over.session, *over.releasing, why);
  } else if (over.releasing) {
    Answer(over.session, *over.releasing, LeaseReply{.lease = id, .text = report});
  } else {
    Notify(over, id, LeaseEvent::kEnded, 0, report, why.code());
  }
  GrantQueued();
}

void Leases::RevokeAll(const Status& why, uint64_t in_ns) {
  if (closed_) return;
  closed_ = why;
  for (const Queued& queued : std::exchange(queue_, {})) {
    loop_.CancelTimer(queued.timer);
    Answer(queued.session, queued.call, why);
  }
  std::vector<uint64_t> ids;
  for (auto& [id, lease] : leases_) {
    ids.push_back(id);
    if (lease.granted_ns != 0 && !lease.ending) {
      Notify(lease, id, LeaseEvent::kEnding, in_ns / kMillisecondNs, why.message());
    }
  }
  const Status revoked(Code::kLeaseRevoked, why.message());
  const auto end = [this, ids, revoked] {
    revoke_timer_ = {};
    for (const uint64_t id : ids) {
      if (Lease* lease = Find(id); lease != nullptr && !lease->ending) End(id, revoked);
    }
  };
  if (in_ns == 0) return end();
  revoke_timer_ = loop_.At(DeadlineIn(in_ns), end);
}

// -------------------------------------------------------------------------------------------------------------------
// accounting

LeaseAccount Leases::AccountOf(const Lease& lease, uint64_t now_ns) const noexcept {
  LeaseAccount account;
  for (const Seat& seat : lease.seats) {
    account += seat.before;
    account += seat.meter.Read(now_ns);
  }
  return account;
}

void Leases::WriteLease(uint64_t id, const Lease& lease, JsonWriter& json) const {
  const uint64_t now_ns = NowNs();
  json.BeginObject();
  json.Number("lease", id);
  json.Text("name", lease.name);
  json.Number("client", lease.client_pid);
  json.Text("state", lease.ending ? "ended" : lease.granted_ns == 0 ? "starting" : "active");
  json.Number("workers", lease.seats.size());
  json.Text("lane", LaneName(lease.lane));
  json.Number("ttlMs", lease.ttl_ms);
  const bool runs = !lease.ending && lease.expires_ns > now_ns;
  json.Number("remainingMs", runs ? (lease.expires_ns - now_ns) / kMillisecondNs : 0);
  json.Number("hotMs", lease.hot_ms);
  json.Number("heldNs", lease.granted_ns == 0 ? 0 : now_ns - lease.granted_ns);
  AccountOf(lease, now_ns).WriteFields(json);
  json.BeginArray("perWorker");
  for (uint32_t worker = 0; worker < lease.seats.size(); ++worker) {
    const Seat& seat = lease.seats[worker];
    LeaseAccount account = seat.before;
    account += seat.meter.Read(now_ns);
    json.BeginObject();
    json.Number("worker", worker);
    json.Number("pid", seat.pid);
    account.WriteFields(json);
    json.EndObject();
  }
  json.EndArray();
  json.EndObject();
}

std::string Leases::ReportOf(uint64_t id, const Lease& lease) const {
  JsonWriter json;
  WriteLease(id, lease, json);
  return json.Take();
}

std::string Leases::Json() const {
  LeaseAccount totals = past_;
  JsonWriter json;
  json.BeginObject();
  json.BeginArray("leases");
  for (const auto& [id, lease] : leases_) {
    WriteLease(id, lease, json);
    totals += AccountOf(lease, NowNs());
  }
  json.EndArray();
  json.Number("waiting", queue_.size());
  json.Number("capacity", workers.capacity());
  json.Number("free", workers.free());
  json.BeginObject("totals");
  json.Number("leases", past_count_ + leases_.size());
  totals.WriteFields(json);
  json.EndObject();
  json.EndObject();
  return json.Take();
}

}  // namespace praas::host
