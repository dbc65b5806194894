#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "segment/arena.h"
#include "segment/segment.h"

namespace praas::state {

enum class KeyKind : uint32_t { kValue = 1, kArray = 2 };

struct KeyInfo {
  std::string key;
  KeyKind kind;
  uint32_t element_type;    // kArray: code of the typed array (state_store.cc lists them); 0 for values
  uint64_t bytes;
  uint64_t version;         // process-wide counter, never reused, so a deleted and recreated key has a new one
  uint64_t modified_wall_ns;
};

/// A pinned, immutable version of a value (or a live array). Stays valid and unchanged (arrays: valid) until Unpin, even
/// when the key is set anew or deleted meanwhile. Pins of a dead participant are released by the host.
struct Pinned {
  uint32_t pin;     // handle for Unpin
  uint64_t offset;  // within the data part
  uint64_t bytes;
  uint64_t version;
};

struct SetOptions {
  std::optional<uint64_t> if_version;  // compare-and-set; 0 = only when the key does not exist
  std::optional<uint64_t> offset;      // patch [offset, offset + size) of a copy of the current value; may extend it
  uint64_t deadline_ns = 0;            // required
};

/// The state of a process: named values and arrays in the segment, used by host and workers alike.
///
/// A value is an immutable block; `Set` writes a new block and publishes it by one atomic store, so a reader never sees a
/// torn value and an interrupted writer leaves the old one. Index, pins and locks are guarded by one robust mutex held for
/// bounded sections: copies of more than 4 KiB, growth and waiting happen outside it, under a pin.
/// Thread-safe within a process; one instance per OS process. All waits end at the given deadline.
class StateStore {
 public:
  /// `self`: participant on whose behalf pins and blocks are taken.
  StateStore(const segment::Segment& segment, segment::Arena& arena, uint16_t self);

  [[nodiscard]] static Status Format(const segment::Segment& segment);  // host, at creation

  [[nodiscard]] Result<std::vector<std::byte>> Get(std::string_view key, uint64_t deadline_ns, KeyInfo* info = nullptr);
  /// Copies [offset, offset + out.size()) into `out`; returns bytes copied (less at the end of the value).
  [[nodiscard]] Result<uint64_t> Read(std::string_view key, uint64_t offset, std::span<std::byte> out, uint64_t deadline_ns);
  [[nodiscard]] Result<KeyInfo> Stat(std::string_view key, uint64_t deadline_ns);
  [[nodiscard]] Result<Pinned> Pin(std::string_view key, uint64_t deadline_ns);
  void Unpin(uint32_t pin);

  /// Returns the new version.
  [[nodiscard]] Result<uint64_t> Set(std::string_view key, std::span<const std::byte> value, const SetOptions& options);
  [[nodiscard]] Result<uint64_t> Append(std::string_view key, std::span<const std::byte> value, uint64_t deadline_ns);
  /// false when there was no such key. `if_version` as in SetOptions.
  [[nodiscard]] Result<bool> Delete(std::string_view key, std::optional<uint64_t> if_version, uint64_t deadline_ns);

  /// The shared mutable array `key` of `bytes` zeroed bytes, created when absent. kStateType when the key holds a value or
  /// an array of another element type; kStateRange when it exists with another size.
  [[nodiscard]] Result<Pinned> Array(std::string_view key, uint32_t element_type, uint64_t bytes, uint64_t deadline_ns);

  /// Keys that start with `prefix`, in byte order, at most `limit`, after `after`.
  [[nodiscard]] Result<std::vector<KeyInfo>> Keys(std::string_view prefix, std::string_view after, uint32_t limit,
                                                  uint64_t deadline_ns);
  [[nodiscard]] uint32_t key_count() const noexcept;

  // Reader/writer locks (their own name space). Entries of our own, owned by (participant, owner id): pthread_rwlock has no
  // robust form, and owners are invocations and client connections, not threads. FIFO, so fair to writers.
  enum class LockMode : uint32_t { kRead = 1, kWrite = 2 };
  struct LockOwner {
    uint16_t participant;  // who is told when it is granted (kNoticeLock) and whose death releases it
    uint64_t id;           // invocation handle or connection id
  };
  struct LockTicket {
    uint32_t holder;  // handle
    bool granted;
  };
  [[nodiscard]] Result<LockTicket> Lock(std::string_view name, LockMode mode, LockOwner owner, uint64_t deadline_ns);
  [[nodiscard]] bool LockGranted(uint32_t holder) const noexcept;
  /// Releases a held lock or withdraws a waiting one; grants the next. `wake` is told every participant to notify.
  [[nodiscard]] Status Unlock(uint32_t holder, uint64_t deadline_ns);
  /// Everything the owner holds or waits for.
  [[nodiscard]] Status UnlockAll(LockOwner owner, uint64_t deadline_ns);
  /// Called (outside the mutex) with each participant that was granted a lock; the dispatcher sets its notice and signals it.
  void OnGrant(std::function<void(uint16_t participant)> wake);

  /// Host: releases pins, unpublished blocks and locks of a participant that has ended.
  [[nodiscard]] Status ReclaimParticipant(uint16_t participant, uint64_t deadline_ns);
  /// Host, after attaching to a dead host's segment: everything but published state goes.
  [[nodiscard]] Status RepairAfterHost(uint64_t deadline_ns);

  /// Every invariant of index, pins, locks and the blocks they name; one sentence per violation.
  [[nodiscard]] std::vector<std::string> Check();
};

}  // namespace praas::state
