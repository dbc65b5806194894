// praas.h: input, output, and what an invocation says of itself.

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "base/clock.h"
#include "function/context.h"
#include "function/runner.h"
#include "shm/memfd.h"
#include "state/state_store.h"

namespace {

constexpr size_t kMaxFailureBytes = 4000;
constexpr size_t kBufferAlignment = 64;

bool Inside(const void* data, size_t bytes, std::span<const std::byte> whole) noexcept {
  const auto* begin = static_cast<const std::byte*>(data);
  return !whole.empty() && begin >= whole.data() && begin + bytes <= whole.data() + whole.size();
}

}  // namespace

praas_context::~praas_context() {
  for (const uint64_t call : calls) runner.Release(call);
  for (const uint32_t pin : pins) runtime().state().Unpin(pin);
  for (const uint32_t lock : locks) {
    static_cast<void>(runtime().state().Unlock(lock, praas::DeadlineIn(praas::state::kReleaseNs)));
  }
}

praas::worker::WorkerRuntime& praas_context::runtime() const noexcept { return runner.runtime(); }

int praas_context::Note(const praas::Status& status) {
  if (status.ok()) return PRAAS_OK;
  if (praas::shm::IsNoMemfd(status.sys_errno())) praas::worker::WorkerRuntime::EndLost();
  error = std::make_unique<std::string>(status.message());
  error_status = static_cast<int>(status.code());
  return error_status;
}

int praas_context::CopyInputResult() {
  const std::span<const std::byte> part = result;
  if (!Inside(part.data(), part.size(), invocation.input)) return PRAAS_OK;
  void* const copy = praas_output(this, part.size());
  if (copy == nullptr) return error_status;
  std::memcpy(copy, part.data(), part.size());
  return PRAAS_OK;
}

uint64_t praas_context::DeadlineOf(uint64_t timeout_ns) const noexcept {
  return timeout_ns == 0 ? invocation.deadline_ns : std::min(invocation.deadline_ns, praas::DeadlineIn(timeout_ns));
}

const char* praas_error_message(const praas_context* context) { return context->error ? context->error->c_str() : ""; }

int praas_error_status(const praas_context* context) { return context->error_status; }

const char* praas_status_name(int status) {
  // The names are string literals, so they end with a NUL.
  return status == PRAAS_OK ? "OK" : praas::CodeName(static_cast<praas::Code>(status)).data();
}

const void* praas_input(const praas_context* context, size_t* bytes) {
  *bytes = context->invocation.input.size();
  return context->invocation.input.empty() ? nullptr : context->invocation.input.data();
}

void* praas_output(praas_context* context, size_t bytes) {
  const praas::Result<praas::worker::Output> output =
      context->runtime().AllocateOutput(context->invocation.handle, bytes);
  if (!output.ok()) {
    context->output = {};
    context->result = {};
    static_cast<void>(context->Note(output.status()));
    return nullptr;
  }
  context->output = output->bytes;
  context->result = output->bytes;
  return output->bytes.data();
}

int praas_output_truncate(praas_context* context, size_t bytes) {
  if (bytes > context->output.size()) {
    return context->Note(praas::Status(
        praas::Code::kArgumentInvalid,
        "the output has " + std::to_string(context->output.size()) + " bytes, not " + std::to_string(bytes)));
  }
  context->result = context->output.first(bytes);
  return PRAAS_OK;
}

int praas_return(praas_context* context, const void* data, size_t bytes) {
  const std::span result(static_cast<const std::byte*>(data), bytes);
  if (bytes == 0) {
    context->result = {};
  } else if (Inside(data, bytes, context->invocation.input) || Inside(data, bytes, context->output)) {
    context->result = result;
  } else {
    void* const copy = praas_output(context, bytes);
    if (copy == nullptr) return context->error_status;
    std::memcpy(copy, data, bytes);
  }
  return PRAAS_OK;
}

int praas_fail(praas_context* context, const char* format, ...) {
  char text[kMaxFailureBytes + 1];
  std::va_list arguments;
  va_start(arguments, format);
  const int length = std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  context->failure = std::make_unique<std::string>(length < 0 ? "praas_fail: the format cannot be printed" : text);
  return PRAAS_FAILED;
}

void* praas_buffer(praas_context* context, size_t bytes) {
  const size_t rounded = (bytes / kBufferAlignment + 1) * kBufferAlignment;
  void* const memory = rounded > bytes ? std::aligned_alloc(kBufferAlignment, rounded) : nullptr;
  if (memory == nullptr) {
    static_cast<void>(context->Note(
        praas::Status(praas::Code::kStateMemory, "no memory for a buffer of " + std::to_string(bytes) +
                                                     " bytes; the worker's limit is the process option workerMemory")));
    return nullptr;
  }
  context->buffers.emplace_back(memory);
  return memory;
}

const char* praas_process_id(const praas_context* context) { return context->runtime().attach().process_id.c_str(); }

const char* praas_function_name(const praas_context* context) { return context->function.spec.name.c_str(); }

uint64_t praas_invocation_id(const praas_context* context) { return context->invocation.handle; }

uint32_t praas_invocation_depth(const praas_context* context) { return context->invocation.depth; }

uint64_t praas_remaining_ns(const praas_context* context) {
  const uint64_t now_ns = praas::NowNs();
  return context->invocation.deadline_ns > now_ns ? context->invocation.deadline_ns - now_ns : 0;
}

int praas_cancelled(const praas_context* context) {
  return context->runtime().Cancelled(context->invocation.handle) ? 1 : 0;
}
