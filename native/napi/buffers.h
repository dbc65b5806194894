#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <unordered_map>

#include "base/result.h"
#include "napi/setup.h"

/// Bytes for JavaScript: copies, external ArrayBuffers over memory of ours, and views on these.
namespace praas::napi {

/// A Uint8Array with bytes of its own. nullptr when the environment has no memory or is ending.
[[nodiscard]] napi_value CopyBytes(napi_env env, std::span<const std::byte> bytes) noexcept;

/// The same, uninitialised, to be filled through `out`.
[[nodiscard]] napi_value NewBytes(napi_env env, size_t bytes, std::span<std::byte>* out) noexcept;

/// A Uint8Array over [offset, offset + bytes) of an ArrayBuffer.
[[nodiscard]] napi_value ViewOf(napi_env env, napi_value array_buffer, size_t offset, size_t bytes) noexcept;

/// An ArrayBuffer that *is* `memory`. It cannot be transferred to another thread (Node sees to that); whoever unmaps
/// the memory detaches it first. `dropped` runs on the JS thread, outside garbage collection, after the last JavaScript
/// reference is gone or the buffer was detached. A runtime that forbids external buffers is kUnsupported: a silent copy
/// would break sharing.
[[nodiscard]] Result<napi_value> ExternalBuffer(napi_env env, std::span<std::byte> memory,
                                                std::function<void()> dropped);

/// Makes an ArrayBuffer and all views on it empty. A reference to one that is gone already is fine.
void Detach(napi_env env, napi_ref array_buffer) noexcept;

/// Views on mapped memory for payloads that come and go by the million: ArrayBuffers over aligned tiles of a mapping
/// are made once and kept, so that a payload costs one typed array (45 ns) instead of an external ArrayBuffer (1.4 µs
/// and pressure on the garbage collector). Tiles and not one buffer per mapping, so that a function that clones
/// `input.buffer` copies kilobytes and not a window of a gigabyte. JS thread only.
class MappedViews {
 public:
  explicit MappedViews(napi_env env) noexcept : env_(env) {}
  MappedViews(const MappedViews&) = delete;
  MappedViews& operator=(const MappedViews&) = delete;

  /// `bytes` lies inside `mapping`.
  [[nodiscard]] Result<napi_value> View(std::span<const std::byte> bytes, std::span<std::byte> mapping);
  /// Inputs, which a client with one call at a time sends through the same slot again and again: the view Keep was
  /// given for these bytes, or nullptr.
  [[nodiscard]] napi_value Kept(std::span<const std::byte> input) const noexcept;
  void Keep(std::span<const std::byte> input, napi_value view) noexcept;
  /// Before `mapping` is unmapped: every view on it becomes empty.
  void Forget(std::span<std::byte> mapping) noexcept;

 private:
  struct Tile {
    std::byte* begin = nullptr;
    size_t bytes = 0;
    napi_ref buffer = nullptr;
  };
  [[nodiscard]] Result<const Tile*> TileFor(std::span<const std::byte> bytes, std::span<std::byte> mapping);
  [[nodiscard]] Result<Tile> MakeTile(std::span<std::byte> memory);
  void DropInput() noexcept;

  napi_env env_;
  std::unordered_map<uintptr_t, Tile> tiles_;  // by address | log2 of the size class
  Tile last_;
  std::span<const std::byte> input_;  // that Keep was given last
  napi_ref input_tile_ = nullptr;     // that it lies in
  napi_ref input_view_ = nullptr;     // of it, from the second time on: a reference costs twice what a view does
};

}  // namespace praas::napi
