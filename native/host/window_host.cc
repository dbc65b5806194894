#include "host/window_host.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "window/handover.h"
#include "window/intake.h"
#include "window/layout.h"

namespace praas::host {
namespace {

constexpr uint64_t kNonceNs = 5'000'000'000;
constexpr size_t kMaxOffers = 1024;
constexpr size_t kMaxArrivals = 64;
/// A consumer needs microseconds for a submission; one that has not got on for so long is stopped.
constexpr uint64_t kHeldNs = 1'000'000'000;
/// After an accept that failed for want of descriptors: the connection stays where it is, and so does the event.
constexpr uint64_t kAcceptPauseNs = 100'000'000;

enum SlotState : uint32_t { kSlotFree = 0, kSlotOpen = 1, kSlotClosing = 2 };

Result<UniqueFd> Duplicate(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) return Status::System("fcntl(F_DUPFD_CLOEXEC)");
  return copy;
}

Result<UniqueFd> ListenAt(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return Status(Code::kUpgradeFailed, "the path of the window socket has more than " +
                                            std::to_string(sizeof address.sun_path - 1) + " bytes: " + path);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return Status::System("socket(AF_UNIX)");
  ::unlink(path.c_str());  // of a host that was killed; the segment's lock says that none lives
  const mode_t before = ::umask(0177);
  const int bound = ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  ::umask(before);
  if (bound != 0) return Status::System("bind(" + path + ")", error);
  if (::listen(socket.get(), 64) != 0) return Status::System("listen(" + path + ")");
  return socket;
}

}  // namespace

WindowHost::WindowHost(EventLoop& loop, Process& process, Calls& calls)
    : loop_(loop), process_(process), calls_(calls) {}

WindowHost::~WindowHost() {
  loop_.Unwatch(listen_watch_);
  loop_.CancelTimer(listen_timer_);
  for (auto& [id, arrival] : arrivals_) loop_.Unwatch(arrival.watch);
  for (auto& [index, window] : windows_) {
    loop_.Unwatch(window.watch);
    process_.segment->window(index).state.store(kSlotFree);
  }
}

void WindowHost::Listen() {
  const std::string& path = process_.assignment.socket;
  if (path.empty()) return;
  Status status = process_.objects.Add("socket", path);
  if (status.ok()) {
    Result<UniqueFd> socket = ListenAt(path);
    if (socket) {
      Result<EventLoop::WatchId> watch = loop_.Watch(socket->get(), EPOLLIN, [this](uint32_t) { OnConnect(); });
      if (watch) {
        listen_watch_ = *watch;
        listener_ = std::move(*socket);
        // Without it clients ask for what they could have read.
        if (Result<UniqueFd> published = process_.area->ReadOnlyFd()) published_ = std::move(*published);
        return;
      }
      status = watch.status();
    } else {
      status = socket.status();
    }
  }
  unavailable_ = status.message();
}

Result<protocol::UpgradeOffer> WindowHost::Offer(uint64_t session, Wanted wanted) {
  if (!available()) return Status(Code::kUpgradeFailed, unavailable_);
  if (offers_.size() >= kMaxOffers) return Status(Code::kUpgradeFailed, "too many clients are upgrading");
  for (const auto& [index, window] : windows_) {
    if (window.session == session && !window.closing) return Status(Code::kUpgradeFailed, "the session has a window");
  }
  std::string nonce(window::kNonceBytes, '\0');
  if (::getrandom(nonce.data(), nonce.size(), 0) != static_cast<ssize_t>(nonce.size())) {
    return Status::System("getrandom").WithContext("nonce");
  }
  const uint64_t limit = process_.assignment.window_bytes;
  wanted.window_bytes = wanted.window_bytes == 0 ? limit : std::min(wanted.window_bytes, limit);
  offers_.emplace(nonce, OfferMade{session, wanted, DeadlineIn(kNonceNs)});
  return protocol::UpgradeOffer{
      .socket_path = process_.assignment.socket, .nonce = nonce, .window_bytes = wanted.window_bytes, .refused = {}};
}

void WindowHost::OnConnect() {
  UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket) {
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) PauseListening();
    return;
  }
  if (arrivals_.size() >= kMaxArrivals) return;
  const uint64_t id = next_arrival_++;
  Result<EventLoop::WatchId> watch = loop_.Watch(socket.get(), EPOLLIN, [this, id](uint32_t) { OnArrival(id); });
  if (!watch) return;
  arrivals_.emplace(id, Arrival{std::move(socket), *watch, DeadlineIn(kNonceNs)});
}

