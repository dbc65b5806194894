#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>

#include "base/result.h"
#include "verbs/context.h"

#if PRAAS_VERBS_HEADERS

/// Owners of what connections are made of. Each is destroyed after what was made in it, as the order of members sees
/// to.
namespace praas::verbs {

template <typename Object>
using Owned = std::unique_ptr<Object, int (*)(Object*)>;

/// What memory and queue pairs belong to. One for each connection: within one domain a guessed key of another's memory
/// works.
class ProtectionDomain {
 public:
  [[nodiscard]] static Result<ProtectionDomain> Make(const Context& context);
  [[nodiscard]] ibv_pd* get() const noexcept { return domain_.get(); }
  [[nodiscard]] const Context& context() const noexcept { return *context_; }

 private:
  ProtectionDomain(const Context& context, Owned<ibv_pd> domain) : context_(&context), domain_(std::move(domain)) {}
  const Context* context_;
  Owned<ibv_pd> domain_;
};

/// Memory as a peer names it.
struct RemoteMemory {
  uint64_t address = 0;
  uint32_t key = 0;

  [[nodiscard]] RemoteMemory At(uint64_t offset) const noexcept { return {address + offset, key}; }
  bool operator==(const RemoteMemory&) const = default;
};

/// Memory the device may use, pinned. Whoever unmaps the memory destroys this first.
class MemoryRegion {
 public:
  enum class Access : uint8_t {
    kLocal,       // this side's queue pairs only
    kRemote,      // peers read and write it who know its key
    kRemoteRead,  // they only read it
  };
  /// kBackpressure: more memory than this user may lock (RLIMIT_MEMLOCK); says how much that is.
  [[nodiscard]] static Result<MemoryRegion> Register(const ProtectionDomain& domain, std::span<std::byte> memory,
                                                     Access access);
  [[nodiscard]] uint32_t local_key() const noexcept { return region_->lkey; }
  [[nodiscard]] RemoteMemory remote() const noexcept {
    return {reinterpret_cast<uintptr_t>(region_->addr), region_->rkey};
  }
  [[nodiscard]] std::span<std::byte> memory() const noexcept {
    return {static_cast<std::byte*>(region_->addr), region_->length};
  }

 private:
  explicit MemoryRegion(Owned<ibv_mr> region) : region_(std::move(region)) {}
  Owned<ibv_mr> region_;
};

/// What has become of work. Polled, or waited for with its descriptor.
class CompletionQueue {
 public:
  /// `entries`: work of all its queue pairs that may be finished and not taken.
  [[nodiscard]] static Result<CompletionQueue> Make(const Context& context, uint32_t entries);
  CompletionQueue(CompletionQueue&&) noexcept = default;
  CompletionQueue& operator=(CompletionQueue&&) = delete;
  ~CompletionQueue();

  [[nodiscard]] ibv_cq* get() const noexcept { return queue_.get(); }
  /// Takes finished work, oldest first. A negative number says that the queue was overrun or the device is gone.
  [[nodiscard]] int Poll(std::span<ibv_wc> completions) noexcept {
    return ibv_poll_cq(queue_.get(), static_cast<int>(completions.size()), completions.data());
  }
  /// Asks for the next completion to make fd() readable; Poll once more before waiting: what was there already does
  /// not.
  [[nodiscard]] Status Arm() noexcept;
  /// Takes what made fd() readable. It has to be armed again.
  void Disarm() noexcept;
  [[nodiscard]] int fd() const noexcept { return channel_->fd; }

 private:
  CompletionQueue(const Context& context, Owned<ibv_comp_channel> channel, Owned<ibv_cq> queue)
      : context_(&context), channel_(std::move(channel)), queue_(std::move(queue)) {}
  const Context* context_;
  Owned<ibv_comp_channel> channel_;
  Owned<ibv_cq> queue_;
  uint32_t unacknowledged_ = 0;
};

/// kOk, or what went wrong with it: the status of the device and the code of its vendor.
[[nodiscard]] Status StatusOf(const Context& context, const ibv_wc& completion);

/// Id of completions of messages of peers, also of failed ones, of which nothing else says what they are.
inline constexpr uint64_t kReceived = UINT64_MAX;

/// Room for messages of several queue pairs, also of other domains of the device. No memory is needed for one: what
/// arrives are numbers with data that went to its place before.
class SharedReceiveQueue {
 public:
  /// `entries`: messages that wait to be taken.
  [[nodiscard]] static Result<SharedReceiveQueue> Make(const ProtectionDomain& domain, uint32_t entries);
  [[nodiscard]] ibv_srq* get() const noexcept { return queue_.get(); }
  [[nodiscard]] Status Post(uint32_t count) noexcept;

