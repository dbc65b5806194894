// How leases end: at their time, by their holders, or because the process takes them back.

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "host/leases.h"

namespace praas::host {
namespace {

using protocol::LeaseEvent;
using protocol::LeaseReply;

/// Ended ones that are remembered for who asks later.
constexpr size_t kRemembered = 256;

}  // namespace

std::string Leases::FateOf(const Status& why) {
  JsonWriter json;
  json.BeginObject();
  json.Text("ended", "lease");
  json.Text("code", CodeName(why.code()));
  json.Text("message", why.message());
  json.EndObject();
  return json.Take();
}

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
    AnswerFates(lease, worker, FateOf(why));
    // Those of its own sessions; a handed-over socket the worker itself closes, or its end does.
    for (const uint64_t session : std::set<uint64_t>(seat.sessions)) {
      if ((session & kHandedOver) != 0) continue;
      seat.sessions.erase(session);
      windows_.offers.Forget(session);
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
    ended_.push_back({id, lease.session, lease.key, why, report});
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

}  // namespace praas::host
