#include "host/functions.h"

#include <algorithm>
#include <cstring>

#include "protocol/names.h"
#include "segment/table_check.h"

namespace praas::host {
namespace {

constexpr size_t kNamesInError = 10;

}  // namespace

bool Functions::registered() const noexcept {
  for (size_t lane = 0; lane < dispatch::kLanes; ++lane) {
    if (lanes_[lane] && !offered_[lane]) return false;
  }
  return true;
}

Status Functions::Register(dispatch::Lane lane, const std::vector<worker::FunctionInfo>& offered) {
  std::optional<std::vector<worker::FunctionInfo>>& known = offered_[static_cast<size_t>(lane)];
  if (known) {
    if (offered == *known) return Status::Ok();
    return Status(Code::kWorkerStart,
                  "the worker offers other functions than its siblings; has the application changed on disk? Restart "
                  "the process");
  }
  if (offered.size() > segment::kMaxFunctions - flags_.size()) {
    return Status(Code::kWorkerStart, "the application has " + std::to_string(flags_.size() + offered.size()) +
                                          " functions; " + std::to_string(segment::kMaxFunctions) + " are possible");
  }
  std::unordered_map<std::string, uint32_t> by_name = by_name_;
  for (const worker::FunctionInfo& function : offered) {
    if (Status status = protocol::ValidateName(function.name, "function name"); !status.ok()) return status;
    if (!by_name.emplace(function.name, static_cast<uint32_t>(by_name.size())).second) {
      return Status(Code::kWorkerStart, "the application registers \"" + function.name + "\" twice");
    }
  }
  segment::Header& header = segment_.header();
  const auto first = static_cast<uint32_t>(flags_.size());
  const uint32_t count = first + static_cast<uint32_t>(offered.size());
  if (Status status = segment_.Commit(header.functions, count); !status.ok()) return status;
  for (uint32_t index = first; index < count; ++index) {
    const worker::FunctionInfo& info = offered[index - first];
    segment::Function& function = segment_.function(index);
    std::memset(&function.name, 0, sizeof function.name);
    function.name.size = static_cast<uint8_t>(info.name.size());
    std::memcpy(function.name.bytes, info.name.data(), info.name.size());
    function.flags = info.flags & ~static_cast<uint32_t>(segment::kFunctionNative);
    if (lane == dispatch::Lane::kNative) function.flags |= segment::kFunctionNative;
    function.max_output_pages = info.max_output_pages;
    flags_.push_back(function.flags);
  }
  header.function_hash.store(segment::FunctionHash(segment_, count));
  header.function_count.store(count, std::memory_order_release);
  by_name_ = std::move(by_name);
  known = offered;
  AnswerKnown();
  return Status::Ok();
}

Result<ResolvedFunction> Functions::Find(std::string_view name) const {
  if (const auto found = by_name_.find(std::string(name)); found != by_name_.end()) {
    const uint32_t index = found->second;
    return ResolvedFunction{index, flags_[index], segment_.function(index).max_output_pages};
  }
  std::vector<std::string_view> known;
  for (const auto& [other, index] : by_name_) known.push_back(other);
  std::sort(known.begin(), known.end());
  std::string message = "no function \"" + std::string(name) + "\"; there ";
  message += known.empty() ? "are none" : known.size() == 1 ? "is " : "are ";
  for (size_t i = 0; i < known.size() && i < kNamesInError; ++i) message.append(i == 0 ? "" : ", ").append(known[i]);
  if (known.size() > kNamesInError) message += " and " + std::to_string(known.size() - kNamesInError) + " more";
  return Status(Code::kFunctionUnknown, std::move(message));
}

void Functions::Ask(uint64_t session, std::string name, uint64_t deadline_ns, Answer answer) {
  if (registered()) return answer(Find(name));
  if (!failed_.empty()) return answer(Status(Code::kProcessFailed, failed_));
  asked_.push_back({session, std::move(name), deadline_ns, std::move(answer)});
}

void Functions::Forget(uint64_t session) {
  std::erase_if(asked_, [&](const Asked& asked) { return asked.session == session; });
}

void Functions::AnswerKnown() {
  if (!registered()) return;
  const std::vector<Asked> asked = std::exchange(asked_, {});
  for (const Asked& each : asked) each.answer(Find(each.name));
}

void Functions::Fail(const std::string& why) {
  failed_ = why;
  if (why.empty() || registered()) return;
  const std::vector<Asked> asked = std::exchange(asked_, {});
  for (const Asked& each : asked) each.answer(Status(Code::kProcessFailed, why));
}

void Functions::Tick(uint64_t now_ns) {
  std::vector<Asked> late;
  std::erase_if(asked_, [&](Asked& asked) {
    if (asked.deadline_ns > now_ns) return false;
    late.push_back(std::move(asked));
    return true;
  });
  for (const Asked& each : late) {
    each.answer(Status(Code::kInvocationTimeout, "no worker of the process was ready before the deadline"));
  }
}

}  // namespace praas::host
