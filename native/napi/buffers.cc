#include "napi/buffers.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <utility>

namespace praas::napi {

namespace {

/// Smallest tile: sixteen call slots. Every tile costs an ArrayBuffer object (about 200 bytes) for good.
constexpr size_t kSmallestTile = 64 * 1024;
/// A payload that straddles tiles of its own size tries two sizes up before it gets a buffer of its own.
constexpr int kTileSizesTried = 3;
/// Node 20 has no larger buffers.
constexpr size_t kLargestBuffer = size_t{1} << 32;

Status NoMemory() { return Status(Code::kInternal, "the JavaScript engine could not make an ArrayBuffer"); }

}  // namespace

napi_value NewBytes(napi_env env, size_t bytes, std::span<std::byte>* out) noexcept {
  void* data = nullptr;
  napi_value buffer = nullptr;
  if (napi_create_arraybuffer(env, bytes, &data, &buffer) != napi_ok) return nullptr;
  *out = {static_cast<std::byte*>(data), bytes};
  return ViewOf(env, buffer, 0, bytes);
}

napi_value CopyBytes(napi_env env, std::span<const std::byte> bytes) noexcept {
  std::span<std::byte> out;
  napi_value array = NewBytes(env, bytes.size(), &out);
  if (array != nullptr && !bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return array;
}

napi_value ViewOf(napi_env env, napi_value array_buffer, size_t offset, size_t bytes) noexcept {
  napi_value array = nullptr;
  if (napi_create_typedarray(env, napi_uint8_array, bytes, array_buffer, offset, &array) != napi_ok) return nullptr;
  return array;
}

Result<napi_value> ExternalBuffer(napi_env env, std::span<std::byte> memory, std::function<void()> dropped) {
  if (memory.size() > kLargestBuffer) {
    return Status(Code::kPayloadTooLarge,
                  "Node has no buffers above 4 GiB; asked for " + std::to_string(memory.size()) + " bytes");
  }
  auto hold = std::make_unique<std::function<void()>>(std::move(dropped));
  napi_value buffer = nullptr;
  const napi_status status = napi_create_external_arraybuffer(
      env, memory.data(), memory.size(),
      [](napi_env, void*, void* hint) {
        const std::unique_ptr<std::function<void()>> owned(static_cast<std::function<void()>*>(hint));
        if (*owned) (*owned)();
      },
      hold.get(), &buffer);
  if (status == napi_no_external_buffers_allowed) {
    return Status(Code::kUnsupported, "this runtime forbids external ArrayBuffers, which shared memory needs");
  }
  if (status != napi_ok) return NoMemory();
  static_cast<void>(hold.release());
  return buffer;
}

void Detach(napi_env env, napi_ref array_buffer) noexcept {
  napi_value buffer = nullptr;
  if (array_buffer == nullptr || napi_get_reference_value(env, array_buffer, &buffer) != napi_ok || buffer == nullptr)
    return;
  static_cast<void>(napi_detach_arraybuffer(env, buffer));
}

Result<napi_value> MappedViews::View(std::span<const std::byte> bytes, std::span<std::byte> mapping) {
  if (bytes.empty()) {
    napi_value empty = CopyBytes(env_, {});
    if (empty == nullptr) return NoMemory();
    return empty;
  }
  const bool inside_last = bytes.data() >= last_.begin && bytes.data() + bytes.size() <= last_.begin + last_.bytes;
  if (!inside_last) {
    Result<const Tile*> tile = TileFor(bytes, mapping);
    if (!tile.ok()) return tile.status();
    if (*tile == nullptr) {
      std::byte* const begin = mapping.data() + (bytes.data() - mapping.data());
      Result<napi_value> own = ExternalBuffer(env_, {begin, bytes.size()}, {});
      if (!own.ok()) return own.status();
      napi_value view = ViewOf(env_, *own, 0, bytes.size());
      if (view == nullptr) return NoMemory();
      return view;
    }
    last_ = **tile;
  }
  napi_value buffer = nullptr;
  if (napi_get_reference_value(env_, last_.buffer, &buffer) != napi_ok) return NoMemory();
  napi_value view = ViewOf(env_, buffer, static_cast<size_t>(bytes.data() - last_.begin), bytes.size());
  if (view == nullptr) return NoMemory();
  return view;
}

napi_value MappedViews::Kept(std::span<const std::byte> input) const noexcept {
  if (input_view_ == nullptr || input.data() != input_.data() || input.size() != input_.size()) return nullptr;
  napi_value buffer = nullptr;
  napi_value view = nullptr;
  bool detached = true;  // by the function, which is not supposed to
  if (napi_get_reference_value(env_, input_tile_, &buffer) != napi_ok ||
      napi_is_detached_arraybuffer(env_, buffer, &detached) != napi_ok || detached) {
    return nullptr;
  }
  return napi_get_reference_value(env_, input_view_, &view) == napi_ok ? view : nullptr;
}

void MappedViews::Keep(std::span<const std::byte> input, napi_value view) noexcept {
  if (input.empty()) return;
  const bool again = input.data() == input_.data() && input.size() == input_.size();
  const bool in_last = input.data() >= last_.begin && input.data() < last_.begin + last_.bytes;
  DropInput();
  if (!in_last) return;
  input_ = input;
  input_tile_ = last_.buffer;
  if (again) static_cast<void>(napi_create_reference(env_, view, 1, &input_view_));
}

void MappedViews::DropInput() noexcept {
  input_ = {};
  if (input_view_ != nullptr) static_cast<void>(napi_delete_reference(env_, std::exchange(input_view_, nullptr)));
}

Result<const MappedViews::Tile*> MappedViews::TileFor(std::span<const std::byte> bytes, std::span<std::byte> mapping) {
  const size_t begin = static_cast<size_t>(bytes.data() - mapping.data());
  size_t size = std::max(kSmallestTile, std::bit_ceil(bytes.size()));
  for (int attempt = 0; attempt < kTileSizesTried; ++attempt, size *= 2) {
    const size_t tile_begin = begin & ~(size - 1);
    if (size > kLargestBuffer || begin + bytes.size() > tile_begin + size) continue;
    // Mappings are page-aligned and tiles are larger, so the low bits are free for the size class.
    std::byte* const address = mapping.data() + tile_begin;
    const uintptr_t key = reinterpret_cast<uintptr_t>(address) | static_cast<uintptr_t>(std::countr_zero(size));
    const auto found = tiles_.find(key);
    if (found != tiles_.end()) return &found->second;
    Result<Tile> made = MakeTile({address, std::min(size, mapping.size() - tile_begin)});
    if (!made.ok()) return made.status();
    return &tiles_.emplace(key, *made).first->second;
  }
  return nullptr;
}

Result<MappedViews::Tile> MappedViews::MakeTile(std::span<std::byte> memory) {
  Result<napi_value> buffer = ExternalBuffer(env_, memory, {});
  if (!buffer.ok()) return buffer.status();
  Tile tile{memory.data(), memory.size(), nullptr};
  if (napi_create_reference(env_, *buffer, 1, &tile.buffer) != napi_ok) return NoMemory();
  return tile;
}

void MappedViews::Forget(std::span<std::byte> mapping) noexcept {
  std::erase_if(tiles_, [&](const auto& entry) {
    const Tile& tile = entry.second;
    if (tile.begin < mapping.data() || tile.begin >= mapping.data() + mapping.size()) return false;
    Detach(env_, tile.buffer);
    static_cast<void>(napi_delete_reference(env_, tile.buffer));
    return true;
  });
  last_ = {};
  DropInput();
}

}  // namespace praas::napi
