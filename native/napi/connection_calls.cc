#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <utility>

#include "client/state_request.h"
#include "napi/args.h"
#include "napi/buffers.h"
#include "napi/connection_wrap.h"
#include "napi/errors.h"
#include "napi/shapes.h"
#include "protocol/frame.h"

namespace praas::napi {

namespace {

constexpr uintptr_t kHugePage = 2u << 20;
/// Flag of invoke, not of calls: small results may come as the place where they lie.
constexpr uint32_t kSmallResults = 1u << 16;

}  // namespace

void ConnectionWrap::Pin(Pending& pending, napi_value input, std::span<const std::byte> bytes,
                         napi_value output) const {
  if (input != nullptr && !bytes.empty()) {
    if (napi_create_reference(env_, input, 1, &pending.input) != napi_ok) pending.input = nullptr;
    pending.input_buffer = buffers_.Find(bytes);
    if (pending.input_buffer != nullptr) ++pending.input_buffer->in_use;
  }
  if (pending.output_buffer != nullptr) {
    if (napi_create_reference(env_, output, 1, &pending.output) != napi_ok) pending.output = nullptr;
    ++pending.output_buffer->in_use;
  }
}

void ConnectionWrap::Unpin(Pending& pending) const noexcept {
  for (napi_ref* reference : {&pending.input, &pending.output, &pending.result}) {
    if (*reference != nullptr) static_cast<void>(napi_delete_reference(env_, std::exchange(*reference, nullptr)));
  }
  for (auto* buffer : {&pending.input_buffer, &pending.output_buffer}) {
    if (*buffer == nullptr) continue;
    --(*buffer)->in_use;
    buffer->reset();
  }
}

napi_value ConnectionWrap::Await(uint64_t call, Pending pending) {
  napi_value promise = nullptr;
  if (napi_create_promise(env_, &pending.deferred, &promise) != napi_ok) {
    core_->connection->Cancel(call);
    pending.deferred = nullptr;
  }
  // What is pinned stays so until the core has answered, whether or not somebody waits.
  pending_.emplace(call, std::move(pending));
  BecomeBusy();
  if (promise == nullptr)
    throw ToJsError(env_, Status(Code::kInternal, "the JavaScript engine could not make a promise"));
  return promise;
}

napi_value ConnectionWrap::WaitSync(uint64_t call, Pending pending) {
  sync_ = Sync{.call = call, .pending = &pending, .done = false, .value = nullptr, .status = {}};
  core_->connection->WaitFor(call, spin_ns_, reply_sink_, stream_sink_);
  NoteEnd();
  Sync outcome = std::exchange(sync_, Sync{});
  // Calls that were answered meanwhile settle now; their callbacks run after this frame.
  Settle();
  if (!stream_events_.empty() || !lease_notices_.empty() || Lost()) BecomeBusy();
  if (!outcome.done) {
    core_->connection->Cancel(call);
    pending_.emplace(call, std::move(pending));
    BecomeBusy();
    throw ToJsError(env_, Status(Code::kInvocationTimeout, "no answer until the deadline"));
  }
  Unpin(pending);
  OrThrow(env_, outcome.status);
  return outcome.value;
}

napi_value ConnectionWrap::SmallResult(const Pending& pending, std::span<const std::byte> payload) {
  auto& small = shared_->small;
  const bool room = small_given_ - std::atomic_ref(shared_->taken).load(std::memory_order_relaxed) < small.size();
  if (payload.size() > small[0].size() || !room || buffers_.Find(payload) != nullptr) {
    return ResultBytes(pending, payload);
  }
  const uint32_t place = small_given_ % small.size();
  if (!payload.empty()) std::memcpy(small[place].data(), payload.data(), payload.size());
  napi_value where = nullptr;
  // Counted only when somebody will take it.
  if (napi_create_uint32(env_, place << 8 | static_cast<uint32_t>(payload.size()), &where) == napi_ok) ++small_given_;
  return where;
}

napi_value ConnectionWrap::ScratchResult(const Pending& pending, std::span<const std::byte> payload) const {
  if (payload.size() > shared_->scratch.size() || buffers_.Find(payload) != nullptr) {
    return ResultBytes(pending, payload);
  }
  if (!payload.empty()) std::memcpy(shared_->scratch.data(), payload.data(), payload.size());
  napi_value size = nullptr;
  static_cast<void>(napi_create_uint32(env_, static_cast<uint32_t>(payload.size()), &size));
  return size;
}

std::span<std::byte> ConnectionWrap::ResultMemory(uint64_t call, uint64_t bytes) {
  Pending* pending = sync_.call == call ? sync_.pending : nullptr;
  if (const auto found = pending_.find(call); found != pending_.end()) pending = &found->second;
  if (pending == nullptr ||
      (pending->shape != Shape::kBytes && pending->shape != Shape::kSmall && pending->shape != Shape::kScratch)) {
    return {};
  }
  void* data = nullptr;
  napi_value buffer = nullptr;
  if (napi_create_arraybuffer(env_, bytes, &data, &buffer) != napi_ok) return {};
  if (napi_create_reference(env_, buffer, 1, &pending->result) != napi_ok) return {};
  // Its pages are touched for the first time by the receiving system call, which stops for each.
  const auto begin = (reinterpret_cast<uintptr_t>(data) + kHugePage - 1) / kHugePage * kHugePage;
  const auto end = (reinterpret_cast<uintptr_t>(data) + bytes) / kHugePage * kHugePage;
  if (begin < end) static_cast<void>(::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE));
  return {static_cast<std::byte*>(data), bytes};
}

