// The agent's lines: cut, parsed, and read as an assignment.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "host/assignment.h"
#include "protocol/agent_line.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  praas::protocol::LineSplitter lines;
  lines.Add({reinterpret_cast<const char*>(data), size});
  while (true) {
    const auto line = lines.Next();
    if (!line.ok() || !line.value().has_value()) return 0;
    const auto parsed = praas::protocol::ParseAgentLine(*line.value());
    if (!parsed.ok()) continue;
    (void)praas::host::ParseAssignment(parsed.value());
    std::vector<std::pair<std::string_view, std::string>> values;
    for (const auto& [key, value] : parsed.value().values) values.emplace_back(key, value);
    (void)praas::protocol::FormatAgentLine(parsed.value().verb, values);
  }
}
