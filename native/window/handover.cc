#include "window/handover.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "shm/memfd.h"
#include "window/layout.h"

namespace praas::window {
namespace {

constexpr size_t kWindowFds = 3;
constexpr size_t kFds = 4;  // with the publication area

/// The one message that host sends: this and the descriptors.
struct Offer {
  uint64_t magic;
  uint64_t window_bytes;
};
static_assert(sizeof(Offer) == 16);

/// Both ends may only be processes of one user: file permissions of the socket's path are not enough, because the
/// directory may have been made by somebody else.
Status CheckPeer(int socket) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
    return Status::System("getsockopt(SO_PEERCRED)");
  if (peer.uid != geteuid()) {
    return Status(Code::kTokenInvalid, "the process at the other end of the window socket belongs to user " +
                                           std::to_string(peer.uid) + ", not to " + std::to_string(geteuid()));
  }
  return Status::Ok();
}

/// It has forgotten the offer, or turns away who comes with too many others.
Status Closed() { return {Code::kUpgradeFailed, "the host closed the window socket: it does not know the nonce"}; }
bool IsClosed(int error) noexcept { return error == ECONNRESET || error == EPIPE; }

Status TimedOut() { return {Code::kConnectionTimeout, "the host did not hand over a window in time"}; }

/// Bounds the next blocking call on `socket` in both directions; the deadline may have passed already.
Status BoundBy(int socket, uint64_t deadline_ns) {
  const uint64_t now = NowNs();
  if (now >= deadline_ns) return TimedOut();
  const uint64_t left_us = (deadline_ns - now) / 1000 + 1;  // 0 would mean for ever
  timeval left{};
  left.tv_sec = static_cast<time_t>(std::min<uint64_t>(left_us / 1'000'000, 1'000'000'000));
  left.tv_usec = static_cast<suseconds_t>(left_us % 1'000'000);
  if (setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &left, sizeof(left)) != 0 ||
      setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &left, sizeof(left)) != 0) {
    return Status::System("setsockopt of the window socket's timeout");
  }
  return Status::Ok();
}

Result<UniqueFd> Connect(const std::string& path, uint64_t deadline_ns) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path) || path.find('\0') != std::string::npos) {
    return Status(Code::kArgumentInvalid, "\"" + path + "\" cannot be the path of a UNIX socket (1 … " +
                                              std::to_string(sizeof(address.sun_path) - 1) + " bytes)");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return Status::System("socket(AF_UNIX)");
  while (true) {
    if (Status status = BoundBy(socket.get(), deadline_ns); !status.ok()) return status;
    if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) return socket;
    if (errno == EAGAIN || errno == EINTR) continue;  // the accept queue stayed full: BoundBy ends it
    return Status::System("connect to the window socket " + path);
  }
}

/// Takes the descriptors out of a received message, all of them, so that none leaks when there are too many.
size_t TakeFds(msghdr& message, std::array<UniqueFd, kFds>& fds) {
  size_t count = 0;
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr; control = CMSG_NXTHDR(&message, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    const size_t received = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < received; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof(int));
      UniqueFd owned(fd);
      if (count < kFds) fds[count] = std::move(owned);
      ++count;
    }
  }
  return count;
}

Result<Handover> ReceiveOffer(int socket, uint64_t deadline_ns) {
  Offer offer{};
  std::array<UniqueFd, kFds> fds;
  size_t fd_count = 0;
  bool cut = false;
  for (size_t got = 0; got < sizeof(offer);) {
    if (Status status = BoundBy(socket, deadline_ns); !status.ok()) return status;
    iovec part{reinterpret_cast<char*>(&offer) + got, sizeof(offer) - got};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 8)> control{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t bytes = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (bytes < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      return IsClosed(errno) ? Closed() : Status::System("recvmsg from the window socket");
    }
    if (bytes == 0) return Closed();
    fd_count += TakeFds(message, fds);
    cut |= (message.msg_flags & MSG_CTRUNC) != 0;
    got += static_cast<size_t>(bytes);
  }
  // There was room for more than a host sends, so what was cut off found no number in this process.
  if (cut && fd_count < kFds) return Status::System("recvmsg of the descriptors of a window", EMFILE);
  if (cut || offer.magic != kMagic || fd_count < kWindowFds || fd_count > kFds) {
    return Status(Code::kProtocolInvalid,
                  "the host's window offer is malformed (" + std::to_string(fd_count) + " descriptors)");
  }
  return Handover{std::move(fds[0]), std::move(fds[1]), std::move(fds[2]), offer.window_bytes, std::move(fds[3])};
}

}  // namespace

