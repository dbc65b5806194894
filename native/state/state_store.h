#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "publication/area.h"
#include "publication/layout.h"
#include "segment/arena.h"
#include "segment/segment.h"
#include "state/state_layout.h"

namespace praas::state {

/// For releases of locks by workers, which nobody can be asked to try again: longer than it takes until a stopped
/// holder of the internal mutex is found and killed.
inline constexpr uint64_t kReleaseNs = 10'000'000'000;

/// Typed arrays of JavaScript.
enum class ElementType : uint32_t {
  kInt8 = 1,
  kUint8 = 2,
  kUint8Clamped = 3,
  kInt16 = 4,
  kUint16 = 5,
  kInt32 = 6,
  kUint32 = 7,
  kFloat32 = 8,
  kFloat64 = 9,
  kBigInt64 = 10,
  kBigUint64 = 11,
};

struct KeyInfo {
  std::string key;
  KeyKind kind;
  uint32_t element_type;  // kArray: ElementType; 0 for values
  uint64_t bytes;
  uint64_t version;  // process-wide counter, never reused, so a deleted and recreated key has a new one
  uint64_t modified_wall_ns;
};

/// A pinned, immutable version of a value (or a live array). Stays valid and unchanged (arrays: valid) until Unpin,
/// even when the key is set anew or deleted meanwhile. Pins of a dead participant are released by the host.
struct Pinned {
  uint32_t pin;     // handle for Unpin; the same one for every pin of this process on this block
  uint64_t offset;  // within the data part
  uint64_t bytes;
  uint64_t version;
};

struct SetOptions {
  std::optional<uint64_t> if_version{};  // compare-and-set; 0 = only when the key does not exist
  /// Patch [offset, offset + size) of a copy of the current value; may extend it. Beyond its end (absent keys: beyond
  /// 0) is kStateRange: values have no holes.
  std::optional<uint64_t> offset{};
  uint64_t deadline_ns = 0;  // required
};

/// The state of a process: named values and arrays in the segment, used by host and workers alike.
///
/// A value is an immutable block; `Set` writes a new block and publishes it by one atomic store, so a reader never sees
/// a torn value and an interrupted writer leaves the old one. Index, pins and locks are guarded by one robust mutex
/// held for bounded sections: copies of more than 4 KiB, growth and waiting happen outside it, under a pin. Thread-safe
/// within a process; one instance per OS process. All waits end at the given deadline.
///
/// Any method: kNameInvalid for a name that is not 1 … 255 bytes of UTF-8 without NUL; kSegmentStuck when the mutex was
/// not had until the deadline; kStateMemory when memory for values or records ran out; kSegmentInvalid when the mutex
/// is broken.
class StateStore {
 public:
  /// `self`: participant on whose behalf pins and blocks are taken. `segment` and `arena` (number 0 of the segment,
  /// formatted or recovered) outlive the store; so does `area`, the one of the process, without which nothing can be
  /// published.
  StateStore(const segment::Segment& segment, segment::Arena& arena, uint16_t self,
             const publication::Area* area = nullptr);
  StateStore(const StateStore&) = delete;
  StateStore& operator=(const StateStore&) = delete;
  ~StateStore();

  [[nodiscard]] static Status Format(const segment::Segment& segment);  // host, at creation

  [[nodiscard]] Result<std::vector<std::byte>> Get(std::string_view key, uint64_t deadline_ns, KeyInfo* info = nullptr);
  /// Copies [offset, offset + out.size()) into `out`; returns bytes copied (less at the end of the value). kStateRange
  /// when `offset` is beyond the end.
  [[nodiscard]] Result<uint64_t> Read(std::string_view key, uint64_t offset, std::span<std::byte> out,
                                      uint64_t deadline_ns);
  [[nodiscard]] Result<KeyInfo> Stat(std::string_view key, uint64_t deadline_ns);
  [[nodiscard]] Result<Pinned> Pin(std::string_view key, uint64_t deadline_ns);
  /// Never fails and hardly waits: where the mutex is taken, the next operation of this process releases the pin.
  void Unpin(uint32_t pin);

  /// Returns the new version. kStateVersion when `if_version` does not match, kStateType when the key holds an array,
  /// kStateContended when others kept changing a value being patched until the deadline, or LimitContention.
  [[nodiscard]] Result<uint64_t> Set(std::string_view key, std::span<const std::byte> value, const SetOptions& options);
  /// Adds to the end; creates the key. In place when there is room, so room grows geometrically. Fails as Set does.
  [[nodiscard]] Result<uint64_t> Append(std::string_view key, std::span<const std::byte> value, uint64_t deadline_ns);
  /// false when there was no such key. `if_version` as in SetOptions.
  [[nodiscard]] Result<bool> Delete(std::string_view key, std::optional<uint64_t> if_version, uint64_t deadline_ns);

