#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "client/connection.h"
#include "protocol/messages.h"
#include "transport/shm_transport.h"
#include "transport/stream_transport.h"

/// The two steps between a connected byte stream and a usable connection. Both block until the deadline.
namespace praas::client {

/// Hello and Welcome; configures `wire` with the limits the host announced. Errors: the host's kReject (kTokenInvalid,
/// kProcessUnknown, …), kProtocolVersion, kProtocolInvalid, kConnectionLost, kConnectionTimeout.
[[nodiscard]] Result<protocol::Welcome> Handshake(transport::StreamTransport& wire, const ConnectOptions& options,
                                                  uint64_t deadline_ns);

/// Asks for a shared memory window and takes it. kUpgradeFailed with the reason when there is none to be had while the
/// connection itself is fine; any other code means that the connection broke.
[[nodiscard]] Result<std::unique_ptr<transport::ShmTransport>> UpgradeToShm(transport::StreamTransport& wire,
                                                                            const ConnectOptions& options,
                                                                            const protocol::Welcome& welcome,
                                                                            uint64_t deadline_ns);

}  // namespace praas::client
