#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "napi/buffers.h"
#include "napi/loop.h"
#include "napi/setup.h"
#include "worker/runtime.h"

namespace praas::napi {

class KnownObjects;

/// `NativeWorker` of src/native/binding.ts: a worker runtime whose functions are JavaScript, served from the libuv
/// loop.
///
/// Each turn of the loop takes calls for a bounded time (longer while nothing of the application waits), then lets
/// timers and I/O run; after the hot time it announces sleep and lets the loop block on doorbell and eventfd.
class WorkerWrap final : public Napi::ObjectWrap<WorkerWrap>, private LoopClient {
 public:
  [[nodiscard]] static Napi::Function Define(Napi::Env env);
  /// attachWorker(): a promise of the wrapped worker, resolved once the host has attached it through `fd`.
  [[nodiscard]] static napi_value Attach(Napi::Env env, UniqueFd fd);

  /// The runtime, shared with the finalizers of ArrayBuffers over the segment, so that it stays mapped under them.
  struct Core {
    std::unique_ptr<worker::WorkerRuntime> runtime;
    WorkerWrap* wrap = nullptr;  // null once the wrapped object is gone
  };
  explicit WorkerWrap(const Napi::CallbackInfo& info);
  ~WorkerWrap() override;

  [[nodiscard]] static WorkerWrap* Unwrap(Napi::Object object);
  /// Before the runtime unmaps a client's window.
  void Forget(std::span<std::byte> mapping) noexcept;

 private:
  /// A waiting or held lock of this worker, by the id JavaScript knows.
  struct LockEntry {
    uint64_t handle;  // invocation
    uint32_t holder;
    uint64_t deadline_ns;
    napi_deferred deferred;  // null: granted, or given up
    bool given_up = false;   // and still to be taken back
  };
  /// The invocation inside hooks.invoke right now.
  struct Current {
    uint64_t handle = 0;
    bool active = false;
    bool settled = false;
  };

  // worker_wrap.cc
  Napi::Value Participant(const Napi::CallbackInfo& info);
  Napi::Value ProcessId(const Napi::CallbackInfo& info);
  Napi::Value Concurrency(const Napi::CallbackInfo& info);
  Napi::Value MaxContiguous(const Napi::CallbackInfo& info);
  Napi::Value DefaultTimeoutMs(const Napi::CallbackInfo& info);
  Napi::Value HandedBuffer(const Napi::CallbackInfo& info);
  Napi::Value WaitForLoad(const Napi::CallbackInfo& info);
  void Start(const Napi::CallbackInfo& info);
  void LoadFailed(const Napi::CallbackInfo& info);

  // worker_calls.cc
  Napi::Value Complete(const Napi::CallbackInfo& info);
  Napi::Value Fail(const Napi::CallbackInfo& info);
  Napi::Value Output(const Napi::CallbackInfo& info);
  Napi::Value NextChunk(const Napi::CallbackInfo& info);
  Napi::Value WriteChunk(const Napi::CallbackInfo& info);
  Napi::Value FindFunction(const Napi::CallbackInfo& info);
  Napi::Value Invoke(const Napi::CallbackInfo& info);
  Napi::Value InvokeSync(const Napi::CallbackInfo& info);
  void CancelNested(const Napi::CallbackInfo& info);
  [[nodiscard]] Result<uint64_t> PostNested(const Napi::CallbackInfo& info, uint64_t deadline_ns);

