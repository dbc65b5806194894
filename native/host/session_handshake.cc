// How a session begins: who the client is, what it may do, and what both sides can.

#include <unistd.h>

#include "host/session.h"

namespace praas::host {

using protocol::Frame;
using protocol::FrameType;

Status Session::OnHello(const Frame&, std::span<const std::byte> payload) {
  Result<protocol::Hello> hello = protocol::DecodeHello(payload);
  if (!hello) return hello.status();
  const Assignment& assignment = services_.process.assignment;
  // The token before everything else: who has none learns nothing, not even which process this is.
  if (!protocol::SecretsEqual(hello->token, assignment.token)) {
    return Status(Code::kTokenInvalid, "the token is not valid for this process");
  }
  if (hello->process != assignment.process) {
    return Status(Code::kProcessUnknown,
                  "this host serves \"" + assignment.process + "\", not \"" + hello->process + "\"");
  }
  if (!hello->lease_key.empty()) {
    Result<LeaseSeat> seat = services_.leases.Admit(id_, hello->lease_key, hello->lease_worker);
    if (!seat.ok()) return seat.status();
    seat_ = *seat;
  }
  services_.loop.CancelTimer(timer_);
  timer_ = {};
  hello_ = *std::move(hello);
  hello_.token.clear();
  hello_.lease_key.clear();

  uint64_t capabilities = hello_.capabilities & (protocol::kCapChecksum | protocol::kCapStream);
  if (services_.windows.available()) capabilities |= hello_.capabilities & protocol::kCapShm;
  if (VerbsHost::available()) capabilities |= hello_.capabilities & protocol::kCapVerbs;
  writer_.set_checksum((capabilities & protocol::kCapChecksum) != 0);
  reader_.set_max_payload(assignment.max_contiguous);
  phase_ = Phase::kOpen;
  writer_.PushCopy({.type = FrameType::kWelcome}, protocol::Encode(protocol::Welcome{
                                                      .session_id = id_,
                                                      .process = assignment.process,
                                                      .capabilities = capabilities,
                                                      .max_contiguous = assignment.max_contiguous,
                                                      .max_in_flight = services_.calls.capacity(),
                                                      .default_timeout_ns = assignment.timeout_ms * 1'000'000,
                                                      .host_pid = static_cast<int32_t>(::getpid()),
                                                      .machine_id = services_.machine_id,
                                                      .stream_credit = protocol::kInitialStreamCredit,
                                                  }));
  if (const Status refused = services_.refuses(); refused.code() == Code::kProcessDraining) Goodbye(refused);
  Wrote();
  return Status::Ok();
}

void Session::Reject(const Status& why) {
  if (closed() || phase_ == Phase::kLeaving || phase_ == Phase::kLingering) return;
  if (phase_ == Phase::kOpen && why.code() == Code::kConnectionClosed) return Close(why);
  const Code code = why.code() == Code::kOk ? Code::kInternal : why.code();
  writer_.PushCopy({.type = FrameType::kReject},
                   protocol::Encode(protocol::Reject{.code = code, .message = why.message()}));
  Leave();
}

}  // namespace praas::host
