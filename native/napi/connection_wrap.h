#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/connection.h"
#include "napi/client_buffers.h"
#include "napi/loop.h"
#include "napi/setup.h"
#include "protocol/state_messages.h"

namespace praas::napi {

class KnownObjects;

/// `NativeConnection` of src/native/binding.ts.
///
/// The core's sinks never run JavaScript: they make values and note what to settle, and promises and stream callbacks
/// follow when Connection::Poll has returned. So no call from JavaScript finds the core in the middle of something.
class ConnectionWrap final : public Napi::ObjectWrap<ConnectionWrap>, private LoopClient {
 public:
  [[nodiscard]] static Napi::Function Define(Napi::Env env);
  [[nodiscard]] static Napi::Object Wrap(Napi::Env env, std::unique_ptr<client::Connection> connection,
                                         uint64_t spin_ns);

  struct Construction {
    std::unique_ptr<client::Connection> connection;
    uint64_t spin_ns;
  };
  explicit ConnectionWrap(const Napi::CallbackInfo& info);
  ~ConnectionWrap() override;

  /// Hides ObjectWrap::Unwrap, so that every method refuses a `this` of another class.
  [[nodiscard]] static ConnectionWrap* Unwrap(Napi::Object object);

 private:
  /// What the reply to a call becomes in JavaScript.
  enum class Shape : uint8_t {
    kFunctionRef,
    kBytes,
    kScratch,    // kBytes, or their number when they went into Shared::scratch
    kSmall,      // kBytes, or where they lie in Shared::small
    kValue,      // {data, version}
    kReadValue,  // {data, version} or undefined
    kVersion,    // bigint
    kExisted,    // boolean
    kCapacity,   // number
    kInfo,
    kData,
    kInfos,
    kLock,  // bigint
    kNothing,
    kText,
    kLease,
  };

  struct Pending {
    napi_deferred deferred = nullptr;  // null: nobody waits any more, the memory is still pinned
    Shape shape = Shape::kNothing;
    protocol::StateOp op{};
    std::string key;  // kReadValue: what the place in the reply is of
    napi_ref input = nullptr;
    napi_ref output = nullptr;
    napi_ref result = nullptr;  // ArrayBuffer of a large result
    std::shared_ptr<ClientBuffers::Allocated> input_buffer;
    std::shared_ptr<ClientBuffers::Allocated> output_buffer;
  };
  struct Settled {
    napi_deferred deferred;
    napi_value value;
    bool resolved;
  };
  struct StreamEvent {
    uint64_t call;
    client::StreamEvent::Kind kind;
    napi_ref chunk;  // strong
    uint64_t room;
    Status status;
  };

  // connection_wrap.cc
  Napi::Value Info(const Napi::CallbackInfo& info);
  Napi::Value InFlight(const Napi::CallbackInfo& info);
  Napi::Value Scratch(const Napi::CallbackInfo& info);
  Napi::Value Small(const Napi::CallbackInfo& info);
  Napi::Value SmallTaken(const Napi::CallbackInfo& info);
  Napi::Value CalledMs(const Napi::CallbackInfo& info);
  Napi::Value Ended(const Napi::CallbackInfo& info);
  Napi::Value LastCall(const Napi::CallbackInfo& info);
  Napi::Value Allocate(const Napi::CallbackInfo& info);
  void ReleaseBuffer(const Napi::CallbackInfo& info);
  void OnLost(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);

  // connection_calls.cc
  Napi::Value Resolve(const Napi::CallbackInfo& info);
  Napi::Value ResolveSync(const Napi::CallbackInfo& info);
  Napi::Value Invoke(const Napi::CallbackInfo& info);
  Napi::Value InvokeSync(const Napi::CallbackInfo& info);
  void Cancel(const Napi::CallbackInfo& info);
  Napi::Value OpenStream(const Napi::CallbackInfo& info);
  Napi::Value SendChunk(const Napi::CallbackInfo& info);
  void Consumed(const Napi::CallbackInfo& info);

  // connection_state.cc
  Napi::Value StateGet(const Napi::CallbackInfo& info);
  Napi::Value StateSet(const Napi::CallbackInfo& info);
  Napi::Value StateAppend(const Napi::CallbackInfo& info);
  Napi::Value StateDelete(const Napi::CallbackInfo& info);
  Napi::Value StateStat(const Napi::CallbackInfo& info);
  Napi::Value StateRead(const Napi::CallbackInfo& info);
  Napi::Value StatePeek(const Napi::CallbackInfo& info);
  Napi::Value StateFetch(const Napi::CallbackInfo& info);
  Napi::Value StatePublish(const Napi::CallbackInfo& info);
  Napi::Value StateUnpublish(const Napi::CallbackInfo& info);
  Napi::Value StateKeys(const Napi::CallbackInfo& info);
  Napi::Value Lock(const Napi::CallbackInfo& info);
  Napi::Value Unlock(const Napi::CallbackInfo& info);
  Napi::Value Admin(const Napi::CallbackInfo& info);

  // connection_lease.cc
  Napi::Value Lease(const Napi::CallbackInfo& info);
  Napi::Value LeaseSync(const Napi::CallbackInfo& info);
  void OnLeaseNotice(const Napi::CallbackInfo& info);
  [[nodiscard]] uint64_t StartLease(const Napi::CallbackInfo& info);

