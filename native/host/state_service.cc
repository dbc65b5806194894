#include "host/state_service.h"

#include <algorithm>
#include <chrono>
#include <new>
#include <utility>

#include "base/clock.h"
#include "state/reserved.h"

namespace praas::host {
namespace {

using protocol::StateOp;
using protocol::StateReply;
using protocol::StateRequest;
using state::StateStore;

/// How long a single look at a lock may wait for the state's internal mutex; a stuck owner is killed well before.
constexpr uint64_t kMutexNs = 2'000'000'000;
/// What was not released by then is tried again so much later, for so long.
constexpr uint64_t kRetryPauseNs = 50'000'000;
constexpr uint64_t kRetryNs = 10'000'000;
/// How long a change of a value that others keep changing may take this thread. More than an append waits for another
/// one (state/rewrite.cc).
constexpr uint64_t kContentionNs = 250'000'000;

std::chrono::steady_clock::time_point ToTimePoint(uint64_t monotonic_ns) {
  return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(monotonic_ns));
}

protocol::KeyInfo ToWire(const state::KeyInfo& info) {
  return {.key = info.key,
          .kind = static_cast<uint32_t>(info.kind),
          .element_type = info.element_type,
          .bytes = info.bytes,
          .version = info.version,
          .modified_wall_ns = info.modified_wall_ns};
}

StateService::Answer Ok(StateOp op, const StateReply& reply) {
  return {.status = {}, .head = protocol::EncodeHead(op, reply), .data = {}, .place = {}};
}

Status TooLarge(const state::KeyInfo& info, uint64_t most) {
  return Status(Code::kPayloadTooLarge, '"' + info.key + "\" has " + std::to_string(info.bytes) + " bytes; at most " +
                                            std::to_string(most) + " travel at once, read it in parts");
}

StateService::Answer Error(Status status) { return {.status = std::move(status), .head = {}, .data = {}, .place = {}}; }

}  // namespace

StateService::StateService(EventLoop& loop, Process& process) : loop_(loop), process_(process) {
  process_.state->LimitContention(kContentionNs);
  thread_ = std::thread([this] { Run(); });
}

StateService::~StateService() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    jobs_.clear();
  }
  work_.notify_one();
  thread_.join();
}

void StateService::Push(std::function<void()> run, bool first) {
  {
    std::lock_guard lock(mutex_);
    if (stop_) return;
    if (first) {
      jobs_.push_front(std::move(run));
    } else {
      jobs_.push_back(std::move(run));
    }
    pending_.fetch_add(1, std::memory_order_relaxed);
  }
  work_.notify_one();
}

void StateService::LocksChanged() noexcept {
  {
    std::lock_guard lock(mutex_);
    look_at_locks_ = true;
  }
  work_.notify_one();
}

void StateService::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    const auto something = [this] { return stop_ || look_at_locks_ || !jobs_.empty(); };
    if (const uint64_t deadline_ns = NextDeadline(); deadline_ns == kNoDeadline) {
      work_.wait(lock, something);
    } else {
      work_.wait_until(lock, ToTimePoint(deadline_ns), something);
    }
    if (stop_) return;
    look_at_locks_ = false;
    std::function<void()> job;
    if (!jobs_.empty()) {
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    lock.unlock();
    if (job) {
      job();
      pending_.fetch_sub(1, std::memory_order_relaxed);
    }
    if (!waiting_.empty()) LookAtLocks();
    if (!unreleased_.empty() && NowNs() >= retry_ns_) ReleaseRest();
    job = nullptr;  // what it captured goes outside the lock
    lock.lock();
  }
}

void StateService::Post(Reply reply, Answer answer) {
  loop_.Post(
      [reply = std::move(reply), answer = std::make_shared<Answer>(std::move(answer))] { reply(std::move(*answer)); });
}

void StateService::Request(uint64_t session, uint64_t call, uint16_t op, Payload payload, uint64_t deadline_ns,
                           Reply reply) {
  Push([this, session, call, op, payload = std::move(payload), deadline_ns,
        reply = std::move(reply)] { Serve(session, call, op, payload.bytes, deadline_ns, reply); },
       false);
}

