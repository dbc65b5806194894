#include "window/handover.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "support/no_descriptors.h"
#include "window/support.h"

namespace praas::window {
namespace {

const std::string kNonce(kNonceBytes, 'n');

uint64_t Soon() { return DeadlineIn(30'000'000'000); }

/// A listening UNIX socket in a directory of its own.
class Listener {
 public:
  explicit Listener(int backlog = 4) {
    std::string pattern = (std::filesystem::temp_directory_path() / "praas-handover-XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    path_ = directory_ + "/window";
    socket_.Reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.data(), path_.size());
    EXPECT_EQ(bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(listen(socket_.get(), backlog), 0);
  }
  ~Listener() { std::filesystem::remove_all(directory_); }
  [[nodiscard]] UniqueFd Accept() const { return UniqueFd(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC)); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string directory_, path_;
  UniqueFd socket_;
};

/// Runs `host` on the accepted connection in a thread while this one receives.
Result<Handover> Exchange(const Listener& listener, const std::function<void(int)>& host) {
  std::thread thread([&] {
    const UniqueFd connection = listener.Accept();
    host(connection.get());
  });
  auto received = Receive(listener.path(), kNonce, Soon());
  thread.join();
  return received;
}

std::string AwaitNonce(int socket) {
  EXPECT_TRUE(WaitReadable(socket));
  while (true) {
    auto nonce = ReadNonce(socket);
    EXPECT_TRUE(nonce.ok()) << nonce.status().message();
    if (!nonce.ok()) return "";
    if (nonce->has_value()) return **nonce;
  }
}

TEST(Handover, PassesAWindowThatWorks) {
  const Listener listener;
  TestWindow window;
  auto received = Exchange(listener, [&](int socket) {
    EXPECT_EQ(AwaitNonce(socket), kNonce);
    const Status sent = Send(socket, window.created.memfd.get(), window.created.submit_event.get(),
                             window.created.complete_event.get(), window.bytes);
    EXPECT_TRUE(sent.ok()) << sent.message();
  });
  ASSERT_TRUE(received.ok()) << received.status().message();
  EXPECT_EQ(received->window_bytes, window.bytes);
  for (const int fd : {received->memfd.get(), received->submit_event.get(), received->complete_event.get()}) {
    EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  }
  // The events are the right ones, in the right order.
  const uint64_t one = 1;
  ASSERT_EQ(write(window.created.complete_event.get(), &one, sizeof(one)), 8);
  EXPECT_TRUE(WaitReadable(received->complete_event.get(), 0));
  EXPECT_FALSE(WaitReadable(received->submit_event.get(), 0));
  auto client = ClientWindow::Map(std::move(received).value());
  EXPECT_TRUE(client.ok()) << client.status().message();
}

TEST(Handover, PassesThePublicationAreaWhenThereIsOne) {
  const Listener listener;
  TestWindow window;
  const UniqueFd area(memfd_create("area", MFD_CLOEXEC));
  for (const bool with : {true, false}) {
    auto received = Exchange(listener, [&](int socket) {
      AwaitNonce(socket);
      EXPECT_TRUE(Send(socket, window.created.memfd.get(), window.created.submit_event.get(),
                       window.created.complete_event.get(), window.bytes, with ? area.get() : -1)
                      .ok());
    });
    ASSERT_TRUE(received.ok()) << received.status().message();
    ASSERT_EQ(static_cast<bool>(received->publications), with);
    if (!with) continue;
    struct stat sent {
    }, got{};
    ASSERT_EQ(fstat(area.get(), &sent), 0);
    ASSERT_EQ(fstat(received->publications.get(), &got), 0);
    EXPECT_EQ(sent.st_ino, got.st_ino);
    EXPECT_NE(fcntl(received->publications.get(), F_GETFD) & FD_CLOEXEC, 0);
  }
}

TEST(Handover, AHostThatDoesNotKnowTheNonceClosesTheSocket) {
  const Listener listener;
  auto received = Exchange(listener, [](int socket) { AwaitNonce(socket); });
  EXPECT_EQ(received.status().code(), Code::kUpgradeFailed) << received.status().message();
}

TEST(Handover, EndsAtTheDeadline) {
  const Listener listener;
  EXPECT_EQ(Receive(listener.path(), kNonce, DeadlineIn(20'000'000)).status().code(), Code::kConnectionTimeout);
  EXPECT_EQ(Receive(listener.path(), kNonce, 0).status().code(), Code::kConnectionTimeout);
  // Nobody accepts and the queue of connections is full: connect itself would block.
  const Listener full(0);
  std::vector<UniqueFd> waiting;
  for (int i = 0; i < 4; ++i) static_cast<void>(Receive(full.path(), kNonce, DeadlineIn(5'000'000)));
  EXPECT_EQ(Receive(full.path(), kNonce, DeadlineIn(20'000'000)).status().code(), Code::kConnectionTimeout);
}

TEST(Handover, RefusesBadArguments) {
  const Listener listener;
  EXPECT_EQ(Receive(listener.path(), "short", Soon()).status().code(), Code::kArgumentInvalid);
  EXPECT_EQ(Receive(std::string(108, 'p'), kNonce, Soon()).status().code(), Code::kArgumentInvalid);
  EXPECT_EQ(Receive("", kNonce, Soon()).status().code(), Code::kArgumentInvalid);
  EXPECT_EQ(Receive(std::string("a\0b", 3), kNonce, Soon()).status().code(), Code::kArgumentInvalid);
  const auto absent = Receive(listener.path() + "-absent", kNonce, Soon());
  EXPECT_EQ(absent.status().code(), Code::kSystem);
  EXPECT_EQ(absent.status().sys_errno(), ENOENT);
}

TEST(Handover, RefusesMemoryThatCouldBeTruncated) {
  const Listener listener;
  TestWindow window;
  UniqueFd unsealed(memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(unsealed.get(), 64 << 20), 0);
  auto received = Exchange(listener, [&](int socket) {
    AwaitNonce(socket);
    EXPECT_TRUE(
        Send(socket, unsealed.get(), window.created.submit_event.get(), window.created.complete_event.get(), 64 << 20)
            .ok());
  });
  EXPECT_EQ(received.status().code(), Code::kSegmentInvalid) << received.status().message();
}

TEST(Handover, RefusesAnotherSizeThanAnnounced) {
  const Listener listener;
  TestWindow window;
  auto received = Exchange(listener, [&](int socket) {
    AwaitNonce(socket);
    EXPECT_TRUE(Send(socket, window.created.memfd.get(), window.created.submit_event.get(),
                     window.created.complete_event.get(), window.bytes + 4096)
                    .ok());
  });
  EXPECT_EQ(received.status().code(), Code::kProtocolInvalid) << received.status().message();
}

TEST(Handover, RefusesRubbishAndBlockingEvents) {
  const Listener listener;
  TestWindow window;
  auto rubbish = Exchange(listener, [&](int socket) {
    AwaitNonce(socket);
    EXPECT_EQ(send(socket, std::string(16, 'x').data(), 16, MSG_NOSIGNAL), 16);
  });
  EXPECT_EQ(rubbish.status().code(), Code::kProtocolInvalid);
  UniqueFd blocking(eventfd(0, EFD_CLOEXEC));
  auto received = Exchange(listener, [&](int socket) {
    AwaitNonce(socket);
    EXPECT_TRUE(
        Send(socket, window.created.memfd.get(), blocking.get(), window.created.complete_event.get(), window.bytes)
            .ok());
  });
  EXPECT_EQ(received.status().code(), Code::kProtocolInvalid);
}

TEST(Handover, TooManyDescriptorsDoNotLeak) {
  const Listener listener;
  TestWindow window;
  auto open_fds = [] { return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}); };
  const auto before = open_fds();
  auto received = Exchange(listener, [&](int socket) {
    AwaitNonce(socket);
    // Four messages of four bytes with three descriptors each.
    for (int i = 0; i < 4; ++i) {
      char part[4] = {};
      iovec io{part, sizeof(part)};
      int fds[3] = {window.created.memfd.get(), window.created.memfd.get(), window.created.memfd.get()};
      alignas(cmsghdr) char control[CMSG_SPACE(sizeof(fds))] = {};
      msghdr message{};
      message.msg_iov = &io;
      message.msg_iovlen = 1;
      message.msg_control = control;
      message.msg_controllen = sizeof(control);
      cmsghdr* rights = CMSG_FIRSTHDR(&message);
      *rights = {CMSG_LEN(sizeof(fds)), SOL_SOCKET, SCM_RIGHTS};
      std::memcpy(CMSG_DATA(rights), fds, sizeof(fds));
      EXPECT_EQ(sendmsg(socket, &message, MSG_NOSIGNAL), 4);
    }
  });
  EXPECT_EQ(received.status().code(), Code::kProtocolInvalid);
  EXPECT_EQ(open_fds(), before);
}

TEST(Handover, SaysThatDescriptorsHaveRunOut) {
  if (const char* obstacle = test::NoDescriptors::Obstacle()) GTEST_SKIP() << obstacle;
  const Listener listener;
  TestWindow window;
  std::optional<test::NoDescriptors> none;
  auto received = Exchange(listener, [&](int socket) {
    AwaitNonce(socket);
    none.emplace();
    EXPECT_TRUE(Send(socket, window.created.memfd.get(), window.created.submit_event.get(),
                     window.created.complete_event.get(), window.bytes)
                    .ok());
  });
  none.reset();
  EXPECT_EQ(received.status().sys_errno(), EMFILE) << received.status().message();
}

TEST(Handover, TheNonceMayComeInPieces) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  UniqueFd host(ends[0]), client(ends[1]);
  auto nothing = ReadNonce(host.get());
  ASSERT_TRUE(nothing.ok());
  EXPECT_FALSE(nothing->has_value());
  ASSERT_EQ(send(client.get(), kNonce.data(), 10, 0), 10);
  auto part = ReadNonce(host.get());
  ASSERT_TRUE(part.ok());
  EXPECT_FALSE(part->has_value());
  ASSERT_EQ(send(client.get(), kNonce.data() + 10, kNonceBytes - 10, 0), static_cast<ssize_t>(kNonceBytes - 10));
  auto whole = ReadNonce(host.get());
  ASSERT_TRUE(whole.ok() && whole->has_value());
  EXPECT_EQ(**whole, kNonce);
  ASSERT_EQ(send(client.get(), "x", 1, 0), 1);
  client.Reset();
  EXPECT_EQ(ReadNonce(host.get()).status().code(), Code::kConnectionLost);
}

TEST(Handover, AnotherUserIsRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to become another user";
  const Listener listener;
  ASSERT_EQ(chmod(listener.path().c_str(), 0777), 0);
  ASSERT_EQ(chmod(std::filesystem::path(listener.path()).parent_path().c_str(), 0755), 0);
  const pid_t child = fork();
  if (child == 0) {
    if (setresuid(65534, 65534, 65534) != 0) _exit(1);
    // Both directions refuse: this end sees root's socket, the other one a stranger.
    const auto received = Receive(listener.path(), kNonce, Soon());
    _exit(received.status().code() == Code::kTokenInvalid ? 0 : 2);
  }
  const UniqueFd connection = listener.Accept();
  EXPECT_EQ(ReadNonce(connection.get()).status().code(), Code::kTokenInvalid);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace praas::window
