#include "function/runner.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/clock.h"
#include "base/json_writer.h"
#include "dispatch/call_entry.h"
#include "function/context.h"
#include "function/faults.h"
#include "shm/memfd.h"

namespace praas::function {
namespace {

using dispatch::Takes;

/// Calls that run on top of each other on one stack of usually 8 MiB; as deep as calls may be nested at all.
constexpr uint32_t kMaxNesting = 64;
/// How long an idle worker sleeps at most; everything that concerns it wakes it.
constexpr uint64_t kIdleNs = 60'000'000'000;
/// What errors of functions are cut to; longer ones are rarely read.
constexpr size_t kMaxMessageBytes = 32 * 1024;

/// Bytes around the result that no function may change: between its end and the inaccessible pages, where an overrun of
/// less than 16 bytes would go unnoticed, and before its begin if that is within a page.
class Canary {
 public:
  explicit Canary(std::span<std::byte> output) noexcept {
    const auto end = reinterpret_cast<uintptr_t>(output.data()) + output.size();
    after_ = {output.data() + output.size(), (16 - end % 16) % 16};
    const auto begin = reinterpret_cast<uintptr_t>(output.data());
    const size_t before = std::min<size_t>(begin % worker::ResultAreas::kPage, kBytes.size());
    before_ = {output.data() - before, before};
    std::memcpy(after_.data(), kBytes.data(), after_.size());
    std::memcpy(before_.data(), kBytes.data(), before_.size());
  }
  [[nodiscard]] bool intact_after() const noexcept {
    return std::memcmp(after_.data(), kBytes.data(), after_.size()) == 0;
  }
  [[nodiscard]] bool intact_before() const noexcept {
    return std::memcmp(before_.data(), kBytes.data(), before_.size()) == 0;
  }

