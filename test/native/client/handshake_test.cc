#include "client/handshake.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/machine_id.h"
#include "client/driver.h"
#include "support/rdma.h"
#include "transport/verbs_link.h"
#include "window/handover.h"

namespace praas::test {
namespace {

using client::Connection;
using client::ConnectOptions;

Status ConnectWith(FrameServer& server, const std::function<void(ConnectOptions&)>& change) {
  ConnectOptions options = OptionsFor(server.port());
  change(options);
  return Connection::Connect(options).status();
}

TEST(Handshake, TellsWhatTheHostAnnounced) {
  FrameServer server({.max_contiguous = 12345, .max_in_flight = 17, .default_timeout_ns = 99});
  Driver driver = Connect(server);
  EXPECT_EQ(driver->info().process, "p");
  EXPECT_EQ(driver->info().transport, "tcp");
  EXPECT_EQ(driver->info().upgrade_reason, "");
  EXPECT_EQ(driver->info().max_contiguous, 12345u);
  EXPECT_EQ(driver->info().max_in_flight, 17u);
  EXPECT_EQ(driver->info().default_timeout_ns, 99u);
  EXPECT_EQ(driver->info().host_pid, ::getpid());
  EXPECT_TRUE(driver->lost().ok());
}

TEST(Handshake, RefusalsKeepTheirCode) {
  FrameServer server;
  EXPECT_EQ(ConnectWith(server, [](auto& o) { o.token = "wrong"; }).code(), Code::kTokenInvalid);
  EXPECT_EQ(ConnectWith(server, [](auto& o) { o.token = ""; }).code(), Code::kTokenInvalid);
  EXPECT_EQ(ConnectWith(server, [](auto& o) { o.process = "q"; }).code(), Code::kProcessUnknown);
  EXPECT_EQ(ConnectWith(server, [](auto& o) { o.process = ""; }).code(), Code::kNameInvalid);
  EXPECT_EQ(ConnectWith(server, [](auto& o) { o.process = std::string(256, 'x'); }).code(), Code::kNameInvalid);
  EXPECT_EQ(ConnectWith(server, [](auto& o) { o.token = std::string(5000, 'x'); }).code(), Code::kArgumentInvalid);
  EXPECT_EQ(ConnectWith(server, [](auto& o) { o.transport = "pigeon"; }).code(), Code::kArgumentInvalid);
}

TEST(Handshake, AHostWithoutChecksumsCannotServeWhoWantsThem) {
  FrameServer server({.capabilities = 0});
  EXPECT_EQ(ConnectWith(server, [](auto& o) { o.checksum = true; }).code(), Code::kUnsupported);
}

TEST(Handshake, AFailedUpgradeLeavesTcpAndAReason) {
  for (const auto& [capabilities, machine, word] :
       {std::tuple{uint64_t{0}, MachineId(), "no shared memory"},
        std::tuple{uint64_t{protocol::kCapShm}, std::string("elsewhere"), "another machine"},
        std::tuple{uint64_t{protocol::kCapShm}, MachineId(), "no windows here"}}) {
    FrameServer server({.capabilities = capabilities, .machine_id = machine});
    ConnectOptions options = OptionsFor(server.port());
    options.transport = "auto";
    Driver driver = Connect(options);
    EXPECT_EQ(driver->info().transport, "tcp");
    EXPECT_NE(driver->info().upgrade_reason.find(word), std::string::npos) << driver->info().upgrade_reason;
    const Bytes input = ToBytes("hi");
    EXPECT_EQ(driver.Call(kEcho, input).payload, input);
    EXPECT_EQ(ConnectWith(server, [](auto& o) { o.transport = "shm"; }).code(), Code::kUpgradeFailed);
  }
}

/// A peer that does with a client's connection what the test says, on a thread.
Status AgainstPeer(const std::function<void(transport::TcpStream&)>& peer, uint64_t timeout_ns = kWatchdogNs,
                   const std::string& transport = "tcp") {
  Result<transport::TcpListener> listener = transport::TcpListener::Listen("127.0.0.1", 0);
  EXPECT_TRUE(listener.ok());
  std::atomic<bool> connected_ended = false;
  std::thread thread([&] {
    std::unique_ptr<transport::TcpStream> stream;
    while (!stream && !connected_ended) {
      pollfd waiting{listener->fd(), POLLIN, 0};
      ::poll(&waiting, 1, 100);
      stream = std::move(*listener->Accept());
    }
    if (stream) peer(*stream);
    while (!connected_ended) std::this_thread::yield();
  });
  ConnectOptions options = OptionsFor(listener->port());
  options.timeout_ns = timeout_ns;
  options.transport = transport;
  const Status status = Connection::Connect(options).status();
  connected_ended = true;
  thread.join();
  return status;
}

void WriteAll(transport::TcpStream& stream, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    const Result<size_t> sent = stream.Write({&part, 1});
    if (!sent.ok()) return;
    bytes = bytes.subspan(*sent);
  }
}

void SendFrame(transport::TcpStream& stream, protocol::Frame frame, std::span<const std::byte> payload) {
  protocol::FrameWriter writer;
  writer.Push(frame, payload);
  while (!writer.empty() && writer.Flush(stream).ok()) {
  }
}

TEST(Handshake, ASilentPeerIsLeftAtTheDeadline) {
  EXPECT_EQ(AgainstPeer([](auto&) {}, 50'000'000).code(), Code::kConnectionTimeout);
}

TEST(Handshake, APeerThatHangsUpIsConnectionLost) {
  EXPECT_EQ(AgainstPeer([](transport::TcpStream& stream) { stream.Close(); }).code(), Code::kConnectionLost);
}

UniqueFd ListenAt(const std::string& path) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::listen(socket.get(), 2), 0);
  return socket;
}

