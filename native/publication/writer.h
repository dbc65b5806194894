#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "publication/layout.h"

namespace praas::publication {

/// Writes one block. Everything but Fill happens under the state's mutex; Fill belongs to whoever has begun and not
/// finished, which the state makes one at a time. Killed at any instruction, a writer leaves a block that no reader
/// believes.
class Writer {
 public:
  /// `block`: head and value, in committed memory.
  explicit Writer(std::span<std::byte> block) noexcept
      : head_(reinterpret_cast<Head*>(block.data())), value_(block.subspan(kHeadBytes)) {}

  [[nodiscard]] uint64_t capacity() const noexcept { return value_.size(); }

  /// Makes the block that of publication `id`, with nothing in it yet.
  void Open(uint64_t id) noexcept;
  /// No publication's any more; readers that know the place look for another.
  void Close() noexcept { Open(0); }

  /// Before the truth changes to `version`: what lies here is not the value from now on.
  void Supersede(uint64_t version) noexcept;

  void Begin() noexcept;
  /// At most capacity() bytes.
  void Fill(std::span<const std::byte> value) noexcept;
  /// Ends what Begin began: what was filled in is the value of `version`, or there is none to be had here.
  void Finish(uint64_t version) noexcept { Finish(version, 0); }
  void FinishWithout(uint64_t version, Flags why) noexcept {
    filled_bytes_ = 0;
    filled_crc_ = 0;
    Finish(version, why);
  }

  [[nodiscard]] uint64_t id() const noexcept;
  [[nodiscard]] uint64_t latest() const noexcept;
  [[nodiscard]] uint64_t version() const noexcept;
  [[nodiscard]] uint32_t flags() const noexcept;
  /// Whole, and what the truth was when it was last superseded.
  [[nodiscard]] bool current() const noexcept;

 private:
  void Finish(uint64_t version, uint32_t flags) noexcept;

  Head* head_;
  std::span<std::byte> value_;
  uint64_t filled_bytes_ = 0;
  uint32_t filled_crc_ = 0;
};

}  // namespace praas::publication
