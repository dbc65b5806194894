#include "transport/tcp.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace praas::transport {
namespace {

constexpr uint64_t kPatienceNs = 20'000'000'000;

struct Connected {
  std::unique_ptr<TcpStream> client, server;
};

Connected Connect(const std::string& host) {
  Connected pair;
  Result<TcpListener> listener = TcpListener::Listen(host, 0);
  EXPECT_TRUE(listener.ok()) << listener.status().message();
  if (!listener.ok()) return pair;
  Result<std::unique_ptr<TcpStream>> client = TcpConnect(host, listener->port(), DeadlineIn(kPatienceNs));
  EXPECT_TRUE(client.ok()) << client.status().message();
  if (!client.ok()) return pair;
  pair.client = std::move(*client);
  while (!pair.server) {
    pollfd waiting{listener->fd(), POLLIN, 0};
    ::poll(&waiting, 1, 1000);
    pair.server = std::move(*listener->Accept());
  }
  return pair;
}

size_t ReadAtLeastOne(TcpStream& stream, std::span<std::byte> into) {
  while (true) {
    pollfd waiting{stream.fd(), POLLIN, 0};
    ::poll(&waiting, 1, 1000);
    const Result<size_t> got = stream.Read(into);
    EXPECT_TRUE(got.ok()) << got.status().message();
    if (!got.ok() || *got > 0) return got.ok() ? *got : 0;
  }
}

int Option(int fd, int level, int option) {
  int value = -1;
  socklen_t size = sizeof value;
  EXPECT_EQ(::getsockopt(fd, level, option, &value, &size), 0);
  return value;
}

TEST(Tcp, MovesBytesBothWaysOverIPv4) {
  Connected pair = Connect("127.0.0.1");
  std::byte bytes[16];
  EXPECT_EQ(*pair.client->Read(bytes), 0u);  // would block
  char hello[] = "hello", world[] = "world";
  const iovec parts[] = {{hello, 5}, {world, 5}};
  EXPECT_EQ(*pair.client->Write(parts), 10u);
  EXPECT_EQ(ReadAtLeastOne(*pair.server, bytes), 10u);
  EXPECT_EQ(std::string_view(reinterpret_cast<char*>(bytes), 10), "helloworld");
  EXPECT_EQ(*pair.server->Write(std::span(parts, 1)), 5u);
  EXPECT_EQ(ReadAtLeastOne(*pair.client, bytes), 5u);
}

TEST(Tcp, SpeaksIPv6AndNames) {
  if (Result<TcpListener> six = TcpListener::Listen("::1", 0); !six.ok()) GTEST_SKIP() << six.status().message();
  EXPECT_NE(Connect("::1").server, nullptr);
  EXPECT_NE(Connect("localhost").server, nullptr);
}

TEST(Tcp, TheWildcardListenerTakesBothFamilies) {
  Result<TcpListener> listener = TcpListener::Listen("", 0);
  ASSERT_TRUE(listener.ok()) << listener.status().message();
  EXPECT_TRUE(TcpConnect("127.0.0.1", listener->port(), DeadlineIn(kPatienceNs)).ok());
}

TEST(Tcp, SetsItsOptionsOnBothSides) {
  const Connected pair = Connect("127.0.0.1");
  for (const TcpStream* stream : {pair.client.get(), pair.server.get()}) {
    EXPECT_EQ(Option(stream->fd(), IPPROTO_TCP, TCP_NODELAY), 1);
    EXPECT_EQ(Option(stream->fd(), SOL_SOCKET, SO_KEEPALIVE), 1);
    EXPECT_EQ(Option(stream->fd(), IPPROTO_TCP, TCP_USER_TIMEOUT), TcpStream::kDeadPeerSeconds * 1000);
    EXPECT_NE(::fcntl(stream->fd(), F_GETFL) & O_NONBLOCK, 0);
    EXPECT_NE(::fcntl(stream->fd(), F_GETFD) & FD_CLOEXEC, 0);
  }
  EXPECT_EQ(pair.server->PeerName().rfind("127.0.0.1:", 0), 0u);
}

TEST(Tcp, TheEndOfThePeerIsConnectionLost) {
  Connected pair = Connect("127.0.0.1");
  pair.server.reset();
  std::byte byte;
  pollfd waiting{pair.client->fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&waiting, 1, 20'000), 1);
  EXPECT_EQ(pair.client->Read({&byte, 1}).status().code(), Code::kConnectionLost);
  Status status;
  const iovec part{&byte, 1};
  while (status.ok()) status = pair.client->Write({&part, 1}).status();
  EXPECT_EQ(status.code(), Code::kConnectionLost);
}

TEST(Tcp, UseAfterCloseIsAnError) {
  Connected pair = Connect("127.0.0.1");
  pair.client->Close();
  pair.client->Close();
  std::byte byte{};
  const iovec part{&byte, 1};
  EXPECT_EQ(pair.client->Read({&byte, 1}).status().code(), Code::kConnectionClosed);
  EXPECT_EQ(pair.client->Write({&part, 1}).status().code(), Code::kConnectionClosed);
}

TEST(Tcp, AFullSocketWouldBlock) {
  Connected pair = Connect("127.0.0.1");
  std::vector<std::byte> bytes(1 << 20);
  const iovec part{bytes.data(), bytes.size()};
  size_t total = 0;
  while (true) {
    const Result<size_t> sent = pair.client->Write({&part, 1});
    ASSERT_TRUE(sent.ok());
    if (*sent == 0) break;
    total += *sent;
  }
  std::vector<std::byte> into(1 << 20);
  while (total > 0) total -= ReadAtLeastOne(*pair.server, into);
  EXPECT_GT(*pair.client->Write({&part, 1}), 0u);
}

TEST(Tcp, RefusedAndUnresolvableHostsSayWhy) {
  uint16_t port = 0;
  {
    Result<TcpListener> listener = TcpListener::Listen("127.0.0.1", 0);
    ASSERT_TRUE(listener.ok());
    port = listener->port();
  }
  const Status refused = TcpConnect("127.0.0.1", port, DeadlineIn(kPatienceNs)).status();
  EXPECT_EQ(refused.code(), Code::kConnectionLost);
  EXPECT_EQ(refused.sys_errno(), ECONNREFUSED);
  EXPECT_NE(refused.message().find("127.0.0.1:" + std::to_string(port)), std::string::npos) << refused.message();
  EXPECT_EQ(TcpConnect("", 1, DeadlineIn(kPatienceNs)).status().code(), Code::kArgumentInvalid);
  EXPECT_EQ(TcpConnect(std::string("a\0b", 3), 1, DeadlineIn(kPatienceNs)).status().code(), Code::kArgumentInvalid);
}

TEST(Tcp, TheDeadlineEndsConnecting) {
  // A full backlog leaves further connects without an answer.
  Result<TcpListener> listener = TcpListener::Listen("127.0.0.1", 0);
  ASSERT_TRUE(listener.ok());
  ASSERT_EQ(::listen(listener->fd(), 0), 0);
  std::vector<std::unique_ptr<TcpStream>> waiting;
  Status status;
  for (int i = 0; i < 8 && status.ok(); ++i) {
    Result<std::unique_ptr<TcpStream>> stream = TcpConnect("127.0.0.1", listener->port(), DeadlineIn(100'000'000));
    status = stream.status();
    if (stream.ok()) waiting.push_back(std::move(*stream));
  }
  EXPECT_EQ(status.code(), Code::kConnectionTimeout) << status.message();
  EXPECT_EQ(TcpConnect("127.0.0.1", listener->port(), NowNs() - 1).status().code(), Code::kConnectionTimeout);
}

TEST(TcpListener, APortInUseIsRefused) {
  Result<TcpListener> listener = TcpListener::Listen("127.0.0.1", 0);
  ASSERT_TRUE(listener.ok());
  const Status status = TcpListener::Listen("127.0.0.1", listener->port()).status();
  EXPECT_EQ(status.code(), Code::kSystem);
  EXPECT_EQ(status.sys_errno(), EADDRINUSE);
  listener->Close();
  EXPECT_EQ(listener->Accept().status().code(), Code::kConnectionClosed);
}

/// While it lives, no descriptor with a number above `most` is given out: the limit is on numbers, not on how many are
/// open.
class FewDescriptors {
 public:
  explicit FewDescriptors(int most) {
    EXPECT_EQ(::getrlimit(RLIMIT_NOFILE, &saved_), 0);
    rlimit tight = saved_;
    tight.rlim_cur = static_cast<rlim_t>(most) + 1;
    EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
  }
  ~FewDescriptors() { EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &saved_), 0); }
  FewDescriptors(const FewDescriptors&) = delete;

