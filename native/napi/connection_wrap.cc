#include "napi/connection_wrap.h"

#include "napi/args.h"
#include "napi/errors.h"
#include "napi/instance.h"
#include "napi/scope.h"

namespace praas::napi {

namespace {

constexpr size_t kSocket = 0;
constexpr size_t kTransport = 1;

}  // namespace

Napi::Function ConnectionWrap::Define(Napi::Env env) {
  using C = ConnectionWrap;
  return DefineClass(env, "Connection",
                     {
                         InstanceAccessor<&C::Info>("info"),
                         InstanceAccessor<&C::Scratch>("scratch"),
                         InstanceAccessor<&C::Small>("small"),
                         InstanceAccessor<&C::SmallTaken>("smallTaken"),
                         InstanceAccessor<&C::CalledMs>("calledMs"),
                         InstanceAccessor<&C::Ended>("ended"),
                         InstanceAccessor<&C::LastCall>("lastCall"),
                         InstanceAccessor<&C::InFlight>("inFlight"),
                         InstanceMethod<&C::Resolve>("resolve"),
                         InstanceMethod<&C::ResolveSync>("resolveSync"),
                         InstanceMethod<&C::Cancel>("cancel"),
                         InstanceMethod<&C::OpenStream>("openStream"),
                         InstanceMethod<&C::SendChunk>("sendChunk"),
                         InstanceMethod<&C::Consumed>("consumed"),
                         InstanceMethod<&C::Allocate>("allocate"),
                         InstanceMethod<&C::ReleaseBuffer>("release"),
                         InstanceMethod<&C::StateGet>("stateGet"),
                         InstanceMethod<&C::StateSet>("stateSet"),
                         InstanceMethod<&C::StateAppend>("stateAppend"),
                         InstanceMethod<&C::StateDelete>("stateDelete"),
                         InstanceMethod<&C::StateStat>("stateStat"),
                         InstanceMethod<&C::StateRead>("stateRead"),
                         InstanceMethod<&C::StatePeek>("statePeek"),
                         InstanceMethod<&C::StateFetch>("stateFetch"),
                         InstanceMethod<&C::StatePublish>("statePublish"),
                         InstanceMethod<&C::StateUnpublish>("stateUnpublish"),
                         InstanceMethod<&C::StateKeys>("stateKeys"),
                         InstanceMethod<&C::Lock>("lock"),
                         InstanceMethod<&C::Unlock>("unlock"),
                         InstanceMethod<&C::Admin>("admin"),
                         InstanceMethod<&C::Lease>("lease"),
                         InstanceMethod<&C::LeaseSync>("leaseSync"),
                         InstanceMethod<&C::OnLeaseNotice>("onLeaseNotice"),
                         InstanceMethod<&C::OnLost>("onLost"),
                         InstanceMethod<&C::Close>("close"),
                     });
}

Napi::Object ConnectionWrap::Wrap(Napi::Env env, std::unique_ptr<client::Connection> connection, uint64_t spin_ns) {
  return Construct(env, Instance::Of(env).connection_class, Construction{std::move(connection), spin_ns});
}

ConnectionWrap::ConnectionWrap(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<ConnectionWrap>(info),
      env_(info.Env()),
      known_(Instance::Of(info.Env()).connections),
      core_(
          std::make_shared<ConnectionCore>(std::move(Constructing<Construction>(info.Env(), "Connection").connection))),
      buffers_(env_, core_),
      spin_ns_(Constructing<Construction>(info.Env(), "Connection").spin_ns),
      reply_sink_([this](const transport::Reply& reply) { OnReply(reply); }),
      stream_sink_([this](const client::StreamEvent& event) { OnStreamEvent(event); }) {
  watcher_ = OrThrow(env_, LoopWatcher::Create(Instance::Of(info.Env()).loop, *this));
  Napi::ArrayBuffer shared = Napi::ArrayBuffer::New(info.Env(), sizeof(Shared));
  shared_ = new (shared.Data()) Shared{};
  shared_buffer_ = Napi::Persistent(shared);
  client::Connection& connection = *core_->connection;
  OrThrow(env_, watcher_->Watch(kSocket, connection.socket_fd()));
  watcher_->Listen(kSocket, true, false);
  const int transport_fd = connection.transport_fd();
  if (transport_fd >= 0 && transport_fd != connection.socket_fd()) {
    OrThrow(env_, watcher_->Watch(kTransport, transport_fd));
    watcher_->Listen(kTransport, true, false);
  }
  connection.SetResultMemory([this](uint64_t call, uint64_t bytes) { return ResultMemory(call, bytes); });
  Bind<&ConnectionWrap::Invoke>(info, "invoke");
  Bind<&ConnectionWrap::InvokeSync>(info, "invokeSync");
  known_->Add(this);  // last: an object that was not made whole is none
}

/// A function of this object alone, which need not look for it: that takes a tenth of a hot call that blocks. Wherever
/// the function goes, it keeps the object.
template <Napi::Value (ConnectionWrap::*method)(const Napi::CallbackInfo&)>
void ConnectionWrap::Bind(const Napi::CallbackInfo& info, const char* name) {
  const auto object = info.This().As<Napi::Object>();
  Napi::Function function = Napi::Function::New(
      info.Env(), [this](const Napi::CallbackInfo& arguments) { return (this->*method)(arguments); }, name);
  function.DefineProperty(Napi::PropertyDescriptor::Value("connection", object));
  object.Set(name, function);
}

// The core may live on under ArrayBuffers that are still reachable; then it closes with the last of them.
ConnectionWrap::~ConnectionWrap() {
  core_->connection->SetResultMemory({});
  core_->connection->SetNoticeSink({});
  known_->Remove(this);
}

ConnectionWrap* ConnectionWrap::Unwrap(Napi::Object object) {
  return KnownObject<ConnectionWrap>(object, *Instance::Of(object.Env()).connections, "a Connection");
}

client::Connection& ConnectionWrap::Open() const {
  if (closed_) throw ToJsError(env_, Status(Code::kConnectionClosed, "the connection was closed"));
  return *core_->connection;
}

Napi::Value ConnectionWrap::Info(const Napi::CallbackInfo& info) {
  const client::ServerInfo& server = core_->connection->info();
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("process", server.process);
  object.Set("transport", server.transport);
  object.Set("upgradeReason", server.upgrade_reason);
  object.Set("maxContiguous", static_cast<double>(server.max_contiguous));
  object.Set("maxInFlight", static_cast<double>(server.max_in_flight));
  object.Set("defaultTimeoutMs", static_cast<double>(server.default_timeout_ns) / 1e6);
  object.Set("hostPid", static_cast<double>(server.host_pid));
  return object;
}

Napi::Value ConnectionWrap::Scratch(const Napi::CallbackInfo&) {
  return Napi::Uint8Array::New(env_, sizeof(Shared::scratch), shared_buffer_.Value(), offsetof(Shared, scratch));
}

Napi::Value ConnectionWrap::Small(const Napi::CallbackInfo&) {
  return Napi::Uint8Array::New(env_, sizeof(Shared::small), shared_buffer_.Value(), offsetof(Shared, small));
}

Napi::Value ConnectionWrap::SmallTaken(const Napi::CallbackInfo&) {
  return Napi::Uint32Array::New(env_, 1, shared_buffer_.Value(), offsetof(Shared, taken));
}

Napi::Value ConnectionWrap::CalledMs(const Napi::CallbackInfo&) {
  return Napi::Float64Array::New(env_, 1, shared_buffer_.Value(), offsetof(Shared, called_ms));
}

Napi::Value ConnectionWrap::Ended(const Napi::CallbackInfo&) {
  return Napi::Uint8Array::New(env_, sizeof(Shared::ended), shared_buffer_.Value(), offsetof(Shared, ended));
}

Napi::Value ConnectionWrap::LastCall(const Napi::CallbackInfo&) { return Napi::BigInt::New(env_, last_call_); }

Napi::Value ConnectionWrap::InFlight(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(pending_.size() + streams_.size()));
}

Napi::Value ConnectionWrap::Allocate(const Napi::CallbackInfo& info) {
  Open();
  const uint64_t bytes = ReadInteger(env_, info[0], "bytes", 1, uint64_t{1} << 32);
  return Napi::Value(env_, OrThrow(env_, buffers_.Allocate(bytes)));
}

void ConnectionWrap::ReleaseBuffer(const Napi::CallbackInfo& info) {
  Open();
  OrThrow(env_, buffers_.Release(ReadBytes(env_, info[0], "buffer").data()));
}

void ConnectionWrap::OnLost(const Napi::CallbackInfo& info) {
  Open();
  if (!info[0].IsFunction()) throw WrongType(env_, "callback", "a function");
  lost_callback_ = Napi::Persistent(info[0].As<Napi::Function>());
  if (Lost()) BecomeBusy();  // it was lost before anybody asked: told in the next turn
}

void ConnectionWrap::Close(const Napi::CallbackInfo&) {
  if (closed_) return;
  closed_ = true;
  NoteEnd();
  lost_callback_.Reset();
  lease_callback_.Reset();
  lease_notices_.clear();
  // Views become empty before the memory under them goes.
  buffers_.DetachAll();
  core_->closed = true;
  core_->connection->Close();
  Poll();
  RejectAll(Status(Code::kConnectionClosed, "the connection was closed with the call in flight"));
  Settle();
  DeliverStreamEvents();
  watcher_.reset();
  BecomeIdle();
}

}  // namespace praas::napi
