#include "host/window_offers.h"

#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "window/handover.h"

namespace praas::host {
namespace {

constexpr uint64_t kNonceNs = 5'000'000'000;
constexpr size_t kMaxOffers = 1024;
constexpr size_t kMaxArrivals = 64;
/// After an accept that failed for want of descriptors: the connection stays where it is, and so does the event.
constexpr uint64_t kAcceptPauseNs = 100'000'000;

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

WindowOffers::WindowOffers(EventLoop& loop, Process& process) : loop_(loop), process_(process) {}

WindowOffers::~WindowOffers() {
  loop_.Unwatch(listen_watch_);
  loop_.CancelTimer(listen_timer_);
  for (auto& [id, arrival] : arrivals_) loop_.Unwatch(arrival.watch);
}

void WindowOffers::Listen() {
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
        return;
      }
      status = watch.status();
    } else {
      status = socket.status();
    }
  }
  unavailable_ = status.message();
}

Result<std::string> WindowOffers::Make(uint64_t session, const WindowWanted& wanted) {
  if (!available()) return Status(Code::kUpgradeFailed, unavailable_);
  Forget(session);
  if (offers_.size() >= kMaxOffers) return Status(Code::kUpgradeFailed, "too many clients are upgrading");
  std::string nonce(window::kNonceBytes, '\0');
  if (::getrandom(nonce.data(), nonce.size(), 0) != static_cast<ssize_t>(nonce.size())) {
    return Status::System("getrandom").WithContext("nonce");
  }
  offers_.emplace(nonce, Offer{session, wanted, DeadlineIn(kNonceNs)});
  return nonce;
}

void WindowOffers::Forget(uint64_t session) {
  std::erase_if(offers_, [&](const auto& offer) { return offer.second.session == session; });
}

void WindowOffers::Tick(uint64_t now_ns) {
  std::erase_if(offers_, [&](const auto& offer) { return offer.second.expires_ns <= now_ns; });
  std::vector<uint64_t> late;
  for (const auto& [id, arrival] : arrivals_) {
    if (arrival.expires_ns <= now_ns) late.push_back(id);
  }
  for (const uint64_t id : late) DropArrival(id);
}

void WindowOffers::OnConnect() {
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

void WindowOffers::PauseListening() {
  loop_.Change(listen_watch_, 0);
  listen_timer_ = loop_.At(DeadlineIn(kAcceptPauseNs), [this] {
    listen_timer_ = {};
    loop_.Change(listen_watch_, EPOLLIN);
  });
}

void WindowOffers::OnArrival(uint64_t id) {
  const auto found = arrivals_.find(id);
  if (found == arrivals_.end()) return;
  const int socket = found->second.socket.get();
  Result<std::optional<std::string>> nonce = window::ReadNonce(socket);
  if (nonce && !nonce->has_value()) return;
  if (nonce) {
    if (const auto offer = offers_.find(**nonce); offer != offers_.end()) {
      const Offer made = offer->second;
      offers_.erase(offer);  // used once, whatever comes of it
      if (made.expires_ns > NowNs() && lives(made.session)) (void)hand_over(socket, made.session, made.wanted);
    }
  }
  DropArrival(id);
}

void WindowOffers::DropArrival(uint64_t id) {
  const auto found = arrivals_.find(id);
  if (found == arrivals_.end()) return;
  loop_.Unwatch(found->second.watch);
  arrivals_.erase(found);
}
}  // namespace praas::host
