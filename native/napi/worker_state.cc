#include <algorithm>
#include <cstring>
#include <utility>

#include "napi/args.h"
#include "napi/errors.h"
#include "napi/shapes.h"
#include "napi/worker_wrap.h"
#include "state/reserved.h"
#include "state/state_store.h"

namespace praas::napi {

namespace {

/// To give up a lock that was not granted in time; and again, when somebody was stopped inside the state, a few
/// milliseconds each time, until that is over: the thread has others to serve.
constexpr uint64_t kGiveUpNs = 100'000'000;
constexpr uint64_t kGiveUpAgainNs = 10'000'000;
constexpr uint64_t kGiveUpEveryNs = 50'000'000;

Napi::Object InfoObject(Napi::Env env, const state::KeyInfo& info) {
  return KeyInfoObject(env, info.key, static_cast<uint32_t>(info.kind), info.element_type, info.bytes, info.version,
                       info.modified_wall_ns);
}

std::string ReadKey(napi_env env, napi_value value) {
  std::string key = ReadText(env, value, "key");
  OrThrow(env, state::CheckUserKey(key));
  return key;
}

napi_value Checked(napi_env env, napi_value value) {
  if (value == nullptr)
    throw ToJsError(env, Status(Code::kInternal, "the JavaScript engine could not make the result"));
  return value;
}

}  // namespace

Napi::Value WorkerWrap::StateGet(const Napi::CallbackInfo& info) {
  const std::string key = ReadKey(env_, info[0]);
  state::StateStore& store = runtime().state();
  // Pinned and copied once, into JavaScript's memory.
  Result<state::Pinned> pinned = store.Pin(key, ReadDeadline(env_, info[1], "timeoutMs"));
  if (!pinned.ok() && pinned.status().code() == Code::kStateNotFound) return Napi::Env(env_).Undefined();
  const state::Pinned value = OrThrow(env_, std::move(pinned));
  napi_value data = CopyBytes(env_, {runtime().segment().data() + value.offset, static_cast<size_t>(value.bytes)});
  store.Unpin(value.pin);
  return ValueObject(env_, Checked(env_, data), value.version);
}

Napi::Value WorkerWrap::StateView(const Napi::CallbackInfo& info) {
  const uint64_t handle = ReadId(env_, info[0], "handle");
  const std::string key = ReadKey(env_, info[1]);
  const uint64_t deadline_ns = ReadDeadline(env_, info[2], "timeoutMs");
  RequireRunning(handle);
  Result<state::Pinned> pinned = runtime().state().Pin(key, deadline_ns);
  if (!pinned.ok() && pinned.status().code() == Code::kStateNotFound) return Napi::Env(env_).Undefined();
  const state::Pinned value = OrThrow(env_, std::move(pinned));
  pins_[handle].push_back(value.pin);
  const std::byte* const begin = runtime().segment().data() + value.offset;
  return {env_, OrThrow(env_, MappedView({begin, static_cast<size_t>(value.bytes)}))};
}

Napi::Value WorkerWrap::StateArray(const Napi::CallbackInfo& info) {
  const std::string key = ReadKey(env_, info[0]);
  const uint32_t element_type = ReadUint32(env_, info[1], "elementType");
  const uint64_t bytes = ReadInteger(env_, info[2], "bytes", 1, uint64_t{1} << 32);
  const uint64_t deadline_ns = ReadDeadline(env_, info[3], "timeoutMs");
  const state::Pinned array = OrThrow(env_, runtime().state().Array(key, element_type, bytes, deadline_ns));
  ArrayEntry& entry = arrays_[key];
  napi_value buffer = nullptr;
  const bool known = entry.buffer != nullptr && entry.version == array.version &&
                     napi_get_reference_value(env_, entry.buffer, &buffer) == napi_ok && buffer != nullptr;
  if (known) {
    runtime().state().Unpin(array.pin);
  } else {
    // Pinned for as long as JavaScript holds the buffer, across invocations.
    const auto unpin = [core = core_, pin = array.pin] { core->runtime->state().Unpin(pin); };
    std::byte* const begin = runtime().segment().data() + array.offset;
    Result<napi_value> made = ExternalBuffer(env_, {begin, static_cast<size_t>(array.bytes)}, unpin);
    if (!made.ok()) {
      unpin();
      throw ToJsError(env_, made.status());
    }
    buffer = *made;
    if (entry.buffer != nullptr) static_cast<void>(napi_delete_reference(env_, std::exchange(entry.buffer, nullptr)));
    entry.version = array.version;
    if (napi_create_reference(env_, buffer, 0, &entry.buffer) != napi_ok) entry.buffer = nullptr;
  }
  return {env_, Checked(env_, ViewOf(env_, buffer, 0, static_cast<size_t>(array.bytes)))};
}

Napi::Value WorkerWrap::StateSet(const Napi::CallbackInfo& info) {
  const std::string key = ReadKey(env_, info[0]);
  const std::span<std::byte> data = ReadBytes(env_, info[1], "data");
  const Napi::Object given = ReadObject(env_, info[2], "options");
  state::SetOptions options;
  options.if_version = ReadOptionalId(env_, given.Get("ifVersion"), "ifVersion");
  const Napi::Value offset = given.Get("offset");
  if (!offset.IsUndefined()) options.offset = ReadInteger(env_, offset, "offset", 0, kMaxSafeInteger);
  options.deadline_ns = ReadDeadline(env_, given.Get("timeoutMs"), "timeoutMs");
  return Napi::BigInt::New(env_, OrThrow(env_, runtime().state().Set(key, data, options)));
}

Napi::Value WorkerWrap::StateAppend(const Napi::CallbackInfo& info) {
  const std::string key = ReadKey(env_, info[0]);
  const std::span<std::byte> data = ReadBytes(env_, info[1], "data");
  const uint64_t deadline_ns = ReadDeadline(env_, info[2], "timeoutMs");
  return Napi::BigInt::New(env_, OrThrow(env_, runtime().state().Append(key, data, deadline_ns)));
}

Napi::Value WorkerWrap::StateRead(const Napi::CallbackInfo& info) {
  const std::string key = ReadKey(env_, info[0]);
  const uint64_t offset = ReadInteger(env_, info[1], "offset", 0, kMaxSafeInteger);
  const uint64_t length = ReadInteger(env_, info[2], "length", 0, kMaxSafeInteger);
  const uint64_t deadline_ns = ReadDeadline(env_, info[3], "timeoutMs");
  state::StateStore& store = runtime().state();
  // Pinned, so that the size found is that of the bytes copied.
  const state::Pinned value = OrThrow(env_, store.Pin(key, deadline_ns));
  napi_value data = nullptr;
  Status status;
  if (offset > value.bytes) {
    status = Status(Code::kStateRange, "offset " + std::to_string(offset) + " is beyond the " +
                                           std::to_string(value.bytes) + " bytes of \"" + key + '"');
  } else {
    const std::byte* const begin = runtime().segment().data() + value.offset + offset;
    data = CopyBytes(env_, {begin, static_cast<size_t>(std::min(length, value.bytes - offset))});
  }
  store.Unpin(value.pin);
  OrThrow(env_, status);
  return {env_, Checked(env_, data)};
}

Napi::Value WorkerWrap::StateDelete(const Napi::CallbackInfo& info) {
  const std::string key = ReadKey(env_, info[0]);
  const std::optional<uint64_t> version = ReadOptionalId(env_, info[1], "ifVersion");
  const uint64_t deadline_ns = ReadDeadline(env_, info[2], "timeoutMs");
  return Napi::Boolean::New(env_, OrThrow(env_, runtime().state().Delete(key, version, deadline_ns)));
}

Napi::Value WorkerWrap::StateStat(const Napi::CallbackInfo& info) {
  const std::string key = ReadKey(env_, info[0]);
  Result<state::KeyInfo> found = runtime().state().Stat(key, ReadDeadline(env_, info[1], "timeoutMs"));
  if (!found.ok() && found.status().code() == Code::kStateNotFound) return Napi::Env(env_).Undefined();
  return InfoObject(env_, OrThrow(env_, std::move(found)));
}

Napi::Value WorkerWrap::StatePublish(const Napi::CallbackInfo& info) {
  const std::string key = ReadKey(env_, info[0]);
  std::optional<uint64_t> capacity;
  if (!info[1].IsUndefined()) capacity = ReadInteger(env_, info[1], "capacity", 0, kMaxSafeInteger);
  const uint64_t deadline_ns = ReadDeadline(env_, info[2], "timeoutMs");
  const uint64_t given = OrThrow(env_, runtime().state().Publish(key, capacity, deadline_ns));
  return Napi::Number::New(env_, static_cast<double>(given));
}

Napi::Value WorkerWrap::StateUnpublish(const Napi::CallbackInfo& info) {
  const std::string key = ReadKey(env_, info[0]);
  const uint64_t deadline_ns = ReadDeadline(env_, info[1], "timeoutMs");
  return Napi::Boolean::New(env_, OrThrow(env_, runtime().state().Unpublish(key, deadline_ns)));
}

Napi::Value WorkerWrap::StateKeys(const Napi::CallbackInfo& info) {
  const std::string prefix = ReadText(env_, info[0], "prefix");
  OrThrow(env_, state::CheckUserKey(prefix));
  const std::string after = ReadText(env_, info[1], "after");
  const uint32_t limit = ReadUint32(env_, info[2], "limit");
  const uint64_t deadline_ns = ReadDeadline(env_, info[3], "timeoutMs");
  const std::vector<state::KeyInfo> infos = OrThrow(env_, runtime().state().Keys(prefix, after, limit, deadline_ns));
  Napi::Array array = Napi::Array::New(env_, infos.size());
  for (uint32_t index = 0; index < infos.size(); ++index) array.Set(index, InfoObject(env_, infos[index]));
  return array;
}

Napi::Value WorkerWrap::Lock(const Napi::CallbackInfo& info) {
  const uint64_t handle = ReadId(env_, info[0], "handle");
  const std::string name = ReadText(env_, info[1], "name");
  const auto mode =
      ReadLockMode(env_, info[2], "mode") ? state::StateStore::LockMode::kWrite : state::StateStore::LockMode::kRead;
  const uint64_t deadline_ns = ReadDeadline(env_, info[3], "timeoutMs");
  RequireRunning(handle);
  napi_deferred deferred = nullptr;
  napi_value promise = nullptr;
  const state::StateStore::LockTicket ticket = OrThrow(
      env_,
      runtime().state().Lock(name, mode, {.participant = runtime().attach().participant, .id = handle}, deadline_ns));
  const uint64_t id = next_lock_++;
  locks_.emplace(id, LockEntry{handle, ticket.holder, deadline_ns, nullptr});
  static_cast<void>(Checked(env_, napi_create_promise(env_, &deferred, &promise) == napi_ok ? promise : nullptr));
  if (ticket.granted) {
    static_cast<void>(napi_resolve_deferred(env_, deferred, Napi::BigInt::New(env_, id)));
  } else {
    locks_.at(id).deferred = deferred;
  }
  return CallObject(env_, id, promise);
}

void WorkerWrap::RejectLock(LockEntry& lock, const Status& why) noexcept {
  napi_deferred const deferred = std::exchange(lock.deferred, nullptr);
  if (deferred == nullptr) return;
  if (napi_value error = JsError(env_, why); error != nullptr)
    static_cast<void>(napi_reject_deferred(env_, deferred, error));
}

void WorkerWrap::Unlock(const Napi::CallbackInfo& info) {
  const auto found = locks_.find(ReadId(env_, info[0], "lock"));
  if (found == locks_.end()) {
    throw ToJsError(
        env_, Status(Code::kStateLockLost, "the lock is not held any more: it was released, or its invocation ended"));
  }
  RejectLock(found->second, Status(Code::kInvocationCancelled, "the lock was given up before it was granted"));
  const Status status = runtime().state().Unlock(found->second.holder, DeadlineIn(state::kReleaseNs));
  if (status.code() != Code::kSegmentStuck) locks_.erase(found);
  OrThrow(env_, status);
}

void WorkerWrap::SettleLocks() {
  const uint64_t now_ns = NowNs();
  for (auto entry = locks_.begin(); entry != locks_.end();) {
    auto& [id, lock] = *entry;
    const bool waits = lock.deferred != nullptr;
    if (waits && runtime().state().LockGranted(lock.holder)) {
      napi_value value = nullptr;
      napi_deferred const deferred = std::exchange(lock.deferred, nullptr);
      if (napi_create_bigint_uint64(env_, id, &value) == napi_ok) {
        static_cast<void>(napi_resolve_deferred(env_, deferred, value));
      }
    } else if (lock.given_up || (waits && now_ns >= lock.deadline_ns)) {
      RejectLock(lock, Status(Code::kStateLockTimeout, "the lock was not granted before the deadline"));
      const uint64_t within_ns = std::exchange(lock.given_up, true) ? kGiveUpAgainNs : kGiveUpNs;
      if (runtime().state().Unlock(lock.holder, DeadlineIn(within_ns)).code() != Code::kSegmentStuck) {
        entry = locks_.erase(entry);
        continue;
      }
    }
    ++entry;
  }
}

uint64_t WorkerWrap::NextLockDeadline() const noexcept {
  uint64_t next_ns = kNoDeadline;
  for (const auto& [id, lock] : locks_) {
    if (lock.deferred != nullptr) next_ns = std::min(next_ns, lock.deadline_ns);
    if (lock.given_up) next_ns = std::min(next_ns, DeadlineIn(kGiveUpEveryNs));
  }
  return next_ns;
}

void WorkerWrap::ReleaseHeld(uint64_t handle) noexcept {
  if (!pins_.empty()) {
    if (auto pins = pins_.extract(handle); !pins.empty()) {
      for (const uint32_t pin : pins.mapped()) runtime().state().Unpin(pin);
    }
  }
  for (auto entry = locks_.begin(); entry != locks_.end();) {
    LockEntry& lock = entry->second;
    if (lock.handle != handle) {
      ++entry;
      continue;
    }
    RejectLock(lock, Status(Code::kInvocationCancelled, "the invocation that waited for the lock has ended"));
    static_cast<void>(runtime().state().Unlock(lock.holder, DeadlineIn(state::kReleaseNs)));
    entry = locks_.erase(entry);
  }
}

}  // namespace praas::napi
