#include "function/spec.h"

#include <gtest/gtest.h>

#include <string>

#include "segment/layout.h"

namespace praas::function {
namespace {

Status Refused(const std::string& text) {
  const Result<std::vector<FunctionSpec>> specs = ParseLoadText(text);
  EXPECT_FALSE(specs.ok()) << text;
  return specs.status();
}

TEST(LoadText, SaysWhatEachFunctionIs) {
  const auto specs = ParseLoadText(
      "function name=f symbol=g library=%2Flib%2Fa%20b.so abi=raw maxOutput=4097 flags=2\n"
      "function name=%C3%A9 library=/l.so abi=c\n"
      "\n"
      "function name=h library=/l.so abi=adapter flags=4352");
  ASSERT_TRUE(specs.ok()) << specs.status().message();
  ASSERT_EQ(specs->size(), 3u);
  EXPECT_EQ((*specs)[0].name, "f");
  EXPECT_EQ((*specs)[0].symbol, "g");
  EXPECT_EQ((*specs)[0].path, "/lib/a b.so");
  EXPECT_EQ((*specs)[0].abi, Abi::kRaw);
  EXPECT_EQ((*specs)[0].max_output_bytes, 4097u);
  EXPECT_EQ((*specs)[0].flags, segment::kFunctionIdempotent);
  EXPECT_EQ((*specs)[1].symbol, "\xC3\xA9") << "the name, when nothing else is said";
  EXPECT_EQ((*specs)[1].max_output_bytes, 0u);
  EXPECT_EQ((*specs)[2].abi, Abi::kAdapter);
  EXPECT_EQ((*specs)[2].flags, 4352u);
}

TEST(LoadText, EveryMistakeIsNamedWithItsLine) {
  const std::string good = "function name=f library=/l.so abi=c\n";
  EXPECT_NE(Refused("").message().find("no native function"), std::string::npos);
  for (const auto& [line, why] : {std::pair<std::string, std::string>{"functions name=f library=/l.so abi=c", "verb"},
                                  {"function library=/l.so abi=c", "name"},
                                  {"function name=f abi=c", "library"},
                                  {"function name=f library=l.so abi=c", "absolute"},
                                  {"function name=f library=/l.so", "abi"},
                                  {"function name=f library=/l.so abi=C", "abi"},
                                  {"function name=f library=/l.so abi=raw", "maxOutput"},
                                  {"function name=f library=/l.so abi=raw maxOutput=0", "maxOutput"},
                                  {"function name=f library=/l.so abi=raw maxOutput=4294967297", "maxOutput"},
                                  {"function name=f library=/l.so abi=c flags=1", "stream"},
                                  {"function name=f library=/l.so abi=c flags=65536", "flags"},
                                  {"function name=f library=/l.so abi=c symbol=", "symbol"},
                                  {"function name=" + std::string(256, 'x') + " library=/l.so abi=c", "255"},
                                  {"function name=%zz library=/l.so abi=c", "%"}}) {
    const Status status = Refused(good + line);
    EXPECT_EQ(status.message().rfind("line 2", 0), 0u) << status.message();
    EXPECT_NE(status.message().find(why), std::string::npos) << status.message();
  }
}

TEST(LoadText, HoldsAsManyFunctionsAsAProcess) {
  std::string text;
  for (uint32_t i = 0; i < segment::kMaxFunctions; ++i) {
    text += "function name=f" + std::to_string(i) + " library=/l.so abi=c\n";
  }
  EXPECT_TRUE(ParseLoadText(text).ok());
  (void)Refused(text + "function name=one_more library=/l.so abi=c\n");
}

}  // namespace
}  // namespace praas::function
