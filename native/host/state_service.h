#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "host/event_loop.h"
#include "host/process.h"
#include "protocol/state_messages.h"

namespace praas::host {

/// The host's service thread: everything that may wait for an internal mutex or copy much, so that the I/O thread never
/// does. Serves clients' state requests and locks in order of arrival, and chores of the host before these.
class StateService {
 public:
  struct Answer {
    Status status;
    std::vector<std::byte> head;                 // of the kStateReply's payload, when ok
    std::vector<std::byte> data;                 // and what follows it
    std::optional<publication::Location> place;  // of a published key that was read
  };
  using Reply = std::function<void(Answer)>;  // runs on the I/O thread
  /// A request as it comes. Shared, for jobs are copyable; not initialised, so that what has not come takes no memory.
  struct Payload {
    std::shared_ptr<std::byte[]> memory{};
    std::span<std::byte> bytes{};
  };

  StateService(EventLoop& loop, Process& process);
  ~StateService();  // finishes the job in hand, drops the rest

  /// `session` owns the locks it takes.
  void Request(uint64_t session, uint64_t call, uint16_t op, Payload payload, uint64_t deadline_ns, Reply reply);
  /// Withdraws a lock request that still waits: it is answered with kInvocationCancelled.
  void Cancel(uint64_t session, uint64_t call);
  /// Releases every lock of a session and drops what it still waits for; no reply of it runs after its requests in
  /// hand.
  void EndSession(uint64_t session);
  /// Runs on the service thread before any waiting request; then `done` on the I/O thread.
  void Chore(std::function<void()> work, std::function<void()> done);
  /// From any thread: a lock one of the sessions waits for may have been granted.
  void LocksChanged() noexcept;
  /// Something is being done or waits to be: internal mutexes are in use.
  [[nodiscard]] bool busy() const noexcept { return pending_.load(std::memory_order_relaxed) > 0; }

 private:
  struct Waiting {  // for a lock
    uint64_t session;
    uint64_t call;
    uint64_t deadline_ns;
    Reply reply;
  };

  void Run();
  void Push(std::function<void()> run, bool first);
  void Post(Reply reply, Answer answer);
  void Serve(uint64_t session, uint64_t call, uint16_t op, std::span<const std::byte> payload, uint64_t deadline_ns,
             Reply reply);
  [[nodiscard]] Answer Execute(const protocol::StateRequest& request, uint64_t deadline_ns);
  [[nodiscard]] Answer Get(const protocol::StateRequest& request, uint64_t deadline_ns);
  [[nodiscard]] Answer Read(const protocol::StateRequest& request, uint64_t deadline_ns);
  void Lock(uint64_t session, uint64_t call, const protocol::StateRequest& request, uint64_t deadline_ns, Reply reply);
  void Unlock(uint64_t session, uint64_t lock, Reply reply);
  void Release(std::function<Status(uint64_t deadline_ns)> release);
  void ReleaseRest();
  void LookAtLocks();
  [[nodiscard]] uint64_t NextDeadline() const noexcept;

  EventLoop& loop_;
  Process& process_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::deque<std::function<void()>> jobs_;
  std::atomic<uint32_t> pending_{0};  // jobs pushed and releases, not finished
  bool stop_ = false;
  bool look_at_locks_ = false;
  // Service thread only.
  std::map<uint32_t, Waiting> waiting_;                     // by holder
  std::map<uint32_t, uint64_t> held_;                       // holder → session
  std::deque<std::function<Status(uint64_t)>> unreleased_;  // the state's mutex was not to be had
  uint64_t retry_ns_ = kNoDeadline;                         // when these are tried again
  std::thread thread_;
};

}  // namespace praas::host
