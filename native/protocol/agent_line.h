#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

/// The text protocol between a host and the agent that started it: lines `verb key=value key=value…`, values encoded as
/// by encodeURIComponent. Text, because it is off the path of calls and people read it when something goes wrong.
namespace praas::protocol {

inline constexpr size_t kMaxAgentLine = 1u << 20;

struct AgentLine {
  std::string verb;  // lower-case letters
  std::map<std::string, std::string> values;

  [[nodiscard]] std::string Text(const std::string& key, const std::string& fallback = {}) const;
  /// A decimal number in [least, most]; `fallback` when the key is absent. kArgumentInvalid names key, bounds and
  /// value.
  [[nodiscard]] Result<int64_t> Number(const std::string& key, int64_t fallback, int64_t least, int64_t most) const;
};

/// One line without its newline. kArgumentInvalid for a bad verb, a pair without '=', a key twice, a bad %-escape.
[[nodiscard]] Result<AgentLine> ParseAgentLine(std::string_view line);

/// The line, newline included.
[[nodiscard]] std::string FormatAgentLine(std::string_view verb,
                                          const std::vector<std::pair<std::string_view, std::string>>& values);

/// Cuts a byte stream into lines. A line over kMaxAgentLine is an error, because nothing that long is ever meant.
class LineSplitter {
 public:
  void Add(std::string_view bytes) { pending_.append(bytes); }
  /// nullopt: no complete line yet.
  [[nodiscard]] Result<std::optional<std::string>> Next();

 private:
  std::string pending_;
  size_t start_ = 0;
};

}  // namespace praas::protocol
