#include "function/spec.h"

#include <optional>

#include "protocol/agent_line.h"
#include "protocol/names.h"
#include "segment/layout.h"

namespace praas::function {
namespace {

constexpr Abi kAbis[] = {Abi::kC, Abi::kRaw, Abi::kAdapter};

std::optional<Abi> AbiOf(std::string_view name) noexcept {
  for (const Abi abi : kAbis) {
    if (AbiName(abi) == name) return abi;
  }
  return std::nullopt;
}

Result<FunctionSpec> ParseFunction(std::string_view text) {
  Result<protocol::AgentLine> line = protocol::ParseAgentLine(text);
  if (!line.ok()) return line.status();
  if (line->verb != "function") return Status(Code::kArgumentInvalid, "unknown verb \"" + line->verb + '"');
  FunctionSpec spec;
  spec.name = line->Text("name");
  spec.symbol = line->Text("symbol", spec.name);
  spec.path = line->Text("library");
  if (Status status = protocol::ValidateName(spec.name, "function name"); !status.ok()) return status;
  if (spec.symbol.empty()) return Status(Code::kArgumentInvalid, "symbol is empty");
  if (spec.path.empty() || spec.path[0] != '/') {
    return Status(Code::kArgumentInvalid, "library must be an absolute path, got \"" + spec.path + '"');
  }
  const std::optional<Abi> abi = AbiOf(line->Text("abi"));
  if (!abi) return Status(Code::kArgumentInvalid, "abi must be c, raw or adapter, got \"" + line->Text("abi") + '"');
  spec.abi = *abi;
  Result<int64_t> flags = line->Number("flags", 0, 0, UINT16_MAX);
  if (!flags.ok()) return flags.status();
  spec.flags = static_cast<uint32_t>(*flags);
  if ((spec.flags & segment::kFunctionStream) != 0) {
    return Status(Code::kArgumentInvalid, "native functions take no streams");
  }
  if (spec.abi == Abi::kRaw) {
    Result<int64_t> max_output = line->Number("maxOutput", -1, 1, INT64_C(1) << 32);
    if (!max_output.ok()) return max_output.status();
    if (*max_output < 0) return Status(Code::kArgumentInvalid, "maxOutput is missing");
    spec.max_output_bytes = static_cast<uint64_t>(*max_output);
  }
  return spec;
}

}  // namespace

std::string_view AbiName(Abi abi) noexcept {
  switch (abi) {
    case Abi::kC:
      return "c";
    case Abi::kRaw:
      return "raw";
    case Abi::kAdapter:
      return "adapter";
  }
  return "";
}

Result<std::vector<FunctionSpec>> ParseLoadText(std::string_view text) {
  std::vector<FunctionSpec> specs;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty()) continue;
    Result<FunctionSpec> spec = ParseFunction(line);
    if (!spec.ok()) return spec.status().WithContext("line " + std::to_string(number));
    specs.push_back(std::move(*spec));
  }
  if (specs.empty()) return Status(Code::kArgumentInvalid, "the application has no native function");
  if (specs.size() > segment::kMaxFunctions) {
    return Status(Code::kArgumentInvalid, std::to_string(specs.size()) + " functions; " +
                                              std::to_string(segment::kMaxFunctions) + " are possible");
  }
  return specs;
}

}  // namespace praas::function
