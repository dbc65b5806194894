#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <ostream>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "dispatch/dispatcher.h"
#include "host/functions.h"
#include "host/leases.h"
#include "host/reclaim.h"
#include "host/supervisor.h"
#include "host/window_offers.h"
#include "host/worker_processes.h"
#include "host_fixture.h"
#include "protocol/agent_line.h"
#include "protocol/lease_messages.h"
#include "segment/arena_head.h"
#include "state/records.h"
#include "support/single_step.h"
#include "window/server_window.h"

/// A host that dies at any instruction of what it does with leases: a lease is wholly there until then and wholly gone
/// afterwards, whoever waited is told, and the next host has all of the process.
///
/// The host that is led is a whole one, with real workers and clients, which go on at full speed, as does its service
/// thread: what that does is looked at in state/crash_test.cc and segment/arena_crash_test.cc.
namespace praas::test {
namespace {

using protocol::LeaseOp;
using protocol::LeaseReply;
using protocol::LeaseRequest;
using protocol::StateOp;
using LockMode = state::StateStore::LockMode;

constexpr uint32_t kCapacity = 2;  // workers that can be leased
constexpr uint64_t kLongMs = 600'000;
constexpr uint64_t kOwner = 7;  // of a lock

uint64_t Soon() { return DeadlineIn(kWatchdogNs); }
/// Of what waits while the host is led, whose every instruction can take long on a busy machine.
uint64_t Later() { return DeadlineIn(kLongMs * 1'000'000); }

/// What has been asked of the host, or has happened around it, when it is led on.
enum class At {
  kTaking,       // a lease
  kConnecting,   // to one of its workers, over shared memory
  kHandingOver,  // a socket to one
  kRenewing,
  kReleasing,
  kExpiring,
  kWorkerDying,
  kHolderGoing,
};

/// From the function that it begins with until the one that follows on it. Of its changes as many are tried as take a
/// second or two.
struct Phase {
  const char* name;
  At at;
  const void* from;
  const void* until;
  uint64_t most;
  bool is_short = false;  // enough for AddressSanitizer, with its ten times the instructions

  friend void PrintTo(const Phase& phase, std::ostream* out) { *out << phase.name; }
};

class LeaseDeathTest : public ::testing::TestWithParam<Phase> {
 protected:
  LeaseDeathTest() {
    test_.assignment.lease_workers = kCapacity;
    test_.assignment.calls = 8;  // few, for the host looks at all of them
  }
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__)
    if (!GetParam().is_short) GTEST_SKIP() << "some 100,000 instructions and more under this sanitizer";
#endif
  }

  // The host that dies.

  void Reset() {
    Forget();
    (void)segment::Segment::Unlink(test_.assignment.segment);
    descriptors_ = Descriptors();
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    agent_.Reset(ends[0]);
    control_.Reset(ends[1]);
  }
  void Forget() {
    if (connecting_.valid()) (void)connecting_.get();
    for (std::unique_ptr<Driver>* client : {&busy_, &idle_, &waiter_, &holder_}) client->reset();
    asked_.reset();
    waiting_.reset();
    call_.reset();
    lease_ = {};
    segment_.reset();
    agent_.Reset();
    children_.Reset();
    started_.clear();
  }
  void Create() {
    agent_.Reset();
    static char* none = nullptr;
    environ = &none;  // which is copied for each worker
    struct sigaction action {};
    action.sa_flags = SA_NOCLDSTOP;  // who is traced stops for each signal
    ::sigaction(SIGCHLD, &action, nullptr);
    host::HostOptions options;
    options.worker_commands[static_cast<size_t>(dispatch::Lane::kNode)] = kWorkerCommand;
    options.assignment = test_.assignment;
    options.control = std::move(control_);
    host_ = host::Host::Create(std::move(options)).value();
  }
  [[nodiscard]] uint16_t AwaitPort() {
    control_.Reset();
    protocol::LineSplitter lines;
    for (;;) {
      while (const auto text = lines.Next().value()) {
        const protocol::AgentLine line = protocol::ParseAgentLine(*text).value();
        if (line.verb == "ready") return static_cast<uint16_t>(line.Number("port", 0, 0, 65535).value());
      }
      char buffer[4096];
      pollfd news{agent_.get(), POLLIN, 0};
      const ssize_t got = ::poll(&news, 1, static_cast<int>(kWatchdogNs / 1'000'000)) > 0
                              ? ::recv(agent_.get(), buffer, sizeof buffer, 0)
                              : -1;
      if (got <= 0) return 0;
      lines.Add({buffer, static_cast<size_t>(got)});
    }
  }

