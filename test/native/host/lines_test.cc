// The agent's line protocol, assignments, and cutting of workers' output.

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <random>

#include "host/assignment.h"
#include "host/log_file.h"
#include "host/worker_link.h"
#include "protocol/agent_line.h"

namespace praas::host {
namespace {

TEST(AgentLine, ComesBackAsItWas) {
  const std::string text = "a b=c%\n\xF0\x9F\x98\x80/\"";
  std::string line = protocol::FormatAgentLine("assign", {{"token", text}, {"empty", ""}});
  ASSERT_EQ(line.back(), '\n');
  line.pop_back();
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const Result<protocol::AgentLine> parsed = protocol::ParseAgentLine(line);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed.value().verb, "assign");
  EXPECT_EQ(parsed.value().Text("token"), text);
  EXPECT_EQ(parsed.value().Text("empty", "fallback"), "");
  EXPECT_EQ(parsed.value().Text("missing", "fallback"), "fallback");
}

TEST(AgentLine, BadUtf8IsReplaced) {
  // decodeURIComponent of the other side throws at a byte that is no UTF-8.
  EXPECT_EQ(protocol::FormatAgentLine("log", {{"message",
                                               "\xFF"
                                               "a\xC3"}}),
            "log message=%EF%BF%BDa%EF%BF%BD\n");
}

TEST(AgentLine, MalformedLinesAreRefused) {
  for (const char* line : {"", " ", "Assign", "as-sign", "assign key", "assign =v", "assign k=1 k=2", "assign k=%",
                           "assign k=%4", "assign k=%zz", "assign k1=v", "averyveryveryveryveryverylongverbxx k=v"}) {
    const Result<protocol::AgentLine> parsed = protocol::ParseAgentLine(line);
    EXPECT_EQ(parsed.status().code(), Code::kArgumentInvalid) << line;
  }
}

TEST(AgentLine, NumbersHaveBounds) {
  const Result<protocol::AgentLine> line =
      protocol::ParseAgentLine("drain a=5 b=-1 c=x d=99999999999999999999 e=5.5 f=");
  ASSERT_TRUE(line.ok());
  EXPECT_EQ(line.value().Number("a", 0, 0, 5).value(), 5);
  EXPECT_EQ(line.value().Number("missing", 7, 0, 5).value(), 7);
  EXPECT_FALSE(line.value().Number("a", 0, 0, 4).ok());
  for (const char* key : {"b", "c", "d", "e", "f"}) EXPECT_FALSE(line.value().Number(key, 0, 0, 100).ok()) << key;
}

TEST(AgentLine, RandomBytesNeverDoHarm) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const std::string alphabet = "asigndrop =%0aF\n\t\xff";
  for (int i = 0; i < 20'000; ++i) {
    std::string line;
    for (size_t length = random() % 40; length > 0; --length) line.push_back(alphabet[random() % alphabet.size()]);
    (void)protocol::ParseAgentLine(line).ok();
  }
}

TEST(LineSplitter, CutsAndBounds) {
  protocol::LineSplitter lines;
  lines.Add("one\ntw");
  EXPECT_EQ(lines.Next().value(), "one");
  EXPECT_EQ(lines.Next().value(), std::nullopt);
  lines.Add("o\n\nthree\n");
  EXPECT_EQ(lines.Next().value(), "two");
  EXPECT_EQ(lines.Next().value(), "");
  EXPECT_EQ(lines.Next().value(), "three");
  EXPECT_EQ(lines.Next().value(), std::nullopt);
  lines.Add(std::string(protocol::kMaxAgentLine, 'x'));
  EXPECT_TRUE(lines.Next().ok());
  lines.Add("x");
  EXPECT_FALSE(lines.Next().ok());
}

constexpr const char* kComplete =
    "assign process=p segment=%2Fs queue=%2Fq key=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