/// A host that offers something, and then does what the test says.
std::function<void(transport::TcpStream&)> Offers(protocol::UpgradeOffer offer,
                                                  std::function<void(transport::TcpStream&)> then) {
  return [offer = std::move(offer), then = std::move(then)](transport::TcpStream& stream) {
    SendFrame(stream, {.type = protocol::FrameType::kWelcome},
              Encode(protocol::Welcome{.session_id = 1,
                                       .process = "p",
                                       .capabilities = protocol::kCapShm | protocol::kCapVerbs,
                                       .max_contiguous = 1,
                                       .max_in_flight = 1,
                                       .default_timeout_ns = 1,
                                       .host_pid = 1,
                                       .machine_id = MachineId()}));
    SendFrame(stream, {.type = protocol::FrameType::kUpgradeOffer}, Encode(offer));
    then(stream);
  };
}

TEST(Handshake, AHostThatEndsDuringTheUpgradeIsLostAndNotWithoutSharedMemory) {
  // Where nobody gives a window.
  const protocol::UpgradeOffer offer{.socket_path = "/nowhere/socket",
                                     .nonce = std::string(window::kNonceBytes, 'n'),
                                     .window_bytes = 1 << 22,
                                     .refused = {}};
  const auto against = [&](std::function<void(transport::TcpStream&)> then) {
    return AgainstPeer(Offers(offer, std::move(then)), kWatchdogNs, "shm").code();
  };
  EXPECT_EQ(against([](auto& stream) { stream.Close(); }), Code::kHostLost);
  EXPECT_EQ(against([](auto& stream) {
              SendFrame(stream, {.type = protocol::FrameType::kGoodbye},
                        Encode(protocol::Reject{Code::kLeaseExpired, "over"}));
            }),
            Code::kLeaseExpired);
  EXPECT_EQ(against([](auto& stream) {
              SendFrame(stream, {.type = protocol::FrameType::kUpgradeOffer},
                        Encode(protocol::UpgradeOffer{.refused = protocol::Reject{Code::kUpgradeFailed, "tcp, then"}}));
            }),
            Code::kUpgradeFailed);
}

TEST(Handshake, AHostThatGivesNoWindowInTimeIsLateAndNotWithoutSharedMemory) {
  const std::string path = ::testing::TempDir() + "praas-silent-" + std::to_string(::getpid());
  const UniqueFd silent = ListenAt(path);
  // Its next answer is there before it is asked, so that it counts even after the deadline.
  const Status status = AgainstPeer(
      Offers(
          {.socket_path = path, .nonce = std::string(window::kNonceBytes, 'n'), .window_bytes = 1 << 22, .refused = {}},
          [](auto& stream) {
            SendFrame(stream, {.type = protocol::FrameType::kUpgradeOffer},
                      Encode(protocol::UpgradeOffer{.refused = protocol::Reject{Code::kUpgradeFailed, "tcp, then"}}));
          }),
      100'000'000, "shm");
  ::unlink(path.c_str());
  EXPECT_EQ(status.code(), Code::kConnectionTimeout) << status.message();
}