  void Lead(Stepped& victim) {
    victim.Go();
    Prepare(victim.pid());
    victim.Halt();
    if (!HasFailure()) Begin();
  }
  /// What was there before.
  void Prepare(pid_t host) {
    port_ = AwaitPort();
    ASSERT_NE(port_, 0) << "the host does not begin";
    const std::string pid = std::to_string(host);
    children_.Reset(::open(("/proc/" + pid + "/task/" + pid + "/children").c_str(), O_RDONLY | O_CLOEXEC));
    segment_.emplace(segment::Segment::Open(test_.assignment.segment, true).value());
    holder_ = Client(OptionsFor(port_));
    ASSERT_TRUE(State(*holder_, {.op = StateOp::kSet, .key = "kept", .data = AsBytes("whole")}).ok());
    ASSERT_TRUE(State(*holder_, LockOf("of the holder")).ok());
    // Known once the process's own worker has said so.
    ASSERT_TRUE(holder_->Wait((*holder_)->Resolve("pid", Soon())).status.ok());
    const pid_t worker = PidOf(*holder_);
    ASSERT_GT(worker, 0);
    started_.insert(worker);
    if (at() == At::kTaking) return;
    const Result<LeaseReply> lease = Answer(*holder_, Ask(*holder_, LeaseOp::kTake, Taken(kCapacity)));
    ASSERT_TRUE(lease.ok()) << lease.status().message();
    lease_ = *lease;
    ExpectLeased(lease_.pids);
    started_.insert(lease_.pids.begin(), lease_.pids.end());
    if (at() != At::kConnecting && at() != At::kHandingOver) Use(worker);
  }
  /// A call by either way to a worker. One of them waits for a nested call, which the process's own worker does not
  /// take, and has a lock; the other one has nothing to do. Somebody waits for the next lease.
  void Use(pid_t own_worker) {
    ASSERT_EQ(::kill(own_worker, SIGSTOP), 0);
    idle_ = Client(To(1, "tcp"));
    ASSERT_EQ(AsText(idle_->Call(fn::kEcho, AsBytes("x")).payload), "x");
    busy_ = Client(To(0, "shm"));
    const uint16_t participant = ParticipantOf(*segment_, static_cast<pid_t>(lease_.pids[0]));
    segment::Arena arena = segment::Arena::Data(*segment_, participant);
    state::StateStore store(*segment_, arena, participant);
    ASSERT_TRUE(store.Lock("of a worker", LockMode::kWrite, {participant, kOwner}, Soon()).ok());
    call_ = (*busy_)->Invoke(fn::kNested, input_, {}, 0, Later());
    busy_->Poll();
    ASSERT_TRUE(Eventually([&] { return HasPosted(participant); }));
    waiter_ = Client(OptionsFor(port_));
    LeaseRequest wanted = Taken(1);
    wanted.wait_ms = kLongMs;
    waiting_ = Ask(*waiter_, LeaseOp::kTake, wanted);
    ASSERT_TRUE(Eventually([&] { return LeasesOf(*holder_).find("\"waiting\":1,") != std::string::npos; }));
  }
  /// A call of that worker lies in the table.
  [[nodiscard]] bool HasPosted(uint16_t participant) const {
    for (uint32_t index = 0; index < segment_->header().calls.capacity; ++index) {
      const dispatch::CallEntry& entry = segment_->call(index);
      if (dispatch::CallWord::Unpack(entry.word.load()).state == dispatch::CallState::kQueued &&
          entry.origin == dispatch::Origin::kWorker && entry.origin_index == participant) {
        return true;
      }
    }
    return false;
  }
  /// What the host shall hear of next.
  void Begin() {
    switch (at()) {
      case At::kTaking:
        asked_ = Ask(*holder_, LeaseOp::kTake, Taken(1));
        break;
      case At::kConnecting:
      case At::kHandingOver:
        connecting_ =
            std::async(std::launch::async, client::Connection::Connect, To(0, at() == At::kConnecting ? "shm" : "tcp"));
        break;
      case At::kRenewing:
        asked_ = Ask(*holder_, LeaseOp::kRenew, {.lease = lease_.lease, .ttl_ms = kLongMs});
        break;
      case At::kReleasing:
        asked_ = Ask(*holder_, LeaseOp::kRelease, {.lease = lease_.lease});
        break;
      case At::kExpiring:
        asked_ = Ask(*holder_, LeaseOp::kRenew, {.lease = lease_.lease, .ttl_ms = 1});
        break;
      case At::kWorkerDying:
        ::kill(static_cast<pid_t>(lease_.pids[0]), SIGKILL);
        break;
      case At::kHolderGoing:
        for (Driver* gone : {holder_.get(), busy_.get(), idle_.get()}) {
          ::shutdown((*gone)->socket_fd(), SHUT_RDWR);
        }
        break;
    }
  }

