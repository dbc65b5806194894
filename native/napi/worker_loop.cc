#include <utility>

#include "base/clock.h"
#include "base/spin.h"
#include "napi/args.h"
#include "napi/errors.h"
#include "napi/instance.h"
#include "napi/scope.h"
#include "napi/worker_wrap.h"

namespace praas::napi {

namespace {

constexpr size_t kDoorbell = 1;
/// Longest stay in one turn of the loop while calls keep coming: timers and I/O of functions wait that long at most.
constexpr uint64_t kLongestTurnNs = 200'000;
/// How long one turn polls in vain while hot. A turn costs 1–2 µs, so longer ones find calls sooner on average; with
/// invocations that wait for timers or I/O, shorter ones find those sooner.
constexpr uint64_t kIdleSpinNs = 50'000;
constexpr uint64_t kSharedSpinNs = 5'000;
/// The clock (25 ns) is read once in so many fruitless polls.
constexpr uint32_t kPollsPerClock = 8;
/// What hooks.invoke returns for an asynchronous function.
constexpr double kPending = 1;

}  // namespace

bool WorkerWrap::IsRunning(uint64_t handle) const noexcept {
  return (current_.active && !current_.settled && current_.handle == handle) || running_.contains(handle);
}

void WorkerWrap::RequireRunning(uint64_t handle) const {
  if (!IsRunning(handle)) throw ToJsError(env_, Status(Code::kArgumentInvalid, "handle names no running invocation"));
}

void WorkerWrap::Hook(napi_ref hook, napi_value argument) {
  napi_value function = nullptr;
  if (napi_get_reference_value(env_, hook, &function) != napi_ok ||
      napi_call_function(env_, hooks_.Value(), function, argument == nullptr ? 0 : 1, &argument, nullptr) != napi_ok) {
    ReportException(env_);
  }
}

void WorkerWrap::Run(const worker::Invocation& invocation) {
  const HandleScope handles(env_);
  napi_value input = views_.Kept(invocation.input);
  if (input == nullptr) {
    Result<napi_value> made = MappedView(invocation.input);
    if (!made.ok()) {
      static_cast<void>(runtime().Fail(invocation.handle, made.status().code(), made.status().message()));
      return;
    }
    input = *made;
    views_.Keep(invocation.input, input);
  }
  current_ = {invocation.handle, true, false};
  handed_->deadline_ms = static_cast<double>(invocation.deadline_ns) / 1e6;
  handed_->function = static_cast<double>(invocation.function);
  handed_->depth = static_cast<double>(invocation.depth);
  handed_->stream = invocation.stream ? 1.0 : 0.0;
  handed_->handle = invocation.handle;
  {
    // Its end runs nextTick callbacks and microtasks. A synchronous function has been answered by then; an asynchronous
    // one may complete in them.
    const CallbackScope callbacks(env_, Instance::Of(env_).invocations.get());
    napi_value function = nullptr;
    napi_value returned = nullptr;
    const bool ok = napi_get_reference_value(env_, invoke_hook_, &function) == napi_ok &&
                    napi_call_function(env_, hooks_.Value(), function, 1, &input, &returned) == napi_ok;
    if (!ok) {
      const std::string message = TakeException(env_);
      if (!current_.settled) {
        static_cast<void>(runtime().Fail(invocation.handle, Code::kFunctionThrew, message));
        Ended(invocation.handle);
      }
    } else if (!current_.settled) {
      Finish(invocation.handle, returned);
    }
  }
  if (!current_.settled) running_.insert(invocation.handle);
  CloseCurrent();
}

void WorkerWrap::CloseCurrent() noexcept { current_ = {}; }

/// A result that cannot be stored is the caller's error by then, and the invocation is over.
void WorkerWrap::Finish(uint64_t handle, napi_value returned) {
  if (const auto bytes = TryReadBytes(env_, returned)) {
    static_cast<void>(runtime().Complete(handle, *bytes));
    return Ended(handle);
  }
  double number = 0;
  if (napi_get_value_double(env_, returned, &number) == napi_ok && number == kPending) return;
  if (IsUndefined(env_, returned)) {
    static_cast<void>(runtime().Complete(handle, {}));
  } else {
    static_cast<void>(runtime().Fail(handle, Code::kFunctionResult, "the result must be a Uint8Array or undefined"));
  }
  Ended(handle);
}

void WorkerWrap::Ended(uint64_t handle) {
  if (current_.active && current_.handle == handle) {
    current_.settled = true;
  } else {
    running_.erase(handle);
  }
  waiting_.erase(handle);
  ReleaseHeld(handle);
}

void WorkerWrap::SettleNested(const worker::NestedReply& reply) {
  const auto found = nested_.find(reply.call);
  if (found != nested_.end()) {
    napi_deferred const deferred = found->second.deferred;
    const auto parent = waiting_.find(found->second.parent);
    if (parent != waiting_.end() && --parent->second == 0) waiting_.erase(parent);
    nested_.erase(found);
    if (reply.status.ok()) {
      napi_value bytes = CopyBytes(env_, reply.payload);
      if (bytes != nullptr) static_cast<void>(napi_resolve_deferred(env_, deferred, bytes));
    } else if (napi_value error = JsError(env_, reply.status); error != nullptr) {
      static_cast<void>(napi_reject_deferred(env_, deferred, error));
    }
  }
  runtime().FreeNested(reply.call);
}

bool WorkerWrap::Step(bool look_at_nested) {
  bool active = false;
  if (look_at_nested || !nested_.empty()) {
    while (std::optional<worker::NestedReply> reply = runtime().NextNested()) {
      const HandleScope handles(env_);
      const CallbackScope callbacks(env_, Instance::Of(env_).invocations.get());
      SettleNested(*reply);
      active = true;
    }
  }
  if (std::optional<worker::Invocation> invocation = runtime().TryNext(capacity())) {
    Run(*invocation);
    active = true;
  }
  return active;
}

bool WorkerWrap::Attend() {
  const uint32_t notices = runtime().TakeNotices();
  const bool waits_for_lock = (notices & dispatch::kNoticeLock) != 0 && !locks_.empty();
  std::vector<uint64_t> cancelled = runtime().TakeCancellations();
  const bool drain = runtime().draining() && !drain_told_;
  const bool streams = (notices & dispatch::kNoticeStream) != 0;
  if (!waits_for_lock && cancelled.empty() && !drain && !streams && load_ == nullptr) return false;
  const HandleScope handles(env_);
  const CallbackScope callbacks(env_, Instance::Of(env_).invocations.get());
  if (load_ != nullptr) ResolveLoad();
  if (waits_for_lock) SettleLocks();
  if (started_) {
    for (const uint64_t handle : cancelled) {
      napi_value id = nullptr;
      if (IsRunning(handle) && napi_create_bigint_uint64(env_, handle, &id) == napi_ok) Hook(cancelled_hook_, id);
    }
    if (streams) Hook(streams_hook_, nullptr);
    if (drain) {
      drain_told_ = true;
      Hook(drain_hook_, nullptr);
    }
  }
  return true;
}

void WorkerWrap::StopWhenDrained() {
  if (!drain_told_ || !running_.empty() || current_.active || watcher_ == nullptr) return;
  runtime().Drained();
  // Nothing of ours keeps the process any more. The watchdog goes on until the host has closed the control socket.
  watcher_.reset();
  Unref();
}

void WorkerWrap::OnBeforeWait() {
  {
    const HandleScope handles(env_);
    if (Value().IsEmpty()) return;
  }
  const uint64_t began_ns = NowNs();
  bool active = Attend();
  if (!started_) {
    // Until then there is nothing to poll: the eventfd tells of the load.
    watcher_->KeepTurning(false);
    return;
  }
  SpinYield spin;
  bool first = true;
  uint64_t now_ns = began_ns;
  if (active) last_activity_ns_ = now_ns;
  for (;;) {
    // Calls that were given up are not in nested_, but their replies have to be taken from time to time.
    if (Step(std::exchange(first, false))) {
      last_activity_ns_ = now_ns = NowNs();
      if (now_ns - began_ns > kLongestTurnNs) return watcher_->KeepTurning(true);
      continue;
    }
    if (drain_told_) break;
    if (spin.steps() % kPollsPerClock == 0) {
      now_ns = NowNs();
      const int64_t hot_ns = runtime().hot_ns();
      const bool hot = hot_ns < 0 || now_ns - last_activity_ns_ < static_cast<uint64_t>(hot_ns);
      if (!hot) break;
      const uint64_t spin_ns = running_.empty() ? kIdleSpinNs : kSharedSpinNs;
      if (now_ns - std::max(began_ns, last_activity_ns_) >= spin_ns) return watcher_->KeepTurning(true);
    }
    // Also when something has come: it may be what this worker cannot take, and then the clock decides.
    static_cast<void>(runtime().LookOut());
    spin.Step();
  }
  if (Attend()) return watcher_->KeepTurning(true);
  StopWhenDrained();
  if (watcher_ == nullptr) return;
  asleep_ = runtime().PrepareToSleep(capacity());
  watcher_->KeepTurning(!asleep_);
  if (!asleep_) return;
  // A full worker must not be woken by bells it cannot answer.
  watcher_->Listen(kDoorbell, capacity() || runtime().dedicated(), false);
  watcher_->SetTimer(NextLockDeadline());
}

void WorkerWrap::OnAfterWait() {
  if (std::exchange(asleep_, false)) runtime().Awake();
}

void WorkerWrap::OnReady() {
  // Clears the eventfd also while the worker is not asleep. The work is done by the OnBeforeWait that follows.
  asleep_ = false;
  runtime().Awake();
}

void WorkerWrap::OnTimer() {
  const HandleScope handles(env_);
  const CallbackScope callbacks(env_, Instance::Of(env_).invocations.get());
  SettleLocks();
}

}  // namespace praas::napi
