#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "protocol/frame.h"

/// Payloads of handshake, upgrade and errors. Encoders take values the caller has made sure of; decoders check every
/// field and give kProtocolInvalid, or kNameInvalid / kTokenInvalid where the caller can answer more precisely.
namespace praas::protocol {

inline constexpr size_t kMaxHelloBytes = 8 * 1024;  // what a host reads from somebody who has not shown a token yet
inline constexpr size_t kMaxMachineId = 255;
inline constexpr size_t kMaxSocketPath = 107;  // sun_path without its NUL
inline constexpr size_t kUpgradeNonceBytes = 32;
inline constexpr size_t kLeaseKeyBytes = 32;  // hexadecimal digits
inline constexpr uint32_t kMaxLeaseWorkers = 1000;
inline constexpr size_t kMaxErrorMessage = 64 * 1024;
inline constexpr uint64_t kInitialStreamCredit = 1u << 20;

struct Hello {
  std::string process{};
  std::string token{};        // protocol/token.h; empty where there is a lease key
  uint64_t capabilities = 0;  // Capability bits the client can do
  int32_t client_pid = 0;
  std::string name{};         // for logs and `praas inspect`; may be empty
  std::string lease_key{};    // of a connection to a leased worker; else empty
  uint32_t lease_worker = 0;  // which of the lease's
};
[[nodiscard]] std::vector<std::byte> Encode(const Hello& hello);
[[nodiscard]] Result<Hello> DecodeHello(std::span<const std::byte> payload);

struct Welcome {
  uint64_t session_id = 0;
  std::string process{};
  uint64_t capabilities = 0;  // those of the client's that this session uses
  uint64_t max_contiguous = 0;
  uint32_t max_in_flight = 0;
  uint64_t default_timeout_ns = 0;
  int32_t host_pid = 0;
  std::string machine_id{};                       // base/machine_id.h; equal on both sides: a shm upgrade may work
  uint64_t stream_credit = kInitialStreamCredit;  // each direction of each stream begins with this
};
[[nodiscard]] std::vector<std::byte> Encode(const Welcome& welcome);
[[nodiscard]] Result<Welcome> DecodeWelcome(std::span<const std::byte> payload);

/// Payload of kReject and kGoodbye, and of a kUpgradeOffer that offers nothing. Never kOk, except in kGoodbye.
struct Reject {
  Code code = Code::kInternal;
  std::string message{};
};
[[nodiscard]] std::vector<std::byte> Encode(const Reject& reject);
[[nodiscard]] Result<Reject> DecodeReject(std::span<const std::byte> payload);

/// One end of an RDMA connection, as the other has to know it (docs/protocol.md, "RDMA").
struct VerbsEnd {
  uint32_t queue_pair = 0;    // 24 bits
  uint32_t first_packet = 0;  // 24 bits: packet sequence number it begins with
  bool ethernet = false;      // RoCE, else InfiniBand
  uint16_t lid = 0;
  std::array<uint8_t, 16> gid{};
  uint32_t mtu_bytes = 0;
  uint64_t memory_address = 0;  // of its messages
  uint32_t memory_key = 0;
  uint32_t slots = 0;  // messages each way at a time

  bool operator==(const VerbsEnd&) const = default;
};
inline constexpr uint32_t kMaxVerbsSlots = 256;

struct UpgradeRequest {
  std::string transport{};  // "shm", "verbs"; "worker": from here on the leased worker itself speaks; "tcp" ends what
                            // was taken before
  uint64_t window_bytes = 0;
  std::optional<VerbsEnd> verbs{};  // of "verbs"
};
[[nodiscard]] std::vector<std::byte> Encode(const UpgradeRequest& request);
[[nodiscard]] Result<UpgradeRequest> DecodeUpgradeRequest(std::span<const std::byte> payload);

struct UpgradeOffer {
  std::string socket_path{};
  std::string nonce{};  // kUpgradeNonceBytes of it, any bytes
  uint64_t window_bytes = 0;
  std::optional<VerbsEnd> verbs{};  // set: all above is empty
  bool worker = false;              // likewise: this is the worker
  std::optional<Reject> refused{};  // set: everything else is empty
};
[[nodiscard]] std::vector<std::byte> Encode(const UpgradeOffer& offer);
[[nodiscard]] Result<UpgradeOffer> DecodeUpgradeOffer(std::span<const std::byte> payload);

/// Makes `frame` an error reply: sets code and aux (errno) and returns the payload, the message cut to kMaxErrorMessage
/// at a character boundary. The payload views `status`.
[[nodiscard]] std::span<const std::byte> SetError(Frame& frame, const Status& status) noexcept;
/// The reverse; kOk when the frame is no error. Bytes that are not UTF-8 are replaced by '?'.
[[nodiscard]] Status DecodeError(const Frame& frame, std::span<const std::byte> payload);

/// Compares secrets in time that depends on their lengths only.
[[nodiscard]] bool SecretsEqual(std::string_view a, std::string_view b) noexcept;

}  // namespace praas::protocol
