#include "client/state_request.h"

#include <cstring>
#include <string>

#include "protocol/names.h"

namespace praas::client {

using protocol::StateOp;

Result<uint64_t> SubmitState(Connection& connection, const protocol::StateRequest& request, uint64_t deadline_ns) {
  const StateOp op = request.op;
  if (op != StateOp::kKeys && op != StateOp::kUnlock) {
    if (Status named = protocol::ValidateName(request.key, op == StateOp::kLock ? "lock name" : "state key");
        !named.ok()) {
      return named;
    }
  }
  if (op == StateOp::kKeys) {
    if (request.prefix.size() > protocol::kMaxName || request.after.size() > protocol::kMaxName ||
        !protocol::IsUtf8(request.prefix) || !protocol::IsUtf8(request.after)) {
      return Status(Code::kNameInvalid, "prefix and after must be UTF-8 of at most 255 bytes");
    }
    if (request.limit == 0 || request.limit > protocol::kMaxKeysPerReply) {
      return Status(Code::kArgumentInvalid, "limit is " + std::to_string(request.limit) + "; it must be 1 to " +
                                                std::to_string(protocol::kMaxKeysPerReply));
    }
  }
  const std::vector<std::byte> head = EncodeHead(request);
  return connection.Request(protocol::FrameType::kState, static_cast<uint16_t>(op), head, request.data, deadline_ns);
}

Result<protocol::StateReply> DecodeStateReply(StateOp op, const transport::Reply& reply) {
  if (!reply.status.ok()) return reply.status;
  return protocol::DecodeStateReply(op, reply.payload);
}

Result<FunctionRef> DecodeFunctionRef(const transport::Reply& reply) {
  if (!reply.status.ok()) return reply.status;
  FunctionRef function;
  if (reply.payload.size() != sizeof function) return Status(Code::kInternal, "not the reply to a Resolve");
  std::memcpy(&function, reply.payload.data(), sizeof function);
  return function;
}

Result<uint64_t> SubmitAdmin(Connection& connection, uint16_t op, std::string_view argument, uint64_t deadline_ns) {
  return connection.Request(protocol::FrameType::kAdmin, op, std::as_bytes(std::span(argument)), {}, deadline_ns);
}

Result<std::string> DecodeAdminReply(const transport::Reply& reply) {
  if (!reply.status.ok()) return reply.status;
  if (!protocol::IsUtf8({reinterpret_cast<const char*>(reply.payload.data()), reply.payload.size()})) {
    return Status(Code::kProtocolInvalid, "admin reply is not valid UTF-8");
  }
  return std::string(reinterpret_cast<const char*>(reply.payload.data()), reply.payload.size());
}

}  // namespace praas::client
