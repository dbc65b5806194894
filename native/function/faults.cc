#include "function/faults.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace praas::function {
namespace {

constexpr size_t kPage = worker::ResultAreas::kPage;
constexpr size_t kSignalStackBytes = 64 * 1024;
/// A fault this far below the stack is an overflow of it: large frames skip the guard page.
constexpr uintptr_t kStackSlack = 16u << 20;

FaultScope::Running running;
/// Pages of the running function's input that it has written to.
uintptr_t private_begin = 0;
uintptr_t private_end = 0;
const FaultScope* innermost = nullptr;
const worker::ResultAreas* areas = nullptr;
uintptr_t stack_begin = 0;
std::atomic<bool> forked{false};
pid_t worker = 0;

/// snprintf allocates nothing for these formats, and a handler on its own stack has room for it.
__attribute__((format(printf, 1, 2))) void Say(const char* format, ...) noexcept {
  char line[512];
  std::va_list arguments;
  va_start(arguments, format);
  const int length = std::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  const auto bytes = static_cast<size_t>(std::clamp<int>(length, 0, sizeof line - 1));
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line, bytes);
}

const char* FunctionName() noexcept { return running.function != nullptr ? running.function : "(none)"; }

/// A function writes to its input, which is mapped read-only: this page becomes a copy that only this call sees.
bool MakeInputPagePrivate(uintptr_t address) noexcept {
  if (running.backing < 0 || running.input.empty()) return false;
  const auto input = reinterpret_cast<uintptr_t>(running.input.data());
  const uintptr_t page = address / kPage * kPage;
  if (page + kPage <= input || page >= input + running.input.size()) return false;
  const auto offset = static_cast<off_t>(page - reinterpret_cast<uintptr_t>(running.mapping));
  if (::mmap(reinterpret_cast<void*>(page), kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, running.backing,
             offset) == MAP_FAILED) {
    return false;
  }
  private_begin = private_begin == 0 ? page : std::min(private_begin, page);
  private_end = std::max(private_end, page + kPage);
  return true;
}

void ShareInputPages() noexcept {
  if (private_begin == 0) return;
  const auto offset = static_cast<off_t>(private_begin - reinterpret_cast<uintptr_t>(running.mapping));
  void* const begin = reinterpret_cast<void*>(private_begin);
  if (::mmap(begin, private_end - private_begin, PROT_READ, MAP_SHARED | MAP_FIXED, running.backing, offset) ==
      MAP_FAILED) {
    EndWorker("its input could not be mapped again");
  }
  ::madvise(begin, private_end - private_begin, MADV_DONTFORK);
  private_begin = private_end = 0;
}

void DescribeBadAddress(const siginfo_t& info) noexcept {
  const auto address = reinterpret_cast<uintptr_t>(info.si_addr);
  if (running.max_output_bytes != 0 && areas != nullptr && areas->InGap(info.si_addr)) {
    Say("praas: function \"%s\" wrote outside its result area, which has maxOutput = %llu bytes\n", FunctionName(),
        static_cast<unsigned long long>(running.max_output_bytes));
  } else if (stack_begin != 0 && address < stack_begin && address + kStackSlack >= stack_begin) {
    Say("praas: function \"%s\" has overflowed its stack\n", FunctionName());
  } else {
    Say("praas: function \"%s\" accessed invalid memory at %p\n", FunctionName(), info.si_addr);
  }
}

void OnFault(int number, siginfo_t* info, void* context) {
  if ((number == SIGSEGV || number == SIGBUS) && info->si_code > 0) {
    if (MakeInputPagePrivate(reinterpret_cast<uintptr_t>(info->si_addr))) return;
#if defined(__x86_64__)
    // Where the stack ends is known when it has grown as far as it may: the stack pointer is then below what is mapped.
    const auto* const machine = static_cast<const ucontext_t*>(context);
    const auto pointer = static_cast<uintptr_t>(machine->uc_mcontext.gregs[REG_RSP]);
    const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
    if (stack_begin != 0 && address + kPage >= pointer && address < pointer + kPage && pointer < stack_begin + kPage) {
      stack_begin = std::max(stack_begin, address + 1);
    }
#else
    static_cast<void>(context);
#endif
    DescribeBadAddress(*info);
  } else {
    Say("praas: function \"%s\" was ended by signal %d (%s)\n", FunctionName(), number, ::sigabbrev_np(number));
  }
  // By default from here on: an instruction that faults faults again and ends the process, everything else is repeated.
  ::signal(number, SIG_DFL);
  if (info->si_code <= 0 || number == SIGABRT) ::raise(number);
}

void OnExit() {
  if (!forked.load() && running.function != nullptr) Say("praas: function \"%s\" called exit()\n", FunctionName());
}

/// A child of the worker ends with it, also where it has left its process group.
void OnForkedChild() {
  forked.store(true);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != worker) ::_exit(0);
}

void FindStack() noexcept {
  pthread_attr_t attributes;
  if (::pthread_getattr_np(::pthread_self(), &attributes) != 0) return;
  void* begin = nullptr;
  size_t bytes = 0;
  if (::pthread_attr_getstack(&attributes, &begin, &bytes) == 0) stack_begin = reinterpret_cast<uintptr_t>(begin);
  ::pthread_attr_destroy(&attributes);
}

}  // namespace

FaultScope::FaultScope(const Running& now) noexcept
    : before_(std::exchange(running, now)),
      private_begin_(std::exchange(private_begin, 0)),
      private_end_(std::exchange(private_end, 0)),
      outer_(std::exchange(innermost, this)) {}

FaultScope::~FaultScope() {
  ShareInputPages();
  running = before_;
  private_begin = private_begin_;
  private_end = private_end_;
  innermost = outer_;
}

bool OverlapsPrivateInput(std::span<const std::byte> bytes) noexcept {
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data());
  const auto overlaps = [&](uintptr_t from, uintptr_t to) { return from < begin + bytes.size() && begin < to; };
  if (overlaps(private_begin, private_end)) return true;
  for (const FaultScope* scope = innermost; scope != nullptr; scope = scope->outer_) {
    if (overlaps(scope->private_begin_, scope->private_end_)) return true;
  }
  return false;
}

bool FaultScope::input_changed() const noexcept { return private_begin != 0; }

bool InForkedChild() noexcept { return forked.load(std::memory_order_relaxed); }

void EndWorker(const char* text) noexcept {
  Say("praas: function \"%s\": %s\n", FunctionName(), text);
  ::signal(SIGABRT, SIG_DFL);
  ::abort();
}

void InstallFaultHandlers(const worker::ResultAreas& result_areas) {
  areas = &result_areas;
  FindStack();
  stack_t stack{};
  stack.ss_size = kSignalStackBytes;
  stack.ss_sp = ::mmap(nullptr, kSignalStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (stack.ss_sp != MAP_FAILED) ::sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_sigaction = OnFault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) ::sigaction(number, &action, nullptr);
  std::atexit(OnExit);
  worker = ::getpid();
  ::pthread_atfork(nullptr, nullptr, OnForkedChild);
}

}  // namespace praas::function