TEST(Handshake, AClientThatIsTooLateForAnOfferGetsAnother) {
  const std::string path = ::testing::TempDir() + "praas-forgetful-" + std::to_string(::getpid());
  const UniqueFd forgetful = ListenAt(path);
  std::thread forgets([&] {
    for (int offers = 0; offers < 2; ++offers) ::close(::accept(forgetful.get(), nullptr, nullptr));
  });
  const protocol::UpgradeOffer offer{
      .socket_path = path, .nonce = std::string(window::kNonceBytes, 'n'), .window_bytes = 1 << 22, .refused = {}};
  const Status status = AgainstPeer(
      Offers(offer,
             [&](auto& stream) {
               SendFrame(stream, {.type = protocol::FrameType::kUpgradeOffer}, Encode(offer));
               SendFrame(
                   stream, {.type = protocol::FrameType::kUpgradeOffer},
                   Encode(protocol::UpgradeOffer{.refused = protocol::Reject{Code::kUpgradeFailed, "the third time"}}));
             }),
      kWatchdogNs, "shm");
  ::shutdown(forgetful.get(), SHUT_RDWR);
  forgets.join();
  ::unlink(path.c_str());
  EXPECT_EQ(status.code(), Code::kUpgradeFailed) << status.message();
  EXPECT_NE(status.message().find("the third time"), std::string::npos) << status.message();
}

TEST(Handshake, WhyAPeerRefusesDuringTheUpgradeIsTold) {
  const auto refuse = [](auto& stream) {
    SendFrame(stream, {.type = protocol::FrameType::kReject},
              Encode(protocol::Reject{Code::kLeaseUnavailable, "the worker has ended"}));
  };
  const Status status = AgainstPeer(Offers({.socket_path = "/nowhere/socket",
                                            .nonce = std::string(window::kNonceBytes, 'n'),
                                            .window_bytes = 1 << 22,
                                            .refused = {}},
                                           refuse),
                                    kWatchdogNs, "shm");
  EXPECT_EQ(status.code(), Code::kLeaseUnavailable);
  EXPECT_NE(status.message().find("the worker has ended"), std::string::npos) << status.message();
}

#if PRAAS_VERBS_HEADERS

/// Until the client has said it, or is gone.
void AwaitText(transport::TcpStream& stream, std::string_view text) {
  std::string said;
  std::array<std::byte, 4096> bytes;
  while (said.find(text) == std::string::npos) {
    const Result<size_t> got = stream.Read(bytes);
    if (!got.ok()) return;
    said.append(reinterpret_cast<const char*>(bytes.data()), *got);
  }
}

TEST(Handshake, AHostThatEndsDuringTheUpgradeToVerbsIsLostAndNotWithoutRdma) {
  if (const std::string reason = NoRdmaDevice(); !reason.empty()) GTEST_SKIP() << reason;
  // A queue pair that never answers.
  using transport::VerbsLink;
  const auto context = verbs::Context::Open({}).value();
  const auto completions = verbs::CompletionQueue::Make(*context, 16).value();
  constexpr uint64_t kBytes = (VerbsLink::MemoryBytes(VerbsLink::kSlots) + 4095) / 4096 * 4096;
  const std::unique_ptr<std::byte, decltype(&std::free)> memory(
      static_cast<std::byte*>(std::aligned_alloc(4096, kBytes)), &std::free);
  const auto link = VerbsLink::Make(*context, completions, nullptr, {memory.get(), kBytes}, VerbsLink::kSlots);
  ASSERT_TRUE(link.ok()) << link.status().message();
  const auto against = [&](std::function<void(transport::TcpStream&)> then) {
    return AgainstPeer(Offers({.verbs = (*link)->end()}, std::move(then)), kWatchdogNs, "verbs").code();
  };
  const Code closed = against([](auto& stream) { stream.Close(); });
  // The second when the host left something unread.
  EXPECT_TRUE(closed == Code::kHostLost || closed == Code::kConnectionLost) << CodeName(closed);
  EXPECT_EQ(against([](auto& stream) {
              SendFrame(stream, {.type = protocol::FrameType::kUpgradeOffer},
                        Encode(protocol::UpgradeOffer{.refused = protocol::Reject{Code::kUpgradeFailed, "tcp, then"}}));
            }),
            Code::kUpgradeFailed);
  // However little time there is, it is not all spent on packets that do not get through. With more of it the device
  // gives up by itself, with less there is none for the rest.
  std::vector<std::string> silent;
  for (const uint64_t timeout_ns : {100'000'000, 200'000'000, 400'000'000, 600'000'000, 800'000'000}) {
    const Status status = AgainstPeer(
        Offers({.verbs = (*link)->end()},
               [](transport::TcpStream& stream) {
                 AwaitText(stream, "tcp");
                 SendFrame(
                     stream, {.type = protocol::FrameType::kUpgradeOffer},
                     Encode(protocol::UpgradeOffer{.refused = protocol::Reject{Code::kUpgradeFailed, "tcp, then"}}));
               }),
        timeout_ns, "verbs");
    if (status.code() == Code::kUpgradeFailed) silent.push_back(status.message());
  }
  EXPECT_TRUE(std::any_of(silent.begin(), silent.end(), [](const std::string& message) {
    return message.find("does not answer by RDMA") != std::string::npos;
  })) << ::testing::PrintToString(silent);
}

