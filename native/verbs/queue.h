#pragma once

#include <cstddef>
#include <cstdint>
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

/// Memory the device may use, pinned. Whoever unmaps the memory destroys this first.
class MemoryRegion {
 public:
  enum class Access : uint8_t {
    kLocal,   // this side's queue pairs only
    kRemote,  // peers read and write it who know its key
  };
  /// kBackpressure: more memory than this user may lock (RLIMIT_MEMLOCK); says how much that is.
  [[nodiscard]] static Result<MemoryRegion> Register(const ProtectionDomain& domain, std::span<std::byte> memory,
                                                     Access access);
  [[nodiscard]] uint32_t local_key() const noexcept { return region_->lkey; }
  [[nodiscard]] uint32_t remote_key() const noexcept { return region_->rkey; }
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

/// How a peer's queue pair is reached. Travels over TCP when two connect.
struct Endpoint {
  uint32_t queue_pair = 0;    // 24 bits
  uint32_t first_packet = 0;  // 24 bits: where its sequence numbers begin
  Address address;
};

/// Memory of the peer.
struct RemoteMemory {
  uint64_t address = 0;
  uint32_t key = 0;
};

/// A reliable connection.
class QueuePair {
 public:
  struct Options {
    uint32_t sends = 256;         // that are not finished
    uint32_t receives = 256;      // that wait
    uint32_t inline_bytes = 256;  // what a send copies at once may have; less where the device does not do as much
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

  /// Room for one WriteWithImmediate of the peer; no memory is needed for it.
  [[nodiscard]] Status PostReceive(uint64_t id) noexcept;
  enum class Signal : bool { kOnError, kAlways };
  /// Writes to the peer and tells it `immediate` when all is there. Up to inline_bytes() are copied at once; other
  /// memory stays as it is until its completion.
  [[nodiscard]] Status WriteWithImmediate(std::span<const std::byte> bytes, uint32_t local_key, RemoteMemory target,
                                          uint32_t immediate, uint64_t id, Signal signal) noexcept;
  [[nodiscard]] Status Write(std::span<const std::byte> bytes, uint32_t local_key, RemoteMemory target, uint64_t id,
                             Signal signal) noexcept;
  [[nodiscard]] Status Read(std::span<std::byte> bytes, uint32_t local_key, RemoteMemory source, uint64_t id) noexcept;

 private:
  QueuePair(const Context& context, Owned<ibv_qp> pair) : context_(&context), pair_(std::move(pair)) {}
  [[nodiscard]] Status Post(ibv_send_wr& work, std::span<const std::byte> bytes, uint32_t local_key,
                            RemoteMemory remote, Signal signal) noexcept;
  [[nodiscard]] Status Modify(ibv_qp_attr attributes, int mask, const char* to);

  const Context* context_;
  Owned<ibv_qp> pair_;
  Endpoint endpoint_;
  uint32_t inline_bytes_ = 0;
};

}  // namespace praas::verbs

#endif
