#include "base/base64url.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace praas {
namespace {

std::string Encode(std::string_view text) { return ToBase64Url(std::as_bytes(std::span(text))); }

std::optional<std::string> Decode(std::string_view text) {
  const std::optional<std::vector<std::byte>> bytes = FromBase64Url(text);
  if (!bytes) return std::nullopt;
  return std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size());
}

// RFC 4648, section 10, without the padding.
TEST(Base64Url, KnownAnswers) {
  for (const auto& [bytes, text] :
       {std::pair("", ""), std::pair("f", "Zg"), std::pair("fo", "Zm8"), std::pair("foo", "Zm9v"),
        std::pair("foob", "Zm9vYg"), std::pair("fooba", "Zm9vYmE"), std::pair("foobar", "Zm9vYmFy"),
        std::pair("\xfb\xff\xfe", "-__-")}) {
    EXPECT_EQ(Encode(bytes), text);
    EXPECT_EQ(Decode(text), bytes);
  }
}

TEST(Base64Url, AllBytesRoundTrip) {
  std::string bytes;
  for (int i = 0; i < 256; ++i) {
    bytes += static_cast<char>(i);
    EXPECT_EQ(Decode(Encode(bytes)), bytes);
  }
}

TEST(Base64Url, NothingElseIsTaken) {
  for (const std::string_view wrong : {"A", "AAAAA", "Zg==", "Zm 9", "Zm+v", "Zm/v", "Zm9\n", "\xc3\xa4\xc3\xa4"}) {
    EXPECT_EQ(Decode(wrong), std::nullopt) << wrong;
  }
  EXPECT_EQ(Decode(std::string_view("Zm\0v", 4)), std::nullopt);
  // Bits that no byte takes are 0.
  EXPECT_EQ(Decode("Zh"), std::nullopt);
  EXPECT_EQ(Decode("Zm9"), std::nullopt);
}

}  // namespace
}  // namespace praas