TEST(Assignment, DefaultsAndValues) {
  const Result<Assignment> parsed =
      ParseAssignment(protocol::ParseAgentLine(std::string(kComplete) +
                                               " listen=%5B%3A%3A1%5D%3A80 hotMs=-1 calls=4096 workers=3 memory=65536")
                          .value());
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  ASSERT_EQ(parsed.value().key.size(), 32u);
  EXPECT_EQ(parsed.value().key[31], 31);
  EXPECT_EQ(parsed.value().listen_host, "::1");
  EXPECT_EQ(parsed.value().listen_port, 80);
  EXPECT_EQ(parsed.value().hot_ms, -1);
  EXPECT_EQ(parsed.value().calls, 4096u);
  EXPECT_EQ(parsed.value().workers, 3u);
  EXPECT_EQ(parsed.value().app, "{}");
  EXPECT_EQ(parsed.value().grace_ms, 100u);
}

TEST(Assignment, EveryFieldIsChecked) {
  for (const char* wrong : {"calls=0", "calls=4097", "workers=0", "hotMs=-2", "timeoutMs=0", "maxContiguous=4294967296",
                            "listen=1.2.3.4", "listen=a%3A65536", "listen=a%3A-1", "windowBytes=1", "memory=1x"}) {
    const Result<protocol::AgentLine> line = protocol::ParseAgentLine(std::string(kComplete) + " " + wrong);
    ASSERT_TRUE(line.ok());
    EXPECT_EQ(ParseAssignment(line.value()).status().code(), Code::kArgumentInvalid) << wrong;
  }
  for (const char* line : {"assign segment=%2Fs queue=%2Fq", "assign process=p segment=s queue=%2Fq",
                           "assign process=p segment=%2Fa%2Fb queue=%2Fq"}) {
    const std::string with_key = std::string(line) + " key=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    EXPECT_EQ(ParseAssignment(protocol::ParseAgentLine(with_key).value()).status().code(), Code::kArgumentInvalid)
        << line;
  }
}

TEST(Assignment, TheKeyIsNeverRepeated) {
  for (const std::string key : {"", "c2VjcmV0", "not!base64!secret", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8A"}) {
    const std::string line = "assign process=p segment=%2Fs queue=%2Fq key=" + key;
    const Status status = ParseAssignment(protocol::ParseAgentLine(line).value()).status();
    EXPECT_EQ(status.code(), Code::kArgumentInvalid) << key;
    EXPECT_NE(status.message().find("key"), std::string::npos);
    if (key.empty()) continue;
    EXPECT_EQ(status.message().find(key), std::string::npos) << status.message();
  }
}

TEST(OutputLines, LongLinesAreCut) {
  OutputLines lines;
  std::vector<std::string> got;
  const auto emit = [&](std::string_view line) { got.emplace_back(line); };
  lines.Add("a\nb", emit);
  lines.Add("c\n", emit);
  lines.Add(std::string(OutputLines::kMaxLine + 3, 'x'), emit);
  lines.Flush(emit);
  EXPECT_EQ(got, (std::vector<std::string>{"a", "bc", std::string(OutputLines::kMaxLine, 'x'), "xxx"}));
}

TEST(LogFile, Rotates) {
  const std::string path = "/tmp/praas-test-log-" + std::to_string(::getpid());
  {
    LogFile log(path, 200);
    for (int i = 0; i < 10; ++i) log.Line(1, "stdout", "line " + std::to_string(i));
  }
  struct stat now {
  }, before{};
  EXPECT_EQ(::stat(path.c_str(), &now), 0);
  EXPECT_EQ(::stat((path + ".1").c_str(), &before), 0);
  EXPECT_LT(now.st_size, 300);
  EXPECT_LT(before.st_size, 300);
  ::unlink(path.c_str());
  ::unlink((path + ".1").c_str());
}

TEST(WorkerEnd, JsonFits) {
  WorkerEnd end{.signal = 9, .exit_code = 0, .stderr_tail = "bye"};
  EXPECT_EQ(end.Json(4096), R"({"signal":9,"stderr":"bye"})");
  end.stderr_tail = std::string(4096, '"') + "end";
  const std::string json = end.Json(4096);
  EXPECT_LE(json.size(), 4096u);
  EXPECT_TRUE(json.ends_with("end\"}"));
  EXPECT_GT(json.size(), 2048u);
}

}  // namespace
}  // namespace praas::host
