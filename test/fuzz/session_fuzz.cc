// Any bytes as what a client sends to a host: before its hello, as its hello, and after a valid one. A real host, over
// real sockets, with a worker that takes calls and streams. The first byte says which; then come the bytes.

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "host/host.h"
#include "mqueue/message_queue.h"
#include "protocol/messages.h"
#include "protocol/token.h"
#include "segment/segment.h"
#include "support.h"
#include "transport/tcp.h"
#include "worker/control.h"
#include "worker/runtime.h"

namespace {

using namespace praas;
using fuzz::Check;

constexpr uint64_t kPatienceNs = 60'000'000'000;
constexpr int kAnswerMs = 1;
/// What a fuzzer does not come to know.
const std::string kKey(protocol::kTokenKeyBytes, 'k');
/// Everything but administration, which would end the host.
std::string Token() {
  return protocol::MintToken(kKey, {.process = "p",
                                    .verbs = protocol::kAllVerbs & static_cast<uint8_t>(~protocol::kVerbAdmin),
                                    .expires_ms = WallNs() / 1'000'000 + 3'600'000,
                                    .ends_connections = false});
}

enum Begin : uint8_t { kHello = 1u << 0, kSealed = 1u << 1, kChecksum = 1u << 2 };

/// Gives inputs and chunks back as they came; a thread, until its host ends.
class Worker {
 public:
  enum Function : uint32_t { kEcho, kStream, kFunctions };

  explicit Worker(UniqueFd control)
      : thread_([this, control = std::move(control)]() mutable { Run(std::move(control)); }) {}
  ~Worker() { thread_.join(); }

 private:
  struct Stream {
    uint64_t handle;
    std::vector<std::byte> unwritten{};
    bool input_ended = false;
  };

  void Run(UniqueFd control) {
    worker::WorkerRuntime::Options options;
    options.on_exit = [this] { ended_.store(true); };
    auto runtime = worker::WorkerRuntime::Attach(std::move(control), std::move(options), DeadlineIn(kPatienceNs));
    Check(runtime.ok());
    worker::WorkerRuntime& calls = **runtime;
    Check(calls.WaitForLoad(DeadlineIn(kPatienceNs)).ok());
    Check(calls.Ready({{"echo", 0}, {"stream", segment::kFunctionStream}}).ok());
    std::vector<Stream> streams;
    while (!ended_.load()) {
      while (auto invocation = calls.TryNext(true)) {
        if (invocation->function == kStream) {
          streams.push_back({invocation->handle});
        } else {
          (void)calls.Complete(invocation->handle, invocation->input);
        }
      }
      (void)calls.TakeNotices();
      (void)calls.TakeCancellations();
      std::erase_if(streams, [&](Stream& stream) { return Pump(calls, stream); });
      calls.Sleep(true, DeadlineIn(100'000'000));
    }
  }

  /// true: it has ended.
  static bool Pump(worker::WorkerRuntime& calls, Stream& stream) {
    const auto failed = [&](const Status& why) {
      (void)calls.Fail(stream.handle, why.code(), why.message());
      return true;
    };
    for (;;) {
      if (!stream.unwritten.empty()) {
        const auto written = calls.WriteChunk(stream.handle, stream.unwritten);
        if (!written.ok()) return failed(written.status());
        if (!*written) return false;
        stream.unwritten.clear();
      }
      if (stream.input_ended) {
        (void)calls.Complete(stream.handle, {});
        return true;
      }
      const auto chunk = calls.NextChunk(stream.handle);
      if (!chunk) return false;
      if (!chunk->status.ok()) return failed(chunk->status);
      stream.unwritten.assign(chunk->bytes.begin(), chunk->bytes.end());
      stream.input_ended = chunk->end;
    }
  }

