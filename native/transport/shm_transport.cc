#include "transport/shm_transport.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "protocol/frame.h"

namespace praas::transport {
namespace {

using window::ClientWindow;
using window::kSlotInputBytes;
using window::kSlotOutputBytes;

/// What a connection with nothing in flight keeps committed, and how often it looks.
constexpr uint64_t kKeepBytes = 64u << 20;
constexpr uint64_t kTrimIntervalNs = 1'000'000'000;
/// Looking whether submissions are taken takes a cache line from the server, which writes to it with every call.
constexpr uint32_t kVainPollsPerTend = 64;

uint16_t WindowFlags(uint32_t frame_flags) noexcept {
  uint16_t flags = 0;
  if ((frame_flags & protocol::kIdempotent) != 0) flags |= window::kFlagIdempotent;
  if ((frame_flags & protocol::kSync) != 0) flags |= window::kFlagSync;
  return flags;
}

}  // namespace

Result<std::unique_ptr<ShmTransport>> ShmTransport::Create(window::Handover handover, uint64_t default_timeout_ns) {
  UniqueFd publications = std::move(handover.publications);
  Result<std::unique_ptr<ClientWindow>> window = ClientWindow::Map(std::move(handover));
  if (!window.ok()) return window.status();
  std::unique_ptr<ShmTransport> transport(new ShmTransport(*std::move(window), default_timeout_ns));
  // Without it, reads of published values ask the host.
  if (publications) {
    if (Result<publication::Area> area = publication::Area::MapReadOnly(std::move(publications))) {
      transport->area_ = *std::move(area);
      transport->published_.UseArea(transport->area_->memory());
    }
  }
  return transport;
}

ShmTransport::ShmTransport(std::unique_ptr<ClientWindow> window, uint64_t default_timeout_ns)
    : window_(std::move(window)), default_timeout_ns_(default_timeout_ns) {
  completions_.reserve(window::kCalls);
}

ShmTransport::~ShmTransport() = default;

// --- submission ---

Result<bool> ShmTransport::Submit(const Request& request) {
  if (closed_) return Status(Code::kConnectionClosed, "the connection is closed");
  if (!failure_.ok()) return failure_;

  Result<std::optional<uint32_t>> opened = window_->Open();
  if (!opened.ok()) return opened.status();
  if (!opened->has_value()) return false;
  const uint32_t index = **opened;
  Call& call = calls_[index];
  call = Call{};
  call.in_use = true;
  call.id = request.call;
  call.function = request.function;

  Result<bool> placed = PlaceInput(index, request.input);
  if (placed.ok() && placed.value()) {
    if (Status status = PlaceOutput(index, request.output); !status.ok()) placed = status;
  }
  if (!placed.ok() || !placed.value()) {
    Retire(index);
    return placed;
  }
  ++unanswered_;
  ++counters_.calls;
  window_->Submit(index,
                  {.function = request.function,
                   .flags = WindowFlags(request.flags),
                   .deadline_ns = request.deadline_ns != 0 ? request.deadline_ns : DeadlineIn(default_timeout_ns_),
                   .input_offset = call.input_offset,
                   .input_bytes = call.input_bytes,
                   .output_offset = call.output_offset,
                   .output_capacity = call.output_capacity});
  return true;
}

Result<bool> ShmTransport::PlaceInput(uint32_t index, std::span<const std::byte> input) {
  Call& call = calls_[index];
  call.input_bytes = input.size();
  if (input.empty()) return true;
  if (const std::optional<uint64_t> offset = window_->payload().OffsetOf(input)) {
    const Result<uint64_t> block = PinBlockOf(*offset, input.size());
    if (!block.ok()) return block.status().WithContext("input");
    call.pinned_input = block.value();
    call.input_offset = *offset;
    ++counters_.in_place_inputs;
    return true;
  }
  if (input.size() <= kSlotInputBytes) {
    call.input_offset = window::SlotInputOffset(index);
    counters_.staged_bytes += input.size();
  } else {
    const Result<uint64_t> block = window_->payload().Allocate(input.size());
    if (!block.ok()) {
      if (block.status().code() == Code::kBackpressure) return false;  // until a call in flight or a buffer is released
      return block.status();
    }
    call.own_input = call.input_offset = block.value();
    counters_.copied_bytes += input.size();
  }
  std::memcpy(window_->Bytes(call.input_offset, input.size()).data(), input.data(), input.size());
  return true;
}

Status ShmTransport::PlaceOutput(uint32_t index, std::span<std::byte> output) {
  Call& call = calls_[index];
  if (const std::optional<uint64_t> offset = output.empty() ? std::nullopt : window_->payload().OffsetOf(output)) {
    const Result<uint64_t> block = PinBlockOf(*offset, output.size());
    if (!block.ok()) return block.status().WithContext("output");
    call.pinned_output = block.value();
    call.output_offset = *offset;
    call.output_capacity = output.size();
    return Status::Ok();
  }
  call.plain_output = output;
  call.output_offset = window::SlotOutputOffset(index);
  call.output_capacity = kSlotOutputBytes;
  if (const uint64_t hint = result_sizes_.Hint(call.function); hint > kSlotOutputBytes) {
    // Without a block the slot is offered; the server says when it is too small.
    if (const Result<uint64_t> block = window_->payload().Allocate(hint); block.ok()) {
      call.own_output = call.output_offset = block.value();
      call.output_capacity = hint;
    }
  }
  return Status::Ok();
}

Result<uint64_t> ShmTransport::PinBlockOf(uint64_t offset, uint64_t bytes) {
  const std::optional<uint64_t> block = window_->payload().allocator().Find(offset, bytes);
  if (!block.has_value()) {
    return Status(Code::kArgumentInvalid,
                  "the memory lies in the connection's window but in no buffer allocated there "
                  "(was it released?)");
  }
  window_->payload().allocator().Pin(*block);
  return *block;
}

void ShmTransport::Cancel(uint64_t id) {
  if (const std::optional<uint32_t> index = Find(id)) window_->Cancel(*index);
}

void ShmTransport::CancelAll() {
  if (closed_) return;
  for (uint32_t index = 0; index < window::kCalls; ++index) {
    if (calls_[index].in_use && !calls_[index].answered) window_->Cancel(index);
  }
}

void ShmTransport::Abandon(uint64_t id) {
  const std::optional<uint32_t> index = Find(id);
  if (!index.has_value() || calls_[*index].abandoned) return;
  Call& call = calls_[*index];
  call.abandoned = true;
  call.plain_output = {};
  ForgetRoom(call);
  window_->GiveUp(*index);
  ++counters_.abandoned;
}

/// A search, because these are rare and an index by id would cost every call.
std::optional<uint32_t> ShmTransport::Find(uint64_t id) const noexcept {
  if (closed_) return std::nullopt;
  for (uint32_t index = 0; index < window::kCalls; ++index) {
    if (calls_[index].in_use && !calls_[index].answered && calls_[index].id == id) return index;
  }
  return std::nullopt;
}

// --- completion ---

size_t ShmTransport::Poll(const Sink& sink) {
  ++poll_depth_;
  size_t replies = 0;
  if (!closed_) {
    window_->Awake();
    auto batch = std::exchange(completions_, {});
    batch.clear();
    window_->Collect(batch);
    for (const ClientWindow::Completion& completion : batch) replies += Deliver(completion, sink);
    completions_ = std::move(batch);
  }
  if (!closed_ && rooms_wanted_ > 0) replies += RetryRooms(sink);
  if (!closed_ && replies == 0 && ++vain_polls_ % kVainPollsPerTend == 0) window_->Tend();
  if (closed_) {
    replies += FailAll(Status(Code::kConnectionClosed, "the connection was closed"), sink);
  } else if (!failure_.ok()) {
    replies += FailAll(failure_, sink);
  }
  --poll_depth_;
  UnmapWhenUnused();
  return replies;
}

size_t ShmTransport::Deliver(const ClientWindow::Completion& completion, const Sink& sink) {
  const uint32_t index = completion.call;
  Call& call = calls_[index];
  if (closed_ || !call.in_use) return 0;
  if (completion.need_room) {
    if (call.abandoned || call.answered)
      return 0;  // by a sink, after the batch was collected: the result was given up then
    result_sizes_.Note(call.function, completion.result_bytes);
    call.room_wanted = std::max<uint64_t>(completion.result_bytes, 1);
    ++rooms_wanted_;
    ++counters_.rooms_given;
    Status status = GiveRoom(index);
    return status.ok() ? 0 : Answer(call, std::move(status), {}, sink);
  }
  ForgetRoom(call);  // the server may have ended it (deadline, crash) while it waited for room
  const size_t replies = call.answered ? 0 : DeliverResult(call, completion, sink);
  Retire(index);
  return replies;
}

size_t ShmTransport::DeliverResult(Call& call, const ClientWindow::Completion& completion, const Sink& sink) {
  if (Status status = CheckResult(call, completion); !status.ok()) return Answer(call, std::move(status), {}, sink);
  std::span<std::byte> result;
  if (completion.result_bytes > 0) result = window_->Bytes(completion.result_offset, completion.result_bytes);
  if (completion.status != 0) {
    std::string message(reinterpret_cast<const char*>(result.data()), result.size());
    return Answer(call, Status(static_cast<Code>(completion.status), std::move(message)), {}, sink);
  }
  if (call.abandoned) return Answer(call, Status::Ok(), {}, sink);
  // A function that returns its input needs no room for it.
  const bool is_input = window::InRange(completion.result_offset, completion.result_bytes, call.input_offset,
                                        call.input_offset + call.input_bytes);
  if (!is_input) result_sizes_.Note(call.function, result.size());
  std::span<const std::byte> payload = result;
  if (!result.empty() && result.size() <= call.plain_output.size()) {
    std::memcpy(call.plain_output.data(), result.data(), result.size());
    counters_.copied_bytes += result.size();
    payload = call.plain_output.first(result.size());
  }
  return Answer(call, Status::Ok(), payload, sink);
}

/// The server is trusted to answer, but nothing it says is used as an address before it was compared with what was
/// offered.
Status ShmTransport::CheckResult(const Call& call, const ClientWindow::Completion& completion) const {
  const uint64_t slots = window::SlotInputOffset(completion.call);
  auto lies_in = [&](uint64_t offset, uint64_t bytes) {
    return window::InRange(completion.result_offset, completion.result_bytes, offset, offset + bytes);
  };
  const bool inside = completion.result_bytes == 0 || lies_in(call.output_offset, call.output_capacity) ||
                      lies_in(call.input_offset, call.input_bytes) ||
                      lies_in(slots, kSlotInputBytes + kSlotOutputBytes);
  if (!inside || completion.status > UINT16_MAX) {
    return {Code::kProtocolInvalid, "the server answered with a result outside the memory it was offered"};
  }
  return Status::Ok();
}

size_t ShmTransport::Answer(Call& call, Status status, std::span<const std::byte> payload, const Sink& sink) {
  call.answered = true;
  --unanswered_;
  ++counters_.replies;
  sink(Reply{call.id, std::move(status), payload});
  return 1;
}

void ShmTransport::ForgetRoom(Call& call) noexcept {
  if (std::exchange(call.room_wanted, 0) != 0) --rooms_wanted_;
}

Status ShmTransport::GiveRoom(uint32_t index) {
  Call& call = calls_[index];
  const Result<uint64_t> block = window_->payload().Allocate(call.room_wanted);
  if (!block.ok() && block.status().code() == Code::kBackpressure) return Status::Ok();  // RetryRooms goes on with it
  const uint64_t bytes = call.room_wanted;
  ForgetRoom(call);
  if (!block.ok()) {
    window_->GiveUp(index);
    return block.status().WithContext("no room for a result of " + std::to_string(bytes) + " bytes");
  }
  // The room offered first holds nothing of interest; the caller's own output stays pinned, as the server may know it
  // still.
  if (call.own_output != kNoBlock) window_->payload().allocator().Release(call.own_output);
  call.own_output = call.output_offset = block.value();
  call.output_capacity = bytes;
  window_->GiveRoom(index, call.output_offset, call.output_capacity);
  return Status::Ok();
}

size_t ShmTransport::RetryRooms(const Sink& sink) {
  size_t replies = 0;
  for (uint32_t index = 0; index < window::kCalls && !closed_ && rooms_wanted_ > 0; ++index) {
    Call& call = calls_[index];
    if (!call.in_use || call.room_wanted == 0) continue;
    if (Status status = GiveRoom(index); !status.ok()) replies += Answer(call, std::move(status), {}, sink);
  }
  return replies;
}

size_t ShmTransport::FailAll(const Status& status, const Sink& sink) {
  size_t replies = 0;
  for (uint32_t index = 0; index < window::kCalls && unanswered_ > 0; ++index) {
    // The memory stays in use: that the connection is gone does not mean that no worker writes there any more.
    if (calls_[index].in_use && !calls_[index].answered) replies += Answer(calls_[index], status, {}, sink);
  }
  return replies;
}

void ShmTransport::Retire(uint32_t index) {
  Call& call = calls_[index];
  window::PayloadAllocator& allocator = window_->payload().allocator();
  for (const uint64_t pinned : {call.pinned_input, call.pinned_output}) {
    if (pinned != kNoBlock) allocator.Unpin(pinned);
  }
  for (const uint64_t own : {call.own_input, call.own_output}) {
    if (own != kNoBlock) allocator.Release(own);
  }
  call.in_use = false;
  window_->Close(index);
}

// --- sleeping ---

int ShmTransport::fd() const noexcept { return window_ != nullptr ? window_->complete_event() : -1; }

bool ShmTransport::PrepareToSleep() {
  if (closed_ || !failure_.ok()) return unanswered_ == 0;
  for (uint32_t index = 0; index < window::kCalls && rooms_wanted_ > 0; ++index) {
    // Buffers released since the last Poll may be the room that a result waits for. Poll gives it.
    if (calls_[index].in_use && calls_[index].room_wanted != 0 &&
        window_->payload().allocator().Fits(calls_[index].room_wanted))
      return false;
  }
  if (window_->open_calls() == 0 &&
      window_->payload().committed_bytes() > window_->payload().allocator().used_bytes() + kKeepBytes) {
    if (const uint64_t now = NowNs(); now - trimmed_ns_ >= kTrimIntervalNs) {
      trimmed_ns_ = now;
      TrimTo(kKeepBytes);
    }
  }
  return window_->PrepareToSleep();
}

// --- memory and end ---

Result<Buffer> ShmTransport::Allocate(uint64_t bytes) {
  if (closed_) return Status(Code::kConnectionClosed, "the connection is closed");
  const Result<uint64_t> block = window_->payload().Allocate(bytes);
  if (!block.ok()) return block.status();
  return Buffer{window_->Bytes(block.value(), bytes).data(), bytes, block.value()};
}

void ShmTransport::Release(const Buffer& buffer) {
  if (window_ != nullptr && buffer.data != nullptr) window_->payload().allocator().Release(buffer.handle);
}

void ShmTransport::Trim() {
  if (!closed_) TrimTo(0);
}

void ShmTransport::TrimTo(uint64_t keep_bytes) {
  if (!may_trim_ || may_trim_()) window_->Trim(keep_bytes);
}

const Status& ShmTransport::broken() const noexcept {
  static const Status never;
  return never;
}

Result<uint64_t> ShmTransport::Pin(std::span<const std::byte> payload) {
  const std::optional<uint64_t> offset = window_->payload().OffsetOf(payload);
  if (!offset) return Status(Code::kInternal, "a result outside of the window's payload memory");
  return PinBlockOf(*offset, payload.size());
}

void ShmTransport::Fail(Status status) {
  assert(!status.ok());
  if (failure_.ok()) failure_ = std::move(status);
}

void ShmTransport::Close() noexcept {
  closed_ = true;
  UnmapWhenUnused();
}

void ShmTransport::UnmapWhenUnused() {
  if (!closed_ || poll_depth_ > 0 || window_ == nullptr) return;
  counters_.window = window_->counters();
  window_.reset();
}

ShmTransport::Counters ShmTransport::counters() const noexcept {
  Counters counters = counters_;
  if (window_ != nullptr) counters.window = window_->counters();
  return counters;
}

}  // namespace praas::transport