void WindowHost::PauseListening() {
  loop_.Change(listen_watch_, 0);
  listen_timer_ = loop_.At(DeadlineIn(kAcceptPauseNs), [this] {
    listen_timer_ = {};
    loop_.Change(listen_watch_, EPOLLIN);
  });
}

void WindowHost::OnArrival(uint64_t id) {
  const auto found = arrivals_.find(id);
  if (found == arrivals_.end()) return;
  const int socket = found->second.socket.get();
  Result<std::optional<std::string>> nonce = window::ReadNonce(socket);
  if (nonce && !nonce->has_value()) return;
  if (nonce) {
    if (const auto offer = offers_.find(**nonce); offer != offers_.end()) {
      const OfferMade made = offer->second;
      offers_.erase(offer);  // used once, whatever comes of it
      // A failure closes the socket, which is what tells the client.
      if (made.expires_ns > NowNs() && lives(made.session)) (void)HandOver(socket, made);
    }
  }
  DropArrival(id);
}

void WindowHost::DropArrival(uint64_t id) {
  const auto found = arrivals_.find(id);
  if (found == arrivals_.end()) return;
  loop_.Unwatch(found->second.watch);
  arrivals_.erase(found);
}

Result<uint32_t> WindowHost::FreeSlot() {
  segment::Header& header = process_.header();
  // A new slot rather than one used before, while that is cheap: a worker may still have the former window mapped.
  const auto used = static_cast<uint32_t>(windows_.size() + free_.size());
  const bool cheap = used < std::max(header.windows.committed.load(), 64u) && used < segment::kMaxWindows;
  if (!cheap && !free_.empty()) {
    const uint32_t index = free_.front();
    free_.pop_front();
    return index;
  }
  if (used >= segment::kMaxWindows) {
    return Status(Code::kUpgradeFailed, "all " + std::to_string(segment::kMaxWindows) + " windows are in use");
  }
  if (Status status = process_.segment->Commit(header.windows, used + 1); !status.ok()) return status;
  header.windows_used.store(used + 1, std::memory_order_release);
  return used;
}

Status WindowHost::HandOver(int socket, const OfferMade& offer) {
  const Wanted& wanted = offer.wanted;
  return OpenWindow(offer.session, wanted, [&](window::ServerWindow::Created& created, uint64_t bytes, uint32_t index) {
    if (wanted.by.worker != 0) {
      if (Status given = GiveToWorker(wanted.by, index, created, UniqueFd(), false); !given.ok()) return given;
    }
    return window::Send(socket, created.memfd.get(), created.submit_event.get(), created.complete_event.get(), bytes,
                        wanted.publications ? published_.get() : -1);
  });
}

Result<window::Handover> WindowHost::Open(uint64_t session, int32_t client_pid, uint64_t window_bytes) {
  const Wanted wanted{.client_pid = client_pid,
                      .window_bytes = std::min(window_bytes, process_.assignment.window_bytes)};
  window::Handover handover;
  const Status status =
      OpenWindow(session, wanted, [&](window::ServerWindow::Created& created, uint64_t bytes, uint32_t) {
        Result<UniqueFd> submit_event = Duplicate(created.submit_event.get());
        if (!submit_event) return submit_event.status();
        handover.memfd = std::move(created.memfd);
        handover.submit_event = *std::move(submit_event);
        handover.complete_event = std::move(created.complete_event);
        handover.window_bytes = bytes;
        return Status::Ok();
      });
  if (!status.ok()) return status;
  return handover;
}

Status WindowHost::OpenForSocket(uint64_t session, int32_t client_pid, ServedBy by, UniqueFd socket, bool checksum) {
  const Wanted wanted{.client_pid = client_pid, .window_bytes = process_.assignment.window_bytes, .by = by};
  return OpenWindow(session, wanted, [&](window::ServerWindow::Created& created, uint64_t, uint32_t index) {
    return GiveToWorker(by, index, created, std::move(socket), checksum);
  });
}

