#include "napi/worker_wrap.h"

#include <utility>

#include "base/clock.h"
#include "napi/args.h"
#include "napi/errors.h"
#include "napi/instance.h"
#include "napi/scope.h"

namespace praas::napi {

namespace {

constexpr size_t kEvent = 0;
constexpr size_t kDoorbell = 1;
/// When this clock starts the packet that attaches a worker is there; mapping and opening take milliseconds.
constexpr uint64_t kAttachNs = 10'000'000'000;

/// Waits for the host in the loop and not in a thread: a pre-warmed worker may wait for hours. Lives in
/// Instance::attaching.
class Attaching final : private LoopClient {
 public:
  Attaching(Napi::Env env, UniqueFd fd) : env_(env), fd_(std::move(fd)) {
    watcher_ = OrThrow(env, LoopWatcher::Create(Instance::Of(env).loop, *this));
    OrThrow(env, watcher_->Watch(kEvent, fd_.get()));
    watcher_->Listen(kEvent, true, false);
    watcher_->EveryTurn(true, true);
  }

  [[nodiscard]] napi_value promise() {
    napi_value promise = nullptr;
    if (napi_create_promise(env_, &deferred_, &promise) != napi_ok) {
      throw ToJsError(env_, Status(Code::kInternal, "the JavaScript engine could not make a promise"));
    }
    return promise;
  }

 private:
  void OnReady() override {
    std::shared_ptr<void> self = TakeFromInstance();
    const HandleScope handles(env_);
    const CallbackScope callbacks(env_, Instance::Of(env_).calls.get());
    watcher_.reset();
    auto core = std::make_shared<WorkerWrap::Core>();
    worker::WorkerRuntime::Options options;
    options.on_unmap = [core = core.get()](std::span<std::byte> mapping) {
      if (core->wrap != nullptr) core->wrap->Forget(mapping);
    };
    Result<std::unique_ptr<worker::WorkerRuntime>> runtime =
        worker::WorkerRuntime::Attach(std::move(fd_), std::move(options), DeadlineIn(kAttachNs));
    if (!runtime.ok()) return Reject(JsError(env_, runtime.status()));
    core->runtime = std::move(runtime).value();
    try {
      Napi::Object wrapped = Construct(env_, Instance::Of(env_).worker_class, std::move(core));
      static_cast<void>(napi_resolve_deferred(env_, deferred_, wrapped));
    } catch (const Napi::Error& error) {
      Reject(error.Value());
    }
  }
  void OnTimer() override {}
  void OnBeforeWait() override {}
  void OnAfterWait() override {}

  void Reject(napi_value error) const noexcept {
    if (error != nullptr) static_cast<void>(napi_reject_deferred(env_, deferred_, error));
  }

  [[nodiscard]] std::shared_ptr<void> TakeFromInstance() const {
    auto& attaching = Instance::Of(env_).attaching;
    for (auto entry = attaching.begin(); entry != attaching.end(); ++entry) {
      if (entry->get() != this) continue;
      std::shared_ptr<void> self = std::move(*entry);
      attaching.erase(entry);
      return self;
    }
    return nullptr;
  }

