// What `praas inspect` says of segments that somebody wrote into who should not have.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "base/clock.h"
#include "segment/arena.h"
#include "segment/arena_head.h"
#include "segment/header_check.h"
#include "segment/inspect.h"
#include "segment/table_check.h"
#include "segment/test_segment.h"
#include "shm/memfd.h"
#include "shm/shared_memory.h"

namespace praas::segment {
namespace {

using dispatch::Participant;
using dispatch::ParticipantKind;
using dispatch::ParticipantState;
using praas::test::TestSegment;

constexpr uint64_t kMiB = 1u << 20;

/// A segment as it is in use: pool, functions, participants, a window, a stream.
class DamageTest : public ::testing::Test {
 protected:
  DamageTest() {
    Segment& segment = segment_.get();
    Header& header = this->header();
    auto fd = shm::CreateMemfd("praas-test-pool", 16 * kMiB, shm::Sealing::kFixed);
    EXPECT_TRUE(fd.ok());
    const uint64_t slots = uint64_t{header.calls.capacity} * 8192;
    const uint64_t arena_bytes = (16 * kMiB - slots) / 2;
    EXPECT_TRUE(Arena(segment, 1, fd->get(), slots, arena_bytes).Format().ok());
    EXPECT_TRUE(Arena(segment, 2, fd->get(), slots + arena_bytes, arena_bytes).Format().ok());
    EXPECT_TRUE(Arena::Data(segment, 0).Allocate(1000, {BlockOwner::Kind::kState, 0, 1}, NowNs()).ok());
    EXPECT_TRUE(segment.Commit(header.functions, 2).ok());
    EXPECT_TRUE(segment.Commit(header.windows, 1).ok());
    EXPECT_TRUE(segment.Commit(header.streams, 1).ok());
    segment.function(0).name = {3, "one"};
    segment.function(1).name = {3, "two"};
    segment.function(1).flags = kFunctionNative | kFunctionIdempotent;
    segment.function(1).max_output_pages = 9;
    header.function_count.store(2);
    header.function_hash.store(FunctionHash(segment, 2));
    header.doorbell_kind.store(1);
    Use(0, ParticipantKind::kHost, ::getpid());
    Use(1, ParticipantKind::kNodeWorker, 4001);
    Use(2, ParticipantKind::kNativeWorker, 4002);
    segment.window(0).bytes = kMiB;
    segment.window(0).client_pid = 77;
    segment.window(0).state.store(1);
    stream().in_use.store(1);
    stream().call = 3;
  }

  void Use(uint32_t index, ParticipantKind kind, int32_t pid) {
    Participant& participant = segment_.get().participant(index);
    participant.kind = static_cast<uint32_t>(kind);
    participant.pid.store(pid);
    participant.state.store(static_cast<uint32_t>(ParticipantState::kReady));
  }

  Header& header() { return segment_.get().header(); }
  dispatch::StreamRing& stream() { return segment_.get().At<dispatch::StreamRing>(header().streams, 0); }
  Participant& worker() { return segment_.get().participant(2); }

  /// As another process sees it. Fails the test when there is no description.
  std::string Inspected(const std::string& process_id = {}) {
    Result<std::string> text = InspectJson(segment_.name(), {.check = {}, .section = {}, .process_id = process_id});
    EXPECT_TRUE(text.ok()) << text.status().message();
    return text.ok() ? *text : std::string();
  }
  static std::string ViolationsOf(const std::string& text) {
    const size_t at = text.find("\"violations\":");
    return at == std::string::npos ? text : text.substr(at + 13, text.size() - at - 14);
  }
  static bool Refused(const std::string& text) { return text.find("\"refused\":") != std::string::npos; }