Status WindowHost::GiveToWorker(ServedBy by, uint32_t index, const window::ServerWindow::Created& created,
                                UniqueFd socket, bool checksum) {
  using worker::ControlMessage;
  using worker::ControlType;
  ControlMessage message{.type = socket ? ControlType::kLeaseSocket : ControlType::kLeaseWindow,
                         .index = index,
                         .generation = process_.segment->window(index).generation.load(),
                         .text = checksum ? "checksum" : "",
                         .terms = {.lease = by.lease}};
  for (const int fd : {created.memfd.get(), created.complete_event.get(), created.submit_event.get()}) {
    Result<UniqueFd> copy = Duplicate(fd);
    if (!copy) return copy.status();
    message.fds.push_back(*std::move(copy));
  }
  if (socket) message.fds.push_back(std::move(socket));
  return tell_worker(by.worker, message);
}

std::optional<uint64_t> WindowHost::SessionOf(uint32_t index, uint16_t worker) const {
  const auto found = windows_.find(index);
  if (found == windows_.end() || found->second.worker != worker || found->second.closing) return std::nullopt;
  return found->second.session;
}

Status WindowHost::OpenWindow(uint64_t session, const Wanted& wanted, const PassOn& pass_on) {
  Result<window::ServerWindow::Created> created = window::ServerWindow::Create(wanted.window_bytes);
  if (!created) return created.status();
  Result<UniqueFd> memory = Duplicate(created->memfd.get());
  if (!memory) return memory.status();
  Result<UniqueFd> complete = Duplicate(created->complete_event.get());
  if (!complete) return complete.status();
  Result<uint32_t> index = FreeSlot();
  if (!index) return index.status();

  segment::WindowSlot& slot = process_.segment->window(*index);
  slot.generation.fetch_add(1);
  slot.connection_id = session;
  slot.bytes = wanted.window_bytes;
  slot.client_pid = wanted.client_pid;
  slot.calls.store(0);
  slot.poller.store(wanted.by.worker);  // so that no other takes it over
  slot.consumer.store(0);
  Result<std::unique_ptr<window::ServerWindow>> mapped =
      window::ServerWindow::Map(*process_.segment, *index, std::move(*memory), std::move(*complete));
  Status status = mapped ? Status::Ok() : mapped.status();
  EventLoop::WatchId watched = 0;
  if (status.ok() && wanted.by.worker == 0) {
    Result<EventLoop::WatchId> watch =
        loop_.Watch(created->submit_event.get(), EPOLLIN, [this, index = *index](uint32_t) { OnSubmitEvent(index); });
    status = watch.status();
    if (watch) watched = *watch;
  }
  if (status.ok()) status = pass_on(*created, (*mapped)->bytes(), *index);
  if (status.ok()) {
    Window& window = windows_[*index];
    window.mapped = std::move(*mapped);
    window.submit_event = std::move(created->submit_event);
    window.watch = watched;
    window.session = session;
    window.worker = wanted.by.worker;
    slot.state.store(kSlotOpen, std::memory_order_release);
    if (wanted.by.worker == 0) OfferToPoller();
    return status;
  }
  loop_.Unwatch(watched);
  if (wanted.by.worker != 0) {
    // It may have been given the window by then.
    (void)tell_worker(
        wanted.by.worker,
        {.type = worker::ControlType::kWindowGone, .index = *index, .generation = slot.generation.fetch_add(1)});
  }
  free_.push_back(*index);
  return status;
}

void WindowHost::OfferToPoller() {
  // Every worker that polls may take it; the first one that looks does.
  segment::Header& header = process_.header();
  for (uint32_t group = 0; group < dispatch::kMaxParticipants / 64; ++group) {
    uint64_t bits = 0;
    for (const segment::Header::Hints& lane : header.hints) bits |= lane.hot[group].load(std::memory_order_relaxed);
    for (; bits != 0; bits &= bits - 1) {
      const auto participant = static_cast<uint16_t>(group * 64 + static_cast<uint32_t>(__builtin_ctzll(bits)));
      process_.dispatcher->Notify(participant, dispatch::kNoticeWindow);
    }
  }
}

void WindowHost::OnSubmitEvent(uint32_t index) {
  const auto found = windows_.find(index);
  if (found == windows_.end()) return;
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(found->second.submit_event.get(), &count, sizeof count);
  Consume(index);
  CancelAsked(index);
  // Its client had to signal, so nobody polls it, or whoever does is busy.
  if (process_.segment->window(index).poller.load(std::memory_order_relaxed) == 0) OfferToPoller();
}