  napi_env env_;
  UniqueFd fd_;
  std::unique_ptr<LoopWatcher> watcher_;
  napi_deferred deferred_ = nullptr;
};

napi_ref ReferenceTo(const Napi::Object& hooks, const char* name) {
  napi_ref reference = nullptr;
  if (napi_create_reference(hooks.Env(), ReadFunction(hooks, name), 1, &reference) != napi_ok) {
    throw ToJsError(hooks.Env(), Status(Code::kInternal, "the JavaScript engine could not make a reference"));
  }
  return reference;
}

}  // namespace

Napi::Function WorkerWrap::Define(Napi::Env env) {
  using W = WorkerWrap;
  return DefineClass(env, "Worker",
                     {
                         InstanceAccessor<&W::Participant>("participant"),
                         InstanceAccessor<&W::HandedBuffer>("handed"),
                         InstanceAccessor<&W::ProcessId>("processId"),
                         InstanceAccessor<&W::Concurrency>("concurrency"),
                         InstanceAccessor<&W::MaxContiguous>("maxContiguous"),
                         InstanceAccessor<&W::DefaultTimeoutMs>("defaultTimeoutMs"),
                         InstanceMethod<&W::WaitForLoad>("waitForLoad"),
                         InstanceMethod<&W::Start>("start"),
                         InstanceMethod<&W::LoadFailed>("loadFailed"),
                         InstanceMethod<&W::Complete>("complete"),
                         InstanceMethod<&W::Fail>("fail"),
                         InstanceMethod<&W::Output>("output"),
                         InstanceMethod<&W::NextChunk>("nextChunk"),
                         InstanceMethod<&W::WriteChunk>("writeChunk"),
                         InstanceMethod<&W::FindFunction>("findFunction"),
                         InstanceMethod<&W::Invoke>("invoke"),
                         InstanceMethod<&W::InvokeSync>("invokeSync"),
                         InstanceMethod<&W::CancelNested>("cancelNested"),
                         InstanceMethod<&W::StateGet>("stateGet"),
                         InstanceMethod<&W::StateView>("stateView"),
                         InstanceMethod<&W::StateArray>("stateArray"),
                         InstanceMethod<&W::StateSet>("stateSet"),
                         InstanceMethod<&W::StateAppend>("stateAppend"),
                         InstanceMethod<&W::StateRead>("stateRead"),
                         InstanceMethod<&W::StateDelete>("stateDelete"),
                         InstanceMethod<&W::StateStat>("stateStat"),
                         InstanceMethod<&W::StatePublish>("statePublish"),
                         InstanceMethod<&W::StateUnpublish>("stateUnpublish"),
                         InstanceMethod<&W::StateKeys>("stateKeys"),
                         InstanceMethod<&W::Lock>("lock"),
                         InstanceMethod<&W::Unlock>("unlock"),
                     });
}

napi_value WorkerWrap::Attach(Napi::Env env, UniqueFd fd) {
  auto attaching = std::make_shared<Attaching>(env, std::move(fd));
  napi_value promise = attaching->promise();
  Instance::Of(env).attaching.push_back(std::move(attaching));
  return promise;
}

WorkerWrap::WorkerWrap(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<WorkerWrap>(info),
      env_(info.Env()),
      known_(Instance::Of(info.Env()).workers),
      core_(std::move(Constructing<std::shared_ptr<Core>>(info.Env(), "Worker"))),
      views_(env_),
      concurrency_(core_->runtime->attach().concurrency) {
  core_->wrap = this;
  Napi::ArrayBuffer handed = Napi::ArrayBuffer::New(info.Env(), sizeof(Handed));
  handed_ = new (handed.Data()) Handed{};
  handed_buffer_ = Napi::Persistent(handed);
  watcher_ = OrThrow(env_, LoopWatcher::Create(Instance::Of(info.Env()).loop, *this));
  OrThrow(env_, watcher_->Watch(kEvent, runtime().event_fd()));
  watcher_->Listen(kEvent, true, false);
  // Attached is alive: the loop goes on until the host lets the worker go.
  watcher_->EveryTurn(true, true);
  Ref();
  known_->Add(this);  // last: an object that was not made whole is none
}

WorkerWrap::~WorkerWrap() {
  core_->wrap = nullptr;
  known_->Remove(this);
}

WorkerWrap* WorkerWrap::Unwrap(Napi::Object object) {
  return KnownObject<WorkerWrap>(object, *Instance::Of(object.Env()).workers, "a Worker");
}

Napi::Value WorkerWrap::Participant(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), runtime().attach().participant);
}

