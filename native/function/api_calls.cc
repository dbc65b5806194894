// praas.h: calls within the process, and messages.

#include <algorithm>
#include <string_view>

#include "base/clock.h"
#include "function/context.h"
#include "function/mailbox.h"
#include "function/runner.h"

namespace {

using praas::Code;
using praas::Result;
using praas::Status;

/// Names a message in praas_reply::call, where the low half of calls is never 0.
constexpr uint64_t MessageName(size_t index) noexcept { return static_cast<uint64_t>(index + 1) << 32; }

/// Messages come without a signal: a mailbox is looked at again after this time, and less often the longer it takes.
constexpr uint64_t kFirstLookNs = 50'000;
constexpr uint64_t kLastLookNs = 5'000'000;

Status CheckOwn(const praas_context* context, std::string_view process, bool any) {
  if (process == PRAAS_SELF || (any && process == PRAAS_ANY)) return Status::Ok();
  if (process == context->runtime().attach().process_id) return Status::Ok();
  return Status(Code::kUnsupported, "messages to and from other processes do not exist yet; \"" + std::string(process) +
                                        "\" is not this process, which is \"" + context->runtime().attach().process_id +
                                        '"');
}

void Forget(praas_context* context, uint64_t call) {
  std::erase(context->calls, call);
  context->runner.Release(call);
}

}  // namespace

int praas_invoke_begin(praas_context* context, const char* function, const void* input, size_t bytes,
                       uint64_t timeout_ns, uint64_t* call) {
  praas::worker::WorkerRuntime& runtime = context->runtime();
  const std::optional<uint32_t> index = runtime.FindFunction(function);
  if (!index) {
    return context->Note(
        Status(Code::kFunctionUnknown, "the process has no function \"" + std::string(function) + '"'));
  }
  const Result<uint64_t> posted =
      runtime.Post(*index, {static_cast<const std::byte*>(input), bytes}, 0,
                   static_cast<uint16_t>(context->invocation.depth + 1), context->DeadlineOf(timeout_ns));
  if (!posted.ok()) return context->Note(posted.status());
  context->calls.push_back(*posted);
  *call = *posted;
  return PRAAS_OK;
}

int praas_invoke_wait(praas_context* context, uint64_t call, praas_reply* reply) {
  *reply = {};
  if (std::find(context->calls.begin(), context->calls.end(), call) == context->calls.end()) {
    return context->Note(Status(Code::kArgumentInvalid, "this invocation has begun no such call, or has released it"));
  }
  const Result<praas::worker::NestedReply> answer = context->runner.Await(call, context->invocation.deadline_ns);
  const Status status = answer.ok() ? answer->status : answer.status();
  if (!status.ok()) {
    Forget(context, call);
    return context->Note(status);
  }
  *reply = {answer->payload.empty() ? nullptr : answer->payload.data(), answer->payload.size(), call};
  return PRAAS_OK;
}

int praas_invoke(praas_context* context, const char* function, const void* input, size_t bytes, uint64_t timeout_ns,
                 praas_reply* reply) {
  uint64_t call = 0;
  *reply = {};
  if (const int status = praas_invoke_begin(context, function, input, bytes, timeout_ns, &call); status != PRAAS_OK) {
    return status;
  }
  return praas_invoke_wait(context, call, reply);
}

void praas_release(praas_context* context, const praas_reply* reply) {
  for (size_t index = 0; index < context->messages.size(); ++index) {
    if (reply->call == MessageName(index)) {
      context->messages[index] = {};
      return;
    }
  }
  if (std::find(context->calls.begin(), context->calls.end(), reply->call) != context->calls.end()) {
    Forget(context, reply->call);
  }
}

int praas_put(praas_context* context, const char* process, const char* key, const void* data, size_t bytes) {
  if (Status status = CheckOwn(context, process, false); !status.ok()) return context->Note(status);
  return context->Note(praas::function::Mailbox(context->runtime().state())
                           .Put(key, {static_cast<const std::byte*>(data), bytes}, context->invocation.deadline_ns));
}

int praas_get(praas_context* context, const char* source, const char* key, uint64_t timeout_ns, praas_reply* message) {
  *message = {};
  if (Status status = CheckOwn(context, source, true); !status.ok()) return context->Note(status);
  praas::function::Mailbox mailbox(context->runtime().state());
  const uint64_t deadline_ns = context->DeadlineOf(timeout_ns);
  for (uint64_t look_ns = kFirstLookNs;; look_ns = std::min(2 * look_ns, kLastLookNs)) {
    Result<std::optional<std::vector<std::byte>>> taken = mailbox.TryTake(key, context->invocation.deadline_ns);
    if (!taken.ok()) return context->Note(taken.status());
    if (taken->has_value()) {
      context->messages.push_back(std::move(**taken));
      const std::vector<std::byte>& kept = context->messages.back();
      *message = {kept.empty() ? nullptr : kept.data(), kept.size(), MessageName(context->messages.size() - 1)};
      return PRAAS_OK;
    }
    const uint64_t now_ns = praas::NowNs();
    if (now_ns >= deadline_ns) {
      return context->Note(Status(Code::kInvocationTimeout, "no message under \"" + std::string(key) + "\" came"));
    }
    context->runner.Pause(std::min(deadline_ns, now_ns + look_ns));
  }
}
