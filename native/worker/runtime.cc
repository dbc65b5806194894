#include "worker/runtime.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/clock.h"
#include "base/spin.h"
#include "worker/bridge.h"
#include "worker/core.h"
#include "worker/inbox.h"
#include "worker/intake.h"
#include "worker/lease.h"
#include "worker/nested.h"
#include "worker/peers.h"
#include "worker/result_areas.h"
#include "worker/results.h"
#include "worker/running.h"
#include "worker/streams.h"
#include "worker/watchdog.h"
#include "worker/windows.h"

namespace praas::worker {
namespace {

/// Of the doorbell among what a worker waits for.
constexpr uint32_t kBell = 1;
/// Of a polling loop, between two looks at the clock.
constexpr uint32_t kStepsPerClock = 16;

Status UnknownHandle() { return Status(Code::kArgumentInvalid, "no such invocation is running in this worker"); }

}  // namespace

/// The parts in the order they depend on each other: threads come last, so they end first.
struct WorkerRuntime::Parts {
  Parts(std::unique_ptr<Core> core_, std::unique_ptr<RunningTable> running_, Options options)
      : core(std::move(core_)),
        running(std::move(running_)),
        arena(segment::Arena::Data(core->segment, core->self)),
        state(core->segment, arena, core->self, &core->area),
        peers(*core),
        windows(*core, inbox,
                {.unmap = std::move(options.on_unmap),
                 .gone = [this](const window::ServerWindow& window) { areas.Forget(&window); },
                 .unwatch = [this](int fd) { lease.Unwatch(fd); }}),
        streams(*core),
        results(*core, *running, windows, streams, areas),
        nested(*core),
        watchdog({*core, inbox, peers, *running, results}, std::move(options.on_exit)),
        bridge(*core),
        lease(*core, inbox, *running, windows),
        intake({*core, inbox, *running, windows, results, watchdog, bridge, lease}) {}