napi_value ConnectionWrap::ResultBytes(const Pending& pending, std::span<const std::byte> payload) const {
  if (pending.result != nullptr) {
    // The one result this ArrayBuffer was made for has been received into it.
    napi_value buffer = nullptr;
    if (napi_get_reference_value(env_, pending.result, &buffer) != napi_ok) return nullptr;
    return ViewOf(env_, buffer, 0, payload.size());
  }
  const std::shared_ptr<ClientBuffers::Allocated> buffer = buffers_.Find(payload);
  if (buffer != nullptr) {
    if (napi_value view = buffers_.View(*buffer, payload); view != nullptr) return view;
  }
  return CopyBytes(env_, payload);
}

Napi::Value ConnectionWrap::Resolve(const Napi::CallbackInfo& info) {
  client::Connection& connection = Open();
  const std::string name = ReadText(env_, info[0], "name");
  const uint64_t deadline_ns = ReadDeadline(env_, info[1], "timeoutMs");
  const uint64_t call = OrThrow(env_, connection.Resolve(name, deadline_ns));
  Pending pending;
  pending.shape = Shape::kFunctionRef;
  return Napi::Value(env_, Await(call, std::move(pending)));
}

Napi::Value ConnectionWrap::ResolveSync(const Napi::CallbackInfo& info) {
  client::Connection& connection = Open();
  const std::string name = ReadText(env_, info[0], "name");
  const uint64_t deadline_ns = ReadDeadline(env_, info[1], "timeoutMs");
  const uint64_t call = OrThrow(env_, connection.Resolve(name, deadline_ns));
  Pending pending;
  pending.shape = Shape::kFunctionRef;
  return Napi::Value(env_, WaitSync(call, std::move(pending)));
}

ConnectionWrap::InvokeArguments ConnectionWrap::ReadInvoke(const Napi::CallbackInfo& info) const {
  InvokeArguments arguments{
      .function = ReadUint32(env_, info[0], "fn"),
      .input = ReadBytes(env_, info[1], "input"),
      .output = {},
      .flags = ReadUint32(env_, info[3], "flags"),
      .timeout_ns = ReadDuration(env_, info[4], "timeoutMs"),
      .deadline_ns = 0,
      .output_buffer = nullptr,
  };
  arguments.deadline_ns = DeadlineIn(arguments.timeout_ns);
  if (!IsUndefined(env_, info[2])) {
    arguments.output = ReadBytes(env_, info[2], "output");
    arguments.output_buffer = buffers_.Find(arguments.output);
    if (arguments.output_buffer == nullptr) {
      throw OutOfRange(env_, "output", "at least one byte of memory from allocate() of this connection");
    }
  }
  return arguments;
}