void WindowHost::Consume(uint32_t index) {
  const auto found = windows_.find(index);
  if (found == windows_.end() || found->second.closing || found->second.worker != 0) return;
  Window& window = found->second;
  window.waiting = false;
  bool stopped = false;
  do {
    if (!window.mapped->TryConsume(dispatch::kHostParticipant)) return WatchConsumer(window, NowNs());
    while (const std::optional<window::Submission> submission = window.mapped->Peek()) {
      const Taken taken = IsPosted(index, *submission) ? Taken::kYes
                          : submission->room_given     ? TakeRoom(window, index, *submission)
                                                       : TakeCall(window, index, *submission);
      if (taken == Taken::kNoRoom) {
        window.waiting = stopped = true;
        DeliverParked(window, index);
        break;
      }
      window.mapped->Taken();
    }
  } while (window.mapped->EndConsume(dispatch::kHostParticipant) && !stopped);
}

/// Whoever consumes sees all that is there, unless it is stopped: then nobody gets at the ring before it is ended.
void WindowHost::WatchConsumer(Window& window, uint64_t now_ns) {
  const std::optional<uint16_t> consumer = window.mapped->consumer();
  if (!consumer || *consumer == dispatch::kHostParticipant || (!window.closing && !window.mapped->HasSubmissions())) {
    return ForgetConsumer(window);
  }
  const uint32_t head = window.mapped->head();
  if (window.held_since_ns == 0 || window.consumer != *consumer || window.head != head) {
    held_ += window.held_since_ns == 0;
    window.consumer = *consumer;
    window.head = head;
    window.held_since_ns = now_ns;
  } else if (now_ns - window.held_since_ns > kHeldNs) {
    window.held_since_ns = now_ns;  // again in a while, should it not be gone by then
    kill(*consumer, "it holds the submissions of a client and does not get on");
  }
}

void WindowHost::ForgetConsumer(Window& window) {
  if (std::exchange(window.held_since_ns, 0) != 0) --held_;
}

void WindowHost::Answer(Window& window, const window::Submission& submission, Code code, std::string_view message) {
  (void)window.mapped->CompleteError(submission.call, submission.sequence, static_cast<uint32_t>(code), message,
                                     {submission.output_offset, submission.output_capacity});
}

/// A consumer died between posting and taking: the entry it has noted is in the table.
bool WindowHost::IsPosted(uint32_t index, const window::Submission& submission) const {
  if (submission.entry < 0 || static_cast<uint32_t>(submission.entry) >= calls_.capacity()) return false;
  const std::optional<Calls::View> view = calls_.Look(static_cast<uint32_t>(submission.entry));
  return view && view->origin == dispatch::Origin::kWindow && view->origin_index == index &&
         view->origin_call == window::OriginCall(submission.call, submission.sequence) &&
         view->word.state != dispatch::CallState::kParked;
}

WindowHost::Taken WindowHost::TakeCall(Window& window, uint32_t index, const window::Submission& submission) {
  if (const Status refused = refuses(); !refused.ok()) {
    Answer(window, submission, refused.code(), refused.message());
    return Taken::kYes;
  }
  if (submission.function >= process_.header().function_count.load(std::memory_order_acquire)) {
    Answer(window, submission, Code::kFunctionUnknown, "no such function index; resolve the name first");
    return Taken::kYes;
  }
  if (submission.input_bytes > process_.assignment.max_contiguous) {
    Answer(window, submission, Code::kPayloadTooLarge, window::kInputTooLarge);
    return Taken::kYes;
  }
  if ((process_.segment->function(submission.function).flags & segment::kFunctionStream) != 0) {
    Answer(window, submission, Code::kArgumentInvalid, window::kTakesStream);
    return Taken::kYes;
  }
  const std::optional<uint32_t> entry = calls_.TryReserve();
  if (!entry) {
    // No room until its deadline: it will not get better for it.
    if (submission.deadline_ns > NowNs()) return Taken::kNoRoom;
    Answer(window, submission, Code::kBackpressure, "the process had no room for the call until its deadline");
    return Taken::kYes;
  }
  window::FillEntry(calls_.entry(*entry), submission, index, NowNs());
  window.mapped->Note(submission.call, submission.sequence, *entry);
  process_.segment->window(index).calls.fetch_add(1, std::memory_order_relaxed);
  calls_.Post(*entry);
  return Taken::kYes;
}

