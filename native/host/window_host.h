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
#include "host/window_offers.h"
#include "protocol/messages.h"
#include "window/handover.h"
#include "window/server_window.h"
#include "worker/control.h"

namespace praas::host {

class WorkerLink;

/// The windows of same-host clients as the host sees them: hands them over, takes over submission rings whose clients
/// had to signal, gives their descriptors to workers, and takes them back when clients are gone. I/O thread.
///
/// Split by step: window_host.cc (how windows come and go), window_consume.cc (what is submitted).
///
/// A window's life: offered (a nonce) → open → closing (its client is gone; the host holds its submission ring) → free,
/// once no entry of the call table names it.
class WindowHost {
 public:
  WindowHost(EventLoop& loop, Process& process, Calls& calls);
  ~WindowHost();

  WindowOffers offers;

  /// Why submissions are refused (kProcessDraining, kProcessFailed), ok otherwise.
  std::function<Status()> refuses;
  /// Tells every worker (kWindowGone).
  std::function<void(const worker::ControlMessage&)> tell_workers;
  /// To one worker.
  std::function<Status(uint16_t participant, const worker::ControlMessage&)> tell_worker;
  /// There is nobody to serve it.
  std::function<void(uint64_t session, const Status& why)> end_session;
  /// A worker that is stopped while it holds what others need has to end; `why` is for the log.
  std::function<void(uint16_t participant, const std::string& why)> kill;

  /// From now on windows can be offered, unless there is no shm transport.
  void Listen();
  /// A one-time nonce for a client. kUpgradeFailed says why not.
  [[nodiscard]] Result<protocol::UpgradeOffer> Offer(uint64_t session, WindowWanted wanted);
  /// A window for calls the host itself passes on from a client elsewhere.
  [[nodiscard]] Result<window::Handover> Open(uint64_t session, int32_t client_pid, uint64_t window_bytes);
  /// A window for calls that a leased worker takes from `socket`, which goes to it.
  [[nodiscard]] Status OpenForSocket(uint64_t session, int32_t client_pid, ServedBy by, UniqueFd socket, bool checksum);
  /// Whose window `index` is, if it still is the one of that generation and that worker alone serves it.
  [[nodiscard]] std::optional<uint64_t> SessionOf(uint32_t index, uint32_t generation, uint16_t worker) const;
  void SessionClosed(uint64_t session);

  /// Sends window `index` to a worker that asks for it, or that it is gone.
  [[nodiscard]] Status SendTo(WorkerLink& worker, uint32_t index) const;
  /// There may be room in the call table again.
  void Resume();
  void ConsumeAll();  // whatever lies in any ring
  /// Calls whose worker died or that missed their deadline: answers the client, frees the entry.
  void Fail(uint32_t entry, const Status& why);
  /// A worker that could not map the window has left its answer, an error, in the pool.
  void Completed(uint32_t entry);
  /// Calls that a leased worker had taken when it died are for no other to make again: their client hears of its end,
  /// and makes them again on that lease if it likes.
  void KeepFromOthers(uint16_t dead);
  /// A dead worker polled or consumed.
  void Reclaim(uint16_t dead);
  /// Frees closing windows that nobody uses any more, drops late nonces.
  void Tick(uint64_t now_ns);
  [[nodiscard]] bool busy() const noexcept { return offers.busy() || closing_ > 0 || held_ > 0; }
  [[nodiscard]] uint32_t open_count() const noexcept { return static_cast<uint32_t>(windows_.size()) - closing_; }

 private:
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
    // Another consumer that the host found in its way: seen in this turn of it, since then.
    uint16_t consumer = 0;
    uint32_t turn = 0;
    uint64_t held_since_ns = 0;
  };

  void WatchConsumer(Window& window, uint64_t now_ns);
  void ForgetConsumer(Window& window);
  void AskForRoomAgain();
  [[nodiscard]] Status HandOver(int socket, uint64_t session, const WindowWanted& wanted);
  /// `pass_on` gives the descriptors to whoever will be the client.
  using PassOn = std::function<Status(window::ServerWindow::Created& created, uint64_t bytes, uint32_t index)>;
  [[nodiscard]] Status OpenWindow(uint64_t session, const WindowWanted& wanted, const PassOn& pass_on);
  [[nodiscard]] Status GiveToWorker(ServedBy by, uint32_t index, const window::ServerWindow::Created& created,
                                    UniqueFd socket, bool checksum);
  [[nodiscard]] bool HasWindow(uint64_t session) const;
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
  UniqueFd published_;  // the publication area, as clients get it
  std::map<uint32_t, Window> windows_;
  std::deque<uint32_t> free_;  // slots used before, the one freed longest ago first
  uint32_t closing_ = 0;
  uint32_t held_ = 0;  // windows with `held_since_ns`
};

}  // namespace praas::host
