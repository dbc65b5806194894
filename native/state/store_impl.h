#pragma once

#include <functional>
#include <optional>
#include <span>
#include <utility>

#include "base/clock.h"
#include "publication/area.h"
#include "publication/writer.h"
#include "state/key_index.h"
#include "state/lock_table.h"
#include "state/pin_table.h"
#include "state/publication_table.h"
#include "state/records.h"
#include "state/state_store.h"

/// What the parts of the state store share. Not for users of the store.
namespace praas::state {

struct StateStore::Impl {
  /// Holds StateHead::mutex. When it ends, participants that were granted a lock inside are told.
  class Section {
   public:
    explicit Section(Impl& impl) noexcept : impl_(&impl) {}
    Section(Section&& other) noexcept : impl_(std::exchange(other.impl_, nullptr)) {}
    Section& operator=(Section&& other) noexcept {
      if (this != &other) {
        Leave();
        impl_ = std::exchange(other.impl_, nullptr);
      }
      return *this;
    }
    ~Section() { Leave(); }
    void Leave() {
      if (impl_ != nullptr) std::exchange(impl_, nullptr)->LeaveSection();
    }

   private:
    Impl* impl_;
  };

  /// A block that this participant fills and nobody else sees yet. Freed unless published.
  class Draft {
   public:
    explicit Draft(Impl& impl) noexcept : impl_(impl) {}
    Draft(const Draft&) = delete;
    Draft& operator=(const Draft&) = delete;
    ~Draft() { Reset(); }
    /// At least `bytes`; `generous`: more when there is memory. Outside sections. What the draft held is gone.
    [[nodiscard]] Status Allocate(uint64_t bytes, uint64_t generous, uint64_t deadline_ns);
    [[nodiscard]] uint64_t capacity() const noexcept { return allocation_ ? allocation_->bytes : 0; }
    [[nodiscard]] uint32_t block() const noexcept { return allocation_->block; }
    [[nodiscard]] std::byte* data() const noexcept { return impl_.segment.base() + allocation_->offset; }
    void Published() noexcept { allocation_.reset(); }

   private:
    void Reset() noexcept;
    Impl& impl_;
    std::optional<segment::Arena::Allocation> allocation_;
  };

  /// Keeps a block while this process reads it outside sections.
  class Hold {
   public:
    Hold(Impl& impl, uint32_t pin) noexcept : impl_(impl), pin_(pin) {}
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold() {
      if (pin_ != kNone) impl_.Unpin(pin_);
    }
    [[nodiscard]] uint32_t Keep() noexcept { return std::exchange(pin_, kNone); }

   private:
    Impl& impl_;
    uint32_t pin_;
  };

  /// A key as a section found it; `number` kNone: absent.
  struct Found {
    uint32_t number = kNone;
    ValueRef ref;
    segment::Block* block = nullptr;

    [[nodiscard]] explicit operator bool() const noexcept { return number != kNone; }
    [[nodiscard]] uint64_t bytes() const noexcept { return block == nullptr ? 0 : ValueBytes(*block); }
    [[nodiscard]] uint64_t version() const noexcept { return block == nullptr ? 0 : block->value_version; }
  };

  /// A key's name, checked and hashed.
  struct Key {
    std::string_view name;
    uint64_t hash;
  };

  Impl(const segment::Segment& segment, segment::Arena& arena, uint16_t self, const publication::Area* area) noexcept;

  [[nodiscard]] StateHead& head() const noexcept { return records.head(); }

