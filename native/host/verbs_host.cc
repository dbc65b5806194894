#include "host/verbs_host.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <utility>

#include "transport/verbs_session.h"

namespace praas::host {

#if PRAAS_VERBS_HEADERS

using transport::VerbsLink;
using transport::VerbsSession;

namespace {

/// Connections that share a completion queue and a receive queue. Devices limit the length of queues.
constexpr uint32_t kGroupConnections = 64;
constexpr uint32_t kConnectionReceives = VerbsLink::MessagesIn(VerbsLink::kSlots);
constexpr uint32_t kGroupReceives = kGroupConnections * kConnectionReceives;
constexpr uint32_t kGroupCompletions = kGroupReceives + kGroupConnections * VerbsLink::kSends;
/// Of a queue at a time: clients that send without end do not keep the loop from everything else.
constexpr uint32_t kMostCompletions = 256;

}  // namespace

struct VerbsHost::Device {
  std::unique_ptr<verbs::Context> context;
  EventLoop::WatchId watch = 0;
  Status unusable;  // since something fatal was reported
};

struct VerbsHost::Group {
  verbs::CompletionQueue completions;
  verbs::ProtectionDomain domain;
  verbs::SharedReceiveQueue receives;
  EventLoop::WatchId watch = 0;
  uint32_t connections = 0;
  uint32_t received = 0;  // messages to post receives for
  bool armed = false;
};

struct VerbsHost::Connection {
  Group* group = nullptr;
  uint64_t session = 0;
  uint32_t queue_pair = 0;
  std::unique_ptr<VerbsSession> calls;
  EventLoop::WatchId watch = 0;
  bool busy = false;  // in busy_
};

VerbsHost::VerbsHost(EventLoop& loop, Process& process, WindowHost& windows)
    : loop_(loop), process_(process), windows_(windows) {}

VerbsHost::~VerbsHost() {
  while (!connections_.empty()) Remove(connections_.begin()->first);
  CloseDevice();
}

Status VerbsHost::Open() {
  if (device_ != nullptr) return device_->unusable;
  const Result<verbs::Selection> selection = verbs::Selection::FromEnvironment();
  if (!selection.ok()) return selection.status();
  Result<std::unique_ptr<verbs::Context>> context = verbs::Context::Open(*selection);
  if (!context.ok()) return context.status();
  auto device = std::make_unique<Device>();
  device->context = *std::move(context);
  const Result<EventLoop::WatchId> watch =
      loop_.Watch(device->context->event_fd(), EPOLLIN, [this](uint32_t) { OnEvents(); });
  if (!watch) return watch.status();
  device->watch = *watch;
  device_ = std::move(device);
  return Status::Ok();
}

void VerbsHost::OnEvents() {
  while (true) {
    const verbs::Context::Event event = device_->context->TakeEvent();
    if (event.kind == verbs::Context::Event::Kind::kNone) break;
    if (!event.fatal) continue;
    const Status why = StatusOf(*device_->context, event);
    if (event.kind == verbs::Context::Event::Kind::kQueuePair) {
      if (const auto found = by_queue_pair_.find(event.queue_pair); found != by_queue_pair_.end()) {
        found->second->calls->Break(why);
      }
      continue;
    }
    BreakAll(why);
  }
  Bury();
}

/// The device is of no use any more; Poll or Bury tells the sessions.
void VerbsHost::BreakAll(const Status& why) {
  device_->unusable = why;
  for (const auto& [session, connection] : connections_) {
    connection->calls->Break(why);
    Touch(*connection);
  }
}

/// Whoever removes the device need not wait for this host.
void VerbsHost::CloseDevice() {
  for (const std::unique_ptr<Group>& group : groups_) loop_.Unwatch(group->watch);
  groups_.clear();
  if (device_ != nullptr) loop_.Unwatch(device_->watch);
  device_.reset();
}

Result<VerbsHost::Group*> VerbsHost::GroupWithRoom() {
  for (const std::unique_ptr<Group>& group : groups_) {
    if (group->connections < kGroupConnections) return group.get();
  }
  const verbs::Context& context = *device_->context;
  Result<verbs::CompletionQueue> completions = verbs::CompletionQueue::Make(context, kGroupCompletions);
  if (!completions.ok()) return completions.status();
  Result<verbs::ProtectionDomain> domain = verbs::ProtectionDomain::Make(context);
  if (!domain.ok()) return domain.status();
  Result<verbs::SharedReceiveQueue> receives = verbs::SharedReceiveQueue::Make(*domain, kGroupReceives);
  if (!receives.ok()) return receives.status();
  if (Status status = receives->Post(kGroupReceives); !status.ok()) return status;
  auto group = std::make_unique<Group>(Group{*std::move(completions), *std::move(domain), *std::move(receives)});
  const Result<EventLoop::WatchId> watch = loop_.Watch(group->completions.fd(), EPOLLIN, [raw = group.get()](uint32_t) {
    raw->completions.Disarm();
    raw->armed = false;
  });
  if (!watch) return watch.status();
  group->watch = *watch;
  groups_.push_back(std::move(group));
  return groups_.back().get();
}

Result<protocol::UpgradeOffer> VerbsHost::Offer(uint64_t session, int32_t client_pid,
                                                const protocol::UpgradeRequest& request) {
  if (!request.verbs) return Status(Code::kProtocolInvalid, "a verbs upgrade without the client's end");
  if (request.verbs->slots > VerbsLink::kSlots) {
    return Status(Code::kUpgradeFailed, "at most " + std::to_string(VerbsLink::kSlots) + " slots are possible");
  }
  if (connections_.contains(session)) return Status(Code::kUpgradeFailed, "the session has an RDMA connection");
  if (Status status = Open(); !status.ok()) return status;
  Result<protocol::UpgradeOffer> offer = Connect(session, client_pid, request);
  if (offer.ok() || offer.status().code() != Code::kBackpressure) return offer;
  // What others have registered and do not use may be all there is.
  for (const auto& [other, connection] : connections_) connection->calls->Trim();
  return Connect(session, client_pid, request);
}

Result<protocol::UpgradeOffer> VerbsHost::Connect(uint64_t session, int32_t client_pid,
                                                  const protocol::UpgradeRequest& request) {
  const Result<Group*> group = GroupWithRoom();
  if (!group.ok()) return group.status();
  Result<window::Handover> window = windows_.Open(session, client_pid, request.window_bytes);
  if (!window.ok()) return window.status();
  const Assignment& assignment = process_.assignment;
  Result<std::unique_ptr<VerbsSession>> calls = VerbsSession::Create(
      *device_->context, (*group)->completions, (*group)->receives, *std::move(window),
      {.max_contiguous = assignment.max_contiguous, .default_timeout_ns = assignment.timeout_ms * 1'000'000},
      *request.verbs);
  Status status = calls.status();
  if (status.ok()) {
    // Results wake the loop; what they are is found by Poll, which need not read the descriptor: edge-triggered.
    const Result<EventLoop::WatchId> watch = loop_.Watch((*calls)->fd(), EPOLLIN | EPOLLET, [](uint32_t) {});
    if (watch) {
      auto connection = std::make_unique<Connection>();
      connection->group = *group;
      connection->session = session;
      connection->calls = *std::move(calls);
      connection->watch = *watch;
      ++(*group)->connections;
      const protocol::VerbsEnd end = connection->calls->end();
      connection->queue_pair = end.queue_pair;
      by_queue_pair_[end.queue_pair] = connection.get();
      connections_.emplace(session, std::move(connection));
      return protocol::UpgradeOffer{.verbs = end};
    }
    status = watch.status();
  }
  windows_.SessionClosed(session);
  return status;
}

void VerbsHost::Close(uint64_t session) {
  if (connections_.contains(session)) Remove(session);
}

void VerbsHost::Remove(uint64_t session) {
  // Nothing below finds it any more: what is lost meanwhile breaks the others.
  const std::unique_ptr<Connection> connection = std::move(connections_.extract(session).mapped());
  loop_.Unwatch(connection->watch);
  by_queue_pair_.erase(connection->queue_pair);
  std::erase(busy_, connection.get());
  connection->calls->Break(Status(Code::kConnectionClosed, "closed"));
  // Completions that are left name a queue pair whose number may be given again.
  for (uint32_t taken = 0; taken < kGroupCompletions && Poll(*connection->group) > 0; taken += kMostCompletions) {
  }
  --connection->group->connections;
  connection->calls.reset();
  windows_.SessionClosed(session);
  active_ = std::any_of(connections_.begin(), connections_.end(),
                        [](const auto& each) { return each.second->calls->active(); });
  CloseUnusable();
}

void VerbsHost::Bury() {
  std::vector<uint64_t> gone;
  for (const auto& [session, connection] : connections_) {
    if (!connection->calls->broken().ok()) gone.push_back(session);
  }
  for (const uint64_t session : gone) {
    const Status why = connections_.at(session)->calls->broken();
    Remove(session);
    broke(session, why);
  }
  CloseUnusable();
}

/// The next client that asks finds out whether the cause is gone.
void VerbsHost::CloseUnusable() {
  if (device_ != nullptr && !device_->unusable.ok() && connections_.empty()) CloseDevice();
}

void VerbsHost::ExpectResults(uint64_t session, uint32_t function, uint64_t pages) {
  if (const auto found = connections_.find(session); found != connections_.end()) {
    found->second->calls->ExpectResults(function, pages);
  }
}

void VerbsHost::Locate(uint64_t session, publication::Location& place) {
  const auto found = connections_.find(session);
  if (found != connections_.end() && process_.area) found->second->calls->Locate(process_.area->memory(), place);
}

size_t VerbsHost::Poll(Group& group) {
  std::array<ibv_wc, 16> batch;
  size_t taken = 0;
  while (taken < kMostCompletions) {
    const int got = group.completions.Poll(batch);
    if (got < 0) {
      BreakAll(Status(Code::kConnectionLost, "RDMA: a completion queue is lost"));
      break;
    }
    for (const ibv_wc& completion : std::span(batch).first(static_cast<size_t>(got))) {
      const bool message = completion.wr_id == verbs::kReceived;
      if (message) ++group.received;
      const auto found = by_queue_pair_.find(completion.qp_num);
      VerbsSession* const calls = found == by_queue_pair_.end() ? nullptr : found->second->calls.get();
      if (calls != nullptr) Touch(*found->second);
      if (completion.status != IBV_WC_SUCCESS) {
        if (calls != nullptr) calls->Break(StatusOf(*device_->context, completion));
      } else if (message) {
        if (calls != nullptr) calls->OnMessage(be32toh(completion.imm_data));
      } else if (calls != nullptr) {
        calls->OnSent(completion.wr_id);
      }
    }
    taken += static_cast<size_t>(got);
    if (got < static_cast<int>(batch.size())) break;
  }
  if (group.received > 0) {
    if (const Status status = group.receives.Post(std::exchange(group.received, 0)); !status.ok()) BreakAll(status);
  }
  return taken;
}

void VerbsHost::Touch(Connection& connection) {
  if (!std::exchange(connection.busy, true)) busy_.push_back(&connection);
}

size_t VerbsHost::Poll() {
  size_t taken = 0;
  for (const std::unique_ptr<Group>& group : groups_) {
    if (group->connections > 0) taken += Poll(*group);
  }
  if (busy_.empty()) return taken;
  bool broken = false;
  for (Connection* connection : busy_) {
    VerbsSession& calls = *connection->calls;
    taken += calls.Poll();
    connection->busy = calls.in_flight() > 0;
    active_ = active_ || calls.active();
    broken = broken || !calls.broken().ok();
  }
  std::erase_if(busy_, [](const Connection* connection) { return !connection->busy; });
  if (broken) Bury();
  return taken;
}

bool VerbsHost::PrepareToSleep() {
  for (const std::unique_ptr<Group>& group : groups_) {
    if (group->armed || group->connections == 0) continue;
    if (!group->completions.Arm().ok()) return false;
    group->armed = true;
    // What was there before wakes nobody.
    if (Poll(*group) > 0) return false;
  }
  return std::all_of(busy_.begin(), busy_.end(),
                     [](Connection* connection) { return connection->calls->PrepareToSleep(); });
}

bool VerbsHost::in_flight() const noexcept { return !busy_.empty(); }

bool VerbsHost::idle() const noexcept {
  return std::all_of(connections_.begin(), connections_.end(),
                     [](const auto& each) { return each.second->calls->idle(); });
}

void VerbsHost::Tick(uint64_t now_ns) {
  for (Connection* connection : busy_) connection->calls->Tick(now_ns);
}

void VerbsHost::Trim() {
  for (const auto& [session, connection] : connections_) connection->calls->Trim();
}

#else

VerbsHost::VerbsHost(EventLoop&, Process&, WindowHost&) {}
VerbsHost::~VerbsHost() = default;
Result<protocol::UpgradeOffer> VerbsHost::Offer(uint64_t, int32_t, const protocol::UpgradeRequest&) {
  return Status(Code::kUpgradeFailed, "this build has no RDMA: it was made without the headers of libibverbs");
}
void VerbsHost::Close(uint64_t) {}
void VerbsHost::ExpectResults(uint64_t, uint32_t, uint64_t) {}
void VerbsHost::Locate(uint64_t, publication::Location&) {}
size_t VerbsHost::Poll() { return 0; }
bool VerbsHost::PrepareToSleep() { return true; }
bool VerbsHost::in_flight() const noexcept { return false; }
bool VerbsHost::idle() const noexcept { return true; }
void VerbsHost::Tick(uint64_t) {}
void VerbsHost::Trim() {}

#endif

}  // namespace praas::host
