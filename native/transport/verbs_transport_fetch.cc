// VerbsTransport: published values, fetched from the host's memory without the host.
#include "transport/verbs_transport.h"

#if PRAAS_VERBS_HEADERS

#include <array>

#include "base/clock.h"
#include "base/spin.h"

namespace praas::transport {
namespace {

/// Of completions of Fetch, the only ones with an id. Devices give up earlier on a host that does not answer.
constexpr uint64_t kFetchId = 1;
constexpr uint64_t kFetchNs = 5'000'000'000;

}  // namespace

std::span<const std::byte> VerbsTransport::Fetch(const publication::Location& location, uint64_t bytes) {
  if (closed_ || link_ == nullptr) return {};
  if (bytes > fetched_capacity_) {
    const Result<uint64_t> block = payload_->Allocate(bytes);
    if (!block.ok()) return {};
    if (fetched_block_ != kNoBlock) payload_->allocator().Release(fetched_block_);
    fetched_block_ = block.value();
    fetched_capacity_ = bytes;
  }
  const std::span<std::byte> target(payload_->At(fetched_block_), bytes);
  const Lease lease = cache_->Acquire(target);
  if (!lease) return {};
  link_->Read(target, lease.local_key(), {location.address, location.key}, kFetchId);
  Flush();
  if (!AwaitFetch()) return {};
  return target;
}

/// What completes before it is left to the next Poll.
bool VerbsTransport::AwaitFetch() {
  const uint64_t give_up_ns = DeadlineIn(kFetchNs);
  std::array<ibv_wc, 1> one;
  for (SpinYield spin; link_ != nullptr; spin.Step()) {
    const int got = completions_->Poll(one);
    if (got > 0 && one[0].status == IBV_WC_SUCCESS && one[0].wr_id == kFetchId) {
      link_->Finished();
      return true;
    }
    if (got > 0 && one[0].status != IBV_WC_SUCCESS) {
      Break(StatusOf(*context_, one[0]));
    } else if (got > 0) {
      early_.push_back(one[0]);
    } else if (got < 0 || (spin.steps() % 1024 == 0 && NowNs() > give_up_ns)) {
      Break(Status(Code::kConnectionLost, "RDMA: a read does not end"));
    }
  }
  return false;
}

}  // namespace praas::transport

#endif
