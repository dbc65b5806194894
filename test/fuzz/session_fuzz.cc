// Any bytes as what a client sends to a host: before its hello, as its hello, and after a valid one. A real host, over
// real sockets, without workers. The first byte says which; then come the bytes.

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "base/clock.h"
#include "host/host.h"
#include "mqueue/message_queue.h"
#include "protocol/messages.h"
#include "protocol/token.h"
#include "segment/segment.h"
#include "support.h"
#include "transport/tcp.h"

namespace {

using namespace praas;
using fuzz::Check;

constexpr uint64_t kPatienceNs = 60'000'000'000;
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
  static void Await(transport::TcpStream& stream, short events) {
    pollfd entry{stream.fd(), events, 0};
    Check(::poll(&entry, 1, static_cast<int>(kPatienceNs / 1'000'000)) > 0);  // it neither answers nor closes
  }
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
  if ((begin & kSealed) != 0) fuzz::SealFrames(std::span(bytes).subspan(head));
  TheTarget().Talk(bytes);
  return 0;
}
