#include "base/json_writer.h"

#include <cstddef>
#include <cstdint>
#include <cstdio>

namespace praas {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

/// Bytes of the well-formed UTF-8 sequence (RFC 3629, section 4) `text` begins with; 0 = none.
size_t SequenceBytes(std::string_view text) noexcept {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0}; };
  const auto continues = [&](size_t i, uint8_t low = 0x80, uint8_t high = 0xbf) {
    return byte(i) >= low && byte(i) <= high;
  };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return continues(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    // No overlong forms, no surrogates.
    const uint8_t low = first == 0xe0 ? 0xa0 : 0x80;
    const uint8_t high = first == 0xed ? 0x9f : 0xbf;
    return continues(1, low, high) && continues(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const uint8_t low = first == 0xf0 ? 0x90 : 0x80;
    const uint8_t high = first == 0xf4 ? 0x8f : 0xbf;
    return continues(1, low, high) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

void JsonWriter::Key(std::string_view key) {
  if (comma_) text_.push_back(',');
  comma_ = true;
  if (key.empty()) return;
  Quote(key);
  text_.push_back(':');
}

void JsonWriter::Open(std::string_view key, char bracket) {
  Key(key);
  text_.push_back(bracket);
  comma_ = false;
}

void JsonWriter::Close(char bracket) {
  text_.push_back(bracket);
  comma_ = true;
}

void JsonWriter::Raw(std::string_view key, std::string_view value) {
  Key(key);
  text_.append(value);
}

void JsonWriter::Text(std::string_view key, std::string_view value) {
  Key(key);
  Quote(value);
}

void JsonWriter::Quote(std::string_view value) {
  text_.push_back('"');
  while (!value.empty()) {
    const char c = value.front();
    const size_t bytes = SequenceBytes(value);
    if (bytes == 0) {
      text_.append(kReplacement);
    } else if (c == '"' || c == '\\') {
      text_.push_back('\\');
      text_.push_back(c);
    } else if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(static_cast<uint8_t>(c)));
      text_.append(escape);
    } else {
      text_.append(value.substr(0, bytes));
    }
    value.remove_prefix(bytes == 0 ? 1 : bytes);
  }
  text_.push_back('"');
}

}  // namespace praas