  // What can be seen of it.

  /// Records of what it does with leases; without the counters of workers, which change as they like.
  [[nodiscard]] Parts Watched() const {
    const segment::Header& header = segment_->header();
    const auto part = [&](uint64_t offset, uint64_t bytes) {
      return std::span<const std::byte>(segment_->base() + offset, bytes);
    };
    const auto first = [&](const segment::Region& region, uint64_t records) {
      return part(region.offset, records * region.stride);
    };
    Parts parts = {part(0, sizeof(segment::Header)), first(header.calls, header.calls.capacity),
                   first(header.windows, 4),         first(header.locks, 3),
                   first(header.lock_holders, 3),    part(header.state_head, sizeof(state::StateHead))};
    for (uint64_t index = 0; index < kCapacity + 4; ++index) {
      parts.push_back(part(header.participants.offset + index * header.participants.stride,
                           sizeof(dispatch::Participant) - sizeof(dispatch::Counters)));
    }
    for (size_t arena = 0; arena < std::size(header.arena_heads); ++arena) {
      parts.push_back(part(header.arena_heads[arena], sizeof(segment::ArenaHead)));
      parts.push_back(first(header.arena_blocks[arena], 8));
    }
    return parts;
  }
  /// What it has said to the holder of the lease, and the OS processes that it starts, recorded or not.
  [[nodiscard]] uint64_t Kernel() {
    int said = 0;
    (void)::ioctl((*holder_)->socket_fd(), FIONREAD, &said);
    if (at() != At::kTaking) return static_cast<uint64_t>(said);
    char text[256];
    const ssize_t bytes = ::pread(children_.get(), text, sizeof text, 0);
    std::istringstream pids(std::string(text, bytes > 0 ? static_cast<size_t>(bytes) : 0));
    for (pid_t pid = 0; pids >> pid;) started_.insert(pid);
    return started_.size() << 32 | static_cast<uint64_t>(said);
  }

  // After its death.

