// What leases have used, as JSON.

#include "base/clock.h"
#include "host/leases.h"

namespace praas::host {
namespace {

std::string LaneName(dispatch::Lane lane) { return lane == dispatch::Lane::kNative ? "native" : "node"; }

}  // namespace

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