void StateService::Cancel(uint64_t session, uint64_t call) {
  Push(
      [this, session, call] {
        for (auto waiting = waiting_.begin(); waiting != waiting_.end(); ++waiting) {
          if (waiting->second.session != session || waiting->second.call != call) continue;
          const uint32_t holder = waiting->first;
          Release([this, holder](uint64_t deadline_ns) { return process_.state->Unlock(holder, deadline_ns); });
          Post(std::move(waiting->second.reply),
               Error(Status(Code::kInvocationCancelled, "the lock request was cancelled")));
          waiting_.erase(waiting);
          return;
        }
      },
      false);
}

void StateService::EndSession(uint64_t session) {
  Push(
      [this, session] {
        std::erase_if(waiting_, [&](const auto& waiting) { return waiting.second.session == session; });
        std::erase_if(held_, [&](const auto& held) { return held.second == session; });
        Release([this, session](uint64_t deadline_ns) {
          return process_.state->UnlockAll({dispatch::kHostParticipant, session}, deadline_ns);
        });
      },
      false);
}

void StateService::Chore(std::function<void()> work, std::function<void()> done) {
  Push(
      [this, work = std::move(work), done = std::move(done)] {
        work();
        loop_.Post(done);
      },
      true);
}

void StateService::Serve(uint64_t session, uint64_t call, uint16_t op, std::span<const std::byte> payload,
                         uint64_t deadline_ns, Reply reply) {
  Result<StateRequest> request = protocol::DecodeStateRequest(op, payload);
  if (!request) return Post(std::move(reply), Error(request.status()));
  Status named = state::CheckUserKey(request->key);
  if (named.ok()) named = state::CheckUserKey(request->prefix);
  if (!named.ok()) return Post(std::move(reply), Error(std::move(named)));
  // However late: who has asked for it believes that the lock is free, and nobody else would release it.
  if (request->op == StateOp::kUnlock) return Unlock(session, request->lock, std::move(reply));
  if (NowNs() >= deadline_ns) {
    return Post(std::move(reply), Error(Status(Code::kInvocationTimeout, "the state request missed its deadline")));
  }
  if (request->op == StateOp::kLock) return Lock(session, call, *request, deadline_ns, std::move(reply));
  Post(std::move(reply), Execute(*request, deadline_ns));
}

StateService::Answer StateService::Execute(const StateRequest& request, uint64_t deadline_ns) {
  StateStore& store = *process_.state;
  StateReply reply;
  switch (request.op) {
    case StateOp::kGet:
      return Get(request, deadline_ns);
    case StateOp::kSet: {
      Result<uint64_t> version =
          store.Set(request.key, request.data,
                    {.if_version = request.version, .offset = request.offset, .deadline_ns = deadline_ns});
      if (!version) return Error(version.status());
      reply.version = *version;
      return Ok(request.op, reply);
    }
    case StateOp::kAppend: {
      Result<uint64_t> version = store.Append(request.key, request.data, deadline_ns);
      if (!version) return Error(version.status());
      reply.version = *version;
      return Ok(request.op, reply);
    }
    case StateOp::kDelete: {
      Result<bool> existed = store.Delete(request.key, request.version, deadline_ns);
      if (!existed) return Error(existed.status());
      reply.existed = *existed;
      return Ok(request.op, reply);
    }
    case StateOp::kStat: {
      Result<state::KeyInfo> info = store.Stat(request.key, deadline_ns);
      if (!info) return Error(info.status());
      reply.infos.push_back(ToWire(*info));
      return Ok(request.op, reply);
    }
    case StateOp::kKeys: {
      Result<std::vector<state::KeyInfo>> infos =
          store.Keys(request.prefix, request.after, std::min(request.limit, protocol::kMaxKeysPerReply), deadline_ns);
      if (!infos) return Error(infos.status());
      for (const state::KeyInfo& info : *infos) reply.infos.push_back(ToWire(info));
      return Ok(request.op, reply);
    }
    case StateOp::kRead:
      return Read(request, deadline_ns);
    case StateOp::kPublish: {
      Result<uint64_t> capacity = store.Publish(request.key, request.capacity, deadline_ns);
      if (!capacity) return Error(capacity.status());
      reply.capacity = *capacity;
      return Ok(request.op, reply);
    }
    case StateOp::kUnpublish: {
      Result<bool> existed = store.Unpublish(request.key, deadline_ns);
      if (!existed) return Error(existed.status());
      reply.existed = *existed;
      return Ok(request.op, reply);
    }
    case StateOp::kLock:
    case StateOp::kUnlock:
      break;
  }
  return Error(Status(Code::kProtocolInvalid, "unknown state operation"));
}

