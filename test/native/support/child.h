#pragma once

#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

namespace praas::test {

/// A forked child. Killed and reaped when destroyed. The body ends the child with _exit, so that no test of the parent
/// goes on in it.
class Child {
 public:
  template <typename Body>
  static Child Fork(Body body) {
    std::fflush(nullptr);  // or the child could print it again
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(body());
    return Child(pid);
  }
  Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
  Child& operator=(Child&&) = delete;
  ~Child() {
    if (pid_ > 0) Kill();
  }

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  void Signal(int signal) const { ::kill(pid_, signal); }

  /// Exit status, or 128 + signal.
  int Wait() {
    int status = 0;
    while (::waitpid(std::exchange(pid_, -1), &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  int Kill() {
    Signal(SIGKILL);
    return Wait();
  }
  [[nodiscard]] bool Running() const {
    siginfo_t info{};
    return ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
  }
  /// Returns once the child has been stopped by a signal.
  void WaitStopped() const {
    int status = 0;
    while (::waitpid(pid_, &status, WUNTRACED) < 0 && errno == EINTR) {
    }
  }

 private:
  explicit Child(pid_t pid) noexcept : pid_(pid) {}
  pid_t pid_;
};

/// One byte from child to parent: "I am there".
class Signpost {
 public:
  Signpost() {
    if (::pipe(ends_) != 0) ::_exit(99);
  }
  ~Signpost() {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  Signpost(const Signpost&) = delete;
  Signpost& operator=(const Signpost&) = delete;
  void Set() const {
    while (::write(ends_[1], "x", 1) < 0 && errno == EINTR) {
    }
  }
  void Await() const {
    char byte = 0;
    while (::read(ends_[0], &byte, 1) < 0 && errno == EINTR) {
    }
  }

 private:
  int ends_[2];
};

}  // namespace praas::test
