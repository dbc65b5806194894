#include "worker/served_verbs.h"

#include <array>
#include <string>
#include <utility>

#include "base/clock.h"
#include "shm/memfd.h"
#include "transport/verbs_session.h"
#include "verbs/context.h"
#include "verbs/headers.h"
#include "worker/core.h"

namespace praas::worker {

#if PRAAS_VERBS_HEADERS

namespace {

using transport::VerbsLink;
using transport::VerbsSession;

constexpr uint32_t kReceives = VerbsLink::MessagesIn(VerbsLink::kSlots);
/// Events of the device are rare, and looking for one is a system call.
constexpr uint32_t kPollsPerEventLook = 4096;

/// One for all connections that this worker ever serves: opening it takes milliseconds.
Result<std::shared_ptr<verbs::Context>> OpenDevice() {
  static std::weak_ptr<verbs::Context> opened;
  if (std::shared_ptr<verbs::Context> context = opened.lock()) return context;
  const Result<verbs::Selection> selection = verbs::Selection::FromEnvironment();
  if (!selection.ok()) return selection.status();
  Result<std::unique_ptr<verbs::Context>> context = verbs::Context::Open(*selection);
  if (!context.ok()) return context.status();
  std::shared_ptr<verbs::Context> shared = *std::move(context);
  opened = shared;
  return shared;
}

}  // namespace

struct ServedVerbs::Parts {
  std::shared_ptr<verbs::Context> context;
  verbs::CompletionQueue completions;
  verbs::ProtectionDomain domain;
  verbs::SharedReceiveQueue receives;
  std::unique_ptr<VerbsSession> calls{};
  uint32_t polls = 0;
  bool armed = false;

