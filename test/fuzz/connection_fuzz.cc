// Any bytes as what a host says to a client: instead of its welcome, and after it, as answers to requests that the
// client has made. The first byte says which; then come the bytes.

#include <memory>
#include <string>

#include "base/clock.h"
#include "client/connection.h"
#include "client/state_request.h"
#include "protocol/lease_messages.h"
#include "protocol/messages.h"
#include "protocol/state_messages.h"
#include "support.h"
#include "transport/loopback.h"

namespace {

using namespace praas;
using fuzz::Check;
using protocol::FrameType;

constexpr uint64_t kPatienceNs = 60'000'000'000;
constexpr size_t kMostBytes = 64u << 10;  // what a socket takes at once

enum Begin : uint8_t { kWelcome = 1u << 0, kSealed = 1u << 1, kChecksum = 1u << 2, kFastest = 1u << 3 };

void Say(transport::ByteStream& stream, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  const auto sent = stream.Write(std::span(&part, 1));
  Check(sent.ok() && *sent == bytes.size());
}

/// One of every kind of request, answered once each whatever the host says.
class Requests {
 public:
  explicit Requests(client::Connection& connection) : connection_(connection) {
    const uint64_t soon = DeadlineIn(kPatienceNs);
    Made(connection.Resolve("function", soon));
    Made(connection.Invoke(0, input_, output_, 0, soon));
    Made(connection.Invoke(1, {}, {}, protocol::kIdempotent, soon));
    for (const protocol::StateOp op : {protocol::StateOp::kGet, protocol::StateOp::kKeys, protocol::StateOp::kLock,
                                       protocol::StateOp::kRead, protocol::StateOp::kStat}) {
      protocol::StateRequest request;
      request.op = op;
      request.key = "k";
      Made(client::SubmitState(connection, request, soon));
    }
    Made(client::SubmitAdmin(connection, static_cast<uint16_t>(protocol::AdminOp::kStats), "", soon));
    const auto stream = connection.OpenStream(2, 0, soon);
    if (stream.ok()) {
      stream_ = *stream;
      ids_.push_back(*stream);
    }
    connection.SetNoticeSink([](const client::LeaseNotice&) {});
  }

  [[nodiscard]] uint64_t Id(uint64_t any) const { return ids_.empty() ? any : ids_[any % ids_.size()]; }
  void Poll() {
    connection_.Poll(
        [this](const transport::Reply& reply) {
          ++answers_;
          Check(answers_ <= ids_.size());
          for (const std::byte byte : reply.payload) sum_ += static_cast<uint8_t>(byte);  // all of it is there
        },
        [this](const client::StreamEvent& event) {
          Check(event.call == stream_);
          for (const std::byte byte : event.chunk) sum_ += static_cast<uint8_t>(byte);
          if (event.kind == client::StreamEvent::Kind::kChunk) {
            connection_.ConsumedChunk(event.call, event.chunk.size());
          } else if (event.kind == client::StreamEvent::Kind::kRoom) {
            (void)connection_.SendChunk(event.call, input_, false);
          } else {
            ++answers_;
          }
        });
  }
  [[nodiscard]] bool AllAnswered() const { return answers_ == ids_.size(); }

 private:
  void Made(const Result<uint64_t>& call) {
    if (call.ok()) ids_.push_back(*call);
  }
  client::Connection& connection_;
  std::vector<std::byte> input_ = std::vector<std::byte>(100);
  std::vector<std::byte> output_ = std::vector<std::byte>(100);
  std::vector<uint64_t> ids_;
  uint64_t stream_ = 0;
  size_t answers_ = 0;
  uint64_t sum_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  const auto begin = input.Take<uint8_t>();
  std::vector<std::byte> bytes(input.rest().begin(), input.rest().end());
  bytes.resize(std::min(bytes.size(), kMostBytes));
  auto pair = transport::LoopbackPair::Create({});
  Check(pair.ok());
  const std::unique_ptr<transport::ByteStream> host = pair->TakeServer();
  const bool welcome = (begin & kWelcome) != 0;
  const bool sealed = (begin & kSealed) != 0;
  if (welcome) {
    protocol::Welcome message;
    message.session_id = 1;
    message.process = "p";
    message.capabilities = protocol::kCapStream | ((begin & kChecksum) != 0 ? protocol::kCapChecksum : 0);
    message.max_contiguous = 64u << 10;
    message.max_in_flight = 64;
    message.default_timeout_ns = kPatienceNs;
    message.host_pid = 1;
    std::vector<std::byte> head;
    fuzz::AppendFrame(&head, {.type = FrameType::kWelcome}, protocol::Encode(message));
    Say(*host, head);
  } else {
    if (sealed) fuzz::SealFrames(bytes);
    Say(*host, bytes);
    host->Close();
  }
  client::ConnectOptions options;
  options.process = "p";
  options.token = "token";
  options.transport = (begin & kFastest) != 0 ? "auto" : "tcp";
  options.checksum = (begin & kChecksum) != 0;
  options.timeout_ns = kPatienceNs;
  const auto connection = client::Connection::Over(pair->TakeClient(), "loopback", options);
  Check(connection.ok() || !welcome);
  if (!connection.ok()) return 0;
  Requests requests(**connection);
  if (welcome) {
    // A fuzzer does not know what the client calls its calls.
    if (sealed) {
      fuzz::SealFrames(bytes, [&](std::span<std::byte, protocol::kHeaderBytes> header) {
        uint64_t call = 0;
        std::memcpy(&call, header.data() + 16, sizeof call);
        call = requests.Id(call);
        std::memcpy(header.data() + 16, &call, sizeof call);
      });
    }
    requests.Poll();
    Say(*host, bytes);
    host->Close();
  }
  while ((*connection)->lost().ok()) requests.Poll();
  requests.Poll();
  Check(requests.AllAnswered());
  return 0;
}
