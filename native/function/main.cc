// praas-worker: runs native functions for one process. Started by its host; with --describe, by whoever deploys.

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>

#include "base/build.h"
#include "base/clock.h"
#include "function/faults.h"
#include "function/library.h"
#include "function/runner.h"

namespace {

using praas::DeadlineIn;
using praas::Result;
using praas::Status;
using praas::UniqueFd;
using praas::worker::WorkerRuntime;

constexpr uint64_t kAttachNs = 10'000'000'000;
/// The descriptors of the runtime lie above these. Functions that close or reopen low numbers, as many daemons do, meet
/// nothing of ours there.
constexpr int kFirstOwnFd = 64;
constexpr rlim_t kMostOpenFiles = 65'536;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kLimitsMemory = false;  // their shadow memory counts, and is larger than any limit
#else
constexpr bool kLimitsMemory = true;
#endif
/// With 1,000 as the surest victim: when the machine runs out of memory, the kernel ends a worker and not its host.
constexpr const char* kOutOfMemoryScore = "500";

constexpr const char* kUsage =
    "usage: praas-worker --describe LIBRARY\n"
    "       praas-worker --version\n"
    "\n"
    "Prints the functions of a shared object as JSON. Without arguments it serves the host that has started it and\n"
    "whose descriptor is in PRAAS_WORKER_FD.\n";

int Usage(const std::string& why) {
  std::fprintf(stderr, "praas-worker: %s\n%s", why.c_str(), kUsage);
  return 2;
}

int Describe(const char* path) {
  // What the constructors of the library print is not part of the answer.
  const UniqueFd output(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
  ::dup2(STDERR_FILENO, STDOUT_FILENO);
  const Result<std::string> description = praas::function::DescribeLibrary(path);
  std::fflush(stdout);
  ::dup2(output.get(), STDOUT_FILENO);
  if (!description.ok()) {
    std::fprintf(stderr, "%s\n", description.status().message().c_str());
    return 1;
  }
  std::printf("%s\n", description->c_str());
  return 0;
}

Result<UniqueFd> HostDescriptor() {
  const char* const text = std::getenv("PRAAS_WORKER_FD");
  int fd = -1;
  if (text != nullptr) {
    const char* const end = text + std::strlen(text);
    if (std::from_chars(text, end, fd).ptr != end) fd = -1;
  }
  if (fd < 0 || ::fcntl(fd, F_GETFD) < 0) {
    return Status(praas::Code::kArgumentInvalid,
                  "PRAAS_WORKER_FD names no descriptor; this program is started by a "
                  "process host");
  }
  // Nothing that functions start is meant to have it.
  ::unsetenv("PRAAS_WORKER_FD");  // NOLINT(concurrency-mt-unsafe): there is no other thread yet
  UniqueFd given(fd);
  UniqueFd own(::fcntl(fd, F_DUPFD_CLOEXEC, kFirstOwnFd));
  if (!own) return given;  // so few descriptors are allowed
  given.Reset();
  for (UniqueFd filler(::open("/dev/null", O_RDONLY | O_CLOEXEC)); filler && filler.get() < kFirstOwnFd;) {
    const int next = ::fcntl(filler.get(), F_DUPFD_CLOEXEC, 0);
    if (next < 0) break;
    static_cast<void>(std::exchange(filler, UniqueFd(next)).Release());
  }
  return own;
}

/// The host has raised its limit as far as it goes; code that closes every descriptor there might be would never end.
void LimitOpenFiles() {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur <= kMostOpenFiles) return;
  limit.rlim_cur = kMostOpenFiles;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

void LimitMemory(uint64_t bytes) {
  // RLIMIT_DATA counts private memory and not the shared mappings of the process.
  const rlimit limit{bytes, bytes};
  if (bytes != 0 && kLimitsMemory) ::setrlimit(RLIMIT_DATA, &limit);
  const UniqueFd score(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  if (score) {
    [[maybe_unused]] const ssize_t written = ::write(score.get(), kOutOfMemoryScore, std::strlen(kOutOfMemoryScore));
  }
}

/// Loads the application and says so to the host.
Result<std::vector<praas::function::Function>> Load(WorkerRuntime& runtime) {
  Result<std::string> text = runtime.WaitForLoad(praas::kNoDeadline);
  if (!text.ok()) return text.status();
  Result<std::vector<praas::function::FunctionSpec>> specs = praas::function::ParseLoadText(*text);
  if (!specs.ok()) return specs.status();
  Result<std::vector<praas::function::Function>> functions = praas::function::LoadFunctions(*specs);
  if (!functions.ok()) return functions.status();
  bool raw = false;
  bool only_raw = true;
  for (const praas::function::Function& function : *functions) {
    raw |= function.raw != nullptr;
    only_raw &= function.raw != nullptr;
  }
  if (raw) {
    if (Status status = runtime.Guard(only_raw); !status.ok()) return status;
  }
  if (Status status = runtime.Ready(praas::function::Registration(*functions)); !status.ok()) return status;
  return functions;
}

int Serve() {
  Result<UniqueFd> host = HostDescriptor();
  if (!host.ok()) return Usage(host.status().message());
  // What functions print comes out line by line, and not when the worker ends.
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  Result<std::unique_ptr<WorkerRuntime>> runtime = WorkerRuntime::Attach(std::move(*host), {}, DeadlineIn(kAttachNs));
  if (!runtime.ok()) {
    std::fprintf(stderr, "praas-worker: %s\n", runtime.status().message().c_str());
    return 1;
  }
  LimitOpenFiles();
  LimitMemory((*runtime)->attach().worker_memory_bytes);
  praas::function::InstallFaultHandlers((*runtime)->areas());
  Result<std::vector<praas::function::Function>> functions = Load(**runtime);
  if (!functions.ok()) {
    static_cast<void>((*runtime)->LoadFailed(functions.status().message()));
    // The host ends whoever has told it that.
    std::this_thread::sleep_for(std::chrono::seconds(10));
    return 1;
  }
  praas::function::Runner(**runtime, std::move(*functions)).Serve();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 1) return Serve();
  const std::string_view verb = argv[1];
  if (verb == "--version" && argc == 2) {
    std::printf("praas-worker %s%s\n", PRAAS_VERSION, praas::kBuildNote);
    return 0;
  }
  if (verb == "--describe" && argc == 3) return Describe(argv[2]);
  return Usage(argc == 2 && verb == "--describe" ? "--describe needs a library"
                                                 : "unknown argument " + std::string(verb));
}