Result<Handover> Receive(const std::string& socket_path, const std::string& nonce, uint64_t deadline_ns) {
  if (nonce.size() != kNonceBytes) {
    return Status(Code::kArgumentInvalid,
                  "a nonce has " + std::to_string(kNonceBytes) + " bytes, not " + std::to_string(nonce.size()));
  }
  Result<UniqueFd> socket = Connect(socket_path, deadline_ns);
  if (!socket.ok()) return socket.status();
  if (Status status = CheckPeer(socket->get()); !status.ok()) return status;

  for (size_t sent = 0; sent < nonce.size();) {
    if (Status status = BoundBy(socket->get(), deadline_ns); !status.ok()) return status;
    const ssize_t bytes = send(socket->get(), nonce.data() + sent, nonce.size() - sent, MSG_NOSIGNAL);
    if (bytes >= 0) {
      sent += static_cast<size_t>(bytes);
    } else if (errno != EINTR && errno != EAGAIN) {
      return IsClosed(errno) ? Closed() : Status::System("send of the nonce to the window socket");
    }
  }
  Result<Handover> handover = ReceiveOffer(socket->get(), deadline_ns);
  if (!handover.ok()) return handover.status();

  const Result<uint64_t> bytes = shm::CheckMemfd(handover->memfd.get());
  if (!bytes.ok()) return bytes.status();
  if (bytes.value() != handover->window_bytes || bytes.value() < kMinWindowBytes) {
    return Status(Code::kProtocolInvalid, "the window received has " + std::to_string(bytes.value()) +
                                              " bytes; announced were " + std::to_string(handover->window_bytes));
  }
  // A blocking eventfd could hang the sender of a signal and the reader of a wake-up.
  for (const int event : {handover->submit_event.get(), handover->complete_event.get()}) {
    const int flags = fcntl(event, F_GETFL);
    if (flags < 0 || (flags & O_NONBLOCK) == 0) {
      return Status(Code::kProtocolInvalid, "an event received with the window is not non-blocking");
    }
  }
  return handover;
}

Result<std::optional<std::string>> ReadNonce(int socket) {
  if (Status status = CheckPeer(socket); !status.ok()) return status;
  std::string nonce(kNonceBytes, '\0');
  // Peeked until it is whole, so that no partial nonce has to be kept anywhere.
  const ssize_t bytes = recv(socket, nonce.data(), nonce.size(), MSG_DONTWAIT | MSG_PEEK);
  if (bytes < 0) {
    if (errno == EAGAIN || errno == EINTR) return std::optional<std::string>();
    return Status::System("recv from a window socket");
  }
  if (bytes == 0) return Status(Code::kConnectionLost, "the client closed the window socket before its nonce");
  if (static_cast<size_t>(bytes) < nonce.size()) {
    // A client that shut its side down after a part will never complete it.
    pollfd hang_up{socket, POLLRDHUP, 0};
    if (poll(&hang_up, 1, 0) == 1 && (hang_up.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0) {
      return Status(Code::kConnectionLost, "the client closed the window socket in the middle of its nonce");
    }
    return std::optional<std::string>();
  }
  if (recv(socket, nonce.data(), nonce.size(), MSG_DONTWAIT) != static_cast<ssize_t>(nonce.size())) {
    return Status(Code::kInternal, "bytes peeked on a window socket could not be read");
  }
  return std::optional<std::string>(std::move(nonce));
}

Status Send(int socket, int memfd, int submit_event, int complete_event, uint64_t window_bytes, int publications) {
  Offer offer{kMagic, window_bytes};
  iovec part{&offer, sizeof(offer)};
  const std::array<int, kFds> fds{memfd, submit_event, complete_event, publications};
  const size_t fd_bytes = (publications >= 0 ? kFds : kWindowFds) * sizeof(int);
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(fds))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = CMSG_SPACE(fd_bytes);
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(fd_bytes);
  std::memcpy(CMSG_DATA(rights), fds.data(), fd_bytes);
  ssize_t sent = 0;
  do {
    sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) return Status::System("sendmsg of a window to its client");
  // The first message on a fresh socket: its buffer takes 16 bytes as a whole or the client is not one of ours.
  if (sent != static_cast<ssize_t>(sizeof(offer)))
    return {Code::kUpgradeFailed, "the client's socket took half a message"};
  return Status::Ok();
}

}  // namespace praas::window
