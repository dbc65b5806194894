#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "worker/result_areas.h"

/// What a worker says about the end a function has brought upon it. Signals cannot be told anything, so this is the one
/// place with global state: one owner thread runs functions, and these are about the one it runs.
namespace praas::function {

/// Whether a function further down the stack has made pages of these bytes its own, so that what others wrote there
/// since cannot be seen.
[[nodiscard]] bool OverlapsPrivateInput(std::span<const std::byte> bytes) noexcept;

/// What is running, for the signal handlers. Restored by its destructor: calls made within calls nest.
class FaultScope {
 public:
  struct Running {
    const char* function = nullptr;
    /// Input that is mapped read-only, from `backing`, and that the function may write to all the same: the pages it
    /// touches become its own.
    std::span<const std::byte> input{};
    int backing = -1;
    const std::byte* mapping = nullptr;  // where `backing` is mapped
    uint64_t max_output_bytes = 0;       // 0: not a raw function
  };
  explicit FaultScope(const Running& running) noexcept;
  ~FaultScope();
  /// Some of the input is the function's own by now: what others see of it is as it was.
  [[nodiscard]] bool input_changed() const noexcept;
  FaultScope(const FaultScope&) = delete;
  FaultScope& operator=(const FaultScope&) = delete;

 private:
  Running before_;
  uintptr_t private_begin_;  // of the scope around this one
  uintptr_t private_end_;
  const FaultScope* outer_;

  friend bool OverlapsPrivateInput(std::span<const std::byte> bytes) noexcept;
};

/// Handlers for SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT on a stack of their own, and for exit(3): they say to
/// stderr, whose tail the caller is told, what happened in which function, and let the process end as it would have.
/// `areas` outlives the process. Also notes forks: see InForkedChild.
void InstallFaultHandlers(const worker::ResultAreas& areas);

/// This is a copy of the worker that a function has forked: it must not touch what is shared.
[[nodiscard]] bool InForkedChild() noexcept;

/// Ends the worker after a function has done what cannot be undone; `text` goes to stderr.
[[noreturn]] void EndWorker(const char* text) noexcept;

}  // namespace praas::function
