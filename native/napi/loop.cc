#include "napi/loop.h"

#include <fcntl.h>
#include <uv.h>

#include <set>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/unique_fd.h"

namespace praas::napi {

struct LoopRegistry::State {
  napi_env env = nullptr;
  uv_loop_t* loop = nullptr;
  std::set<LoopWatcher*> watchers;
  size_t open_handles = 0;
  napi_async_cleanup_hook_handle cleanup = nullptr;
  bool ending = false;

  /// Lets the environment go on ending once libuv has nothing of ours any more.
  void LetGo() noexcept {
    if (!ending || open_handles > 0 || cleanup == nullptr) return;
    static_cast<void>(napi_remove_async_cleanup_hook(std::exchange(cleanup, nullptr)));
  }
};

namespace {

/// One libuv handle on the heap, freed by its own close callback. `owner` is null from uv_close on.
template <typename Handle>
struct Owned {
  Handle handle{};
  LoopWatcher* owner = nullptr;
  std::shared_ptr<LoopRegistry> registry;
  size_t* open_handles = nullptr;
  void (*let_go)(LoopRegistry&) = nullptr;
};

template <typename Handle>
uv_handle_t* Base(Owned<Handle>* owned) noexcept {
  return reinterpret_cast<uv_handle_t*>(&owned->handle);
}

template <typename Handle>
void CloseOwned(Owned<Handle>* owned) noexcept {
  if (owned == nullptr) return;
  owned->owner = nullptr;
  uv_close(Base(owned), [](uv_handle_t* handle) {
    auto* closed = static_cast<Owned<Handle>*>(handle->data);
    --*closed->open_handles;
    const std::shared_ptr<LoopRegistry> registry = closed->registry;
    auto* const let_go = closed->let_go;
    delete closed;
    let_go(*registry);
  });
}

constexpr uint8_t kNever = 0xff;  // no poll handle yet

}  // namespace

struct LoopWatcher::Handles {
  struct Polled {
    Owned<uv_poll_t>* poll = nullptr;
    UniqueFd fd;
  };
  std::array<Polled, kSlots> polled;
  Owned<uv_timer_t>* timer = nullptr;
  Owned<uv_idle_t>* idle = nullptr;
  Owned<uv_prepare_t>* prepare = nullptr;
  Owned<uv_check_t>* check = nullptr;

  template <typename Handle, typename Init>
  static int Open(LoopWatcher& watcher, Owned<Handle>** out, Init init) {
    auto owned = std::make_unique<Owned<Handle>>();
    LoopRegistry::State& state = *watcher.registry_->state_;
    if (const int error = init(state.loop, &owned->handle); error != 0) return error;
    owned->handle.data = owned.get();
    owned->owner = &watcher;
    owned->registry = watcher.registry_;
    owned->open_handles = &state.open_handles;
    owned->let_go = [](LoopRegistry& registry) { registry.state_->LetGo(); };
    ++state.open_handles;
    // Only EveryTurn keeps a loop alive.
    uv_unref(Base(owned.get()));
    *out = owned.release();
    return 0;
  }
};

LoopWatcher::LoopWatcher(std::shared_ptr<LoopRegistry> registry, LoopClient& client) noexcept
    : registry_(std::move(registry)), client_(client), timer_ns_(kNoDeadline) {
  events_.fill(kNever);
}

Result<std::unique_ptr<LoopWatcher>> LoopWatcher::Create(std::shared_ptr<LoopRegistry> registry, LoopClient& client) {
  if (registry->state_->ending) return Status(Code::kConnectionClosed, "this thread of Node is ending");
  std::unique_ptr<LoopWatcher> watcher(new LoopWatcher(std::move(registry), client));
  watcher->handles_ = std::make_unique<Handles>();
  watcher->registry_->state_->watchers.insert(watcher.get());
  Handles& handles = *watcher->handles_;
  // These four cannot fail: they only take their place in the loop's lists.
  Handles::Open(*watcher, &handles.timer, uv_timer_init);
  Handles::Open(*watcher, &handles.idle, uv_idle_init);
  Handles::Open(*watcher, &handles.prepare, uv_prepare_init);
  Handles::Open(*watcher, &handles.check, uv_check_init);
  return watcher;
}

LoopWatcher::~LoopWatcher() { Close(); }

void LoopWatcher::Tell(LoopWatcher* owner, void (LoopClient::*event)()) noexcept {
  if (owner == nullptr) return;
  const napi_env env = owner->registry_->state_->env;
  try {
    (owner->client_.*event)();
  } catch (const Napi::Error& error) {
    // A C++ exception must not cross libuv.
    const Napi::HandleScope scope(env);
    static_cast<void>(napi_fatal_exception(env, error.Value()));
  }
}

void LoopWatcher::Close() noexcept {
  if (handles_ == nullptr) return;
  registry_->state_->watchers.erase(this);
  for (size_t slot = 0; slot < kSlots; ++slot) Unwatch(slot);
  CloseOwned(handles_->timer);
  CloseOwned(handles_->idle);
  CloseOwned(handles_->prepare);
  CloseOwned(handles_->check);
  handles_.reset();
}

Status LoopWatcher::Watch(size_t slot, int fd) {
  if (handles_ == nullptr) return Status(Code::kConnectionClosed, "this thread of Node is ending");
  Unwatch(slot);
  UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy) return Status::System("fcntl F_DUPFD_CLOEXEC " + std::to_string(fd));
  Handles::Polled& polled = handles_->polled[slot];
  const int error = Handles::Open(*this, &polled.poll, [&copy](uv_loop_t* loop, uv_poll_t* handle) {
    return uv_poll_init(loop, handle, copy.get());
  });
  if (error != 0) return Status::System("uv_poll_init " + std::to_string(fd), -error);
  polled.fd = std::move(copy);
  events_[slot] = 0;
  return Status::Ok();
}

