// Any bytes as the header of an RDMA message: what decodes encodes to the same bytes, and never claims more of an
// inline payload than a message holds.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>

#include "transport/verbs_message.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace praas::transport;
  if (size < 4 + kMessageHeaderBytes) return 0;
  const uint32_t immediate = static_cast<uint32_t>(data[0]) << 24 | data[1] << 16 | data[2] << 8 | data[3];
  const auto tag = DecodeTag(immediate, 31);
  if (!tag.ok()) return 0;
  if (tag->slot >= 31 || EncodeTag(*tag) != immediate) std::abort();
  std::array<std::byte, kMessageHeaderBytes> bytes;
  std::transform(data + 4, data + 4 + bytes.size(), bytes.begin(), [](uint8_t byte) { return std::byte{byte}; });
  const auto message = DecodeMessage(tag->kind, bytes);
  if (!message.ok()) return 0;
  // A chunk is copied out of its message whatever its mode.
  const bool carries =
      tag->kind == MessageKind::kChunk ||
      (message->mode == MessageMode::kInline && (tag->kind == MessageKind::kCall || tag->kind == MessageKind::kReply));
  if (carries && message->bytes > kMessagePayloadBytes) std::abort();
  std::array<std::byte, kMessageHeaderBytes> again;
  EncodeMessage(*message, again);
  if (again != bytes) std::abort();
  return 0;
}
