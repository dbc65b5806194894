#pragma once

#include <concepts>
#include <string>
#include <string_view>
#include <utility>

namespace praas {

/// Writes JSON text. Text that is not UTF-8 comes out with U+FFFD in place of each bad byte, so the result is always
/// valid. `key` is empty inside arrays and for the outermost value. Integers beyond 2^53 lose digits in JavaScript:
/// write such as text.
class JsonWriter {
 public:
  void BeginObject(std::string_view key = {}) { Open(key, '{'); }
  void EndObject() { Close('}'); }
  void BeginArray(std::string_view key = {}) { Open(key, '['); }
  void EndArray() { Close(']'); }
  void Text(std::string_view key, std::string_view value);
  void Bool(std::string_view key, bool value) { Raw(key, value ? "true" : "false"); }
  void Null(std::string_view key) { Raw(key, "null"); }
  template <std::integral T>
  void Number(std::string_view key, T value) {
    Raw(key, std::to_string(value));
  }

  [[nodiscard]] const std::string& text() const noexcept { return text_; }
  [[nodiscard]] std::string Take() noexcept { return std::move(text_); }

 private:
  void Key(std::string_view key);
  void Open(std::string_view key, char bracket);
  void Close(char bracket);
  void Raw(std::string_view key, std::string_view value);
  void Quote(std::string_view value);

  std::string text_;
  bool comma_ = false;
};

}  // namespace praas
