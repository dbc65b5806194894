#include "protocol/state_messages.h"

#include "protocol/names.h"
#include "protocol/tlv.h"

namespace praas::protocol {
namespace {

using publication::Location;

namespace request {
enum : uint16_t {
  kKey = 1,
  kVersion = 2,
  kOffset = 3,
  kLength = 4,
  kPrefix = 5,
  kAfter = 6,
  kLimit = 7,
  kMode = 8,
  kLock = 9,
  kData = 10,
  kCapacity = 11,
};
}
namespace reply {
enum : uint16_t {
  kVersion = 1,
  kExisted = 2,
  kLock = 3,
  kInfos = 4,
  kData = 5,
  kCapacity = 6,
  kPlace = 7,
  kRemote = 8
};
}

// An info on the wire: key length u16, kind u32, element type u32, bytes u64, version u64, modified u64, key.
constexpr size_t kInfoFixedBytes = 2 + 4 + 4 + 8 + 8 + 8;

// A place on the wire: id u64, offset u64, capacity u64. Longer ones have fields this version does not know.
constexpr size_t kPlaceBytes = 3 * 8;
constexpr size_t kMaxPlaceBytes = 256;

bool TakesData(StateOp op) noexcept { return op == StateOp::kSet || op == StateOp::kAppend; }
bool HasKey(StateOp op) noexcept { return op != StateOp::kKeys && op != StateOp::kUnlock; }

std::string RawText(FieldReader& fields, uint16_t tag, std::string_view name, size_t max) {
  const std::span<const std::byte> bytes = fields.Bytes(tag, name, max);
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::optional<uint64_t> OptionalInteger(FieldReader& fields, uint16_t tag, std::string_view name) {
  if (!fields.Has(tag)) return std::nullopt;
  return fields.Integer<uint64_t>(tag, name);
}

std::vector<std::byte> PackInfos(const std::vector<KeyInfo>& infos) {
  std::vector<std::byte> out;
  for (const KeyInfo& info : infos) {
    const size_t at = out.size();
    out.resize(at + kInfoFixedBytes);
    std::byte* fixed = out.data() + at;
    StoreLittle<uint16_t>(fixed, static_cast<uint16_t>(info.key.size()));
    StoreLittle<uint32_t>(fixed + 2, info.kind);
    StoreLittle<uint32_t>(fixed + 6, info.element_type);
    StoreLittle<uint64_t>(fixed + 10, info.bytes);
    StoreLittle<uint64_t>(fixed + 18, info.version);
    StoreLittle<uint64_t>(fixed + 26, info.modified_wall_ns);
    const auto key = std::as_bytes(std::span(info.key));
    out.insert(out.end(), key.begin(), key.end());
  }
  return out;
}

std::vector<KeyInfo> UnpackInfos(FieldReader& fields, size_t min, size_t max) {
  std::vector<KeyInfo> infos;
  std::span<const std::byte> bytes = fields.Bytes(reply::kInfos, "key list", kMaxControlPayload);
  while (!bytes.empty()) {
    if (bytes.size() < kInfoFixedBytes) return fields.Fail("key list", "is truncated"), infos;
    const std::byte* fixed = bytes.data();
    const size_t key_bytes = LoadLittle<uint16_t>(fixed);
    if (key_bytes > bytes.size() - kInfoFixedBytes) return fields.Fail("key list", "is truncated"), infos;
    KeyInfo info;
    info.kind = LoadLittle<uint32_t>(fixed + 2);
    info.element_type = LoadLittle<uint32_t>(fixed + 6);
    info.bytes = LoadLittle<uint64_t>(fixed + 10);
    info.version = LoadLittle<uint64_t>(fixed + 18);
    info.modified_wall_ns = LoadLittle<uint64_t>(fixed + 26);
    info.key.assign(reinterpret_cast<const char*>(fixed + kInfoFixedBytes), key_bytes);
    if (!ValidateName(info.key, "key").ok()) return fields.Fail("key list", "has an invalid key"), infos;
    if (info.kind != 1 && info.kind != 2) return fields.Fail("key list", "has an unknown kind"), infos;
    infos.push_back(std::move(info));
    if (infos.size() > max) return fields.Fail("key list", "is too long"), infos;
    bytes = bytes.subspan(kInfoFixedBytes + key_bytes);
  }
  if (infos.size() < min) fields.Fail("key list", "is too short");
  return infos;
}

std::vector<std::byte> PackPlace(const Location& place) {
  std::vector<std::byte> out(kPlaceBytes);
  StoreLittle<uint64_t>(out.data(), place.id);
  StoreLittle<uint64_t>(out.data() + 8, place.offset);
  StoreLittle<uint64_t>(out.data() + 16, place.capacity);
  return out;
}

// An address and a key: u64, u32.
constexpr size_t kRemoteBytes = 8 + 4;

std::vector<std::byte> PackRemote(const Location& place) {
  std::vector<std::byte> out(kRemoteBytes);
  StoreLittle<uint64_t>(out.data(), place.address);
  StoreLittle<uint32_t>(out.data() + 8, place.key);
  return out;
}

void UnpackRemote(FieldReader& fields, Location& place) {
  if (!fields.Has(reply::kRemote)) return;
  const std::span<const std::byte> bytes = fields.Bytes(reply::kRemote, "remote place", kRemoteBytes);
  if (bytes.size() != kRemoteBytes) return fields.Fail("remote place", "has the wrong size");
  place.address = LoadLittle<uint64_t>(bytes.data());
  place.key = LoadLittle<uint32_t>(bytes.data() + 8);
}

std::optional<Location> UnpackPlace(FieldReader& fields) {
  if (!fields.Has(reply::kPlace)) return std::nullopt;
  const std::span<const std::byte> bytes = fields.Bytes(reply::kPlace, "place", kMaxPlaceBytes);
  if (bytes.size() < kPlaceBytes) return fields.Fail("place", "is truncated"), std::nullopt;
  Location place{.id = LoadLittle<uint64_t>(bytes.data()),
                 .offset = LoadLittle<uint64_t>(bytes.data() + 8),
                 .capacity = LoadLittle<uint64_t>(bytes.data() + 16)};
  UnpackRemote(fields, place);
  if (place.id == 0) fields.Fail("place", "names no publication");
  return place;
}

}  // namespace

std::vector<std::byte> EncodeHead(const StateRequest& value) {
  FieldWriter fields;
  if (HasKey(value.op)) fields.Text(request::kKey, value.key);
  if (value.version) fields.Integer<uint64_t>(request::kVersion, *value.version);
  if (value.offset) fields.Integer<uint64_t>(request::kOffset, *value.offset);
  if (value.length) fields.Integer<uint64_t>(request::kLength, *value.length);
  if (value.op == StateOp::kKeys) {
    fields.Text(request::kPrefix, value.prefix);
    fields.Text(request::kAfter, value.after);
    fields.Integer<uint32_t>(request::kLimit, value.limit);
  }
  if (value.op == StateOp::kLock) fields.Integer<uint32_t>(request::kMode, static_cast<uint32_t>(value.mode));
  if (value.op == StateOp::kUnlock) fields.Integer<uint64_t>(request::kLock, value.lock);
  if (value.op == StateOp::kPublish && value.capacity) fields.Integer<uint64_t>(request::kCapacity, *value.capacity);
  if (TakesData(value.op)) fields.HeaderOnly(request::kData, static_cast<uint32_t>(value.data.size()));
  return fields.Take();
}

Result<StateRequest> DecodeStateRequest(uint16_t op, std::span<const std::byte> payload) {
  if (op < static_cast<uint16_t>(StateOp::kGet) || op > static_cast<uint16_t>(StateOp::kUnpublish)) {
    return Status(Code::kUnsupported, "state operation " + std::to_string(op) + " is unknown to this host");
  }
  FieldReader fields(payload, "state request");
  StateRequest result;
  result.op = static_cast<StateOp>(op);
  if (HasKey(result.op)) result.key = RawText(fields, request::kKey, "key", kMaxControlPayload);
  if (result.op == StateOp::kSet || result.op == StateOp::kDelete) {
    result.version = OptionalInteger(fields, request::kVersion, "version");
  }
  if (result.op == StateOp::kSet || result.op == StateOp::kGet) {
    result.offset = OptionalInteger(fields, request::kOffset, "offset");
  }
  if (result.op == StateOp::kGet) result.length = OptionalInteger(fields, request::kLength, "length");
  if (result.op == StateOp::kKeys) {
    result.prefix = fields.Text(request::kPrefix, "prefix", 0, kMaxName);
    result.after = fields.Text(request::kAfter, "after", 0, kMaxName);
    result.limit = fields.Integer<uint32_t>(request::kLimit, "limit");
  }
  if (result.op == StateOp::kLock)
    result.mode = static_cast<LockMode>(fields.Integer<uint32_t>(request::kMode, "mode", 1, 2));
  if (result.op == StateOp::kUnlock) result.lock = fields.Integer<uint64_t>(request::kLock, "lock");
  if (result.op == StateOp::kPublish) result.capacity = OptionalInteger(fields, request::kCapacity, "capacity");
  if (TakesData(result.op)) result.data = fields.Bytes(request::kData, "data", kMaxPayload);
  if (!fields.status().ok()) return fields.status();
  if (HasKey(result.op)) {
    if (Status named = ValidateName(result.key, result.op == StateOp::kLock ? "lock name" : "state key"); !named.ok()) {
      return named;
    }
  }
  if (result.op == StateOp::kKeys && (result.limit == 0 || result.limit > kMaxKeysPerReply)) {
    return Status(Code::kArgumentInvalid,
                  "limit is " + std::to_string(result.limit) + "; it must be 1 to " + std::to_string(kMaxKeysPerReply));
  }
  return result;
}

std::vector<std::byte> EncodeHead(StateOp op, const StateReply& value) {
  FieldWriter fields;
  switch (op) {
    case StateOp::kSet:
    case StateOp::kAppend:
      fields.Integer<uint64_t>(reply::kVersion, value.version);
      break;
    case StateOp::kDelete:
    case StateOp::kUnpublish:
      fields.Integer<uint8_t>(reply::kExisted, value.existed ? 1 : 0);
      break;
    case StateOp::kRead:
      fields.Integer<uint8_t>(reply::kExisted, value.existed ? 1 : 0);
      fields.Integer<uint64_t>(reply::kVersion, value.version);
      if (value.place) fields.Bytes(reply::kPlace, PackPlace(*value.place));
      if (value.place && value.place->address != 0) fields.Bytes(reply::kRemote, PackRemote(*value.place));
      break;
    case StateOp::kPublish:
      fields.Integer<uint64_t>(reply::kCapacity, value.capacity);
      break;
    case StateOp::kLock:
      fields.Integer<uint64_t>(reply::kLock, value.lock);
      break;
    case StateOp::kGet:
    case StateOp::kStat:
    case StateOp::kKeys:
      fields.Bytes(reply::kInfos, PackInfos(value.infos));
      break;
    case StateOp::kUnlock:
      break;
  }
  if (op == StateOp::kGet || op == StateOp::kRead)
    fields.HeaderOnly(reply::kData, static_cast<uint32_t>(value.data.size()));
  return fields.Take();
}

std::vector<std::byte> EncodeRemote(const Location& place) {
  FieldWriter fields;
  fields.Bytes(reply::kRemote, PackRemote(place));
  return fields.Take();
}

Result<StateReply> DecodeStateReply(StateOp op, std::span<const std::byte> payload) {
  FieldReader fields(payload, "state reply");
  StateReply result;
  switch (op) {
    case StateOp::kSet:
    case StateOp::kAppend:
      result.version = fields.Integer<uint64_t>(reply::kVersion, "version");
      break;
    case StateOp::kDelete:
    case StateOp::kUnpublish:
      result.existed = fields.Integer<uint8_t>(reply::kExisted, "existed", 0, 1) == 1;
      break;
    case StateOp::kRead:
      result.existed = fields.Integer<uint8_t>(reply::kExisted, "existed", 0, 1) == 1;
      result.version = fields.Integer<uint64_t>(reply::kVersion, "version");
      result.place = UnpackPlace(fields);
      break;
    case StateOp::kPublish:
      result.capacity = fields.Integer<uint64_t>(reply::kCapacity, "capacity");
      break;
    case StateOp::kLock:
      result.lock = fields.Integer<uint64_t>(reply::kLock, "lock");
      break;
    case StateOp::kGet:
    case StateOp::kStat:
      result.infos = UnpackInfos(fields, 1, 1);
      break;
    case StateOp::kKeys:
      result.infos = UnpackInfos(fields, 0, kMaxKeysPerReply);
      break;
    case StateOp::kUnlock:
      break;
  }
  if (op == StateOp::kGet || op == StateOp::kRead) result.data = fields.Bytes(reply::kData, "data", kMaxPayload);
  if (!fields.status().ok()) return fields.status();
  return result;
}

}  // namespace praas::protocol
