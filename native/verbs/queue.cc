#include "verbs/queue.h"

#if PRAAS_VERBS_HEADERS

#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <random>
#include <string>

namespace praas::verbs {
namespace {

constexpr uint32_t k24Bits = 0xffffff;
/// 4.096 µs × 2^14 = 67 ms until a packet is sent again, six times: a peer that is gone is noticed within a second or
/// two. Seven times would be without end on Soft-RoCE.
constexpr uint8_t kTimeout = 14;
constexpr uint8_t kRetries = 6;
/// Of "receiver not ready": 0.64 ms between two tries. 7 would be without end.
constexpr uint8_t kNotReadyTimer = 12;
constexpr uint8_t kNotReadyRetries = 6;
/// Reads in flight at a time.
constexpr uint8_t kReads = 4;
/// Of work that nobody waits for every so many asks for a completion: it says that those before are finished, too.
constexpr uint64_t kSignalEvery = 16;
/// Work that goes to the device at a time.
constexpr size_t kBatch = 16;

Status Failed(const char* what, const Context& context, int error) {
  return Status::System(std::string(what) + " on RDMA device " + context.device(), error);
}

ibv_mtu MtuOf(uint32_t bytes) noexcept {
  uint32_t code = IBV_MTU_256;
  while (code < IBV_MTU_4096 && (128u << (code + 1)) <= bytes) ++code;
  return static_cast<ibv_mtu>(code);
}

/// Links at most `count` of `works`; says how many.
uint32_t Chain(std::span<ibv_recv_wr> works, uint32_t count) noexcept {
  const auto chained = static_cast<uint32_t>(std::min<size_t>(works.size(), count));
  for (uint32_t i = 0; i < chained; ++i) {
    works[i].wr_id = kReceived;
    works[i].next = i + 1 < chained ? &works[i + 1] : nullptr;
  }
  return chained;
}

}  // namespace

Result<ProtectionDomain> ProtectionDomain::Make(const Context& context) {
  Owned<ibv_pd> domain(context.ibv().alloc_pd(context.get()), context.ibv().dealloc_pd);
  if (!domain) return Failed("ibv_alloc_pd", context, errno);
  return ProtectionDomain(context, std::move(domain));
}

Result<MemoryRegion> MemoryRegion::Register(const ProtectionDomain& domain, std::span<std::byte> memory,
                                            Access access) {
  const Library& ibv = domain.context().ibv();
  int flags = IBV_ACCESS_LOCAL_WRITE;
  if (access == Access::kRemote) flags |= IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
  if (access == Access::kRemoteRead) flags = IBV_ACCESS_REMOTE_READ;
  Owned<ibv_mr> region(ibv.reg_mr(domain.get(), memory.data(), memory.size(), flags), ibv.dereg_mr);
  if (region) return MemoryRegion(std::move(region));
  const int error = errno;
  if (error != ENOMEM && error != EPERM) return Failed("ibv_reg_mr", domain.context(), error);
  rlimit limit{};
  const bool limited = ::getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  return Status(Code::kBackpressure,
                "memory of " + std::to_string(memory.size()) + " bytes cannot be registered with RDMA device " +
                    domain.context().device() +
                    (limited ? ": this user may lock " + std::to_string(limit.rlim_cur) + " bytes (ulimit -l)" : ""),
                error);
}

Result<CompletionQueue> CompletionQueue::Make(const Context& context, uint32_t entries) {
  const Library& ibv = context.ibv();
  Owned<ibv_comp_channel> channel(ibv.create_comp_channel(context.get()), ibv.destroy_comp_channel);
  if (!channel) return Failed("ibv_create_comp_channel", context, errno);
  const int flags = ::fcntl(channel->fd, F_GETFL);
  if (flags < 0 || ::fcntl(channel->fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return Failed("fcntl of a completion channel", context, errno);
  }
  Owned<ibv_cq> queue(ibv.create_cq(context.get(), static_cast<int>(entries), nullptr, channel.get(), 0),
                      ibv.destroy_cq);
  if (!queue) return Failed("ibv_create_cq", context, errno);
  return CompletionQueue(context, std::move(channel), std::move(queue));
}

CompletionQueue::~CompletionQueue() {
  // It cannot be destroyed before all its events were acknowledged.
  if (queue_ && unacknowledged_ > 0) context_->ibv().ack_cq_events(queue_.get(), unacknowledged_);
}

Status CompletionQueue::Arm() noexcept {
  const int error = ibv_req_notify_cq(queue_.get(), 0);
  return error == 0 ? Status::Ok() : Failed("ibv_req_notify_cq", *context_, error);
}

void CompletionQueue::Disarm() noexcept {
  ibv_cq* queue = nullptr;
  void* user = nullptr;
  while (context_->ibv().get_cq_event(channel_.get(), &queue, &user) == 0) ++unacknowledged_;
  // Acknowledging takes a lock: many at once.
  constexpr uint32_t kMany = 1024;
  if (unacknowledged_ < kMany) return;
  context_->ibv().ack_cq_events(queue_.get(), unacknowledged_);
  unacknowledged_ = 0;
}

Status StatusOf(const Context& context, const ibv_wc& completion) {
  if (completion.status == IBV_WC_SUCCESS) return Status::Ok();
  return {Code::kConnectionLost, context.Place() + ": " + context.ibv().wc_status_str(completion.status) + " (status " +
                                     std::to_string(completion.status) + ", vendor code " +
                                     std::to_string(completion.vendor_err) + ")"};
}

Result<SharedReceiveQueue> SharedReceiveQueue::Make(const ProtectionDomain& domain, uint32_t entries) {
  const Context& context = domain.context();
  ibv_srq_init_attr attributes{};
  attributes.attr.max_wr = entries;
  attributes.attr.max_sge = 1;
  Owned<ibv_srq> queue(context.ibv().create_srq(domain.get(), &attributes), context.ibv().destroy_srq);
  if (!queue) return Failed("ibv_create_srq", context, errno);
  return SharedReceiveQueue(context, std::move(queue));
}

Status SharedReceiveQueue::Post(uint32_t count) noexcept {
  std::array<ibv_recv_wr, kBatch> works{};
  while (count > 0) {
    ibv_recv_wr* refused = nullptr;
    const uint32_t chained = Chain(works, count);
    if (const int error = ibv_post_srq_recv(queue_.get(), works.data(), &refused); error != 0) {
      return Failed("ibv_post_srq_recv", *context_, error);
    }
    count -= chained;
  }
  return Status::Ok();
}

Result<QueuePair> QueuePair::Make(const ProtectionDomain& domain, const CompletionQueue& completions,
                                  const Options& options) {
  const Context& context = domain.context();
  ibv_qp_init_attr attributes{};
  attributes.send_cq = completions.get();
  attributes.recv_cq = completions.get();
  attributes.qp_type = IBV_QPT_RC;
  attributes.cap.max_send_wr = std::max(options.sends, static_cast<uint32_t>(2 * kSignalEvery));
  attributes.cap.max_recv_wr = options.shared != nullptr ? 0 : options.receives;
  if (options.shared != nullptr) attributes.srq = options.shared->get();
  attributes.cap.max_send_sge = 1;
  attributes.cap.max_recv_sge = 1;
  attributes.cap.max_inline_data = options.inline_bytes;
  Owned<ibv_qp> pair(context.ibv().create_qp(domain.get(), &attributes), context.ibv().destroy_qp);
  while (!pair && errno == EINVAL && attributes.cap.max_inline_data > 0) {
    // Devices have different limits and no way to ask for them.
    attributes.cap.max_inline_data /= 2;
    pair.reset(context.ibv().create_qp(domain.get(), &attributes));
  }
  if (!pair) return Failed("ibv_create_qp", context, errno);
  QueuePair made(context, std::move(pair));
  made.most_ = std::max(options.sends, static_cast<uint32_t>(2 * kSignalEvery));
  made.inline_bytes_ = std::min(attributes.cap.max_inline_data, options.inline_bytes);
  made.endpoint_ = {
      .queue_pair = made.pair_->qp_num, .first_packet = std::random_device()() & k24Bits, .address = context.address()};
  ibv_qp_attr init{};
  init.qp_state = IBV_QPS_INIT;
  init.port_num = context.port();
  init.qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
  Status status =
      made.Modify(init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS, "initialised");
  if (!status.ok()) return status;
  return made;
}

Status QueuePair::Modify(ibv_qp_attr attributes, int mask, const char* to) {
  const int error = context_->ibv().modify_qp(pair_.get(), &attributes, mask);
  if (error == 0) return Status::Ok();
  return Failed((std::string("ibv_modify_qp to ") + to).c_str(), *context_, error);
}

Status QueuePair::Connect(const Endpoint& peer) {
  ibv_qp_attr receive{};
  receive.qp_state = IBV_QPS_RTR;
  receive.path_mtu = MtuOf(std::min(context_->address().mtu_bytes, peer.address.mtu_bytes));
  receive.dest_qp_num = peer.queue_pair & k24Bits;
  receive.rq_psn = peer.first_packet & k24Bits;
  receive.max_dest_rd_atomic = kReads;
  receive.min_rnr_timer = kNotReadyTimer;
  receive.ah_attr.port_num = context_->port();
  receive.ah_attr.dlid = peer.address.lid;
  if (context_->address().ethernet) {
    receive.ah_attr.is_global = 1;
    receive.ah_attr.grh.hop_limit = 64;
    receive.ah_attr.grh.sgid_index = context_->gid_index();
    receive.ah_attr.grh.traffic_class = context_->traffic_class();
    std::copy(peer.address.gid.begin(), peer.address.gid.end(), std::begin(receive.ah_attr.grh.dgid.raw));
  }
  Status status = Modify(receive,
                         IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                             IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
                         "ready to receive");
  if (!status.ok()) return status;
  ibv_qp_attr send{};
  send.qp_state = IBV_QPS_RTS;
  send.sq_psn = endpoint_.first_packet;
  send.timeout = kTimeout;
  send.retry_cnt = kRetries;
  send.rnr_retry = kNotReadyRetries;
  send.max_rd_atomic = kReads;
  return Modify(
      send,
      IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC,
      "ready to send");
}

Status QueuePair::Fail() {
  ibv_qp_attr error{};
  error.qp_state = IBV_QPS_ERR;
  return Modify(error, IBV_QP_STATE, "failed");
}

Status QueuePair::PostReceives(uint32_t count) noexcept {
  std::array<ibv_recv_wr, kBatch> works{};
  while (count > 0) {
    ibv_recv_wr* refused = nullptr;
    const uint32_t chained = Chain(works, count);
    if (const int error = ibv_post_recv(pair_.get(), works.data(), &refused); error != 0) {
      return Failed("ibv_post_recv", *context_, error);
    }
    count -= chained;
  }
  return Status::Ok();
}

void QueuePair::WriteWithImmediate(std::span<const std::byte> bytes, uint32_t local_key, RemoteMemory target,
                                   uint32_t immediate, uint64_t id) {
  Queue(IBV_WR_RDMA_WRITE_WITH_IMM, bytes, local_key, target, immediate, id);
}

void QueuePair::Write(std::span<const std::byte> bytes, uint32_t local_key, RemoteMemory target, uint64_t id) {
  const uint64_t most = context_->max_message_bytes();
  for (; bytes.size() > most; bytes = bytes.subspan(most), target = target.At(most)) {
    Queue(IBV_WR_RDMA_WRITE, bytes.first(most), local_key, target, 0, 0);
  }
  Queue(IBV_WR_RDMA_WRITE, bytes, local_key, target, 0, id);
}

void QueuePair::Read(std::span<std::byte> bytes, uint32_t local_key, RemoteMemory source, uint64_t id) {
  const uint64_t most = context_->max_message_bytes();
  for (; bytes.size() > most; bytes = bytes.subspan(most), source = source.At(most)) {
    Queue(IBV_WR_RDMA_READ, bytes.first(most), local_key, source, 0, 0);
  }
  Queue(IBV_WR_RDMA_READ, bytes, local_key, source, 0, id);
}

void QueuePair::Queue(ibv_wr_opcode opcode, std::span<const std::byte> bytes, uint32_t local_key, RemoteMemory remote,
                      uint32_t immediate, uint64_t id) {
  Work& work = queued_.emplace_back();
  work.part = {.addr = reinterpret_cast<uintptr_t>(bytes.data()),
               .length = static_cast<uint32_t>(bytes.size()),
               .lkey = local_key};
  work.request.wr_id = id;
  work.request.opcode = opcode;
  work.request.num_sge = bytes.empty() ? 0 : 1;
  if (id != 0) work.request.send_flags |= IBV_SEND_SIGNALED;
  if (opcode != IBV_WR_RDMA_READ && bytes.size() <= inline_bytes_) work.request.send_flags |= IBV_SEND_INLINE;
  work.request.imm_data = htobe32(immediate);
  work.request.wr.rdma.remote_addr = remote.address;
  work.request.wr.rdma.rkey = remote.key;
}

Status QueuePair::Ring() noexcept {
  while (!queued_.empty() && posted_ - finished_ < most_) {
    const size_t count = std::min({queued_.size(), kBatch, static_cast<size_t>(most_ - (posted_ - finished_))});
    for (size_t i = 0; i < count; ++i) {
      Work& work = queued_[i];
      work.request.sg_list = &work.part;
      work.request.next = i + 1 < count ? &queued_[i + 1].request : nullptr;
      if (++posted_ % kSignalEvery == 0) work.request.send_flags |= IBV_SEND_SIGNALED;
      if ((work.request.send_flags & IBV_SEND_SIGNALED) != 0) signalled_.push_back(posted_);
    }
    ibv_send_wr* refused = nullptr;
    const int error = ibv_post_send(pair_.get(), &queued_.front().request, &refused);
    queued_.erase(queued_.begin(), queued_.begin() + static_cast<std::ptrdiff_t>(count));
    if (error != 0) return Failed("ibv_post_send", *context_, error);
  }
  return Status::Ok();
}

void QueuePair::Finished() noexcept {
  // Of failed work more is told than was asked for; nothing is posted after it.
  if (signalled_.empty()) return;
  finished_ = signalled_.front();
  signalled_.pop_front();
}

}  // namespace praas::verbs

#endif
