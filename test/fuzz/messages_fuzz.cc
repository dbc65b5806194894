// Any bytes as a message: decoding never reads beyond them, and what decodes encodes to something that decodes to the
// same.

#include <cstdint>
#include <cstdlib>
#include <vector>

#include "protocol/lease_messages.h"
#include "protocol/messages.h"
#include "protocol/state_messages.h"

namespace {

using namespace praas::protocol;

using Bytes = std::vector<std::byte>;

void Check(bool holds) {
  if (!holds) std::abort();
}

template <typename T>
void RoundTrip(praas::Result<T> (*decode)(std::span<const std::byte>), std::span<const std::byte> bytes) {
  const praas::Result<T> first = decode(bytes);
  if (!first.ok()) return;
  const Bytes encoded = Encode(first.value());
  const praas::Result<T> second = decode(encoded);
  Check(second.ok());
  Check(Encode(second.value()) == encoded);
}

Bytes WithData(Bytes head, std::span<const std::byte> data) {
  head.insert(head.end(), data.begin(), data.end());
  return head;
}

void RoundTripState(uint16_t op, std::span<const std::byte> bytes) {
  if (const auto request = DecodeStateRequest(op, bytes); request.ok()) {
    const Bytes encoded = WithData(EncodeHead(request.value()), request.value().data);
    const auto again = DecodeStateRequest(op, encoded);
    Check(again.ok());
    Check(WithData(EncodeHead(again.value()), again.value().data) == encoded);
  }
  if (op < 1 || op > 11) return;
  const auto state_op = static_cast<StateOp>(op);
  if (const auto reply = DecodeStateReply(state_op, bytes); reply.ok()) {
    const Bytes encoded = WithData(EncodeHead(state_op, reply.value()), reply.value().data);
    Check(DecodeStateReply(state_op, encoded).ok());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  // A copy of exactly this size, so that reading beyond the end is found.
  const Bytes bytes(reinterpret_cast<const std::byte*>(data) + 1, reinterpret_cast<const std::byte*>(data) + size);
  switch (data[0] & 31) {
    case 0:
      RoundTrip(DecodeHello, bytes);
      break;
    case 1:
      RoundTrip(DecodeWelcome, bytes);
      break;
    case 2:
      RoundTrip(DecodeReject, bytes);
      break;
    case 3:
      RoundTrip(DecodeUpgradeRequest, bytes);
      break;
    case 4:
      RoundTrip(DecodeUpgradeOffer, bytes);
      break;
    case 5: {
      Frame frame;
      frame.code = 1;
      Check(!DecodeError(frame, bytes).ok());
      break;
    }
    case 30:
      RoundTrip(DecodeLeaseRequest, bytes);
      break;
    case 31:
      RoundTrip(DecodeLeaseReply, bytes);
      break;
    default:
      RoundTripState(static_cast<uint16_t>((data[0] & 31) - 6), bytes);
  }
  return 0;
}
