// Any bytes as what the holder of a lease sends to a leased worker, which reads them itself: its calls, whose results
// go back to it, and everything else. Over a real socket and a real window, which the target serves in turn with the
// connection, so that the same input does the same. The first byte says whether frames get their checksums.

#include <sys/socket.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "segment/segment.h"
#include "support.h"
#include "transport/tcp.h"
#include "unnamed_segment.h"
#include "window/server_window.h"
#include "worker/served_connection.h"

namespace {

using namespace praas;
using fuzz::Check;

constexpr uint64_t kPatienceNs = 10'000'000'000;
constexpr uint64_t kWindowBytes = 8u << 20;
constexpr uint16_t kServer = 1;

enum Begin : uint8_t { kSealed = 1u << 0 };

UniqueFd Duplicate(int fd) {
  UniqueFd copy(::dup(fd));
  Check(static_cast<bool>(copy));
  return copy;
}

class Target {
 public:
  Target() : listener_(Listener()) {
    segment_.emplace(fuzz::UnnamedSegment(1u << 20));
    Check(segment_->Commit(segment_->header().windows, 1).ok());
  }

  void Talk(std::span<const std::byte> bytes) {
    OpenWindow();
    auto client = transport::TcpConnect("127.0.0.1", listener_.port(), DeadlineIn(kPatienceNs));
    Check(client.ok());
    auto accepted = listener_.Accept();
    Check(accepted.ok() && *accepted != nullptr);
    auto made =
        worker::ServedConnection::Make(Duplicate((*accepted)->fd()), 0,
                                       {Duplicate(created_.memfd.get()), Duplicate(created_.submit_event.get()),
                                        Duplicate(created_.complete_event.get()), kWindowBytes},
                                       *segment_, {.max_contiguous = 64u << 10, .default_timeout_ns = kPatienceNs},
                                       [](int, uint32_t, void*) { return Status::Ok(); });
    Check(made.ok());
    (*accepted)->Close();
    worker::ServedConnection& connection = **made;
    const uint64_t deadline_ns = DeadlineIn(kPatienceNs);
    bool sending = true;
    while (connection.ended().ok()) {
      Check(NowNs() < deadline_ns);  // it neither takes what there is nor ends
      sending = sending && Send(**client, &bytes);
      connection.SocketHasNews(true);
      connection.Poll();
      Serve();
      connection.Deliver();
      Drain(**client);
    }
  }

 private:
  static transport::TcpListener Listener() {
    auto listener = transport::TcpListener::Listen("127.0.0.1", 0);
    Check(listener.ok());
    return std::move(listener).value();
  }
  void OpenWindow() {
    auto created = window::ServerWindow::Create(kWindowBytes);
    Check(created.ok());
    created_ = std::move(created).value();
    segment_->window(0).consumer.store(0);
    segment_->window(0).poller.store(0);
    auto server = window::ServerWindow::Map(*segment_, 0, Duplicate(created_.memfd.get()),
                                            Duplicate(created_.complete_event.get()));
    Check(server.ok());
    server_ = std::move(server).value();
  }
  /// Gives inputs back, and errors for those there is no room for.
  void Serve() {
    window::ServerWindow& server = *server_;
    if (!server.TryConsume(kServer)) return;
    while (const auto submission = server.Peek()) {
      const std::span<const std::byte> input = server.Bytes(submission->input_offset, submission->input_bytes);
      Check(input.size() == submission->input_bytes);
      if (submission->function % 2 == 0 && input.size() <= submission->output_capacity) {
        if (!input.empty()) server.Write(submission->output_offset, input);
        (void)server.Complete(submission->call, submission->sequence, 0, submission->output_offset, input.size());
      } else {
        (void)server.CompleteError(submission->call, submission->sequence, 7, "no",
                                   {submission->output_offset, submission->output_capacity});
      }
      server.Taken();
    }
    (void)server.EndConsume(kServer);
  }
  /// What there is room for, and after the last of it that there is no more. false: nothing is left to be sent.
  static bool Send(transport::TcpStream& stream, std::span<const std::byte>* bytes) {
    if (!bytes->empty()) {
      const iovec part{const_cast<std::byte*>(bytes->data()), bytes->size()};
      const auto sent = stream.Write(std::span(&part, 1));
      if (!sent.ok()) return false;
      *bytes = bytes->subspan(*sent);
      if (!bytes->empty()) return true;
    }
    ::shutdown(stream.fd(), SHUT_WR);
    return false;
  }
  static void Drain(transport::TcpStream& stream) {
    std::byte buffer[4096];
    for (auto got = stream.Read(buffer); got.ok() && *got > 0; got = stream.Read(buffer)) {
    }
  }

  transport::TcpListener listener_;
  std::optional<segment::Segment> segment_;
  window::ServerWindow::Created created_;
  std::unique_ptr<window::ServerWindow> server_;
};

Target& TheTarget() {
  static Target target;
  return target;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  const auto begin = input.Take<uint8_t>();
  std::vector<std::byte> bytes(input.rest().begin(), input.rest().end());
  if ((begin & kSealed) != 0) fuzz::SealFrames(std::span(bytes));
  TheTarget().Talk(bytes);
  return 0;
}
