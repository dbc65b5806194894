#include "transport/tcp.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <system_error>
#include <vector>

#include "base/clock.h"
#include "transport/resolve.h"

namespace praas::transport {
namespace {

Status SetOption(int socket, int level, int option, int value, const char* name) {
  if (::setsockopt(socket, level, option, &value, sizeof value) == 0) return Status::Ok();
  return Status::System(std::string("setsockopt ") + name);
}

Status Tune(int socket) {
  // Idle for 10 s, then a probe every 3 s: dead after about 20 s, like unacknowledged data under TCP_USER_TIMEOUT.
  struct Option {
    int level, option, value;
    const char* name;
  };
  constexpr Option kOptions[] = {
      {IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY"},
      {SOL_SOCKET, SO_KEEPALIVE, 1, "SO_KEEPALIVE"},
      {IPPROTO_TCP, TCP_KEEPIDLE, 10, "TCP_KEEPIDLE"},
      {IPPROTO_TCP, TCP_KEEPINTVL, 3, "TCP_KEEPINTVL"},
      {IPPROTO_TCP, TCP_KEEPCNT, 3, "TCP_KEEPCNT"},
      {IPPROTO_TCP, TCP_USER_TIMEOUT, TcpStream::kDeadPeerSeconds * 1000, "TCP_USER_TIMEOUT"},
  };
  for (const Option& each : kOptions) {
    if (Status status = SetOption(socket, each.level, each.option, each.value, each.name); !status.ok()) return status;
  }
  return Status::Ok();
}

Status Lost(const char* what, int sys_errno) {
  return Status(Code::kConnectionLost, std::string(what) + ": " + std::generic_category().message(sys_errno),
                sys_errno);
}

Status Closed() { return Status(Code::kConnectionClosed, "the connection is closed"); }

/// Waits until a non-blocking connect is decided. 0, or the errno it failed with; ETIMEDOUT at the deadline.
int WaitConnected(int socket, uint64_t deadline_ns) {
  pollfd waiting{socket, POLLOUT, 0};
  while (true) {
    const int ready = ::poll(&waiting, 1, PollTimeoutMs(deadline_ns));
    if (ready > 0) break;
    if (ready < 0 && errno != EINTR) return errno;
    if (NowNs() >= deadline_ns) return ETIMEDOUT;
  }
  int error = 0;
  socklen_t size = sizeof error;
  if (::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return errno;
  return error;
}

/// errno of a socket that could not be connected, 0 with `socket` set.
int ConnectTo(const Address& address, uint64_t deadline_ns, UniqueFd& socket) {
  socket.Reset(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return errno;
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.bytes) == 0) return 0;
  return errno == EINPROGRESS || errno == EINTR ? WaitConnected(socket.get(), deadline_ns) : errno;
}

/// Errors of accept that concern one caller, or a signal: there may be another caller (accept(2), "Error handling").
bool IsPassing(int error) {
  switch (error) {
    case EINTR:
    case ECONNABORTED:
    case ENETDOWN:
    case EPROTO:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH:
      return true;
    default:
      return false;
  }
}

UniqueFd OpenReserve() { return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

/// Closes a socket after a last word.
void Dismiss(UniqueFd socket, std::span<const std::byte> farewell) noexcept {
  (void)::send(socket.get(), farewell.data(), farewell.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  ::shutdown(socket.get(), SHUT_WR);
  // What the peer has said already would make the kernel reset the connection, and the peer might not read the rest.
  std::array<std::byte, 8192> unread;
  (void)::recv(socket.get(), unread.data(), unread.size(), MSG_DONTWAIT);
}

}  // namespace

Result<std::unique_ptr<TcpStream>> TcpStream::Adopt(UniqueFd socket) {
  const int flags = ::fcntl(socket.get(), F_GETFL);
  if (flags < 0 || ::fcntl(socket.get(), F_SETFL, flags | O_NONBLOCK) != 0) return Status::System("fcntl O_NONBLOCK");
  if (Status status = Tune(socket.get()); !status.ok()) return status;
  return std::unique_ptr<TcpStream>(new TcpStream(std::move(socket)));
}

Result<size_t> TcpStream::Read(std::span<std::byte> into) {
  if (!socket_) return Closed();
  while (true) {
    const ssize_t got = ::recv(socket_.get(), into.data(), into.size(), 0);
    if (got > 0) return static_cast<size_t>(got);
    if (got == 0)
      return into.empty() ? Result<size_t>(size_t{0}) : Status(Code::kConnectionLost, "the peer closed the connection");
    if (errno == EAGAIN || errno == EWOULDBLOCK) return size_t{0};
    if (errno != EINTR) return Lost("recv", errno);
  }
}

Result<size_t> TcpStream::Write(std::span<const iovec> parts) {
  if (!socket_) return Closed();
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts.data());
  message.msg_iovlen = parts.size();
  while (true) {
    // The kernel takes a message header apart for longer than it takes to copy a small frame.
    const ssize_t sent = parts.size() == 1 ? ::send(socket_.get(), parts[0].iov_base, parts[0].iov_len, MSG_NOSIGNAL)
                                           : ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
    if (sent >= 0) return static_cast<size_t>(sent);
    if (errno == EAGAIN || errno == EWOULDBLOCK) return size_t{0};
    if (errno != EINTR) return Lost("send", errno);
  }
}

std::string TcpStream::PeerName() const {
  Address address;
  address.bytes = sizeof address.storage;
  if (::getpeername(socket_.get(), reinterpret_cast<sockaddr*>(&address.storage), &address.bytes) != 0)
    return "unknown address";
  return ToText(address);
}

Result<std::unique_ptr<TcpStream>> TcpConnect(const std::string& host, uint16_t port, uint64_t deadline_ns) {
  if (host.empty()) return Status(Code::kArgumentInvalid, "the host name is empty");
  Result<std::vector<Address>> addresses = Resolve(host, port, deadline_ns);
  if (!addresses.ok()) return addresses.status();

  int error = ETIMEDOUT;
  std::string tried;
  for (size_t i = 0; i < addresses->size(); ++i) {
    const Address& address = (*addresses)[i];
    const uint64_t now = NowNs();
    if (now >= deadline_ns) {
      error = ETIMEDOUT;
      break;
    }
    // An address that does not answer must not use up the time of those behind it.
    const uint64_t share = (deadline_ns - now) / (addresses->size() - i);
    UniqueFd socket;
    error = ConnectTo(address, now + share, socket);
    if (error == 0) return TcpStream::Adopt(std::move(socket));
    tried += (tried.empty() ? "" : ", ") + ToText(address);
  }
  const std::string what = "connect to " + host + ':' + std::to_string(port) + " (tried " + tried + ')';
  if (error == ETIMEDOUT) return Status(Code::kConnectionTimeout, what + ": no answer in time", ETIMEDOUT);
  return Lost(what.c_str(), error);
}

Result<TcpListener> TcpListener::Listen(const std::string& host, uint16_t port) {
  constexpr uint64_t kResolveNs = 5'000'000'000;
  Result<std::vector<Address>> addresses = Resolve(host, port, DeadlineIn(kResolveNs));
  if (!addresses.ok()) return addresses.status();
  // For "" a socket of the IPv6 wildcard also takes IPv4 callers.
  const auto six = std::find_if(addresses->begin(), addresses->end(),
                                [](const Address& each) { return each.storage.ss_family == AF_INET6; });
  if (host.empty() && six != addresses->end()) std::swap(*six, addresses->front());

  Status last;
  for (const Address& address : *addresses) {
    UniqueFd socket(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket) {
      last = Status::System("socket");
      continue;
    }
    if (Status status = SetOption(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR"); !status.ok())
      return status;
    if (address.storage.ss_family == AF_INET6 && host.empty()) {
      if (Status status = SetOption(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0, "IPV6_V6ONLY"); !status.ok())
        return status;
    }
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.bytes) != 0) {
      last = Status::System("bind " + ToText(address));
      continue;
    }
    if (::listen(socket.get(), SOMAXCONN) != 0) {
      last = Status::System("listen " + ToText(address));
      continue;
    }
    sockaddr_storage bound{};
    socklen_t size = sizeof bound;
    if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&bound), &size) != 0)
      return Status::System("getsockname");
    const uint16_t network_port = bound.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(bound).sin6_port
                                                              : reinterpret_cast<const sockaddr_in&>(bound).sin_port;
    return TcpListener(std::move(socket), OpenReserve(), ntohs(network_port));
  }
  return last;
}

Result<std::unique_ptr<TcpStream>> TcpListener::Accept(std::span<const std::byte> farewell) {
  if (!socket_) return Closed();
  // There may have been none left when it was to be had back.
  if (!reserve_) reserve_ = OpenReserve();
  while (true) {
    UniqueFd socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket) return TcpStream::Adopt(std::move(socket));
    const int error = errno;
    if (error == EAGAIN || error == EWOULDBLOCK) return std::unique_ptr<TcpStream>();
    if (IsPassing(error)) continue;
    if ((error == EMFILE || error == ENFILE) && reserve_) {
      reserve_.Reset();
      UniqueFd turned_away(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (turned_away) Dismiss(std::move(turned_away), farewell);
      reserve_ = OpenReserve();
    }
    return Status::System("accept", error);
  }
}

}  // namespace praas::transport
