#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/result.h"
#include "napi/setup.h"

/// The environment's libuv loop, as much of it as connections and workers need. loop.cc is the only file that knows
/// libuv.
namespace praas::napi {

/// What a LoopWatcher tells its owner. Called on the JS thread with no JavaScript below; the owner may destroy the
/// watcher inside any of these.
class LoopClient {
 public:
  virtual void OnReady() = 0;       // one of the watched fds has an event
  virtual void OnTimer() = 0;       // the time given to SetTimer has come
  virtual void OnBeforeWait() = 0;  // the loop is about to look for events (and to block unless KeepTurning(true))
  virtual void OnAfterWait() = 0;   // it has looked

 protected:
  ~LoopClient() = default;
};

class LoopRegistry;

/// Handles of one owner in the loop. Destroying it (also from a finalizer) closes them; the memory libuv still needs
/// until its close callbacks ran is kept aside. When the environment ends first, everything is closed then and the
/// watcher is inert from there on.
class LoopWatcher {
 public:
  static constexpr size_t kSlots = 2;

  [[nodiscard]] static Result<std::unique_ptr<LoopWatcher>> Create(std::shared_ptr<LoopRegistry> registry,
                                                                   LoopClient& client);
  ~LoopWatcher();
  LoopWatcher(const LoopWatcher&) = delete;
  LoopWatcher& operator=(const LoopWatcher&) = delete;

  /// Watches a duplicate of `fd`, so that its owner may close it at any time: the number cannot come to mean another
  /// file while libuv still has it in its tables.
  [[nodiscard]] Status Watch(size_t slot, int fd);
  /// Which events of the slot count; neither: none, at no cost. A no-op when nothing changes.
  void Listen(size_t slot, bool read, bool write) noexcept;
  void Unwatch(size_t slot) noexcept;

  /// One timer; kNoDeadline stops it. Rounded up to milliseconds. Does not keep the loop alive.
  void SetTimer(uint64_t deadline_ns) noexcept;

  /// Whether OnBeforeWait and OnAfterWait are called in each turn of the loop, and whether that keeps the loop alive.
  void EveryTurn(bool on, bool hold) noexcept;
  /// true: the loop does not block, it only looks.
  void KeepTurning(bool on) noexcept;

 private:
  friend class LoopRegistry;
  struct Handles;

  LoopWatcher(std::shared_ptr<LoopRegistry> registry, LoopClient& client) noexcept;
  void Close() noexcept;
  static void Tell(LoopWatcher* owner, void (LoopClient::*event)()) noexcept;

  std::shared_ptr<LoopRegistry> registry_;
  LoopClient& client_;
  std::unique_ptr<Handles> handles_;
  std::array<uint8_t, kSlots> events_{};
  uint64_t timer_ns_;
  bool every_turn_ = false;
  bool hold_ = false;
  bool keep_turning_ = false;
};

/// All watchers of one environment; closes them before it ends and keeps it from ending until libuv has let go of the
/// last handle (Node aborts on handles left in the loop of a worker thread).
class LoopRegistry : public std::enable_shared_from_this<LoopRegistry> {
 public:
  [[nodiscard]] static Result<std::shared_ptr<LoopRegistry>> Create(napi_env env);
  ~LoopRegistry();

 private:
  friend class LoopWatcher;
  struct State;
  LoopRegistry();
  static void OnCleanup(napi_async_cleanup_hook_handle handle, void* self);

  std::unique_ptr<State> state_;
};

/// The name of an errno as Node shows it ("ENOENT").
[[nodiscard]] std::string_view ErrnoName(int sys_errno) noexcept;

}  // namespace praas::napi
