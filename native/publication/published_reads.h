#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "publication/reader.h"

namespace praas::publication {

/// Published values that somebody reads by name and alone: a client's connection, or a host's I/O thread, which does
/// not wait for the state's mutex. Where they lie is told by the state (StateStore::Locate, StateOp::kRead); what
/// cannot be read here has to be asked for again. One thread.
class PublishedReads {
 public:
  /// A mapped area, which outlives this.
  void UseArea(std::span<const std::byte> area) { area_ = area; }
  /// On another machine: a device that fetches from the host's memory, where a place has an address there.
  void UseDevice(Fetch fetch) { fetch_ = std::move(fetch); }

  /// kRead, or kAsk. `memory`: where the value shall go.
  [[nodiscard]] Outcome Read(std::string_view key, const Memory& memory);
  /// What was told about `key`; nothing: it is not published.
  void Learn(std::string_view key, const std::optional<Location>& location);
  [[nodiscard]] std::optional<Location> Find(std::string_view key) const;

  [[nodiscard]] uint64_t reads() const noexcept { return reads_; }  // that needed nobody

 private:
  struct Known {
    Location location;
    uint64_t bytes = 0;  // of the value read last
  };
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };

  [[nodiscard]] Outcome ReadAt(const Known& known, const Memory& memory) const;

  std::span<const std::byte> area_;
  Fetch fetch_;
  std::unordered_map<std::string, Known, Hash, std::equal_to<>> known_;
  uint64_t reads_ = 0;
};

}  // namespace praas::publication