Napi::Value WorkerWrap::HandedBuffer(const Napi::CallbackInfo&) { return handed_buffer_.Value(); }

Napi::Value WorkerWrap::ProcessId(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), runtime().attach().process_id);
}

Napi::Value WorkerWrap::Concurrency(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), runtime().attach().concurrency);
}

Napi::Value WorkerWrap::MaxContiguous(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(runtime().attach().max_contiguous));
}

Napi::Value WorkerWrap::DefaultTimeoutMs(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(runtime().attach().default_timeout_ns) / 1e6);
}

Napi::Value WorkerWrap::WaitForLoad(const Napi::CallbackInfo& info) {
  if (load_ != nullptr) throw ToJsError(env_, Status(Code::kArgumentInvalid, "waitForLoad() is already waiting"));
  napi_value promise = nullptr;
  if (napi_create_promise(env_, &load_, &promise) != napi_ok) {
    throw ToJsError(env_, Status(Code::kInternal, "the JavaScript engine could not make a promise"));
  }
  // It may have come already, and its signal with it.
  watcher_->KeepTurning(true);
  return {info.Env(), promise};
}

void WorkerWrap::ResolveLoad() {
  Result<std::string> load = runtime().WaitForLoad(NowNs());
  napi_value value = nullptr;
  if (load.ok()) {
    if (napi_create_string_utf8(env_, load->data(), load->size(), &value) != napi_ok) return;
    static_cast<void>(napi_resolve_deferred(env_, std::exchange(load_, nullptr), value));
  } else if (load.status().code() != Code::kConnectionTimeout) {
    value = JsError(env_, load.status());
    if (value != nullptr) static_cast<void>(napi_reject_deferred(env_, std::exchange(load_, nullptr), value));
  }
}

void WorkerWrap::Start(const Napi::CallbackInfo& info) {
  if (started_) throw ToJsError(env_, Status(Code::kArgumentInvalid, "start() was called before"));
  if (!info[0].IsArray()) throw WrongType(env_, "functions", "an array");
  const Napi::Array list = info[0].As<Napi::Array>();
  const Napi::Object hooks = ReadObject(env_, info[1], "hooks");
  std::vector<worker::FunctionInfo> functions;
  for (uint32_t index = 0; index < list.Length(); ++index) {
    const Napi::Object function = ReadObject(env_, list.Get(index), "functions[]");
    functions.push_back({ReadText(env_, function.Get("name"), "functions[].name"),
                         ReadUint32(env_, function.Get("flags"), "functions[].flags")});
  }
  invoke_hook_ = ReferenceTo(hooks, "invoke");
  cancelled_hook_ = ReferenceTo(hooks, "cancelled");
  drain_hook_ = ReferenceTo(hooks, "drain");
  streams_hook_ = ReferenceTo(hooks, "streams");
  hooks_ = Napi::Persistent(hooks);
  if (runtime().doorbell_fd() >= 0) OrThrow(env_, watcher_->Watch(kDoorbell, runtime().doorbell_fd()));
  OrThrow(env_, runtime().Ready(functions));
  started_ = true;
  last_activity_ns_ = NowNs();
  watcher_->KeepTurning(true);
}

void WorkerWrap::LoadFailed(const Napi::CallbackInfo& info) {
  OrThrow(env_, runtime().LoadFailed(ReadText(env_, info[0], "why")));
}

void WorkerWrap::Forget(std::span<std::byte> mapping) noexcept {
  const HandleScope handles(env_);
  views_.Forget(mapping);
}

Result<napi_value> WorkerWrap::MappedView(std::span<const std::byte> bytes) {
  if (bytes.empty()) return views_.View(bytes, {});
  const std::span<std::byte> mapping = runtime().MappingOf(bytes.data());
  if (mapping.empty()) return Status(Code::kInternal, "bytes that lie in no mapping of this worker");
  return views_.View(bytes, mapping);
}

}  // namespace praas::napi
