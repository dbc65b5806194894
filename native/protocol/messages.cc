#include "protocol/messages.h"

#include <algorithm>
#include <cstring>

#include "protocol/names.h"
#include "protocol/tlv.h"

namespace praas::protocol {
namespace {

// Tags are per message and never reused.
namespace hello {
enum : uint16_t { kProcess = 2, kToken = 3, kCapabilities = 4, kPid = 5, kName = 6, kLeaseKey = 7, kLeaseWorker = 8 };
}
namespace welcome {
enum : uint16_t {
  kSession = 1,
  kProcess = 2,
  kCapabilities = 3,
  kMaxContiguous = 4,
  kMaxInFlight = 5,
  kDefaultTimeout = 6,
  kPid = 7,
  kMachine = 8,
  kStreamCredit = 9,
};
}
namespace reject {
enum : uint16_t { kCode = 1, kMessage = 2 };
}
namespace upgrade {
enum : uint16_t { kTransport = 1, kWindowBytes = 2 };
}
namespace offer {
enum : uint16_t {
  kCode = reject::kCode,
  kMessage = reject::kMessage,
  kPath = 3,
  kNonce = 4,
  kWindowBytes = 5,
  kWorker = 6
};
}
/// In both of the two above.
namespace verbs {
enum : uint16_t {
  kQueuePair = 16,
  kFirstPacket = 17,
  kEthernet = 18,
  kLid = 19,
  kGid = 20,
  kMtu = 21,
  kAddress = 22,
  kKey = 23,
  kSlots = 24,
};
}

constexpr uint32_t kMaxPid = INT32_MAX;
constexpr uint32_t kMaxInFlightLimit = 1u << 20;
constexpr size_t kMaxTransportName = 16;

/// `text` cut to at most `max` bytes, not within a character.
std::string_view CutText(std::string_view text, size_t max) noexcept {
  if (text.size() <= max) return text;
  size_t end = max;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return text.substr(0, end);
}

std::string ReadName(FieldReader& fields, uint16_t tag, std::string_view name) {
  const std::span<const std::byte> bytes = fields.Bytes(tag, name, kMaxErrorMessage);
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

void WriteVerbs(FieldWriter& fields, const VerbsEnd& value) {
  fields.Integer<uint32_t>(verbs::kQueuePair, value.queue_pair);
  fields.Integer<uint32_t>(verbs::kFirstPacket, value.first_packet);
  fields.Integer<uint8_t>(verbs::kEthernet, value.ethernet ? 1 : 0);
  fields.Integer<uint16_t>(verbs::kLid, value.lid);
  fields.Bytes(verbs::kGid, std::as_bytes(std::span(value.gid)));
  fields.Integer<uint32_t>(verbs::kMtu, value.mtu_bytes);
  fields.Integer<uint64_t>(verbs::kAddress, value.memory_address);
  fields.Integer<uint32_t>(verbs::kKey, value.memory_key);
  fields.Integer<uint32_t>(verbs::kSlots, value.slots);
}

VerbsEnd ReadVerbs(FieldReader& fields) {
  constexpr uint32_t k24Bits = 0xffffff;
  VerbsEnd value;
  value.queue_pair = fields.Integer<uint32_t>(verbs::kQueuePair, "queue pair", 0, k24Bits);
  value.first_packet = fields.Integer<uint32_t>(verbs::kFirstPacket, "first packet", 0, k24Bits);
  value.ethernet = fields.Integer<uint8_t>(verbs::kEthernet, "ethernet", 0, 1) != 0;
  value.lid = fields.Integer<uint16_t>(verbs::kLid, "lid");
  const std::span<const std::byte> gid = fields.Bytes(verbs::kGid, "gid", value.gid.size());
  if (gid.size() != value.gid.size()) {
    fields.Fail("gid", "has the wrong size");
  } else {
    std::memcpy(value.gid.data(), gid.data(), gid.size());
  }
  value.mtu_bytes = fields.Integer<uint32_t>(verbs::kMtu, "mtu", 256, 4096);
  value.memory_address = fields.Integer<uint64_t>(verbs::kAddress, "memory address");
  value.memory_key = fields.Integer<uint32_t>(verbs::kKey, "memory key");
  value.slots = fields.Integer<uint32_t>(verbs::kSlots, "slots", 1, kMaxVerbsSlots);
  return value;
}

Reject ReadReject(FieldReader& fields, uint16_t lowest_code) {
  Reject result;
  result.code = static_cast<Code>(fields.Integer<uint16_t>(reject::kCode, "code", lowest_code, UINT16_MAX));
  result.message = fields.Text(reject::kMessage, "message", 0, kMaxErrorMessage);
  return result;
}

void WriteReject(FieldWriter& fields, const Reject& value) {
  fields.Integer<uint16_t>(reject::kCode, static_cast<uint16_t>(value.code));
  fields.Text(reject::kMessage, CutText(value.message, kMaxErrorMessage));
}

}  // namespace

std::vector<std::byte> Encode(const Hello& value) {
  FieldWriter fields;
  fields.Text(hello::kProcess, value.process);
  fields.Text(hello::kToken, value.token);
  fields.Integer<uint64_t>(hello::kCapabilities, value.capabilities);
  fields.Integer<uint32_t>(hello::kPid, static_cast<uint32_t>(value.client_pid));
  fields.Text(hello::kName, CutText(value.name, kMaxName));
  if (!value.lease_key.empty()) {
    fields.Text(hello::kLeaseKey, value.lease_key);
    fields.Integer<uint32_t>(hello::kLeaseWorker, value.lease_worker);
  }
  return fields.Take();
}

Result<Hello> DecodeHello(std::span<const std::byte> payload) {
  FieldReader fields(payload, "hello");
  Hello result;
  result.process = ReadName(fields, hello::kProcess, "process");
  const std::span<const std::byte> token = fields.Bytes(hello::kToken, "token", kMaxToken);
  result.token.assign(reinterpret_cast<const char*>(token.data()), token.size());
  result.capabilities = fields.Integer<uint64_t>(hello::kCapabilities, "capabilities");
  result.client_pid = static_cast<int32_t>(fields.Integer<uint32_t>(hello::kPid, "pid", 1, kMaxPid));
  if (fields.Has(hello::kName)) result.name = fields.Text(hello::kName, "name", 0, kMaxName);
  if (fields.Has(hello::kLeaseKey)) {
    result.lease_key = fields.Text(hello::kLeaseKey, "lease key", kLeaseKeyBytes, kLeaseKeyBytes);
    result.lease_worker = fields.Integer<uint32_t>(hello::kLeaseWorker, "leased worker", 0, kMaxLeaseWorkers - 1);
  }
  if (!fields.status().ok()) return fields.status();
  if (Status named = ValidateName(result.process, "process id"); !named.ok()) return named;
  return result;
}

std::vector<std::byte> Encode(const Welcome& value) {
  FieldWriter fields;
  fields.Integer<uint64_t>(welcome::kSession, value.session_id);
  fields.Text(welcome::kProcess, value.process);
  fields.Integer<uint64_t>(welcome::kCapabilities, value.capabilities);
  fields.Integer<uint64_t>(welcome::kMaxContiguous, value.max_contiguous);
  fields.Integer<uint32_t>(welcome::kMaxInFlight, value.max_in_flight);
  fields.Integer<uint64_t>(welcome::kDefaultTimeout, value.default_timeout_ns);
  fields.Integer<uint32_t>(welcome::kPid, static_cast<uint32_t>(value.host_pid));
  fields.Text(welcome::kMachine, CutText(value.machine_id, kMaxMachineId));
  fields.Integer<uint64_t>(welcome::kStreamCredit, value.stream_credit);
  return fields.Take();
}

Result<Welcome> DecodeWelcome(std::span<const std::byte> payload) {
  FieldReader fields(payload, "welcome");
  Welcome result;
  result.session_id = fields.Integer<uint64_t>(welcome::kSession, "session", 1, UINT64_MAX);
  result.process = ReadName(fields, welcome::kProcess, "process");
  result.capabilities = fields.Integer<uint64_t>(welcome::kCapabilities, "capabilities");
  result.max_contiguous = fields.Integer<uint64_t>(welcome::kMaxContiguous, "max contiguous", 1, kMaxPayload);
  result.max_in_flight = fields.Integer<uint32_t>(welcome::kMaxInFlight, "max in flight", 1, kMaxInFlightLimit);
  result.default_timeout_ns = fields.Integer<uint64_t>(welcome::kDefaultTimeout, "default timeout", 1, UINT64_MAX - 1);
  result.host_pid = static_cast<int32_t>(fields.Integer<uint32_t>(welcome::kPid, "pid", 1, kMaxPid));
  result.machine_id = fields.Text(welcome::kMachine, "machine", 0, kMaxMachineId);
  result.stream_credit = fields.Integer<uint64_t>(welcome::kStreamCredit, "stream credit", 1, kMaxPayload);
  if (!fields.status().ok()) return fields.status();
  if (Status named = ValidateName(result.process, "process id"); !named.ok()) return named;
  return result;
}

std::vector<std::byte> Encode(const Reject& value) {
  FieldWriter fields;
  WriteReject(fields, value);
  return fields.Take();
}

Result<Reject> DecodeReject(std::span<const std::byte> payload) {
  FieldReader fields(payload, "reject");
  Reject result = ReadReject(fields, 0);
  if (!fields.status().ok()) return fields.status();
  return result;
}

std::vector<std::byte> Encode(const UpgradeRequest& value) {
  FieldWriter fields;
  fields.Text(upgrade::kTransport, value.transport);
  fields.Integer<uint64_t>(upgrade::kWindowBytes, value.window_bytes);
  if (value.verbs) WriteVerbs(fields, *value.verbs);
  return fields.Take();
}

Result<UpgradeRequest> DecodeUpgradeRequest(std::span<const std::byte> payload) {
  FieldReader fields(payload, "upgrade");
  UpgradeRequest result;
  result.transport = fields.Text(upgrade::kTransport, "transport", 1, kMaxTransportName);
  result.window_bytes = fields.Integer<uint64_t>(upgrade::kWindowBytes, "window size");
  if (fields.Has(verbs::kQueuePair)) result.verbs = ReadVerbs(fields);
  if (!fields.status().ok()) return fields.status();
  return result;
}

std::vector<std::byte> Encode(const UpgradeOffer& value) {
  FieldWriter fields;
  if (value.refused) {
    WriteReject(fields, *value.refused);
    return fields.Take();
  }
  if (value.verbs) {
    WriteVerbs(fields, *value.verbs);
    return fields.Take();
  }
  if (value.worker) {
    fields.Integer<uint8_t>(offer::kWorker, 1);
    return fields.Take();
  }
  fields.Text(offer::kPath, value.socket_path);
  fields.Text(offer::kNonce, value.nonce);
  fields.Integer<uint64_t>(offer::kWindowBytes, value.window_bytes);
  return fields.Take();
}

Result<UpgradeOffer> DecodeUpgradeOffer(std::span<const std::byte> payload) {
  FieldReader fields(payload, "upgrade offer");
  UpgradeOffer result;
  if (fields.Has(offer::kCode)) {
    result.refused = ReadReject(fields, 1);
  } else if (fields.Has(verbs::kQueuePair)) {
    result.verbs = ReadVerbs(fields);
  } else if (fields.Has(offer::kWorker)) {
    result.worker = fields.Integer<uint8_t>(offer::kWorker, "worker", 1, 1) == 1;
  } else {
    result.socket_path = fields.Text(offer::kPath, "socket path", 1, kMaxSocketPath);
    const std::span<const std::byte> nonce = fields.Bytes(offer::kNonce, "nonce", kUpgradeNonceBytes);
    if (nonce.size() != kUpgradeNonceBytes) fields.Fail("nonce", "has the wrong size");
    result.nonce.assign(reinterpret_cast<const char*>(nonce.data()), nonce.size());
    result.window_bytes = fields.Integer<uint64_t>(offer::kWindowBytes, "window size", 1, UINT64_MAX);
  }
  if (!fields.status().ok()) return fields.status();
  return result;
}

std::span<const std::byte> SetError(Frame& frame, const Status& status) noexcept {
  frame.code = static_cast<uint16_t>(status.code());
  frame.aux = static_cast<uint64_t>(status.sys_errno());
  return std::as_bytes(std::span(CutText(status.message(), kMaxErrorMessage)));
}

Status DecodeError(const Frame& frame, std::span<const std::byte> payload) {
  if (frame.code == 0) return Status::Ok();
  std::string message(reinterpret_cast<const char*>(payload.data()), payload.size());
  if (!IsUtf8(message)) {
    std::replace_if(
        message.begin(), message.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; }, '?');
  }
  constexpr uint64_t kMaxErrno = 4095;
  return Status(static_cast<Code>(frame.code), std::move(message), static_cast<int>(std::min(frame.aux, kMaxErrno)));
}

bool SecretsEqual(std::string_view a, std::string_view b) noexcept {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  const size_t longer = std::max(a.size(), b.size());
  for (size_t i = 0; i < longer; ++i) {
    const auto left = static_cast<unsigned char>(i < a.size() ? a[i] : 0);
    const auto right = static_cast<unsigned char>(i < b.size() ? b[i] : 0);
    difference |= static_cast<unsigned>(left ^ right);
    asm volatile("" : "+r"(difference));  // so that the compiler cannot leave the loop at the first difference
  }
  return difference == 0;
}

}  // namespace praas::protocol
