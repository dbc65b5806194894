#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "client/connection.h"
#include "protocol/messages.h"
#include "transport/direct_transport.h"
#include "transport/stream_transport.h"

/// The two steps between a connected byte stream and a usable connection. Both block until the deadline.
namespace praas::client {

/// Hello and Welcome; configures `wire` with the limits the host announced. Errors: the host's kReject (kTokenInvalid,
/// kProcessUnknown, …), kProtocolVersion, kProtocolInvalid, kConnectionLost, kConnectionTimeout.
[[nodiscard]] Result<protocol::Welcome> Handshake(transport::StreamTransport& wire, const ConnectOptions& options,
                                                  uint64_t deadline_ns);

/// A transport that takes the calls, or why there is none that is faster than the socket.
struct Upgraded {
  std::unique_ptr<transport::DirectTransport> transport;
  std::string reason;
};
/// Takes the fastest transport there is among those that `options` allow. kUpgradeFailed with the reason when one was
/// asked for that is not to be had; any other code means that the connection broke.
[[nodiscard]] Result<Upgraded> Upgrade(transport::StreamTransport& wire, const ConnectOptions& options,
                                       const protocol::Welcome& welcome, uint64_t deadline_ns);

/// The same for one of them. kUpgradeFailed: it is not to be had, while the connection itself is fine.
[[nodiscard]] Result<std::unique_ptr<transport::DirectTransport>> UpgradeToShm(transport::StreamTransport& wire,
                                                                               const ConnectOptions& options,
                                                                               const protocol::Welcome& welcome,
                                                                               uint64_t deadline_ns);
[[nodiscard]] Result<std::unique_ptr<transport::DirectTransport>> UpgradeToVerbs(transport::StreamTransport& wire,
                                                                                 const ConnectOptions& options,
                                                                                 const protocol::Welcome& welcome,
                                                                                 uint64_t deadline_ns);

}  // namespace praas::client
