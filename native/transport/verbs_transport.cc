// VerbsTransport: life, completions, ends, memory. From a request to a message: verbs_transport_submit.cc; published
// values: verbs_transport_fetch.cc.
#include "transport/verbs_transport.h"

#if PRAAS_VERBS_HEADERS

#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <string>
#include <utility>

#include "base/clock.h"
#include "protocol/frame.h"
#include "shm/memfd.h"
#include "shm/shared_memory.h"
#include "transport/stream_transport.h"

namespace praas::transport {
namespace {

using verbs::CompletionQueue;
using verbs::Context;

constexpr uint64_t kPage = 4096;
/// Taking an event of the device is a system call.
constexpr uint32_t kPollsPerEventLook = 4096;
/// A host that does not answer the hello within it cannot be reached this way.
constexpr uint64_t kGreetingNs = 3'000'000'000;

constexpr uint64_t UpToPage(uint64_t bytes) noexcept { return (bytes + kPage - 1) / kPage * kPage; }

Status Broken(const Status& why) { return {Code::kConnectionLost, why.message(), why.sys_errno()}; }

Result<UniqueFd> WatchBoth(int completions, int events) {
  UniqueFd both(::epoll_create1(EPOLL_CLOEXEC));
  if (!both) return Status::System("epoll_create1");
  for (const int fd : {completions, events}) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    if (::epoll_ctl(both.get(), EPOLL_CTL_ADD, fd, &event) != 0) return Status::System("epoll_ctl");
  }
  return both;
}

}  // namespace

Result<std::unique_ptr<VerbsTransport>> VerbsTransport::Create(const Options& options, uint64_t deadline_ns) {
  Result<std::unique_ptr<Context>> context = Context::Open(options.selection, deadline_ns);
  if (!context.ok()) return context.status();
  Result<CompletionQueue> completions =
      CompletionQueue::Make(**context, VerbsLink::kSends + VerbsLink::MessagesIn(VerbsLink::kSlots));
  if (!completions.ok()) return completions.status();
  const uint64_t bytes = UpToPage(VerbsLink::MemoryBytes(VerbsLink::kSlots)) + UpToPage(options.window_bytes);
  Result<UniqueFd> memfd = shm::CreateMemfd("praas-verbs", bytes, shm::Sealing::kFixed);
  if (!memfd.ok()) return memfd.status();
  const uint64_t messages = VerbsLink::MemoryBytes(VerbsLink::kSlots);
  if (Status status = shm::Commit(memfd->get(), 0, UpToPage(messages), "RDMA messages"); !status.ok()) return status;
  Result<shm::Mapping> mapping = shm::Mapping::Map(memfd->get(), 0, bytes, shm::Access::kReadWrite);
  if (!mapping.ok()) return mapping.status();
  Result<UniqueFd> wake_ups = WatchBoth(completions->fd(), (*context)->event_fd());
  if (!wake_ups.ok()) return wake_ups.status();

  std::unique_ptr<VerbsTransport> made(new VerbsTransport(*std::move(context), *std::move(completions),
                                                          *std::move(memfd), *std::move(mapping),
                                                          options.default_timeout_ns));
  made->wake_ups_ = *std::move(wake_ups);
  Result<std::unique_ptr<VerbsLink>> link = VerbsLink::Make(*made->context_, *made->completions_, nullptr,
                                                            made->mapping_.bytes().first(messages), VerbsLink::kSlots);
  if (!link.ok()) return link.status();
  made->link_ = *std::move(link);
  made->cache_.emplace(made->link_->domain(), made->mapping_.bytes(), verbs::MemoryRegion::Access::kRemote);
  made->published_.UseDevice([raw = made.get()](const publication::Location& location, uint64_t bytes) {
    return raw->Fetch(location, bytes);
  });
  return made;
}