StateService::Answer StateService::Get(const StateRequest& request, uint64_t deadline_ns) {
  StateStore& store = *process_.state;
  Result<state::KeyInfo> info = store.Stat(request.key, deadline_ns);
  if (!info) return Error(info.status());
  const uint64_t offset = request.offset.value_or(0);
  if (offset > info->bytes) {
    return Error(Status(Code::kStateRange, "offset " + std::to_string(offset) + " lies behind the " +
                                               std::to_string(info->bytes) + " bytes of \"" + request.key + "\""));
  }
  const uint64_t wanted = std::min(request.length.value_or(info->bytes - offset), info->bytes - offset);
  if (wanted > process_.assignment.max_contiguous) {
    return Error(Status(Code::kPayloadTooLarge,
                        "\"" + request.key + "\" has " + std::to_string(wanted) + " bytes; at most " +
                            std::to_string(process_.assignment.max_contiguous) + " travel at once, read it in parts"));
  }
  Answer answer;
  const bool whole = !request.offset && !request.length;
  if (whole) {
    state::KeyInfo of_data;
    Result<std::vector<std::byte>> bytes = store.Get(request.key, deadline_ns, &of_data);
    if (!bytes) return Error(bytes.status());
    if (bytes->size() > process_.assignment.max_contiguous) {
      return Error(Status(Code::kPayloadTooLarge, "\"" + request.key + "\" has grown beyond what travels at once"));
    }
    *info = std::move(of_data);
    answer.data = std::move(*bytes);
  } else if (wanted > 0) {
    try {
      answer.data.resize(wanted);
    } catch (const std::bad_alloc&) {
      return Error(Status(Code::kSystem, "the host has no memory for a copy of \"" + request.key + '"', ENOMEM));
    }
    Result<uint64_t> got = store.Read(request.key, offset, answer.data, deadline_ns);
    if (!got) return Error(got.status());
    answer.data.resize(*got);
  }
  StateReply reply;
  reply.infos.push_back(ToWire(*info));
  reply.data = answer.data;
  answer.head = protocol::EncodeHead(StateOp::kGet, reply);
  return answer;
}

/// For a reader that could not help itself: so the copy is made current, should whoever had to have died, and the place
/// of the copy is told.
StateService::Answer StateService::Read(const StateRequest& request, uint64_t deadline_ns) {
  StateStore& store = *process_.state;
  (void)store.Renew(request.key, deadline_ns).ok();  // the answer does not depend on it
  StateReply reply;
  Result<std::optional<publication::Location>> location = store.Locate(request.key, deadline_ns);
  if (!location) return Error(location.status());
  reply.place = location.value();
  Answer answer;
  answer.place = location.value();
  Result<state::KeyInfo> info = store.Stat(request.key, deadline_ns);
  if (info && info->bytes > process_.assignment.max_contiguous) {
    return Error(TooLarge(*info, process_.assignment.max_contiguous));
  }
  if (info) {
    // Looked at anew with its bytes: it may have changed, and gone.
    Result<std::vector<std::byte>> bytes = store.Get(request.key, deadline_ns, &*info);
    if (bytes && info->kind == state::KeyKind::kArray) {
      return Error(Status(
          Code::kStateType,
          "state key \"" + request.key + "\" holds an array, which is changed in place; get copies it as it is"));
    }
    if (bytes && bytes->size() > process_.assignment.max_contiguous) {
      return Error(TooLarge(*info, process_.assignment.max_contiguous));
    }
    if (bytes) {
      reply.existed = true;
      reply.version = info->version;
      answer.data = std::move(*bytes);
    } else if (bytes.status().code() != Code::kStateNotFound) {
      return Error(bytes.status());
    }
  } else if (info.status().code() != Code::kStateNotFound) {
    return Error(info.status());
  }
  reply.data = answer.data;
  answer.head = protocol::EncodeHead(StateOp::kRead, reply);
  return answer;
}

