#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "protocol/messages.h"

/// Payloads of kLease and kLeaseReply (docs/protocol.md, "Leases"). Decoders check every field and give
/// kProtocolInvalid.
namespace praas::protocol {

/// Which workers a lease is for; kAny: those of the language in which the process has functions, TypeScript first.
enum class LeaseLane : uint8_t { kAny = 0, kNode = 1, kNative = 2 };

/// What an operation does not use is as here.
struct LeaseRequest {
  uint64_t lease = 0;    // all but kTake
  uint32_t workers = 1;  // kTake: 1 … kMaxLeaseWorkers
  LeaseLane lane = LeaseLane::kAny;
  int64_t hot_ms = -1;   // kTake: how long its workers poll after a call; −1 always, 0 never
  uint64_t ttl_ms = 0;   // kTake, kRenew: until it expires unless renewed, from 1 ms to a year
  uint64_t wait_ms = 0;  // kTake: how long to wait for workers that others have; 0: not at all
  std::string name{};    // kTake: for lists; at most kMaxName bytes
  uint32_t worker = 0;   // kFate

  bool operator==(const LeaseRequest&) const = default;
};
inline constexpr uint64_t kMaxLeaseMs = 365ull * 24 * 3600 * 1000;
[[nodiscard]] std::vector<std::byte> Encode(const LeaseRequest& request);
[[nodiscard]] Result<LeaseRequest> DecodeLeaseRequest(std::span<const std::byte> payload);

struct LeaseReply {
  uint64_t lease = 0;
  std::string key{};             // kTake: what connections to its workers show; kLeaseKeyBytes, else empty
  uint64_t ttl_ms = 0;           // kTake, kRenew: until it expires
  std::vector<uint32_t> pids{};  // kTake: of its workers
  std::string text{};            // JSON: kTake how long each phase took; kRelease, kReport accounting; kFate the end

  bool operator==(const LeaseReply&) const = default;
};
[[nodiscard]] std::vector<std::byte> Encode(const LeaseReply& reply);
[[nodiscard]] Result<LeaseReply> DecodeLeaseReply(std::span<const std::byte> payload);

}  // namespace praas::protocol
