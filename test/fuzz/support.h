#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "protocol/crc32c.h"
#include "protocol/frame.h"

/// What fuzzers have in common.
namespace praas::fuzz {

inline void Check(bool holds) {
  if (!holds) std::abort();
}

/// Takes numbers and bytes from an input's front; zeros and nothing when it is used up.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(reinterpret_cast<const std::byte*>(data), size) {}

  template <typename T>
  T Take() {
    T value{};
    const size_t bytes = std::min(sizeof value, rest_.size());
    if (bytes > 0) std::memcpy(&value, rest_.data(), bytes);
    rest_ = rest_.subspan(bytes);
    return value;
  }
  std::span<const std::byte> Take(size_t most) {
    const auto taken = rest_.first(std::min(most, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  [[nodiscard]] std::span<const std::byte> rest() const { return rest_; }
  [[nodiscard]] bool empty() const { return rest_.empty(); }

 private:
  std::span<const std::byte> rest_;
};

/// A write into memory that others read: the place, two bytes of offset, the size, then that many bytes.
struct Patch {
  uint8_t place;
  uint16_t offset;
  std::span<const std::byte> bytes;
};
inline Patch TakePatch(Input* input) {
  const auto place = input->Take<uint8_t>();
  const auto offset = input->Take<uint16_t>();
  const auto size = input->Take<uint8_t>();
  return {place, offset, input->Take(size)};
}

/// A fuzzer cannot guess checksums: gives every frame in `bytes` a known type, nothing where nobody writes, and its own
/// checksum; `adjust` may change the header before. Payloads are cut to 8 KiB.
template <typename Adjust>
void SealFrames(std::span<std::byte> bytes, Adjust adjust) {
  using namespace protocol;
  constexpr uint8_t kTypes = static_cast<uint8_t>(FrameType::kLeaseNotice);
  for (size_t at = 0; at + kHeaderBytes <= bytes.size();) {
    std::byte* const header = bytes.data() + at;
    const auto type = static_cast<uint8_t>(1 + static_cast<uint8_t>(header[5]) % (kTypes + 1));  // one of them unknown
    const uint8_t fixed[] = {'P', 'R', 'A', 'S', kVersion, type};
    std::memcpy(header, fixed, sizeof fixed);
    std::memset(header + 10, 0, 6);
    std::memset(header + 56, 0, 8);
    uint64_t payload = 0;
    std::memcpy(&payload, header + 32, sizeof payload);
    payload %= 8192;
    std::memcpy(header + 32, &payload, sizeof payload);
    adjust(std::span<std::byte, kHeaderBytes>(header, kHeaderBytes));
    const uint32_t crc = Crc32c({header, kHeaderBytes});
    std::memcpy(header + 12, &crc, sizeof crc);
    at += kHeaderBytes + payload;
  }
}
inline void SealFrames(std::span<std::byte> bytes) {
  SealFrames(bytes, [](std::span<std::byte, protocol::kHeaderBytes>) {});
}

inline void AppendFrame(std::vector<std::byte>* out, protocol::Frame frame, std::span<const std::byte> payload) {
  frame.payload_bytes = payload.size();
  std::byte header[protocol::kHeaderBytes];
  protocol::EncodeHeader(frame, std::span<std::byte, protocol::kHeaderBytes>(header, protocol::kHeaderBytes));
  out->insert(out->end(), std::begin(header), std::end(header));
  out->insert(out->end(), payload.begin(), payload.end());
}

}  // namespace praas::fuzz
