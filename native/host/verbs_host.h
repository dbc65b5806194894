#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "host/event_loop.h"
#include "host/process.h"
#include "host/window_host.h"
#include "protocol/messages.h"
#include "publication/layout.h"
#include "verbs/headers.h"

namespace praas::host {

/// The host's RDMA device and the sessions whose calls come by it. The device is opened for the first client that asks.
/// I/O thread.
class VerbsHost {
 public:
  VerbsHost(EventLoop& loop, Process& process, WindowHost& windows);
  ~VerbsHost();

  /// A session's RDMA connection ended without its client having asked for it; the session itself goes on.
  std::function<void(uint64_t session, const Status& why)> broke;

  /// Whether this build can.
  [[nodiscard]] static bool available() noexcept { return PRAAS_VERBS_HEADERS != 0; }
  /// The host's end for a client's. kUpgradeFailed and others say why not.
  [[nodiscard]] Result<protocol::UpgradeOffer> Offer(uint64_t session, int32_t client_pid,
                                                     const protocol::UpgradeRequest& request);
  void Close(uint64_t session);
  void ExpectResults(uint64_t session, uint32_t function, uint64_t pages);
  /// Adds to the place of a publication where the device of `session`'s client, if it has one, can read it.
  void Locate(uint64_t session, publication::Location& place);

  /// Moves what can be moved; returns how many messages and results that were.
  size_t Poll();
  /// Before the loop sleeps: false when there is something to poll.
  [[nodiscard]] bool PrepareToSleep();
  /// A client makes calls: polling may be worth it.
  [[nodiscard]] bool active() const noexcept { return active_; }
  /// Nothing is on its way, in either direction.
  [[nodiscard]] bool idle() const noexcept;
  void Tick(uint64_t now_ns);
  /// Gives back what idle sessions have registered.
  void Trim();
  /// Results of calls are to come.
  [[nodiscard]] bool in_flight() const noexcept;

 private:
#if PRAAS_VERBS_HEADERS
  struct Device;
  struct Group;
  struct Connection;
  [[nodiscard]] Status Open();
  void OnEvents();
  void BreakAll(const Status& why);
  void CloseDevice();
  void CloseUnusable();
  [[nodiscard]] Result<protocol::UpgradeOffer> Connect(uint64_t session, int32_t client_pid,
                                                       const protocol::UpgradeRequest& request);
  [[nodiscard]] Result<Group*> GroupWithRoom();
  size_t Poll(Group& group);
  void Touch(Connection& connection);
  void Bury();
  void Remove(uint64_t session);

  EventLoop& loop_;
  Process& process_;
  WindowHost& windows_;
  std::unique_ptr<Device> device_;
  std::vector<std::unique_ptr<Group>> groups_;
  std::map<uint64_t, std::unique_ptr<Connection>> connections_;  // by session
  std::unordered_map<uint32_t, Connection*> by_queue_pair_;
  std::vector<Connection*> busy_;  // with calls in flight, or something to send
#endif
  bool active_ = false;
};

}  // namespace praas::host