VerbsTransport::VerbsTransport(std::unique_ptr<Context> context, CompletionQueue completions, UniqueFd memfd,
                               shm::Mapping mapping, uint64_t default_timeout_ns)
    : context_(std::move(context)),
      completions_(std::move(completions)),
      memfd_(std::move(memfd)),
      mapping_(std::move(mapping)),
      default_timeout_ns_(default_timeout_ns),
      calls_(VerbsLink::kSlots) {
  const uint64_t begin = UpToPage(VerbsLink::MemoryBytes(VerbsLink::kSlots));
  payload_.emplace(memfd_.get(), mapping_.data(), begin, mapping_.size());
  for (uint32_t slot = VerbsLink::kSlots; slot-- > 0;) free_slots_.push_back(slot);
}

VerbsTransport::~VerbsTransport() { EndLink(); }

Status VerbsTransport::Connect(const protocol::VerbsEnd& host, uint64_t deadline_ns) {
  if (Status status = link_->PostReceives(VerbsLink::MessagesIn(VerbsLink::kSlots)); !status.ok()) return status;
  if (Status status = link_->Connect(host); !status.ok()) return status;
  link_->Tell(MessageKind::kHello, 0);
  const uint64_t give_up_ns = std::min(deadline_ns, DeadlineIn(kGreetingNs));
  while (!greeted_ && broken_.ok()) {
    if (Poll([](const Reply&) {}) > 0 || greeted_ || !PrepareToSleep()) continue;
    if (NowNs() >= give_up_ns) return {Code::kConnectionTimeout, "the host does not answer by RDMA"};
    pollfd waiting{fd(), POLLIN, 0};
    if (::poll(&waiting, 1, PollTimeoutMs(give_up_ns)) < 0 && errno != EINTR) return Status::System("poll");
  }
  return broken_;
}

// --- completion ---

size_t VerbsTransport::Poll(const Sink& sink) {
  ++poll_depth_;
  size_t replies = 0;
  Flush();
  if (link_ != nullptr) {
    if (std::exchange(armed_, false)) {
      completions_->Disarm();
      polls_ = 0;
    }
    if (polls_++ % kPollsPerEventLook == 0) OnEvent(context_->TakeEvent());
  }
  if (link_ != nullptr) replies += TakeCompletions(sink);
  if (link_ != nullptr && rooms_wanted_ > 0) replies += RetryRooms(sink);
  Flush();
  if (closed_) {
    replies += FailAll(Status(Code::kConnectionClosed, "the connection was closed"), sink);
  } else if (!failure_.ok()) {
    EndLink();  // before anybody is told that memory is free again
    replies += FailAll(failure_, sink);
  }
  --poll_depth_;
  if (poll_depth_ == 0 && !broken_.ok() && payload_) {
    for (uint32_t slot = 0; slot < calls_.size(); ++slot) {
      if (calls_[slot].in_use) Retire(slot);  // nobody touches its memory any more
    }
  }
  UnmapWhenUnused();
  return replies;
}

size_t VerbsTransport::TakeCompletions(const Sink& sink) {
  size_t replies = 0;
  for (const ibv_wc& completion : std::exchange(early_, {})) {
    replies += OnCompletion(completion, sink);
    if (link_ == nullptr) return replies;  // broken
  }
  std::array<ibv_wc, 16> batch;
  int got = 0;
  do {
    got = completions_->Poll(batch);
    if (got < 0) {
      Break(Status(Code::kConnectionLost, "RDMA: the completion queue is lost"));
      return replies;
    }
    for (const ibv_wc& completion : std::span(batch).first(static_cast<size_t>(got))) {
      replies += OnCompletion(completion, sink);
      if (link_ == nullptr) return replies;
    }
  } while (got == static_cast<int>(batch.size()));
  if (received_ > 0) {
    if (Status status = link_->PostReceives(std::exchange(received_, 0)); !status.ok()) Break(std::move(status));
  }
  return replies;
}

