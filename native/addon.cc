#include <memory>
#include <string>
#include <utility>

#include "base/unique_fd.h"
#include "client/connection.h"
#include "napi/args.h"
#include "napi/async.h"
#include "napi/connection_wrap.h"
#include "napi/errors.h"
#include "napi/instance.h"
#include "napi/setup.h"
#include "napi/system.h"
#include "napi/worker_wrap.h"
#include "protocol/messages.h"

/// Entry point of the addon. Everything it keeps hangs off the environment's Instance, so it may be loaded in any
/// number of worker threads.
namespace praas::napi {

namespace {

constexpr uint64_t kMaxSpinUs = 1'000'000;

Napi::Value Connect(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Napi::Object given = ReadObject(env, info[0], "options");
  client::ConnectOptions options;
  options.host = ReadText(env, given.Get("host"), "host");
  options.port = static_cast<uint16_t>(ReadInteger(env, given.Get("port"), "port", 1, UINT16_MAX));
  options.process = ReadText(env, given.Get("process"), "process");
  options.token = ReadText(env, given.Get("token"), "token");
  options.transport = ReadText(env, given.Get("transport"), "transport");
  options.timeout_ns = ReadDuration(env, given.Get("timeoutMs"), "timeoutMs");
  options.window_bytes = ReadInteger(env, given.Get("windowBytes"), "windowBytes", 0, kMaxSafeInteger);
  options.checksum = ReadFlag(env, given.Get("checksum"), "checksum");
  if (const Napi::Value key = given.Get("leaseKey"); !key.IsUndefined())
    options.lease_key = ReadText(env, key, "leaseKey");
  if (const Napi::Value worker = given.Get("leaseWorker"); !worker.IsUndefined()) {
    options.lease_worker = ReadUint32(env, worker, "leaseWorker", protocol::kMaxLeaseWorkers - 1);
  }
  const uint64_t spin_ns = ReadInteger(env, given.Get("spinUs"), "spinUs", 0, kMaxSpinUs) * 1000;
  using Made = std::unique_ptr<client::Connection>;
  return {env,
          RunInPool<Made>(
              env, "praas.connect", [options = std::move(options)] { return client::Connection::Connect(options); },
              [spin_ns](napi_env js, Made connection) -> Result<napi_value> {
                return static_cast<napi_value>(ConnectionWrap::Wrap(js, std::move(connection), spin_ns));
              })};
}

Napi::Value AttachWorker(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = static_cast<int>(ReadInteger(env, info[0], "fd", 0, INT32_MAX));
  return {env, WorkerWrap::Attach(env, UniqueFd(fd))};
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  auto instance = std::make_unique<Instance>(env, OrThrow(env, LoopRegistry::Create(env)));
  instance->connection_class = Napi::Persistent(ConnectionWrap::Define(env));
  instance->worker_class = Napi::Persistent(WorkerWrap::Define(env));
  env.SetInstanceData(instance.release());
  exports.Set("connect", Napi::Function::New<Connect>(env, "connect"));
  exports.Set("attachWorker", Napi::Function::New<AttachWorker>(env, "attachWorker"));
  DefineSystem(env, exports);
  return exports;
}

}  // namespace
}  // namespace praas::napi

static Napi::Object PraasInit(Napi::Env env, Napi::Object exports) { return praas::napi::Init(env, exports); }

NODE_API_MODULE(praas, PraasInit)