  // store_impl.cc
  [[nodiscard]] Result<Section> Enter(uint64_t deadline_ns);
  void LeaveSection();
  [[nodiscard]] Result<Key> MakeKey(std::string_view name) const;
  [[nodiscard]] Found Find(const Key& key) const noexcept;  // in a section
  /// Enters; kStateNotFound when the key is absent.
  [[nodiscard]] Result<Section> EnterExisting(const Key& key, Found* found, uint64_t deadline_ns);
  /// Enters with room for one more key record, so that Publish cannot fail for want of one.
  [[nodiscard]] Result<Section> EnterToWrite(const Key& key, Found* found, uint64_t deadline_ns);
  /// Enters and pins an existing key's block.
  struct PinnedKey {
    uint32_t pin;
    Found found;
    Pinned pinned;
    KeyInfo info;
  };
  [[nodiscard]] Result<PinnedKey> PinExisting(const Key& key, uint64_t deadline_ns);
  /// In a section made by EnterToWrite. Makes `draft` the value of the key; returns the version.
  [[nodiscard]] Result<uint64_t> Publish(const Key& key, const Found& found, Draft& draft, ValueRef ref, uint64_t bytes,
                                         uint64_t deadline_ns);
  void AfterInsertion();  // outside the section: more buckets when they are wanted
  [[nodiscard]] uint64_t NextVersion() noexcept;
  void Retire(uint32_t block);         // in a section: no key's value any more; freed unless pinned
  void FreeIfRetired(uint32_t block);  // in a section: nobody pins it any more
  void Unpin(uint32_t pin);
  /// kStateVersion unless `wanted` is the key's version; 0 wants it to be absent.
  [[nodiscard]] static Status CheckVersion(std::optional<uint64_t> wanted, const Found& found, const Key& key);
  /// kStateType unless the key holds a value, or is absent.
  [[nodiscard]] static Status CheckIsValue(const Found& found, const Key& key);
  [[nodiscard]] KeyInfo Info(const Found& found, std::string_view name) const;
  [[nodiscard]] Pinned Describe(uint32_t pin, const Found& found) const noexcept;

  // rewrite.cc
  struct Change {
    std::span<const std::byte> bytes;
    std::optional<uint64_t> offset;  // nullopt: at the end
    std::optional<uint64_t> if_version;
    uint64_t deadline_ns;
  };
  class Rewriting;
  [[nodiscard]] Result<uint64_t> Rewrite(const Key& key, const Change& change);

  // publishing.cc
  [[nodiscard]] uint32_t PublicationOf(const Key& key) const noexcept;  // in a section; kNone: not published
  [[nodiscard]] std::optional<publication::Location> LocationOf(uint32_t number) const noexcept;  // in a section
  [[nodiscard]] std::optional<publication::Writer> BlockOf(uint32_t number) const noexcept;       // in a section
  /// In a section, before the truth of a key changes to `version`.
  void Supersede(const Key& key, uint64_t version) noexcept;
  /// In the same section, after the truth has changed: publishes it, unless it takes a large copy.
  void RenewHere(const Key& key, const Found& found) noexcept;
  [[nodiscard]] bool TryRenew(uint32_t number, const Found& found) noexcept;
  /// After the section, with the size of what was written: the large copy.
  void RenewLarge(const Key& key, uint64_t bytes, uint64_t deadline_ns);
  [[nodiscard]] Status Renew(const Key& key, uint64_t deadline_ns);
  [[nodiscard]] Result<Section> EnterUncopied(const Key& key, uint64_t deadline_ns);
  struct PinnedBytes {
    uint32_t pin = kNone;
    std::span<const std::byte> bytes;
    uint64_t version = 0;
  };

  // repair.cc
  void Repair();                                                       // in a section
  [[nodiscard]] Status Sweep(bool values_only, uint64_t deadline_ns);  // in a section
  [[nodiscard]] std::vector<std::string> Check();

  const segment::Segment& segment;
  segment::Arena& arena;
  const uint16_t self;
  const publication::Area* const area;  // null: nothing can be published
  Records records;
  KeyIndex keys;
  PinTable pins;
  LockTable locks;
  PublicationTable publications;
  std::function<void(uint16_t)> wake;
  uint64_t contention_limit_ns = kNoDeadline;

  // Blocks are freed inside sections; their allocator's mutex is held for moments only, so this limit is met only when
  // its owner was stopped. The block is then swept later.
  static constexpr uint64_t kFreeLimitNs = 200'000'000;
  static constexpr uint64_t kUnpinLimitNs = 10'000'000;
};

}  // namespace praas::state
