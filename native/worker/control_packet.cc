#include "worker/control_packet.h"

#include <cstring>
#include <string_view>
#include <type_traits>

#include "segment/layout.h"

namespace praas::worker {
namespace {

constexpr size_t kMaxQueueName = 255;

class Writer {
 public:
  template <typename T>
  requires std::is_integral_v<T>
  void Number(T value) { Raw(&value, sizeof value); }
  void Text(std::string_view text) {
    Number(static_cast<uint32_t>(text.size()));
    Raw(text.data(), text.size());
  }
  [[nodiscard]] std::vector<std::byte> Take() && { return std::move(bytes_); }
  [[nodiscard]] size_t size() const noexcept { return bytes_.size(); }

 private:
  void Raw(const void* from, size_t count) {
    const auto* begin = static_cast<const std::byte*>(from);
    bytes_.insert(bytes_.end(), begin, begin + count);
  }
  std::vector<std::byte> bytes_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) noexcept : rest_(bytes) {}

  template <typename T>
  requires std::is_integral_v<T>
  [[nodiscard]] bool Number(T* value) noexcept {
    if (rest_.size() < sizeof *value) return false;
    std::memcpy(value, rest_.data(), sizeof *value);
    rest_ = rest_.subspan(sizeof *value);
    return true;
  }
  [[nodiscard]] bool Text(std::string* text, size_t least, size_t most) {
    uint32_t size = 0;
    if (!Number(&size) || size < least || size > most || size > rest_.size()) return false;
    text->assign(reinterpret_cast<const char*>(rest_.data()), size);
    rest_ = rest_.subspan(size);
    return true;
  }
  [[nodiscard]] bool empty() const noexcept { return rest_.empty(); }

 private:
  std::span<const std::byte> rest_;
};

void WriteAttach(const Attach& attach, Writer* out) {
  out->Number(attach.participant);
  out->Number(attach.generation);
  out->Number(static_cast<uint8_t>(attach.lane));
  out->Number(attach.doorbell_kind);
  for (const bool lane : attach.lanes) out->Number(static_cast<uint8_t>(lane));
  out->Text(attach.queue_name);
  out->Number(attach.hot_ns);
  out->Number(attach.concurrency);
  out->Number(attach.grace_ns);
  out->Number(attach.default_timeout_ns);
  out->Number(attach.max_contiguous);
  out->Number(attach.worker_memory_bytes);
  out->Text(attach.process_id);
}

bool ReadLanes(Reader* in, Attach* attach) {
  uint8_t own = 0;
  if (!in->Number(&own) || own >= dispatch::kLanes || !in->Number(&attach->doorbell_kind)) return false;
  attach->lane = static_cast<dispatch::Lane>(own);
  for (bool& lane : attach->lanes) {
    uint8_t flag = 0;
    if (!in->Number(&flag) || flag > 1) return false;
    lane = flag != 0;
  }
  return attach->lanes[own];
}

bool ReadAttach(Reader* in, Attach* attach) {
  return in->Number(&attach->participant) && in->Number(&attach->generation) && ReadLanes(in, attach) &&
         in->Text(&attach->queue_name, 0, kMaxQueueName) && in->Number(&attach->hot_ns) &&
         in->Number(&attach->concurrency) && in->Number(&attach->grace_ns) && in->Number(&attach->default_timeout_ns) &&
         in->Number(&attach->max_contiguous) && in->Number(&attach->worker_memory_bytes) &&
         in->Text(&attach->process_id, 1, segment::kMaxName) && attach->participant > 0 &&
         attach->participant < dispatch::kMaxParticipants && attach->concurrency > 0 && attach->hot_ns >= -1;
}

bool ReadFunctions(Reader* in, std::vector<FunctionInfo>* functions) {
  uint32_t count = 0;
  if (!in->Number(&count) || count > segment::kMaxFunctions) return false;
  functions->resize(count);
  for (FunctionInfo& function : *functions) {
    if (!in->Text(&function.name, 1, segment::kMaxName) || !in->Number(&function.flags) ||
        !in->Number(&function.max_output_pages)) {
      return false;
    }
  }
  return true;
}

bool HasTerms(ControlType type) noexcept {
  return type == ControlType::kLease || type == ControlType::kLeaseEnd || type == ControlType::kLeaseLeft ||
         type == ControlType::kLeaseWindow || type == ControlType::kLeaseSocket;
}

bool ReadTerms(Reader* in, LeaseTerms* terms) {
  return in->Number(&terms->lease) && in->Number(&terms->hot_ns) && in->Number(&terms->expires_ns) &&
         terms->lease != 0 && terms->hot_ns >= -1;
}

}  // namespace

