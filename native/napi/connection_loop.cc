#include <utility>

#include "base/clock.h"
#include "base/spin.h"
#include "napi/buffers.h"
#include "napi/connection_wrap.h"
#include "napi/errors.h"
#include "napi/instance.h"
#include "napi/scope.h"

namespace praas::napi {

namespace {

constexpr size_t kSocket = 0;
/// Longest stay in one turn of the loop while replies keep coming: timers and I/O of the application wait that long.
constexpr uint64_t kLongestTurnNs = 200'000;
/// The clock (25 ns) is read once in so many fruitless polls.
constexpr uint32_t kPollsPerClock = 8;
/// A connection without calls for so long keeps no memory for the next ones.
constexpr uint64_t kRestNs = 2'000'000'000;

}  // namespace

bool ConnectionWrap::Lost() const noexcept { return !closed_ && !core_->connection->lost().ok(); }

bool ConnectionWrap::Busy() const noexcept {
  return !pending_.empty() || !streams_.empty() || !stream_events_.empty() || !lease_notices_.empty() ||
         (Lost() && !lost_reported_ && !lost_callback_.IsEmpty());
}

void ConnectionWrap::BecomeBusy() {
  last_activity_ns_ = NowNs();
  if (busy_ || watcher_ == nullptr) return;
  busy_ = true;
  Ref();
  watcher_->EveryTurn(true, true);
  // A call begun by what another connection's reply has set off comes after this turn's part for such handlers, and the
  // loop would block with nothing sent.
  watcher_->KeepTurning(true);
}

void ConnectionWrap::BecomeIdle() {
  if (!std::exchange(busy_, false)) return;
  if (watcher_ != nullptr) {
    watcher_->KeepTurning(false);
    watcher_->EveryTurn(false, false);
    watcher_->SetTimer(Lost() ? kNoDeadline : DeadlineIn(kRestNs));
  }
  Unref();
}

void ConnectionWrap::NoteEnd() noexcept { shared_->ended = closed_ || Lost() ? 1 : 0; }

size_t ConnectionWrap::Poll() {
  const size_t events = core_->connection->Poll(reply_sink_, stream_sink_);
  NoteEnd();
  return events;
}

void ConnectionWrap::OnReply(const transport::Reply& reply) {
  if (sync_.call != 0 && reply.call == sync_.call) {
    sync_.done = true;
    Result<napi_value> value = Decode(*sync_.pending, reply);
    if (value.ok()) {
      sync_.value = *value;
    } else {
      sync_.status = value.status();
    }
    return;
  }
  const auto found = pending_.find(reply.call);
  if (found == pending_.end()) return;
  Pending pending = std::move(found->second);
  pending_.erase(found);
  if (pending.deferred != nullptr) {
    Result<napi_value> value = Decode(pending, reply);
    settled_.push_back({pending.deferred, value.ok() ? *value : JsError(env_, value.status()), value.ok()});
  }
  Unpin(pending);
}

void ConnectionWrap::OnStreamEvent(const client::StreamEvent& event) {
  StreamEvent noted{event.call, event.kind, nullptr, event.room, event.status};
  if (event.kind == client::StreamEvent::Kind::kChunk) {
    napi_value bytes = CopyBytes(env_, event.chunk);
    if (bytes == nullptr || napi_create_reference(env_, bytes, 1, &noted.chunk) != napi_ok) return;
  }
  stream_events_.push_back(std::move(noted));
}

void ConnectionWrap::Settle() {
  for (const Settled& settled : settled_) {
    // Without a value (the environment is ending) nobody is left to see the promise settled.
    if (settled.value == nullptr) continue;
    static_cast<void>(settled.resolved ? napi_resolve_deferred(env_, settled.deferred, settled.value)
                                       : napi_reject_deferred(env_, settled.deferred, settled.value));
  }
  settled_.clear();
}

void ConnectionWrap::DeliverStreamEvents() {
  using Kind = client::StreamEvent::Kind;
  while (!stream_events_.empty()) {
    StreamEvent event = std::move(stream_events_.front());
    stream_events_.pop_front();
    HandleScope scope(env_);
    napi_value argument = nullptr;
    if (event.chunk != nullptr) {
      static_cast<void>(napi_get_reference_value(env_, event.chunk, &argument));
      static_cast<void>(napi_delete_reference(env_, event.chunk));
    }
    const auto stream = streams_.find(event.call);
    if (stream == streams_.end()) continue;
    napi_value events = stream->second.Value();
    const char* name = "chunk";
    if (event.kind == Kind::kRoom) {
      name = "room";
      static_cast<void>(napi_create_double(env_, static_cast<double>(event.room), &argument));
    } else if (event.kind == Kind::kEnd) {
      name = "end";
      static_cast<void>(napi_get_undefined(env_, &argument));
      if (!event.status.ok()) argument = JsError(env_, event.status);
      streams_.erase(stream);
    }
    napi_value callback = nullptr;
    if (argument == nullptr || napi_get_named_property(env_, events, name, &callback) != napi_ok ||
        napi_call_function(env_, events, callback, 1, &argument, nullptr) != napi_ok) {
      ReportException(env_);
    }
  }
}

void ConnectionWrap::ReportLost() {
  if (closed_ || !Lost()) return;
  // Nothing is told after this. Who would be told knows this object, and would keep it and its window for good.
  lease_callback_.Reset();
  if (lost_reported_ || lost_callback_.IsEmpty()) return;
  lost_reported_ = true;
  const Napi::FunctionReference callback = std::move(lost_callback_);
  napi_value error = JsError(env_, core_->connection->lost());
  napi_value undefined = nullptr;
  if (error == nullptr || napi_get_undefined(env_, &undefined) != napi_ok ||
      napi_call_function(env_, undefined, callback.Value(), 1, &error, nullptr) != napi_ok) {
    ReportException(env_);
  }
}

void ConnectionWrap::RejectAll(const Status& why) {
  for (auto& [call, pending] : pending_) {
    if (pending.deferred != nullptr) settled_.push_back({pending.deferred, JsError(env_, why), false});
    Unpin(pending);
  }
  pending_.clear();
  for (const auto& [call, events] : streams_) {
    stream_events_.push_back({call, client::StreamEvent::Kind::kEnd, nullptr, 0, why});
  }
}

bool ConnectionWrap::Work(uint64_t spin_ns) {
  const uint64_t began_ns = NowNs();
  SpinYield spin;
  for (;;) {
    HandleScope handles(env_);
    // Keeps this object from being collected while JavaScript runs below.
    if (Value().IsEmpty()) return false;
    const size_t events = Poll();
    const bool lost = Lost();
    if (events > 0 || !settled_.empty() || !stream_events_.empty() || !lease_notices_.empty() || lost) {
      if (lost) RejectAll(core_->connection->lost());
      {
        CallbackScope callbacks(env_, Instance::Of(env_).calls.get());
        Settle();
        DeliverStreamEvents();
        DeliverLeaseNotices();
        ReportLost();
      }
      if (watcher_ == nullptr) return false;  // JavaScript has called close()
      if (lost) {
        watcher_->Unwatch(0);
        watcher_->Unwatch(1);
        return false;
      }
      last_activity_ns_ = NowNs();
      if (last_activity_ns_ - began_ns > kLongestTurnNs) return spin_ns > 0;
      continue;
    }
    if (spin_ns == 0 || !Busy()) return false;
    if (spin.steps() % kPollsPerClock == 0 && NowNs() - last_activity_ns_ >= spin_ns) return false;
    spin.Step();
    core_->connection->LookOut();
  }
}

void ConnectionWrap::OnBeforeWait() {
  const bool goes_on = Work(spin_ns_);
  if (watcher_ == nullptr) return;
  // Only timers and I/O of the application had to have their turn: falling asleep would cost a wake-up.
  if (goes_on) return watcher_->KeepTurning(true);
  if (Lost()) {
    const HandleScope handles(env_);
    return BecomeIdle();
  }
  Rest();
}

/// Lets the loop block, if the core agrees; also the object rest, when nothing is in flight.
void ConnectionWrap::Rest() {
  client::Connection& connection = *core_->connection;
  if (!connection.PrepareToSleep()) {
    BecomeBusy();
    return watcher_->KeepTurning(true);
  }
  watcher_->KeepTurning(false);
  watcher_->Listen(kSocket, true, connection.wants_write());
  if (Busy()) return watcher_->SetTimer(connection.next_deadline_ns());
  const HandleScope handles(env_);
  BecomeIdle();
}

void ConnectionWrap::OnAfterWait() {}

void ConnectionWrap::OnReady() {
  static_cast<void>(Work(0));
  // Without calls in flight no OnBeforeWait follows.
  if (watcher_ != nullptr && !busy_ && !Lost()) Rest();
}

void ConnectionWrap::OnTimer() {
  if (!busy_) return core_->connection->Trim();
  static_cast<void>(Work(0));
}

}  // namespace praas::napi
