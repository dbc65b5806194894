// What a session asks besides invocations: names, state, upgrades, administration.

#include <fcntl.h>

#include <algorithm>
#include <new>
#include <utility>

#include "base/clock.h"
#include "host/session.h"
#include "protocol/names.h"
#include "protocol/state_messages.h"
#include "protocol/token.h"

namespace praas::host {
namespace {

/// State requests of one session that the service thread has not answered: beyond these its reads wait. Releases of
/// locks have room of their own behind the others.
constexpr uint32_t kMaxStateRequests = 256;
constexpr uint32_t kMaxReleases = 256;
constexpr uint64_t kMaxStateBytes = 256u << 20;
/// Locks that one session has asked for and not got. They are answered when others are released, perhaps by what would
/// lie unread meanwhile: beyond these they are refused. A segment has records for 64 times as many.
constexpr uint32_t kMaxLockRequests = 4096;
/// Far more than a name and what goes with it.
constexpr uint64_t kMaxLockBytes = 4096;
constexpr uint32_t kMaxRefusedVerbs = 2;
/// What this thread copies for a reader; larger values are the service thread's, so that others do not wait.
constexpr uint64_t kMaxReadBytes = 64u << 10;

bool Asks(const protocol::Frame& frame, protocol::StateOp op) { return frame.code == static_cast<uint16_t>(op); }

Status TooManyLocks() {
  return Status(Code::kBackpressure, "this connection waits for " + std::to_string(kMaxLockRequests) +
                                         " locks; ask again when it has got some");
}

Status TooLargeForLock(uint64_t bytes) {
  return Status(Code::kPayloadTooLarge, "a request for a lock has at most " + std::to_string(kMaxLockBytes) +
                                            " bytes, not " + std::to_string(bytes));
}

}  // namespace

using protocol::Frame;
using protocol::FrameType;
using protocol::Placement;

/// As far as the header says what is asked: a lock may be either, until its mode is known.
Status Session::PermitsState(const Frame& frame) const {
  switch (static_cast<protocol::StateOp>(frame.code)) {
    case protocol::StateOp::kSet:
    case protocol::StateOp::kAppend:
    case protocol::StateOp::kDelete:
    case protocol::StateOp::kPublish:
    case protocol::StateOp::kUnpublish:
      return Permits(protocol::kVerbStateWrite);
    case protocol::StateOp::kLock:
    case protocol::StateOp::kUnlock:
      return Permits(protocol::kVerbStateRead | protocol::kVerbStateWrite);
    default:
      return Permits(protocol::kVerbStateRead);
  }
}

Result<Placement> Session::OnStateHeader(const Frame& frame) {
  if (Status permitted = PermitsState(frame); !permitted.ok()) {
    Reply({.type = FrameType::kStateReply, .call = frame.call}, permitted);
    return Placement::Discard();
  }
  const bool locks = Asks(frame, protocol::StateOp::kLock);
  const bool unlocks = Asks(frame, protocol::StateOp::kUnlock);
  const uint64_t bytes = frame.payload_bytes;
  if (locks || unlocks) {
    Status refused = bytes > kMaxLockBytes                         ? TooLargeForLock(bytes)
                     : locks && lock_requests_ >= kMaxLockRequests ? TooManyLocks()
                                                                   : Status::Ok();
    if (!refused.ok()) {
      Reply({.type = FrameType::kStateReply, .call = frame.call}, refused);
      return Placement::Discard();
    }
    if (unlocks && state_requests_ >= kMaxStateRequests + kMaxReleases) return Placement::NotNow();
  } else if (state_requests_ >= kMaxStateRequests || (state_requests_ > 0 && state_bytes_ + bytes > kMaxStateBytes)) {
    // One request always passes, however large the limits of the process make it.
    return Placement::NotNow();
  }
  receiving_state_.memory.reset(new (std::nothrow) std::byte[bytes]);
  if (receiving_state_.memory == nullptr) {
    Reply({.type = FrameType::kStateReply, .call = frame.call},
          Status(Code::kSystem, "the host has no memory for a request of " + std::to_string(bytes) + " bytes", ENOMEM));
    return Placement::Discard();
  }
  receiving_state_.bytes = {receiving_state_.memory.get(), bytes};
  ++services_.receiving_state;
  receiving_call_ = frame.call;
  // A lock is released however late that arrives.
  state_deadline_ns_ = unlocks ? kNoDeadline : DeadlineOf(frame);
  return Placement::Into(receiving_state_.bytes);
}

StateService::Payload Session::TakeReceivedState() {
  if (receiving_state_.memory != nullptr) --services_.receiving_state;
  return std::exchange(receiving_state_, {});
}

/// A published value, read as a client on this machine would: without the service thread, and whoever holds the state's
/// mutex. false: the service thread has to answer.
bool Session::AnswerRead(const Frame& frame, const std::string& key) {
  std::vector<std::byte> data;
  const uint64_t most = std::min(kMaxReadBytes, services_.process.assignment.max_contiguous);
  const publication::Outcome found = services_.published.Read(key, [&data, most](uint64_t bytes) {
    data.resize(bytes <= most ? bytes : 0);
    return std::span(data);
  });
  if (found.verdict != publication::Verdict::kRead) return false;
  const Frame out{.type = FrameType::kStateReply, .call = frame.call};
  std::optional<publication::Location> place = services_.published.Find(key);
  if (place) services_.verbs.Locate(id_, *place);
  const protocol::StateReply reply{
      .version = found.absent ? 0 : found.version, .existed = !found.absent, .place = place, .data = data};
  std::vector<std::byte> payload = protocol::EncodeHead(protocol::StateOp::kRead, reply);
  payload.insert(payload.end(), data.begin(), data.end());
  writer_.PushCopy(out, payload);
  Wrote();
  return true;
}

void Session::OnState(const Frame& frame) {
  StateService::Payload payload = TakeReceivedState();
  std::string read;  // the key, if it is read as a whole
  if (Asks(frame, protocol::StateOp::kRead)) {
    Result<protocol::StateRequest> request = protocol::DecodeStateRequest(frame.code, payload.bytes);
    if (request) read = std::move(request->key);
    if (!read.empty() && AnswerRead(frame, read)) return;
  }
  const bool locks = Asks(frame, protocol::StateOp::kLock);
  if (locks) {
    const Result<protocol::StateRequest> request = protocol::DecodeStateRequest(frame.code, payload.bytes);
    const bool write = request.ok() && request->mode == protocol::LockMode::kWrite;
    if (Status permitted = Permits(write ? protocol::kVerbStateWrite : protocol::kVerbStateRead); !permitted.ok()) {
      return Reply({.type = FrameType::kStateReply, .call = frame.call}, permitted);
    }
  }
  const uint64_t bytes = locks ? 0 : payload.bytes.size();
  uint32_t Session::*const requests = locks ? &Session::lock_requests_ : &Session::state_requests_;
  ++(this->*requests);
  state_bytes_ += bytes;
  const auto reply = [&services = services_, id = id_, call = frame.call, requests, bytes,
                      read](StateService::Answer answer) {
    if (!read.empty()) services.published.Learn(read, answer.place);
    Session* session = services.find(id);
    if (session == nullptr) return;
    --(session->*requests);
    session->state_bytes_ -= bytes;
    Frame out{.type = FrameType::kStateReply, .call = call};
    if (answer.status.ok()) {
      if (answer.place) services.verbs.Locate(id, *answer.place);
      if (answer.place && answer.place->address != 0) {
        const std::vector<std::byte> remote = protocol::EncodeRemote(*answer.place);
        answer.head.insert(answer.head.begin(), remote.begin(), remote.end());
      }
      const auto data = std::make_shared<std::vector<std::byte>>(std::move(answer.data));
      session->writer_.Push(
          out, *data, [data](const Status&) {}, answer.head);
      session->Wrote();
    } else {
      session->Reply(out, answer.status);
    }
    if (session->paused_ && !session->waiting_deadline_) session->Resume();
  };
  services_.state.Request(id_, frame.call, frame.code, std::move(payload), state_deadline_ns_, reply);
}

void Session::OnResolve(const Frame& frame, std::span<const std::byte> payload) {
  const std::string name(reinterpret_cast<const char*>(payload.data()), payload.size());
  const Frame out{.type = FrameType::kResolved, .call = frame.call};
  if (Status permitted = Permits(protocol::kVerbInvoke); !permitted.ok()) return Reply(out, permitted);
  if (Status status = protocol::ValidateName(name, "function name"); !status.ok()) return Reply(out, status);
  services_.functions.Ask(id_, name, DeadlineOf(frame),
                          [&services = services_, id = id_, out](const Result<ResolvedFunction>& found) {
                            Session* session = services.find(id);
                            if (session == nullptr) return;
                            if (!found.ok()) return session->Reply(out, found.status());
                            services.verbs.ExpectResults(id, found.value().index, found.value().max_output_pages);
                            Frame resolved = out;
                            resolved.function = found.value().index;
                            resolved.aux = uint64_t{found.value().max_output_pages} << 32 | found.value().flags;
                            session->writer_.Push(resolved);
                            session->Wrote();
                          });
}

void Session::OnUpgrade(std::span<const std::byte> payload) {
  const Result<protocol::UpgradeRequest> request = protocol::DecodeUpgradeRequest(payload);
  if (seat_ && request.ok() && request->transport == "worker") {
    phase_ = Phase::kHandingOver;
    return;
  }
  const Result<protocol::UpgradeOffer> offer = OfferFor(request);
  if (!offer.ok()) return RefuseUpgrade(offer.status());
  has_window_ = true;
  writer_.PushCopy({.type = FrameType::kUpgradeOffer}, protocol::Encode(*offer));
  Wrote();
}

Result<protocol::UpgradeOffer> Session::OfferFor(const Result<protocol::UpgradeRequest>& request) {
  if (!request.ok()) return request.status();
  // Once, for all calls: they go past this session from then on.
  if (Status permitted = Permits(protocol::kVerbInvoke); !permitted.ok()) return permitted;
  if (request->transport == "shm") {
    return services_.windows.Offer(id_, {.client_pid = hello_.client_pid,
                                         .window_bytes = request->window_bytes,
                                         .publications = Permits(protocol::kVerbStateRead).ok(),
                                         .by = seat_ ? ServedBy{seat_->participant, seat_->lease} : ServedBy{}});
  }
  if (seat_)
    return Status(Code::kUpgradeFailed, "transport \"" + request->transport + "\" is to be asked of the worker");
  if (request->transport == "verbs") {
    // An attempt may take the host's time: the kernel looks for the client's address on the network.
    if (refused_verbs_ >= kMaxRefusedVerbs) {
      return Status(Code::kUpgradeFailed, "RDMA was refused to this session before; connect again");
    }
    Result<protocol::UpgradeOffer> offer = services_.verbs.Offer(id_, hello_.client_pid, *request);
    refused_verbs_ += offer.ok() ? 0 : 1;
    return offer;
  }
  if (request->transport == "tcp") {
    services_.verbs.Close(id_);
    has_window_ = false;
    return Status(Code::kUpgradeFailed, "the client goes on over the socket");
  }
  return Status(Code::kUpgradeFailed, "this host does not do transport \"" + request->transport + '"');
}

/// The socket goes to the leased worker; this host keeps no copy of it.
void Session::HandOver() {
  // Bytes that were read along would be lost, and frames that were not sent would come in between the worker's.
  Status status = reader_.mid_frame() || !writer_.empty()
                      ? Status(Code::kProtocolInvalid, "a client that goes on with a worker waits for its answer")
                      : Status::Ok();
  if (status.ok()) {
    UniqueFd socket(::fcntl(stream_->fd(), F_DUPFD_CLOEXEC, 3));
    status = socket ? services_.leases.HandOver(*seat_, hello_.client_pid, std::move(socket), writer_.checksum())
                    : Status::System("fcntl(F_DUPFD_CLOEXEC)");
  }
  if (status.ok()) return Close(Status(Code::kConnectionClosed, "a leased worker goes on"));
  phase_ = Phase::kOpen;
  Reject(status);
}

void Session::OnLease(const Frame& frame, std::span<const std::byte> payload) {
  const Result<protocol::LeaseRequest> request = protocol::DecodeLeaseRequest(payload);
  if (!request.ok()) return ReplyLease(frame.call, request.status());
  if (Status permitted = Permits(protocol::kVerbLease); !permitted.ok()) return ReplyLease(frame.call, permitted);
  // Its key is for calls.
  if (Status permitted = Permits(protocol::kVerbInvoke); !permitted.ok()) return ReplyLease(frame.call, permitted);
  services_.leases.Request(id_, hello_.client_pid, frame.call, static_cast<protocol::LeaseOp>(frame.code), *request);
}

void Session::ReplyLease(uint64_t call, const Result<protocol::LeaseReply>& reply) {
  const Frame out{.type = FrameType::kLeaseReply, .call = call};
  if (!reply.ok()) return Reply(out, reply.status());
  writer_.PushCopy(out, protocol::Encode(*reply));
  Wrote();
}

void Session::Notify(const Frame& notice, std::string_view text) {
  if (phase_ != Phase::kOpen) return;
  writer_.PushCopy(notice, std::as_bytes(std::span(text)));
  Wrote();
}

void Session::RefuseUpgrade(const Status& why) {
  const Code code = why.code() == Code::kOk ? Code::kInternal : why.code();
  writer_.PushCopy(
      {.type = FrameType::kUpgradeOffer},
      protocol::Encode(protocol::UpgradeOffer{.refused = protocol::Reject{.code = code, .message = why.message()}}));
  Wrote();
}

void Session::VerbsBroke(const Status& why) {
  if (phase_ != Phase::kOpen) return;
  has_window_ = false;
  RefuseUpgrade(why);
}

Status Session::OnAdmin(const Frame& frame, std::span<const std::byte> payload) {
  const Frame out{.type = FrameType::kAdminReply, .call = frame.call};
  const auto op = static_cast<protocol::AdminOp>(frame.code);
  if (Status permitted = Permits(protocol::kVerbAdmin); !permitted.ok()) {
    Reply(out, permitted);
    return Status::Ok();
  }
  switch (op) {
    case protocol::AdminOp::kLeases:
      ReplyAdmin(frame.call, services_.leases.Json());
      return Status::Ok();
    case protocol::AdminOp::kDrain:
    case protocol::AdminOp::kStats:
    case protocol::AdminOp::kInspect:
      services_.admin(*this, op, std::string(reinterpret_cast<const char*>(payload.data()), payload.size()),
                      frame.call);
      return Status::Ok();
  }
  Reply(out, Status(Code::kUnsupported, "unknown operation " + std::to_string(frame.code)));
  return Status::Ok();
}

void Session::ReplyAdmin(uint64_t call, const Result<std::string>& text) {
  const Frame out{.type = FrameType::kAdminReply, .call = call};
  if (!text.ok()) return Reply(out, text.status());
  writer_.PushCopy(out, std::as_bytes(std::span(text.value())));
  Wrote();
}

}  // namespace praas::host
