#include "host/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <system_error>

extern char** environ;

namespace praas::host {
namespace {

/// execvp searches after fork, where only async-signal-safe functions are allowed: search before.
std::string FindProgram(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const char* path = std::getenv("PATH");
  std::string_view rest = path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin";
  while (true) {
    const size_t colon = rest.find(':');
    const std::string_view folder = rest.substr(0, colon);
    std::string candidate = (folder.empty() ? std::string(".") : std::string(folder)) + "/" + name;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    if (colon == std::string_view::npos) return name;
    rest.remove_prefix(colon + 1);
  }
}

std::vector<std::string> WorkerEnvironment(int control_fd) {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text(*variable);
    // Parsing extra CA certificates costs every Node that starts 75 ms; functions that need them set them themselves.
    if (text.starts_with("NODE_EXTRA_CA_CERTS=") || text.starts_with("PRAAS_WORKER_FD=")) continue;
    variables.emplace_back(text);
  }
  variables.push_back("PRAAS_WORKER_FD=" + std::to_string(control_fd));
  return variables;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

struct Pipe {
  UniqueFd read, write;
};

Result<Pipe> MakePipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return Status::System("pipe2");
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

struct ChildSetup {
  const char* program;
  char** arguments;
  char** environment;
  int control_fd, null_fd, output_fd, error_fd, report_fd;
  pid_t parent;
};

/// Between vfork and exec: system calls only, and nothing but locals written, for all memory is the parent's.
[[noreturn]] void RunChild(const ChildSetup& setup) noexcept {
  const auto fail = [&] {
    const int error = errno;
    [[maybe_unused]] const ssize_t written = ::write(setup.report_fd, &error, sizeof error);
    _exit(127);
  };
  ::setpgid(0, 0);  // Ctrl-C in the user's terminal is for the agent, which then drains
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail();
  if (::getppid() != setup.parent) _exit(127);  // the host ended before prctl took effect
  if (::dup2(setup.null_fd, STDIN_FILENO) < 0 || ::dup2(setup.output_fd, STDOUT_FILENO) < 0 ||
      ::dup2(setup.error_fd, STDERR_FILENO) < 0) {
    fail();
  }
  if (::fcntl(setup.control_fd, F_SETFD, 0) != 0) fail();
  // Ignored signals stay ignored across exec; a worker expects the defaults.
  struct sigaction by_default {};
  by_default.sa_handler = SIG_DFL;
  for (const int number : {SIGPIPE, SIGINT, SIGTERM, SIGHUP}) ::sigaction(number, &by_default, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
  ::execve(setup.program, setup.arguments, setup.environment);
  fail();
  _exit(127);
}

}  // namespace

Result<ChildProcess> Spawn(const std::vector<std::string>& command, int control_fd) {
  if (command.empty()) return Status(Code::kWorkerStart, "no worker command");
  const std::string program = FindProgram(command[0]);
  std::vector<std::string> arguments = command;
  std::vector<std::string> environment = WorkerEnvironment(control_fd);
  const std::vector<char*> argument_pointers = Pointers(arguments);
  const std::vector<char*> environment_pointers = Pointers(environment);

  UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!null) return Status::System("open(/dev/null)");
  Result<Pipe> output = MakePipe();
  if (!output) return output.status();
  Result<Pipe> error = MakePipe();
  if (!error) return error.status();
  Result<Pipe> report = MakePipe();
  if (!report) return report.status();
  for (const int fd : {output->read.get(), error->read.get()}) {
    if (::fcntl(fd, F_SETFL, O_NONBLOCK) != 0) return Status::System("fcntl(O_NONBLOCK)");
  }

  const ChildSetup setup{program.c_str(),
                         const_cast<char**>(argument_pointers.data()),
                         const_cast<char**>(environment_pointers.data()),
                         control_fd,
                         null.get(),
                         output->write.get(),
                         error->write.get(),
                         report->write.get(),
                         ::getpid()};
  // vfork and not fork, which copies the page tables and makes the parent fault on every page it writes to afterwards:
  // a third of the time a native worker takes to start. No signal may run a handler in the child, whose memory is ours.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = ::vfork();
  if (pid == 0) RunChild(setup);
  const int fork_errno = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return Status::System("vfork", fork_errno);

  report->write.Reset();
  int child_errno = 0;
  ssize_t got = 0;
  do {
    got = ::read(report->read.get(), &child_errno, sizeof child_errno);  // ends at exec: the pipe is close-on-exec
  } while (got < 0 && errno == EINTR);
  if (got != 0) {
    ::waitpid(pid, nullptr, 0);
    return Status(Code::kWorkerStart,
                  "cannot start worker \"" + command[0] + "\": " + std::generic_category().message(child_errno),
                  child_errno);
  }

  ChildProcess child;
  const std::optional<ProcessId> id = ProcessId::Of(pid);  // there even if it has ended: nobody has reaped it yet
  Result<std::optional<Pidfd>> pidfd = id ? Pidfd::Open(*id) : Result<std::optional<Pidfd>>(std::optional<Pidfd>());
  if (!pidfd.ok() || !pidfd->has_value()) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return pidfd.ok() ? Status(Code::kWorkerStart, "cannot read /proc of worker " + std::to_string(pid))
                      : pidfd.status();
  }
  child.pidfd = std::move(*pidfd);
  child.standard_output = std::move(output->read);
  child.standard_error = std::move(error->read);
  return child;
}

}  // namespace praas::host
