#include <utility>

#include "base/clock.h"
#include "base/machine_id.h"
#include "client/exchange.h"
#include "client/handshake.h"
#include "transport/shm_transport.h"
#include "transport/verbs_transport.h"
#include "window/handover.h"

namespace praas::client {

using protocol::Frame;
using protocol::FrameType;
using transport::DirectTransport;

namespace {

/// A host forgets an offer after seconds, and turns away who comes with many others: it may have had one that this
/// client was too late for.
constexpr int kMostOffers = 3;

Status Failed(const std::string& reason, int sys_errno = 0) { return Status(Code::kUpgradeFailed, reason, sys_errno); }

/// kUpgradeFailed: the host refused.
Result<protocol::UpgradeOffer> Ask(transport::StreamTransport& wire, const protocol::UpgradeRequest& request,
                                   uint64_t deadline_ns) {
  Frame frame;
  frame.type = FrameType::kUpgrade;
  wire.writer().PushCopy(frame, Encode(request));
  Result<ControlFrame> answer = Exchange(wire, {FrameType::kUpgradeOffer}, deadline_ns);
  if (!answer.ok()) {
    const Status& status = answer.status();
    return status.code() == Code::kWorkerCrashed ? status : status.WithContext(request.transport + " upgrade");
  }
  Result<protocol::UpgradeOffer> offer = protocol::DecodeUpgradeOffer(answer->payload);
  if (offer.ok() && offer->refused) {
    return Failed("the host refused: " + std::string(CodeName(offer->refused->code)) + ": " + offer->refused->message);
  }
  return offer;
}

/// Why the offered way leads nowhere: because the host, or this connection to it, has ended meanwhile, and nothing is
/// known of that way; or for `reason`, when it still answers. It need not keep its end.
Status NoWay(transport::StreamTransport& wire, const Status& reason, uint64_t deadline_ns) {
  // No time to ask in. The host may have been about to, or this client was stopped.
  if (reason.code() == Code::kConnectionTimeout && NowNs() >= deadline_ns) return reason;
  const Result<protocol::UpgradeOffer> answer = Ask(wire, {.transport = "tcp"}, deadline_ns);
  if (!answer.ok() && answer.status().code() != Code::kUpgradeFailed) return answer.status();
  return Failed(reason.message(), reason.sys_errno());
}

/// The host hands the socket to the leased worker, which answers.
Status GoToWorker(transport::StreamTransport& wire, uint64_t deadline_ns) {
  const Result<protocol::UpgradeOffer> offer = Ask(wire, {.transport = "worker"}, deadline_ns);
  if (!offer.ok()) return offer.status();
  return offer->worker ? Status::Ok()
                       : Status(Code::kProtocolInvalid, "the host offers something else than the worker");
}

}  // namespace

Result<Upgraded> Upgrade(transport::StreamTransport& wire, const ConnectOptions& options,
                         const protocol::Welcome& welcome, uint64_t deadline_ns) {
  struct Way {
    const char* name;
    Result<std::unique_ptr<DirectTransport>> (*take)(transport::StreamTransport&, const ConnectOptions&,
                                                     const protocol::Welcome&, uint64_t);
  };
  static constexpr Way kFastestFirst[] = {{"shm", UpgradeToShm}, {"verbs", UpgradeToVerbs}};
  Upgraded upgraded;
  bool with_host = !options.lease_key.empty();
  for (const Way& way : kFastestFirst) {
    if (options.transport != "auto" && options.transport != way.name) continue;
    // Shared memory of a leased worker comes from the host, all else from the worker itself.
    if (way.take != UpgradeToShm && std::exchange(with_host, false)) {
      if (Status status = GoToWorker(wire, deadline_ns); !status.ok()) return status;
    }
    Result<std::unique_ptr<DirectTransport>> taken = way.take(wire, options, welcome, deadline_ns);
    if (taken.ok()) {
      upgraded.transport = *std::move(taken);
      return upgraded;
    }
    if (options.transport != "auto" || taken.status().code() != Code::kUpgradeFailed) return taken.status();
    upgraded.reason += (upgraded.reason.empty() ? "" : "; ") + std::string(way.name) + ": " + taken.status().message();
  }
  if (with_host) {
    if (Status status = GoToWorker(wire, deadline_ns); !status.ok()) return status;
  }
  return upgraded;
}

Result<std::unique_ptr<DirectTransport>> UpgradeToShm(transport::StreamTransport& wire, const ConnectOptions& options,
                                                      const protocol::Welcome& welcome, uint64_t deadline_ns) {
  if (!(welcome.capabilities & protocol::kCapShm)) return Failed("the host offers no shared memory");
  const std::string here = MachineId();
  if (here.empty() || here != welcome.machine_id) {
    return Failed("the host runs on another machine, or in another network or IPC namespace");
  }
  Result<window::Handover> handover = Status(Code::kUpgradeFailed, "");
  for (int offers = 0; offers < kMostOffers && handover.status().code() == Code::kUpgradeFailed; ++offers) {
    const Result<protocol::UpgradeOffer> offer =
        Ask(wire, {.transport = "shm", .window_bytes = options.window_bytes}, deadline_ns);
    if (!offer.ok()) return offer.status();
    handover = window::Receive(offer->socket_path, offer->nonce, deadline_ns);
  }
  if (!handover.ok()) return NoWay(wire, handover.status(), deadline_ns);
  Result<std::unique_ptr<transport::ShmTransport>> shm =
      transport::ShmTransport::Create(std::move(*handover), welcome.default_timeout_ns);
  if (!shm.ok()) return Failed(shm.status().message(), shm.status().sys_errno());
  return std::unique_ptr<DirectTransport>(*std::move(shm));
}

#if PRAAS_VERBS_HEADERS

Result<std::unique_ptr<DirectTransport>> UpgradeToVerbs(transport::StreamTransport& wire, const ConnectOptions& options,
                                                        const protocol::Welcome& welcome, uint64_t deadline_ns) {
  if (!(welcome.capabilities & protocol::kCapVerbs)) return Failed("the host's build has no RDMA");
  Result<verbs::Selection> selection = verbs::Selection::FromEnvironment();
  if (!selection.ok()) return selection.status();
  Result<std::unique_ptr<transport::VerbsTransport>> created =
      transport::VerbsTransport::Create({.selection = *std::move(selection),
                                         .window_bytes = options.window_bytes,
                                         .default_timeout_ns = welcome.default_timeout_ns},
                                        deadline_ns);
  if (!created.ok()) {
    if (created.status().code() == Code::kConnectionTimeout) return created.status();
    return Failed(created.status().message(), created.status().sys_errno());
  }
  const Result<protocol::UpgradeOffer> offer =
      Ask(wire, {.transport = "verbs", .window_bytes = options.window_bytes, .verbs = (*created)->end()}, deadline_ns);
  if (!offer.ok()) return offer.status();
  if (!offer->verbs) return Status(Code::kProtocolInvalid, "the host offers something else than RDMA");
  // Half of what is left, so that the host can still say that it is there when packets do not get through.
  const uint64_t now_ns = NowNs();
  const uint64_t half_ns = now_ns + (deadline_ns > now_ns ? (deadline_ns - now_ns) / 2 : 0);
  if (const Status connected = (*created)->Connect(*offer->verbs, half_ns); !connected.ok()) {
    return NoWay(wire, connected, deadline_ns);
  }
  return std::unique_ptr<DirectTransport>(*std::move(created));
}

#else

Result<std::unique_ptr<DirectTransport>> UpgradeToVerbs(transport::StreamTransport&, const ConnectOptions&,
                                                        const protocol::Welcome&, uint64_t) {
  return Failed("this build has no RDMA: it was made without the headers of libibverbs");
}

#endif

}  // namespace praas::client
