#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "function/faults.h"
#include "function/library.h"
#include "function/spec.h"
#include "praas/praas.h"
#include "worker/runtime.h"

namespace praas::function {

using RawFunction = uint32_t (*)(void* args, uint32_t size, void* res);

/// A function that can be called.
struct Function {
  FunctionSpec spec;
  praas_function run = nullptr;     // kC
  RawFunction raw = nullptr;        // kRaw
  void* symbol = nullptr;           // kAdapter
  praas_adapter adapter = nullptr;  // kAdapter
};

/// Loads the libraries of all functions and finds their symbols. kWorkerStart names library and symbol.
[[nodiscard]] Result<std::vector<Function>> LoadFunctions(const std::vector<FunctionSpec>& specs);
/// What the host is told of them.
[[nodiscard]] std::vector<worker::FunctionInfo> Registration(const std::vector<Function>& functions);

/// Runs functions for a worker: takes one call after the other on the thread that calls Serve. A function that waits
/// for a call of its own does not keep its worker from other nested calls: they run on top of it, on the same stack.
class Runner {
 public:
  Runner(worker::WorkerRuntime& runtime, std::vector<Function> functions)
      : runtime_(runtime), functions_(std::move(functions)) {}

  /// Until the host lets this worker go.
  void Serve();

  /// Waits for a nested call, running others meanwhile. The reply is valid until FreeNested.
  [[nodiscard]] Result<worker::NestedReply> Await(uint64_t call, uint64_t deadline_ns);
  /// Gives up what Await has or has not returned.
  void Release(uint64_t call);
  /// Lets time pass until something has changed or `until_ns`; for waits that are no calls.
  void Pause(uint64_t until_ns);

  [[nodiscard]] worker::WorkerRuntime& runtime() noexcept { return runtime_; }

 private:
  void Execute(const worker::Invocation& invocation);
  void ExecuteRaw(const Function& function, const worker::Invocation& invocation);
  void ExecuteInContext(const Function& function, const worker::Invocation& invocation);
  [[nodiscard]] FaultScope::Running ScopeOf(const Function& function,
                                            const worker::Invocation& invocation) const noexcept;
  void Throw(const worker::Invocation& invocation, std::string_view message, std::string_view code);
  [[nodiscard]] Result<worker::NestedReply> ServeUntil(uint64_t call, uint64_t deadline_ns);
  void CollectReplies();
  void LookAround();

  worker::WorkerRuntime& runtime_;
  const std::vector<Function> functions_;
  std::unordered_map<uint64_t, worker::NestedReply> replies_;  // that came and were not asked for yet
  uint32_t nesting_ = 0;
};

}  // namespace praas::function