  /// Moves notices from shared memory to where TakeNotices finds them. true: there are new ones.
  bool PullNotices() {
    const uint32_t fresh = core->dispatcher->TakeNotices();
    notices |= fresh;
    if ((fresh & dispatch::kNoticeWindow) != 0 && core->hot_ns != 0) windows.RequestUnpolled();
    return fresh != 0;
  }
  /// Until a bell (with `bells`), the eventfd, or the deadline. true: the eventfd is to be drained.
  bool Wait(bool bells, uint64_t deadline_ns) {
    bells = bells && core->doorbell().fd() >= 0;
    if (bells && HasWaiter()) {
      epoll_event ready[2];
      const int count = ::epoll_wait(waiter.get(), ready, 2, PollTimeoutMs(deadline_ns));
      if (count < 0 && errno != EINTR) Core::DescriptorLost();
      return count > 1 || (count == 1 && ready[0].data.u32 != kBell);
    }
    pollfd fds[] = {{core->event.get(), POLLIN, 0}, {core->doorbell().fd(), POLLIN, 0}};
    if (::poll(fds, bells ? 2 : 1, PollTimeoutMs(deadline_ns)) <= 0) return false;
    if (((fds[0].revents | fds[1].revents) & POLLNVAL) != 0) Core::DescriptorLost();
    return fds[0].revents != 0;
  }
  /// A bell wakes one of the workers that wait here and not all of them (EPOLLEXCLUSIVE): a thousand that all wake for
  /// each call would take a core for themselves. false: functions have left no descriptor for it.
  [[nodiscard]] bool HasWaiter() {
    if (waiter) return true;
    waiter.Reset(::epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{.events = EPOLLIN, .data = {}};
    epoll_event bell{.events = EPOLLIN | EPOLLEXCLUSIVE, .data = {.u32 = kBell}};
    if (!waiter || ::epoll_ctl(waiter.get(), EPOLL_CTL_ADD, core->event.get(), &event) != 0 ||
        ::epoll_ctl(waiter.get(), EPOLL_CTL_ADD, core->doorbell().fd(), &bell) != 0) {
      waiter.Reset();
    }
    return static_cast<bool>(waiter);
  }
  void DrainEvent() const noexcept {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t taken = ::read(core->event.get(), &count, sizeof count);
  }

  std::unique_ptr<Core> core;
  std::unique_ptr<RunningTable> running;
  segment::Arena arena;
  state::StateStore state;
  Inbox inbox;
  Peers peers;
  ResultAreas areas;
  Windows windows;
  Streams streams;
  Results results;
  NestedCalls nested;
  Watchdog watchdog;
  DoorbellBridge bridge;
  Lease lease;
  Intake intake;
  UniqueFd waiter;  // epoll; made when first needed
  uint32_t notices = 0;
  bool drain_seen = false;
};

WorkerRuntime::WorkerRuntime(std::unique_ptr<Parts> parts) noexcept : parts_(std::move(parts)) {}

WorkerRuntime::~WorkerRuntime() {
  // Nobody may hand this worker anything from here on. What it has claimed is the host's to fail.
  (void)parts_->windows.AbandonAll(false);
  if (auto bell = parts_->core->dispatcher->WithdrawCredit()) parts_->core->dispatcher->Ring(bell->index);
}

Result<std::unique_ptr<WorkerRuntime>> WorkerRuntime::Attach(UniqueFd control, Options options, uint64_t deadline_ns) {
  ControlSocket socket(std::move(control));
  auto received = socket.Receive(deadline_ns);
  if (!received.ok()) return received.status().WithContext("waiting for a process to serve");
  if (!received->has_value()) return Status(Code::kConnectionTimeout, "no process to serve until the deadline");
  ControlMessage message = std::move(**received);
  if (message.type != ControlType::kAttach) {
    return Status(Code::kProtocolInvalid, "the first control packet has to be kAttach");
  }
  auto segment = segment::Segment::Map(std::move(message.fds[0]), true);
  if (!segment.ok()) return segment.status();
  if (message.attach.participant >= segment->header().participants.committed.load(std::memory_order_acquire)) {
    return Status(Code::kSegmentInvalid,
                  "participant " + std::to_string(message.attach.participant) + " does not exist in the segment");
  }
  // A child that a function forks is no participant, and must not be able to act as one.
  ::madvise(segment->base(), static_cast<size_t>(segment->data() - segment->base()) + segment->data_bytes(),
            MADV_DONTFORK);
  auto area = publication::Area::Map(std::move(message.fds[4]));
  if (!area.ok()) return area.status().WithContext("publication area");
  ::madvise(area->memory().data(), area->bytes(), MADV_DONTFORK);
  const auto doorbell_kind = static_cast<dispatch::DoorbellKind>(message.attach.doorbell_kind);
  auto core = std::make_unique<Core>(std::move(message.attach), std::move(*segment), *std::move(area),
                                     std::move(message.fds[2]), std::move(message.fds[3]), std::move(socket));
  auto pool = window::Pool::Map(std::move(message.fds[1]), core->segment, core->self);
  if (!pool.ok()) return pool.status();
  core->pool = std::move(*pool);
  auto doorbells = dispatch::Doorbells::Open(core->segment, doorbell_kind, core->attach.queue_name, core->attach.lanes);
  if (!doorbells.ok()) return doorbells.status();
  core->doorbells = std::move(*doorbells);
  core->dispatcher =
      std::make_unique<dispatch::Dispatcher>(core->segment, *core->doorbells, core->self, core->attach.lane);
  auto running = RunningTable::Make(core->calls);
  if (!running.ok()) return running.status();

  auto parts = std::make_unique<Parts>(std::move(core), std::move(*running), std::move(options));
  Parts& made = *parts;
  made.core->dispatcher->SetWaker([&peers = made.peers](uint16_t participant) { peers.Signal(participant); });
  made.state.OnGrant([&dispatcher = *made.core->dispatcher](uint16_t participant) {
    dispatcher.Notify(participant, dispatch::kNoticeLock);
  });
  made.core->me.counters.attached_ns.store(NowNs(), std::memory_order_relaxed);
  made.core->CountAwake(true);
  made.watchdog.Start();
  return std::unique_ptr<WorkerRuntime>(new WorkerRuntime(std::move(parts)));
}

const struct Attach& WorkerRuntime::attach() const noexcept { return parts_->core->attach; }

Result<std::string> WorkerRuntime::WaitForLoad(uint64_t deadline_ns) {
  parts_->DrainEvent();
  if (auto load = parts_->inbox.WaitForLoad(deadline_ns)) return *std::move(load);
  if (parts_->inbox.host_lost()) return Status(Code::kHostLost, "the process host is gone");
  return Status(Code::kConnectionTimeout, "the process host has not said what to load");
}

Status WorkerRuntime::Ready(const std::vector<FunctionInfo>& functions) {
  parts_->intake.SetFunctions(functions);
  return parts_->core->control.Send({.type = ControlType::kReady, .functions = functions});
}

Status WorkerRuntime::Guard(bool without_state) {
  Core& core = *parts_->core;
  if (Status status = core.pool->ProtectPayloads(); !status.ok()) return status;
  const segment::Segment& segment = core.segment;
  if (without_state && ::mprotect(segment.data(), segment.data_bytes(), PROT_NONE) != 0) {
    return Status::System("mprotect of the state");
  }
  const std::span<std::byte> published = core.area.memory();
  if (without_state && ::mprotect(published.data(), published.size(), PROT_NONE) != 0) {
    return Status::System("mprotect of the publication area");
  }
  core.guarded.store(true, std::memory_order_release);
  return Status::Ok();
}

bool WorkerRuntime::guarded() const noexcept { return parts_->core->guarded.load(std::memory_order_relaxed); }

void WorkerRuntime::CloseUnusedAreas() noexcept { parts_->areas.CloseUnused(); }

Status WorkerRuntime::LoadFailed(std::string_view why) {
  return parts_->core->control.Send({.type = ControlType::kLoadFailed, .text = std::string(why)});
}

bool WorkerRuntime::draining() const noexcept { return parts_->inbox.draining(); }

void WorkerRuntime::Drained() { (void)parts_->core->control.Send({.type = ControlType::kDrained}); }

// -------------------------------------------------------------------------------------------------------------------
// taking calls

std::optional<Invocation> WorkerRuntime::TryNext(dispatch::Takes takes) { return parts_->intake.Next(takes); }

bool WorkerRuntime::LookOut() const noexcept {
  if (parts_->lease.has_sockets()) return false;  // a look at those is a system call: TryNext makes it
  return praas::LookOut([&intake = parts_->intake] { return intake.HasArrived(); });
}

bool WorkerRuntime::PrepareToSleep(dispatch::Takes takes) {
  Parts& parts = *parts_;
  // The eventfd is not drained: what was signalled before ends the wait once too often, which is rarer than sleeping.
  if (!parts.intake.PrepareToSleep(takes)) return false;
  const bool drain_news = draining() && !std::exchange(parts.drain_seen, draining());
  if (parts.PullNotices() || parts.nested.HasFinished() || parts.watchdog.TakeFresh() || drain_news) {
    parts.intake.Awake();
    return false;
  }
  return true;
}

void WorkerRuntime::Awake() {
  if (parts_->core->dedicated.load(std::memory_order_relaxed)) parts_->lease.Awake();
  parts_->DrainEvent();
  parts_->intake.Awake();
}

void WorkerRuntime::Sleep(dispatch::Takes takes, uint64_t deadline_ns) {
  Parts& parts = *parts_;
  const auto has_work = [&] {
    return parts.intake.HasWork(takes) || parts.nested.HasFinished() || parts.watchdog.fresh() ||
           parts.core->me.notices.load(std::memory_order_relaxed) != 0 || draining();
  };
  // A draining worker has nothing to be quick for, and its owner may have missed the news.
  if (parts.core->hot_ns != 0 && !draining()) {
    const auto hot_ns = parts.core->hot_ns < 0 ? kNoDeadline : static_cast<uint64_t>(parts.core->hot_ns);
    uint64_t until_ns = 0;  // not before it is needed: the clock takes as long as several looks
    for (SpinYield spin;; spin.Step()) {
      if (LookOut() || has_work()) {
        parts.PullNotices();
        (void)parts.watchdog.TakeFresh();
        return;
      }
      if (spin.steps() % kStepsPerClock != kStepsPerClock - 1) continue;
      if (until_ns == 0) until_ns = std::min(DeadlineIn(hot_ns), deadline_ns);
      if (NowNs() >= until_ns) break;
    }
  }
  if (NowNs() >= deadline_ns || !PrepareToSleep(takes)) return;
  if (parts.core->dedicated.load(std::memory_order_relaxed)) {
    if (parts.lease.Wait(deadline_ns)) parts.DrainEvent();
  } else if (parts.Wait(takes == dispatch::Takes::kAll && !draining(), deadline_ns)) {
    parts.DrainEvent();
  }
  parts.intake.Awake();
}

int WorkerRuntime::doorbell_fd() const noexcept {
  return parts_->core->dedicated.load(std::memory_order_acquire) ? parts_->lease.fd() : parts_->core->doorbell().fd();
}
int WorkerRuntime::event_fd() const noexcept { return parts_->core->event.get(); }
bool WorkerRuntime::dedicated() const noexcept { return parts_->core->dedicated.load(std::memory_order_acquire); }
int64_t WorkerRuntime::hot_ns() const noexcept { return parts_->core->hot_ns.load(std::memory_order_relaxed); }

// -------------------------------------------------------------------------------------------------------------------
// results

Result<Output> WorkerRuntime::AllocateOutput(uint64_t handle, uint64_t bytes) {
  Running* record = parts_->running->Find(handle);
  if (record == nullptr) return UnknownHandle();
  auto memory = parts_->results.Allocate(*record, bytes);
  if (!memory.ok()) return memory.status();
  return Output{*memory};
}

void WorkerRuntime::EndUnbegun(uint64_t handle) noexcept {
  if (const Running* record = parts_->running->Find(handle)) {
    parts_->core->dispatcher->UndoBegin(record->index, record->generation);
  }
  EndLost();
}

void WorkerRuntime::EndLost() noexcept { Core::DescriptorLost(); }

Status WorkerRuntime::Complete(uint64_t handle, std::span<const std::byte> result) {
  Running* record = parts_->running->Find(handle);
  if (record == nullptr) return UnknownHandle();
  Status status = parts_->results.Complete(*record, result);
  parts_->lease.Deliver();
  return status;
}

Status WorkerRuntime::Fail(uint64_t handle, Code code, std::string_view message) {
  Running* record = parts_->running->Find(handle);
  if (record == nullptr) return UnknownHandle();
  Status status = parts_->results.Fail(*record, code, message);
  parts_->lease.Deliver();
  return status;
}

bool WorkerRuntime::Cancelled(uint64_t handle) const noexcept {
  const Running* record = parts_->running->Find(handle);
  if (record == nullptr || (record->word.load(std::memory_order_acquire) & kRunningFlags) != 0) return true;
  if (record->window != nullptr &&
      (record->window->gone || record->window->window->cancelled(window::OriginCallIndex(record->origin_call),
                                                                 window::OriginSequence(record->origin_call)))) {
    return true;
  }
  return parts_->core->segment.call(record->index).cancel.load(std::memory_order_acquire) != 0;
}

std::vector<uint64_t> WorkerRuntime::TakeCancellations() {
  std::vector<uint64_t> cancelled;
  for (const uint64_t handle : parts_->watchdog.TakeExpired()) {
    Running* record = parts_->running->Find(handle);
    if (record == nullptr || std::exchange(record->cancellation_reported, true)) continue;
    cancelled.push_back(handle);
  }
  if (parts_->running->count() == 0) return cancelled;
  parts_->running->ForEach([&](Running& record) {
    const uint64_t handle = record.word.load(std::memory_order_relaxed) & ~kRunningFlags;
    if (record.cancellation_reported || !Cancelled(handle)) return;
    record.cancellation_reported = true;
    cancelled.push_back(handle);
  });
  return cancelled;
}

// -------------------------------------------------------------------------------------------------------------------
// streams

std::optional<WorkerRuntime::Chunk> WorkerRuntime::NextChunk(uint64_t handle) {
  Running* record = parts_->running->Find(handle);
  if (record == nullptr || record->stream == 0) return Chunk{{}, true, UnknownHandle()};
  auto chunk = parts_->streams.Next(*record);
  if (!chunk) return std::nullopt;
  return Chunk{chunk->bytes, chunk->end, std::move(chunk->status)};
}

Result<bool> WorkerRuntime::WriteChunk(uint64_t handle, std::span<const std::byte> bytes) {
  Running* record = parts_->running->Find(handle);
  if (record == nullptr || record->stream == 0) return UnknownHandle();
  return parts_->streams.Write(*record, bytes);
}

// -------------------------------------------------------------------------------------------------------------------
// nested calls

std::optional<uint32_t> WorkerRuntime::FindFunction(std::string_view name) const {
  return parts_->nested.FindFunction(name);
}

Result<uint64_t> WorkerRuntime::Post(uint32_t function, std::span<const std::byte> input, uint32_t flags,
                                     uint16_t depth, uint64_t deadline_ns) {
  return parts_->nested.Post(function, input, flags, depth, deadline_ns);
}

std::optional<NestedReply> WorkerRuntime::NextNested() { return parts_->nested.Next(); }
void WorkerRuntime::FreeNested(uint64_t call) { parts_->nested.Free(call); }
void WorkerRuntime::CancelNested(uint64_t call) { parts_->nested.Cancel(call); }

Result<NestedReply> WorkerRuntime::WaitNested(uint64_t call, uint64_t deadline_ns) {
  return parts_->nested.Wait(call, deadline_ns);
}

// -------------------------------------------------------------------------------------------------------------------

state::StateStore& WorkerRuntime::state() noexcept { return parts_->state; }
const segment::Segment& WorkerRuntime::segment() const noexcept { return parts_->core->segment; }

uint32_t WorkerRuntime::TakeNotices() {
  parts_->PullNotices();
  return std::exchange(parts_->notices, 0);
}

std::span<std::byte> WorkerRuntime::MappingOf(const std::byte* address) const noexcept {
  const segment::Segment& segment = parts_->core->segment;
  const std::span<std::byte> pool{parts_->core->pool->base(), parts_->core->pool->bytes()};
  const std::span<std::byte> state{segment.data(), segment.data_bytes()};
  for (const std::span<std::byte> mapping : {pool, state, parts_->running->scratch_mapping()}) {
    if (address >= mapping.data() && address < mapping.data() + mapping.size()) return mapping;
  }
  return parts_->windows.MappingOf(address);
}

WorkerRuntime::Backing WorkerRuntime::BackingOf(const std::byte* address) const noexcept {
  const window::Pool& pool = *parts_->core->pool;
  if (address >= pool.base() && address < pool.base() + pool.bytes()) return {pool.fd(), pool.base()};
  const window::ServerWindow* const window = parts_->windows.Containing(address);
  return window == nullptr ? Backing{} : Backing{window->memfd(), window->base()};
}

const ResultAreas& WorkerRuntime::areas() const noexcept { return parts_->areas; }

}  // namespace praas::worker