  std::atomic<bool> ended_{false};
  std::thread thread_;
};

class Target {
 public:
  Target() {
    const std::string name = "/praas-fuzz-session-" + std::to_string(::getpid());
    host::HostOptions options;
    host::Assignment& assignment = options.assignment.emplace();
    assignment.process = "p";
    assignment.key = kKey;
    assignment.segment = assignment.queue = name;
    assignment.memory_bytes = assignment.pool_bytes = 4u << 20;
    assignment.calls = 64;
    assignment.max_contiguous = 64u << 10;
    assignment.timeout_ms = 50;
    ::setenv("PRAAS_DOORBELL", "futex", 1);
    auto host = host::Host::Start(std::move(options));
    Check(host.ok());
    host_ = std::move(host).value();
    Check(segment::Segment::Unlink(name).ok());
    auto control = worker::ControlSocket::Pair();
    Check(control.ok());
    worker_ = std::make_unique<Worker>(std::move(control->second));
    host_->AddExternalWorker(std::move(control->first), ::getpid());
    for (const uint64_t deadline_ns = DeadlineIn(kPatienceNs); host_->ready_workers() == 0; ::usleep(1000)) {
      Check(NowNs() < deadline_ns);
    }
  }
  ~Target() { host_.reset(); }

  void Talk(std::span<const std::byte> bytes) {
    const uint64_t deadline_ns = DeadlineIn(kPatienceNs);
    auto connected = transport::TcpConnect("127.0.0.1", host_->port(), deadline_ns);
    Check(connected.ok());
    transport::TcpStream& stream = **connected;
    while (!bytes.empty()) {
      const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
      const auto sent = stream.Write(std::span(&part, 1));
      if (!sent.ok()) break;
      bytes = bytes.subspan(*sent);
      if (*sent == 0) Await(stream, POLLOUT | POLLIN);
      Drain(stream);
    }
    // Calls are given up when their client closes: most are answered sooner.
    while (Drain(stream) && Ready(stream, POLLIN, kAnswerMs)) {
    }
    ::shutdown(stream.fd(), SHUT_WR);
    while (Drain(stream)) Await(stream, POLLIN);
  }

 private:
  /// false: the host has closed.
  static bool Drain(transport::TcpStream& stream) {
    for (;;) {
      std::byte buffer[4096];
      const auto got = stream.Read(buffer);
      if (!got.ok()) return false;
      if (*got == 0) return true;
    }
  }
  /// The fuzzer has a timer, whose signals begin the wait anew.
  static bool Ready(const transport::TcpStream& stream, short events, int timeout_ms) {
    pollfd entry{stream.fd(), events, 0};
    int ready = 0;
    do {
      ready = ::poll(&entry, 1, timeout_ms);
    } while (ready < 0 && errno == EINTR);
    return ready > 0;
  }
  static void Await(const transport::TcpStream& stream, short events) {
    Check(Ready(stream, events, static_cast<int>(kPatienceNs / 1'000'000)));  // it neither answers nor closes
  }
  std::unique_ptr<Worker> worker_;  // ends with its host
  std::unique_ptr<host::Host> host_;
};

Target& TheTarget() {
  static Target target;
  return target;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string token = Token();
  fuzz::Input input(data, size);
  const auto begin = input.Take<uint8_t>();
  std::vector<std::byte> bytes;
  if ((begin & kHello) != 0) {
    protocol::Hello hello;
    hello.process = "p";
    hello.token = token;
    hello.client_pid = ::getpid();
    hello.capabilities = protocol::kCapStream | ((begin & kChecksum) != 0 ? protocol::kCapChecksum : 0);
    fuzz::AppendFrame(&bytes, {.type = protocol::FrameType::kHello}, protocol::Encode(hello));
  }
  const size_t head = bytes.size();
  bytes.insert(bytes.end(), input.rest().begin(), input.rest().end());
  if ((begin & kSealed) != 0) {
    fuzz::SealFrames(std::span(bytes).subspan(head), [](std::span<std::byte, protocol::kHeaderBytes> header) {
      // One function that there is not.
      const auto function = static_cast<uint8_t>(header[24]) % (Worker::kFunctions + 1);
      std::memset(header.data() + 24, 0, sizeof(uint32_t));
      header[24] = static_cast<std::byte>(function);
    });
  }
  TheTarget().Talk(bytes);
  return 0;
}
