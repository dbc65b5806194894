#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace praas::transport {

struct Address {
  sockaddr_storage storage{};
  socklen_t bytes = 0;
};

/// "1.2.3.4:80" or "[::1]:80".
[[nodiscard]] std::string ToText(const Address& address);

/// Stream addresses of `host`, in the resolver's order of preference; "" gives the wildcard addresses. Numeric
/// addresses are answered at once. kConnectionTimeout at the deadline, kConnectionLost when there is no such name.
[[nodiscard]] Result<std::vector<Address>> Resolve(const std::string& host, uint16_t port, uint64_t deadline_ns);

}  // namespace praas::transport
