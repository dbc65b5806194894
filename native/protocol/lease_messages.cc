#include "protocol/lease_messages.h"

#include "protocol/little_endian.h"
#include "protocol/tlv.h"

namespace praas::protocol {
namespace {

namespace request {
enum : uint16_t {
  kLease = 1,
  kWorkers = 2,
  kLane = 3,
  kHot = 4,
  kTtl = 5,
  kWait = 6,
  kName = 7,
  kWorker = 8,
};
}
namespace reply {
enum : uint16_t { kLease = 1, kKey = 2, kTtl = 3, kPids = 4, kText = 5 };
}

constexpr size_t kMaxText = 512 * 1024;

}  // namespace

std::vector<std::byte> Encode(const LeaseRequest& value) {
  FieldWriter fields;
  fields.Integer<uint64_t>(request::kLease, value.lease);
  fields.Integer<uint32_t>(request::kWorkers, value.workers);
  fields.Integer<uint8_t>(request::kLane, static_cast<uint8_t>(value.lane));
  fields.Integer<uint64_t>(request::kHot, static_cast<uint64_t>(value.hot_ms + 1));
  fields.Integer<uint64_t>(request::kTtl, value.ttl_ms);
  fields.Integer<uint64_t>(request::kWait, value.wait_ms);
  fields.Text(request::kName, value.name);
  fields.Integer<uint32_t>(request::kWorker, value.worker);
  return fields.Take();
}

Result<LeaseRequest> DecodeLeaseRequest(std::span<const std::byte> payload) {
  FieldReader fields(payload, "lease request");
  LeaseRequest result;
  result.lease = fields.Integer<uint64_t>(request::kLease, "lease");
  result.workers = fields.Integer<uint32_t>(request::kWorkers, "workers", 1, kMaxLeaseWorkers);
  result.lane = static_cast<LeaseLane>(
      fields.Integer<uint8_t>(request::kLane, "lane", 0, static_cast<uint8_t>(LeaseLane::kNative)));
  result.hot_ms = static_cast<int64_t>(fields.Integer<uint64_t>(request::kHot, "hot time", 0, kMaxLeaseMs)) - 1;
  result.ttl_ms = fields.Integer<uint64_t>(request::kTtl, "ttl", 0, kMaxLeaseMs);
  result.wait_ms = fields.Integer<uint64_t>(request::kWait, "wait", 0, kMaxLeaseMs);
  result.name = fields.Text(request::kName, "name", 0, kMaxName);
  result.worker = fields.Integer<uint32_t>(request::kWorker, "worker", 0, kMaxLeaseWorkers - 1);
  if (!fields.status().ok()) return fields.status();
  return result;
}

std::vector<std::byte> Encode(const LeaseReply& value) {
  FieldWriter fields;
  fields.Integer<uint64_t>(reply::kLease, value.lease);
  fields.Text(reply::kKey, value.key);
  fields.Integer<uint64_t>(reply::kTtl, value.ttl_ms);
  std::vector<std::byte> pids(value.pids.size() * sizeof(uint32_t));
  for (size_t i = 0; i < value.pids.size(); ++i)
    StoreLittle<uint32_t>(pids.data() + i * sizeof(uint32_t), value.pids[i]);
  fields.Bytes(reply::kPids, pids);
  fields.Text(reply::kText, value.text);
  return fields.Take();
}

Result<LeaseReply> DecodeLeaseReply(std::span<const std::byte> payload) {
  FieldReader fields(payload, "lease reply");
  LeaseReply result;
  result.lease = fields.Integer<uint64_t>(reply::kLease, "lease");
  result.key = fields.Text(reply::kKey, "key", 0, kLeaseKeyBytes);
  result.ttl_ms = fields.Integer<uint64_t>(reply::kTtl, "ttl");
  const std::span<const std::byte> pids = fields.Bytes(reply::kPids, "pids", kMaxLeaseWorkers * sizeof(uint32_t));
  if (pids.size() % sizeof(uint32_t) != 0) fields.Fail("pids", "has the wrong size");
  for (size_t at = 0; at + sizeof(uint32_t) <= pids.size(); at += sizeof(uint32_t)) {
    result.pids.push_back(LoadLittle<uint32_t>(pids.data() + at));
  }
  result.text = fields.Text(reply::kText, "text", 0, kMaxText);
  if (!fields.status().ok()) return fields.status();
  return result;
}

}  // namespace praas::protocol