 private:
  SharedReceiveQueue(const Context& context, Owned<ibv_srq> queue) : context_(&context), queue_(std::move(queue)) {}
  const Context* context_;
  Owned<ibv_srq> queue_;
};

/// How a peer's queue pair is reached. Travels over TCP when two connect.
struct Endpoint {
  uint32_t queue_pair = 0;    // 24 bits
  uint32_t first_packet = 0;  // 24 bits: where its sequence numbers begin
  Address address{};

  bool operator==(const Endpoint&) const = default;
};

/// A reliable connection. Work is queued here and handed to the device by Ring, as much at a time as there is: it is
/// done in order, and memory it names stays as it is until it is finished.
class QueuePair {
 public:
  struct Options {
    uint32_t sends = 128;                        // with the device and not known to be finished
    uint32_t receives = 64;                      // that wait; 0 with `shared`
    uint32_t inline_bytes = 256;                 // what a write copies at once may have; less where the device says so
    const SharedReceiveQueue* shared = nullptr;  // outlives this
  };
  /// Work of both directions ends up in `completions`, which outlives this.
  [[nodiscard]] static Result<QueuePair> Make(const ProtectionDomain& domain, const CompletionQueue& completions,
                                              const Options& options);
  [[nodiscard]] const Endpoint& endpoint() const noexcept { return endpoint_; }
  [[nodiscard]] uint32_t inline_bytes() const noexcept { return inline_bytes_; }
  /// Both sides do; receives may be posted before.
  [[nodiscard]] Status Connect(const Endpoint& peer);
  /// Ends it: all work is finished with an error.
  [[nodiscard]] Status Fail();

  /// Room for `count` messages of the peer.
  [[nodiscard]] Status PostReceives(uint32_t count) noexcept;

  /// Writes to the peer and tells it `immediate` when all is there. An `id` that is not 0 comes back with the
  /// completion; some of the rest completes with 0, because the device is asked now and then how far it is.
  void WriteWithImmediate(std::span<const std::byte> bytes, uint32_t local_key, RemoteMemory target, uint32_t immediate,
                          uint64_t id = 0);
  void Write(std::span<const std::byte> bytes, uint32_t local_key, RemoteMemory target, uint64_t id = 0);
  void Read(std::span<std::byte> bytes, uint32_t local_key, RemoteMemory source, uint64_t id);
  /// Hands queued work to the device as far as it has room; the rest goes with a later call, after Finished.
  [[nodiscard]] Status Ring() noexcept;
  [[nodiscard]] bool queued() const noexcept { return !queued_.empty(); }
  /// Names what was queued last, and says of a name whether that has gone to the device.
  [[nodiscard]] uint64_t ticket() const noexcept { return posted_ + queued_.size(); }
  [[nodiscard]] bool Posted(uint64_t ticket) const noexcept { return ticket <= posted_; }
  /// To be told of each completion of its sends.
  void Finished() noexcept;

 private:
  struct Work {
    ibv_send_wr request{};
    ibv_sge part{};
  };
  QueuePair(const Context& context, Owned<ibv_qp> pair) : context_(&context), pair_(std::move(pair)) {}
  void Queue(ibv_wr_opcode opcode, std::span<const std::byte> bytes, uint32_t local_key, RemoteMemory remote,
             uint32_t immediate, uint64_t id);
  [[nodiscard]] Status Modify(ibv_qp_attr attributes, int mask, const char* to);

  const Context* context_;
  Owned<ibv_qp> pair_;
  Endpoint endpoint_;
  uint32_t inline_bytes_ = 0;
  uint32_t most_ = 0;  // of `posted_ - finished_`
  std::deque<Work> queued_;
  uint64_t posted_ = 0;  // ever, with the device
  uint64_t finished_ = 0;
  std::deque<uint64_t> signalled_;  // of which posted_ completions are to come
};

}  // namespace praas::verbs

#endif