  size_t TakeCompletions();
  void TakeEvents();
};

Result<std::unique_ptr<ServedVerbs>> ServedVerbs::Make(window::Handover handover, const segment::Segment& segment,
                                                       const Limits& limits, const protocol::VerbsEnd& client) {
  if (client.slots > VerbsLink::kSlots) {
    return Status(Code::kUpgradeFailed, "at most " + std::to_string(VerbsLink::kSlots) + " slots are possible");
  }
  Result<std::shared_ptr<verbs::Context>> context = OpenDevice();
  if (!context.ok()) return context.status();
  Result<verbs::CompletionQueue> completions = verbs::CompletionQueue::Make(**context, kReceives + VerbsLink::kSends);
  if (!completions.ok()) return completions.status();
  Result<verbs::ProtectionDomain> domain = verbs::ProtectionDomain::Make(**context);
  if (!domain.ok()) return domain.status();
  Result<verbs::SharedReceiveQueue> receives = verbs::SharedReceiveQueue::Make(*domain, kReceives);
  if (!receives.ok()) return receives.status();
  if (Status status = receives->Post(kReceives); !status.ok()) return status;
  auto parts =
      std::make_unique<Parts>(Parts{*context, *std::move(completions), *std::move(domain), *std::move(receives)});
  Result<std::unique_ptr<VerbsSession>> calls = VerbsSession::Create(
      **context, parts->completions, parts->receives, std::move(handover),
      {.max_contiguous = limits.max_contiguous, .default_timeout_ns = limits.default_timeout_ns}, client);
  if (!calls.ok()) return calls.status();
  parts->calls = *std::move(calls);
  parts->calls->SetRefusalSink([](const Status& why) {
    if (shm::IsNoMemfd(why.sys_errno())) Core::DescriptorLost();
  });
  const uint32_t functions = segment.header().function_count.load(std::memory_order_acquire);
  for (uint32_t index = 0; index < functions; ++index) {
    const uint32_t pages = segment.function(index).max_output_pages;
    if (pages > 0) parts->calls->ExpectResults(index, pages);
  }
  return std::unique_ptr<ServedVerbs>(new ServedVerbs(std::move(parts)));
}

ServedVerbs::ServedVerbs(std::unique_ptr<Parts> parts) noexcept : parts_(std::move(parts)) {}
ServedVerbs::~ServedVerbs() = default;

protocol::VerbsEnd ServedVerbs::end() const noexcept { return parts_->calls->end(); }
const Status& ServedVerbs::broken() const noexcept { return parts_->calls->broken(); }
int ServedVerbs::completions_fd() const noexcept { return parts_->completions.fd(); }
int ServedVerbs::results_fd() const noexcept { return parts_->calls->fd(); }
int ServedVerbs::events_fd() const noexcept { return parts_->context->event_fd(); }

size_t ServedVerbs::Parts::TakeCompletions() {
  std::array<ibv_wc, 16> batch;
  const int got = completions.Poll(batch);
  if (got == 0) return 0;
  if (got < 0) {
    calls->Break(Status(Code::kConnectionLost, "RDMA: a completion queue is lost"));
    return 1;
  }
  uint32_t received = 0;
  for (const ibv_wc& completion : std::span(batch).first(static_cast<size_t>(got))) {
    const bool message = completion.wr_id == verbs::kReceived;
    received += message ? 1 : 0;
    if (completion.status != IBV_WC_SUCCESS) {
      calls->Break(verbs::StatusOf(*context, completion));
    } else if (message) {
      calls->OnMessage(be32toh(completion.imm_data));
    } else {
      calls->OnSent(completion.wr_id);
    }
  }
  if (received > 0) {
    if (Status status = receives.Post(received); !status.ok()) calls->Break(std::move(status));
  }
  return static_cast<size_t>(got);
}

void ServedVerbs::Parts::TakeEvents() {
  for (;;) {
    const verbs::Context::Event event = context->TakeEvent();
    if (event.kind == verbs::Context::Event::Kind::kNone) return;
    if (!event.fatal) continue;
    if (event.kind == verbs::Context::Event::Kind::kQueuePair && event.queue_pair != calls->end().queue_pair) continue;
    calls->Break(StatusOf(*context, event));
    return;
  }
}

bool ServedVerbs::Poll() {
  Parts& parts = *parts_;
  if (std::exchange(parts.armed, false)) {
    parts.completions.Disarm();
    parts.polls = 0;
  }
  if (parts.polls++ % kPollsPerEventLook == 0) {
    parts.TakeEvents();
    if (broken().ok()) parts.calls->Tick(NowNs());
  }
  bool progress = broken().ok() && parts.TakeCompletions() > 0;
  if (broken().ok()) progress |= parts.calls->Poll() > 0;
  return progress || !broken().ok();
}

void ServedVerbs::Deliver() {
  if (broken().ok()) static_cast<void>(parts_->calls->Poll());
}

void ServedVerbs::CancelAll() { parts_->calls->CancelAll(); }

bool ServedVerbs::PrepareToSleep() {
  Parts& parts = *parts_;
  if (!broken().ok()) return false;
  if (!parts.armed) {
    if (!parts.completions.Arm().ok()) return false;
    parts.armed = true;
    // What was there before wakes nobody.
    if (parts.TakeCompletions() > 0) return false;
  }
  return parts.calls->PrepareToSleep();
}

#else

struct ServedVerbs::Parts {};

Result<std::unique_ptr<ServedVerbs>> ServedVerbs::Make(window::Handover, const segment::Segment&, const Limits&,
                                                       const protocol::VerbsEnd&) {
  return Status(Code::kUpgradeFailed, "this build has no RDMA: it was made without the headers of libibverbs");
}

ServedVerbs::ServedVerbs(std::unique_ptr<Parts> parts) noexcept : parts_(std::move(parts)) {}
ServedVerbs::~ServedVerbs() = default;
protocol::VerbsEnd ServedVerbs::end() const noexcept { return {}; }
bool ServedVerbs::Poll() { return false; }
void ServedVerbs::Deliver() {}
void ServedVerbs::CancelAll() {}
const Status& ServedVerbs::broken() const noexcept {
  static const Status ok;
  return ok;
}
int ServedVerbs::completions_fd() const noexcept { return -1; }
int ServedVerbs::results_fd() const noexcept { return -1; }
int ServedVerbs::events_fd() const noexcept { return -1; }
bool ServedVerbs::PrepareToSleep() { return true; }

#endif

}  // namespace praas::worker
