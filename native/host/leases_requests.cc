// What holders of leases ask: more time, the end, what they have used, what became of a worker.

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "host/leases.h"

namespace praas::host {
namespace {

using protocol::LeaseReply;
using protocol::LeaseRequest;

/// A connection may end before the host hears of the worker's end.
constexpr uint64_t kFateNs = 200'000'000;
/// How long the end of a worker stays the answer after another one has taken its place.
constexpr uint64_t kFateKeptNs = 5'000'000'000;

}  // namespace

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
  if (const Ended* ended = FindEnded(session, request.lease); ended != nullptr) {
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
  if (const Ended* ended = FindEnded(session, request.lease); ended != nullptr) {
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
  if (const Ended* ended = FindEnded(session, request.lease); ended != nullptr) return answer(FateOf(ended->why));
  Lease* const lease = Find(request.lease);
  if (lease == nullptr || lease->session != session || request.worker >= lease->seats.size()) {
    return Answer(session, call, Status(Code::kLeaseClosed, "this connection holds no such leased worker"));
  }
  if (lease->ending) return answer(FateOf(*lease->ending));
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

}  // namespace praas::host