  void TakeOver() {
    ExpectAnswers();
    {
      HostRun next(test_, kWorkerCommand);
      ASSERT_TRUE(next.status().ok()) << next.status().message();
      ASSERT_TRUE(next.AwaitReady(1));
      for (const pid_t worker : started_) EXPECT_TRUE(Eventually([&] { return Gone(worker); })) << worker;
      Driver client = next.Client();
      ExpectNothingTaken(client);
      port_ = next.port();
      ExpectForgotten();
      ExpectServes(client);
      ExpectNothingTaken(client);
      ExpectClean(client);
    }
    Forget();
    EXPECT_EQ(Descriptors(), descriptors_);
  }
  /// Whoever waited hears that the host has gone, unless there was an answer before.
  void ExpectAnswers() {
    if (asked_) {
      const Result<LeaseReply> reply = Answer(*holder_, *asked_);
      ExpectIs(reply.status(), {Code::kOk, Code::kHostLost});
      if (reply.ok() && at() == At::kTaking) {
        lease_ = *reply;
        ExpectLeased(lease_.pids);
      }
    }
    if (connecting_.valid()) {
      const auto connection = connecting_.get();
      ExpectIs(connection.status(), {Code::kOk, Code::kHostLost, Code::kConnectionLost});
    }
    if (waiting_) {
      const Result<LeaseReply> reply = Answer(*waiter_, *waiting_);
      ExpectIs(reply.status(), {Code::kOk, Code::kHostLost});
      if (reply.ok()) keys_.push_back(reply->key);
    }
    if (call_) {
      ExpectIs(busy_->Wait(*call_).status,
               {Code::kConnectionLost, Code::kWorkerCrashed, Code::kLeaseClosed, Code::kLeaseExpired});
      ExpectIs(idle_->Call(fn::kEcho, AsBytes("x")).status,
               {Code::kConnectionLost, Code::kLeaseClosed, Code::kLeaseExpired});
    }
    if (!lease_.key.empty()) keys_.push_back(lease_.key);
    if (at() == At::kHolderGoing) return;
    EXPECT_EQ(State(*holder_, LockOf("another")).code(), Code::kHostLost);
  }
  static void ExpectIs(const Status& status, std::initializer_list<Code> codes) {
    EXPECT_TRUE(std::ranges::count(codes, status.code()) == 1) << CodeName(status.code()) << ": " << status.message();
  }
  /// As the holder has been told, there is a worker with each of these pids.
  void ExpectLeased(const std::vector<uint32_t>& pids) const {
    EXPECT_FALSE(pids.empty());
    for (const uint32_t pid : pids) {
      EXPECT_EQ(StateOf(static_cast<pid_t>(pid)), static_cast<uint32_t>(dispatch::ParticipantState::kLeased));
    }
  }
  [[nodiscard]] uint32_t StateOf(pid_t worker) const {
    for (uint32_t index = 1; index < segment_->header().participants.committed.load(); ++index) {
      const dispatch::Participant& participant = segment_->participant(index);
      if (participant.pid.load() == worker) return participant.state.load();
    }
    return static_cast<uint32_t>(dispatch::ParticipantState::kFree);
  }
  /// No worker's place, window or lock but those of the host's own worker.
  void ExpectNothingTaken(Driver& client) const {
    EXPECT_TRUE(Eventually([&] {
      return LeasesOf(client).starts_with(R"({"leases":[],"waiting":0,"capacity":2,"free":2,)");
    })) << LeasesOf(client);
    const segment::Header& header = segment_->header();
    for (uint32_t index = 0; index < header.windows.committed.load(); ++index) {
      const segment::WindowSlot& window = segment_->window(index);
      EXPECT_TRUE(Eventually([&] {
        return window.state.load() == 0 && window.poller.load() == 0 && window.consumer.load() == 0;
      })) << index;
    }
    const state::StateHead& head = state::Records(*segment_).head();
    EXPECT_EQ(head.locks.used.load(), 0u);
    EXPECT_EQ(head.holders.used.load(), 0u);
    for (uint32_t index = 1; index < header.participants.committed.load(); ++index) {
      const dispatch::Participant& worker = segment_->participant(index);
      if (Gone(worker.pid.load())) {
        EXPECT_EQ(worker.state.load(), static_cast<uint32_t>(dispatch::ParticipantState::kFree)) << index;
      }
    }
  }
  void ExpectForgotten() {
    for (const std::string& key : std::exchange(keys_, {})) {
      lease_.key = key;
      const Status status = client::Connection::Connect(To(0, "tcp")).status();
      EXPECT_EQ(status.code(), Code::kLeaseClosed) << status.message();
    }
  }
  /// Calls, state and locks, and a lease with as many workers as there can be.
  void ExpectServes(Driver& client) {
    EXPECT_TRUE(client.Call(fn::kEcho, input_).payload == input_);
    protocol::StateRequest get{.op = StateOp::kGet, .key = "kept"};
    const Driver::Outcome kept = client.Wait(client::SubmitState(*client, get, Soon()));
    ASSERT_TRUE(kept.status.ok()) << kept.status.message();
    EXPECT_EQ(AsText(protocol::DecodeStateReply(StateOp::kGet, kept.payload)->data), "whole");
    for (const char* lock : {"of the holder", "of a worker"}) {
      const Driver::Outcome granted = client.Wait(client::SubmitState(*client, LockOf(lock), Soon()));
      ASSERT_TRUE(granted.status.ok()) << lock << ": " << granted.status.message();
      protocol::StateRequest unlock{.op = StateOp::kUnlock};
      unlock.lock = protocol::DecodeStateReply(StateOp::kLock, granted.payload)->lock;
      EXPECT_TRUE(State(client, unlock).ok());
    }
    const Result<LeaseReply> lease = Answer(client, Ask(client, LeaseOp::kTake, Taken(kCapacity)));
    ASSERT_TRUE(lease.ok()) << lease.status().message();
    lease_ = *lease;
    ExpectLeased(lease_.pids);
    for (const char* transport : {"tcp", "shm"}) {
      for (uint32_t worker = 0; worker < kCapacity; ++worker) {
        Driver calls = Connect(To(worker, transport));
        EXPECT_TRUE(calls.Call(fn::kNested, input_).payload == input_);
      }
    }
    EXPECT_TRUE(Answer(client, Ask(client, LeaseOp::kRelease, {.lease = lease_.lease})).ok());
  }

