#include <utility>

#include "base/machine_id.h"
#include "client/exchange.h"
#include "client/handshake.h"
#include "transport/shm_transport.h"
#include "window/handover.h"

namespace praas::client {

using protocol::Frame;
using protocol::FrameType;

namespace {

Status Failed(const std::string& reason, int sys_errno = 0) { return Status(Code::kUpgradeFailed, reason, sys_errno); }

}  // namespace

Result<std::unique_ptr<transport::ShmTransport>> UpgradeToShm(transport::StreamTransport& wire,
                                                              const ConnectOptions& options,
                                                              const protocol::Welcome& welcome, uint64_t deadline_ns) {
  if (!(welcome.capabilities & protocol::kCapShm)) return Failed("the host offers no shared memory");
  const std::string here = MachineId();
  if (here.empty() || here != welcome.machine_id) {
    return Failed("the host runs on another machine, or in another network or IPC namespace");
  }

  Frame frame;
  frame.type = FrameType::kUpgrade;
  wire.writer().PushCopy(frame,
                         Encode(protocol::UpgradeRequest{.transport = "shm", .window_bytes = options.window_bytes}));
  Result<ControlFrame> answer = Exchange(wire, {FrameType::kUpgradeOffer}, deadline_ns);
  if (!answer.ok()) return answer.status().WithContext("shm upgrade");
  Result<protocol::UpgradeOffer> offer = protocol::DecodeUpgradeOffer(answer->payload);
  if (!offer.ok()) return offer.status();
  if (offer->refused) {
    return Failed("the host refused: " + std::string(CodeName(offer->refused->code)) + ": " + offer->refused->message);
  }

  Result<window::Handover> handover = window::Receive(offer->socket_path, offer->nonce, deadline_ns);
  if (!handover.ok()) return Failed(handover.status().message(), handover.status().sys_errno());
  Result<std::unique_ptr<transport::ShmTransport>> shm =
      transport::ShmTransport::Create(std::move(*handover), welcome.default_timeout_ns);
  if (!shm.ok()) return Failed(shm.status().message(), shm.status().sys_errno());
  return shm;
}

}  // namespace praas::client
