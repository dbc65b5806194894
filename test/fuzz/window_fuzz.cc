// A client window into which the other side writes what it likes, before or while it is read: the server's side, which
// must stay inside and take a bounded number of steps, and the client's.
//
// The input: what to look at, then writes.

#include <fcntl.h>

#include <atomic>
#include <optional>
#include <string>
#include <thread>

#include "base/clock.h"
#include "segment/segment.h"
#include "support.h"
#include "transport/shm_transport.h"
#include "unnamed_segment.h"
#include "window/client_window.h"
#include "window/server_window.h"

namespace {

using namespace praas;
using fuzz::Check;

constexpr uint64_t kWindowBytes = 8u << 20;
constexpr uint16_t kServer = 1;

enum Look : uint8_t { kClientToo = 1u << 0, kMeanwhile = 1u << 1 };

UniqueFd Duplicate(const UniqueFd& fd) { return UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)); }

class Target {
 public:
  Target() {
    segment_.emplace(fuzz::UnnamedSegment(1u << 20));
    Check(segment_->Commit(segment_->header().windows, 1).ok());
    auto created = window::ServerWindow::Create(kWindowBytes);
    Check(created.ok());
    created_ = std::move(created).value();
    auto server =
        window::ServerWindow::Map(*segment_, 0, Duplicate(created_.memfd), Duplicate(created_.complete_event));
    Check(server.ok());
    server_ = std::move(server).value();
    base_ = const_cast<std::byte*>(server_->base());
    sound_.assign(base_, base_ + window::kSlotsOffset);
  }

  void Restore() {
    segment_->window(0).consumer.store(0);
    segment_->window(0).poller.store(0);
    std::memcpy(base_, sound_.data(), sound_.size());
    uint64_t count = 0;
    for (const UniqueFd* event : {&created_.submit_event, &created_.complete_event}) {
      [[maybe_unused]] const ssize_t got = ::read(event->get(), &count, sizeof count);
    }
  }
  [[nodiscard]] window::Handover ForClient() const {
    return {Duplicate(created_.memfd), Duplicate(created_.submit_event), Duplicate(created_.complete_event),
            kWindowBytes};
  }
  /// Word by word, as another OS process may write while it is read.
  void Write(fuzz::Input input) {
    static constexpr uint64_t kPlaces[] = {0, window::kRingOffset, window::kNotesOffset, window::kCallsOffset};
    while (!input.empty()) {
      const fuzz::Patch patch = fuzz::TakePatch(&input);
      const uint64_t at = kPlaces[patch.place % std::size(kPlaces)] + patch.offset;
      for (size_t i = 0; i < patch.bytes.size() && at + i < window::kSlotsOffset; ++i) {
        std::atomic_ref<std::byte>(base_[at + i]).store(patch.bytes[i], std::memory_order_relaxed);
      }
    }
  }

  /// Consumes as host and workers do, and answers whatever it believes.
  void Serve() {
    window::ServerWindow& server = *server_;
    if (!server.TryConsume(kServer)) return;
    for (uint32_t taken = 0; taken < 4 * window::kRing; ++taken) {
      const auto submission = server.Peek();
      if (!submission) break;
      Check(submission->call < window::kCalls);
      const auto inside = [&](uint64_t offset, uint64_t bytes) {
        return bytes == 0 || !server.Bytes(offset, bytes).empty();
      };
      Check(inside(submission->input_offset, submission->input_bytes));
      Check(inside(submission->output_offset, submission->output_capacity));
      server.Note(submission->call, submission->sequence, taken);
      (void)server.RoomFor(submission->call, submission->sequence);
      (void)server.cancelled(submission->call, submission->sequence);
      const std::span<const std::byte> input = server.Bytes(submission->input_offset, submission->input_bytes);
      switch (submission->function % 4) {
        case 0:
          if (input.size() <= submission->output_capacity && !input.empty()) {
            server.Write(submission->output_offset, input);
          }
          (void)server.Complete(submission->call, submission->sequence, 0, submission->output_offset, input.size());
          break;
        case 1:
          (void)server.CompleteError(submission->call, submission->sequence, 7, std::string(5000, 'e'),
                                     {submission->output_offset, submission->output_capacity});
          break;
        case 2:
          (void)server.NeedRoom(submission->call, submission->sequence, taken, 10'000);
          break;
        default:
          server.NeedRoomStill(submission->call, submission->sequence, taken, 10'000);
      }
      server.Taken();
    }
    (void)server.EndConsume(kServer);
  }

 private:
  std::optional<segment::Segment> segment_;
  window::ServerWindow::Created created_;
  std::unique_ptr<window::ServerWindow> server_;
  std::byte* base_ = nullptr;
  std::vector<std::byte> sound_;
};

Target& TheTarget() {
  static Target target;
  return target;
}

/// A client with calls in flight, whose host writes nonsense.
class Client {
 public:
  explicit Client(window::Handover handover) {
    auto transport = transport::ShmTransport::Create(std::move(handover));
    Check(transport.ok());
    transport_ = std::move(transport).value();
    for (uint32_t function = 0; function < kCalls; ++function) {
      const auto submitted = transport_->Submit({.call = function + 1,
                                                 .function = function,
                                                 .deadline_ns = kNoDeadline,
                                                 .input = std::span(input_).first(function % 2 == 0 ? 100 : 6000)});
      Check(submitted.ok() && *submitted);
    }
  }
  ~Client() {
    transport_->Fail(Status(Code::kConnectionLost, "over"));
    Poll();
    Check(answered_ == kCalls);  // once each
  }
  void Poll() {
    transport_->Poll([this](const transport::Reply& reply) {
      Check(reply.call >= 1 && reply.call <= kCalls && ++answered_ <= kCalls);
      for (const std::byte byte : reply.payload) sum_ += static_cast<uint8_t>(byte);  // all of it is there
    });
    (void)transport_->HasAnswer();
    (void)transport_->PrepareToSleep();
  }

 private:
  static constexpr uint32_t kCalls = 4;
  std::unique_ptr<transport::ShmTransport> transport_;
  std::vector<std::byte> input_ = std::vector<std::byte>(6000);
  uint32_t answered_ = 0;
  uint64_t sum_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  const auto look = input.Take<uint8_t>();
  Target& target = TheTarget();
  target.Restore();
  std::optional<Client> client;
  if ((look & kClientToo) != 0) client.emplace(target.ForClient());
  if ((look & kMeanwhile) == 0) {
    target.Write(input);
    target.Serve();
    if (client) client->Poll();
    (void)window::ClientWindow::Map(target.ForClient());  // refuses a header that makes no sense
    return 0;
  }
  std::atomic<bool> stop{false};
  std::thread other([&] {
    do target.Write(input);
    while (!stop.load());
  });
  for (int turn = 0; turn < 8; ++turn) {
    target.Serve();
    if (client) client->Poll();
  }
  stop.store(true);
  other.join();
  return 0;
}
