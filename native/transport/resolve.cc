#include "transport/resolve.h"

#include <netdb.h>
#include <netinet/in.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include "base/clock.h"

namespace praas::transport {
namespace {

Result<std::vector<Address>> Lookup(const std::string& host, uint16_t port, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.empty() ? nullptr : host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) {
    const int sys_errno = error == EAI_SYSTEM ? errno : 0;
    return Status(Code::kConnectionLost, "cannot resolve host \"" + host + "\": " + ::gai_strerror(error), sys_errno);
  }
  std::vector<Address> addresses;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    if (each->ai_addrlen > sizeof(sockaddr_storage)) continue;
    Address& address = addresses.emplace_back();
    std::memcpy(&address.storage, each->ai_addr, each->ai_addrlen);
    address.bytes = each->ai_addrlen;
  }
  ::freeaddrinfo(found);
  if (addresses.empty()) return Status(Code::kConnectionLost, "host \"" + host + "\" has no address");
  return addresses;
}

/// Shared with a look-up thread, which may outlive the caller's patience.
struct Pending {
  std::mutex mutex;
  std::condition_variable done;
  std::optional<Result<std::vector<Address>>> result;
};

}  // namespace

std::string ToText(const Address& address) {
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&address.storage), address.bytes, host, sizeof host, port,
                    sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "unknown address";
  }
  if (address.storage.ss_family == AF_INET6) return '[' + std::string(host) + "]:" + port;
  return std::string(host) + ':' + port;
}

Result<std::vector<Address>> Resolve(const std::string& host, uint16_t port, uint64_t deadline_ns) {
  if (host.find('\0') != std::string::npos) return Status(Code::kArgumentInvalid, "host name contains a NUL byte");
  if (host.empty()) return Lookup(host, port, AI_PASSIVE);
  if (Result<std::vector<Address>> numeric = Lookup(host, port, AI_NUMERICHOST); numeric.ok()) return numeric;

  const auto pending = std::make_shared<Pending>();
  try {
    std::thread([pending, host, port] {
      Result<std::vector<Address>> result = Lookup(host, port, AI_ADDRCONFIG);
      const std::lock_guard lock(pending->mutex);
      pending->result.emplace(std::move(result));
      pending->done.notify_all();
    }).detach();
  } catch (const std::system_error& error) {
    return Status::System("cannot start a thread to resolve host \"" + host + '"', error.code().value());
  }
  std::unique_lock lock(pending->mutex);
  while (!pending->result) {
    const uint64_t now = NowNs();
    if (now >= deadline_ns) {
      return Status(Code::kConnectionTimeout, "host \"" + host + "\" could not be resolved in time");
    }
    pending->done.wait_for(lock, std::chrono::nanoseconds(std::min<uint64_t>(deadline_ns - now, 1'000'000'000)));
  }
  return std::move(*pending->result);
}

}  // namespace praas::transport
