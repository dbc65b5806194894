#pragma once

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace praas {

/// Stable error codes. The numbers travel on the wire and in shared memory and never change their meaning; the names
/// (`CodeName`) are what JavaScript sees as `error.code`. docs/errors.md lists cause and remedy of each.
enum class Code : uint16_t {
  kOk = 0,
  kInternal = 1,         // ERR_INTERNAL: a broken invariant of our own
  kSystem = 2,           // an OS call failed: `sys_errno` says how, JavaScript sees the OS name (ENOSPC, …)
  kArgumentInvalid = 3,  // ERR_ARGUMENT_INVALID
  kUnsupported = 4,      // ERR_UNSUPPORTED: not possible on this host or build

  kProtocolVersion = 10,    // ERR_PROTOCOL_VERSION: the peer speaks another version
  kProtocolInvalid = 11,    // ERR_PROTOCOL_INVALID: malformed or forbidden bytes from the peer
  kTokenInvalid = 12,       // ERR_TOKEN_INVALID: not signed with the key of this process
  kConnectionLost = 13,     // ERR_CONNECTION_LOST: the peer went away with calls in flight
  kConnectionClosed = 14,   // ERR_CONNECTION_CLOSED: used after close()
  kConnectionTimeout = 15,  // ERR_CONNECTION_TIMEOUT: no handshake in time
  kUpgradeFailed = 16,      // ERR_UPGRADE_FAILED: no shm or verbs; the TCP connection goes on
  kTokenExpired = 17,       // ERR_TOKEN_EXPIRED: the time of the token is over
  kNotPermitted = 18,       // ERR_NOT_PERMITTED: the token does not allow the request
  kConnectionRefused = 19,  // ERR_CONNECTION_REFUSED: the host takes no more connections

  kProcessUnknown = 20,   // ERR_PROCESS_UNKNOWN
  kProcessBusy = 21,      // ERR_PROCESS_BUSY: a live host already serves this process
  kProcessFailed = 22,    // ERR_PROCESS_FAILED: its workers cannot start; the message has the reason
  kProcessDraining = 23,  // ERR_PROCESS_DRAINING: stopping, takes no new calls
  kHostLost = 24,         // ERR_HOST_LOST: the process host died

  kFunctionUnknown = 30,  // ERR_FUNCTION_UNKNOWN
  kFunctionThrew = 31,    // ERR_FUNCTION_THREW: payload is the error as JSON {name, message, stack, code?}
  kFunctionResult = 32,   // ERR_FUNCTION_RESULT: returned something that is not bytes
  kNameInvalid = 33,      // ERR_NAME_INVALID: empty, over 255 bytes, or not UTF-8

  kInvocationTimeout = 40,    // ERR_INVOCATION_TIMEOUT
  kInvocationCancelled = 41,  // ERR_INVOCATION_CANCELLED
  kInvocationDeadlock = 42,   // ERR_INVOCATION_DEADLOCK: a synchronous call that no free worker could serve

  kWorkerCrashed = 50,  // ERR_WORKER_CRASHED: payload is JSON {signal, exitCode, stderr}
  kWorkerStart = 51,    // ERR_WORKER_START

  kPayloadTooLarge = 60,  // ERR_PAYLOAD_TOO_LARGE
  kBackpressure = 61,     // ERR_BACKPRESSURE: backlog or window memory stayed full until the deadline
  kStreamAborted = 62,    // ERR_STREAM_ABORTED
  kPayloadCorrupt = 63,   // ERR_PAYLOAD_CORRUPT: checksum mismatch

  kStateNotFound = 70,     // ERR_STATE_NOT_FOUND
  kStateVersion = 71,      // ERR_STATE_VERSION: compare-and-set found another version
  kStateType = 72,         // ERR_STATE_TYPE: key holds a value where an array was asked for, or the reverse
  kStateMemory = 73,       // ERR_STATE_MEMORY: the process's memory limit is reached
  kStateContended = 74,    // ERR_STATE_CONTENDED: too many concurrent writers of one key until the deadline
  kStateRange = 75,        // ERR_STATE_RANGE: offset or length outside the value
  kStateLockTimeout = 76,  // ERR_STATE_LOCK_TIMEOUT
  kStateLockLost = 77,     // ERR_STATE_LOCK_LOST: released something no longer held

  kSegmentInvalid = 80,  // ERR_SEGMENT_INVALID: not a segment, another layout, or damaged beyond repair
  kSegmentStuck = 81,    // ERR_SEGMENT_STUCK: an internal lock was not released in time

  kLeaseExpired = 90,      // ERR_LEASE_EXPIRED: its time was over
  kLeaseRevoked = 91,      // ERR_LEASE_REVOKED: the process took it back; the message says why
  kLeaseUnavailable = 92,  // ERR_LEASE_UNAVAILABLE: not enough workers were free in time
  kLeaseClosed = 93,       // ERR_LEASE_CLOSED: there is no such lease, or its holder has released it
};

/// The name JavaScript sees, e.g. "ERR_HOST_LOST". Unknown numbers (from a newer peer) give "ERR_INTERNAL".
[[nodiscard]] std::string_view CodeName(Code code) noexcept;

/// Outcome of a fallible operation: a code, the errno it came from (0 when none) and a sentence that says what failed,
/// why, and what to do. The layer that first knows the cause writes the sentence.
class [[nodiscard]] Status {
 public:
  Status() noexcept = default;
  Status(Code code, std::string message, int sys_errno = 0)
      : code_(code), sys_errno_(sys_errno), message_(std::make_unique<const std::string>(std::move(message))) {}
  Status(const Status& other) : code_(other.code_), sys_errno_(other.sys_errno_), message_(Copy(other.message_)) {}
  Status(Status&&) noexcept = default;
  Status& operator=(const Status& other) { return *this = Status(other); }
  Status& operator=(Status&&) noexcept = default;
  ~Status() = default;

  [[nodiscard]] static Status Ok() noexcept { return {}; }
  /// An OS call that failed: `what` names call and arguments; the errno text is appended.
  [[nodiscard]] static Status System(std::string_view what, int sys_errno = errno);

  [[nodiscard]] bool ok() const noexcept { return code_ == Code::kOk; }
  [[nodiscard]] Code code() const noexcept { return code_; }
  [[nodiscard]] int sys_errno() const noexcept { return sys_errno_; }
  [[nodiscard]] const std::string& message() const noexcept { return message_ ? *message_ : kNoMessage; }

  /// The same failure with `context + ": "` in front, for the layer above.
  [[nodiscard]] Status WithContext(std::string_view context) const;

 private:
  /// Behind a pointer, because every call passes several of these on, and nearly all are Ok.
  using Message = std::unique_ptr<const std::string>;
  [[nodiscard]] static Message Copy(const Message& message) {
    return message ? std::make_unique<const std::string>(*message) : nullptr;
  }
  static const std::string kNoMessage;

  Code code_ = Code::kOk;
  int sys_errno_ = 0;
  Message message_;
};

}  // namespace praas
