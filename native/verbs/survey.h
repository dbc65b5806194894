#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

/// What RDMA this machine offers: for people who set it up, and for the choice of device, port and address.
namespace praas::verbs {

struct Gid {
  uint32_t index = 0;
  std::string address;  // IPv6 notation; of RoCE, IPv4 addresses are mapped (::ffff:10.0.0.1)
  enum class Type : uint8_t { kInfiniBand, kRoceV1, kRoceV2 } type{};
};

struct Port {
  uint32_t number = 0;  // from 1
  std::string state;    // "active", "init", "down", …
  bool active = false;
  bool ethernet = false;   // RoCE; else InfiniBand
  uint32_t mtu_bytes = 0;  // in use
  uint32_t lid = 0;        // InfiniBand
  std::vector<Gid> gids;   // those that are set
};

struct Device {
  std::string name;
  Status status;  // why it cannot be opened; then nothing below is known
  uint32_t max_queue_pairs = 0;
  uint32_t max_memory_regions = 0;
  std::vector<Port> ports;
};

/// kUnsupported: this build or this machine has no libibverbs. No devices are an empty list.
[[nodiscard]] Result<std::vector<Device>> Survey();

/// Whether connections can be made from here, by the device, port and address that are or would be chosen; else why
/// not.
[[nodiscard]] Status Usable();

/// What Survey finds as JSON: `{"error": TEXT}` or `{"devices": […]}` with the names above in camelCase.
[[nodiscard]] std::string SurveyJson();

}  // namespace praas::verbs
