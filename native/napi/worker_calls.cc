#include <cstring>
#include <utility>

#include "napi/args.h"
#include "napi/errors.h"
#include "napi/shapes.h"
#include "napi/worker_wrap.h"

namespace praas::napi {

Napi::Value WorkerWrap::Complete(const Napi::CallbackInfo& info) {
  const uint64_t handle = ReadId(env_, info[0], "handle");
  std::span<const std::byte> result;
  if (!IsUndefined(env_, info[1])) result = ReadBytes(env_, info[1], "result");
  RequireRunning(handle);
  const bool accepted = runtime().Complete(handle, result).ok();
  Ended(handle);
  return Napi::Boolean::New(env_, accepted);
}

Napi::Value WorkerWrap::Fail(const Napi::CallbackInfo& info) {
  const uint64_t handle = ReadId(env_, info[0], "handle");
  const Code code = CodeFromName(ReadText(env_, info[1], "code"));
  const std::string message = ReadText(env_, info[2], "message");
  RequireRunning(handle);
  const bool accepted = runtime().Fail(handle, code, message).ok();
  Ended(handle);
  return Napi::Boolean::New(env_, accepted);
}

Napi::Value WorkerWrap::Output(const Napi::CallbackInfo& info) {
  const uint64_t handle = ReadId(env_, info[0], "handle");
  const uint64_t bytes = ReadInteger(env_, info[1], "bytes", 0, kMaxSafeInteger);
  RequireRunning(handle);
  const worker::Output output = OrThrow(env_, runtime().AllocateOutput(handle, bytes));
  return {env_, OrThrow(env_, MappedView(output.bytes))};
}

Napi::Value WorkerWrap::NextChunk(const Napi::CallbackInfo& info) {
  const uint64_t handle = ReadId(env_, info[0], "handle");
  RequireRunning(handle);
  const std::optional<worker::WorkerRuntime::Chunk> chunk = runtime().NextChunk(handle);
  if (!chunk) return Napi::Env(env_).Undefined();
  OrThrow(env_, chunk->status);
  if (chunk->end && chunk->bytes.empty()) return Napi::Env(env_).Null();
  return {env_, OrThrow(env_, MappedView(chunk->bytes))};
}

Napi::Value WorkerWrap::WriteChunk(const Napi::CallbackInfo& info) {
  const uint64_t handle = ReadId(env_, info[0], "handle");
  const std::span<std::byte> bytes = ReadBytes(env_, info[1], "bytes");
  RequireRunning(handle);
  return Napi::Boolean::New(env_, OrThrow(env_, runtime().WriteChunk(handle, bytes)));
}

Napi::Value WorkerWrap::FindFunction(const Napi::CallbackInfo& info) {
  const std::optional<uint32_t> function = runtime().FindFunction(ReadText(env_, info[0], "name"));
  if (!function) return Napi::Env(env_).Undefined();
  return Napi::Number::New(env_, *function);
}

Result<uint64_t> WorkerWrap::PostNested(const Napi::CallbackInfo& info, uint64_t deadline_ns) {
  const uint32_t function = ReadUint32(env_, info[0], "fn");
  const std::span<std::byte> input = ReadBytes(env_, info[1], "input");
  const uint32_t flags = ReadUint32(env_, info[2], "flags", UINT16_MAX);
  const auto depth = static_cast<uint16_t>(ReadUint32(env_, info[3], "depth", UINT16_MAX));
  return runtime().Post(function, input, flags, depth, deadline_ns);
}

Napi::Value WorkerWrap::Invoke(const Napi::CallbackInfo& info) {
  const uint64_t parent = ReadId(env_, info[5], "parent");
  RequireRunning(parent);
  const uint64_t call = OrThrow(env_, PostNested(info, ReadMonotonic(env_, info[4], "deadlineMs")));
  napi_deferred deferred = nullptr;
  napi_value promise = nullptr;
  if (napi_create_promise(env_, &deferred, &promise) != napi_ok) {
    runtime().FreeNested(call);
    throw ToJsError(env_, Status(Code::kInternal, "the JavaScript engine could not make a promise"));
  }
  nested_.emplace(call, Nested{deferred, parent});
  ++waiting_[parent];
  return CallObject(env_, call, promise);
}

Napi::Value WorkerWrap::InvokeSync(const Napi::CallbackInfo& info) {
  const uint64_t deadline_ns = ReadMonotonic(env_, info[4], "deadlineMs");
  const uint64_t call = OrThrow(env_, PostNested(info, deadline_ns));
  const Result<worker::NestedReply> reply = runtime().WaitNested(call, deadline_ns);
  napi_value bytes = nullptr;
  Status status = reply.ok() ? reply->status : reply.status();
  if (status.ok() && reply->payload.size() <= handed_->scratch.size()) {
    if (!reply->payload.empty()) std::memcpy(handed_->scratch.data(), reply->payload.data(), reply->payload.size());
    bytes = Napi::Number::New(env_, static_cast<double>(reply->payload.size()));
  } else if (status.ok()) {
    bytes = CopyBytes(env_, reply->payload);
    if (bytes == nullptr) status = Status(Code::kInternal, "the JavaScript engine could not make the result");
  }
  runtime().FreeNested(call);
  OrThrow(env_, status);
  return {env_, bytes};
}

void WorkerWrap::CancelNested(const Napi::CallbackInfo& info) { runtime().CancelNested(ReadId(env_, info[0], "id")); }

}  // namespace praas::napi