  // worker_state.cc
  Napi::Value StateGet(const Napi::CallbackInfo& info);
  Napi::Value StateView(const Napi::CallbackInfo& info);
  Napi::Value StateArray(const Napi::CallbackInfo& info);
  Napi::Value StateSet(const Napi::CallbackInfo& info);
  Napi::Value StateAppend(const Napi::CallbackInfo& info);
  Napi::Value StateRead(const Napi::CallbackInfo& info);
  Napi::Value StateDelete(const Napi::CallbackInfo& info);
  Napi::Value StateStat(const Napi::CallbackInfo& info);
  Napi::Value StatePublish(const Napi::CallbackInfo& info);
  Napi::Value StateUnpublish(const Napi::CallbackInfo& info);
  Napi::Value StateKeys(const Napi::CallbackInfo& info);
  Napi::Value Lock(const Napi::CallbackInfo& info);
  void Unlock(const Napi::CallbackInfo& info);
  void SettleLocks();
  void RejectLock(LockEntry& lock, const Status& why) noexcept;
  [[nodiscard]] uint64_t NextLockDeadline() const noexcept;
  /// Pins and locks of an invocation that has ended.
  void ReleaseHeld(uint64_t handle) noexcept;

  // LoopClient, worker_loop.cc
  void OnReady() override;
  void OnTimer() override;
  void OnBeforeWait() override;
  void OnAfterWait() override;

  /// A handler that waits for a nested call does not count, so that one worker can serve the calls it waits for.
  [[nodiscard]] bool capacity() const noexcept {
    return !drain_told_ && running_.size() < concurrency_ + waiting_.size();
  }
  /// Whatever there is to do right now; false: nothing.
  bool Step(bool look_at_nested);
  /// The same for what comes with notices, cancellations and control messages.
  bool Attend();
  void Run(const worker::Invocation& invocation);
  void CloseCurrent() noexcept;
  void Finish(uint64_t handle, napi_value returned);
  void Ended(uint64_t handle);
  void Hook(napi_ref hook, napi_value argument);
  void SettleNested(const worker::NestedReply& reply);
  void ResolveLoad();
  void StopWhenDrained();
  [[nodiscard]] bool IsRunning(uint64_t handle) const noexcept;
  void RequireRunning(uint64_t handle) const;
  [[nodiscard]] worker::WorkerRuntime& runtime() const noexcept { return *core_->runtime; }
  [[nodiscard]] Result<napi_value> MappedView(std::span<const std::byte> bytes);

  napi_env env_;
  std::shared_ptr<KnownObjects> known_;  // where this object is listed
  std::shared_ptr<Core> core_;
  std::unique_ptr<LoopWatcher> watcher_;
  MappedViews views_;
  const size_t concurrency_;

  Napi::ObjectReference hooks_;
  napi_ref invoke_hook_ = nullptr;
  napi_ref cancelled_hook_ = nullptr;
  napi_ref drain_hook_ = nullptr;
  napi_ref streams_hook_ = nullptr;
  napi_deferred load_ = nullptr;

  /// What JavaScript reads about the invocation it is called for: without arguments for each value, which cost more
  /// than the call. The layout is that of src/worker/handed.ts.
  struct Handed {
    double deadline_ms;  // CLOCK_MONOTONIC
    double function;
    double depth;
    double stream;  // 0 or 1
    uint64_t handle;
    std::array<std::byte, 4096> scratch;  // small results of invokeSync
  };
  Napi::Reference<Napi::ArrayBuffer> handed_buffer_;
  Handed* handed_ = nullptr;
  Current current_;
  std::unordered_set<uint64_t> running_;                      // asynchronous invocations
  std::unordered_map<uint64_t, std::vector<uint32_t>> pins_;  // by invocation
  std::map<uint64_t, LockEntry> locks_;                       // by id, which rises
  struct Nested {
    napi_deferred deferred;
    uint64_t parent;  // handle of the invocation that calls
  };
  std::unordered_map<uint64_t, Nested> nested_;     // by call
  std::unordered_map<uint64_t, uint32_t> waiting_;  // running invocations with nested calls in flight, and how many
  struct ArrayEntry {
    uint64_t version;
    napi_ref buffer;  // weak
  };
  std::unordered_map<std::string, ArrayEntry> arrays_;
  uint64_t next_lock_ = 1;

  uint64_t last_activity_ns_ = 0;
  bool started_ = false;
  bool asleep_ = false;
  bool drain_told_ = false;
};

}  // namespace praas::napi
