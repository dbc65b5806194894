#pragma once

#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace praas::test {

/// Where the code of a function begins, of a member that is not virtual too.
template <typename Function>
[[nodiscard]] const void* CodeOf(Function function) {
  static_assert(sizeof function >= sizeof(void*));
  const void* code = nullptr;
  std::memcpy(&code, &function, sizeof code);
  return code;
}

/// A child executed instruction by instruction; a system call is one step. Killed and reaped when destroyed. Parent and
/// child share a core meanwhile: across cores each step would wait for a wake-up, which takes three times as long and
/// far longer on some virtual machines.
class Stepped {
 public:
  /// `prepare` runs at full speed, `body` in steps.
  template <typename Prepare, typename Body>
  Stepped(Prepare prepare, Body body) {
    ::sched_getaffinity(0, sizeof(affinity_), &affinity_);
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(::sched_getcpu(), &here);
    ::sched_setaffinity(0, sizeof(here), &here);
    std::fflush(nullptr);  // or the child could print it again
    pid_ = ::fork();
    if (pid_ == 0) {
      prepare();
      if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(77);
      ::raise(SIGSTOP);
      body();
      ::_exit(0);
    }
    Await();
  }
  template <typename Body>
  explicit Stepped(Body body) : Stepped([] {}, body) {}
  Stepped(const Stepped&) = delete;
  Stepped& operator=(const Stepped&) = delete;
  ~Stepped() {
    if (alive_) {
      ::kill(pid_, SIGKILL);
      Await();
    }
    ::sched_setaffinity(0, sizeof(affinity_), &affinity_);
  }

  /// False once the child has ended, and from the start where tracing is not permitted.
  [[nodiscard]] bool alive() const noexcept { return alive_; }
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  /// At full speed to where the child stops itself (SIGSTOP), or to its end.
  void Run() {
    if (alive_ && ::ptrace(PTRACE_CONT, pid_, nullptr, nullptr) == 0) Await();
  }
  /// At full speed to the first call of the function that begins at `code`, or to its end. Signals, which stop whoever
  /// is traced, are withheld.
  void RunTo(const void* code) {
    const uint32_t was = Exchange(code, kUndefined);
    do {
      Run();
    } while (alive_ && !arrived_);
    (void)Exchange(code, was);
    arrived_ = false;
  }
  /// At full speed while the caller does something else, until Halt. Of one with other threads these go on.
  void Go() {
    if (alive_) (void)::ptrace(PTRACE_CONT, pid_, nullptr, nullptr);
  }
  void Halt() {
    // To this thread alone: what the others took would stop all of them.
    if (alive_ && ::syscall(SYS_tgkill, pid_, pid_, SIGSTOP) == 0) Await();
  }
  /// From now on, whichever way it goes on, it stops at the function that begins at `code`.
  void StopAt(const void* code) { (void)Exchange(code, kUndefined); }
  [[nodiscard]] bool arrived() const noexcept { return arrived_; }  // there
  /// At full speed into the next system call, or out of it.
  void RunToSystemCall() {
    if (alive_ && ::ptrace(PTRACE_SYSCALL, pid_, nullptr, nullptr) == 0) Await();
  }
  void Step() {
    if (alive_ && ::ptrace(PTRACE_SINGLESTEP, pid_, nullptr, nullptr) == 0) Await();
  }

 private:
#if defined(__aarch64__)
  static constexpr uint32_t kUndefined = 0;  // UDF
#else
  static constexpr uint32_t kUndefined = 0x0b0f'0b0f;  // UD2, twice
#endif
  /// The code before. An undefined instruction stops the child before it has done anything, on all machines alike.
  uint32_t Exchange(const void* code, uint32_t instruction) {
    if (!alive_) return 0;
    auto* const at = const_cast<void*>(code);
    const auto was = static_cast<uint64_t>(::ptrace(PTRACE_PEEKTEXT, pid_, at, nullptr));
    const uint64_t word = (was & ~uint64_t{UINT32_MAX}) | instruction;
    ::ptrace(PTRACE_POKETEXT, pid_, at, reinterpret_cast<void*>(word));
    return static_cast<uint32_t>(was);
  }
  void Await() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    alive_ = WIFSTOPPED(status);
    arrived_ = alive_ && WSTOPSIG(status) == SIGILL;
  }

  cpu_set_t affinity_{};
  pid_t pid_ = -1;
  bool alive_ = true;
  bool arrived_ = false;
};

}  // namespace praas::test
