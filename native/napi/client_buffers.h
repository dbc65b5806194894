#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <span>

#include "base/result.h"
#include "client/connection.h"
#include "napi/setup.h"
#include "transport/transport.h"

namespace praas::napi {

/// A connection and the memory JavaScript got from it. Shared by the wrapped object and by every ArrayBuffer over its
/// memory, so that the mapping outlives them all.
struct ConnectionCore {
  explicit ConnectionCore(std::unique_ptr<client::Connection> taken) noexcept : connection(std::move(taken)) {}
  std::unique_ptr<client::Connection> connection;
  bool closed = false;
};

/// The buffers of `allocate`: which memory, which ArrayBuffer, how many calls use it right now. JS thread only.
class ClientBuffers {
 public:
  struct Allocated {
    transport::Buffer buffer;
    napi_ref array_buffer = nullptr;  // weak
    uint32_t in_use = 0;              // calls in flight that read or write it
    bool released = false;
  };

  ClientBuffers(napi_env env, std::shared_ptr<ConnectionCore> core);
  ClientBuffers(const ClientBuffers&) = delete;
  ClientBuffers& operator=(const ClientBuffers&) = delete;

  /// A Uint8Array over new memory. Dropped by JavaScript without Release, it goes back by itself.
  [[nodiscard]] Result<napi_value> Allocate(uint64_t bytes);
  /// `begin`: where the Uint8Array given back begins.
  [[nodiscard]] Status Release(const std::byte* begin);
  /// The buffer that holds all of `bytes`, if one does.
  [[nodiscard]] std::shared_ptr<Allocated> Find(std::span<const std::byte> bytes) const;
  /// A Uint8Array over `bytes`, which lie in `buffer`; nullptr when its ArrayBuffer is gone.
  [[nodiscard]] napi_value View(const Allocated& buffer, std::span<const std::byte> bytes) const noexcept;
  /// Before the connection is closed: all views become empty.
  void DetachAll() noexcept;

 private:
  using Map = std::map<const std::byte*, std::shared_ptr<Allocated>>;
  static void GiveBack(napi_env env, ConnectionCore& core, Map& buffers, Allocated& allocated) noexcept;

  napi_env env_;
  std::shared_ptr<ConnectionCore> core_;
  std::shared_ptr<Map> buffers_;  // by first byte; shared with the finalizers of the ArrayBuffers
};

}  // namespace praas::napi
