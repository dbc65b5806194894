#include "host/session_streams.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "host/session.h"
#include "host/state_service.h"
#include "protocol/messages.h"

namespace praas::host {
namespace {

using dispatch::CallState;
using dispatch::ChunkConsumer;
using dispatch::ChunkProducer;
using dispatch::Place;
using dispatch::StreamEnd;
using dispatch::StreamRing;
using protocol::Frame;
using protocol::FrameType;
using protocol::Placement;

constexpr uint64_t kRetryNs = 1'000'000;
constexpr uint64_t kReclaimNs = 5'000'000'000;
/// Output of streams waits in the rings while a client has so much unread already.
constexpr uint64_t kMaxQueuedBytes = 2u << 20;

Status CancelledEarly() { return Status(Code::kInvocationCancelled, "cancelled before all of it was read"); }

}  // namespace

std::optional<uint32_t> StreamRings::TryTake() {
  segment::Region& region = process_.header().streams;
  for (uint32_t ring = 0; ring < dispatch::kMaxStreams; ++ring) {
    if (ring >= region.committed.load() && !process_.segment->Commit(region, ring + 1).ok()) return std::nullopt;
    uint32_t free = 0;
    if (At(ring).in_use.compare_exchange_strong(free, 1)) return ring;
  }
  return std::nullopt;
}

bool StreamRings::HasRoom() const noexcept {
  const uint32_t committed = process_.header().streams.committed.load();
  if (committed < dispatch::kMaxStreams) return true;
  for (uint32_t ring = 0; ring < committed; ++ring) {
    if (At(ring).in_use.load() == 0) return true;
  }
  return false;
}

StreamRing& StreamRings::At(uint32_t ring) const noexcept {
  return process_.segment->At<StreamRing>(process_.header().streams, ring);
}

void StreamRings::Release(uint32_t ring) {
  dispatch::ResetStream(At(ring), 0);
  At(ring).in_use.store(0);
}

void StreamRings::ReclaimBlocks(uint32_t index, std::function<void()> done) {
  service_.Chore(
      [&process = process_, index] {
        const auto of_call = [index](uint32_t, const segment::Block& block) {
          return block.owner.kind == segment::BlockOwner::Kind::kCall && block.owner.id == index;
        };
        (void)process.pool->inputs().ReclaimIf(of_call, DeadlineIn(kReclaimNs));
        (void)process.pool->outputs().ReclaimIf(of_call, DeadlineIn(kReclaimNs));
      },
      std::move(done));
}

struct SessionStreams::Stream {
  Stream(uint64_t id, uint32_t entry, uint32_t position, StreamRing& memory, window::Pool& pool)
      : call(id),
        index(entry),
        ring(position),
        input_ring(memory.input),
        input(memory.input, pool, Place::kPoolInput, entry),
        output(memory.output, pool, Place::kPoolOutput) {}

  const uint64_t call;
  const uint32_t index;
  const uint32_t ring;

  // Client → worker.
  dispatch::ChunkRing& input_ring;
  ChunkProducer input;
  uint64_t receive_sequence = 0;
  uint64_t receive_credit = protocol::kInitialStreamCredit;  // what the client may still send
  uint32_t consumed_head = 0;
  std::deque<uint32_t> published;               // sizes of the chunks in the ring, oldest first
  std::deque<std::vector<std::byte>> overflow;  // chunks that found no position or no memory
  bool receive_ended = false;

  // Worker → client.
  ChunkConsumer output;
  uint64_t send_sequence = 0;
  uint64_t send_credit = protocol::kInitialStreamCredit;
  bool sending = false;                      // a chunk is being sent from where it lies
  std::optional<dispatch::PayloadRef> sent;  // its block's arena was in use