size_t VerbsTransport::OnCompletion(const ibv_wc& completion, const Sink& sink) {
  if (Status status = StatusOf(*context_, completion); !status.ok()) {
    Break(std::move(status));
    return 0;
  }
  if (completion.wr_id != verbs::kReceived) {
    link_->Finished();
    return 0;
  }
  ++received_;
  const Result<MessageTag> tag = DecodeTag(be32toh(completion.imm_data), link_->slots());
  if (!tag.ok()) {
    Break(tag.status());
    return 0;
  }
  return OnMessage(*tag, sink);
}

size_t VerbsTransport::OnMessage(MessageTag tag, const Sink& sink) {
  if (tag.kind == MessageKind::kHello) {
    greeted_ = true;
    return 0;
  }
  if (closed_) return 0;
  Call& call = calls_[tag.slot];
  const auto violated = [&](const char* what) -> size_t {
    Break(Status(Code::kProtocolInvalid, std::string("RDMA: the host sent ") + what));
    return 0;
  };
  if (!call.in_use) return violated("an answer without a call");
  if (tag.kind == MessageKind::kNext) {
    if (Status status = SendChunk(call, tag.slot); !status.ok()) Break(std::move(status));
    return 0;
  }
  const Result<Message> message = link_->Received(tag.kind, tag.slot);
  if (!message.ok()) {
    Break(message.status());
    return 0;
  }
  if (message->sequence != call.sequence) return violated("an answer to another call");
  switch (tag.kind) {
    case MessageKind::kReply:
      return OnReply(call, tag.slot, *message, sink);
    case MessageKind::kNeedRoom:
      return OnNeedRoom(call, tag.slot, *message, sink);
    case MessageKind::kChunk:
      if (Status status = OnChunk(call, tag.slot, *message); !status.ok()) Break(std::move(status));
      return 0;
    default:
      return violated("what only clients say");
  }
}

size_t VerbsTransport::OnReply(Call& call, uint32_t slot, const Message& message, const Sink& sink) {
  ForgetRoom(call);  // the host may have ended it (deadline, crash) while it waited for room
  size_t replies = 0;
  if (!call.answered) {
    const Result<std::span<const std::byte>> result = ResultOf(call, slot, message);
    if (!result.ok()) {
      replies = Answer(call, result.status(), {}, sink);
    } else if (message.status != 0) {
      std::string text(reinterpret_cast<const char*>(result->data()), result->size());
      replies = Answer(call, Status(static_cast<Code>(message.status), std::move(text)), {}, sink);
    } else {
      replies = Answer(call, Status::Ok(), call.abandoned ? std::span<const std::byte>() : *result, sink);
    }
  }
  if (link_ != nullptr) Retire(slot);
  return replies;
}

/// Where the result lies now. The host is trusted to answer, but nothing it says is used as an address before it was
/// compared with what was offered.
Result<std::span<const std::byte>> VerbsTransport::ResultOf(Call& call, uint32_t slot, const Message& message) {
  std::span<const std::byte> result;
  if (message.mode == MessageMode::kInline) {
    ++counters_.inline_results;
    result = link_->Inbox(slot).first(message.bytes);
  } else {
    const bool chunks = call.output_received > 0;
    if (message.bytes > call.output_capacity || (chunks && message.bytes != call.output_received)) {
      return Status(Code::kProtocolInvalid, "the host answered with a result outside the memory it was offered");
    }
    ++(chunks ? counters_.chunked_results : counters_.written_results);
    result = {payload_->At(call.output_offset), message.bytes};
  }
  if (message.status != 0) return result;
  result_sizes_.Note(call.function, result.size());
  if (call.abandoned || result.empty()) return result;
  // Into the caller's memory: outside of the payload area, or in it if the result has come in the message.
  std::span<std::byte> target = call.plain_output;
  if (message.mode == MessageMode::kInline && call.pinned_output != kNoBlock) {
    target = {payload_->At(call.output_offset), call.output_capacity};
  }
  if (result.size() > target.size()) return result;
  std::memcpy(target.data(), result.data(), result.size());
  counters_.copied_bytes += result.size();
  result = target.first(result.size());
  return result;
}