  template <Napi::Value (ConnectionWrap::*method)(const Napi::CallbackInfo&)>
  void Bind(const Napi::CallbackInfo& info, const char* name);

  // LoopClient, connection_loop.cc
  void OnReady() override;
  void OnTimer() override;
  void OnBeforeWait() override;
  void OnAfterWait() override;

  /// Arguments of invoke and invokeSync.
  struct InvokeArguments {
    uint32_t function;
    std::span<std::byte> input;
    std::span<std::byte> output;
    uint32_t flags;
    uint64_t timeout_ns;
    uint64_t deadline_ns;
    std::shared_ptr<ClientBuffers::Allocated> output_buffer;
  };
  [[nodiscard]] InvokeArguments ReadInvoke(const Napi::CallbackInfo& info) const;
  client::Connection& Open() const;  // throws ERR_CONNECTION_CLOSED after close()
  void Pin(Pending& pending, napi_value input, std::span<const std::byte> bytes, napi_value output) const;
  void Unpin(Pending& pending) const noexcept;
  /// Registers a call that was started and returns its promise.
  [[nodiscard]] napi_value Await(uint64_t call, Pending pending);
  [[nodiscard]] napi_value StateCall(const protocol::StateRequest& request, Shape shape, uint64_t deadline_ns,
                                     napi_value data = nullptr);
  /// Blocks until `call` is answered; its value, or throws its error. `pending` says how to read the reply and keeps
  /// what is pinned should the core still use it afterwards.
  [[nodiscard]] napi_value WaitSync(uint64_t call, Pending pending);

  void OnReply(const transport::Reply& reply);
  void OnStreamEvent(const client::StreamEvent& event);
  [[nodiscard]] Result<napi_value> Decode(const Pending& pending, const transport::Reply& reply);
  [[nodiscard]] Result<napi_value> DecodeReply(const Pending& pending, const transport::Reply& reply);
  [[nodiscard]] napi_value SmallResult(const Pending& pending, std::span<const std::byte> payload);
  [[nodiscard]] napi_value ScratchResult(const Pending& pending, std::span<const std::byte> payload) const;
  [[nodiscard]] napi_value ResultBytes(const Pending& pending, std::span<const std::byte> payload) const;
  /// An ArrayBuffer for a large result that is about to arrive.
  [[nodiscard]] std::span<std::byte> ResultMemory(uint64_t call, uint64_t bytes);
  size_t Poll();
  void NoteEnd() noexcept;
  void Settle();               // settles promises; inside a CallbackScope or a JavaScript frame
  void DeliverStreamEvents();  // the same
  void DeliverLeaseNotices();  // the same; connection_lease.cc
  void ReportLost();           // the same
  /// Polls, settles, delivers, until there is nothing to do for `spin_ns`. true: there still was when its time was
  /// over.
  [[nodiscard]] bool Work(uint64_t spin_ns);
  void BecomeBusy();
  void BecomeIdle();
  void RejectAll(const Status& why);
  void Rest();
  [[nodiscard]] bool Busy() const noexcept;
  [[nodiscard]] bool Lost() const noexcept;

  napi_env env_;
  std::shared_ptr<KnownObjects> known_;  // where this object is listed
  std::shared_ptr<ConnectionCore> core_;
  ClientBuffers buffers_;
  std::unique_ptr<LoopWatcher> watcher_;
  const uint64_t spin_ns_;
  /// Memory that JavaScript reads without a call.
  struct Shared {
    std::array<std::byte, 4096> scratch;  // result of invokeSync
    /// Results of invoke with kSmallResults, from when a promise is settled until its first reaction has run.
    /// JavaScript counts what it has taken, in the order in which promises were settled.
    std::array<std::array<std::byte, 64>, 256> small;
    double called_ms;  // when invokeSync was called last, CLOCK_MONOTONIC to within kTickNs
    uint32_t taken;
    uint8_t ended;  // the connection has ended
  };
  Napi::Reference<Napi::ArrayBuffer> shared_buffer_;
  Shared* shared_ = nullptr;
  uint32_t small_given_ = 0;  // ever, modulo 2^32
  client::Connection::ReplySink reply_sink_;
  client::Connection::StreamSink stream_sink_;

  std::unordered_map<uint64_t, Pending> pending_;
  std::vector<Settled> settled_;
  std::unordered_map<uint64_t, Napi::ObjectReference> streams_;  // events object of each
  std::deque<StreamEvent> stream_events_;
  Napi::FunctionReference lost_callback_;
  std::deque<client::LeaseNotice> lease_notices_;
  Napi::FunctionReference lease_callback_;

  struct Sync {
    uint64_t call = 0;
    Pending* pending = nullptr;
    bool done = false;
    napi_value value = nullptr;
    Status status;
  } sync_;

  uint64_t last_call_ = 0;
  uint64_t last_activity_ns_ = 0;
  bool busy_ = false;  // keeps the loop and this object alive
  bool closed_ = false;
  bool lost_reported_ = false;
};

}  // namespace praas::napi