  // As clients.

  [[nodiscard]] static At at() { return GetParam().at; }
  /// In place: its sinks know its address.
  [[nodiscard]] static std::unique_ptr<Driver> Client(const client::ConnectOptions& options) {
    return std::unique_ptr<Driver>(new Driver(Connect(options)));
  }
  [[nodiscard]] client::ConnectOptions To(uint32_t worker, const char* transport) const {
    client::ConnectOptions options = OptionsFor(port_);
    options.transport = transport;
    options.window_bytes = 64u << 20;
    options.lease_key = lease_.key;
    options.lease_worker = worker;
    return options;
  }
  [[nodiscard]] static LeaseRequest Taken(uint32_t workers) {
    return {.workers = workers, .hot_ms = 0, .ttl_ms = kLongMs};
  }
  [[nodiscard]] static protocol::StateRequest LockOf(const char* name) {
    return {.op = StateOp::kLock, .key = name, .mode = protocol::LockMode::kWrite};
  }
  static Status State(Driver& client, const protocol::StateRequest& request) {
    return client.Wait(client::SubmitState(*client, request, Soon())).status;
  }
  static Result<uint64_t> Ask(Driver& client, LeaseOp op, const LeaseRequest& request) {
    const Result<uint64_t> asked =
        client->Request(protocol::FrameType::kLease, static_cast<uint16_t>(op), Encode(request), {}, Later());
    client.Poll();
    return asked;
  }
  static Result<LeaseReply> Answer(Driver& client, const Result<uint64_t>& asked) {
    const Driver::Outcome outcome = client.Wait(asked);
    if (!outcome.status.ok()) return outcome.status;
    return protocol::DecodeLeaseReply(outcome.payload);
  }
  static std::string LeasesOf(Driver& client) { return StatsOf(client, protocol::AdminOp::kLeases); }
  [[nodiscard]] static ptrdiff_t Descriptors() {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  }

