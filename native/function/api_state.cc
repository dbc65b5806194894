// praas.h: state and locks.

#include <algorithm>
#include <cstring>

#include "base/clock.h"
#include "function/context.h"
#include "function/runner.h"
#include "state/reserved.h"

namespace {

using praas::Code;
using praas::Result;
using praas::Status;
using praas::state::KeyInfo;
using praas::state::Pinned;
using praas::state::StateStore;

constexpr uint32_t kPageKeys = 256;
/// Between two looks at a lock, should nobody tell.
constexpr uint64_t kLockLookNs = 100'000'000;
/// To give up a lock that was not granted in time: longer than who is stopped inside the state lives.
constexpr uint64_t kGiveUpNs = 1'500'000'000;

StateStore& StoreOf(praas_context* context) noexcept { return context->runtime().state(); }

std::span<const std::byte> Bytes(const void* data, size_t bytes) noexcept {
  return {static_cast<const std::byte*>(data), bytes};
}

const std::byte* AddressOf(praas_context* context, const Pinned& pinned) noexcept {
  return context->runtime().segment().data() + pinned.offset;
}

/// Pinned until the invocation ends.
Result<Pinned> Hold(praas_context* context, Result<Pinned> pinned) {
  if (pinned.ok()) context->pins.push_back(pinned->pin);
  return pinned;
}

int NoteVersion(praas_context* context, const Result<uint64_t>& result, uint64_t* version) {
  if (!result.ok()) return context->Note(result.status());
  if (version != nullptr) *version = *result;
  return PRAAS_OK;
}

praas_key_info InfoOf(const KeyInfo& info, const char* key) noexcept {
  return {key, info.element_type, info.bytes, info.version, info.modified_wall_ns};
}

size_t ElementBytes(uint32_t type) noexcept {
  switch (type) {
    case PRAAS_INT8:
    case PRAAS_UINT8:
    case PRAAS_UINT8_CLAMPED:
      return 1;
    case PRAAS_INT16:
    case PRAAS_UINT16:
      return 2;
    case PRAAS_INT32:
    case PRAAS_UINT32:
    case PRAAS_FLOAT32:
      return 4;
    case PRAAS_FLOAT64:
    case PRAAS_INT64:
    case PRAAS_UINT64:
      return 8;
    default:
      return 0;
  }
}

int Set(praas_context* context, const char* key, const void* data, size_t bytes, std::optional<uint64_t> if_version,
        std::optional<uint64_t> offset, uint64_t* version) {
  if (Status status = praas::state::CheckUserKey(key); !status.ok()) return context->Note(status);
  return NoteVersion(context,
                     StoreOf(context).Set(
                         key, Bytes(data, bytes),
                         {.if_version = if_version, .offset = offset, .deadline_ns = context->invocation.deadline_ns}),
                     version);
}

}  // namespace

int praas_state_view(praas_context* context, const char* key, const void** data, size_t* bytes, uint64_t* version) {
  if (Status status = praas::state::CheckUserKey(key); !status.ok()) return context->Note(status);
  const Result<Pinned> pinned = Hold(context, StoreOf(context).Pin(key, context->invocation.deadline_ns));
  if (!pinned.ok()) return context->Note(pinned.status());
  *data = AddressOf(context, *pinned);
  *bytes = pinned->bytes;
  if (version != nullptr) *version = pinned->version;
  return PRAAS_OK;
}

int praas_state_get(praas_context* context, const char* key, void* buffer, size_t capacity, size_t* bytes,
                    uint64_t* version) {
  if (Status status = praas::state::CheckUserKey(key); !status.ok()) return context->Note(status);
  const Result<Pinned> pinned = StoreOf(context).Pin(key, context->invocation.deadline_ns);
  if (!pinned.ok()) return context->Note(pinned.status());
  if (const size_t copied = std::min<size_t>(capacity, pinned->bytes); copied > 0) {
    std::memcpy(buffer, AddressOf(context, *pinned), copied);
  }
  if (bytes != nullptr) *bytes = pinned->bytes;
  if (version != nullptr) *version = pinned->version;
  StoreOf(context).Unpin(pinned->pin);
  if (pinned->bytes <= capacity) return PRAAS_OK;
  return context->Note(Status(Code::kStateRange, '"' + std::string(key) + "\" has " + std::to_string(pinned->bytes) +
                                                     " bytes; there is room for " + std::to_string(capacity)));
}

int praas_state_set(praas_context* context, const char* key, const void* data, size_t bytes, uint64_t* version) {
  return Set(context, key, data, bytes, std::nullopt, std::nullopt, version);
}

int praas_state_set_if(praas_context* context, const char* key, const void* data, size_t bytes, uint64_t if_version,
                       uint64_t* version) {
  return Set(context, key, data, bytes, if_version, std::nullopt, version);
}

int praas_state_patch(praas_context* context, const char* key, size_t offset, const void* data, size_t bytes,
                      uint64_t* version) {
  return Set(context, key, data, bytes, std::nullopt, offset, version);
}

int praas_state_append(praas_context* context, const char* key, const void* data, size_t bytes, uint64_t* version) {
  if (Status status = praas::state::CheckUserKey(key); !status.ok()) return context->Note(status);
  return NoteVersion(context, StoreOf(context).Append(key, Bytes(data, bytes), context->invocation.deadline_ns),
                     version);
}

