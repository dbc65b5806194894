#pragma once

#include <cstdint>

#include "base/result.h"
#include "client/connection.h"
#include "protocol/state_messages.h"
#include "transport/transport.h"

/// State operations of a client: what Connection::Request carries for them.
namespace praas::client {

/// Checks names and sizes, then starts the request. `request.data` must stay valid until the reply.
[[nodiscard]] Result<uint64_t> SubmitState(Connection& connection, const protocol::StateRequest& request,
                                           uint64_t deadline_ns);

/// What came back: the reply's own status when it failed. `data` views the reply's payload.
[[nodiscard]] Result<protocol::StateReply> DecodeStateReply(protocol::StateOp op, const transport::Reply& reply);

/// Reply to Connection::Resolve.
[[nodiscard]] Result<FunctionRef> DecodeFunctionRef(const transport::Reply& reply);

/// AdminOps take text and answer with JSON text.
[[nodiscard]] Result<uint64_t> SubmitAdmin(Connection& connection, uint16_t op, std::string_view argument,
                                           uint64_t deadline_ns);
[[nodiscard]] Result<std::string> DecodeAdminReply(const transport::Reply& reply);

}  // namespace praas::client