void LoopWatcher::Listen(size_t slot, bool read, bool write) noexcept {
  const int events = (read ? UV_READABLE : 0) | (write ? UV_WRITABLE : 0);
  if (handles_ == nullptr || events_[slot] == kNever || events_[slot] == events) return;
  events_[slot] = static_cast<uint8_t>(events);
  uv_poll_t* const poll = &handles_->polled[slot].poll->handle;
  if (events == 0) {
    uv_poll_stop(poll);
    return;
  }
  uv_poll_start(poll, events, [](uv_poll_t* handle, int, int) {
    // An error (status < 0) is found by whoever reads next.
    Tell(static_cast<Owned<uv_poll_t>*>(handle->data)->owner, &LoopClient::OnReady);
  });
}

void LoopWatcher::Unwatch(size_t slot) noexcept {
  if (handles_ == nullptr || events_[slot] == kNever) return;
  Handles::Polled& polled = handles_->polled[slot];
  CloseOwned(std::exchange(polled.poll, nullptr));
  // uv_close has taken it out of the epoll set, so the number may be used again from here on.
  polled.fd.Reset();
  events_[slot] = kNever;
}

void LoopWatcher::SetTimer(uint64_t deadline_ns) noexcept {
  if (handles_ == nullptr || deadline_ns == timer_ns_) return;
  timer_ns_ = deadline_ns;
  uv_timer_t* const timer = &handles_->timer->handle;
  if (deadline_ns == kNoDeadline) {
    uv_timer_stop(timer);
    return;
  }
  // libuv counts from the start of its turn, which may be long ago.
  uv_update_time(timer->loop);
  uv_timer_start(
      timer,
      [](uv_timer_t* handle) {
        LoopWatcher* const owner = static_cast<Owned<uv_timer_t>*>(handle->data)->owner;
        if (owner == nullptr) return;
        owner->timer_ns_ = kNoDeadline;
        Tell(owner, &LoopClient::OnTimer);
      },
      static_cast<uint64_t>(PollTimeoutMs(deadline_ns)), 0);
}

void LoopWatcher::EveryTurn(bool on, bool hold) noexcept {
  if (handles_ == nullptr || (on == every_turn_ && hold == hold_)) return;
  if (on != every_turn_) {
    if (on) {
      uv_prepare_start(&handles_->prepare->handle, [](uv_prepare_t* handle) {
        Tell(static_cast<Owned<uv_prepare_t>*>(handle->data)->owner, &LoopClient::OnBeforeWait);
      });
      uv_check_start(&handles_->check->handle, [](uv_check_t* handle) {
        Tell(static_cast<Owned<uv_check_t>*>(handle->data)->owner, &LoopClient::OnAfterWait);
      });
    } else {
      uv_prepare_stop(&handles_->prepare->handle);
      uv_check_stop(&handles_->check->handle);
    }
  }
  if (hold) {
    uv_ref(Base(handles_->prepare));
  } else {
    uv_unref(Base(handles_->prepare));
  }
  every_turn_ = on;
  hold_ = hold;
}

void LoopWatcher::KeepTurning(bool on) noexcept {
  if (handles_ == nullptr || on == keep_turning_) return;
  keep_turning_ = on;
  // An active idle handle is what makes libuv look for events without waiting for one.
  if (on) {
    uv_idle_start(&handles_->idle->handle, [](uv_idle_t*) {});
  } else {
    uv_idle_stop(&handles_->idle->handle);
  }
}

LoopRegistry::LoopRegistry() : state_(std::make_unique<State>()) {}
LoopRegistry::~LoopRegistry() = default;

Result<std::shared_ptr<LoopRegistry>> LoopRegistry::Create(napi_env env) {
  std::shared_ptr<LoopRegistry> registry(new LoopRegistry());
  registry->state_->env = env;
  if (napi_get_uv_event_loop(env, &registry->state_->loop) != napi_ok) {
    return Status(Code::kUnsupported, "napi_get_uv_event_loop: this runtime has no libuv loop");
  }
  // The hook owns a reference to the registry, because it may run after the addon's instance data is gone.
  auto* const self = new std::shared_ptr<LoopRegistry>(registry);
  if (napi_add_async_cleanup_hook(env, OnCleanup, self, &registry->state_->cleanup) != napi_ok) {
    delete self;
    return Status(Code::kInternal, "napi_add_async_cleanup_hook failed");
  }
  return registry;
}

void LoopRegistry::OnCleanup(napi_async_cleanup_hook_handle, void* self) {
  const std::unique_ptr<std::shared_ptr<LoopRegistry>> registry(static_cast<std::shared_ptr<LoopRegistry>*>(self));
  State& state = *(*registry)->state_;
  state.ending = true;
  while (!state.watchers.empty()) (*state.watchers.begin())->Close();
  state.LetGo();
}

std::string_view ErrnoName(int sys_errno) noexcept {
  const char* const name = uv_err_name(-sys_errno);
  return name == nullptr ? std::string_view("UNKNOWN") : std::string_view(name);
}

}  // namespace praas::napi
