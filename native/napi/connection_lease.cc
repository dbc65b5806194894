#include <cmath>
#include <utility>

#include "base/status.h"
#include "napi/args.h"
#include "napi/connection_wrap.h"
#include "napi/errors.h"
#include "napi/scope.h"
#include "protocol/lease_messages.h"
#include "protocol/messages.h"

namespace praas::napi {

using protocol::LeaseRequest;

namespace {

constexpr auto kMaxLane = static_cast<uint32_t>(protocol::LeaseLane::kNative);

/// Milliseconds that workers poll after a call; −1: always.
int64_t ReadHotMs(napi_env env, napi_value value) {
  const double ms = ReadNumber(env, value, "hotMs");
  if (!(ms >= -1 && ms < static_cast<double>(protocol::kMaxLeaseMs)) || std::floor(ms) != ms) {
    throw OutOfRange(env, "hotMs", "an integer from -1 to " + std::to_string(protocol::kMaxLeaseMs - 1));
  }
  return static_cast<int64_t>(ms);
}

/// What is left out stays as LeaseRequest has it.
LeaseRequest ReadLeaseRequest(napi_env env, const Napi::Object& given) {
  LeaseRequest request;
  const auto read = [&](const char* name, auto&& store) {
    const Napi::Value value = given.Get(name);
    if (!value.IsUndefined()) store(value, name);
  };
  const auto time = [&](uint64_t least, uint64_t& into) {
    return [&into, env, least](const Napi::Value& value, const char* name) {
      into = ReadInteger(env, value, name, least, protocol::kMaxLeaseMs);
    };
  };
  read("lease", [&](const Napi::Value& value, const char* name) { request.lease = ReadId(env, value, name); });
  read("workers", [&](const Napi::Value& value, const char* name) {
    request.workers = static_cast<uint32_t>(ReadInteger(env, value, name, 1, protocol::kMaxLeaseWorkers));
  });
  read("lane", [&](const Napi::Value& value, const char* name) {
    request.lane = static_cast<protocol::LeaseLane>(ReadUint32(env, value, name, kMaxLane));
  });
  read("hotMs", [&](const Napi::Value& value, const char*) { request.hot_ms = ReadHotMs(env, value); });
  read("ttlMs", time(1, request.ttl_ms));
  read("waitMs", time(0, request.wait_ms));
  read("name", [&](const Napi::Value& value, const char* name) {
    request.name = ReadText(env, value, name);
    if (request.name.size() > protocol::kMaxName) throw OutOfRange(env, name, "at most 255 bytes of UTF-8");
  });
  read("worker", [&](const Napi::Value& value, const char* name) {
    request.worker = ReadUint32(env, value, name, protocol::kMaxLeaseWorkers - 1);
  });
  return request;
}

}  // namespace

uint64_t ConnectionWrap::StartLease(const Napi::CallbackInfo& info) {
  client::Connection& connection = Open();
  const auto op = static_cast<uint16_t>(ReadUint32(env_, info[0], "op", UINT16_MAX));
  const LeaseRequest request = ReadLeaseRequest(env_, ReadObject(env_, info[1], "request"));
  const uint64_t deadline_ns = ReadDeadline(env_, info[2], "timeoutMs");
  return OrThrow(env_, connection.Request(protocol::FrameType::kLease, op, Encode(request), {}, deadline_ns));
}

Napi::Value ConnectionWrap::Lease(const Napi::CallbackInfo& info) {
  const uint64_t call = StartLease(info);
  Pending pending;
  pending.shape = Shape::kLease;
  last_call_ = call;
  return {env_, Await(call, std::move(pending))};
}

Napi::Value ConnectionWrap::LeaseSync(const Napi::CallbackInfo& info) {
  const uint64_t call = StartLease(info);
  Pending pending;
  pending.shape = Shape::kLease;
  return {env_, WaitSync(call, std::move(pending))};
}

void ConnectionWrap::OnLeaseNotice(const Napi::CallbackInfo& info) {
  client::Connection& connection = Open();
  if (!info[0].IsFunction()) throw WrongType(env_, "callback", "a function");
  if (Lost()) return;  // it will not be told anything
  lease_callback_ = Napi::Persistent(info[0].As<Napi::Function>());
  connection.SetNoticeSink([this](const client::LeaseNotice& notice) { lease_notices_.push_back(notice); });
}

void ConnectionWrap::DeliverLeaseNotices() {
  while (!lease_notices_.empty()) {
    const client::LeaseNotice notice = std::move(lease_notices_.front());
    lease_notices_.pop_front();
    if (lease_callback_.IsEmpty()) continue;
    const Napi::Env env(env_);
    HandleScope scope(env_);
    try {
      Napi::Object object = Napi::Object::New(env);
      object.Set("lease", Napi::BigInt::New(env, notice.lease));
      object.Set("event", static_cast<double>(notice.event));
      object.Set("code", notice.code == Code::kOk ? std::string() : std::string(CodeName(notice.code)));
      object.Set("worker", static_cast<double>(notice.worker));
      object.Set("remainingMs", static_cast<double>(notice.remaining_ms));
      object.Set("text", notice.text);
      napi_value argument = object;
      napi_value undefined = env.Undefined();
      if (napi_call_function(env_, undefined, lease_callback_.Value(), 1, &argument, nullptr) != napi_ok) {
        ReportException(env_);
      }
    } catch (const Napi::Error&) {
      // The environment is ending; nobody is left to be told.
      return;
    }
  }
}

}  // namespace praas::napi
