#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "transport/byte_stream.h"

namespace praas::transport {

/// A connected TCP socket: non-blocking, TCP_NODELAY, keepalive and TCP_USER_TIMEOUT, so that a machine that vanished
/// is noticed within kDeadPeerSeconds even when nothing is being sent.
class TcpStream : public ByteStream {
 public:
  static constexpr int kDeadPeerSeconds = 20;

  /// Takes a connected socket (also one received over a UNIX socket) and sets all options.
  [[nodiscard]] static Result<std::unique_ptr<TcpStream>> Adopt(UniqueFd socket);

  [[nodiscard]] Result<size_t> Read(std::span<std::byte> into) override;
  [[nodiscard]] bool ShortReadsDrain() const noexcept override { return true; }
  [[nodiscard]] Result<size_t> Write(std::span<const iovec> parts) override;
  [[nodiscard]] int fd() const noexcept override { return socket_.get(); }
  void Close() noexcept override { socket_.Reset(); }

  [[nodiscard]] std::string PeerName() const;  // "address:port", for logs

 private:
  explicit TcpStream(UniqueFd socket) noexcept : socket_(std::move(socket)) {}

  UniqueFd socket_;
};

/// Resolves `host` (IPv4 and IPv6; names are looked up on a thread of their own, as the resolver knows no deadline) and
/// tries every address until one answers. kConnectionTimeout at the deadline, kConnectionLost with the last errno when
/// all refuse.
[[nodiscard]] Result<std::unique_ptr<TcpStream>> TcpConnect(const std::string& host, uint16_t port,
                                                            uint64_t deadline_ns);

class TcpListener {
 public:
  /// `host` is an address or a name, "" for all interfaces; port 0 lets the kernel choose.
  [[nodiscard]] static Result<TcpListener> Listen(const std::string& host, uint16_t port);

  /// nullptr: nobody waits. Out of descriptors: the caller that waits is told `farewell` and turned away, and the errno
  /// returned, so that a full table does not make the listener readable for ever.
  [[nodiscard]] Result<std::unique_ptr<TcpStream>> Accept(std::span<const std::byte> farewell = {});

  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  [[nodiscard]] uint16_t port() const noexcept { return port_; }
  void Close() noexcept { socket_.Reset(); }

 private:
  TcpListener(UniqueFd socket, UniqueFd reserve, uint16_t port) noexcept
      : socket_(std::move(socket)), reserve_(std::move(reserve)), port_(port) {}

  UniqueFd socket_;
  UniqueFd reserve_;  // given up for a moment to turn a caller away when descriptors have run out
  uint16_t port_;
};

}  // namespace praas::transport
