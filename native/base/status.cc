#include "base/status.h"

#include <system_error>

namespace praas {

const std::string Status::kNoMessage;

std::string_view CodeName(Code code) noexcept {
  switch (code) {
    case Code::kOk:
      return "OK";
    case Code::kInternal:
      return "ERR_INTERNAL";
    case Code::kSystem:
      return "ERR_SYSTEM";
    case Code::kArgumentInvalid:
      return "ERR_ARGUMENT_INVALID";
    case Code::kUnsupported:
      return "ERR_UNSUPPORTED";
    case Code::kProtocolVersion:
      return "ERR_PROTOCOL_VERSION";
    case Code::kProtocolInvalid:
      return "ERR_PROTOCOL_INVALID";
    case Code::kTokenInvalid:
      return "ERR_TOKEN_INVALID";
    case Code::kConnectionLost:
      return "ERR_CONNECTION_LOST";
    case Code::kConnectionClosed:
      return "ERR_CONNECTION_CLOSED";
    case Code::kConnectionTimeout:
      return "ERR_CONNECTION_TIMEOUT";
    case Code::kUpgradeFailed:
      return "ERR_UPGRADE_FAILED";
    case Code::kTokenExpired:
      return "ERR_TOKEN_EXPIRED";
    case Code::kNotPermitted:
      return "ERR_NOT_PERMITTED";
    case Code::kConnectionRefused:
      return "ERR_CONNECTION_REFUSED";
    case Code::kProcessUnknown:
      return "ERR_PROCESS_UNKNOWN";
    case Code::kProcessBusy:
      return "ERR_PROCESS_BUSY";
    case Code::kProcessFailed:
      return "ERR_PROCESS_FAILED";
    case Code::kProcessDraining:
      return "ERR_PROCESS_DRAINING";
    case Code::kHostLost:
      return "ERR_HOST_LOST";
    case Code::kFunctionUnknown:
      return "ERR_FUNCTION_UNKNOWN";
    case Code::kFunctionThrew:
      return "ERR_FUNCTION_THREW";
    case Code::kFunctionResult:
      return "ERR_FUNCTION_RESULT";
    case Code::kNameInvalid:
      return "ERR_NAME_INVALID";
    case Code::kInvocationTimeout:
      return "ERR_INVOCATION_TIMEOUT";
    case Code::kInvocationCancelled:
      return "ERR_INVOCATION_CANCELLED";
    case Code::kInvocationDeadlock:
      return "ERR_INVOCATION_DEADLOCK";
    case Code::kWorkerCrashed:
      return "ERR_WORKER_CRASHED";
    case Code::kWorkerStart:
      return "ERR_WORKER_START";
    case Code::kPayloadTooLarge:
      return "ERR_PAYLOAD_TOO_LARGE";
    case Code::kBackpressure:
      return "ERR_BACKPRESSURE";
    case Code::kStreamAborted:
      return "ERR_STREAM_ABORTED";
    case Code::kPayloadCorrupt:
      return "ERR_PAYLOAD_CORRUPT";
    case Code::kStateNotFound:
      return "ERR_STATE_NOT_FOUND";
    case Code::kStateVersion:
      return "ERR_STATE_VERSION";
    case Code::kStateType:
      return "ERR_STATE_TYPE";
    case Code::kStateMemory:
      return "ERR_STATE_MEMORY";
    case Code::kStateContended:
      return "ERR_STATE_CONTENDED";
    case Code::kStateRange:
      return "ERR_STATE_RANGE";
    case Code::kStateLockTimeout:
      return "ERR_STATE_LOCK_TIMEOUT";
    case Code::kStateLockLost:
      return "ERR_STATE_LOCK_LOST";
    case Code::kLeaseExpired:
      return "ERR_LEASE_EXPIRED";
    case Code::kLeaseRevoked:
      return "ERR_LEASE_REVOKED";
    case Code::kLeaseUnavailable:
      return "ERR_LEASE_UNAVAILABLE";
    case Code::kLeaseClosed:
      return "ERR_LEASE_CLOSED";
    case Code::kSegmentInvalid:
      return "ERR_SEGMENT_INVALID";
    case Code::kSegmentStuck:
      return "ERR_SEGMENT_STUCK";
  }
  return "ERR_INTERNAL";
}

Status Status::System(std::string_view what, int sys_errno) {
  std::string message(what);
  message += ": ";
  message += std::generic_category().message(sys_errno);
  return Status(Code::kSystem, std::move(message), sys_errno);
}

Status Status::WithContext(std::string_view context) const {
  if (ok()) return *this;
  std::string message(context);
  message += ": ";
  message += this->message();
  return Status(code_, std::move(message), sys_errno_);
}

}  // namespace praas