Status VerbsTransport::OnChunk(Call& call, uint32_t slot, const Message& message) {
  if (message.bytes > call.output_capacity - call.output_received) {
    return {Code::kProtocolInvalid, "RDMA: the host sent more of a result than there is room for"};
  }
  std::memcpy(payload_->At(call.output_offset + call.output_received), link_->Inbox(slot).data(), message.bytes);
  call.output_received += message.bytes;
  link_->Tell(MessageKind::kNext, slot);
  return Status::Ok();
}

Status VerbsTransport::SendChunk(Call& call, uint32_t slot) {
  if (call.input_sent >= call.input.size()) {
    return {Code::kProtocolInvalid, "RDMA: the host asked for more of an input than there is"};
  }
  const auto chunk = call.input.subspan(call.input_sent,
                                        std::min<uint64_t>(kMessagePayloadBytes, call.input.size() - call.input_sent));
  std::memcpy(link_->Outbox(slot).data(), chunk.data(), chunk.size());
  call.input_sent += chunk.size();
  link_->Send(MessageKind::kChunk, slot, {.sequence = call.sequence, .bytes = chunk.size()}, chunk.size());
  return Status::Ok();
}

// --- room for results that were larger than expected ---

size_t VerbsTransport::OnNeedRoom(Call& call, uint32_t slot, const Message& message, const Sink& sink) {
  result_sizes_.Note(call.function, message.bytes);
  call.room_wanted = std::max<uint64_t>(message.bytes, 1);
  ++rooms_wanted_;
  if (call.abandoned || call.answered) {
    DropResult(slot);
    return 0;
  }
  ++counters_.rooms_given;
  Status status = GiveRoom(slot);
  return status.ok() ? 0 : Answer(call, std::move(status), {}, sink);
}

Status VerbsTransport::GiveRoom(uint32_t slot) {
  Call& call = calls_[slot];
  const Result<uint64_t> block = payload_->Allocate(call.room_wanted);
  if (!block.ok() && block.status().code() == Code::kBackpressure) return Status::Ok();  // RetryRooms goes on with it
  const uint64_t bytes = call.room_wanted;
  if (!block.ok()) {
    DropResult(slot);
    return block.status().WithContext("no room for a result of " + std::to_string(bytes) + " bytes");
  }
  ForgetRoom(call);
  call.output_lease = {};
  if (call.own_output != kNoBlock) payload_->allocator().Release(call.own_output);
  call.own_output = call.output_offset = block.value();
  call.output_capacity = bytes;
  Message room{.sequence = call.sequence};
  OfferOutput(call, room);
  link_->Send(MessageKind::kRoom, slot, room, 0);
  return Status::Ok();
}

void VerbsTransport::DropResult(uint32_t slot) {
  ForgetRoom(calls_[slot]);
  link_->Send(MessageKind::kRoom, slot, {.mode = MessageMode::kDropped, .sequence = calls_[slot].sequence}, 0);
}

size_t VerbsTransport::RetryRooms(const Sink& sink) {
  size_t replies = 0;
  for (uint32_t slot = 0; slot < calls_.size() && link_ != nullptr && rooms_wanted_ > 0; ++slot) {
    Call& call = calls_[slot];
    if (!call.in_use || call.room_wanted == 0) continue;
    if (Status status = GiveRoom(slot); !status.ok()) replies += Answer(call, std::move(status), {}, sink);
  }
  return replies;
}

void VerbsTransport::ForgetRoom(Call& call) noexcept {
  if (std::exchange(call.room_wanted, 0) != 0) --rooms_wanted_;
}

// --- ends ---

size_t VerbsTransport::Answer(Call& call, Status status, std::span<const std::byte> payload, const Sink& sink) {
  call.answered = true;
  --unanswered_;
  sink(Reply{call.id, std::move(status), payload});
  return 1;
}

