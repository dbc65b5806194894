#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "state/records.h"
#include "state/state_store.h"

namespace praas::state {

/// Reader/writer locks with a queue each, in order of arrival: whoever waits is granted by whoever releases, so a
/// stream of readers cannot starve a writer nor the reverse. A record exists while somebody holds or waits.
///
/// All methods in a section (the caller holds StateHead::mutex) unless they say otherwise. Participants that were
/// granted a lock are gathered in `granted()`, for the caller to tell them after the section.
class LockTable {
 public:
  using Mode = StateStore::LockMode;
  using Owner = StateStore::LockOwner;

  explicit LockTable(const Records& records) noexcept : records_(records) {}

  [[nodiscard]] bool HasRoom() const noexcept;
  [[nodiscard]] Status Grow() const;  // outside a section
  /// Enqueues; HasRoom() said there is room.
  [[nodiscard]] StateStore::LockTicket Add(std::string_view name, Mode mode, Owner owner) noexcept;
  /// Outside a section.
  [[nodiscard]] bool Granted(uint32_t handle) const noexcept;
  /// false: the handle is stale.
  [[nodiscard]] bool Remove(uint32_t handle);
  /// Removes at most `limit` of what the owner has; true when nothing is left.
  [[nodiscard]] bool RemoveOwned(Owner owner, uint32_t limit);
  /// Outside a section; a hint. Lets the end of an invocation that took no lock skip the section.
  [[nodiscard]] bool empty() const noexcept;

  /// Removes what `participant` has among records [first, first + count).
  void Reclaim(uint16_t participant, uint32_t first, uint32_t count);
  [[nodiscard]] uint32_t high() const noexcept { return records_.head().holders.high; }
  /// Adds every participant that holds a lock in records [first, first + count) to `granted()`: one that died between
  /// granting and telling leaves waiters that do not know. Telling twice is harmless.
  void TellHolders(uint32_t first, uint32_t count);

  void Clear() noexcept;  // nobody holds or waits (the participants of a dead host)
  void Rebuild();
  void Check(std::vector<std::string>* violations) const;

  [[nodiscard]] std::vector<uint16_t>& granted() noexcept { return granted_; }

 private:
  [[nodiscard]] uint32_t Find(std::string_view name, uint64_t hash) const noexcept;
  [[nodiscard]] uint32_t HolderOf(uint32_t handle) const noexcept;
  [[nodiscard]] uint32_t& OwnerBucket(uint16_t participant, uint64_t id) const noexcept;
  void Enqueue(uint32_t lock, uint32_t holder) noexcept;
  void LinkOwner(uint32_t holder) noexcept;
  void Drop(uint32_t holder);
  void GrantNext(uint32_t lock);
  void FreeIfUnused(uint32_t lock) noexcept;
  [[nodiscard]] bool MayGrant(const LockRecord& lock, uint8_t mode) const noexcept;

  Records records_;
  std::vector<uint16_t> granted_;
};

}  // namespace praas::state