Napi::Value ConnectionWrap::Invoke(const Napi::CallbackInfo& info) {
  client::Connection& connection = Open();
  InvokeArguments arguments = ReadInvoke(info);
  const uint64_t call = OrThrow(env_, connection.Invoke(arguments.function, arguments.input, arguments.output,
                                                        arguments.flags, arguments.deadline_ns));
  Pending pending;
  pending.shape = (arguments.flags & kSmallResults) != 0 ? Shape::kSmall : Shape::kBytes;
  pending.output_buffer = std::move(arguments.output_buffer);
  // What the core has copied already need not be kept: a reference costs more than a small copy.
  const bool read_later = connection.ReadsInput(call);
  Pin(pending, read_later ? info[1] : napi_value{nullptr}, arguments.input, info[2]);
  last_call_ = call;
  return Napi::Value(env_, Await(call, std::move(pending)));
}

Napi::Value ConnectionWrap::InvokeSync(const Napi::CallbackInfo& info) {
  client::Connection& connection = Open();
  InvokeArguments arguments = ReadInvoke(info);
  // The deadline has cost a look at the clock already.
  shared_->called_ms = static_cast<double>(arguments.deadline_ns - arguments.timeout_ns) * 1e-6;
  const uint64_t call = OrThrow(env_, connection.Invoke(arguments.function, arguments.input, arguments.output,
                                                        arguments.flags | protocol::kSync, arguments.deadline_ns));
  Pending pending;
  pending.shape = Shape::kScratch;
  // The arguments cannot be collected while this frame waits, so only the memory's use is noted.
  pending.output_buffer = std::move(arguments.output_buffer);
  if (pending.output_buffer != nullptr) ++pending.output_buffer->in_use;
  return Napi::Value(env_, WaitSync(call, std::move(pending)));
}

void ConnectionWrap::Cancel(const Napi::CallbackInfo& info) {
  Open().Cancel(ReadId(env_, info[0], "id"));
  // The answer comes through the loop.
  if (Busy()) BecomeBusy();
}

Napi::Value ConnectionWrap::OpenStream(const Napi::CallbackInfo& info) {
  client::Connection& connection = Open();
  const uint32_t function = ReadUint32(env_, info[0], "fn");
  const uint32_t flags = ReadUint32(env_, info[1], "flags");
  const uint64_t deadline_ns = ReadDeadline(env_, info[2], "timeoutMs");
  const Napi::Object events = ReadObject(env_, info[3], "events");
  for (const char* name : {"chunk", "room", "end"}) static_cast<void>(ReadFunction(events, name));
  const uint64_t call = OrThrow(env_, connection.OpenStream(function, flags, deadline_ns));
  streams_.emplace(call, Napi::Persistent(events));
  BecomeBusy();
  return Napi::BigInt::New(env_, call);
}

Napi::Value ConnectionWrap::SendChunk(const Napi::CallbackInfo& info) {
  client::Connection& connection = Open();
  const uint64_t call = ReadId(env_, info[0], "id");
  const std::span<std::byte> bytes = ReadBytes(env_, info[1], "bytes");
  const bool last = ReadFlag(env_, info[2], "last");
  const size_t taken = OrThrow(env_, connection.SendChunk(call, bytes, last));
  if (Busy()) BecomeBusy();
  return Napi::Number::New(env_, static_cast<double>(taken));
}

void ConnectionWrap::Consumed(const Napi::CallbackInfo& info) {
  client::Connection& connection = Open();
  connection.ConsumedChunk(ReadId(env_, info[0], "id"), ReadInteger(env_, info[1], "bytes", 0, kMaxSafeInteger));
  if (Busy()) BecomeBusy();
}

}  // namespace praas::napi
