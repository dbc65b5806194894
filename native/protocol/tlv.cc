#include "protocol/tlv.h"

#include "protocol/names.h"

namespace praas::protocol {

void FieldWriter::HeaderOnly(uint16_t tag, uint32_t bytes) {
  const size_t at = bytes_.size();
  bytes_.resize(at + kFieldHeaderBytes);
  StoreLittle<uint16_t>(bytes_.data() + at, tag);
  StoreLittle<uint32_t>(bytes_.data() + at + sizeof(uint16_t), bytes);
}

void FieldWriter::Bytes(uint16_t tag, std::span<const std::byte> bytes) {
  HeaderOnly(tag, static_cast<uint32_t>(bytes.size()));
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
}

void FieldWriter::Text(uint16_t tag, std::string_view text) { Bytes(tag, std::as_bytes(std::span(text))); }

FieldReader::FieldReader(std::span<const std::byte> bytes, std::string_view message) : message_(message) {
  while (!bytes.empty()) {
    if (bytes.size() < kFieldHeaderBytes) {
      Fail("field header", "is truncated");
      return;
    }
    const uint16_t tag = LoadLittle<uint16_t>(bytes.data());
    const uint32_t size = LoadLittle<uint32_t>(bytes.data() + sizeof(uint16_t));
    bytes = bytes.subspan(kFieldHeaderBytes);
    if (size > bytes.size() || (tag <= kMaxTag && Has(tag))) {
      Fail("field " + std::to_string(tag), size > bytes.size() ? "is truncated" : "comes twice");
      return;
    }
    if (tag <= kMaxTag) {
      fields_[tag] = bytes.first(size);
    }
    bytes = bytes.subspan(size);
  }
}

void FieldReader::Fail(std::string_view name, std::string_view why) {
  if (!status_.ok()) return;
  std::string text(message_);
  text.append(": ").append(name).append(" ").append(why);
  status_ = Status(Code::kProtocolInvalid, std::move(text));
}

std::span<const std::byte> FieldReader::Exactly(uint16_t tag, std::string_view name, size_t bytes) {
  if (!status_.ok()) return {};
  if (!Has(tag)) return Fail(name, "is missing"), std::span<const std::byte>{};
  if (fields_[tag].size() != bytes) return Fail(name, "has the wrong size"), std::span<const std::byte>{};
  return fields_[tag];
}

std::span<const std::byte> FieldReader::Bytes(uint16_t tag, std::string_view name, size_t max) {
  if (!status_.ok()) return {};
  if (!Has(tag)) return Fail(name, "is missing"), std::span<const std::byte>{};
  if (fields_[tag].size() > max) return Fail(name, "is too long"), std::span<const std::byte>{};
  return fields_[tag];
}

std::string FieldReader::Text(uint16_t tag, std::string_view name, size_t min, size_t max) {
  const std::span<const std::byte> bytes = Bytes(tag, name, max);
  if (!status_.ok()) return {};
  if (bytes.size() < min) return Fail(name, "is too short"), std::string{};
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.find('\0') != std::string_view::npos || !IsUtf8(text)) return Fail(name, "is not valid text"), std::string{};
  return std::string(text);
}

}  // namespace praas::protocol