  bool done = false;       // its entry is finished
  bool cancelled = false;  // nobody reads what is left
  Status outcome;
};

SessionStreams::SessionStreams(EventLoop& loop, Process& process, Calls& calls, StreamRings& rings, Session& session)
    : loop_(loop), process_(process), calls_(calls), rings_(rings), session_(session) {}

SessionStreams::~SessionStreams() { loop_.CancelTimer(retry_timer_); }

bool SessionStreams::Open(uint32_t index, uint64_t call) {
  if (streams_.contains(call)) return false;
  const std::optional<uint32_t> ring = rings_.TryTake();
  if (!ring) return false;
  dispatch::ResetStream(rings_.At(*ring), index);
  streams_.emplace(call, std::make_unique<Stream>(call, index, *ring, rings_.At(*ring), *process_.pool));
  calls_.entry(index).stream = *ring + 1;
  return true;
}

void SessionStreams::Notify(const Stream& stream) {
  const dispatch::CallWord word = calls_.word(stream.index);
  if (word.state == CallState::kClaimed) process_.dispatcher->Notify(word.owner, dispatch::kNoticeStream);
}

void SessionStreams::RetryLater() {
  if (retry_timer_ != EventLoop::TimerId{}) return;
  retry_timer_ = loop_.At(NowNs() + kRetryNs, [this] {
    retry_timer_ = {};
    Pump();
  });
}

Result<Placement> SessionStreams::OnDataHeader(const Frame& frame) {
  const auto found = streams_.find(frame.call);
  if (found == streams_.end() || found->second->done)
    return Placement::Discard();  // it ended while this was on its way
  Stream& stream = *found->second;
  if (stream.receive_ended) return Status(Code::kProtocolInvalid, "a chunk after the last one");
  if (frame.aux != stream.receive_sequence) {
    return Status(Code::kProtocolInvalid, "chunk " + std::to_string(frame.aux) + " of a stream where " +
                                              std::to_string(stream.receive_sequence) + " is next");
  }
  if (frame.payload_bytes > stream.receive_credit) {
    return Status(Code::kProtocolInvalid, "a chunk larger than the credit given");
  }
  ++stream.receive_sequence;
  stream.receive_credit -= frame.payload_bytes;
  receiving_call_ = frame.call;
  receiving_block_.reset();
  if (frame.payload_bytes == 0) return Placement::Scratch();
  if (stream.overflow.empty() && stream.input.room() > 0 && stream.input.end() == StreamEnd::kOpen) {
    std::optional<Result<ChunkProducer::Prepared>> prepared = stream.input.TryPrepare(frame.payload_bytes);
    if (prepared && prepared->ok()) {
      receiving_block_ = **prepared;
      return Placement::Into(receiving_block_->bytes);
    }
  }
  receiving_bytes_.resize(frame.payload_bytes);
  return Placement::Into(receiving_bytes_);
}

Status SessionStreams::OnData(const Frame& frame) {
  receiving_call_ = 0;
  const auto found = streams_.find(frame.call);
  if (found == streams_.end()) return Status::Ok();
  Stream& stream = *found->second;
  if (receiving_block_) {
    stream.input.Publish(receiving_block_->ref);
    stream.published.push_back(static_cast<uint32_t>(frame.payload_bytes));
    receiving_block_.reset();
    Notify(stream);
  } else if (frame.payload_bytes > 0) {
    // Small chunks are put together: their number is not bounded by the credit, that of the vectors is.
    if (!stream.overflow.empty() &&
        stream.overflow.back().size() + receiving_bytes_.size() <= dispatch::kStreamChunkBytes) {
      stream.overflow.back().insert(stream.overflow.back().end(), receiving_bytes_.begin(), receiving_bytes_.end());
    } else {
      stream.overflow.push_back(receiving_bytes_);
    }
  }
  stream.receive_ended = (frame.flags & protocol::kLast) != 0;
  PumpInput(stream);
  return Status::Ok();
}

Status SessionStreams::OnCredit(const Frame& frame) {
  const auto found = streams_.find(frame.call);
  if (found == streams_.end()) return Status::Ok();
  Stream& stream = *found->second;
  if (frame.aux == 0 || frame.aux > protocol::kMaxPayload || stream.send_credit + frame.aux > protocol::kMaxPayload) {
    return Status(Code::kProtocolInvalid, "stream credit of " + std::to_string(frame.aux) + " bytes");
  }
  stream.send_credit += frame.aux;
  PumpOutput(stream);
  return Status::Ok();
}

void SessionStreams::PumpInput(Stream& stream) {
  if (stream.done) return;
  uint64_t consumed = 0;
  const uint32_t head = stream.input_ring.head.load(std::memory_order_acquire);
  // A damaged counter gives back no more than was published.
  for (; stream.consumed_head != head && !stream.published.empty(); ++stream.consumed_head) {
    consumed += stream.published.front();
    stream.published.pop_front();
  }
  bool published = false;
  while (!stream.overflow.empty() && stream.input.room() > 0 && stream.input.end() == StreamEnd::kOpen) {
    const std::vector<std::byte>& bytes = stream.overflow.front();
    std::optional<Result<ChunkProducer::Prepared>> prepared = stream.input.TryPrepare(bytes.size());
    if (!prepared || !prepared->ok()) {
      RetryLater();
      break;
    }
    std::memcpy((*prepared)->bytes.data(), bytes.data(), bytes.size());
    stream.input.Publish((*prepared)->ref);
    stream.published.push_back(static_cast<uint32_t>(bytes.size()));
    stream.overflow.pop_front();
    published = true;
  }
  if (stream.receive_ended && stream.overflow.empty() && stream.input.end() == StreamEnd::kOpen) {
    stream.input.End();
    published = true;
  }
  if (published) Notify(stream);
  if (consumed > 0 && !stream.receive_ended && session_.open()) {
    stream.receive_credit += consumed;
    session_.writer_.Push({.type = FrameType::kCredit, .call = stream.call, .aux = consumed});
    session_.Wrote();
  }
}

void SessionStreams::PumpOutput(Stream& stream) {
  ReleaseSent(stream);
  while (!stream.sending && !stream.sent && session_.open()) {
    if (stream.done && !stream.outcome.ok()) break;  // what is left is not delivered
    if (session_.writer_.queued_bytes() > kMaxQueuedBytes) return;
    Result<std::optional<ChunkConsumer::Chunk>> chunk = stream.output.Peek();
    if (!chunk.ok()) {
      // The worker's ring makes no sense: the call cannot go on, whatever its function does.
      stream.input.Abort();
      if (!stream.done)
        (void)process_.dispatcher->Cancel(stream.index, calls_.generation(stream.index), Code::kStreamAborted);
      stream.outcome = chunk.status();
      break;
    }
    if (!chunk->has_value()) break;
    const uint64_t bytes = (*chunk)->bytes.size();
    if (bytes > stream.send_credit) return;
    stream.send_credit -= bytes;
    stream.sending = true;
    session_.writer_.Push({.type = FrameType::kData, .call = stream.call, .aux = stream.send_sequence++},
                          (*chunk)->bytes,
                          [this, call = stream.call, ref = (*chunk)->ref](const Status&) { Sent(call, ref); });
    session_.Wrote();
  }
  if (stream.done && !stream.sending && !stream.sent) Finish(stream.call);
}

void SessionStreams::Sent(uint64_t call, const dispatch::PayloadRef& ref) {
  const auto found = streams_.find(call);
  if (found == streams_.end()) return;
  found->second->sending = false;
  found->second->sent = ref;
  ReleaseSent(*found->second);
}

void SessionStreams::ReleaseSent(Stream& stream) {
  if (!stream.sent) return;
  if (!stream.output.TryRelease(*stream.sent)) return RetryLater();
  stream.sent.reset();
  Notify(stream);
}

void SessionStreams::Pump() {
  std::vector<uint64_t> calls;
  for (const auto& [call, stream] : streams_) calls.push_back(call);
  for (const uint64_t call : calls) {
    if (const auto found = streams_.find(call); found != streams_.end()) PumpInput(*found->second);
    if (const auto found = streams_.find(call); found != streams_.end()) PumpOutput(*found->second);
  }
}

void SessionStreams::PumpOutput() {
  if (streams_.empty()) return;
  std::vector<uint64_t> calls;
  for (const auto& [call, stream] : streams_) calls.push_back(call);
  for (const uint64_t call : calls) {
    if (const auto found = streams_.find(call); found != streams_.end()) PumpOutput(*found->second);
  }
}

bool SessionStreams::Completed(uint32_t index) {
  const auto found = streams_.find(calls_.entry(index).origin_call);
  if (found == streams_.end() || found->second->index != index) return false;
  Stream& stream = *found->second;
  stream.done = true;
  if (stream.outcome.ok() && stream.cancelled) stream.outcome = CancelledEarly();
  if (stream.outcome.ok()) {
    const Calls::Outcome outcome = calls_.OutcomeOf(index);
    if (outcome.code != Code::kOk) {
      const size_t bytes = std::min(outcome.payload.size(), protocol::kMaxErrorMessage);
      stream.outcome = Status(outcome.code, std::string(reinterpret_cast<const char*>(outcome.payload.data()), bytes));
    }
  }
  if (!session_.open()) {
    if (!stream.sending) Finish(stream.call);
  } else {
    PumpOutput(stream);
  }
  return true;
}

void SessionStreams::Finish(uint64_t call) {
  const auto found = streams_.find(call);
  const std::unique_ptr<Stream> stream = std::move(found->second);
  streams_.erase(found);
  if (session_.open()) {
    if (stream->outcome.ok()) {
      session_.writer_.Push(
          {.type = FrameType::kData, .flags = protocol::kLast, .call = call, .aux = stream->send_sequence});
      session_.writer_.Push({.type = FrameType::kReply, .call = call});
      session_.Wrote();
    } else {
      session_.Reply({.type = FrameType::kReply, .call = call}, stream->outcome);
    }
  }
  if (receiving_call_ == call) {
    if (!session_.closed()) session_.reader_.DiscardCurrent();
    receiving_call_ = 0;
    receiving_block_.reset();
  }
  // Whatever the call still has in the pool goes: chunks its worker did not read, a message too long for the slot.
  rings_.ReclaimBlocks(stream->index, [this, index = stream->index, ring = stream->ring] {
    calls_.entry(index).input = {};
    calls_.entry(index).output = {};
    rings_.Release(ring);
    session_.FreeCall(index);
  });
}

void SessionStreams::Cancelled(uint64_t call) {
  const auto found = streams_.find(call);
  if (found == streams_.end()) return;
  Stream& stream = *found->second;
  stream.input.Abort();
  stream.cancelled = true;
  if (!stream.done) return Notify(stream);
  // Its function has ended; nobody makes room for what is left of its output.
  if (stream.outcome.ok()) stream.outcome = CancelledEarly();
  PumpOutput(stream);
}

void SessionStreams::Abort() {
  // Calls that still run end their streams when they complete; of those that are done nobody would hear again.
  std::vector<uint64_t> done;
  for (const auto& [call, stream] : streams_) {
    stream->input.Abort();
    stream->sending = false;
    Notify(*stream);
    if (stream->done) done.push_back(call);
  }
  for (const uint64_t call : done) Finish(call);
}

}  // namespace praas::host
