#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "window/intake.h"
#include "window/server_window.h"
#include "worker/core.h"
#include "worker/inbox.h"

namespace praas::worker {

struct MappedWindow {
  std::unique_ptr<window::ServerWindow> window;
  uint32_t generation = 0;
  uint32_t users = 0;       // running invocations that came from it
  bool adopted = false;     // this worker polls its submission ring
  bool dedicated = false;   // and nobody else ever does
  UniqueFd submit_event{};  // of a dedicated one: watched as long as it is mapped
  bool gone = false;        // the client has left; unmapped when the last user ends
};

/// Why a call of a window fails that this worker did not get.
inline constexpr std::string_view kNotMapped = "the worker that took the call could not map the window of its client";

/// The client windows this worker has mapped, and those whose submission rings it polls. Owner thread only.
///
/// A window is mapped when a call from it is first claimed, or when this worker is hot and the window has no poller.
class Windows {
 public:
  struct Hooks {
    /// Payloads are about to be unmapped, and nothing may keep a view of them.
    std::function<void(std::span<std::byte>)> unmap;
    std::function<void(const window::ServerWindow&)> gone;
    /// A dedicated window's submission eventfd is about to be closed.
    std::function<void(int fd)> unwatch;
  };
  Windows(Core& core, Inbox& inbox, Hooks hooks);
  ~Windows();

  /// The mapping of window `index`. When there is none yet, asks the host for it and waits, for a few seconds at most.
  /// nullptr: the window is gone or the host does not answer in time.
  [[nodiscard]] MappedWindow* Find(uint32_t index);
  /// Of the client whose window `index` is mapped here; 0 when there is none.
  [[nodiscard]] uint32_t GenerationOf(uint32_t index) const noexcept {
    return index < by_index_.size() && by_index_[index] != nullptr ? by_index_[index]->generation : 0;
  }
  /// A running invocation that came from `window` has been settled.
  void Leave(MappedWindow& window);

  /// Looks at the adopted rings, all mapped rings with `everywhere`; returns a call entry claimed by this worker. With
  /// `capacity` the first submission found becomes a call claimed by this worker; what else lies in that ring is
  /// posted, for it must not wait behind a running function.
  [[nodiscard]] std::optional<uint32_t> Poll(bool capacity, bool everywhere);
  /// In an adopted ring, or in any mapped one with `everywhere`.
  [[nodiscard]] bool HasSubmissions(bool everywhere) const noexcept;

  /// While hot and idle: polls every mapped window that nobody polls.
  void Adopt();
  /// Asks the host for open windows that nobody polls and that are not mapped here yet.
  void RequestUnpolled();
  /// Gives all rings back, except dedicated ones, whose clients it asks to be woken by. true: one has submissions whose
  /// client may not have seen that it should wake somebody; Poll with `everywhere` before sleeping. Those in a
  /// dedicated one count with `capacity` only.
  [[nodiscard]] bool AbandonAll(bool capacity);
  /// From here on this worker alone serves that window. `submit_event` stays open as long.
  void Dedicate(uint32_t index, uint32_t generation, std::unique_ptr<window::ServerWindow> window,
                UniqueFd submit_event);
  /// Serves dedicated windows no longer.
  void RetireDedicated();
  /// Takes over what the watchdog has received.
  void Integrate();

  /// The mapping that contains `address`, empty if none does.
  [[nodiscard]] std::span<std::byte> MappingOf(const std::byte* address) const noexcept;
  /// The window whose payloads `address` lies in; nullptr: none.
  [[nodiscard]] const window::ServerWindow* Containing(const std::byte* address) const noexcept;

 private:
  /// Rings one worker polls: more would make each poll slower than the wake-up it saves.
  static constexpr uint32_t kMaxAdopted = 64;

  [[nodiscard]] std::optional<uint32_t> Consume(MappedWindow& mapped, bool capacity);
  enum class Made { kMade, kSkipped, kFull };
  [[nodiscard]] Made Make(MappedWindow& mapped, const window::Submission& submission, bool claim,
                          std::optional<uint32_t>* taken);
  [[nodiscard]] Made MakeDelivery(MappedWindow& mapped, const window::Submission& submission, bool claim,
                                  std::optional<uint32_t>* taken);
  /// Results of that window that wait for room and have it: what a full table consists of in the end.
  void MakeDeliveries(MappedWindow& mapped, bool claim, std::optional<uint32_t>* taken);
  void Request(uint32_t index, uint32_t generation);
  void Retire(uint32_t index);
  void Unmap(MappedWindow& mapped);
  /// The mapping of the client that has slot `index` now.
  [[nodiscard]] MappedWindow* Current(uint32_t index) const noexcept;
  [[nodiscard]] bool IsCurrent(const MappedWindow& mapped) const noexcept;

  Core& core_;
  Inbox& inbox_;
  const Hooks hooks_;
  std::vector<std::unique_ptr<MappedWindow>> by_index_;
  std::vector<std::unique_ptr<MappedWindow>> retired_;  // gone, but with users
  std::vector<uint32_t> requested_;                     // by index: generation + 1 last asked for
  std::vector<MappedWindow*> mapped_;
  uint32_t adopted_ = 0;
  uint32_t dedicated_ = 0;  // mapped
  uint32_t cursor_ = 0;     // rings are looked at in turn
};

}  // namespace praas::worker
