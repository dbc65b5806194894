// Any bytes as a control message between host and worker: what decodes encodes to something that decodes to the same.

#include "support.h"
#include "worker/control_packet.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace praas;
  // A copy of exactly this size, so that reading beyond the end is found.
  const std::vector<std::byte> bytes(reinterpret_cast<const std::byte*>(data),
                                     reinterpret_cast<const std::byte*>(data) + size);
  const auto first = worker::DecodeControl(bytes);
  if (!first.ok()) return 0;
  fuzz::Check(worker::ControlFds(first->type) >= 0);
  const auto encoded = worker::EncodeControl(*first);
  fuzz::Check(encoded.ok());
  const auto second = worker::DecodeControl(*encoded);
  fuzz::Check(second.ok());
  const auto again = worker::EncodeControl(*second);
  fuzz::Check(again.ok() && *again == *encoded);
  return 0;
}