  /// Runs `damage` on a copy of `object`'s bytes that is taken back afterwards, and gives the violations.
  template <typename T, typename Damage>
  std::string After(T& object, Damage damage) {
    std::vector<std::byte> before(sizeof object);
    std::memcpy(before.data(), static_cast<void*>(&object), before.size());
    damage(object);
    const std::string text = Inspected();
    EXPECT_EQ(InspectJson(segment_.get()), text) << "its host sees something else";
    EXPECT_EQ(Refused(text), !Segment::Open(segment_.name(), false).ok());
    refused_ = Refused(text);
    std::memcpy(static_cast<void*>(&object), before.data(), before.size());
    return ViolationsOf(text);
  }

  TestSegment segment_{2 * kMiB, 16 * kMiB};
  bool refused_ = false;
};

std::string One(const std::string& violation) { return "[\"" + violation + "\"]"; }

TEST_F(DamageTest, IsNoneInASoundSegment) {
  const std::string text = Inspected("test");
  EXPECT_EQ(ViolationsOf(text), "[]");
  EXPECT_FALSE(Refused(text));
}

TEST_F(DamageTest, FieldsThatFollowFromTheSizes) {
  const auto number = [](uint64_t value) { return std::to_string(value); };
  const uint64_t meta = header().meta_bytes;
  EXPECT_EQ(After(header(), [](Header& h) { h.meta_bytes = 7; }),
            One("header.meta_bytes: expected " + number(meta) + ", found 7"));
  EXPECT_TRUE(refused_);
  EXPECT_EQ(After(header(), [](Header& h) { h.memory_bytes = 0; }),
            One("header.memory_bytes: expected 2097152, found 0"));
  EXPECT_EQ(After(header(), [](Header& h) { h.segment_bytes ^= 1ull << 40; }),
            One("header.segment_bytes: expected " + number(header().segment_bytes) + ", found " +
                number(header().segment_bytes ^ 1ull << 40)));
  EXPECT_EQ(After(header(), [](Header& h) { h.pool_bytes = UINT64_MAX; }),
            One("header.pool_bytes: expected 16777216, found 18446744073709551615"));
  EXPECT_EQ(After(header(), [](Header& h) { h.calls.capacity = 4096; }),
            One("header.calls.capacity: expected 1024, found 4096"));
  EXPECT_EQ(After(header(), [](Header& h) { h.layout_version = 77; }),
            One("header.layout_version: expected " + number(kLayoutVersion) + ", found 77"));
  EXPECT_EQ(After(header(), [](Header& h) { h.header_bytes = 1; }),
            One("header.header_bytes: expected " + number(sizeof(Header)) + ", found 1"));
  EXPECT_EQ(After(header(), [](Header& h) { h.state_head = 1; }),
            One("header.state_head: expected " + number(header().state_head) + ", found 1"));
  EXPECT_EQ(After(header(), [](Header& h) { h.arena_heads[2] = UINT64_MAX; }),
            One("header.arena_heads[2]: expected " + number(header().arena_heads[2]) + ", found 18446744073709551615"));
  EXPECT_EQ(After(header(),
                  [](Header& h) {
                    h.pins.offset = 3;
                    h.pins.stride = 4;
                  }),
            "[\"header.pins.offset: expected " + number(header().pins.offset) +
                ", found 3\",\"header.pins.stride: expected 32, found 4\"]");
  EXPECT_EQ(After(header(), [](Header& h) { h.locks.reserved = 5; }),
            One("header.locks.reserved: expected 0, found 5"));
  const std::string hash = After(header(), [](Header& h) { h.layout_hash = 0xabc; });
  EXPECT_EQ(hash.find("[\"header.layout_hash: expected 0x"), 0u) << hash;
  EXPECT_NE(hash.find(", found 0x0000000000000abc\"]"), std::string::npos) << hash;
}

TEST_F(DamageTest, FieldsThatOnlyTheChecksumKnows) {
  EXPECT_EQ(After(header(), [](Header& h) { h.magic.store(0x1234); }),
            One("header.magic: expected 0x3147455353415250, found 0x0000000000001234"));
  EXPECT_TRUE(refused_);
  const std::string checksum = After(header(), [](Header& h) { h.static_checksum = 1; });
  EXPECT_EQ(checksum.find("[\"header.static_checksum: expected 0x"), 0u) << checksum;
  EXPECT_NE(checksum.find(", found 0x0000000000000001 (it, created_wall_ns or process_id is damaged)\"]"),
            std::string::npos)
      << checksum;
  const std::string created = After(header(), [](Header& h) { h.created_wall_ns ^= 1; });
  EXPECT_EQ(created.find("[\"header.static_checksum: "), 0u) << created;
  EXPECT_EQ(After(header(), [](Header& h) { h.process_id.bytes[100] = 'x'; }),
            One("header.process_id: bytes behind the name are not zero"));
  EXPECT_EQ(After(header(), [](Header& h) { h.process_id.size = 2; }),
            One(R"(header.process_id: expected \"test\", found \"te\")"));
  EXPECT_EQ(After(header(), [](Header& h) { h.process_id.size = 0; }),
            One(R"(header.process_id: expected \"test\", found \"\")"));

  header().process_id.bytes[0] = 'b';
  EXPECT_EQ(ViolationsOf(Inspected()).find("[\"header.static_checksum: "), 0u);
  EXPECT_EQ(ViolationsOf(Inspected("test")), One(R"(header.process_id: expected \"test\", found \"best\")"));
}

TEST_F(DamageTest, FieldsThatChangeInUse) {
  EXPECT_EQ(After(header(), [](Header& h) { h.state_keys.committed.store(UINT32_MAX); }),
            One("header.state_keys.committed: expected at most " + std::to_string(header().state_keys.capacity) +
                ", found 4294967295"));
  EXPECT_TRUE(refused_);
  const std::string claim = After(header(), [](Header& h) { h.state_keys.committed.store(8192); });
  EXPECT_NE(claim.find("header.state_keys.committed: expected at most "), std::string::npos) << claim;
  EXPECT_NE(claim.find("(the memory there is), found 8192"), std::string::npos) << claim;
  // Many that are plausible each, and too many together.
  const std::string claims = After(header(), [](Header& h) {
    for (const NamedRegion& named : Regions(h)) {
      if (named.region != &h.calls) named.region->committed.store(std::min(600u, named.region->capacity));
    }
  });
  EXPECT_EQ(claims.find("[\"header: regions claim "), 0u) << claims;
  EXPECT_TRUE(refused_);
  EXPECT_EQ(After(header(), [](Header& h) { h.calls.committed.store(5); }),
            One("header.calls.committed: expected 1024, found 5"));
  EXPECT_TRUE(refused_);
  EXPECT_EQ(After(header(), [](Header& h) { h.participants.committed.store(0); })
                .find("[\"header.participants.committed: expected at least 5 (memory was written), found 0\"]"),
            0u);
  EXPECT_TRUE(refused_);
  const std::string count = std::to_string(header().functions.committed.load());
  EXPECT_EQ(After(header(), [](Header& h) { h.function_count.store(70000); })
                .find("[\"header.function_count: expected at most " + count + ", found 70000\""),
            0u);
  EXPECT_TRUE(refused_);

  EXPECT_EQ(After(header(), [](Header& h) { h.host_generation.store(0); }),
            One("header.host_generation: expected at least 1, found 0"));
  EXPECT_FALSE(refused_);
  EXPECT_EQ(After(header(), [](Header& h) { h.clean_shutdown.store(9); }),
            One("header.clean_shutdown: expected at most 1, found 9"));
  EXPECT_EQ(After(header(), [](Header& h) { h.doorbell_kind.store(3); }),
            One("header.doorbell_kind: expected at most 2, found 3"));
  EXPECT_EQ(After(header(), [](Header& h) { h.hints[0].queued[20].store(4); }),
            One("header.hints[0].queued: bit 1282 is set, of 1024"));
  const std::string participants = std::to_string(header().participants.committed.load());
  EXPECT_EQ(After(header(), [](Header& h) { h.hints[1].hot[15].store(1ull << 63); }),
            One("header.hints[1].hot: bit 1023 is set, of " + participants));
  EXPECT_EQ(After(header(), [](Header& h) { h.hints[1].sleepers[15].store(1); }),
            One("header.hints[1].sleepers: bit 960 is set, of " + participants));
}

TEST_F(DamageTest, TheTablesOfARefusedSegmentAreShown) {
  header().state_head = 12;
  worker().kind = 9;
  const std::string text = Inspected();
  EXPECT_TRUE(Refused(text));
  EXPECT_NE(text.find(R"("refused":"the segment's header is damaged (offsets))"), std::string::npos) << text;
  EXPECT_NE(text.find(R"("functions":[{"name":"one","flags":0},{"name":"two","flags":6}])"), std::string::npos);
  EXPECT_NE(text.find(R"("clientPid":77)"), std::string::npos);
  EXPECT_NE(text.find(R"("arenas":{"data":{"limitBytes":2097152)"), std::string::npos);
  EXPECT_NE(text.find("header.state_head: "), std::string::npos);
  EXPECT_NE(text.find("participants[2].kind: "), std::string::npos);
}

TEST_F(DamageTest, AnOverwrittenHeaderIsToldFromTheRest) {
  const uint64_t meta = header().meta_bytes;
  for (const int filler : {0xff, 0x00, 0x41}) {
    HeaderCopy before;
    std::memcpy(before.bytes, segment_.get().base(), sizeof before.bytes);
    std::memset(segment_.get().base(), filler, sizeof(Header));
    const std::string text = Inspected("test");
    EXPECT_NE(text.find(R"("processId":"test")"), std::string::npos) << text;
    EXPECT_NE(text.find("header.meta_bytes: expected " + std::to_string(meta)), std::string::npos) << text;
    EXPECT_NE(text.find("header.calls.capacity: expected 1024"), std::string::npos) << text;
    EXPECT_NE(text.find(R"("pid":4002)"), std::string::npos) << "participants are there";
    std::memcpy(segment_.get().base(), before.bytes, sizeof before.bytes);
  }
  EXPECT_EQ(ViolationsOf(Inspected()), "[]");
}

TEST_F(DamageTest, ATruncatedObject) {
  const uint64_t bytes = header().segment_bytes;
  const uint64_t calls = header().calls.offset;
  segment_.Leave();
  auto object = shm::Open(segment_.name(), shm::OpenMode::kReadWrite);
  ASSERT_TRUE(object.ok());
  for (const uint64_t size : {bytes - 1, bytes + 4096, calls + 100}) {
    ASSERT_TRUE(shm::Resize(object->fd.get(), size).ok());
    const std::string text = Inspected();
    EXPECT_TRUE(Refused(text));
    EXPECT_NE(text.find("object: expected " + std::to_string(bytes) + " bytes, found " + std::to_string(size)),
              std::string::npos)
        << text;
  }
  ASSERT_TRUE(shm::Resize(object->fd.get(), 5000).ok());
  EXPECT_NE(Inspected().find("found 5000"), std::string::npos) << "a header is enough";
  ASSERT_TRUE(shm::Resize(object->fd.get(), 100).ok());
  EXPECT_EQ(InspectJson(segment_.name()).status().code(), Code::kSegmentInvalid);
  ASSERT_TRUE(shm::Resize(object->fd.get(), 0).ok());
  EXPECT_EQ(InspectJson(segment_.name()).status().code(), Code::kSegmentInvalid);
}

TEST_F(DamageTest, WhatIsNoSegmentIsAnError) {
  segment_.Leave();
  auto object = shm::Open(segment_.name(), shm::OpenMode::kReadWrite);
  ASSERT_TRUE(object.ok());
  const std::vector<std::byte> text(1 << 16, std::byte{'t'});
  ASSERT_TRUE(shm::Resize(object->fd.get(), 0).ok());
  ASSERT_TRUE(shm::WriteAll(object->fd.get(), 0, text));
  const Status status = InspectJson(segment_.name()).status();
  EXPECT_EQ(status.code(), Code::kSegmentInvalid);
  EXPECT_NE(status.message().find("the object is no segment"), std::string::npos) << status.message();
}

TEST_F(DamageTest, Participants) {
  EXPECT_EQ(After(worker(), [](Participant& p) { p.state.store(9); }),
            One("participants[2].state: expected one of free, starting, ready, draining, dead, found 9"));
  EXPECT_FALSE(refused_);
  EXPECT_EQ(After(worker(), [](Participant& p) { p.kind = 0; }),
            One("participants[2].kind: expected 1 (Node worker) or 2 (native worker), found 0"));
  EXPECT_EQ(After(segment_.get().participant(0), [](Participant& p) { p.kind = 1; }),
            One("participants[0].kind: expected 0 (host), found 1"));
  EXPECT_EQ(After(worker(), [](Participant& p) { p.pid.store(-5); }),
            One("participants[2].pid: expected 1 … 4194304, found -5"));
  EXPECT_EQ(After(worker(), [](Participant& p) { p.pid.store(4001); }), "[]") << "threads of one program";
  EXPECT_EQ(After(worker(), [](Participant& p) { p.credit.store(1ull << 32); }),
            One("participants[2].credit: expected none, idle, or a call of 1024, found 4294967296"));
  EXPECT_EQ(After(worker(), [](Participant& p) { p.credit.store(1026); }),
            One("participants[2].credit: expected none, idle, or a call of 1024, found 1026"));
  EXPECT_EQ(After(worker(), [](Participant& p) { p.credit.store(dispatch::PackCredit({1023, 7})); }), "[]");
  EXPECT_EQ(After(worker(), [](Participant& p) { p.sleeping.store(2); }),
            One("participants[2].sleeping: expected at most 1, found 2"));
  EXPECT_EQ(After(worker(), [](Participant& p) { p.watches.store(2); }),
            One("participants[2].watches: expected at most 1, found 2"));
  EXPECT_EQ(After(worker(), [](Participant& p) { p.running.store(UINT32_MAX); }),
            One("participants[2].running: expected at most 1024, found 4294967295"));
  EXPECT_EQ(After(worker(), [](Participant& p) { p.notices.store(64); }),
            One("participants[2].notices: expected at most 63, found 64"));
  EXPECT_EQ(After(worker(), [](Participant& p) { p.completions[16].store(1); }),
            One("participants[2].completions: bit 1024 is set, of 1024"));
  for (const size_t which : {0, 1, 2}) {
    EXPECT_EQ(After(worker(),
                    [which](Participant& p) {
                      if (which == 0) p.reserved[6] = 1;
                      if (which == 1) p.reserved2[7] = 1;
                      if (which == 2) p.counters.reserved[0].store(1);
                    }),
              One("participants[2].reserved: not zero, though nobody writes it"));
  }
  EXPECT_EQ(After(worker(), [](Participant& p) { p.counters.calls.store(UINT64_MAX); }), "[]") << "may be anything";
}

TEST_F(DamageTest, Functions) {
  Function& two = segment_.get().function(1);
  const std::string hash = std::to_string(header().function_hash.load());
  EXPECT_EQ(After(header(), [](Header& h) { h.function_hash.store(4); }),
            One("header.function_hash: expected " + hash + " (of names and flags), found 4"));
  const auto differs = [&](auto damage) {
    const std::string found = After(two, damage);
    EXPECT_NE(found.find("header.function_hash: expected "), std::string::npos) << found;
    EXPECT_NE(found.find(", found " + hash), std::string::npos) << found;
    return found;
  };
  differs([](Function& f) { f.flags ^= 1; });
  differs([](Function& f) { f.flags ^= kFunctionNative; });
  differs([](Function& f) { f.max_output_pages = 10; });
  differs([](Function& f) { f.name.bytes[1] = 'W'; });
  EXPECT_EQ(
      differs([](Function& f) { f.name.size = 0; }).find("[\"functions[1].name: expected 1 … 255 bytes, found 0\""),
      0u);
  EXPECT_EQ(differs([](Function& f) {
              f.name.size = 200;
            }).find("[\"functions[1].name.size: 200, but the name ends elsewhere\""),
            0u);
  EXPECT_EQ(After(two, [](Function& f) { f.name.bytes[254] = 'x'; }),
            One("functions[1].name.size: 3, but the name ends elsewhere"));
  EXPECT_EQ(After(two, [](Function& f) { f.reserved[3] = 1; }),
            One("functions[1].reserved: not zero, though nobody writes it"));
}

TEST_F(DamageTest, Windows) {
  WindowSlot& slot = segment_.get().window(0);
  const std::string participants = std::to_string(header().participants.committed.load());
  EXPECT_EQ(After(slot, [](WindowSlot& w) { w.state.store(3); }), One("windows[0].state: expected at most 2, found 3"));
  EXPECT_EQ(After(slot, [](WindowSlot& w) { w.poller.store(999); }),
            One("windows[0].poller: expected a participant of " + participants + ", found 999"));
  EXPECT_EQ(After(slot, [](WindowSlot& w) { w.consumer.store(999); }),
            One("windows[0].consumer: expected at most " + participants + ", found 999"));
  EXPECT_EQ(After(slot, [](WindowSlot& w) { w.client_pid = -1; }),
            One("windows[0].client_pid: expected 0 … 4194304, found -1"));
  EXPECT_EQ(After(slot, [](WindowSlot& w) { w.bytes = 0; }),
            One("windows[0].bytes: expected 1 … 1099511627776, found 0"));
  EXPECT_EQ(After(slot, [](WindowSlot& w) { w.turns.store(UINT32_MAX); }), "[]") << "may be anything";
  EXPECT_EQ(After(slot, [](WindowSlot& w) { w.reserved[3] = 1; }),
            One("windows[0].reserved: not zero, though nobody writes it"));
}

TEST_F(DamageTest, Streams) {
  using dispatch::StreamRing;
  EXPECT_EQ(After(stream(), [](StreamRing& s) { s.in_use.store(2); }),
            One("streams[0].in_use: expected at most 1, found 2"));
  EXPECT_EQ(After(stream(), [](StreamRing& s) { s.call = 1024; }),
            One("streams[0].call: expected a call of 1024, found 1024"));
  EXPECT_EQ(After(stream(), [](StreamRing& s) { s.input.end.store(3); }),
            One("streams[0].input.end: expected at most 2, found 3"));
  EXPECT_EQ(After(stream(), [](StreamRing& s) { s.output.tail.store(17); }),
            One("streams[0].output.tail: 17 is not 0 (head) to 16"));
  EXPECT_EQ(After(stream(), [](StreamRing& s) { s.output.tail.store(1); }),
            One("streams[0].output.chunks[0]: does not lie in a block of its arena"));
}

TEST_F(DamageTest, Arenas) {
  const auto head = [this](uint32_t which) -> ArenaHead& {
    return *reinterpret_cast<ArenaHead*>(segment_.get().base() + header().arena_heads[which]);
  };
  const auto finds = [&](uint32_t which, auto damage, const std::string& what) {
    // A host takes the mutex for its own look, which a damaged one does not give.
    std::vector<std::byte> before(sizeof(ArenaHead));
    std::memcpy(before.data(), static_cast<void*>(&head(which)), before.size());
    damage(head(which));
    const std::string text = Inspected();
    std::memcpy(static_cast<void*>(&head(which)), before.data(), before.size());
    EXPECT_NE(ViolationsOf(text).find(what), std::string::npos) << text;
    EXPECT_FALSE(Refused(text));
  };
  finds(
      0, [](ArenaHead& h) { std::memset(static_cast<void*>(&h.mutex), 0, sizeof h.mutex); },
      "arenas.data.mutex: expected kind ");
  // The futex word comes first: a thread id that is none, and a participant behind it.
  finds(
      0, [](ArenaHead& h) { *reinterpret_cast<uint32_t*>(&h.mutex) = 0x3fffffff; },
      "arenas.data.mutex: held by thread 1073741823, which does not run");
  finds(
      0, [](ArenaHead& h) { h.limit_bytes = 1; }, "state memory: bounds differ from the segment's");
  finds(
      0, [](ArenaHead& h) { h.last = UINT32_MAX; }, "state memory: neighbour links lead to block 4294967295 wrongly");
  finds(
      0, [](ArenaHead& h) { h.damaged.store(1); }, "state memory: marked as damaged");
  finds(
      1, [](ArenaHead& h) { h.limit_bytes = 0; }, "arenas.inputs.limit_bytes: expected 1 … 4194304, found 0");
  finds(
      2, [](ArenaHead& h) { h.base_offset = UINT64_MAX; },
      "arenas.outputs.base_offset: expected at most 16777216, found 18446744073709551615");
}

/// Bits that change in use may have any value that looks sound; all others are noticed by name.
TEST_F(DamageTest, EveryByteOfTheFixedHeaderIsNamed) {
  const auto fixed = [](size_t at) {
    if (at >= offsetof(Header, host_generation) && at < offsetof(Header, participants)) return false;
    if (at >= offsetof(Header, futex_queue) + sizeof(uint64_t)) return false;  // padding
    const size_t first = offsetof(Header, participants);
    return at < first || at >= first + kRegionCount * sizeof(Region) ||
           (at - first) % sizeof(Region) / 4 != offsetof(Region, committed) / 4;
  };
  for (size_t at = 0; at < sizeof(Header); ++at) {
    if (!fixed(at)) continue;
    std::byte& byte = segment_.get().base()[at];
    byte ^= std::byte{1} << (at % 8);
    const std::string text = Inspected("test");
    byte ^= std::byte{1} << (at % 8);
    ASSERT_TRUE(Refused(text)) << at;
    ASSERT_EQ(ViolationsOf(text).find("[\"header."), 0u) << at << ": " << text;
    ASSERT_EQ(ViolationsOf(text).find("\",\""), std::string::npos) << "one field only; " << at << ": " << text;
  }
}

/// Whatever is written anywhere: a description or an error, and the segment sound again when it is taken back.
TEST_F(DamageTest, WildWritesNeverCrashAnInspection) {
  std::mt19937 random(1);
  std::byte* const base = segment_.get().base();
  const uint64_t backed[] = {0,
                             header().arena_heads[0],
                             header().arena_heads[1],
                             header().participants.offset,
                             header().functions.offset,
                             header().windows.offset,
                             header().calls.offset,
                             header().streams.offset,
                             header().arena_blocks[0].offset,
                             header().arena_blocks[1].offset};
  std::vector<std::byte> before;
  for (int round = 0; round < 300; ++round) {
    const size_t size = 1u << random() % 12;
    std::byte* const at = base + backed[random() % std::size(backed)] + random() % (8192 - size);
    before.assign(at, at + size);
    const uint32_t pattern = random() % 4;
    for (size_t i = 0; i < size; ++i) at[i] = static_cast<std::byte>(pattern == 0 ? 0 : pattern == 1 ? 255 : random());
    (void)InspectJson(segment_.name());
    std::memcpy(at, before.data(), size);
  }
  EXPECT_EQ(ViolationsOf(Inspected()), "[]");
}

}  // namespace
}  // namespace praas::segment
