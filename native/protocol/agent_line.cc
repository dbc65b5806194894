#include "protocol/agent_line.h"

#include <charconv>

#include "base/text.h"

namespace praas::protocol {
namespace {

bool IsVerb(std::string_view text) noexcept {
  if (text.empty() || text.size() > 32) return false;
  for (const char c : text) {
    if (c < 'a' || c > 'z') return false;
  }
  return true;
}

bool IsKey(std::string_view text) noexcept {
  if (text.empty() || text.size() > 32) return false;
  for (const char c : text) {
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))) return false;
  }
  return true;
}

int HexDigit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<std::string> PercentDecode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const int high = HexDigit(text[i + 1]);
    const int low = HexDigit(text[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out.push_back(static_cast<char>(high << 4 | low));
    i += 2;
  }
  return out;
}

void PercentEncode(std::string_view text, std::string& out) {
  constexpr std::string_view kPlain = "-_.!~*'()";
  constexpr std::string_view kHex = "0123456789ABCDEF";
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       kPlain.find(c) != std::string_view::npos;
    if (plain) {
      out.push_back(c);
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out.push_back('%');
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
}

}  // namespace

std::string AgentLine::Text(const std::string& key, const std::string& fallback) const {
  const auto found = values.find(key);
  return found == values.end() ? fallback : found->second;
}

Result<int64_t> AgentLine::Number(const std::string& key, int64_t fallback, int64_t least, int64_t most) const {
  const auto found = values.find(key);
  if (found == values.end()) return fallback;
  const std::string& text = found->second;
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < least || number > most) {
    return Status(Code::kArgumentInvalid, verb + ": " + key + " must be a whole number from " + std::to_string(least) +
                                              " to " + std::to_string(most) + ", got \"" + text + "\"");
  }
  return number;
}

Result<AgentLine> ParseAgentLine(std::string_view line) {
  AgentLine parsed;
  size_t at = line.find(' ');
  parsed.verb = std::string(line.substr(0, at));
  if (!IsVerb(parsed.verb)) return Status(Code::kArgumentInvalid, "agent line without a verb");
  while (at != std::string_view::npos) {
    const size_t begin = at + 1;
    at = line.find(' ', begin);
    const std::string_view pair = line.substr(begin, at == std::string_view::npos ? at : at - begin);
    if (pair.empty()) continue;
    const size_t equals = pair.find('=');
    const std::string_view key = pair.substr(0, equals);
    if (equals == std::string_view::npos || !IsKey(key)) {
      return Status(Code::kArgumentInvalid, parsed.verb + ": expected key=value");
    }
    std::optional<std::string> value = PercentDecode(pair.substr(equals + 1));
    if (!value)
      return Status(Code::kArgumentInvalid, parsed.verb + ": bad %-escape in the value of " + std::string(key));
    if (!parsed.values.emplace(std::string(key), std::move(*value)).second) {
      return Status(Code::kArgumentInvalid, parsed.verb + ": " + std::string(key) + " is given twice");
    }
  }
  return parsed;
}

std::string FormatAgentLine(std::string_view verb,
                            const std::vector<std::pair<std::string_view, std::string>>& values) {
  std::string line(verb);
  for (const auto& [key, value] : values) {
    line.push_back(' ');
    line.append(key);
    line.push_back('=');
    PercentEncode(ToUtf8(value), line);  // decodeURIComponent throws at anything else
  }
  line.push_back('\n');
  return line;
}

Result<std::optional<std::string>> LineSplitter::Next() {
  const size_t end = pending_.find('\n', start_);
  if (end == std::string::npos) {
    pending_.erase(0, start_);
    start_ = 0;
    if (pending_.size() > kMaxAgentLine) {
      return Status(Code::kArgumentInvalid, "agent line longer than " + std::to_string(kMaxAgentLine) + " bytes");
    }
    return std::optional<std::string>();
  }
  std::optional<std::string> line(pending_.substr(start_, end - start_));
  start_ = end + 1;
  if (line->size() > kMaxAgentLine) {
    return Status(Code::kArgumentInvalid, "agent line longer than " + std::to_string(kMaxAgentLine) + " bytes");
  }
  return line;
}

}  // namespace praas::protocol