WindowHost::Taken WindowHost::TakeRoom(Window& window, uint32_t index, const window::Submission& submission) {
  const uint64_t origin_call = window::OriginCall(submission.call, submission.sequence);
  if (!process_.dispatcher->Unpark(submission.parked, static_cast<uint16_t>(index), origin_call)) {
    Answer(window, submission, Code::kProtocolInvalid, "room for a result that does not wait");
    return Taken::kYes;
  }
  if (window.mapped->cancelled(submission.call, submission.sequence)) {
    calls_.entry(submission.parked).input = {};
    calls_.Free(submission.parked);
    Answer(window, submission, Code::kInvocationCancelled, "cancelled");
    return Taken::kYes;
  }
  window::FillDelivery(calls_.entry(submission.parked), submission);
  window.mapped->Note(submission.call, submission.sequence, submission.parked);
  calls_.Post(submission.parked);
  return Taken::kYes;
}

/// Results that wait for room and have it: what a full table consists of in the end, while the ring stands still.
void WindowHost::DeliverParked(Window& window, uint32_t index) {
  for (uint32_t entry = 0; entry < calls_.capacity(); ++entry) {
    const std::optional<Calls::View> view = calls_.Look(entry);
    if (!view || view->origin != dispatch::Origin::kWindow || view->origin_index != index ||
        view->word.state != dispatch::CallState::kParked) {
      continue;
    }
    const auto room =
        window.mapped->RoomFor(window::OriginCallIndex(view->origin_call), window::OriginSequence(view->origin_call));
    if (room && room->parked == entry) static_cast<void>(TakeRoom(window, index, *room));
  }
}

void WindowHost::Resume() {
  std::vector<uint32_t> waiting;
  for (const auto& [index, window] : windows_) {
    if (window.waiting) waiting.push_back(index);
  }
  for (const uint32_t index : waiting) Consume(index);
}

void WindowHost::ConsumeAll() {
  std::vector<uint32_t> filled;
  for (const auto& [index, window] : windows_) {
    if (!window.closing && window.mapped->HasSubmissions()) filled.push_back(index);
  }
  for (const uint32_t index : filled) Consume(index);
}

void WindowHost::Fail(uint32_t entry, const Status& why) {
  dispatch::CallEntry& failed = calls_.entry(entry);
  if (const auto found = windows_.find(failed.origin_index); found != windows_.end()) {
    (void)found->second.mapped->CompleteError(window::OriginCallIndex(failed.origin_call),
                                              window::OriginSequence(failed.origin_call),
                                              static_cast<uint32_t>(why.code()), why.message(), window::RoomOf(failed));
  }
  calls_.Free(entry);
}

void WindowHost::Reclaim(uint16_t dead) {
  std::vector<uint32_t> again;
  for (auto& [index, window] : windows_) {
    if (window.mapped->Reclaim(dead) && window.worker == 0) again.push_back(index);
    if (window.worker == dead) process_.segment->window(index).poller.store(dead);  // it stays nobody else's
  }
  for (const uint32_t index : again) Consume(index);
  AskForRoomAgain();
  OfferToPoller();
}

/// A worker may have died after it had parked an answer and before it told the client.
void WindowHost::AskForRoomAgain() {
  for (uint32_t entry = 0; entry < calls_.capacity(); ++entry) {
    const std::optional<Calls::View> view = calls_.Look(entry);
    if (!view || view->origin != dispatch::Origin::kWindow || view->word.state != dispatch::CallState::kParked)
      continue;
    const auto found = windows_.find(view->origin_index);
    if (found == windows_.end()) continue;
    found->second.mapped->NeedRoomStill(window::OriginCallIndex(view->origin_call),
                                        window::OriginSequence(view->origin_call), entry,
                                        calls_.entry(entry).output.bytes);
  }
}

Result<worker::ControlMessage> WindowHost::ForWorker(uint32_t index) const {
  const uint32_t generation =
      index < process_.header().windows.committed.load() ? process_.segment->window(index).generation.load() : 0;
  const auto found = windows_.find(index);
  if (found == windows_.end()) {
    return worker::ControlMessage{.type = worker::ControlType::kWindowGone, .index = index, .generation = generation};
  }
  worker::ControlMessage message{.type = worker::ControlType::kWindow, .index = index, .generation = generation};
  for (const int fd : {found->second.mapped->memfd(), found->second.mapped->complete_event()}) {
    Result<UniqueFd> copy = Duplicate(fd);
    if (!copy) return copy.status();
    message.fds.push_back(std::move(*copy));
  }
  return message;
}

