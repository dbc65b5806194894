#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "window/handover.h"
#include "window/layout.h"
#include "window/mapping.h"
#include "window/payload_area.h"

namespace praas::window {

/// The client's side of its window: payload memory, call slots, submission, completions. Single-threaded, never blocks.
class ClientWindow {
 public:
  struct Request {
    uint32_t function = 0;
    uint16_t flags = 0;  // SubmissionFlags
    uint64_t deadline_ns = 0;
    uint64_t input_offset = 0, input_bytes = 0;
    uint64_t output_offset = 0, output_capacity = 0;
  };
  /// What the server said about a call. `need_room`: the result of `result_bytes` waits for GiveRoom or GiveUp.
  struct Completion {
    uint32_t call;
    bool need_room;
    uint32_t status;                       // Code
    uint64_t result_offset, result_bytes;  // as found: to be compared with what was asked for before they are used
  };

  /// Maps what the host handed over and checks its header.
  [[nodiscard]] static Result<std::unique_ptr<ClientWindow>> Map(Handover handover);

  // --- payload memory ---
  [[nodiscard]] PayloadArea& payload() noexcept { return payload_; }
  [[nodiscard]] uint64_t bytes() const noexcept { return mapping_.bytes(); }
  /// Precondition: inside the window.
  [[nodiscard]] std::span<std::byte> Bytes(uint64_t offset, uint64_t bytes) const noexcept;
  /// Gives free payload memory beyond `keep_bytes`, and the slots when no call is open, back to the system.
  void Trim(uint64_t keep_bytes);

  // --- calls ---
  /// A call slot, its input and output room committed. nullopt: all are in use.
  [[nodiscard]] Result<std::optional<uint32_t>> Open();
  void Submit(uint32_t call, const Request& request);
  /// After `need_room`. false: the call was answered meanwhile (its completion follows).
  bool GiveRoom(uint32_t call, uint64_t output_offset, uint64_t output_capacity);
  /// Marks this use of the call and signals the host, which tells the worker: one that waits inside the function looks
  /// at nothing.
  void Cancel(uint32_t call);
  /// Nobody waits for the call any more. Its slot and its memory stay the server's until its completion arrives; a
  /// result that waits for room is dropped by the server and answered as cancelled.
  void GiveUp(uint32_t call);
  /// The call's completion was handled: its slot may be used again.
  void Close(uint32_t call);
  [[nodiscard]] uint32_t open_calls() const noexcept { return kCalls - static_cast<uint32_t>(free_calls_.size()); }

  /// Whether something is to be collected of the call submitted last: one look at one line.
  [[nodiscard]] bool HasAnswer() const noexcept { return HasNews(watched_); }
  /// Takes every completion there is right now.
  void Collect(std::vector<Completion>& completions);

  // --- wake-ups ---
  /// Signals the host if submissions have been left unconsumed for kPatienceNs; to be called while polling in vain.
  void Tend();
  /// Before sleeping: signals the host if anything is unconsumed, then asks to be woken. false: there are completions.
  [[nodiscard]] bool PrepareToSleep();
  /// Takes back PrepareToSleep; does nothing when not asleep.
  void Awake();
  [[nodiscard]] int complete_event() const noexcept { return handover_.complete_event.get(); }

  struct Counters {
    uint64_t submissions = 0;
    uint64_t signals = 0;  // submission eventfd written
    uint64_t sleeps = 0;   // PrepareToSleep that returned true
    uint64_t commits = 0;  // fallocate calls
    uint64_t trims = 0;    // ranges given back
  };
  [[nodiscard]] Counters counters() const noexcept;

  /// How long a poller looks on before it believes that nobody polls the ring: several times what a running consumer
  /// needs (a hot round trip is below 1 µs), and about what a wake-up by the host costs.
  static constexpr uint64_t kPatienceNs = 20'000;

 private:
  struct Call {
    uint32_t sequence = 0;
    bool open = false;
    bool answered = false;  // nothing is to come: its completion was collected, or it was not submitted yet
    bool parked = false;    // need_room was reported and neither GiveRoom nor GiveUp was called
    bool given_up = false;
    bool cancelled = false;
  };
  ClientWindow(Handover handover, Mapping mapping);
  [[nodiscard]] WindowHeader& header() const noexcept;
  [[nodiscard]] SubmissionRecord* ring() const noexcept;
  [[nodiscard]] WindowCall& call(uint32_t index) const noexcept;
  [[nodiscard]] Status CommitSlots(uint32_t call);
  [[nodiscard]] bool HasRoom() noexcept;
  void Push(uint32_t call, const Request& request);
  void TakeBits() noexcept;
  void Take(uint32_t call, std::vector<Completion>& completions);
  [[nodiscard]] bool HasNews(uint32_t call) const noexcept;
  void SignalUnconsumed();
  void Signal();
  void DropParked(uint32_t call);
  [[nodiscard]] bool HasCompletions() noexcept;

  Handover handover_;
  Mapping mapping_;
  PayloadArea payload_;
  uint32_t committed_slots_ = 0;
  std::array<Call, kCalls> calls_{};
  std::vector<uint32_t> free_calls_;
  uint32_t watched_ = 0;                      // the call submitted last
  std::array<uint64_t, kCalls / 64> told_{};  // completion bits taken and not looked at
  uint32_t tail_;                             // submissions ever, modulo 2^32
  uint32_t seen_head_;                        // of the ring, some time ago
  uint32_t signalled_tail_;                   // the last signal covered the submissions before this one
  uint32_t stale_head_ = 0;
  uint64_t stale_since_ns_ = 0;  // 0: not measured
  bool asleep_ = false;
  Counters counters_;
};

}  // namespace praas::window
