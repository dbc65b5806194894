#include "protocol/names.h"

#include <cstdint>
#include <string>

#include "protocol/frame.h"

namespace praas::protocol {

bool IsUtf8(std::string_view text) noexcept {
  const auto* at = reinterpret_cast<const unsigned char*>(text.data());
  const auto* const end = at + text.size();
  while (at < end) {
    const unsigned char lead = *at++;
    if (lead < 0x80) continue;
    // Number of continuation bytes, and the smallest code point that needs them (overlong forms are refused).
    int more = 0;
    uint32_t point = 0, smallest = 0;
    if ((lead & 0xe0) == 0xc0) {
      more = 1, point = lead & 0x1fu, smallest = 0x80;
    } else if ((lead & 0xf0) == 0xe0) {
      more = 2, point = lead & 0x0fu, smallest = 0x800;
    } else if ((lead & 0xf8) == 0xf0) {
      more = 3, point = lead & 0x07u, smallest = 0x10000;
    } else {
      return false;
    }
    for (; more > 0; --more) {
      if (at == end || (*at & 0xc0) != 0x80) return false;
      point = point << 6 | (*at++ & 0x3fu);
    }
    if (point < smallest || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) return false;
  }
  return true;
}

Status ValidateName(std::string_view name, std::string_view what) {
  if (name.empty()) return Status(Code::kNameInvalid, std::string(what) + " is empty");
  if (name.size() > kMaxName) {
    return Status(Code::kNameInvalid, std::string(what) + " has " + std::to_string(name.size()) + " bytes; at most " +
                                          std::to_string(kMaxName) + " are possible");
  }
  if (name.find('\0') != std::string_view::npos)
    return Status(Code::kNameInvalid, std::string(what) + " contains a NUL byte");
  if (!IsUtf8(name)) return Status(Code::kNameInvalid, std::string(what) + " is not valid UTF-8");
  return Status::Ok();
}

}  // namespace praas::protocol