void WindowHost::ForgetOffers(uint64_t session) {
  std::erase_if(offers_, [&](const auto& offer) { return offer.second.session == session; });
}

void WindowHost::SessionClosed(uint64_t session) {
  ForgetOffers(session);
  for (auto& [index, window] : windows_) {
    if (window.session != session || window.closing) continue;
    window.closing = true;
    ++closing_;
    process_.segment->window(index).state.store(kSlotClosing);
    loop_.Unwatch(window.watch);
    window.watch = 0;
  }
  Tick(NowNs());
}

/// Takes back what its client has cancelled and nobody has begun, and tells the workers of the rest.
void WindowHost::CancelAsked(uint32_t index) {
  const auto found = windows_.find(index);
  if (found == windows_.end() || found->second.closing) return;
  Window& window = found->second;
  const uint32_t cancels = window.mapped->cancels();
  if (std::exchange(window.cancels, cancels) == cancels) return;
  for (uint32_t entry = 0; entry < calls_.capacity(); ++entry) {
    const std::optional<Calls::View> view = calls_.Look(entry);
    if (!view || !view->running() || view->origin != dispatch::Origin::kWindow || view->origin_index != index ||
        !window.mapped->cancelled(window::OriginCallIndex(view->origin_call),
                                  window::OriginSequence(view->origin_call))) {
      continue;
    }
    if (process_.dispatcher->Cancel(entry, view->word.generation, Code::kInvocationCancelled)) {
      Fail(entry, Status(Code::kInvocationCancelled, "cancelled before it began"));
    }
  }
}

/// Cancels what is queued or running, drops what is parked. true: nothing of this window is left in the call table.
bool WindowHost::CancelCalls(uint32_t index) {
  bool none = true;
  for (uint32_t entry = 0; entry < calls_.capacity(); ++entry) {
    const std::optional<Calls::View> view = calls_.Look(entry);
    if (!view || view->origin != dispatch::Origin::kWindow || view->origin_index != index) continue;
    dispatch::CallEntry& call = calls_.entry(entry);
    if (view->word.state == dispatch::CallState::kParked &&
        process_.dispatcher->Unpark(entry, static_cast<uint16_t>(index), view->origin_call)) {
      call.input = {};
      calls_.Free(entry);
    } else if (view->running() &&
               process_.dispatcher->Cancel(entry, view->word.generation, Code::kInvocationCancelled)) {
      call.input = {};
      calls_.Free(entry);
    } else {
      none = false;
    }
  }
  return none;
}

void WindowHost::Release(uint32_t index) {
  Window& window = windows_.at(index);
  segment::WindowSlot& slot = process_.segment->window(index);
  slot.poller.store(0);
  const uint32_t generation = slot.generation.fetch_add(1);
  slot.state.store(kSlotFree);
  slot.consumer.store(0);
  tell_workers({.type = worker::ControlType::kWindowGone, .index = index, .generation = generation});
  ForgetConsumer(window);
  if (window.closing) --closing_;
  windows_.erase(index);
  free_.push_back(index);
}

void WindowHost::Tick(uint64_t now_ns) {
  std::erase_if(offers_, [&](const auto& offer) { return offer.second.expires_ns <= now_ns; });
  std::vector<uint64_t> late;
  for (const auto& [id, arrival] : arrivals_) {
    if (arrival.expires_ns <= now_ns) late.push_back(id);
  }
  for (const uint64_t id : late) DropArrival(id);
  std::vector<uint32_t> held;
  for (const auto& [index, window] : windows_) {
    if (!window.held && (window.held_since_ns != 0 || window.closing || window.mapped->HasSubmissions())) {
      held.push_back(index);
    }
  }
  for (const uint32_t index : held) {
    Window& window = windows_.at(index);
    WatchConsumer(window, now_ns);
    if (window.held_since_ns == 0) Consume(index);  // nobody is in the way any more
  }
  if (closing_ == 0) return;
  std::vector<uint32_t> unused;
  for (auto& [index, window] : windows_) {
    if (!window.closing) continue;
    // As its consumer for good the host keeps workers from making new calls of what the client has left in the ring.
    window.held = window.held || window.mapped->TryConsume(dispatch::kHostParticipant);
    const bool none = CancelCalls(index);
    if (window.held && none) unused.push_back(index);
  }
  for (const uint32_t index : unused) Release(index);
}

}  // namespace praas::host
