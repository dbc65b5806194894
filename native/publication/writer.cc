#include "publication/writer.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

#include "protocol/crc32c.h"
#include "publication/words.h"

namespace praas::publication {
namespace {

constexpr size_t kPieceBytes = 16 << 10;  // whole words

template <typename T>
T Load(T& field) noexcept {
  return std::atomic_ref<T>(field).load(std::memory_order_relaxed);
}
template <typename T>
void Store(T& field, T value, std::memory_order order = std::memory_order_relaxed) noexcept {
  std::atomic_ref<T>(field).store(value, order);
}

}  // namespace

uint32_t ChecksumOf(const Head& head, uint32_t value_crc) noexcept {
  std::array<std::byte, 3 * sizeof(uint64_t) + sizeof(uint32_t)> fields;
  std::memcpy(fields.data(), &head.id, 8);
  std::memcpy(fields.data() + 8, &head.version, 8);
  std::memcpy(fields.data() + 16, &head.bytes, 8);
  std::memcpy(fields.data() + 24, &head.flags, 4);
  return protocol::Crc32c(fields, value_crc);
}

void Writer::Open(uint64_t id) noexcept {
  Begin();
  Store(head_->magic, kMagic);
  Store(head_->flags, uint32_t{kElsewhere});
  Store(head_->id, id);
  Store(head_->latest, uint64_t{0});
  Store(head_->version, uint64_t{0});
  Store(head_->bytes, uint64_t{0});
  Store(head_->reserved, 0u);
  Store(head_->unused, uint64_t{0});
  // Stays odd: there is nothing to be read before the first Finish, or for good.
}

void Writer::Supersede(uint64_t version) noexcept { Store(head_->latest, version, std::memory_order_release); }

void Writer::Begin() noexcept {
  Store(head_->sequence, Load(head_->sequence) | 1);
  // No later store may become visible before the sequence is odd.
  std::atomic_thread_fence(std::memory_order_release);
}

void Writer::Fill(std::span<const std::byte> value) noexcept {
  filled_bytes_ = value.size();
  filled_crc_ = 0;
  // In pieces, so that what is summed up is still in the cache when it is copied.
  for (std::byte* to = value_.data(); !value.empty();) {
    const std::span<const std::byte> piece = value.first(std::min(value.size(), kPieceBytes));
    filled_crc_ = protocol::Crc32c(piece, filled_crc_);
    CopyToShared(to, piece.data(), piece.size());
    to += piece.size();
    value = value.subspan(piece.size());
  }
}

void Writer::Finish(uint64_t version, uint32_t flags) noexcept {
  Head made{};
  made.id = id();
  made.version = version;
  made.bytes = filled_bytes_;
  made.flags = flags;
  Store(head_->flags, flags);
  Store(head_->version, version);
  Store(head_->bytes, filled_bytes_);
  Store(head_->crc, ChecksumOf(made, filled_crc_));
  Store(head_->sequence, Load(head_->sequence) + 1, std::memory_order_release);
}

uint64_t Writer::id() const noexcept { return Load(head_->id); }
uint64_t Writer::latest() const noexcept { return Load(head_->latest); }
uint64_t Writer::version() const noexcept { return Load(head_->version); }
uint32_t Writer::flags() const noexcept { return Load(head_->flags); }

bool Writer::current() const noexcept { return Load(head_->sequence) % 2 == 0 && version() == latest(); }

}  // namespace praas::publication