int ControlFds(ControlType type) noexcept {
  switch (type) {
    case ControlType::kLeaseSocket:
      return 4;
    case ControlType::kLeaseWindow:
      return 3;
    case ControlType::kAttach:
      return 5;
    case ControlType::kWindow:
      return 2;
    case ControlType::kPeer:
      return 1;
    case ControlType::kLoad:
    case ControlType::kWindowGone:
    case ControlType::kDrain:
    case ControlType::kReady:
    case ControlType::kLoadFailed:
    case ControlType::kWantWindow:
    case ControlType::kWantPeer:
    case ControlType::kRelay:
    case ControlType::kDrained:
    case ControlType::kLease:
    case ControlType::kLeaseEnd:
    case ControlType::kLeaseLeft:
    case ControlType::kConnectionEnded:
      return 0;
  }
  return -1;
}

Result<std::vector<std::byte>> EncodeControl(const ControlMessage& message) {
  Writer out;
  out.Number(static_cast<uint32_t>(message.type));
  out.Number(message.index);
  out.Number(message.generation);
  out.Text(message.text);
  if (message.type == ControlType::kAttach) WriteAttach(message.attach, &out);
  if (message.type == ControlType::kReady) {
    out.Number(static_cast<uint32_t>(message.functions.size()));
    for (const FunctionInfo& function : message.functions) {
      out.Text(function.name);
      out.Number(function.flags);
      out.Number(function.max_output_pages);
    }
  }
  if (HasTerms(message.type)) {
    out.Number(message.terms.lease);
    out.Number(message.terms.hot_ns);
    out.Number(message.terms.expires_ns);
  }
  if (out.size() > kMaxMessage) {
    return Status(Code::kArgumentInvalid, "a control message of " + std::to_string(out.size()) +
                                              " bytes exceeds the limit of " + std::to_string(kMaxMessage));
  }
  std::vector<std::byte> bytes = std::move(out).Take();
  // The reader's rules are the rules: what it would refuse is not sent.
  if (auto accepted = DecodeControl(bytes); !accepted.ok()) {
    return Status(Code::kArgumentInvalid, accepted.status().message());
  }
  return bytes;
}

Result<ControlMessage> DecodeControl(std::span<const std::byte> bytes) {
  Reader in(bytes);
  ControlMessage message;
  uint32_t type = 0;
  if (!in.Number(&type)) return Status(Code::kProtocolInvalid, "control packet without a type");
  message.type = static_cast<ControlType>(type);
  const bool sound = ControlFds(message.type) >= 0 && in.Number(&message.index) && in.Number(&message.generation) &&
                     in.Text(&message.text, 0, kMaxMessage) &&
                     (message.type != ControlType::kAttach || ReadAttach(&in, &message.attach)) &&
                     (message.type != ControlType::kReady || ReadFunctions(&in, &message.functions)) &&
                     (!HasTerms(message.type) || ReadTerms(&in, &message.terms)) && in.empty();
  if (!sound) {
    return Status(Code::kProtocolInvalid, "malformed control packet: type " + std::to_string(type) + ", " +
                                              std::to_string(bytes.size()) + " bytes");
  }
  return message;
}

}  // namespace praas::worker
