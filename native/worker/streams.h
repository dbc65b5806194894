#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "dispatch/stream_channel.h"
#include "worker/core.h"
#include "worker/running.h"

namespace praas::worker {

/// The chunks of streaming invocations, seen from the worker: it consumes the input ring and fills the output ring.
/// Everything happens under Core::mutex, because at the deadline the watchdog ends a stream that the owner may be
/// using.
class Streams {
 public:
  explicit Streams(Core& core) : core_(core) {}

  struct Chunk {
    std::span<const std::byte> bytes;
    bool end = false;
    Status status;
  };
  [[nodiscard]] std::optional<Chunk> Next(Running& record);
  [[nodiscard]] Result<bool> Write(Running& record, std::span<const std::byte> bytes);

  /// Before the call completes: frees the chunk in hand and ends the output.
  void Finish(Running& record, dispatch::StreamEnd how);
  /// Watchdog, under Core::mutex: the call has been answered at its deadline; the host frees what lies in the rings.
  void Expire(Running& record);

 private:
  [[nodiscard]] dispatch::StreamRing& RingOf(const Running& record) const noexcept;
  [[nodiscard]] Status ReleaseChunk(Running& record);
  void NotifyHost() const { core_.dispatcher->Notify(dispatch::kHostParticipant, dispatch::kNoticeStream); }

  Core& core_;
};

}  // namespace praas::worker
