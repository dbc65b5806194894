#include "worker/control.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>

#include "base/clock.h"
#include "shm/memfd.h"
#include "worker/control_packet.h"

namespace praas::worker {
namespace {

/// One more than any message has: the memfd of a long one.
constexpr size_t kMaxFds = 6;

/// Precedes the encoded message in every packet.
struct PacketHeader {
  uint32_t spilled_bytes = 0;  // > 0: the message is this long and lies in the packet's first fd
};

Status Lost(const char* call, int error) {
  if (error == EPIPE || error == ECONNRESET || error == ENOTCONN) {
    return Status(Code::kConnectionLost, std::string(call) + ": the other end of the control socket is gone", error);
  }
  return Status::System(call, error);
}

Status SendPacket(int socket, std::span<const iovec> parts, std::span<const int> fds) {
  msghdr header{};
  header.msg_iov = const_cast<iovec*>(parts.data());
  header.msg_iovlen = parts.size();
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxFds * sizeof(int))> control{};
  if (!fds.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
  }
  for (;;) {
    if (::sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return Status::Ok();
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == ENOBUFS || errno == ETOOMANYREFS) {
      return Status(Code::kBackpressure, "the control socket is full", errno);
    }
    return Lost("sendmsg on the control socket", errno);
  }
}

/// The memfd is unsealed while it is written; what is sealed is its size, which is all that can hurt a reader.
Result<UniqueFd> Spill(std::span<const std::byte> message) {
  auto memfd = shm::CreateMemfd("praas-control", message.size(), shm::Sealing::kFixed);
  if (!memfd.ok()) return memfd.status();
  for (size_t at = 0; at < message.size();) {
    const ssize_t written = ::pwrite(memfd->get(), message.data() + at, message.size() - at, static_cast<off_t>(at));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return Status::System("pwrite of a long control message");
    at += static_cast<size_t>(written);
  }
  return std::move(*memfd);
}

Result<std::vector<std::byte>> Unspill(int memfd, uint32_t bytes) {
  auto size = shm::CheckMemfd(memfd);
  if (!size.ok()) return Status(Code::kProtocolInvalid, size.status().message());
  if (bytes > kMaxMessage || *size < bytes) {
    return Status(Code::kProtocolInvalid, "a long control message does not have the length it says");
  }
  std::vector<std::byte> message(bytes);
  for (size_t at = 0; at < bytes;) {
    const ssize_t got = ::pread(memfd, message.data() + at, bytes - at, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return Status::System("pread of a long control message", got == 0 ? EIO : errno);
    at += static_cast<size_t>(got);
  }
  return message;
}

void TakeFds(msghdr* header, std::vector<UniqueFd>* fds) {
  for (cmsghdr* part = CMSG_FIRSTHDR(header); part != nullptr; part = CMSG_NXTHDR(header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
      fds->emplace_back(fd);
    }
  }
}

Result<ControlMessage> Parse(std::span<const std::byte> packet, bool truncated, std::vector<UniqueFd> fds) {
  PacketHeader head;
  if (truncated || packet.size() < sizeof head) {
    return Status(Code::kProtocolInvalid, "a control packet of the wrong size");
  }
  std::memcpy(&head, packet.data(), sizeof head);
  packet = packet.subspan(sizeof head);

  std::vector<std::byte> spilled;
  if (head.spilled_bytes != 0) {
    if (!packet.empty() || fds.empty()) {
      return Status(Code::kProtocolInvalid, "a long control message without its memory");
    }
    auto read = Unspill(fds.front().get(), head.spilled_bytes);
    if (!read.ok()) return read.status();
    spilled = std::move(*read);
    packet = spilled;
    fds.erase(fds.begin());
  }
  auto message = DecodeControl(packet);
  if (!message.ok()) return message;
  if (fds.size() != static_cast<size_t>(ControlFds(message->type))) {
    return Status(Code::kProtocolInvalid, "a control packet of type " +
                                              std::to_string(static_cast<uint32_t>(message->type)) + " with " +
                                              std::to_string(fds.size()) + " descriptors");
  }
  message->fds = std::move(fds);
  return message;
}

}  // namespace

ControlSocket::ControlSocket(UniqueFd fd) : fd_(std::move(fd)) {}

int ControlSocket::fd() const noexcept { return fd_.get(); }

Result<std::pair<UniqueFd, UniqueFd>> ControlSocket::Pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return Status::System("socketpair for a worker's control socket");
  }
  return std::pair<UniqueFd, UniqueFd>(UniqueFd(ends[0]), UniqueFd(ends[1]));
}

Status ControlSocket::Send(const ControlMessage& message, std::span<const int> lent) {
  auto encoded = EncodeControl(message);
  if (!encoded.ok()) return encoded.status();
  if (message.fds.size() + lent.size() != static_cast<size_t>(ControlFds(message.type))) {
    return Status(Code::kArgumentInvalid, "a control message of type " +
                                              std::to_string(static_cast<uint32_t>(message.type)) + " needs " +
                                              std::to_string(ControlFds(message.type)) + " descriptors, got " +
                                              std::to_string(message.fds.size() + lent.size()));
  }
  PacketHeader head;
  std::vector<int> fds;
  UniqueFd memory;
  if (encoded->size() > kMaxPacket - sizeof head) {
    auto spilled = Spill(*encoded);
    if (!spilled.ok()) return spilled.status();
    memory = std::move(*spilled);
    head.spilled_bytes = static_cast<uint32_t>(encoded->size());
    fds.push_back(memory.get());
    encoded->clear();
  }
  for (const UniqueFd& fd : message.fds) fds.push_back(fd.get());
  fds.insert(fds.end(), lent.begin(), lent.end());
  const std::array<iovec, 2> parts{iovec{&head, sizeof head}, iovec{encoded->data(), encoded->size()}};
  return SendPacket(fd_.get(), parts, fds);
}

Result<std::optional<ControlMessage>> ControlSocket::Receive(uint64_t deadline_ns) {
  // Not cleared: most packets are small, and so few of its pages are ever touched.
  const auto memory = std::make_unique_for_overwrite<std::byte[]>(kMaxPacket);
  const std::span<std::byte> buffer(memory.get(), kMaxPacket);
  for (;;) {
    iovec part{buffer.data(), buffer.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxFds * sizeof(int))> control{};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t got = ::recvmsg(fd_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const int error = errno;
    if (got > 0) {
      std::vector<UniqueFd> fds;
      TakeFds(&header, &fds);  // first of all: from here on they are closed whatever else is wrong
      // There was room for more than any message has, so what was cut off found no number in this process.
      if ((header.msg_flags & MSG_CTRUNC) != 0 && fds.size() < kMaxFds) {
        return Status::System("recvmsg of descriptors on the control socket", EMFILE);
      }
      const bool truncated = (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
      auto message = Parse(std::span(buffer).first(static_cast<size_t>(got)), truncated, std::move(fds));
      if (!message.ok()) return message.status();
      return std::optional<ControlMessage>(std::move(*message));
    }
    // Neither end sends empty packets, so no bytes mean the end.
    if (got == 0) return Lost("recvmsg on the control socket", ECONNRESET);
    if (error == EINTR) continue;
    if (error != EAGAIN) return Lost("recvmsg on the control socket", error);

    const int timeout_ms = deadline_ns == 0 ? 0 : PollTimeoutMs(deadline_ns);
    if (timeout_ms == 0) return std::optional<ControlMessage>();
    pollfd readable{fd_.get(), POLLIN, 0};
    if (::poll(&readable, 1, timeout_ms) < 0 && errno != EINTR) return Status::System("poll on the control socket");
  }
}

}  // namespace praas::worker