int praas_state_delete(praas_context* context, const char* key) {
  if (Status status = praas::state::CheckUserKey(key); !status.ok()) return context->Note(status);
  const Result<bool> existed = StoreOf(context).Delete(key, std::nullopt, context->invocation.deadline_ns);
  if (!existed.ok()) return context->Note(existed.status());
  if (*existed) return PRAAS_OK;
  return context->Note(Status(Code::kStateNotFound, "there is no key \"" + std::string(key) + '"'));
}

int praas_state_publish(praas_context* context, const char* key, size_t capacity, size_t* given) {
  if (Status status = praas::state::CheckUserKey(key); !status.ok()) return context->Note(status);
  const std::optional<uint64_t> wanted = capacity == 0 ? std::nullopt : std::optional<uint64_t>(capacity);
  const Result<uint64_t> published = StoreOf(context).Publish(key, wanted, context->invocation.deadline_ns);
  if (!published.ok()) return context->Note(published.status());
  if (given != nullptr) *given = *published;
  return PRAAS_OK;
}

int praas_state_unpublish(praas_context* context, const char* key) {
  if (Status status = praas::state::CheckUserKey(key); !status.ok()) return context->Note(status);
  const Result<bool> published = StoreOf(context).Unpublish(key, context->invocation.deadline_ns);
  if (!published.ok()) return context->Note(published.status());
  if (*published) return PRAAS_OK;
  return context->Note(Status(Code::kStateNotFound, "key \"" + std::string(key) + "\" is not published"));
}

int praas_state_stat(praas_context* context, const char* key, praas_key_info* info) {
  if (Status status = praas::state::CheckUserKey(key); !status.ok()) return context->Note(status);
  const Result<KeyInfo> found = StoreOf(context).Stat(key, context->invocation.deadline_ns);
  if (!found.ok()) return context->Note(found.status());
  *info = InfoOf(*found, key);
  return PRAAS_OK;
}

int praas_state_keys(praas_context* context, const char* prefix, int (*visit)(void*, const praas_key_info*),
                     void* argument) {
  if (Status status = praas::state::CheckUserKey(prefix); !status.ok()) return context->Note(status);
  std::string after;
  for (;;) {
    const Result<std::vector<KeyInfo>> keys =
        StoreOf(context).Keys(prefix, after, kPageKeys, context->invocation.deadline_ns);
    if (!keys.ok()) return context->Note(keys.status());
    for (const KeyInfo& key : *keys) {
      const praas_key_info info = InfoOf(key, key.key.c_str());
      if (visit(argument, &info) != 0) return PRAAS_OK;
    }
    if (keys->size() < kPageKeys) return PRAAS_OK;
    after = keys->back().key;
  }
}

int praas_state_array(praas_context* context, const char* key, uint32_t element_type, size_t count, void** data) {
  if (Status status = praas::state::CheckUserKey(key); !status.ok()) return context->Note(status);
  const size_t element_bytes = ElementBytes(element_type);
  if (element_bytes == 0) {
    return context->Note(Status(Code::kArgumentInvalid, "there is no element type " + std::to_string(element_type)));
  }
  if (count == 0 || count > SIZE_MAX / element_bytes) {
    return context->Note(Status(Code::kArgumentInvalid, "an array has at least one element"));
  }
  const Result<Pinned> array =
      Hold(context, StoreOf(context).Array(key, element_type, count * element_bytes, context->invocation.deadline_ns));
  if (!array.ok()) return context->Note(array.status());
  *data = const_cast<std::byte*>(AddressOf(context, *array));
  return PRAAS_OK;
}

int praas_state_lock(praas_context* context, const char* name, uint32_t mode, uint64_t timeout_ns, uint64_t* lock) {
  if (mode != PRAAS_LOCK_READ && mode != PRAAS_LOCK_WRITE) {
    return context->Note(Status(Code::kArgumentInvalid, "a lock is taken for reading (1) or for writing (2)"));
  }
  StateStore& store = StoreOf(context);
  const uint64_t deadline_ns = context->DeadlineOf(timeout_ns);
  const Result<StateStore::LockTicket> ticket =
      store.Lock(name, static_cast<StateStore::LockMode>(mode),
                 {.participant = context->runtime().attach().participant, .id = context->invocation.handle},
                 context->invocation.deadline_ns);
  if (!ticket.ok()) return context->Note(ticket.status());
  // No other calls meanwhile: one that waits for a lock further down on this stack would never get it.
  while (!ticket->granted && !store.LockGranted(ticket->holder)) {
    const uint64_t now_ns = praas::NowNs();
    if (now_ns >= deadline_ns) {
      // Who is stopped inside the store may hold this up for longer: the end of the invocation then gives it up.
      const Status status = store.Unlock(ticket->holder, praas::DeadlineIn(kGiveUpNs));
      if (status.code() == Code::kSegmentStuck) context->locks.push_back(ticket->holder);
      return context->Note(Status(Code::kStateLockTimeout, "the lock was not granted before the deadline"));
    }
    context->runner.Pause(std::min(deadline_ns, now_ns + kLockLookNs));
  }
  context->locks.push_back(ticket->holder);
  *lock = ticket->holder;
  return PRAAS_OK;
}

int praas_state_unlock(praas_context* context, uint64_t lock) {
  const auto held = std::find(context->locks.begin(), context->locks.end(), lock);
  if (held == context->locks.end()) {
    return context->Note(Status(Code::kStateLockLost, "this invocation does not hold the lock"));
  }
  const Status status = StoreOf(context).Unlock(*held, context->invocation.deadline_ns);
  if (status.code() != Code::kSegmentStuck) context->locks.erase(held);
  return context->Note(status);
}
