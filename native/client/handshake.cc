#include "client/handshake.h"

#include <unistd.h>

#include <algorithm>

#include "client/exchange.h"
#include "protocol/names.h"

namespace praas::client {

using protocol::Frame;
using protocol::FrameType;

namespace {

// Beyond this many calls the rest of a session's requests are kept for names, state and administration, so that calls
// which wait for a state change cannot keep that change from being made.
uint32_t CallLimit(uint32_t max_in_flight) { return max_in_flight - std::min(max_in_flight / 8, 16u); }

Status InHandshake(const Status& status) {
  // Before kWelcome there is no host to lose.
  if (status.code() == Code::kHostLost) {
    return Status(Code::kConnectionLost, "handshake: " + status.message(), status.sys_errno());
  }
  return status.WithContext("handshake");
}

}  // namespace

Result<protocol::Welcome> Handshake(transport::StreamTransport& wire, const ConnectOptions& options,
                                    uint64_t deadline_ns) {
  if (Status named = protocol::ValidateName(options.process, "process id"); !named.ok()) return named;
  if (options.token.size() > protocol::kMaxToken) {
    return Status(Code::kArgumentInvalid, "the token has " + std::to_string(options.token.size()) + " bytes; at most " +
                                              std::to_string(protocol::kMaxToken) + " are possible");
  }

  if (!options.lease_key.empty() && options.lease_key.size() != protocol::kLeaseKeyBytes) {
    return Status(Code::kArgumentInvalid,
                  "the key of a lease has " + std::to_string(protocol::kLeaseKeyBytes) + " hexadecimal digits");
  }

  protocol::Hello hello;
  hello.process = options.process;
  if (options.lease_key.empty()) hello.token = options.token;
  hello.capabilities = protocol::kCapStream;
  if (options.transport == "auto" || options.transport == "shm") hello.capabilities |= protocol::kCapShm;
  if (options.transport == "auto" || options.transport == "verbs") hello.capabilities |= protocol::kCapVerbs;
  if (options.checksum) hello.capabilities |= protocol::kCapChecksum;
  hello.client_pid = ::getpid();
  hello.lease_key = options.lease_key;
  hello.lease_worker = options.lease_worker;
  Frame frame;
  frame.type = FrameType::kHello;
  wire.writer().set_checksum(options.checksum);
  wire.writer().PushCopy(frame, Encode(hello));

  Result<ControlFrame> answer = Exchange(wire, {FrameType::kWelcome}, deadline_ns);
  if (!answer.ok()) return InHandshake(answer.status());
  Result<protocol::Welcome> welcome = protocol::DecodeWelcome(answer->payload);
  if (!welcome.ok()) return InHandshake(welcome.status());
  if (welcome->process != options.process) {
    return Status(Code::kProtocolInvalid, "handshake: the host serves process \"" + welcome->process + '"');
  }
  if (options.checksum && !(welcome->capabilities & protocol::kCapChecksum)) {
    return Status(Code::kUnsupported, "handshake: the host does not do payload checksums");
  }
  wire.Configure({.max_payload = welcome->max_contiguous,
                  .max_in_flight = CallLimit(welcome->max_in_flight),
                  .checksum = options.checksum,
                  .gone = options.lease_key.empty() ? Code::kHostLost : Code::kConnectionLost});
  return welcome;
}

}  // namespace praas::client
