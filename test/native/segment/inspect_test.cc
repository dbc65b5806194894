#include "segment/inspect.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "base/clock.h"
#include "base/process_id.h"
#include "segment/arena.h"
#include "segment/call_check.h"
#include "segment/table_check.h"
#include "segment/test_segment.h"
#include "shm/memfd.h"

namespace praas::segment {
namespace {

using dispatch::CallEntry;
using dispatch::CallState;
using dispatch::CallWord;
using praas::test::TestSegment;

constexpr uint64_t kMiB = 1u << 20;

bool Has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(Inspect, AFreshSegmentIsSound) {
  TestSegment segment(kMiB);
  auto text = InspectJson(segment.name());
  ASSERT_TRUE(text.ok()) << text.status().message();
  EXPECT_TRUE(Has(*text, R"("processId":"test")")) << *text;
  EXPECT_TRUE(Has(*text, R"("hostGeneration":1)"));
  EXPECT_TRUE(Has(*text, R"("participants":[],"functions":[],"windows":[],"calls":[])"));
  EXPECT_TRUE(Has(*text, R"("arenas":{"data":{"limitBytes":1048576)"));
  EXPECT_FALSE(Has(*text, R"("inputs":{)")) << "no host has made a pool";
  EXPECT_TRUE(Has(*text, R"("violations":[]})"));
}

TEST(Inspect, ShowsWhatIsInUse) {
  TestSegment test_segment(kMiB, 2 * kMiB);
  Segment& segment = test_segment.get();
  Header& header = segment.header();
  ASSERT_TRUE(segment.Commit(header.functions, 1).ok());
  ASSERT_TRUE(segment.Commit(header.windows, 3).ok());
  segment.function(0).name = {5,
                              "a\"b\xff"
                              "c"};
  header.function_count.store(1);
  header.function_hash.store(FunctionHash(segment, 1));
  segment.window(2).state.store(1);
  segment.window(2).bytes = kMiB;
  segment.window(2).client_pid = 77;
  dispatch::Participant& host = segment.participant(0);
  host.pid.store(::getpid());
  host.pid_start_time = ProcessId::Self().start_time;
  host.state.store(2);
  host.counters.calls.store(12);
  segment.call(5).word.store(CallWord{3, 0, CallState::kQueued, 0}.Pack());
  segment.call(5).input.bytes = 99;
  auto fd = shm::CreateMemfd("praas-test-pool", 2 * kMiB, shm::Sealing::kFixed);
  ASSERT_TRUE(fd.ok());
  Arena inputs(segment, 1, fd->get(), 0, kMiB);
  ASSERT_TRUE(inputs.Format().ok());
  ASSERT_TRUE(inputs.Allocate(1000, {BlockOwner::Kind::kCall, 0, 5}, NowNs()).ok());

  const std::string text =
      InspectJson(segment, {.check = [](const Segment&) { return std::vector<std::string>{"state: odd"}; },
                            .section = {},
                            .process_id = {}});
  EXPECT_TRUE(Has(text,
                  "\"functions\":[{\"name\":\"a\\\"b\xef\xbf\xbd"
                  "c\",\"flags\":0}]"))
      << text;
  EXPECT_TRUE(Has(text, R"("windows":[{"index":2,"state":"open","generation":0,"clientPid":77)"));
  EXPECT_TRUE(Has(
      text, R"({"index":0,"role":"host","state":"ready","pid":)" + std::to_string(::getpid()) + R"(,"alive":true)"));
  EXPECT_TRUE(Has(text, R"("calls":12)"));
  EXPECT_TRUE(Has(text, R"("calls":[{"index":5,"state":"queued","generation":3)"));
  EXPECT_TRUE(Has(text, R"("inputBytes":99)"));
  EXPECT_TRUE(Has(text, R"("inputs":{"limitBytes":1048576,"committedBytes":1048576,"usedBytes":1024)"));
  EXPECT_TRUE(Has(text, R"("violations":["state: odd"]})"));
  auto outside = InspectJson(test_segment.name());
  ASSERT_TRUE(outside.ok());
  EXPECT_TRUE(Has(*outside, R"("violations":[]})")) << *outside;
}

TEST(Inspect, NamesWhatIsWrong) {
  TestSegment test_segment(kMiB);
  Segment& segment = test_segment.get();
  ASSERT_TRUE(segment.Commit(segment.header().functions, 2).ok());
  ASSERT_TRUE(segment.Commit(segment.header().streams, 1).ok());
  segment.header().function_count.store(2);
  EXPECT_TRUE(CheckCalls(segment).empty());
  const auto finding = [&](auto damage) {
    CallEntry& entry = segment.call(7);
    std::memset(static_cast<void*>(&entry), 0, sizeof entry);
    CallWord word{1, 0, CallState::kQueued, 0};
    damage(entry, word);
    entry.word.store(word.Pack());
    const std::vector<std::string> findings = CheckCalls(segment);
    std::memset(static_cast<void*>(&entry), 0, sizeof entry);
    return findings.size() == 1 ? findings[0] : std::to_string(findings.size()) + " findings";
  };
  EXPECT_EQ(finding([](auto&, auto&) {}), "0 findings");
  EXPECT_EQ(finding([](auto&, auto& word) { word.state = static_cast<CallState>(7); }), "call 7 is in no known state");
  EXPECT_EQ(finding([](auto&, auto& word) {
              word.state = CallState::kClaimed;
              word.owner = 85;
            }),
            "call 7 belongs to participant 85, which does not exist");
  EXPECT_EQ(finding([](auto& e, auto&) { e.kind = static_cast<dispatch::CallKind>(3); }), "call 7 is of no known kind");
  EXPECT_EQ(finding([](auto& e, auto&) { e.origin = static_cast<dispatch::Origin>(3); }), "call 7 comes from nobody");
  EXPECT_EQ(finding([](auto& e, auto&) { e.origin = dispatch::Origin::kWindow; }), "call 7 comes from nobody");
  EXPECT_EQ(finding([](auto& e, auto&) { e.input.place = static_cast<dispatch::Place>(5); }),
            "call 7 has its input in no known place");
  EXPECT_EQ(finding([](auto& e, auto&) {
              e.input.place = dispatch::Place::kPoolInput;
              e.input.block = 1;
            }),
            "call 7 has its input in a block that does not exist");
  EXPECT_EQ(finding([](auto& e, auto&) { e.output.place = dispatch::Place::kPoolOutput; }), "0 findings")
      << "not there yet";
  EXPECT_EQ(finding([](auto& e, auto& word) {
              e.output.place = dispatch::Place::kPoolOutput;
              word.state = CallState::kDone;
            }),
            "call 7 has its output in a block that does not exist");
  EXPECT_EQ(finding([](auto& e, auto&) { e.stream = 500; }), "call 7 names a stream that does not exist");
  EXPECT_EQ(finding([&](auto& e, auto&) {
              segment.At<dispatch::StreamRing>(segment.header().streams, 0).in_use.store(1);
              e.kind = dispatch::CallKind::kStream;
              e.stream = 1;
            }),
            "call 7 names another call's stream");
  EXPECT_EQ(finding([](auto& e, auto&) { e.function = 2; }), "call 7 is for function 2 of 2");
  EXPECT_EQ(finding([](auto& e, auto&) { e.flags = 1u << 9; }), "call 7 has unknown flags");
  EXPECT_EQ(finding([](auto& e, auto&) { e.cancel.store(3); }), "call 7 is neither cancelled nor not");
  EXPECT_EQ(finding([](auto& e, auto&) { e.reserved = 1; }), "call 7 has bytes other than zero where nobody writes");
  EXPECT_EQ(finding([](auto&, auto& word) { word.flags = 0x80; }), "call 7 has unknown flags in its word");
  const auto slot = [](uint64_t offset, uint64_t bytes) {
    return dispatch::PayloadRef{.offset = offset, .bytes = bytes, .block = 0, .place = dispatch::Place::kSlot};
  };
  EXPECT_EQ(finding([&](auto& e, auto&) { e.input = slot(7 * 8192, 4096); }), "0 findings");
  EXPECT_EQ(finding([&](auto& e, auto&) { e.input = slot(7 * 8192, 4097); }),
            "call 7 has its input outside of its slot");
  EXPECT_EQ(finding([&](auto& e, auto&) { e.input = slot(8 * 8192, 1); }), "call 7 has its input outside of its slot");

  auto got = Arena::Data(segment, 0).Allocate(100, {BlockOwner::Kind::kState, 0, 1}, NowNs());
  ASSERT_TRUE(got.ok());
  Arena::Data(segment, 0).mutable_block(got->block).bytes += 64;
  EXPECT_TRUE(Has(InspectJson(segment), "state memory: block"));
  EXPECT_TRUE(Has(*InspectJson(test_segment.name()), "state memory: block"));
}

TEST(Inspect, RefusesWhatIsNoSegment) {
  EXPECT_EQ(InspectJson("/praas-test-absent").status().sys_errno(), ENOENT);
  EXPECT_EQ(InspectJson("x").status().code(), Code::kArgumentInvalid);
}

}  // namespace
}  // namespace praas::segment
