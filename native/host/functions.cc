#include "host/functions.h"

#include <algorithm>
#include <cstring>

#include "protocol/names.h"

namespace praas::host {
namespace {

/// FNV-1a over all names and flags.
uint32_t HashOf(const std::vector<worker::FunctionInfo>& functions) noexcept {
  uint32_t hash = 2166136261u;
  const auto mix = [&](unsigned char byte) { hash = (hash ^ byte) * 16777619u; };
  for (const worker::FunctionInfo& function : functions) {
    for (const char c : function.name) mix(static_cast<unsigned char>(c));
    mix(0);
    for (int shift = 0; shift < 32; shift += 8) mix(static_cast<unsigned char>(function.flags >> shift));
  }
  return hash;
}

constexpr size_t kNamesInError = 10;

}  // namespace

Status Functions::Register(const std::vector<worker::FunctionInfo>& offered) {
  const uint32_t hash = HashOf(offered);
  if (registered_) {
    if (hash == hash_ && offered.size() == flags_.size()) return Status::Ok();
    return Status(Code::kWorkerStart,
                  "the worker offers other functions than its siblings; has the application changed on disk? Restart "
                  "the process");
  }
  if (offered.size() > segment::kMaxFunctions) {
    return Status(Code::kWorkerStart, "the application has " + std::to_string(offered.size()) + " functions; " +
                                          std::to_string(segment::kMaxFunctions) + " are possible");
  }
  std::unordered_map<std::string, uint32_t> by_name;
  for (const worker::FunctionInfo& function : offered) {
    if (Status status = protocol::ValidateName(function.name, "function name"); !status.ok()) return status;
    if (!by_name.emplace(function.name, static_cast<uint32_t>(by_name.size())).second) {
      return Status(Code::kWorkerStart, "the application registers \"" + function.name + "\" twice");
    }
  }
  segment::Header& header = segment_.header();
  const auto count = static_cast<uint32_t>(offered.size());
  if (Status status = segment_.Commit(header.functions, count); !status.ok()) return status;
  for (uint32_t index = 0; index < count; ++index) {
    segment::Function& function = segment_.function(index);
    std::memset(&function.name, 0, sizeof function.name);
    function.name.size = static_cast<uint8_t>(offered[index].name.size());
    std::memcpy(function.name.bytes, offered[index].name.data(), offered[index].name.size());
    function.flags = offered[index].flags;
    flags_.push_back(offered[index].flags);
  }
  header.function_hash.store(hash);
  header.function_count.store(count, std::memory_order_release);
  by_name_ = std::move(by_name);
  hash_ = hash;
  registered_ = true;
  failed_.clear();
  AnswerAll();
  return Status::Ok();
}

Result<ResolvedFunction> Functions::Find(std::string_view name) const {
  if (const auto found = by_name_.find(std::string(name)); found != by_name_.end()) {
    return ResolvedFunction{found->second, flags_[found->second]};
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
  if (registered_) return answer(Find(name));
  if (!failed_.empty()) return answer(Status(Code::kProcessFailed, failed_));
  asked_.push_back({session, std::move(name), deadline_ns, std::move(answer)});
}

void Functions::Forget(uint64_t session) {
  std::erase_if(asked_, [&](const Asked& asked) { return asked.session == session; });
}

void Functions::AnswerAll() {
  const std::vector<Asked> asked = std::exchange(asked_, {});
  for (const Asked& each : asked) each.answer(Find(each.name));
}

void Functions::Fail(const std::string& why) {
  failed_ = why;
  if (why.empty() || registered_) return;
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
