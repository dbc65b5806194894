#include <utility>

#include "client/state_request.h"
#include "napi/args.h"
#include "napi/buffers.h"
#include "napi/connection_wrap.h"
#include "napi/errors.h"
#include "napi/shapes.h"
#include "protocol/lease_messages.h"

namespace praas::napi {

using protocol::StateOp;
using protocol::StateRequest;

namespace {

StateRequest RequestFor(StateOp op, std::string key) {
  StateRequest request;
  request.op = op;
  request.key = std::move(key);
  return request;
}

Napi::Object InfoObject(Napi::Env env, const protocol::KeyInfo& info) {
  return KeyInfoObject(env, info.key, info.kind, info.element_type, info.bytes, info.version, info.modified_wall_ns);
}

/// NativeLeaseReply.
Napi::Object LeaseReplyObject(Napi::Env env, const protocol::LeaseReply& reply) {
  Napi::Array pids = Napi::Array::New(env, reply.pids.size());
  for (uint32_t index = 0; index < reply.pids.size(); ++index) pids.Set(index, static_cast<double>(reply.pids[index]));
  Napi::Object object = Napi::Object::New(env);
  object.Set("lease", Napi::BigInt::New(env, reply.lease));
  object.Set("key", reply.key);
  object.Set("ttlMs", static_cast<double>(reply.ttl_ms));
  object.Set("pids", pids);
  object.Set("text", reply.text);
  return object;
}

}  // namespace

Result<napi_value> ConnectionWrap::Decode(const Pending& pending, const transport::Reply& reply) {
  try {
    return DecodeReply(pending, reply);
  } catch (const Napi::Error& error) {
    // The core is on the stack and knows no exceptions.
    return Status(Code::kInternal, "the result could not be made: " + error.Message());
  }
}

Result<napi_value> ConnectionWrap::DecodeReply(const Pending& pending, const transport::Reply& reply) {
  const Napi::Env env(env_);
  const auto made = [](napi_value value) -> Result<napi_value> {
    if (value == nullptr) return Status(Code::kInternal, "the JavaScript engine could not make the result");
    return value;
  };
  if (!reply.status.ok()) return reply.status;
  switch (pending.shape) {
    case Shape::kBytes:
      return made(ResultBytes(pending, reply.payload));
    case Shape::kSmall:
      return made(SmallResult(pending, reply.payload));
    case Shape::kScratch:
      return made(ScratchResult(pending, reply.payload));
    case Shape::kFunctionRef: {
      Result<client::FunctionRef> function = client::DecodeFunctionRef(reply);
      if (!function.ok()) return function.status();
      Napi::Object object = Napi::Object::New(env);
      object.Set("index", static_cast<double>(function->index));
      object.Set("flags", static_cast<double>(function->flags));
      return made(object);
    }
    case Shape::kText: {
      Result<std::string> text = client::DecodeAdminReply(reply);
      if (!text.ok()) return text.status();
      return made(Napi::String::New(env, *text));
    }
    case Shape::kLease: {
      Result<protocol::LeaseReply> lease = protocol::DecodeLeaseReply(reply.payload);
      if (!lease.ok()) return lease.status();
      return made(LeaseReplyObject(env, *lease));
    }
    default:
      break;
  }
  Result<protocol::StateReply> state = client::DecodeStateReply(pending.op, reply);
  if (!state.ok()) return state.status();
  const bool needs_info = pending.shape == Shape::kValue || pending.shape == Shape::kInfo;
  if (needs_info && state->infos.empty())
    return Status(Code::kProtocolInvalid, "state reply without the key's description");
  switch (pending.shape) {
    case Shape::kValue: {
      napi_value data = CopyBytes(env_, state->data);
      if (data == nullptr) return made(nullptr);
      return made(ValueObject(env, data, state->infos.front().version));
    }
    case Shape::kReadValue: {
      if (auto* published = core_->connection->published()) published->Learn(pending.key, state->place);
      if (!state->existed) return made(env.Undefined());
      napi_value data = CopyBytes(env_, state->data);
      if (data == nullptr) return made(nullptr);
      return made(ValueObject(env, data, state->version));
    }
    case Shape::kCapacity:
      return made(Napi::Number::New(env, static_cast<double>(state->capacity)));
    case Shape::kVersion:
      return made(Napi::BigInt::New(env, state->version));
    case Shape::kExisted:
      return made(Napi::Boolean::New(env, state->existed));
    case Shape::kInfo:
      return made(InfoObject(env, state->infos.front()));
    case Shape::kData:
      return made(CopyBytes(env_, state->data));
    case Shape::kInfos: {
      Napi::Array infos = Napi::Array::New(env, state->infos.size());
      for (uint32_t index = 0; index < state->infos.size(); ++index)
        infos.Set(index, InfoObject(env, state->infos[index]));
      return made(infos);
    }
    case Shape::kLock:
      return made(Napi::BigInt::New(env, state->lock));
    default:
      return made(env.Undefined());
  }
}

napi_value ConnectionWrap::StateCall(const StateRequest& request, Shape shape, uint64_t deadline_ns, napi_value data) {
  const uint64_t call = OrThrow(env_, client::SubmitState(Open(), request, deadline_ns));
  Pending pending;
  pending.shape = shape;
  pending.op = request.op;
  Pin(pending, data, request.data, nullptr);
  return Await(call, std::move(pending));
}

Napi::Value ConnectionWrap::StateGet(const Napi::CallbackInfo& info) {
  Open();
  const StateRequest request = RequestFor(StateOp::kGet, ReadText(env_, info[0], "key"));
  return {env_, StateCall(request, Shape::kValue, ReadDeadline(env_, info[1], "timeoutMs"))};
}

Napi::Value ConnectionWrap::StateSet(const Napi::CallbackInfo& info) {
  Open();
  StateRequest request = RequestFor(StateOp::kSet, ReadText(env_, info[0], "key"));
  request.data = ReadBytes(env_, info[1], "data");
  const Napi::Object options = ReadObject(env_, info[2], "options");
  request.version = ReadOptionalId(env_, options.Get("ifVersion"), "ifVersion");
  const Napi::Value offset = options.Get("offset");
  if (!offset.IsUndefined()) request.offset = ReadInteger(env_, offset, "offset", 0, kMaxSafeInteger);
  const uint64_t deadline_ns = ReadDeadline(env_, options.Get("timeoutMs"), "timeoutMs");
  return {env_, StateCall(request, Shape::kVersion, deadline_ns, info[1])};
}

Napi::Value ConnectionWrap::StateAppend(const Napi::CallbackInfo& info) {
  Open();
  StateRequest request = RequestFor(StateOp::kAppend, ReadText(env_, info[0], "key"));
  request.data = ReadBytes(env_, info[1], "data");
  return {env_, StateCall(request, Shape::kVersion, ReadDeadline(env_, info[2], "timeoutMs"), info[1])};
}

Napi::Value ConnectionWrap::StateDelete(const Napi::CallbackInfo& info) {
  Open();
  StateRequest request = RequestFor(StateOp::kDelete, ReadText(env_, info[0], "key"));
  request.version = ReadOptionalId(env_, info[1], "ifVersion");
  return {env_, StateCall(request, Shape::kExisted, ReadDeadline(env_, info[2], "timeoutMs"))};
}

Napi::Value ConnectionWrap::StateStat(const Napi::CallbackInfo& info) {
  Open();
  const StateRequest request = RequestFor(StateOp::kStat, ReadText(env_, info[0], "key"));
  return {env_, StateCall(request, Shape::kInfo, ReadDeadline(env_, info[1], "timeoutMs"))};
}

Napi::Value ConnectionWrap::StateRead(const Napi::CallbackInfo& info) {
  Open();
  StateRequest request = RequestFor(StateOp::kGet, ReadText(env_, info[0], "key"));
  request.offset = ReadInteger(env_, info[1], "offset", 0, kMaxSafeInteger);
  request.length = ReadInteger(env_, info[2], "length", 0, kMaxSafeInteger);
  return {env_, StateCall(request, Shape::kData, ReadDeadline(env_, info[3], "timeoutMs"))};
}

/// undefined: the host has to be asked; null: there is no such key.
Napi::Value ConnectionWrap::StatePeek(const Napi::CallbackInfo& info) {
  const std::string key = ReadText(env_, info[0], "key");
  napi_value data = nullptr;
  publication::PublishedReads* const published = Open().published();
  if (published == nullptr) return Napi::Env(env_).Undefined();
  const publication::Outcome found = published->Read(key, [&](uint64_t bytes) {
    std::span<std::byte> memory;
    data = NewBytes(env_, bytes, &memory);
    return memory;
  });
  if (found.verdict != publication::Verdict::kRead) return Napi::Env(env_).Undefined();
  if (found.absent) return Napi::Env(env_).Null();
  if (data == nullptr) return Napi::Env(env_).Undefined();
  return ValueObject(env_, data, found.version);
}

Napi::Value ConnectionWrap::StateFetch(const Napi::CallbackInfo& info) {
  Open();
  const StateRequest request = RequestFor(StateOp::kRead, ReadText(env_, info[0], "key"));
  const uint64_t deadline_ns = ReadDeadline(env_, info[1], "timeoutMs");
  const uint64_t call = OrThrow(env_, client::SubmitState(Open(), request, deadline_ns));
  Pending pending;
  pending.shape = Shape::kReadValue;
  pending.op = request.op;
  pending.key = request.key;
  return {env_, Await(call, std::move(pending))};
}

Napi::Value ConnectionWrap::StatePublish(const Napi::CallbackInfo& info) {
  Open();
  StateRequest request = RequestFor(StateOp::kPublish, ReadText(env_, info[0], "key"));
  if (!info[1].IsUndefined()) request.capacity = ReadInteger(env_, info[1], "capacity", 0, kMaxSafeInteger);
  return {env_, StateCall(request, Shape::kCapacity, ReadDeadline(env_, info[2], "timeoutMs"))};
}

Napi::Value ConnectionWrap::StateUnpublish(const Napi::CallbackInfo& info) {
  Open();
  const StateRequest request = RequestFor(StateOp::kUnpublish, ReadText(env_, info[0], "key"));
  return {env_, StateCall(request, Shape::kExisted, ReadDeadline(env_, info[1], "timeoutMs"))};
}

Napi::Value ConnectionWrap::StateKeys(const Napi::CallbackInfo& info) {
  Open();
  StateRequest request = RequestFor(StateOp::kKeys, {});
  request.prefix = ReadText(env_, info[0], "prefix");
  request.after = ReadText(env_, info[1], "after");
  request.limit = ReadUint32(env_, info[2], "limit");
  return {env_, StateCall(request, Shape::kInfos, ReadDeadline(env_, info[3], "timeoutMs"))};
}

Napi::Value ConnectionWrap::Lock(const Napi::CallbackInfo& info) {
  Open();
  StateRequest request = RequestFor(StateOp::kLock, ReadText(env_, info[0], "name"));
  request.mode = ReadLockMode(env_, info[1], "mode") ? protocol::LockMode::kWrite : protocol::LockMode::kRead;
  const uint64_t deadline_ns = ReadDeadline(env_, info[2], "timeoutMs");
  const uint64_t call = OrThrow(env_, client::SubmitState(Open(), request, deadline_ns));
  Pending pending;
  pending.shape = Shape::kLock;
  pending.op = StateOp::kLock;
  return CallObject(env_, call, Await(call, std::move(pending)));
}

Napi::Value ConnectionWrap::Unlock(const Napi::CallbackInfo& info) {
  Open();
  StateRequest request = RequestFor(StateOp::kUnlock, {});
  request.lock = ReadId(env_, info[0], "lock");
  return {env_, StateCall(request, Shape::kNothing, ReadDeadline(env_, info[1], "timeoutMs"))};
}

Napi::Value ConnectionWrap::Admin(const Napi::CallbackInfo& info) {
  client::Connection& connection = Open();
  const auto op = static_cast<uint16_t>(ReadUint32(env_, info[0], "op", UINT16_MAX));
  const std::string argument = ReadText(env_, info[1], "argument");
  const uint64_t deadline_ns = ReadDeadline(env_, info[2], "timeoutMs");
  const uint64_t call = OrThrow(env_, client::SubmitAdmin(connection, op, argument, deadline_ns));
  Pending pending;
  pending.shape = Shape::kText;
  return {env_, Await(call, std::move(pending))};
}

}  // namespace praas::napi
