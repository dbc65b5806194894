#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "host/event_loop.h"
#include "host/process.h"

namespace praas::host {

/// The leased worker that alone will serve a window; 0: any.
struct ServedBy {
  uint16_t worker = 0;
  uint64_t lease = 0;
};

/// A window that a session asks for.
struct WindowWanted {
  int32_t client_pid = 0;
  uint64_t window_bytes = 0;  // 0 = as many as there may be
  bool publications = false;  // its client may read published values
  ServedBy by{};
};

/// Where clients on this machine fetch their windows: a session is given a nonce, and whoever shows it at the socket,
/// once and soon, is handed the window (window/handover.h). I/O thread.
class WindowOffers {
 public:
  WindowOffers(EventLoop& loop, Process& process);
  ~WindowOffers();

  /// Whether a session still lives.
  std::function<bool(uint64_t session)> lives;
  /// Sends a window to the client at `socket`. A failure closes the socket, which is what tells the client.
  std::function<Status(int socket, uint64_t session, const WindowWanted& wanted)> hand_over;

  /// Listens at the assignment's socket. A failure means that there is no shm transport, for the reason `Make` then
  /// gives.
  void Listen();
  [[nodiscard]] bool available() const noexcept { return static_cast<bool>(listener_); }

  /// A nonce, in place of the one that the session may have. kUpgradeFailed says why not.
  [[nodiscard]] Result<std::string> Make(uint64_t session, const WindowWanted& wanted);
  /// Nonces it was given are of no use any more.
  void Forget(uint64_t session);
  /// Drops what came to nothing in time.
  void Tick(uint64_t now_ns);
  [[nodiscard]] bool busy() const noexcept { return !offers_.empty() || !arrivals_.empty(); }

 private:
  struct Offer {
    uint64_t session = 0;
    WindowWanted wanted{};
    uint64_t expires_ns = 0;
  };
  struct Arrival {  // connected to the socket, its nonce not read yet
    UniqueFd socket;
    EventLoop::WatchId watch = 0;
    uint64_t expires_ns = 0;
  };

  void OnConnect();
  void PauseListening();
  void OnArrival(uint64_t id);
  void DropArrival(uint64_t id);

  EventLoop& loop_;
  Process& process_;
  UniqueFd listener_;
  EventLoop::WatchId listen_watch_ = 0;
  EventLoop::TimerId listen_timer_{};
  std::string unavailable_ = "the process has no socket for windows";
  std::map<std::string, Offer> offers_;  // by nonce
  std::map<uint64_t, Arrival> arrivals_;
  uint64_t next_arrival_ = 1;
};

}  // namespace praas::host
