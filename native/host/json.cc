#include "host/json.h"

#include <cstdio>

#include "host/text.h"

namespace praas::host {
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
  for (const char c : ToUtf8(value)) {
    if (c == '"' || c == '\\') {
      text_.push_back('\\');
      text_.push_back(c);
    } else if (c == '\n') {
      text_.append("\\n");
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      text_.append(escape);
    } else {
      text_.push_back(c);
    }
  }
  text_.push_back('"');
}

}  // namespace praas::host
