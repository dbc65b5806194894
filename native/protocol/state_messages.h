#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "protocol/frame.h"
#include "publication/layout.h"

/// Payloads of kState and kStateReply. The data comes last and is not copied: `EncodeHead` gives everything up to and
/// including the header of the data field, the caller sends the data right behind it (FrameWriter's prefix).
namespace praas::protocol {

inline constexpr uint32_t kMaxKeysPerReply = 1000;

enum class LockMode : uint32_t { kRead = 1, kWrite = 2 };

/// Which fields an operation has:
///   kGet    key, [offset, length]         → data, infos[0]
///   kSet    key, data, [version, offset]  → version          version: compare-and-set; 0 = only when absent
///   kAppend key, data                     → version
///   kDelete key, [version]                → existed
///   kStat   key                           → infos[0]
///   kKeys   prefix, after, limit          → infos, in byte order
///   kLock   key, mode                     → lock             answered when granted or at the deadline
///   kUnlock lock                          → nothing
///   kRead   key                           → existed, version, [place], data     never an array; version 0: no key
///   kPublish key, [capacity]              → capacity
///   kUnpublish key                        → existed
struct StateRequest {
  StateOp op{};
  std::string key{};
  std::optional<uint64_t> version{};
  std::optional<uint64_t> offset{};
  std::optional<uint64_t> length{};
  std::string prefix{};
  std::string after{};
  uint32_t limit = 0;
  LockMode mode = LockMode::kRead;
  uint64_t lock = 0;
  std::optional<uint64_t> capacity{};
  std::span<const std::byte> data{};  // kSet and kAppend; decoded: a view of the payload
};
[[nodiscard]] std::vector<std::byte> EncodeHead(const StateRequest& request);
/// kNameInvalid for a bad key and kArgumentInvalid for numbers that make no sense (the caller answers these), else
/// kProtocolInvalid.
[[nodiscard]] Result<StateRequest> DecodeStateRequest(uint16_t op, std::span<const std::byte> payload);

/// state::KeyInfo as it travels.
struct KeyInfo {
  std::string key{};
  uint32_t kind = 0;  // state::KeyKind
  uint32_t element_type = 0;
  uint64_t bytes = 0;
  uint64_t version = 0;
  uint64_t modified_wall_ns = 0;
};

struct StateReply {
  uint64_t version = 0;
  bool existed = false;
  uint64_t lock = 0;
  uint64_t capacity = 0;
  std::optional<publication::Location> place{};  // of a published key: where the client may read it by itself
  std::vector<KeyInfo> infos{};
  std::span<const std::byte> data{};
};
[[nodiscard]] std::vector<std::byte> EncodeHead(StateOp op, const StateReply& reply);
/// What goes in front of an encoded head of kRead whose place had no address yet.
[[nodiscard]] std::vector<std::byte> EncodeRemote(const publication::Location& place);
[[nodiscard]] Result<StateReply> DecodeStateReply(StateOp op, std::span<const std::byte> payload);

}  // namespace praas::protocol
