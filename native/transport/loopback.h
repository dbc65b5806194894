#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "transport/byte_stream.h"

namespace praas::transport {

/// What goes wrong on a loopback pair. Probabilities are per million. Everything is drawn from `seed`, one generator
/// per end and direction, so the same calls in the same order meet the same faults.
struct LoopbackFaults {
  uint64_t seed = 1;
  uint32_t split = 0;      // a read or write moves only a part of what it could
  uint32_t stall = 0;      // a read says "nothing there" although there is
  uint32_t max_delay = 0;  // bytes written become readable after 0 … max_delay steps; order is kept
  uint32_t lose_byte = 0;  // per write: one byte vanishes
  uint32_t corrupt = 0;    // per write: one bit of one byte flips
  uint64_t cut_after = 0;  // the connection breaks when this many bytes were written by both ends; 0 = never

  /// "seed=7 split=200000 …", in the form Parse takes: a failing run prints it, a repetition is given it.
  [[nodiscard]] std::string ToText() const;
  [[nodiscard]] static Result<LoopbackFaults> Parse(const std::string& text);
};

/// Two connected ByteStreams in one OS process, over a socket pair, so that both ends poll like sockets. The ends may
/// be used by different threads.
///
/// Time is a counter: delayed bytes move when Step is called, by whoever runs the experiment. Without max_delay no Step
/// is needed.
class LoopbackPair {
 public:
  [[nodiscard]] static Result<LoopbackPair> Create(const LoopbackFaults& faults);

  /// The two ends; each can be taken once.
  [[nodiscard]] std::unique_ptr<ByteStream> TakeClient() noexcept { return std::move(client_); }
  [[nodiscard]] std::unique_ptr<ByteStream> TakeServer() noexcept { return std::move(server_); }

  /// Moves the clock one step and delivers what is due. Thread-safe.
  void Step();
  /// Breaks the connection: both ends get kConnectionLost, bytes on their way vanish. Thread-safe.
  void Cut();

 private:
  class Link;
  class End;
  LoopbackPair() = default;

  std::shared_ptr<Link> link_;
  std::unique_ptr<ByteStream> client_;
  std::unique_ptr<ByteStream> server_;
};

}  // namespace praas::transport
