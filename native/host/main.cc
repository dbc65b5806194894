// praas-host: serves one process. Started by an agent, which says over --control-fd what to serve.

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/build.h"
#include "host/host.h"

namespace {

praas::host::Host* running = nullptr;  // for the signal handler only

void OnTerminate(int) {
  if (running != nullptr) running->RequestStop();
}

constexpr const char* kUsage =
    "usage: praas-host --control-fd N [--runtime-dir DIR] [--native-worker PROGRAM] -- WORKER [ARGUMENT...]\n"
    "       praas-host --version\n"
    "\n"
    "Serves one process. N is a connected stream socket to the agent; see native/protocol/agent_line.h.\n";

int Usage(const std::string& why) {
  std::fprintf(stderr, "praas-host: %s\n%s", why.c_str(), kUsage);
  return 2;
}

/// A closed standard stream would give its number to the next descriptor, which workers would then inherit as their
/// stdin.
void OpenStandardStreams() {
  int fd = 0;
  do {
    fd = ::open("/dev/null", O_RDWR);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd > STDERR_FILENO) ::close(fd);
}

/// Every worker takes five descriptors and every client one or three; the soft limit is often 1,024.
void RaiseOpenFiles() {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

void HandleSignals() {
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, nullptr);
  ::sigaction(SIGINT, &ignore, nullptr);  // of the terminal's user, for the agent
  ::sigaction(SIGHUP, &ignore, nullptr);
  struct sigaction terminate {};
  terminate.sa_handler = OnTerminate;
  terminate.sa_flags = SA_RESTART;
  ::sigaction(SIGTERM, &terminate, nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  int control_fd = -1;
  std::string runtime_dir;
  std::string native_worker;
  std::vector<std::string> worker;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--version") {
      std::printf("praas-host %s%s\n", PRAAS_VERSION, praas::kBuildNote);
      return 0;
    }
    if (argument == "--") {
      worker.assign(argv + i + 1, argv + argc);
      break;
    }
    if (argument != "--control-fd" && argument != "--runtime-dir" && argument != "--native-worker")
      return Usage("unknown argument " + std::string(argument));
    if (i + 1 >= argc) return Usage(std::string(argument) + " needs a value");
    const std::string_view value = argv[++i];
    if (argument == "--runtime-dir") {
      runtime_dir = value;
      continue;
    }
    if (argument == "--native-worker") {
      native_worker = value;
      continue;
    }
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), control_fd);
    if (error != std::errc() || end != value.data() + value.size() || control_fd < 0) {
      return Usage("--control-fd must be a descriptor, got \"" + std::string(value) + "\"");
    }
  }
  if (control_fd < 0) return Usage("--control-fd is missing");
  if (worker.empty()) return Usage("the worker command is missing");
  if (::fcntl(control_fd, F_SETFD, FD_CLOEXEC) != 0) return Usage("--control-fd names no open descriptor");
  if (!runtime_dir.empty() && ::chdir(runtime_dir.c_str()) != 0) {
    std::fprintf(stderr, "praas-host: cannot enter %s: %s\n", runtime_dir.c_str(),
                 std::generic_category().message(errno).c_str());
    return 1;
  }
  OpenStandardStreams();
  RaiseOpenFiles();
  HandleSignals();

  praas::host::HostOptions options;
  options.worker_commands[static_cast<size_t>(praas::dispatch::Lane::kNode)] = std::move(worker);
  if (!native_worker.empty()) {
    options.worker_commands[static_cast<size_t>(praas::dispatch::Lane::kNative)] = {native_worker};
  }
  options.control.Reset(control_fd);
  auto host = praas::host::Host::Create(std::move(options));
  if (!host.ok()) {
    std::fprintf(stderr, "praas-host: %s\n", host.status().message().c_str());
    return 1;
  }
  running = host->get();
  // On the main thread, which lives as long as the host: workers get a death signal of the thread that starts them.
  running->Run();
  running = nullptr;
  return 0;
}
