// Connection: frames that arrive on the socket, except replies to calls, which the stream transport takes.

#include <cstring>
#include <string>
#include <utility>

#include "client/connection.h"
#include "client/exchange.h"
#include "protocol/messages.h"
#include "protocol/state_messages.h"

namespace praas::client {

using protocol::Frame;
using protocol::FrameType;
using protocol::Placement;

namespace {

bool Answers(FrameType answer, const Call& call) noexcept {
  switch (answer) {
    case FrameType::kReply:
      return call.kind == CallKind::kStream;
    case FrameType::kResolved:
      return call.kind == CallKind::kResolve;
    case FrameType::kStateReply:
      return call.kind == CallKind::kRequest && call.type == FrameType::kState;
    case FrameType::kAdminReply:
      return call.kind == CallKind::kRequest && call.type == FrameType::kAdmin;
    case FrameType::kLeaseReply:
      return call.kind == CallKind::kRequest && call.type == FrameType::kLease;
    default:
      return false;
  }
}

Status Unexpected(const Frame& frame) {
  return Status(Code::kProtocolInvalid, "unexpected frame of type " + std::to_string(static_cast<int>(frame.type)));
}

Status CorruptPayload() { return Status(Code::kPayloadCorrupt, "the payload does not match its checksum"); }

}  // namespace

Result<Placement> Connection::OnHeader(const Frame& frame) {
  Call* call = calls_.Find(frame.call);
  switch (frame.type) {
    case FrameType::kReply:
    case FrameType::kResolved:
    case FrameType::kStateReply:
    case FrameType::kAdminReply:
    case FrameType::kLeaseReply:
      if (call == nullptr) return Placement::Discard();
      if (!Answers(frame.type, *call) || call->state == CallState::kWaiting) return Unexpected(frame);
      return Placement::Scratch();
    case FrameType::kData:
      if (call == nullptr || call->state == CallState::kAbandoned) return Placement::Discard();
      if (!call->stream || call->state != CallState::kSent) return Unexpected(frame);
      if (Status status = call->stream->OnChunk(frame); !status.ok()) return status;
      return Placement::Scratch();
    case FrameType::kUpgradeOffer:
    case FrameType::kLeaseNotice:
    case FrameType::kCredit:
    case FrameType::kReject:
    case FrameType::kGoodbye:
    case FrameType::kPing:
    case FrameType::kPong:
      return Placement::Scratch();
    default:
      return Unexpected(frame);
  }
}

Status Connection::OnFrame(const Frame& frame, std::span<std::byte> payload) {
  // A sink may have ended the call between header and payload.
  Call* call = calls_.Find(frame.call);
  switch (frame.type) {
    case FrameType::kData: {
      if (call == nullptr || call->state != CallState::kSent || payload.empty()) return Status::Ok();
      EmitStream({.call = frame.call, .kind = StreamEvent::Kind::kChunk, .chunk = payload});
      return Status::Ok();
    }
    case FrameType::kCredit:
      if (call == nullptr || call->state != CallState::kSent || !call->stream) return Status::Ok();
      if (Status status = call->stream->OnCredit(frame.aux); !status.ok()) return status;
      room_news_.push_back(frame.call);
      return Status::Ok();
    case FrameType::kUpgradeOffer: {
      const Result<protocol::UpgradeOffer> offer = protocol::DecodeUpgradeOffer(payload);
      if (!offer.ok()) return offer.status();
      if (!offer->refused) return Unexpected(frame);
      // Unasked, or an answer to that this side has ended it.
      if (direct_) direct_->Break(Status(Code::kConnectionLost, "the host has ended it: " + offer->refused->message));
      return Status::Ok();
    }
    case FrameType::kLeaseNotice:
      if (notices_) {
        notices_({.lease = frame.call,
                  .event = static_cast<protocol::LeaseEvent>(frame.code),
                  .code = static_cast<Code>(frame.function),
                  .worker = static_cast<uint32_t>(frame.aux),
                  .remaining_ms = frame.aux,
                  .text = std::string(reinterpret_cast<const char*>(payload.data()), payload.size())});
      }
      return Status::Ok();
    case FrameType::kReject:  // the host found our bytes wrong, and closes
      return RefusalIn(payload).WithContext("the process host refused the connection");
    case FrameType::kGoodbye: {
      const Result<protocol::Reject> goodbye = protocol::DecodeReject(payload);
      if (!goodbye.ok()) return goodbye.status();
      wire_->Announce(ReasonOf(*goodbye));
      return Status::Ok();
    }
    case FrameType::kPing: {
      Frame pong;
      pong.type = FrameType::kPong;
      pong.aux = frame.aux;
      wire_->writer().Push(pong);
      return Status::Ok();
    }
    case FrameType::kPong:
      return Status::Ok();
    default:
      return call == nullptr ? Status::Ok() : OnAnswer(frame, *call, payload);
  }
}

Status Connection::OnAnswer(const Frame& frame, Call& call, std::span<const std::byte> payload) {
  // The peer may answer (an error) before it has read all of the data, which the owner gets back now.
  if (!call.input.empty()) wire_->writer().Detach(call.type, call.id);
  Status status = protocol::DecodeError(frame, payload);
  if (call.kind == CallKind::kStream) {
    EndStream(call, std::move(status));
    return Status::Ok();
  }
  const bool lock = call.type == FrameType::kState && call.op == static_cast<uint16_t>(protocol::StateOp::kLock);
  if (lock && status.ok() && call.state == CallState::kAbandoned) ReturnLock(payload);
  if (!status.ok()) {
    HandOut(call.id, std::move(status), {});
    return Status::Ok();
  }
  if (frame.type != FrameType::kResolved) {
    HandOut(call.id, Status::Ok(), payload);
    return Status::Ok();
  }
  const FunctionRef function{frame.function, static_cast<uint32_t>(frame.aux)};
  if (const uint64_t pages = frame.aux >> 32; pages > 0 && direct_) direct_->ExpectResults(function.index, pages);
  HandOut(call.id, Status::Ok(), std::as_bytes(std::span(&function, 1)));
  return Status::Ok();
}

/// A lock was granted to a caller who had stopped waiting: nobody else would release it while this connection lives.
void Connection::ReturnLock(std::span<const std::byte> lock_reply) {
  const Result<protocol::StateReply> reply = protocol::DecodeStateReply(protocol::StateOp::kLock, lock_reply);
  if (!reply.ok()) return;
  protocol::StateRequest request;
  request.op = protocol::StateOp::kUnlock;
  request.lock = reply->lock;
  Call& unlock = calls_.Add(CallKind::kRequest, DeadlineOf(0));
  unlock.type = FrameType::kState;
  unlock.op = static_cast<uint16_t>(protocol::StateOp::kUnlock);
  unlock.arguments = EncodeHead(request);
  SendRequest(unlock);
  calls_.MarkAbandoned(unlock);  // its answer is nobody's
}

Status Connection::OnCorrupt(const Frame& frame) {
  Call* call = calls_.Find(frame.call);
  if (call == nullptr) {
    // Not about a call: nothing of this connection depends on it but the reason of a kGoodbye.
    return frame.call == 0 ? CorruptPayload() : Status::Ok();
  }
  if (frame.type == FrameType::kData) {
    if (call->state != CallState::kSent) return Status::Ok();
    SendCancel(frame.call);
    calls_.MarkAbandoned(*call);
    EmitStream({.call = frame.call, .kind = StreamEvent::Kind::kEnd, .status = CorruptPayload()});
    return Status::Ok();
  }
  if (call->kind == CallKind::kStream) {
    EndStream(*call, CorruptPayload());
  } else {
    HandOut(frame.call, CorruptPayload(), {});
  }
  return Status::Ok();
}

}  // namespace praas::client