 private:
  static constexpr std::array<unsigned char, 16> kBytes = {0xc3, 0x5a, 0x96, 0x0f, 0xe1, 0x78, 0x2d, 0xb4,
                                                           0x1e, 0x87, 0xd2, 0x4b, 0x69, 0xf0, 0x3c, 0xa5};
  std::span<std::byte> after_;
  std::span<std::byte> before_;
};

/// What the caller sees as the code of a failure: the name of a status that was passed on, else the number.
std::string CodeOf(int outcome) {
  if (outcome == PRAAS_FAILED) return {};
  const std::string_view name = praas_status_name(outcome);
  return name == CodeName(Code::kInternal) ? std::to_string(outcome) : std::string(name);
}

}  // namespace

Result<std::vector<Function>> LoadFunctions(const std::vector<FunctionSpec>& specs) {
  std::unordered_map<std::string, Library> libraries;
  std::vector<Function> functions;
  for (const FunctionSpec& spec : specs) {
    auto known = libraries.find(spec.path);
    if (known == libraries.end()) {
      Result<Library> library = Library::Open(spec.path);
      if (!library.ok()) return library.status();
      known = libraries.emplace(spec.path, std::move(*library)).first;
    }
    const Library& library = known->second;
    const auto missing = [&](const std::string& symbol) {
      return Status(Code::kWorkerStart, "function \"" + spec.name + "\": " + spec.path + " defines no " + symbol);
    };
    Function function{.spec = spec};
    switch (spec.abi) {
      case Abi::kC: {
        const std::string symbol = "praas_function_" + spec.symbol;
        const auto* const info = static_cast<const praas_function_info*>(library.Find(symbol));
        if (info == nullptr) return missing(symbol);
        if (info->api_version != PRAAS_API_VERSION) {
          return Status(Code::kWorkerStart, symbol + " was built against another version of praas.h");
        }
        function.run = info->run;
        break;
      }
      case Abi::kRaw:
        function.raw = reinterpret_cast<RawFunction>(library.Find(spec.symbol));
        if (function.raw == nullptr) return missing(spec.symbol);
        break;
      case Abi::kAdapter:
        function.symbol = library.Find(spec.symbol);
        function.adapter = reinterpret_cast<praas_adapter>(library.Find(PRAAS_ADAPTER_SYMBOL));
        if (function.symbol == nullptr) return missing(spec.symbol);
        if (function.adapter == nullptr) return missing(PRAAS_ADAPTER_SYMBOL);
        break;
    }
    functions.push_back(std::move(function));
  }
  return functions;
}

std::vector<worker::FunctionInfo> Registration(const std::vector<Function>& functions) {
  std::vector<worker::FunctionInfo> infos;
  infos.reserve(functions.size());
  for (const Function& function : functions) {
    infos.push_back({.name = function.spec.name,
                     .flags = function.spec.flags,
                     .max_output_pages = static_cast<uint32_t>(
                         worker::ResultAreas::Pages(function.spec.max_output_bytes) / worker::ResultAreas::kPage)});
  }
  return infos;
}

// -------------------------------------------------------------------------------------------------------------------
// taking calls

void Runner::Serve() {
  for (;;) {
    if (std::optional<worker::Invocation> invocation = runtime_.TryNext(Takes::kAll)) {
      Execute(*invocation);
      continue;
    }
    LookAround();
    if (runtime_.draining()) {
      std::fflush(nullptr);
      runtime_.Drained();
      ::_exit(0);
    }
    runtime_.Sleep(Takes::kAll, DeadlineIn(kIdleNs));
  }
}

/// Takes what would otherwise keep this worker from sleeping.
void Runner::LookAround() {
  static_cast<void>(runtime_.TakeNotices());
  static_cast<void>(runtime_.TakeCancellations());
  CollectReplies();
}

void Runner::CollectReplies() {
  while (std::optional<worker::NestedReply> reply = runtime_.NextNested())
    replies_.insert_or_assign(reply->call, *reply);
}

Result<worker::NestedReply> Runner::Await(uint64_t call, uint64_t deadline_ns) {
  // On a stack that is full, only other workers can help: without a free one this fails at once.
  if (nesting_ >= kMaxNesting && !replies_.contains(call)) return runtime_.WaitNested(call, deadline_ns);
  Result<worker::NestedReply> reply = ServeUntil(call, deadline_ns);
  // The function goes on. What this worker has claimed already it has to run.
  while (std::optional<worker::Invocation> claimed = runtime_.TryNext(Takes::kNothing)) Execute(*claimed);
  return reply;
}

Result<worker::NestedReply> Runner::ServeUntil(uint64_t call, uint64_t deadline_ns) {
  for (;;) {
    CollectReplies();
    if (const auto found = replies_.find(call); found != replies_.end()) {
      const worker::NestedReply reply = found->second;
      replies_.erase(found);
      return reply;
    }
    if (NowNs() >= deadline_ns) {
      runtime_.FreeNested(call);
      return Status(Code::kInvocationTimeout, "the call did not end before its deadline");
    }
    if (std::optional<worker::Invocation> invocation = runtime_.TryNext(Takes::kNested)) {
      Execute(*invocation);
      continue;
    }
    LookAround();
    if (!replies_.contains(call)) runtime_.Sleep(Takes::kNested, deadline_ns);
  }
}

void Runner::Release(uint64_t call) {
  replies_.erase(call);
  runtime_.FreeNested(call);
}

void Runner::Pause(uint64_t until_ns) {
  LookAround();
  // Takes nothing, but posts what lies in the rings this worker polls.
  static_cast<void>(runtime_.TryNext(Takes::kNothing));
  runtime_.Sleep(Takes::kNothing, until_ns);
}

// -------------------------------------------------------------------------------------------------------------------
// running functions

void Runner::Execute(const worker::Invocation& claimed) {
  worker::Invocation invocation = claimed;
  const Function& function = functions_[invocation.function];
  std::vector<std::byte> copy;
  if (nesting_ > 0 && !invocation.input.empty() && OverlapsPrivateInput(invocation.input)) {
    const worker::WorkerRuntime::Backing backing = runtime_.BackingOf(invocation.input.data());
    copy.resize(invocation.input.size());
    if (!shm::ReadAll(backing.fd, static_cast<uint64_t>(invocation.input.data() - backing.begin), copy)) {
      if (shm::IsNoMemfd(errno)) runtime_.EndUnbegun(invocation.handle);
      static_cast<void>(runtime_.Fail(invocation.handle, Code::kInternal, "the input cannot be read"));
      return;
    }
    invocation.input = copy;
  }
  ++nesting_;
  if (function.raw != nullptr) {
    ExecuteRaw(function, invocation);
  } else {
    ExecuteInContext(function, invocation);
  }
  --nesting_;
}

void Runner::Throw(const worker::Invocation& invocation, std::string_view message, std::string_view code) {
  JsonWriter json;
  json.BeginObject();
  json.Text("name", "Error");
  json.Text("message", message.substr(0, kMaxMessageBytes));
  if (!code.empty()) json.Text("code", code);
  json.EndObject();
  static_cast<void>(runtime_.Fail(invocation.handle, Code::kFunctionThrew, json.text()));
}

FaultScope::Running Runner::ScopeOf(const Function& function, const worker::Invocation& invocation) const noexcept {
  FaultScope::Running running{.function = function.spec.name.c_str(),
                              .max_output_bytes = function.spec.max_output_bytes};
  if (runtime_.guarded()) {
    const worker::WorkerRuntime::Backing backing = runtime_.BackingOf(invocation.input.data());
    running.input = invocation.input;
    running.backing = backing.fd;
    running.mapping = backing.begin;
  }
  return running;
}

void Runner::ExecuteRaw(const Function& function, const worker::Invocation& invocation) {
  const uint64_t most = function.spec.max_output_bytes;
  const Result<worker::Output> output = runtime_.AllocateOutput(invocation.handle, most);
  if (shm::IsNoMemfd(output.status().sys_errno())) runtime_.EndUnbegun(invocation.handle);
  if (!output.ok()) {
    static_cast<void>(runtime_.Fail(invocation.handle, output.status().code(), output.status().message()));
    return;
  }
  // No input has an address, too: functions may look at it without need.
  static std::byte nothing{};
  std::byte* const input = invocation.input.empty() ? &nothing : const_cast<std::byte*>(invocation.input.data());
  const Canary canary(output->bytes);
  uint32_t bytes = 0;
  {
    const FaultScope scope(ScopeOf(function, invocation));
    bytes = function.raw(input, static_cast<uint32_t>(invocation.input.size()), output->bytes.data());
    if (InForkedChild()) ::_exit(0);
    char text[160];
    if (!canary.intact_after() || !canary.intact_before()) {
      std::snprintf(text, sizeof text, "wrote %s its result, whose maxOutput is %llu bytes",
                    canary.intact_after() ? "before" : "behind", static_cast<unsigned long long>(most));
      EndWorker(text);
    }
  }
  if (bytes > most) {
    static_cast<void>(runtime_.Fail(invocation.handle, Code::kFunctionResult,
                                    "function " + function.spec.name + " says that its result has " +
                                        std::to_string(bytes) + " bytes; its maxOutput is " + std::to_string(most)));
    return;
  }
  static_cast<void>(runtime_.Complete(invocation.handle, output->bytes.first(bytes)));
}

void Runner::ExecuteInContext(const Function& function, const worker::Invocation& invocation) {
  if (runtime_.guarded()) runtime_.CloseUnusedAreas();
  int outcome = PRAAS_OK;
  std::unique_ptr<std::string> failure;
  std::span<const std::byte> result;
  {
    praas_context context(*this, function, invocation);
    const FaultScope scope(ScopeOf(function, invocation));
    outcome = function.run != nullptr ? function.run(&context) : function.adapter(function.symbol, &context);
    if (InForkedChild()) ::_exit(0);
    // What it has changed of its input is only here: it cannot be returned as it stands there.
    if (scope.input_changed() && !context.result.empty() && outcome == PRAAS_OK) {
      outcome = context.CopyInputResult();
    }
    result = context.result;
    if (outcome != PRAAS_OK)
      failure = std::move(context.failure && !context.failure->empty() ? context.failure : context.error);
  }
  if (outcome == PRAAS_OK) {
    static_cast<void>(runtime_.Complete(invocation.handle, result));
    return;
  }
  const std::string said = failure ? std::move(*failure) : std::string();
  Throw(invocation, said.empty() ? "function " + function.spec.name + " returned " + std::to_string(outcome) : said,
        CodeOf(outcome));
}

}  // namespace praas::function