#endif

TEST(Handshake, AnotherProtocolIsRecognised) {
  const Status status =
      AgainstPeer([](transport::TcpStream& stream) { WriteAll(stream, ToBytes(std::string(100, 'H'))); });
  EXPECT_EQ(status.code(), Code::kProtocolInvalid);
  EXPECT_NE(status.message().find("does not speak"), std::string::npos) << status.message();
}

TEST(Handshake, AnotherVersionIsNamed) {
  const Status status = AgainstPeer([](transport::TcpStream& stream) {
    std::array<std::byte, protocol::kHeaderBytes> header;
    protocol::EncodeHeader({.type = protocol::FrameType::kReject}, header);
    header[4] = std::byte{2};
    WriteAll(stream, header);
  });
  EXPECT_EQ(status.code(), Code::kProtocolVersion);
  EXPECT_NE(status.message().find("version 2"), std::string::npos) << status.message();
}

TEST(Handshake, UnexpectedAndMalformedAnswersAreRefused) {
  using protocol::FrameType;
  EXPECT_EQ(AgainstPeer([](auto& s) { SendFrame(s, {.type = FrameType::kPing}, {}); }).code(), Code::kProtocolInvalid);
  EXPECT_EQ(AgainstPeer([](auto& s) { SendFrame(s, {.type = FrameType::kReply, .call = 1}, {}); }).code(),
            Code::kProtocolInvalid);
  EXPECT_EQ(AgainstPeer([](auto& s) { SendFrame(s, {.type = FrameType::kWelcome}, {}); }).code(),
            Code::kProtocolInvalid);
  EXPECT_EQ(AgainstPeer([](auto& s) { SendFrame(s, {.type = FrameType::kReject}, {}); }).code(),
            Code::kProtocolInvalid);
  EXPECT_EQ(AgainstPeer([](auto& s) {
              SendFrame(s, {.type = FrameType::kReject}, Encode(protocol::Reject{Code::kOk, "fine"}));
            }).code(),
            Code::kProtocolInvalid);
  EXPECT_EQ(AgainstPeer([](auto& s) {
              SendFrame(s, {.type = FrameType::kWelcome},
                        Encode(protocol::Welcome{.session_id = 1,
                                                 .process = "other",
                                                 .max_contiguous = 1,
                                                 .max_in_flight = 1,
                                                 .default_timeout_ns = 1,
                                                 .host_pid = 1}));
            }).code(),
            Code::kProtocolInvalid);
}

TEST(Handshake, WorksOverAnyStream) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const transport::LoopbackFaults faults{.seed = seed, .split = 700'000, .stall = 300'000, .max_delay = 3};
    SCOPED_TRACE(faults.ToText());
    Result<transport::LoopbackPair> pair = transport::LoopbackPair::Create(faults);
    ASSERT_TRUE(pair.ok());
    FrameServer::Options server_options;
    server_options.step = [&] { pair->Step(); };
    FrameServer server(server_options);
    server.Adopt(pair->TakeServer());
    Result<std::unique_ptr<Connection>> connection = Connection::Over(pair->TakeClient(), "loopback", OptionsFor(0));
    ASSERT_TRUE(connection.ok()) << connection.status().message();
    Driver driver(std::move(*connection));
    EXPECT_EQ(driver->info().transport, "loopback");
    const Bytes input = Pattern(100'000, 1);
    EXPECT_EQ(driver.Call(kEcho, input).payload, input);
  }
}

TEST(Handshake, CorruptionInTheHandshakeIsNoticed) {
  size_t failures = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    const transport::LoopbackFaults faults{.seed = seed, .corrupt = 700'000};
    SCOPED_TRACE(faults.ToText());
    Result<transport::LoopbackPair> pair = transport::LoopbackPair::Create(faults);
    ASSERT_TRUE(pair.ok());
    FrameServer server;
    server.Adopt(pair->TakeServer());
    ConnectOptions options = OptionsFor(0);
    options.checksum = true;
    options.timeout_ns = 300'000'000;
    const Result<std::unique_ptr<Connection>> connection = Connection::Over(pair->TakeClient(), "loopback", options);
    if (connection.ok()) {
      EXPECT_EQ((*connection)->info().process, "p");
      EXPECT_EQ((*connection)->info().max_in_flight, 64u);
    } else {
      ++failures;
    }
  }
  EXPECT_GT(failures, 0u);
}

}  // namespace
}  // namespace praas::test
