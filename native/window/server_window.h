#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"
#include "segment/segment.h"
#include "window/layout.h"

namespace praas::window {

/// A submission as the server side believes it: copied out of the window, then validated against the window's bounds.
struct Submission {
  uint32_t call;      // window call index
  uint32_t sequence;
  bool room_given;    // true: kRoomGiven, deliver the parked result
  uint32_t parked;    // call entry named by the client; still to be checked against the call table
  uint32_t function;
  uint32_t flags;
  uint64_t deadline_ns;
  uint64_t input_offset, input_bytes;
  uint64_t output_offset, output_capacity;
};

/// Host's or a worker's mapping of one client window.
class ServerWindow {
 public:
  struct Created {
    UniqueFd memfd;            // sealed F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL
    UniqueFd submit_event;     // client → host: "needs_wake"
    UniqueFd complete_event;   // host/worker → client
  };
  /// Host: makes and formats the memory of a new client.
  [[nodiscard]] static Result<Created> Create(uint64_t window_bytes);
  [[nodiscard]] static Result<std::unique_ptr<ServerWindow>> Map(const segment::Segment& segment, uint32_t index,
                                                                 UniqueFd memfd, UniqueFd complete_event);
  ~ServerWindow();

  [[nodiscard]] uint32_t index() const noexcept;
  [[nodiscard]] bool HasSubmissions() const noexcept;
  /// Becomes the one reader of the ring. false: somebody else is.
  [[nodiscard]] bool TryConsume(uint16_t self) noexcept;
  void EndConsume(uint16_t self) noexcept;
  /// While consuming: the next submission; nullopt when the ring is empty. A malformed one is answered here (kProtocolInvalid)
  /// and skipped. `Pop` does not advance the ring head: `Taken` does, after the call entry exists, so that a consumer
  /// killed in between loses nothing (the next one finds the same submission and, by sequence, an entry for it).
  [[nodiscard]] std::optional<Submission> Peek() noexcept;
  void Taken() noexcept;
  void SetNeedsWake(bool needs_wake) noexcept;  // seq_cst

  [[nodiscard]] std::span<std::byte> Bytes(uint64_t offset, uint64_t bytes) const noexcept;  // precondition: validated
  [[nodiscard]] bool cancelled(uint32_t call) const noexcept;

  /// Writes the response and completes call `call` of `sequence` if it is still open; wakes the client when it sleeps.
  /// `message` (errors) is written to the call's output slot and becomes the result. false: somebody answered before.
  bool Complete(uint32_t call, uint32_t sequence, uint32_t status, uint64_t result_offset, uint64_t result_bytes) noexcept;
  bool CompleteError(uint32_t call, uint32_t sequence, uint32_t status, std::span<const char> message) noexcept;
  bool NeedRoom(uint32_t call, uint32_t sequence, uint32_t parked, uint64_t bytes) noexcept;
};

}  // namespace praas::window
