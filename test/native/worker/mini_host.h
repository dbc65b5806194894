#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/spin.h"
#include "dispatch/dispatcher.h"
#include "dispatch/stream_channel.h"
#include "mqueue/message_queue.h"
#include "publication/area.h"
#include "segment/arena_head.h"
#include "segment/segment.h"
#include "state/state_store.h"
#include "support/child.h"
#include "window/client_window.h"
#include "window/intake.h"
#include "window/pool.h"
#include "window/server_window.h"
#include "worker/control.h"
#include "worker/runtime.h"

namespace praas::worker {

/// Long enough for a loaded machine under a sanitizer; waiting this long means that something was lost.
inline constexpr uint64_t kWatchdogNs = 60'000'000'000;
inline constexpr uint64_t kSecondNs = 1'000'000'000;
inline constexpr uint64_t kMilliNs = 1'000'000;
/// Of a deadline that passes while a function runs: long enough for it to have begun before, on a busy machine, too.
inline constexpr uint64_t kBriefNs = 500 * kMilliNs;

inline UniqueFd Duplicate(int fd) { return UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

/// Waits for `there` by looking, so that no wake-up of the code under test is needed for it.
template <typename There>
[[nodiscard]] bool Eventually(There there) {
  const uint64_t deadline_ns = DeadlineIn(kWatchdogNs);
  for (SpinYield spin; !there(); spin.Step()) {
    if (spin.steps() % 1024 == 1023) {
      if (NowNs() > deadline_ns) return false;
      ::usleep(100);
    }
  }
  return true;
}

/// The parts of a process host that a worker needs, without connections: segment, pool, dispatcher, control sockets,
/// and a thread that answers what workers ask.
class MiniHost {
 public:
  struct Options {
    int64_t hot_ns = 0;
    uint32_t concurrency = 16;
    uint64_t grace_ns = 100 * kMilliNs;
    uint64_t max_contiguous = 64u << 20;
    uint64_t pool_bytes = 256u << 20;
    uint32_t calls = 128;
    bool futex = false;
    bool refuses_windows = false;  // to workers that ask for them
  };

  explicit MiniHost(const Options& options) : options_(options) {
    static std::atomic<int> count{0};
    name_ = "/praas-test-worker-" + std::to_string(::getpid()) + "-" + std::to_string(++count);
    auto segment = segment::Segment::CreateOrAttach({.name = name_,
                                                     .process_id = "worker-test",
                                                     .memory_bytes = 16u << 20,
                                                     .pool_bytes = options.pool_bytes,
                                                     .calls = options.calls,
                                                     .format = state::StateStore::Format});
    Check(segment.status(), segment.ok());
    segment_ = std::make_unique<segment::Segment>(std::move(*segment));
    Check(segment_->Commit(segment_->header().windows, 8));
    segment_->header().windows_used.store(8);
    Check(segment_->Commit(segment_->header().functions, 8));
    Check(segment_->Commit(segment_->header().streams, 4));
    auto pool = window::Pool::Create(*segment_);
    Check(pool.status(), pool.ok());
    pool_ = std::move(*pool);
    area_.emplace(publication::Area::Create(publication::kMinAreaBytes).value());
    if (options.futex) ::setenv("PRAAS_DOORBELL", "futex", 1);
    std::string why;
    auto doorbells = dispatch::Doorbells::Create(*segment_, name_, {true, false}, &why);
    ::unsetenv("PRAAS_DOORBELL");
    Check(doorbells.status(), doorbells.ok());
    doorbells_ = std::move(*doorbells);
    dispatcher_ = std::make_unique<dispatch::Dispatcher>(*segment_, *doorbells_, dispatch::kHostParticipant);
    for (UniqueFd& event : events_) event = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    dispatcher_->SetWaker([this](uint16_t participant) { Signal(participant); });
  }

  ~MiniHost() {
    stop_.store(true);
    if (service_.joinable()) service_.join();
    EXPECT_TRUE(segment::Segment::Unlink(name_).ok());
    EXPECT_TRUE(mqueue::MessageQueue::Unlink(name_).ok());
  }
  MiniHost(const MiniHost&) = delete;

  [[nodiscard]] segment::Segment& segment() { return *segment_; }
  [[nodiscard]] dispatch::Dispatcher& dispatcher() { return *dispatcher_; }
  [[nodiscard]] window::Pool& pool() { return *pool_; }
  [[nodiscard]] dispatch::Counters& counters(uint16_t worker) { return segment_->participant(worker).counters; }
  [[nodiscard]] dispatch::CallWord WordOf(uint32_t index) {
    return dispatch::CallWord::Unpack(segment_->call(index).word.load());
  }

  // --- workers ---
  /// The worker's end of a new control socket; kAttach and kLoad already lie in it. `dedicated`: to be leased.
  [[nodiscard]] UniqueFd AddWorker(uint16_t index, bool dedicated = false) {
    auto pair = ControlSocket::Pair();
    Check(pair.status(), pair.ok());
    dispatch::Participant& participant = segment_->participant(index);
    const uint32_t generation = participant.generation.fetch_add(1) + 1;
    participant.kind = static_cast<uint32_t>(dispatch::WorkerKind(dispatch::Lane::kNode));
    participant.state.store(static_cast<uint32_t>(dispatch::ParticipantState::kStarting));
    auto socket = std::make_shared<ControlSocket>(std::move(pair->first));
    ControlMessage attach{.type = ControlType::kAttach};
    attach.attach = {.participant = index,
                     .generation = generation,
                     .doorbell_kind = static_cast<uint32_t>(doorbells_->kind()),
                     .lanes = doorbells_->lanes(),
                     .queue_name = name_,
                     .hot_ns = options_.hot_ns,
                     .concurrency = options_.concurrency,
                     .grace_ns = options_.grace_ns,
                     .default_timeout_ns = 30 * kSecondNs,
                     .max_contiguous = options_.max_contiguous,
                     .process_id = "worker-test"};
    for (const int fd : {segment_->fd(), pool_->fd(), events_[index].get(), events_[0].get(), area_->fd()}) {
      attach.fds.push_back(Duplicate(fd));
    }
    Check(socket->Send(attach));
    Check(socket->Send({.type = ControlType::kLoad, .index = dedicated ? 1u : 0u, .text = "{}"}));
    const std::lock_guard lock(mutex_);
    ready_state_[index] = dedicated ? dispatch::ParticipantState::kLeased : dispatch::ParticipantState::kReady;
    links_[index] = std::move(socket);
    return std::move(pair->second);
  }
  /// Starts the thread that answers workers: fork before.
  void AnswerWorkers() {
    if (!service_.joinable()) service_ = std::thread([this] { Serve(); });
  }
  /// AnswerWorkers, too.
  [[nodiscard]] bool AwaitReady(uint16_t index) {
    AnswerWorkers();
    return Eventually(
        [&] { return segment_->participant(index).state.load() == static_cast<uint32_t>(ready_state_.at(index)); });
  }
  /// Gives a dedicated worker a lease, and the window that was opened for it.
  void Lease(uint16_t worker, uint32_t window, int64_t hot_ns) {
    const LeaseTerms terms{.lease = worker, .hot_ns = hot_ns, .expires_ns = DeadlineIn(10 * kWatchdogNs)};
    Check(Link(worker)->Send({.type = ControlType::kLease, .terms = terms}));
    const window::ServerWindow::Created& created = windows_.at(window).created;
    ControlMessage given{.type = ControlType::kLeaseWindow,
                         .index = window,
                         .generation = segment_->window(window).generation.load(),
                         .terms = {.lease = worker}};
    for (const UniqueFd* fd : {&created.memfd, &created.complete_event, &created.submit_event}) {
      given.fds.push_back(Duplicate(fd->get()));
    }
    Check(Link(worker)->Send(given));
  }
  void EndLease(uint16_t worker) {
    Check(Link(worker)->Send({.type = ControlType::kLeaseEnd, .terms = {.lease = worker}}));
  }
  [[nodiscard]] bool HasLeft(uint16_t index) const { return left_[index].load(); }  // its lease
  void Drain(uint16_t index) { Check(Link(index)->Send({.type = ControlType::kDrain})); }
  [[nodiscard]] bool AwaitDrained(uint16_t index) {
    return Eventually([&] { return drained_[index].load(); });
  }
  void CloseControl(uint16_t index) {
    const std::lock_guard lock(mutex_);
    links_.erase(index);
  }
  /// In a forked worker: the host's ends of the control sockets are the host's alone.
  void ForgetLinks() { links_.clear(); }
  /// What a host does once a worker has ended (host/reclaim.h): frees what it owned and what it was writing, fails or
  /// re-queues its calls, gives its rings back.
  void Bury(uint16_t dead) {
    using dispatch::CallState;
    segment_->participant(dead).state.store(static_cast<uint32_t>(dispatch::ParticipantState::kDead));
    const auto owned = [&](uint32_t, const segment::Block& block) {
      return block.owner.kind == segment::BlockOwner::Kind::kParticipant && block.owner.participant == dead;
    };
    Reclaimed(pool_->inputs(), owned);
    Reclaimed(pool_->outputs(), owned);
    for (uint32_t index = 0; index < options_.calls; ++index) {
      const dispatch::CallWord word = WordOf(index);
      dispatch::CallEntry& entry = segment_->call(index);
      const bool ran = word.state == CallState::kClaimed || word.state == CallState::kCompleting;
      if (!ran || word.owner != dead || entry.kind == dispatch::CallKind::kStream) continue;
      Reclaimed(pool_->outputs(), OfCall(index));
      if (entry.output.place != dispatch::Place::kWindow) entry.output = {};
    }
    dispatcher_->ReclaimParticipant(dead, [&](uint32_t index, dispatch::Dispatcher::Orphan what) {
      dispatch::CallEntry& entry = segment_->call(index);
      if (what == dispatch::Dispatcher::Orphan::kDrop || entry.kind == dispatch::CallKind::kStream) {
        Reclaimed(pool_->inputs(), OfCall(index));
        Reclaimed(pool_->outputs(), OfCall(index));
        entry.input = {};
        entry.output = {};
      }
      if (what == dispatch::Dispatcher::Orphan::kDrop) {
        entry.origin_call = UINT64_MAX;
        return dispatcher_->Free(index);
      }
      entry.status = static_cast<uint32_t>(Code::kWorkerCrashed);
      if (entry.origin == dispatch::Origin::kWindow) {
        windows_.at(entry.origin_index)
            .server->CompleteError(window::OriginCallIndex(entry.origin_call),
                                   window::OriginSequence(entry.origin_call), entry.status, {});
        return dispatcher_->Free(index);
      }
      entry.output = {};
      dispatcher_->FinishCompletion(index);
    });
    for (auto& [index, window] : windows_) {
      // What lies in the ring of a leased worker is nobody else's: its client's session ends (EndSession).
      if (window.server->Reclaim(dead) && window.worker == 0) ConsumeWindow(index);
    }
    for (uint32_t index = 0; index < options_.calls; ++index) {
      const dispatch::CallEntry& entry = segment_->call(index);
      if (WordOf(index).state != CallState::kParked) continue;
      windows_.at(entry.origin_index)
          .server->NeedRoomStill(window::OriginCallIndex(entry.origin_call), window::OriginSequence(entry.origin_call),
                                 index, entry.output.bytes);
    }
  }
  /// What a worker's kReady does to the segment. Those of the first worker: the others' are the same, and may be read
  /// by now.
  void SetFunctions(const std::vector<FunctionInfo>& functions) {
    if (segment_->header().function_count.load() != 0) return;
    for (size_t i = 0; i < functions.size() && i < 8; ++i) {
      segment::Function& function = segment_->function(static_cast<uint32_t>(i));
      function.name.size = static_cast<uint8_t>(functions[i].name.size());
      std::memcpy(function.name.bytes, functions[i].name.data(), functions[i].name.size());
      function.flags = functions[i].flags;
    }
    segment_->header().function_count.store(static_cast<uint32_t>(functions.size()));
  }
  [[nodiscard]] uint32_t relays() const { return relays_.load(); }

  // --- calls of the host ---
  struct CallOptions {
    uint64_t deadline_ns = 0;  // 0: the watchdog of the tests
    uint16_t flags = 0;
    uint32_t stream = 0;
  };
  uint32_t Post(uint32_t function, std::span<const std::byte> input) { return Post(function, input, CallOptions()); }
  uint32_t Post(uint32_t function, std::span<const std::byte> input, const CallOptions& options) {
    const auto index = dispatcher_->Reserve();
    EXPECT_TRUE(index.has_value());
    dispatch::CallEntry& entry = segment_->call(*index);
    entry.function = function;
    entry.origin = dispatch::Origin::kHost;
    entry.origin_index = 0;
    entry.origin_call = 0;
    entry.kind = options.stream != 0 ? dispatch::CallKind::kStream : dispatch::CallKind::kInvoke;
    entry.stream = options.stream;
    entry.deadline_ns = options.deadline_ns != 0 ? options.deadline_ns : DeadlineIn(kWatchdogNs);
    entry.flags = options.flags;
    entry.depth = 0;
    entry.deaths = 0;
    entry.output = {};
    entry.input = {};
    if (input.size() > dispatch::kSlotInputBytes) {
      auto block = pool_->inputs().Allocate(input.size(), dispatch::CallBlockOwner(*index), DeadlineIn(kWatchdogNs));
      Check(block.status(), block.ok());
      entry.input = {block->offset, input.size(), block->block, dispatch::Place::kPoolInput, {}};
      std::memcpy(pool_->base() + block->offset, input.data(), input.size());
    } else if (!input.empty()) {
      std::memcpy(pool_->slot_input(*index).data(), input.data(), input.size());
      entry.input = pool_->InputSlot(*index, input.size());
    }
    if (options.stream != 0) dispatch::ResetStream(Stream(options.stream), *index);
    dispatcher_->Post(*index);
    return *index;
  }
  [[nodiscard]] dispatch::StreamRing& Stream(uint32_t stream) {
    return segment_->At<dispatch::StreamRing>(segment_->header().streams, stream - 1);
  }

  struct Reply {
    uint32_t index = 0;
    Code code{};
    std::vector<std::byte> payload{};
    dispatch::Place place{};
    [[nodiscard]] std::string text() const { return {reinterpret_cast<const char*>(payload.data()), payload.size()}; }
  };
  [[nodiscard]] std::optional<Reply> TryTake() {
    const auto index = dispatcher_->NextCompletion();
    if (!index) return std::nullopt;
    Reply reply{.index = *index};
    const dispatch::CallEntry& entry = segment_->call(*index);
    reply.code = static_cast<Code>(entry.status);
    reply.place = entry.output.place;
    if (entry.output.bytes > 0) {
      auto bytes = pool_->Resolve(entry.output);
      Check(bytes.status(), bytes.ok());
      reply.payload.assign(bytes->begin(), bytes->begin() + static_cast<ptrdiff_t>(entry.output.bytes));
    }
    FreeEntry(*index);
    return reply;
  }
  /// The next finished call, whichever it is; its entry and blocks are freed.
  [[nodiscard]] Reply Await() {
    std::optional<Reply> reply;
    EXPECT_TRUE(Eventually([&] { return (reply = TryTake()).has_value(); })) << "a call never ended";
    return reply ? *std::move(reply) : Reply{.code = Code::kInternal};
  }
  void FreeEntry(uint32_t index) {
    const dispatch::CallEntry& entry = segment_->call(index);
    const uint64_t deadline_ns = DeadlineIn(kWatchdogNs);
    if (entry.input.place == dispatch::Place::kPoolInput) {
      Check(pool_->inputs().Free(entry.input.block, deadline_ns));
    }
    if (entry.output.place == dispatch::Place::kPoolOutput) {
      Check(pool_->outputs().Free(entry.output.block, deadline_ns));
    }
    dispatcher_->Free(index);
  }

  // --- clients ---
  /// Opens window `index` as the host does for a client on the same machine, or for one that has leased `worker`.
  [[nodiscard]] std::unique_ptr<window::ClientWindow> OpenWindow(uint32_t index, uint64_t bytes = 128u << 20,
                                                                 uint16_t worker = 0) {
    auto created = window::ServerWindow::Create(bytes);
    Check(created.status(), created.ok());
    auto server = window::ServerWindow::Map(*segment_, index, Duplicate(created->memfd.get()),
                                            Duplicate(created->complete_event.get()));
    Check(server.status(), server.ok());
    auto client = window::ClientWindow::Map({Duplicate(created->memfd.get()), Duplicate(created->submit_event.get()),
                                             Duplicate(created->complete_event.get()), bytes});
    Check(client.status(), client.ok());
    segment::WindowSlot& slot = segment_->window(index);
    slot.generation.fetch_add(1);
    slot.poller.store(worker);  // so that no other takes it over
    {
      const std::lock_guard lock(mutex_);
      windows_[index] = {std::move(*created), std::move(*server), worker};
    }
    slot.state.store(1);
    return std::move(*client);
  }
  void CloseWindow(uint32_t index) {
    segment::WindowSlot& slot = segment_->window(index);
    slot.state.store(2);
    const std::lock_guard lock(mutex_);
    for (auto& [worker, link] : links_) {
      Check(link->Send({.type = ControlType::kWindowGone, .index = index, .generation = slot.generation.load()}));
    }
    windows_.erase(index);
  }
  /// What the host does when the session of a window's client is over (host/window_host.h): as its consumer for good
  /// it takes what is left of its calls out of the table.
  void EndSession(uint32_t index) {
    segment::WindowSlot& slot = segment_->window(index);
    slot.state.store(2);
    EXPECT_TRUE(windows_.at(index).server->TryConsume(dispatch::kHostParticipant));
    for (uint32_t call = 0; call < options_.calls; ++call) {
      const dispatch::CallWord word = WordOf(call);
      const dispatch::CallEntry& entry = segment_->call(call);
      if (word.state == dispatch::CallState::kFree || entry.origin != dispatch::Origin::kWindow ||
          entry.origin_index != index) {
        continue;
      }
      if (dispatcher_->Unpark(call, static_cast<uint16_t>(index), entry.origin_call) ||
          dispatcher_->Cancel(call, word.generation, Code::kInvocationCancelled)) {
        FreeEntry(call);
      }
    }
    CloseWindow(index);
    slot.generation.fetch_add(1);
    slot.poller.store(0);
    slot.consumer.store(0);
    slot.state.store(0);
  }
  /// What the host does when a window's submission eventfd is signalled.
  void ConsumeWindow(uint32_t index) {
    window::ServerWindow& window = *windows_.at(index).server;
    bool full = false;
    do {
      if (!window.TryConsume(dispatch::kHostParticipant)) return;
      while (auto submission = window.Peek()) {
        const uint64_t origin_call = window::OriginCall(submission->call, submission->sequence);
        if (IsPosted(*submission, index, origin_call)) {
          window.Taken();
          continue;
        }
        uint32_t entry = submission->parked;
        if (submission->room_given) {
          EXPECT_TRUE(dispatcher_->Unpark(entry, static_cast<uint16_t>(index), origin_call));
          window::FillDelivery(segment_->call(entry), *submission);
        } else if (const auto reserved = dispatcher_->Reserve()) {
          entry = *reserved;
          window::FillEntry(segment_->call(entry), *submission, index, NowNs());
        } else {
          full = true;
          break;
        }
        window.Note(submission->call, submission->sequence, entry);
        dispatcher_->Post(entry);
        window.Taken();
      }
    } while (window.EndConsume(dispatch::kHostParticipant) && !full);
  }
  [[nodiscard]] bool SubmissionSignalled(uint32_t index) {
    uint64_t count = 0;
    return ::read(windows_.at(index).created.submit_event.get(), &count, sizeof count) == sizeof count;
  }

  /// Memory that all share, but for payloads: for those who watch a worker change it.
  [[nodiscard]] std::vector<std::span<const std::byte>> Shared() const {
    const segment::Header& header = segment_->header();
    const auto part = [&](uint64_t offset, uint64_t bytes) {
      return std::span<const std::byte>(segment_->base() + offset, bytes);
    };
    std::vector<std::span<const std::byte>> parts = {
        part(0, sizeof(segment::Header)), part(header.participants.offset, 3 * sizeof(dispatch::Participant)),
        part(header.calls.offset, uint64_t{options_.calls} * sizeof(dispatch::CallEntry)),
        part(header.windows.offset, sizeof(segment::WindowSlot))};
    for (const uint32_t arena : {1, 2}) {
      parts.push_back(part(header.arena_heads[arena], sizeof(segment::ArenaHead)));
      parts.push_back(part(header.arena_blocks[arena].offset, 8 * sizeof(segment::Block)));
    }
    for (const auto& [index, window] : windows_) parts.emplace_back(window.server->base(), window::kSlotsOffset);
    return parts;
  }

  /// Nothing is left of any call: entries free, arenas empty and sound.
  void ExpectClean() {
    EXPECT_TRUE(Eventually([&] {
      return dispatcher_->in_use() == 0 && pool_->inputs().usage().used_blocks == 0 &&
             pool_->outputs().usage().used_blocks == 0;
    })) << dispatcher_->in_use()
        << " entries, " << pool_->inputs().usage().used_blocks << " input blocks, "
        << pool_->outputs().usage().used_blocks << " output blocks";
    EXPECT_TRUE(pool_->inputs().Check().empty());
    EXPECT_TRUE(pool_->outputs().Check().empty());
  }

  static void Check(const Status& status, bool ok) {
    if (ok) return;
    ADD_FAILURE() << status.message();
    std::abort();
  }
  static void Check(const Status& status) { Check(status, status.ok()); }

 private:
  struct Window {
    window::ServerWindow::Created created;
    std::unique_ptr<window::ServerWindow> server;
    uint16_t worker = 0;  // that it was leased with
  };

  /// A consumer of window `index` was killed between making an entry and saying so.
  [[nodiscard]] bool IsPosted(const window::Submission& submission, uint32_t index, uint64_t origin_call) {
    if (submission.entry < 0 || submission.entry >= options_.calls) return false;
    const auto noted = static_cast<uint32_t>(submission.entry);
    const dispatch::CallEntry& entry = segment_->call(noted);
    return window::IsMade(WordOf(noted).state, submission) && entry.origin == dispatch::Origin::kWindow &&
           entry.origin_index == index && entry.origin_call == origin_call;
  }
  static std::function<bool(uint32_t, const segment::Block&)> OfCall(uint32_t call) {
    return [call](uint32_t, const segment::Block& block) { return block.owner == dispatch::CallBlockOwner(call); };
  }
  static void Reclaimed(segment::Arena& arena, const std::function<bool(uint32_t, const segment::Block&)>& dead) {
    const auto freed = arena.ReclaimIf(dead, DeadlineIn(kWatchdogNs));
    Check(freed.status(), freed.ok());
  }

  void Signal(uint16_t participant) const {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(events_[participant].get(), &one, sizeof one);
  }
  [[nodiscard]] std::shared_ptr<ControlSocket> Link(uint16_t index) {
    const std::lock_guard lock(mutex_);
    return links_.at(index);
  }

  void Serve() {
    while (!stop_.load()) {
      std::map<uint16_t, std::shared_ptr<ControlSocket>> links;
      {
        const std::lock_guard lock(mutex_);
        links = links_;
      }
      std::vector<pollfd> fds;
      for (const auto& [index, link] : links) fds.push_back({link->fd(), POLLIN, 0});
      ::poll(fds.data(), fds.size(), 2);
      for (const auto& [index, link] : links) {
        for (;;) {
          auto message = link->Receive(0);
          if (!message.ok() && message.status().code() == Code::kConnectionLost) {
            const std::lock_guard lock(mutex_);
            if (links_.count(index) != 0 && links_[index] == link) links_.erase(index);
          }
          if (!message.ok() || !message->has_value()) break;
          Handle(index, *link, **message);
        }
      }
    }
  }

  void Handle(uint16_t from, ControlSocket& link, const ControlMessage& message) {
    switch (message.type) {
      case ControlType::kReady:
        SetFunctions(message.functions);
        segment_->participant(from).state.store(static_cast<uint32_t>(ready_state_.at(from)));
        break;
      case ControlType::kWantWindow: {
        const std::lock_guard lock(mutex_);
        const auto found = windows_.find(message.index);
        if (found == windows_.end()) break;
        if (options_.refuses_windows) {
          Check(
              link.Send({.type = ControlType::kWindowGone, .index = message.index, .generation = message.generation}));
          break;
        }
        ControlMessage reply{.type = ControlType::kWindow, .index = message.index, .generation = message.generation};
        reply.fds.push_back(Duplicate(found->second.created.memfd.get()));
        reply.fds.push_back(Duplicate(found->second.created.complete_event.get()));
        Answer(link, reply);
        break;
      }
      case ControlType::kWantPeer: {
        ControlMessage reply{.type = ControlType::kPeer, .index = message.index, .generation = message.generation};
        reply.fds.push_back(Duplicate(events_.at(message.index).get()));
        Answer(link, reply);
        break;
      }
      case ControlType::kRelay:
        relays_.fetch_add(1);
        Signal(static_cast<uint16_t>(message.index));
        break;
      case ControlType::kDrained:
        drained_[from].store(true);
        break;
      case ControlType::kLeaseLeft:
        left_[from].store(true);
        break;
      default:
        ADD_FAILURE() << "unexpected control message " << static_cast<uint32_t>(message.type);
    }
  }

  /// The worker may be gone by now.
  static void Answer(ControlSocket& link, const ControlMessage& reply) {
    const Status sent = link.Send(reply);
    if (sent.code() != Code::kConnectionLost) Check(sent);
  }

  const Options options_;
  std::string name_;
  std::unique_ptr<segment::Segment> segment_;
  std::unique_ptr<window::Pool> pool_;
  std::optional<publication::Area> area_;
  std::unique_ptr<dispatch::Doorbells> doorbells_;
  std::unique_ptr<dispatch::Dispatcher> dispatcher_;
  std::array<UniqueFd, 8> events_;
  std::array<dispatch::ParticipantState, 8> ready_state_{};
  std::array<std::atomic<bool>, 8> drained_{};
  std::array<std::atomic<bool>, 8> left_{};
  std::atomic<uint32_t> relays_{0};
  std::mutex mutex_;
  std::map<uint16_t, std::shared_ptr<ControlSocket>> links_;
  std::map<uint32_t, Window> windows_;
  std::atomic<bool> stop_{false};
  std::thread service_;
};

using Handler = std::function<void(WorkerRuntime&, const Invocation&)>;

inline std::vector<FunctionInfo> FunctionNames(uint32_t count) {
  std::vector<FunctionInfo> functions;
  for (uint32_t i = 0; i < count; ++i) functions.push_back({"function" + std::to_string(i), 0});
  return functions;
}

/// Attaches and registers eight functions.
inline std::unique_ptr<WorkerRuntime> AttachWorker(UniqueFd control, WorkerRuntime::Options options = {}) {
  auto runtime = WorkerRuntime::Attach(std::move(control), std::move(options), DeadlineIn(kWatchdogNs));
  MiniHost::Check(runtime.status(), runtime.ok());
  MiniHost::Check((*runtime)->WaitForLoad(DeadlineIn(kWatchdogNs)).status());
  MiniHost::Check((*runtime)->Ready(FunctionNames(8)));
  return std::move(*runtime);
}

/// An owner's loop as a language runtime has it, until the host drains the worker.
inline void RunWorker(WorkerRuntime& runtime, const Handler& handler,
                      const std::function<void(const NestedReply&)>& nested = {}) {
  while (!runtime.draining()) {
    while (auto invocation = runtime.TryNext(true)) handler(runtime, *invocation);
    while (auto reply = runtime.NextNested()) {
      if (nested) nested(*reply);
    }
    (void)runtime.TakeNotices();
    // As long as the watchdog of the tests: a wake-up that is lost must not be made good by a short wait.
    runtime.Sleep(true, DeadlineIn(kWatchdogNs));
  }
  runtime.Drained();
}

/// A worker in a process of its own, until the host drains it (exit status 0) or it is killed.
inline test::Child ForkWorker(MiniHost& host, uint16_t index, const Handler& handler) {
  UniqueFd control = host.AddWorker(index);
  return test::Child::Fork([&] {
    host.ForgetLinks();
    RunWorker(*AttachWorker(std::move(control)), handler);
    return 0;
  });
}

/// A worker on a thread of the test.
class WorkerThread {
 public:
  WorkerThread(MiniHost& host, uint16_t index, Handler handler, bool dedicated = false) : host_(host), index_(index) {
    thread_ = std::thread([control = host.AddWorker(index, dedicated), handler = std::move(handler)]() mutable {
      RunWorker(*AttachWorker(std::move(control)), handler);
    });
    EXPECT_TRUE(host.AwaitReady(index));
  }
  ~WorkerThread() {
    host_.Drain(index_);
    thread_.join();
    EXPECT_TRUE(host_.AwaitDrained(index_));
  }

 private:
  MiniHost& host_;
  uint16_t index_;
  std::thread thread_;
};

inline std::vector<std::byte> Pattern(size_t bytes, uint32_t seed = 1) {
  std::vector<std::byte> pattern(bytes);
  for (size_t i = 0; i < bytes; ++i) pattern[i] = static_cast<std::byte>((i * 31 + i / 251 + seed) & 0xff);
  return pattern;
}
inline std::span<const std::byte> Bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace praas::worker
