// libFuzzer for the targets in TypeScript: gives each input to an OS process of Node, and libFuzzer what was reached
// there.
//
// Called NAME_fuzz it runs NAME_fuzz.mjs beside itself, which scripts/instrument.mjs has made. All of libFuzzer's
// options, minimising and merging are as for any other target. A target that throws ends its Node, and this with it.

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

extern "C" {
void __sanitizer_cov_8bit_counters_init(uint8_t* begin, uint8_t* end);
void __sanitizer_cov_pcs_init(const uintptr_t* begin, const uintptr_t* end);
}

namespace {

/// Where the program finds its end of the socket: test/fuzz/node_loop.ts.
constexpr int kProgramFd = 3;
/// More memory than that in Node is a finding.
constexpr char kHeapLimit[] = "--max-old-space-size=1024";

/// A place of the program, as a number of it; flags are none.
struct Place {
  uintptr_t address;
  uintptr_t flags;
};

int program_fd = -1;
// libFuzzer keeps pointers to both.
std::vector<uint8_t> counters;
std::vector<Place> places;

[[noreturn]] void Fail(const char* what) {
  std::perror(what);
  std::abort();
}

/// False when the program has ended.
bool Receive(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t received = read(program_fd, bytes.data(), bytes.size());
    if (received < 0 && errno == EINTR) continue;  // libFuzzer's timer
    if (received <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(received));
  }
  return true;
}

bool Send(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(program_fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(sent));
  }
  return true;
}

template <typename T>
bool Receive(T* value) {
  return Receive(std::as_writable_bytes(std::span(value, 1)));
}

void Start(const std::string& program) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) Fail("socketpair");
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) Fail("fork");
  if (child == 0) {
    // Also when libFuzzer ends this because an input takes too long.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    if (ends[1] == kProgramFd) {
      fcntl(kProgramFd, F_SETFD, 0);
    } else {
      dup2(ends[1], kProgramFd);
    }
    execlp("node", "node", "--enable-source-maps", kHeapLimit, program.c_str(), nullptr);
    std::perror("node");
    _exit(1);
  }
  close(ends[1]);
  program_fd = ends[0];
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  Start(std::string((*argv)[0]) + ".mjs");
  uint32_t count = 0;
  if (!Receive(&count)) std::abort();
  counters.resize(count);
  for (uint32_t at = 0; at < count; ++at) places.push_back({.address = at + 1, .flags = 0});
  __sanitizer_cov_8bit_counters_init(counters.data(), counters.data() + count);
  __sanitizer_cov_pcs_init(&places.data()->address, &(places.data() + count)->address);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto length = static_cast<uint32_t>(size);
  if (!Send(std::as_bytes(std::span(&length, 1))) || !Send(std::as_bytes(std::span(data, size)))) std::abort();
  // What was reached; Node has said on stderr why there is no answer.
  if (!Receive(std::as_writable_bytes(std::span(counters)))) std::abort();
  return 0;
}