void StateService::Lock(uint64_t session, uint64_t call, const StateRequest& request, uint64_t deadline_ns,
                        Reply reply) {
  const auto mode =
      request.mode == protocol::LockMode::kWrite ? StateStore::LockMode::kWrite : StateStore::LockMode::kRead;
  Result<StateStore::LockTicket> ticket = process_.state->Lock(request.key, mode, {dispatch::kHostParticipant, session},
                                                               std::min(deadline_ns, DeadlineIn(kMutexNs)));
  if (!ticket) return Post(std::move(reply), Error(ticket.status()));
  if (!ticket->granted) {
    waiting_.emplace(ticket->holder, Waiting{session, call, deadline_ns, std::move(reply)});
    return;
  }
  held_[ticket->holder] = session;
  StateReply granted;
  granted.lock = ticket->holder;
  Post(std::move(reply), Ok(StateOp::kLock, granted));
}

void StateService::Unlock(uint64_t session, uint64_t lock, Reply reply) {
  // A client can name any number: only its own locks count.
  const auto held = lock <= UINT32_MAX ? held_.find(static_cast<uint32_t>(lock)) : held_.end();
  if (held == held_.end() || held->second != session) {
    return Post(std::move(reply),
                Error(Status(Code::kStateLockLost, "this connection does not hold lock " + std::to_string(lock))));
  }
  const uint32_t holder = held->first;
  held_.erase(held);
  Release([this, holder, reply = std::move(reply)](uint64_t deadline_ns) {
    Status status = process_.state->Unlock(holder, deadline_ns);
    if (status.code() != Code::kSegmentStuck) {
      Post(reply, status.ok() ? Ok(StateOp::kUnlock, {}) : Error(status));
    }
    return status;
  });
}

/// Whoever has the state's mutex gives it back sooner or later, and nobody else would release what is released here.
/// Other failures mean that the state is broken for good; its locks then go with the host.
void StateService::Release(std::function<Status(uint64_t deadline_ns)> release) {
  if (unreleased_.empty() && release(DeadlineIn(kMutexNs)).code() != Code::kSegmentStuck) return;
  if (unreleased_.empty()) retry_ns_ = DeadlineIn(kRetryPauseNs);
  unreleased_.push_back(std::move(release));
  pending_.fetch_add(1, std::memory_order_relaxed);
}

void StateService::ReleaseRest() {
  while (!unreleased_.empty() && unreleased_.front()(DeadlineIn(kRetryNs)).code() != Code::kSegmentStuck) {
    unreleased_.pop_front();
    pending_.fetch_sub(1, std::memory_order_relaxed);
  }
  retry_ns_ = unreleased_.empty() ? kNoDeadline : DeadlineIn(kRetryPauseNs);
}

uint64_t StateService::NextDeadline() const noexcept {
  uint64_t next = retry_ns_;
  for (const auto& [holder, waiting] : waiting_) next = std::min(next, waiting.deadline_ns);
  return next;
}

void StateService::LookAtLocks() {
  const uint64_t now = NowNs();
  for (auto waiting = waiting_.begin(); waiting != waiting_.end();) {
    const uint32_t holder = waiting->first;
    const bool granted = process_.state->LockGranted(holder);
    if (!granted && waiting->second.deadline_ns > now) {
      ++waiting;
      continue;
    }
    if (granted) {
      held_[holder] = waiting->second.session;
      StateReply reply;
      reply.lock = holder;
      Post(std::move(waiting->second.reply), Ok(StateOp::kLock, reply));
    } else {
      Release([this, holder](uint64_t deadline_ns) { return process_.state->Unlock(holder, deadline_ns); });
      Post(std::move(waiting->second.reply),
           Error(Status(Code::kStateLockTimeout, "the lock was not granted in time")));
    }
    waiting = waiting_.erase(waiting);
  }
}

}  // namespace praas::host
