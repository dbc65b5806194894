#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "praas/praas.h"
#include "worker/runtime.h"

namespace praas::function {

class Runner;
struct Function;

}  // namespace praas::function

/// One invocation of a function that is called with a context: what it holds, and what it has said of its result. Lives
/// on the stack of Runner::Execute. The functions of praas.h are in api_*.cc.
struct praas_context {
  praas_context(praas::function::Runner& runner_, const praas::function::Function& function_,
                const praas::worker::Invocation& invocation_) noexcept
      : runner(runner_), function(function_), invocation(invocation_) {}
  /// Gives back everything it holds.
  ~praas_context();
  praas_context(const praas_context&) = delete;
  praas_context& operator=(const praas_context&) = delete;

  [[nodiscard]] praas::worker::WorkerRuntime& runtime() const noexcept;

  /// PRAAS_OK, or the status as its number; its words are kept for praas_error_message.
  int Note(const praas::Status& status);
  /// Moves a result that lies in the input to output memory.
  int CopyInputResult();
  /// When a wait of `timeout_ns` has to end: at the deadline of the invocation at the latest.
  [[nodiscard]] uint64_t DeadlineOf(uint64_t timeout_ns) const noexcept;

  praas::function::Runner& runner;
  const praas::function::Function& function;
  const praas::worker::Invocation& invocation;

  std::span<std::byte> output;           // of the last praas_output
  std::span<const std::byte> result;     // what is returned: part of the output or of the input
  std::unique_ptr<std::string> failure;  // of praas_fail
  std::unique_ptr<std::string> error;    // of the last call that failed
  int error_status = PRAAS_OK;           // likewise

  struct Freed {
    void operator()(void* memory) const noexcept { std::free(memory); }
  };
  std::vector<std::unique_ptr<void, Freed>> buffers;
  std::vector<std::vector<std::byte>> messages;
  std::vector<uint32_t> pins;
  std::vector<uint32_t> locks;
  std::vector<uint64_t> calls;  // made and not released
};
