#include "worker/windows.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/clock.h"

namespace praas::worker {
namespace {

constexpr uint32_t kWindowOpen = 1;
constexpr uint64_t kMapWaitNs = 2'000'000'000;

/// What functions may see of a window: all but its header and calls.
std::span<std::byte> PayloadsOf(const window::ServerWindow& window) noexcept {
  return window.Bytes(window::kSlotsOffset, window.bytes() - window::kSlotsOffset);
}

}  // namespace

Windows::Windows(Core& core, Inbox& inbox, Hooks hooks) : core_(core), inbox_(inbox), hooks_(std::move(hooks)) {}

Windows::~Windows() {
  (void)AbandonAll(false);
  for (uint32_t index = 0; index < by_index_.size(); ++index) {
    if (by_index_[index] != nullptr) Unmap(*by_index_[index]);
  }
  for (const auto& mapped : retired_) Unmap(*mapped);
}

bool Windows::IsCurrent(const MappedWindow& mapped) const noexcept {
  return core_.segment.window(mapped.window->index()).generation.load(std::memory_order_acquire) == mapped.generation;
}

MappedWindow* Windows::Current(uint32_t index) const noexcept {
  MappedWindow* mapped = index < by_index_.size() ? by_index_[index].get() : nullptr;
  return mapped != nullptr && IsCurrent(*mapped) ? mapped : nullptr;
}

MappedWindow* Windows::Find(uint32_t index) {
  if (MappedWindow* known = Current(index); known != nullptr) return known;
  if (index >= core_.segment.header().windows.committed.load(std::memory_order_acquire)) return nullptr;
  // A call keeps its window: its slot does not change hands while the call is in the table.
  Request(index, core_.segment.window(index).generation.load(std::memory_order_acquire));
  const uint64_t deadline_ns = DeadlineIn(kMapWaitNs);
  for (;;) {
    Integrate();
    if (MappedWindow* known = Current(index); known != nullptr) return known;
    if (requested_[index] == 0 || !inbox_.WaitForWindows(deadline_ns))
      return nullptr;  // 0: the answer was that there is none
  }
}

void Windows::Request(uint32_t index, uint32_t generation) {
  if (requested_.size() <= index) requested_.resize(index + 1);
  if (requested_[index] == generation + 1) return;
  const ControlMessage want{.type = ControlType::kWantWindow, .index = index, .generation = generation};
  if (core_.control.Send(want).ok()) requested_[index] = generation + 1;
}

void Windows::RequestUnpolled() {
  // Not all that are committed: those would be sixteen pages for a single client.
  const segment::Header& header = core_.segment.header();
  const uint32_t used = std::min(header.windows_used.load(std::memory_order_acquire), header.windows.committed.load());
  for (uint32_t index = 0; index < used && mapped_.size() < kMaxAdopted; ++index) {
    const segment::WindowSlot& slot = core_.segment.window(index);
    if (slot.state.load(std::memory_order_acquire) != kWindowOpen || slot.poller.load(std::memory_order_relaxed) != 0) {
      continue;
    }
    if (Current(index) == nullptr) Request(index, slot.generation.load(std::memory_order_acquire));
  }
}

void Windows::Integrate() {
  for (Inbox::Window& arrived : inbox_.TakeWindows()) {
    if (by_index_.size() <= arrived.index) by_index_.resize(arrived.index + 1);
    const MappedWindow* known = by_index_[arrived.index].get();
    if (arrived.window == nullptr) {
      if (known != nullptr && known->generation == arrived.generation) Retire(arrived.index);
      if (arrived.index < requested_.size() && requested_[arrived.index] == arrived.generation + 1) {
        requested_[arrived.index] = 0;
      }
      continue;
    }
    if (known != nullptr && known->generation == arrived.generation) continue;  // asked for twice
    if (known != nullptr) Retire(arrived.index);
    auto mapped = std::make_unique<MappedWindow>();
    mapped->window = std::move(arrived.window);
    mapped->generation = arrived.generation;
    mapped_.push_back(mapped.get());
    by_index_[arrived.index] = std::move(mapped);
  }
}

void Windows::Dedicate(uint32_t index, uint32_t generation, std::unique_ptr<window::ServerWindow> window,
                       UniqueFd submit_event) {
  if (by_index_.size() <= index) by_index_.resize(index + 1);
  if (by_index_[index] != nullptr) Retire(index);
  auto mapped = std::make_unique<MappedWindow>();
  mapped->window = std::move(window);
  mapped->generation = generation;
  mapped->dedicated = true;
  mapped->submit_event = std::move(submit_event);
  // A client without one is this worker itself, which need not wake itself.
  if (!mapped->submit_event) mapped->window->SetNeedsWake(false);
  ++dedicated_;
  mapped_.push_back(mapped.get());
  by_index_[index] = std::move(mapped);
}

void Windows::RetireDedicated() {
  for (uint32_t index = 0; index < by_index_.size(); ++index) {
    if (by_index_[index] != nullptr && by_index_[index]->dedicated) Retire(index);
  }
}

void Windows::Retire(uint32_t index) {
  std::unique_ptr<MappedWindow> mapped = std::move(by_index_[index]);
  mapped->gone = true;
  if (mapped->dedicated) {
    --dedicated_;
    if (mapped->submit_event && hooks_.unwatch) hooks_.unwatch(mapped->submit_event.get());
    adopted_ -= mapped->adopted ? 1 : 0;
    mapped->adopted = false;
  } else if (mapped->adopted) {
    (void)mapped->window->Abandon(core_.self);
    mapped->adopted = false;
    --adopted_;
  }
  std::erase(mapped_, mapped.get());
  if (mapped->users == 0) return Unmap(*mapped);
  retired_.push_back(std::move(mapped));
}

void Windows::Unmap(MappedWindow& mapped) {
  if (hooks_.unmap) hooks_.unmap(PayloadsOf(*mapped.window));
  if (hooks_.gone) hooks_.gone(*mapped.window);
  mapped.window.reset();
}

void Windows::Leave(MappedWindow& window) {
  if (--window.users > 0 || !window.gone) return;
  Unmap(window);
  std::erase_if(retired_, [&](const auto& retired) { return retired.get() == &window; });
}

bool Windows::HasSubmissions(bool everywhere) const noexcept {
  if (adopted_ + dedicated_ == 0 && !everywhere) return false;
  return std::any_of(mapped_.begin(), mapped_.end(), [&](const MappedWindow* mapped) {
    return (mapped->adopted || mapped->dedicated || everywhere) && mapped->window->HasSubmissions();
  });
}

void Windows::Adopt() {
  if (adopted_ == mapped_.size() || adopted_ >= kMaxAdopted) return;
  for (MappedWindow* mapped : mapped_) {
    if (mapped->adopted) continue;
    if (mapped->dedicated) {
      mapped->window->SetNeedsWake(false);
      mapped->adopted = true;
      ++adopted_;
      continue;
    }
    const segment::WindowSlot& slot = core_.segment.window(mapped->window->index());
    if (slot.poller.load(std::memory_order_relaxed) != 0 || slot.state.load(std::memory_order_acquire) != kWindowOpen ||
        !mapped->window->Adopt(core_.self)) {
      continue;
    }
    mapped->adopted = true;
    if (++adopted_ >= kMaxAdopted) return;
  }
}

bool Windows::AbandonAll(bool capacity) {
  bool submissions = false;
  if (adopted_ + dedicated_ == 0) return submissions;
  for (MappedWindow* mapped : mapped_) {
    const bool adopted = std::exchange(mapped->adopted, false);
    if (mapped->dedicated) {
      if (adopted && mapped->submit_event) mapped->window->SetNeedsWake(true);
      submissions |= capacity && mapped->window->HasSubmissions();
    } else if (adopted) {
      submissions |= mapped->window->Abandon(core_.self);
    }
  }
  adopted_ = 0;
  return submissions;
}

std::optional<uint32_t> Windows::Poll(bool capacity, bool everywhere) {
  if (adopted_ + dedicated_ == 0 && !everywhere) return std::nullopt;
  const auto count = static_cast<uint32_t>(mapped_.size());
  for (uint32_t step = 0; step < count; ++step) {
    MappedWindow& mapped = *mapped_[(cursor_ + step) % count];
    if (!(mapped.adopted || mapped.dedicated || everywhere) || !mapped.window->HasSubmissions()) continue;
    // Nobody else can take what this worker has no capacity for.
    if (mapped.dedicated && !capacity) continue;
    if (auto taken = Consume(mapped, capacity)) {
      cursor_ = (cursor_ + step + 1) % count;
      return taken;
    }
  }
  return std::nullopt;
}

std::optional<uint32_t> Windows::Consume(MappedWindow& mapped, bool capacity) {
  std::optional<uint32_t> taken;
  window::ServerWindow& window = *mapped.window;
  bool left = true;
  for (uint32_t round = 0; round < window::kConsumeRounds && left; ++round) {
    // Whoever consumes sees whatever is there.
    if (!window.TryConsume(core_.self)) return taken;
    // A slot that has changed hands is not this ring's any more. From here on it does not: the host takes it back as
    // its consumer. It may have found this one in its way.
    if (!IsCurrent(mapped)) {
      (void)window.EndConsume(core_.self);
      core_.dispatcher->Notify(dispatch::kHostParticipant, dispatch::kNoticeWindow);
      return taken;
    }
    bool full = false;
    for (uint32_t step = 0; step < window::kRing && !full; ++step) {
      const auto submission = window.Peek();
      if (!submission) break;
      full = Make(mapped, *submission, capacity && !taken, &taken) == Made::kFull;
      if (full) {
        MakeDeliveries(mapped, capacity && !taken, &taken);
      } else {
        window.Taken();
      }
      if (mapped.dedicated && taken) break;  // the rest waits for this worker
    }
    left = window.EndConsume(core_.self);
    if (full || (mapped.dedicated && taken)) break;
  }
  // What stays in the ring, because the table is full or its client too fast, must not depend on this worker, which may
  // now run for long.
  if (left && !mapped.dedicated) core_.dispatcher->Notify(dispatch::kHostParticipant, dispatch::kNoticeWindow);
  return taken;
}

Windows::Made Windows::Make(MappedWindow& mapped, const window::Submission& submission, bool claim,
                            std::optional<uint32_t>* taken) {
  const uint32_t index = mapped.window->index();
  if (submission.entry >= 0 && submission.entry < core_.calls) {
    // A consumer before us was killed between making the entry and saying so. Only the call table is believed.
    const dispatch::CallEntry& noted = core_.segment.call(static_cast<uint32_t>(submission.entry));
    const auto word = dispatch::CallWord::Unpack(noted.word.load(std::memory_order_acquire));
    if (noted.origin == dispatch::Origin::kWindow && noted.origin_index == index &&
        noted.origin_call == window::OriginCall(submission.call, submission.sequence)) {
      if (word.state == dispatch::CallState::kReserved) return Made::kFull;  // until the host has reclaimed it
      if (window::IsMade(word.state, submission)) return Made::kSkipped;
    }
  }
  if (submission.room_given) return MakeDelivery(mapped, submission, claim, taken);

  const auto reserved = core_.dispatcher->Reserve();
  if (!reserved) return Made::kFull;
  window::FillEntry(core_.segment.call(*reserved), submission, index, core_.clock.Now());
  mapped.window->Note(submission.call, submission.sequence, *reserved);
  core_.segment.window(index).calls.fetch_add(1, std::memory_order_relaxed);
  // Who has leased this worker wants it to say itself what it cannot run.
  if (claim && (mapped.dedicated || core_.dispatcher->LaneOf(submission.function) == core_.attach.lane)) {
    core_.dispatcher->ClaimReserved(*reserved);
    *taken = *reserved;
    Core::Count(core_.me.counters.window_calls, 1);
  } else {
    core_.dispatcher->Post(*reserved);
  }
  return Made::kMade;
}

void Windows::MakeDeliveries(MappedWindow& mapped, bool claim, std::optional<uint32_t>* taken) {
  for (uint32_t index = 0; index < core_.calls; ++index) {
    const dispatch::CallEntry& entry = core_.segment.call(index);
    if (dispatch::CallWord::Unpack(entry.word.load(std::memory_order_acquire)).state != dispatch::CallState::kParked ||
        entry.origin != dispatch::Origin::kWindow || entry.origin_index != mapped.window->index()) {
      continue;
    }
    const auto room =
        mapped.window->RoomFor(window::OriginCallIndex(entry.origin_call), window::OriginSequence(entry.origin_call));
    if (!room || room->parked != index) continue;
    static_cast<void>(MakeDelivery(mapped, *room, claim && !*taken, taken));
    if (mapped.dedicated && *taken) return;
  }
}

Windows::Made Windows::MakeDelivery(MappedWindow& mapped, const window::Submission& submission, bool claim,
                                    std::optional<uint32_t>* taken) {
  const uint64_t origin_call = window::OriginCall(submission.call, submission.sequence);
  // The client may have given up waiting and want its result dropped.
  const bool dropped = mapped.window->cancelled(submission.call, submission.sequence);
  using Unparked = dispatch::Dispatcher::Unparked;
  if (!core_.dispatcher->Unpark(submission.parked, static_cast<uint16_t>(mapped.window->index()), origin_call,
                                dropped ? Unparked::kDrop : Unparked::kDeliver)) {
    static constexpr std::string_view kMessage = "room was given for a result that is not waiting for any";
    mapped.window->CompleteError(submission.call, submission.sequence, static_cast<uint32_t>(Code::kProtocolInvalid),
                                 kMessage);
    Core::EndUnlessTold(*mapped.window);
    return Made::kSkipped;
  }
  dispatch::CallEntry& entry = core_.segment.call(submission.parked);
  if (dropped) {
    (void)core_.pool->outputs().Free(entry.output.block, DeadlineIn(kArenaWaitNs));
    core_.dispatcher->ReleaseReserved(submission.parked);
    mapped.window->CompleteError(submission.call, submission.sequence,
                                 static_cast<uint32_t>(Code::kInvocationCancelled), {});
    Core::EndUnlessTold(*mapped.window);
    return Made::kSkipped;
  }
  window::FillDelivery(entry, submission);
  mapped.window->Note(submission.call, submission.sequence, submission.parked);
  if (claim && (mapped.dedicated || core_.dispatcher->LaneOf(entry.function) == core_.attach.lane)) {
    core_.dispatcher->ClaimReserved(submission.parked);
    *taken = submission.parked;
  } else {
    core_.dispatcher->Post(submission.parked);
  }
  return Made::kMade;
}

std::span<std::byte> Windows::MappingOf(const std::byte* address) const noexcept {
  for (const MappedWindow* mapped : mapped_) {
    const std::span<std::byte> bytes = PayloadsOf(*mapped->window);
    if (address >= bytes.data() && address < bytes.data() + bytes.size()) return bytes;
  }
  return {};
}

const window::ServerWindow* Windows::Containing(const std::byte* address) const noexcept {
  const auto holds = [address](const MappedWindow& mapped) {
    const std::span<std::byte> bytes = PayloadsOf(*mapped.window);
    return address >= bytes.data() && address < bytes.data() + bytes.size();
  };
  for (const MappedWindow* mapped : mapped_) {
    if (holds(*mapped)) return mapped->window.get();
  }
  for (const auto& mapped : retired_) {
    if (holds(*mapped)) return mapped->window.get();
  }
  return nullptr;
}

}  // namespace praas::worker
