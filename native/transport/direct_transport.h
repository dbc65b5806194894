#pragma once

#include <cstdint>
#include <span>

#include "publication/published_reads.h"
#include "transport/transport.h"

namespace praas::transport {

/// A transport that takes the calls of a connection past its socket: `shm`, `verbs`. The socket stays, for everything
/// else and to see the peer's end.
class DirectTransport : public Transport {
 public:
  /// The connection saw its peer die: the next Poll hands out what was answered before and then fails every other call
  /// with `status`. Submit fails with it from now on. Memory stays mapped until Close.
  virtual void Fail(Status status) = 0;
  /// Ends it though the peer may live.
  virtual void Break(Status why) = 0;
  /// Why it ended by itself or by Break, while the peer may live: every call in flight was or will be answered with it
  /// by Poll, and the connection goes on without this transport. Ok while it works.
  [[nodiscard]] virtual const Status& broken() const noexcept = 0;

  /// Gives all free memory back to the system; for a connection that has been idle.
  virtual void Trim() = 0;
  /// Whether the call submitted last is answered, as far as one short look tells: what to do between two Polls in vain.
  [[nodiscard]] virtual bool HasAnswer() const noexcept = 0;
  /// Whether Submit copies the input of this request and it is not needed again; else it is used where it lies, or
  /// would be when the connection has to go on without this transport.
  [[nodiscard]] virtual bool Copies(const Request& request) const noexcept = 0;
  /// Whether `buffer` is of this transport.
  [[nodiscard]] virtual bool Owns(const Buffer& buffer) const noexcept = 0;
  /// Results of `function` are written straight into as many whole pages.
  virtual void ExpectResults(uint32_t function, uint64_t pages) = 0;
  /// Published values that this transport reads by itself; nullptr: none. Not after Close.
  [[nodiscard]] virtual publication::PublishedReads* published() noexcept { return nullptr; }
  /// Hands what Submit has prepared to the device now; Poll and PrepareToSleep do, too.
  virtual void Flush() = 0;
};

}  // namespace praas::transport
