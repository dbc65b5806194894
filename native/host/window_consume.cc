// How submissions become calls: what the host takes over from clients that had to signal, and from workers that died or
// are stopped.

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "host/window_host.h"
#include "window/intake.h"

namespace praas::host {
namespace {

/// A consumer needs microseconds for a submission, and a turn of it is bounded; one that takes so long is stopped.
constexpr uint64_t kHeldNs = 1'000'000'000;

}  // namespace

void WindowHost::OfferToPoller() {
  // Every worker that polls may take it; the first one that looks does.
  segment::Header& header = process_.header();
  for (uint32_t group = 0; group < dispatch::kMaxParticipants / 64; ++group) {
    uint64_t bits = 0;
    for (const segment::Header::Hints& lane : header.hints) bits |= lane.hot[group].load(std::memory_order_relaxed);
    for (; bits != 0; bits &= bits - 1) {
      const auto participant = static_cast<uint16_t>(group * 64 + static_cast<uint32_t>(__builtin_ctzll(bits)));
      process_.dispatcher->Notify(participant, dispatch::kNoticeWindow);
    }
  }
}

void WindowHost::OnSubmitEvent(uint32_t index) {
  const auto found = windows_.find(index);
  if (found == windows_.end()) return;
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(found->second.submit_event.get(), &count, sizeof count);
  Consume(index);
  CancelAsked(index);
  // Its client had to signal, so nobody polls it, or whoever does is busy.
  if (process_.segment->window(index).poller.load(std::memory_order_relaxed) == 0) OfferToPoller();
}

void WindowHost::Consume(uint32_t index) {
  const auto found = windows_.find(index);
  if (found == windows_.end() || found->second.closing || found->second.worker != 0) return;
  Window& window = found->second;
  window.waiting = false;
  for (uint32_t round = 0; round < window::kConsumeRounds; ++round) {
    if (!window.mapped->TryConsume(dispatch::kHostParticipant)) return WatchConsumer(window, NowNs());
    for (uint32_t step = 0; step < window::kRing && !window.waiting; ++step) {
      const std::optional<window::Submission> submission = window.mapped->Peek();
      if (!submission) break;
      const Taken taken = IsPosted(index, *submission) ? Taken::kYes
                          : submission->room_given     ? TakeRoom(window, index, *submission)
                                                       : TakeCall(window, index, *submission);
      if (taken == Taken::kNoRoom) {
        window.waiting = true;
        DeliverParked(window, index);
      } else {
        window.mapped->Taken();
      }
    }
    if (!window.mapped->EndConsume(dispatch::kHostParticipant) || window.waiting) return;
  }
  // Others first, then again.
  (void)::eventfd_write(window.submit_event.get(), 1);
}

/// Whoever consumes sees all that is there, unless it is stopped: then nobody gets at the ring before it is ended.
void WindowHost::WatchConsumer(Window& window, uint64_t now_ns) {
  const std::optional<uint16_t> consumer = window.mapped->consumer();
  if (!consumer || *consumer == dispatch::kHostParticipant || (!window.closing && !window.mapped->HasSubmissions())) {
    return ForgetConsumer(window);
  }
  const uint32_t turn = window.mapped->turns();
  if (window.held_since_ns == 0 || window.consumer != *consumer || window.turn != turn) {
    held_ += window.held_since_ns == 0;
    window.consumer = *consumer;
    window.turn = turn;
    window.held_since_ns = now_ns;
  } else if (now_ns - window.held_since_ns > kHeldNs) {
    window.held_since_ns = now_ns;  // again in a while, should it not be gone by then
    kill(*consumer, "it holds the submissions of a client and does not get on");
  }
}

void WindowHost::ForgetConsumer(Window& window) {
  if (std::exchange(window.held_since_ns, 0) != 0) --held_;
}

void WindowHost::Answer(Window& window, const window::Submission& submission, Code code, std::string_view message) {
  (void)window.mapped->CompleteError(submission.call, submission.sequence, static_cast<uint32_t>(code), message,
                                     {submission.output_offset, submission.output_capacity});
}

/// A consumer died between posting and taking: the entry it has noted is in the table.
bool WindowHost::IsPosted(uint32_t index, const window::Submission& submission) const {
  if (submission.entry < 0 || static_cast<uint32_t>(submission.entry) >= calls_.capacity()) return false;
  const std::optional<Calls::View> view = calls_.Look(static_cast<uint32_t>(submission.entry));
  return view && view->origin == dispatch::Origin::kWindow && view->origin_index == index &&
         view->origin_call == window::OriginCall(submission.call, submission.sequence) &&
         window::IsMade(view->word.state, submission);
}

WindowHost::Taken WindowHost::TakeCall(Window& window, uint32_t index, const window::Submission& submission) {
  if (const Status refused = refuses(); !refused.ok()) {
    Answer(window, submission, refused.code(), refused.message());
    return Taken::kYes;
  }
  if (submission.function >= process_.header().function_count.load(std::memory_order_acquire)) {
    Answer(window, submission, Code::kFunctionUnknown, "no such function index; resolve the name first");
    return Taken::kYes;
  }
  if (submission.input_bytes > process_.assignment.max_contiguous) {
    Answer(window, submission, Code::kPayloadTooLarge, window::kInputTooLarge);
    return Taken::kYes;
  }
  if ((process_.segment->function(submission.function).flags & segment::kFunctionStream) != 0) {
    Answer(window, submission, Code::kArgumentInvalid, window::kTakesStream);
    return Taken::kYes;
  }
  const std::optional<uint32_t> entry = calls_.TryReserve();
  if (!entry) {
    // No room until its deadline: it will not get better for it.
    if (submission.deadline_ns > NowNs()) return Taken::kNoRoom;
    Answer(window, submission, Code::kBackpressure, "the process had no room for the call until its deadline");
    return Taken::kYes;
  }
  window::FillEntry(calls_.entry(*entry), submission, index, NowNs());
  window.mapped->Note(submission.call, submission.sequence, *entry);
  process_.segment->window(index).calls.fetch_add(1, std::memory_order_relaxed);
  calls_.Post(*entry);
  return Taken::kYes;
}

WindowHost::Taken WindowHost::TakeRoom(Window& window, uint32_t index, const window::Submission& submission) {
  const uint64_t origin_call = window::OriginCall(submission.call, submission.sequence);
  if (!process_.dispatcher->Unpark(submission.parked, static_cast<uint16_t>(index), origin_call)) {
    Answer(window, submission, Code::kProtocolInvalid, "room for a result that does not wait");
    return Taken::kYes;
  }
  if (window.mapped->cancelled(submission.call, submission.sequence)) {
    calls_.entry(submission.parked).input = {};
    calls_.Free(submission.parked);
    Answer(window, submission, Code::kInvocationCancelled, "cancelled");
    return Taken::kYes;
  }
  window::FillDelivery(calls_.entry(submission.parked), submission);
  window.mapped->Note(submission.call, submission.sequence, submission.parked);
  calls_.Post(submission.parked);
  return Taken::kYes;
}

/// Results that wait for room and have it: what a full table consists of in the end, while the ring stands still.
void WindowHost::DeliverParked(Window& window, uint32_t index) {
  for (uint32_t entry = 0; entry < calls_.capacity(); ++entry) {
    const std::optional<Calls::View> view = calls_.Look(entry);
    if (!view || view->origin != dispatch::Origin::kWindow || view->origin_index != index ||
        view->word.state != dispatch::CallState::kParked) {
      continue;
    }
    const auto room =
        window.mapped->RoomFor(window::OriginCallIndex(view->origin_call), window::OriginSequence(view->origin_call));
    if (room && room->parked == entry) static_cast<void>(TakeRoom(window, index, *room));
  }
}

void WindowHost::Resume() {
  std::vector<uint32_t> waiting;
  for (const auto& [index, window] : windows_) {
    if (window.waiting) waiting.push_back(index);
  }
  for (const uint32_t index : waiting) Consume(index);
}

void WindowHost::ConsumeAll() {
  std::vector<uint32_t> filled;
  for (const auto& [index, window] : windows_) {
    if (!window.closing && window.mapped->HasSubmissions()) filled.push_back(index);
  }
  for (const uint32_t index : filled) Consume(index);
}

void WindowHost::Fail(uint32_t entry, const Status& why) {
  dispatch::CallEntry& failed = calls_.entry(entry);
  if (const auto found = windows_.find(failed.origin_index); found != windows_.end()) {
    (void)found->second.mapped->CompleteError(window::OriginCallIndex(failed.origin_call),
                                              window::OriginSequence(failed.origin_call),
                                              static_cast<uint32_t>(why.code()), why.message(), window::RoomOf(failed));
  }
  calls_.Free(entry);
}

void WindowHost::Completed(uint32_t entry) {
  const dispatch::CallEntry& failed = calls_.entry(entry);
  const Result<std::span<std::byte>> text = process_.pool->Resolve(failed.output);
  const std::string message =
      text ? std::string(reinterpret_cast<const char*>(text->data()), text->size()) : std::string();
  Fail(entry, Status(static_cast<Code>(failed.status), message));
}

/// A worker may have died after it had parked an answer and before it told the client.
void WindowHost::AskForRoomAgain() {
  for (uint32_t entry = 0; entry < calls_.capacity(); ++entry) {
    const std::optional<Calls::View> view = calls_.Look(entry);
    if (!view || view->origin != dispatch::Origin::kWindow || view->word.state != dispatch::CallState::kParked)
      continue;
    const auto found = windows_.find(view->origin_index);
    if (found == windows_.end()) continue;
    found->second.mapped->NeedRoomStill(window::OriginCallIndex(view->origin_call),
                                        window::OriginSequence(view->origin_call), entry,
                                        calls_.entry(entry).output.bytes);
  }
}

}  // namespace praas::host