  TestProcess test_;
  UniqueFd agent_, control_;  // ends of the host's link to its agent
  std::unique_ptr<host::Host> host_;
  ptrdiff_t descriptors_ = 0;
  uint16_t port_ = 0;
  std::optional<segment::Segment> segment_;  // a look at what it shares
  UniqueFd children_;
  std::set<pid_t> started_;  // its OS processes

  const Bytes input_ = PatternOf(5'000);  // larger than a slot
  std::unique_ptr<Driver> holder_, waiter_, busy_, idle_;
  LeaseReply lease_;
  std::vector<std::string> keys_;  // of all that were granted
  std::optional<Result<uint64_t>> asked_, waiting_, call_;
  std::future<Result<std::unique_ptr<client::Connection>>> connecting_;
};

const void* const kTurn = CodeOf(&host::EventLoop::Turn);
const void* const kRequest = CodeOf(&host::Leases::Request);
const void* const kWorkerEnded = CodeOf(&host::Reclaim::WorkerEnded);
const void* const kAnswersCalls = CodeOf(&dispatch::Dispatcher::ReclaimParticipant);
const void* const kRelease = CodeOf(&host::Supervisor::Release);

INSTANTIATE_TEST_SUITE_P(
    Host, LeaseDeathTest,
    ::testing::Values(
        Phase{"StartsAWorker", At::kTaking, CodeOf(&host::Supervisor::StartDedicated), kTurn, 2},
        Phase{"BeginsIt", At::kTaking, CodeOf(&host::Functions::Register), kTurn, 2},
        Phase{"OpensAWindow", At::kConnecting, CodeOf(&window::ServerWindow::Create), kTurn, 6, true},
        Phase{"HandsASocketOver", At::kHandingOver, CodeOf(&window::ServerWindow::Create), kTurn, 6},
        Phase{"RenewsIt", At::kRenewing, kRequest, kTurn, 1}, Phase{"EndsIt", At::kReleasing, kRequest, kTurn, 1},
        Phase{"HearsThatAWorkerHasLeft", At::kReleasing, CodeOf(&host::Leases::OnWorkerMessage), kTurn, 6},
        Phase{"GivesItToTheNext", At::kReleasing, CodeOf(&host::LeaseWorkers::Take), kTurn, 1},
        Phase{"NoticesItsExpiry", At::kExpiring, CodeOf(&host::WindowOffers::Forget), kTurn, 2},
        Phase{"MissesAWorker", At::kWorkerDying, kWorkerEnded, CodeOf(&host::Supervisor::StartDedicated), 2, true},
        Phase{"AnswersForAWorker", At::kWorkerDying, kAnswersCalls, kRelease, 8},
        Phase{"FreesTheWorkersPlace", At::kWorkerDying, kRelease, kTurn, 6, true},
        Phase{"MissesItsHolder", At::kHolderGoing, CodeOf(&host::Leases::SessionClosed), kTurn, 1},
        Phase{"FreesTheHoldersWindow", At::kHolderGoing, kAnswersCalls, kRelease, 6, true}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(LeaseDeathTest, LeavesNothingOfALease) {
  KillAtEveryChange({
      .watched = [this] { return Watched(); },
      .kernel = [this] { return Kernel(); },
      .reset = [this] { Reset(); },
      .prepare = [this] { Create(); },
      .before_steps = [this](Stepped& victim) { Lead(victim); },
      .operation = [this] { host_->Run(); },
      .from = GetParam().from,
      .until = GetParam().until,
      .verify = [this](bool) { TakeOver(); },
      .most = GetParam().most,
  });
}

}  // namespace
}  // namespace praas::test
