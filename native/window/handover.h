#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

/// How a same-host client gets its window: over TCP the host names a UNIX socket and a one-time nonce; the client
/// connects there, both check SO_PEERCRED (same user), the client sends the nonce, the host passes the fds.
namespace praas::window {

inline constexpr size_t kNonceBytes = 32;

struct Handover {
  UniqueFd memfd, submit_event, complete_event;
  uint64_t window_bytes = 0;
  UniqueFd publications{};  // of the process, for reading (publication/area.h); none: reads ask the host
};

/// Client. Verifies the peer's user and the memfd's seals and size. Blocks, at most until the deadline
/// (kConnectionTimeout). kUpgradeFailed: the host does not know the nonce; kTokenInvalid: another user listens there.
[[nodiscard]] Result<Handover> Receive(const std::string& socket_path, const std::string& nonce, uint64_t deadline_ns);

/// Host: after accept. Reads the nonce without blocking: nullopt = not there yet. kTokenInvalid for another user,
/// kConnectionLost when the client is gone.
[[nodiscard]] Result<std::optional<std::string>> ReadNonce(int socket);
/// Host: does not block. Its descriptors stay its own. `publications` −1: none.
[[nodiscard]] Status Send(int socket, int memfd, int submit_event, int complete_event, uint64_t window_bytes,
                          int publications = -1);

}  // namespace praas::window
