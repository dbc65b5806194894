// Any bytes and descriptors in place of a window, from whoever listens at the socket a client was told of: it takes a
// window that is as announced, or says what is wrong, and keeps no descriptor besides. The first nonce a host reads
// from any bytes.

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>
#include <thread>

#include "base/clock.h"
#include "shm/memfd.h"
#include "support.h"
#include "window/handover.h"
#include "window/layout.h"

namespace {

using praas::UniqueFd;

constexpr uint64_t kSecondNs = 1'000'000'000;

/// What a hostile host might pass on.
struct Offered {
  Offered() {
    using praas::shm::CreateMemfd;
    using praas::shm::Sealing;
    auto window = CreateMemfd("praas-fuzz", praas::window::kMinWindowBytes, Sealing::kFixed);
    auto small = CreateMemfd("praas-fuzz", 4096, Sealing::kFixed);
    praas::fuzz::Check(window.ok() && small.ok());
    fds[0] = *std::move(window);
    fds[1] = *std::move(small);
    fds[2].Reset(::memfd_create("praas-fuzz", MFD_CLOEXEC));  // not sealed
    fds[3].Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    fds[4].Reset(::eventfd(0, EFD_CLOEXEC));
    fds[5].Reset(::open("/dev/null", O_RDWR | O_CLOEXEC));
    praas::fuzz::Check(::ftruncate(fds[2].get(), praas::window::kMinWindowBytes) == 0);
  }
  std::array<UniqueFd, 6> fds;
};

class Listener {
 public:
  Listener() : path_("/tmp/praas-fuzz-handover-" + std::to_string(::getpid())) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.data(), path_.size());
    ::unlink(path_.c_str());
    socket_.Reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    praas::fuzz::Check(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    praas::fuzz::Check(::listen(socket_.get(), 1) == 0);
  }
  ~Listener() { ::unlink(path_.c_str()); }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] UniqueFd Accept() const { return UniqueFd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC)); }

 private:
  std::string path_;
  UniqueFd socket_;
};

/// Messages until the input ends: how many descriptors, which, how many bytes, the bytes.
void Play(int socket, const Offered& offered, praas::fuzz::Input input) {
  while (!input.empty()) {
    const size_t count = input.Take<uint8_t>() % 9;
    std::array<int, 8> fds{};
    for (size_t i = 0; i < count; ++i) fds[i] = offered.fds[input.Take<uint8_t>() % offered.fds.size()].get();
    const auto bytes = input.Take(1 + input.Take<uint8_t>() % 32);
    if (bytes.empty()) return;
    iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof fds)> control{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (count > 0) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(count * sizeof(int));
      cmsghdr* const rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(count * sizeof(int));
      std::memcpy(CMSG_DATA(rights), fds.data(), count * sizeof(int));
    }
    if (::sendmsg(socket, &message, MSG_NOSIGNAL) < 0) return;
  }
}

/// The next number the system would give.
int NextDescriptor() { return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)).get(); }

void ReadAnyNonce(const uint8_t* data, size_t size) {
  int ends[2];
  praas::fuzz::Check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  const UniqueFd host(ends[0]);
  UniqueFd client(ends[1]);
  const size_t bytes = std::min<size_t>(size, 4096);
  praas::fuzz::Check(::send(client.get(), data, bytes, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes));
  const auto nonce = praas::window::ReadNonce(host.get());
  praas::fuzz::Check(nonce.ok() && nonce->has_value() == (bytes >= praas::window::kNonceBytes));
  if (nonce->has_value()) praas::fuzz::Check(std::memcmp((*nonce)->data(), data, praas::window::kNonceBytes) == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Offered offered;
  static const Listener listener;
  if (size > 1024) return 0;
  if (size > 0) ReadAnyNonce(data, size);
  const int before = NextDescriptor();
  {
    std::thread host([&] {
      const UniqueFd socket = listener.Accept();
      char nonce[praas::window::kNonceBytes];
      if (::recv(socket.get(), nonce, sizeof nonce, MSG_WAITALL) == sizeof nonce)
        Play(socket.get(), offered, {data, size});
    });
    const auto received = praas::window::Receive(listener.path(), std::string(praas::window::kNonceBytes, 'n'),
                                                 praas::DeadlineIn(10 * kSecondNs));
    host.join();
    if (received.ok()) {
      struct stat found {};
      praas::fuzz::Check(::fstat(received->memfd.get(), &found) == 0);
      praas::fuzz::Check(static_cast<uint64_t>(found.st_size) == received->window_bytes);
      praas::fuzz::Check((::fcntl(received->memfd.get(), F_GET_SEALS) & F_SEAL_SHRINK) != 0);
    } else {
      praas::fuzz::Check(!received.status().message().empty());
    }
  }
  praas::fuzz::Check(NextDescriptor() == before);
  return 0;
}