  /// The shared mutable array `key` of `bytes` zeroed bytes, created when absent. kStateType when the key holds a value
  /// or an array of another element type; kStateRange when it exists with another size. `bytes`: at least one element,
  /// whole elements (kArgumentInvalid). Its version changes only when it is deleted and made anew.
  [[nodiscard]] Result<Pinned> Array(std::string_view key, uint32_t element_type, uint64_t bytes, uint64_t deadline_ns);

  /// Keys that start with `prefix`, in byte order, at most `limit`, after `after`. Looks at all keys in batches between
  /// which others go on: a key that is there all the time appears exactly once, one that comes or goes meanwhile may.
  [[nodiscard]] Result<std::vector<KeyInfo>> Keys(std::string_view prefix, std::string_view after, uint32_t limit,
                                                  uint64_t deadline_ns);
  [[nodiscard]] uint32_t key_count() const noexcept;

  /// Keeps a copy of the value in the publication area from now on, for readers without this store: whatever changes
  /// the key changes the copy, or makes readers see that it is old, before it returns. By name: it stays published when
  /// it is deleted and made anew. `capacity`: values of up to so many bytes are there to be read, of larger ones that
  /// they are not; default: the present size. Rounded up to whole pages; returns what it is. Publishing again may give
  /// more, never less. kStateType for an array; kStateMemory when the area has no room, or the machine no memory;
  /// kStateContended when its block is in the hands of a participant that does not get on.
  [[nodiscard]] Result<uint64_t> Publish(std::string_view key, std::optional<uint64_t> capacity, uint64_t deadline_ns);
  /// false when it was not published. kStateContended as above.
  [[nodiscard]] Result<bool> Unpublish(std::string_view key, uint64_t deadline_ns);
  /// Where readers find it; nothing when it is not published, or a host with a smaller area had no room for it.
  [[nodiscard]] Result<std::optional<publication::Location>> Locate(std::string_view key, uint64_t deadline_ns);
  /// Makes the copy current if it is not: whoever should have done it may have died.
  [[nodiscard]] Status Renew(std::string_view key, uint64_t deadline_ns);
  [[nodiscard]] Status RenewAll(uint64_t deadline_ns);

  // Reader/writer locks (their own name space). Entries of our own, owned by (participant, owner id): pthread_rwlock
  // has no robust form, and owners are invocations and client connections, not threads. FIFO, so fair to writers.
  enum class LockMode : uint32_t { kRead = 1, kWrite = 2 };
  struct LockOwner {
    uint16_t participant;  // who is told when it is granted (kNoticeLock) and whose death releases it
    uint64_t id;           // invocation handle or connection id
  };
  struct LockTicket {
    uint32_t holder;  // handle
    bool granted;
  };
  /// Takes the lock or a place in its queue; `deadline_ns` bounds the internal mutex only. Who does not want to wait
  /// any longer calls Unlock. Not reentrant: a second Lock by the same owner queues like any other.
  [[nodiscard]] Result<LockTicket> Lock(std::string_view name, LockMode mode, LockOwner owner, uint64_t deadline_ns);
  [[nodiscard]] bool LockGranted(uint32_t holder) const noexcept;
  /// Releases a held lock or withdraws a waiting one; grants the next. kStateLockLost when the handle is none (any
  /// more).
  [[nodiscard]] Status Unlock(uint32_t holder, uint64_t deadline_ns);
  /// Everything the owner holds or waits for.
  [[nodiscard]] Status UnlockAll(LockOwner owner, uint64_t deadline_ns);
  /// `wake` is called (outside the mutex, on the thread whose operation granted) with each participant that was granted
  /// a lock; the dispatcher sets its notice and signals it. May be told for nothing. Set it before the store is shared.
  void OnGrant(std::function<void(uint16_t participant)> wake);
  /// Patches and appends of this instance give up after so long if others keep changing the value, however far their
  /// deadline is; they try at least once. Set it before the store is shared.
  void LimitContention(uint64_t limit_ns);

  /// Host: releases pins, unpublished blocks and locks of a participant that has ended, and renews what it published.
  [[nodiscard]] Status ReclaimParticipant(uint16_t participant, uint64_t deadline_ns);
  /// Host, after attaching to a dead host's segment and Arena::Recover, while nobody else uses it: makes the mutex
  /// anew, validates what is published, drops everything else: pins, locks, blocks that are no key's value. Places all
  /// publications in the host's new area; RenewAll then fills them.
  [[nodiscard]] Status RepairAfterHost(uint64_t deadline_ns);

  /// Every invariant of index, pins, locks and the blocks they name; one sentence per violation.
  [[nodiscard]] std::vector<std::string> Check();

  /// For the host's segment::StuckWatch.
  [[nodiscard]] const segment::RobustMutex& mutex() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace praas::state
