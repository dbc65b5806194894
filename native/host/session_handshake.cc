// How a session begins: who the client is, what it may do, and what both sides can.

#include <unistd.h>

#include <algorithm>

#include "base/clock.h"
#include "host/session.h"
#include "protocol/token.h"

namespace praas::host {

using protocol::Frame;
using protocol::FrameType;

namespace {

constexpr uint64_t kMillisecondNs = 1'000'000;
/// Between two looks at the clock that tokens go by, which may be set.
constexpr uint64_t kLookAgainMs = 10'000;

Status TokenExpired() { return {Code::kTokenExpired, "the time of the token is over; get another one"}; }

}  // namespace

Status Session::OnHello(const Frame&, std::span<const std::byte> payload) {
  Result<protocol::Hello> hello = protocol::DecodeHello(payload);
  if (!hello) return hello.status();
  const Assignment& assignment = services_.process.assignment;
  // Who may enter before everything else: who may not learns nothing, not even which process this is.
  if (Status admitted = Admit(*hello); !admitted.ok()) return admitted;
  if (hello->process != assignment.process) {
    return Status(Code::kProcessUnknown,
                  "this host serves \"" + assignment.process + "\", not \"" + hello->process + "\"");
  }
  services_.loop.CancelTimer(timer_);
  timer_ = {};
  // From the loop, even if that time has come meanwhile: the session is not ended from within its hello.
  if (expires_ms_ != 0) timer_ = services_.loop.At(NowNs(), [this] { EndWithToken(); });
  hello_ = *std::move(hello);
  hello_.token.clear();
  hello_.lease_key.clear();

  uint64_t capabilities = hello_.capabilities & (protocol::kCapChecksum | protocol::kCapStream);
  if (services_.windows.offers.available()) capabilities |= hello_.capabilities & protocol::kCapShm;
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

/// By the token, or by the key of a lease, which the host has given to somebody whose token allowed that.
Status Session::Admit(const protocol::Hello& hello) {
  const Assignment& assignment = services_.process.assignment;
  if (!hello.lease_key.empty()) {
    Result<LeaseSeat> seat = services_.leases.Admit(id_, hello.lease_key, hello.lease_worker);
    if (!seat.ok()) return seat.status();
    seat_ = *seat;
    verbs_ = protocol::kVerbInvoke;
    return Status::Ok();
  }
  const Result<protocol::Token> token = protocol::OpenToken(assignment.key, hello.token);
  if (!token.ok()) return token.status();
  if (token->process != assignment.process) {
    return Status(Code::kTokenInvalid, "the token is not valid for this process");
  }
  if (token->expires_ms <= WallNs() / kMillisecondNs) return TokenExpired();
  verbs_ = token->verbs;
  if (token->ends_connections) expires_ms_ = token->expires_ms;
  return Status::Ok();
}

void Session::EndWithToken() {
  timer_ = {};
  const uint64_t now_ms = WallNs() / kMillisecondNs;
  if (now_ms < expires_ms_) {
    const uint64_t left_ms = std::min(expires_ms_ - now_ms, kLookAgainMs);
    timer_ = services_.loop.At(DeadlineIn(left_ms * kMillisecondNs), [this] { EndWithToken(); });
    return;
  }
  services_.leases.SessionClosed(id_, TokenExpired());
  // What goes past the host ends with the session: when the client has closed, or kLingerNs later. Sooner, calls that
  // are told to stop would still be answered with what they make of that, and the client would not know why.
  Dismiss(TokenExpired());
}

Status Session::Permits(uint8_t verbs) const {
  if ((verbs_ & verbs) != 0) [[likely]]
    return Status::Ok();
  return Status(Code::kNotPermitted, "the token of this connection does not allow " +
                                         protocol::VerbNames(verbs, " or ") + ", which the request needs; it allows " +
                                         protocol::VerbNames(verbs_, ", "));
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