 private:
  rlimit saved_{};
};

int LowestFree() { return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)).get(); }

/// Somebody who waits to be accepted.
class CallerOf {
 public:
  explicit CallerOf(TcpListener& listener) : listener_(listener) {
    auto connected = TcpConnect("127.0.0.1", listener.port(), DeadlineIn(kPatienceNs));
    EXPECT_TRUE(connected.ok()) << connected.status().message();
    stream_ = std::move(*connected);
    pollfd waiting{listener.fd(), POLLIN, 0};
    EXPECT_EQ(::poll(&waiting, 1, 20'000), 1);
  }
  /// It waits no more, and hears of the end of the connection.
  void ExpectTurnedAway() {
    pollfd waiting{listener_.fd(), POLLIN, 0};
    EXPECT_EQ(::poll(&waiting, 1, 0), 0) << "the listener must not stay readable";
    waiting = {stream_->fd(), POLLIN, 0};
    EXPECT_EQ(::poll(&waiting, 1, 20'000), 1);
    std::byte byte;
    EXPECT_EQ(stream_->Read({&byte, 1}).status().code(), Code::kConnectionLost);
  }

 private:
  TcpListener& listener_;
  std::unique_ptr<TcpStream> stream_;
};

TEST(TcpListener, TurnsCallersAwayWhenDescriptorsRunOut) {
  Result<TcpListener> listener = TcpListener::Listen("127.0.0.1", 0);
  ASSERT_TRUE(listener.ok());
  CallerOf caller(*listener);
  {
    const FewDescriptors few(LowestFree() - 1);
    EXPECT_EQ(listener->Accept().status().sys_errno(), EMFILE);
  }
  caller.ExpectTurnedAway();
}

TEST(TcpListener, TurnsCallersAwayAlsoAfterNotEvenItsReserveWasLeft) {
  Result<TcpListener> listener = TcpListener::Listen("127.0.0.1", 0);
  ASSERT_TRUE(listener.ok());
  CallerOf first(*listener);
  {
    // Its reserve has a number beyond these, so what it gives up is of no use to anybody.
    const FewDescriptors few(STDERR_FILENO);
    EXPECT_EQ(listener->Accept().status().sys_errno(), EMFILE);
  }
  EXPECT_TRUE(listener->Accept().ok());
  CallerOf second(*listener);
  {
    const FewDescriptors few(LowestFree() - 1);
    EXPECT_EQ(listener->Accept().status().sys_errno(), EMFILE);
  }
  second.ExpectTurnedAway();
}

}  // namespace
}  // namespace praas::transport
