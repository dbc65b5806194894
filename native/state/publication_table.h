#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "state/pin_table.h"
#include "state/records.h"

namespace praas::state {

/// Which keys are published, and where in the publication area. A key is published by name: it stays so when it is
/// deleted and made anew.
///
/// All methods in a section (the caller holds StateHead::mutex) unless they say otherwise.
class PublicationTable {
 public:
  explicit PublicationTable(const Records& records) noexcept : records_(records) {}

  /// Outside a section, too; a hint. Lets operations on keys skip the search.
  [[nodiscard]] bool empty() const noexcept {
    return records_.head().publications.used.load(std::memory_order_relaxed) == 0;
  }
  [[nodiscard]] uint32_t Find(std::string_view name, uint64_t hash) const noexcept;  // kNone: not published
  [[nodiscard]] PublicationWord Where(uint32_t number) const noexcept;
  [[nodiscard]] uint32_t high() const noexcept { return records_.head().publications.high; }

  [[nodiscard]] bool HasRoom() const noexcept;
  [[nodiscard]] Status Grow() const { return records_.Grow(records_.header().publications, "publications"); }
  /// First page of `pages` in a row that no publication has, in an area of `area_pages`: the lowest, so that little of
  /// the area is ever committed.
  [[nodiscard]] std::optional<uint32_t> FindSpace(uint64_t pages, uint64_t area_pages) const;
  /// HasRoom() said there is room. Not published before its word is stored by `Move`.
  [[nodiscard]] uint32_t Add(std::string_view name, uint64_t hash) noexcept;
  void Move(uint32_t number, PublicationWord to) noexcept;
  void Remove(uint32_t number) noexcept;
  /// Never used again.
  [[nodiscard]] uint64_t NewId() noexcept { return ++records_.head().last_ticket; }

  /// Somebody copies a value into the block outside the mutex; it belongs to them.
  [[nodiscard]] bool BeingCopied(uint32_t number, const PinTable& pins) const noexcept;

  /// A new host, while nobody else uses the segment: new places in a new area, as long as there is room. Returns how
  /// many bytes of it are needed.
  [[nodiscard]] uint64_t PlaceAnew(uint64_t area_bytes) noexcept;
  void Rebuild() noexcept;
  void Check(std::vector<std::string>* violations) const;

 private:
  [[nodiscard]] bool Sound(uint32_t number) const noexcept;

  Records records_;
};

}  // namespace praas::state
