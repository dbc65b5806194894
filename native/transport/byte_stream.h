#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <span>

#include "base/result.h"

namespace praas::transport {

/// A connected, non-blocking, ordered stream of bytes: a TCP socket, or one end of a faulty in-process pair.
class ByteStream {
 public:
  virtual ~ByteStream() = default;

  /// Bytes moved (> 0), 0 when it would block. A closed or broken peer is kConnectionLost.
  [[nodiscard]] virtual Result<size_t> Read(std::span<std::byte> into) = 0;
  [[nodiscard]] virtual Result<size_t> Write(std::span<const iovec> parts) = 0;

  /// Whether a Read that gave less than was asked for has taken all there was, so that the next one need not be tried
  /// before fd() is readable again: true for sockets, where it saves a system call per message.
  [[nodiscard]] virtual bool ShortReadsDrain() const noexcept { return false; }

  /// Pollable (POLLIN / POLLOUT as on a socket).
  [[nodiscard]] virtual int fd() const noexcept = 0;
  /// Idempotent; a Read or Write after it is kConnectionClosed.
  virtual void Close() noexcept = 0;
};

}  // namespace praas::transport
