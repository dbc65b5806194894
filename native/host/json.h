#pragma once

#include <concepts>
#include <string>
#include <string_view>

namespace praas::host {

/// Writes JSON text: statistics and crash reports. Text that is not UTF-8 comes out with U+FFFD in place of bad bytes, so the
/// result is always valid.
class JsonWriter {
 public:
  void BeginObject(std::string_view key = {}) { Open(key, '{'); }
  void EndObject() { Close('}'); }
  void BeginArray(std::string_view key = {}) { Open(key, '['); }
  void EndArray() { Close(']'); }
  void Text(std::string_view key, std::string_view value);
  void Bool(std::string_view key, bool value) { Raw(key, value ? "true" : "false"); }
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

}  // namespace praas::host