void VerbsTransport::Retire(uint32_t slot) {
  Call& call = calls_[slot];
  call.input_lease = {};
  call.output_lease = {};
  window::PayloadAllocator& allocator = payload_->allocator();
  for (const uint64_t pinned : {call.pinned_input, call.pinned_output}) {
    if (pinned != kNoBlock) allocator.Unpin(pinned);
  }
  for (const uint64_t own : {call.own_input, call.own_output}) {
    if (own != kNoBlock) allocator.Release(own);
  }
  call.in_use = false;
  free_slots_.push_back(slot);
}

size_t VerbsTransport::FailAll(const Status& status, const Sink& sink) {
  size_t replies = 0;
  for (uint32_t slot = 0; slot < calls_.size() && unanswered_ > 0; ++slot) {
    if (calls_[slot].in_use && !calls_[slot].answered) replies += Answer(calls_[slot], status, {}, sink);
  }
  return replies;
}

void VerbsTransport::OnEvent(const Context::Event& event) {
  if (event.fatal && link_ != nullptr) Break(StatusOf(*context_, event));
}

void VerbsTransport::Break(Status why) {
  if (!broken_.ok()) return;
  broken_ = Broken(why);
  if (failure_.ok()) failure_ = broken_;
  EndLink();
}

void VerbsTransport::Fail(Status status) {
  assert(!status.ok());
  if (failure_.ok()) failure_ = std::move(status);
}

/// From here on the device neither reads nor writes any memory.
void VerbsTransport::EndLink() noexcept {
  for (Call& call : calls_) {
    call.input_lease = {};
    call.output_lease = {};
  }
  cache_.reset();
  link_.reset();
  completions_.reset();
  context_.reset();
  armed_ = false;
  early_.clear();
}

void VerbsTransport::Close() noexcept {
  closed_ = true;
  UnmapWhenUnused();
}

void VerbsTransport::UnmapWhenUnused() noexcept {
  if (!closed_ || poll_depth_ > 0 || !payload_) return;
  EndLink();
  payload_.reset();
  mapping_.Reset();
  memfd_.Reset();
}

// --- sleeping and memory ---

bool VerbsTransport::PrepareToSleep() {
  if (closed_ || !failure_.ok()) return unanswered_ == 0;
  Flush();
  if (link_ == nullptr || !early_.empty()) return false;
  for (const Call& call : calls_) {
    // Buffers released since the last Poll may be the room that a result waits for. Poll gives it.
    if (rooms_wanted_ > 0 && call.in_use && call.room_wanted != 0 && payload_->allocator().Fits(call.room_wanted)) {
      return false;
    }
  }
  if (armed_) return true;
  if (Status status = completions_->Arm(); !status.ok()) {
    Break(std::move(status));
    return false;
  }
  armed_ = true;
  // What was there before the queue was armed wakes nobody.
  early_.resize(16);
  const int got = completions_->Poll(early_);
  early_.resize(static_cast<size_t>(std::max(got, 0)));
  return got == 0;
}

Result<Buffer> VerbsTransport::Allocate(uint64_t bytes) {
  if (closed_) return Status(Code::kConnectionClosed, "the connection is closed");
  const Result<uint64_t> block = payload_->Allocate(bytes);
  if (!block.ok()) return block.status();
  // Registered now, and kept so while the budget lasts: registering takes longer than a call.
  if (cache_ && bytes > kMessagePayloadBytes) (void)cache_->Acquire({payload_->At(block.value()), bytes});
  return Buffer{payload_->At(block.value()), bytes, block.value()};
}

void VerbsTransport::Release(const Buffer& buffer) {
  if (payload_ && buffer.data != nullptr) payload_->allocator().Release(buffer.handle);
}

void VerbsTransport::Trim() {
  if (closed_ || unanswered_ > 0 || (cache_ && !cache_->Trim())) return;
  payload_->Trim(0);
}

}  // namespace praas::transport

#endif
