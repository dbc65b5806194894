#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "dispatch/call_entry.h"
#include "shm/mapping.h"

namespace praas::worker {

struct MappedWindow;

/// One invocation this worker has taken and its owner has not settled yet. It may outlive its call entry: when the
/// watchdog has answered at the deadline, the function still runs on, and the entry may already carry another call.
///
/// Fields without a note belong to the owner thread. The watchdog reads them only after it has won BeginCompletion for
/// `index`/`generation` (from then on the owner touches them under Core::mutex), so it never sees a record being
/// reused.
struct Running {
  enum class Output : uint8_t {
    kNone,
    kScratch,  // ≤ 4 KiB: memory of this process, copied into place at completion
    kBlock,    // a block of the pool's output arena
    kRoom,     // the room in the client's window
  };

  std::atomic<uint64_t> word{0};         // handle | RunningFlags; 0 = free. Watchdog sets flags by CAS
  std::atomic<uint64_t> deadline_ns{0};  // atomic: the watchdog reads it before it knows that the record is stable
  std::atomic<uint32_t> function{0};
  std::atomic<bool> direct{false};   // output is kRoom: the function writes where the client reads
  std::atomic<bool> borrows{false};  // the input is the client's memory, which is its own again once it has an answer

  uint32_t index = 0;
  uint32_t generation = 0;
  dispatch::Origin origin{};
  uint64_t origin_call = 0;
  MappedWindow* window = nullptr;  // origin kWindow
  dispatch::PayloadRef input;
  std::span<const std::byte> input_bytes;
  dispatch::PayloadRef room;  // origin kWindow: where the client wants the result
  uint64_t begun_ns = 0;

  Output output = Output::kNone;      // changed under Core::mutex
  dispatch::PayloadRef output_ref;    // kBlock, kRoom; under Core::mutex
  std::span<std::byte> output_bytes;  // under Core::mutex
  bool in_area = false;               // output_bytes lies in a result area, to be closed
  uint32_t input_block =
      0;  // the input's block, once the watchdog has taken it over from the answered entry; Core::mutex

  uint32_t stream = 0;         // index + 1
  dispatch::PayloadRef chunk;  // the input chunk in hand, Place::kNone if none; under Core::mutex
  bool cancellation_reported = false;
};

/// A handle is {generation:32, slot:13, 1, index:12}: it names the call entry and finds the record without a search.
/// The bit between keeps it from being 0. The flags lie above the slot and are never part of a handle.
enum RunningFlags : uint64_t {
  kAnswered = 1u << 30,  // the watchdog has answered at the deadline; what is left of the record is the function's
  kOverdue =
      1u << 31,  // the deadline has passed but the answer waits until the function is done with the client's memory
};
inline constexpr uint64_t kRunningFlags = kAnswered | kOverdue;

/// The invocations in progress. The owner thread begins and ends them; the watchdog looks through them.
class RunningTable {
 public:
  /// `calls`: entries in the call table. A worker can hold all of them, and as many again that overrun their deadline.
  [[nodiscard]] static Result<std::unique_ptr<RunningTable>> Make(uint32_t calls);

  [[nodiscard]] static uint32_t Index(uint64_t handle) noexcept { return handle & 0xfff; }
  /// Of the record; different for all that run at a time.
  [[nodiscard]] static uint32_t Slot(uint64_t handle) noexcept { return handle >> 13 & 0x1fff; }
  [[nodiscard]] static uint32_t Generation(uint64_t handle) noexcept { return static_cast<uint32_t>(handle >> 32); }

  // --- owner ---
  /// A record to fill; nullptr when all are taken.
  [[nodiscard]] Running* Reserve();
  /// Gives a record back that was not published.
  void Abandon(Running& record) { free_.push_back(static_cast<uint16_t>(SlotOf(record))); }
  /// Publishes it for the watchdog and names it.
  uint64_t Publish(Running& record) noexcept;
  /// The record is settled.
  void End(Running& record) noexcept;
  /// nullptr when there is no such invocation (any more).
  [[nodiscard]] Running* Find(uint64_t handle) noexcept;
  /// 4 KiB that belong to the record, for its output, and as many for its input.
  [[nodiscard]] std::span<std::byte> Scratch(const Running& record) noexcept;
  [[nodiscard]] std::span<std::byte> InputScratch(const Running& record) noexcept;
  [[nodiscard]] std::span<std::byte> scratch_mapping() const noexcept;
  [[nodiscard]] uint32_t count() const noexcept { return count_; }

  // --- any thread ---
  /// Every published record. It may end or be reused meanwhile; read `word` first and again.
  template <typename Visit>
  void ForEach(Visit visit) {
    for (uint32_t group = 0; group < kGroups; ++group) {
      uint64_t bits = bits_[group].load(std::memory_order_seq_cst);
      while (bits != 0) {
        const auto bit = static_cast<uint32_t>(__builtin_ctzll(bits));
        bits &= bits - 1;
        visit((*groups_[group])[bit]);
      }
    }
  }

 private:
  static constexpr uint32_t kGroups = 2 * dispatch::kMaxCalls / 64;
  using Group = std::array<Running, 64>;

  explicit RunningTable(shm::Mapping scratch, uint32_t slots) : scratch_(std::move(scratch)), slots_(slots) {}
  [[nodiscard]] uint32_t SlotOf(const Running& record) const noexcept;

  std::array<std::atomic<uint64_t>, kGroups> bits_{};
  std::array<std::unique_ptr<Group>, kGroups> groups_;  // made when first needed, before a bit of theirs is set
  std::vector<uint16_t> free_;
  shm::Mapping scratch_;
  uint32_t slots_;
  uint32_t made_ = 0;  // groups
  uint32_t count_ = 0;
};

}  // namespace praas::worker
