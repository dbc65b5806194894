#include "base/json_writer.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

namespace praas {
namespace {

std::string Quoted(std::string_view text) {
  JsonWriter json;
  json.Text({}, text);
  return json.Take();
}

TEST(JsonWriter, NestsWithCommasInPlace) {
  JsonWriter json;
  json.BeginObject();
  json.BeginArray("empty");
  json.EndArray();
  json.BeginArray("list");
  json.Number({}, 1);
  json.Number({}, UINT64_MAX);
  json.BeginObject();
  json.EndObject();
  json.BeginObject();
  json.Bool("a", true);
  json.Null("b");
  json.EndObject();
  json.EndArray();
  json.Number("n", -5);
  json.Text("t", "x");
  json.EndObject();
  EXPECT_EQ(json.text(), R"({"empty":[],"list":[1,18446744073709551615,{},{"a":true,"b":null}],"n":-5,"t":"x"})");
}

TEST(JsonWriter, EscapesWhatJsonForbids) {
  EXPECT_EQ(Quoted("a\"b\\c/"), R"("a\"b\\c/")");
  EXPECT_EQ(Quoted(std::string_view("\0\n\x1f\x7f", 4)), R"("\u0000\u000a\u001f\u007f")");
  JsonWriter json;
  json.BeginObject();
  json.Number("k\"", 1);
  json.EndObject();
  EXPECT_EQ(json.text(), R"({"k\"":1})");
}

TEST(JsonWriter, KeepsUtf8AndReplacesEverythingElse) {
  for (const char* good : {"ä", "€", "😀", "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_EQ(Quoted(good), '"' + std::string(good) + '"');
  }
  const std::string r = "\xef\xbf\xbd";
  EXPECT_EQ(Quoted("a\xff"
                   "b"),
            "\"a" + r + "b\"");
  EXPECT_EQ(Quoted("\xc3"), '"' + r + '"') << "cut off";
  EXPECT_EQ(Quoted("\xe2\x82"), '"' + r + r + '"') << "cut off";
  EXPECT_EQ(Quoted("\xc0\xaf"), '"' + r + r + '"') << "overlong";
  EXPECT_EQ(Quoted("\xe0\x80\xaf"), '"' + r + r + r + '"') << "overlong";
  EXPECT_EQ(Quoted("\xed\xa0\x80"), '"' + r + r + r + '"') << "surrogate";
  EXPECT_EQ(Quoted("\xf4\x90\x80\x80"), '"' + r + r + r + r + '"') << "beyond U+10FFFF";
}

}  // namespace
}  // namespace praas
