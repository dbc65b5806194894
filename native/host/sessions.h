#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "host/event_loop.h"
#include "host/session.h"
#include "transport/tcp.h"

namespace praas::host {

/// Accepts clients and keeps their sessions. A closed session keeps its slot until no entry of the call table names it.
/// I/O thread.
class Sessions {
 public:
  /// Sets `find`, `wrote`, `paused` and `closed` of the services.
  explicit Sessions(SessionServices& services);
  ~Sessions();

  [[nodiscard]] Result<uint16_t> Listen(const std::string& host, uint16_t port);
  void StopListening();

  /// Entry `index`, whose origin is the host, is done.
  void Completed(uint32_t index);
  [[nodiscard]] Session* Find(uint64_t id);
  void PumpStreams();
  void Goodbye(const Status& why);
  /// There is room in the call table: sessions that wait for it go on, first come first served.
  void Resume();
  /// What has to be done before the loop sleeps: queued frames, closed sessions.
  void Settle();
  [[nodiscard]] bool unsettled() const noexcept { return !wrote_.empty(); }
  void Tick(uint64_t now_ns);
  [[nodiscard]] uint32_t count() const noexcept { return static_cast<uint32_t>(by_id_.size()); }
  void CloseAll(const Status& why);

 private:
  static constexpr uint32_t kMaxStrangers = 256;

  void PauseListening();
  void OnAccept();
  void TurnAwayOldest();
  void Add(std::unique_ptr<transport::ByteStream> stream);
  void Bury();

  SessionServices& services_;
  const std::vector<std::byte> no_descriptors_;  // what clients are told whom it cannot accept
  std::optional<transport::TcpListener> listener_;
  EventLoop::WatchId listen_watch_ = 0;
  EventLoop::TimerId listen_timer_{};
  std::vector<std::unique_ptr<Session>> slots_;
  std::unordered_map<uint64_t, uint32_t> by_id_;  // open ones
  uint64_t next_id_ = 1;
  std::vector<uint64_t> wrote_;
  std::vector<uint64_t> paused_;
  std::vector<uint32_t> closed_;  // slots of sessions that wait for their last calls
};

}  // namespace praas::host
