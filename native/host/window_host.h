#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "host/calls.h"
#include "host/event_loop.h"
#include "host/process.h"
#include "protocol/messages.h"
#include "window/handover.h"
#include "window/server_window.h"
#include "worker/control.h"

namespace praas::host {

/// The windows of same-host clients as the host sees them: hands them over, takes over submission rings whose clients
/// had to signal, gives their descriptors to workers, and takes them back when clients are gone. I/O thread.
///
/// A window's life: offered (a nonce) → open → closing (its client is gone; the host holds its submission ring) → free,
/// once no entry of the call table names it.
class WindowHost {
 public:
  WindowHost(EventLoop& loop, Process& process, Calls& calls);
  ~WindowHost();

  /// Why submissions are refused (kProcessDraining, kProcessFailed), ok otherwise; and whether a session still lives.
  std::function<Status()> refuses;
  std::function<bool(uint64_t session)> lives;
  /// Tells every worker (kWindowGone).
  std::function<void(const worker::ControlMessage&)> tell_workers;
  /// To one worker.
  std::function<Status(uint16_t participant, const worker::ControlMessage&)> tell_worker;
  /// A worker that is stopped while it holds what others need has to end; `why` is for the log.
  std::function<void(uint16_t participant, const std::string& why)> kill;

  /// Listens at the assignment's socket. A failure means that there is no shm transport, for the reason `Offer` then
  /// gives.
  void Listen();
  [[nodiscard]] bool available() const noexcept { return static_cast<bool>(listener_); }

  /// The leased worker that alone will serve a window; 0: any.
  struct ServedBy {
    uint16_t worker = 0;
    uint64_t lease = 0;
  };
  struct Wanted {
    int32_t client_pid = 0;
    uint64_t window_bytes = 0;  // 0 = as many as there may be
    bool publications = false;  // its client may read published values
    ServedBy by{};
  };
  /// A one-time nonce for a client. kUpgradeFailed says why not.
  [[nodiscard]] Result<protocol::UpgradeOffer> Offer(uint64_t session, Wanted wanted);
  /// A window for calls the host itself passes on from a client elsewhere.
  [[nodiscard]] Result<window::Handover> Open(uint64_t session, int32_t client_pid, uint64_t window_bytes);
  /// A window for calls that a leased worker takes from `socket`, which goes to it.
  [[nodiscard]] Status OpenForSocket(uint64_t session, int32_t client_pid, ServedBy by, UniqueFd socket, bool checksum);
  /// Nonces it was given are of no use any more.
  void ForgetOffers(uint64_t session);
  /// Whose window `index` is, if that worker alone serves it.
  [[nodiscard]] std::optional<uint64_t> SessionOf(uint32_t index, uint16_t worker) const;
  void SessionClosed(uint64_t session);

  /// Descriptors of window `index` for a worker; empty `fds` when it is gone.
  [[nodiscard]] Result<worker::ControlMessage> ForWorker(uint32_t index) const;
  /// There may be room in the call table again.
  void Resume();
  void ConsumeAll();  // whatever lies in any ring
  /// Calls whose worker died or that missed their deadline: answers the client, frees the entry.
  void Fail(uint32_t entry, const Status& why);
  /// A dead worker polled or consumed.
  void Reclaim(uint16_t dead);
  /// Frees closing windows that nobody uses any more, drops late nonces.
  void Tick(uint64_t now_ns);
  [[nodiscard]] bool busy() const noexcept {
    return !offers_.empty() || closing_ > 0 || !arrivals_.empty() || held_ > 0;
  }
  [[nodiscard]] uint32_t open_count() const noexcept { return static_cast<uint32_t>(windows_.size()) - closing_; }

 private:
  struct OfferMade {
    uint64_t session = 0;
    Wanted wanted{};  // with its true size
    uint64_t expires_ns = 0;
  };
  struct Arrival {  // connected to the socket, its nonce not read yet
    UniqueFd socket;
    EventLoop::WatchId watch = 0;
    uint64_t expires_ns = 0;
  };
  struct Window {
    std::unique_ptr<window::ServerWindow> mapped;
    UniqueFd submit_event;
    EventLoop::WatchId watch = 0;
    uint64_t session = 0;
    uint16_t worker = 0;  // leased: it alone serves this window
    bool closing = false;
    bool held = false;     // closing, and the host is the consumer for good
    uint32_t cancels = 0;  // of the client's, looked after
    bool waiting = false;  // submissions wait for room in the call table
    // Another consumer that the host found in its way: seen with this head, since then.
    uint16_t consumer = 0;
    uint32_t head = 0;
    uint64_t held_since_ns = 0;
  };

  void OnConnect();
  void PauseListening();
  void WatchConsumer(Window& window, uint64_t now_ns);
  void ForgetConsumer(Window& window);
  void AskForRoomAgain();
  void OnArrival(uint64_t id);
  void DropArrival(uint64_t id);
  [[nodiscard]] Status HandOver(int socket, const OfferMade& offer);
  /// `pass_on` gives the descriptors to whoever will be the client.
  using PassOn = std::function<Status(window::ServerWindow::Created& created, uint64_t bytes, uint32_t index)>;
  [[nodiscard]] Status OpenWindow(uint64_t session, const Wanted& wanted, const PassOn& pass_on);
  [[nodiscard]] Status GiveToWorker(ServedBy by, uint32_t index, const window::ServerWindow::Created& created,
                                    UniqueFd socket, bool checksum);
  [[nodiscard]] Result<uint32_t> FreeSlot();
  void OnSubmitEvent(uint32_t index);
  void Consume(uint32_t index);
  enum class Taken { kYes, kNoRoom };
  [[nodiscard]] bool IsPosted(uint32_t index, const window::Submission& submission) const;
  [[nodiscard]] Taken TakeCall(Window& window, uint32_t index, const window::Submission& submission);
  void DeliverParked(Window& window, uint32_t index);
  [[nodiscard]] Taken TakeRoom(Window& window, uint32_t index, const window::Submission& submission);
  void Answer(Window& window, const window::Submission& submission, Code code, std::string_view message);
  void OfferToPoller();
  void CancelAsked(uint32_t index);
  [[nodiscard]] bool CancelCalls(uint32_t index);
  void Release(uint32_t index);

  EventLoop& loop_;
  Process& process_;
  Calls& calls_;
  UniqueFd listener_;
  UniqueFd published_;  // the publication area, as clients get it
  EventLoop::WatchId listen_watch_ = 0;
  EventLoop::TimerId listen_timer_{};
  std::string unavailable_ = "the process has no socket for windows";
  std::map<std::string, OfferMade> offers_;  // by nonce
  std::map<uint64_t, Arrival> arrivals_;
  uint64_t next_arrival_ = 1;
  std::map<uint32_t, Window> windows_;
  std::deque<uint32_t> free_;  // slots used before, the one freed longest ago first
  uint32_t closing_ = 0;
  uint32_t held_ = 0;  // windows with `held_since_ns`
};

}  // namespace praas::host
