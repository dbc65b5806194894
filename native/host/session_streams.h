#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "dispatch/stream_channel.h"
#include "host/calls.h"
#include "host/event_loop.h"
#include "host/process.h"
#include "protocol/frame_reader.h"

namespace praas::host {

class Session;
class StateService;

/// The process's stream rings, one per streaming call in progress. I/O thread.
class StreamRings {
 public:
  StreamRings(Process& process, StateService& service) : process_(process), service_(service) {}

  /// nullopt: all are in use, or there is no memory for another.
  [[nodiscard]] std::optional<uint32_t> TryTake();
  void Release(uint32_t ring);
  [[nodiscard]] bool HasRoom() const noexcept;
  [[nodiscard]] dispatch::StreamRing& At(uint32_t ring) const noexcept;
  /// Frees every pool block of call `index`, then `done`.
  void ReclaimBlocks(uint32_t index, std::function<void()> done);

 private:
  Process& process_;
  StateService& service_;
};

/// The streaming calls of one session: chunks from frames to the worker's ring and back, within the credit each side
/// gave.
///
/// Memory per stream is bounded: the client may send kInitialStreamCredit bytes ahead of the worker (in pool blocks,
/// and in memory of the host when the ring has no position free), the worker fills at most its ring.
class SessionStreams {
 public:
  SessionStreams(EventLoop& loop, Process& process, Calls& calls, StreamRings& rings, Session& session);
  ~SessionStreams();

  [[nodiscard]] bool HasRoom() const noexcept { return rings_.HasRoom(); }
  /// Makes a reserved entry the call `call` of this session with a ring. false: no ring.
  [[nodiscard]] bool Open(uint32_t index, uint64_t call);

  [[nodiscard]] Result<protocol::Placement> OnDataHeader(const protocol::Frame& frame);
  [[nodiscard]] Status OnData(const protocol::Frame& frame);
  [[nodiscard]] Status OnCredit(const protocol::Frame& frame);

  /// Entry `index` is done: false when it is none of these streams. Otherwise it is answered once its chunks are sent,
  /// and freed after that.
  [[nodiscard]] bool Completed(uint32_t index);
  void Cancelled(uint64_t call);
  void Abort();  // the session closes

  void Pump();        // the workers have given back positions or published chunks
  void PumpOutput();  // the session's queue has become shorter

 private:
  struct Stream;

  void PumpInput(Stream& stream);
  void PumpOutput(Stream& stream);
  void Sent(uint64_t call, const dispatch::PayloadRef& ref);
  void ReleaseSent(Stream& stream);
  void Finish(uint64_t call);
  void Notify(const Stream& stream);
  void RetryLater();

  EventLoop& loop_;
  Process& process_;
  Calls& calls_;
  StreamRings& rings_;
  Session& session_;
  std::map<uint64_t, std::unique_ptr<Stream>> streams_;  // by call
  EventLoop::TimerId retry_timer_{};

  // The chunk being received.
  uint64_t receiving_call_ = 0;  // 0 = none
  std::optional<dispatch::ChunkProducer::Prepared> receiving_block_;
  std::vector<std::byte> receiving_bytes_;
};

}  // namespace praas::host
