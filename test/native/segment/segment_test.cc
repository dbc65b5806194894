#include "segment/segment.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstring>
#include <future>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "segment/arena.h"
#include "segment/header_check.h"
#include "segment/test_segment.h"
#include "shm/shared_memory.h"
#include "support/child.h"

namespace praas::segment {
namespace {

using praas::test::Child;
using praas::test::Signpost;
using praas::test::UniqueSegmentName;

constexpr uint64_t kMiB = 1u << 20;

class SegmentTest : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_TRUE(Segment::Unlink(name_).ok()); }

  CreateOptions Options() const {
    CreateOptions options;
    options.name = name_;
    options.process_id = "p";
    options.memory_bytes = 2 * kMiB;
    options.pool_bytes = kMiB;
    options.calls = 64;
    return options;
  }
  Segment Make() {
    auto segment = Segment::CreateOrAttach(Options());
    EXPECT_TRUE(segment.ok()) << segment.status().message();
    return std::move(segment).value();
  }
  Code Outcome(const CreateOptions& options) { return Segment::CreateOrAttach(options).status().code(); }
  Code OpenOutcome() { return Segment::Open(name_, false).status().code(); }
  bool Exists() { return shm::Open(name_, shm::OpenMode::kReadOnly).ok(); }

  std::string name_ = UniqueSegmentName();
};

TEST_F(SegmentTest, AFreshOneIsSmallAndWhole) {
  CreateOptions options = Options();
  options = {.name = name_, .process_id = "grid/7", .format = {}};
  auto created = Segment::CreateOrAttach(options);
  ASSERT_TRUE(created.ok()) << created.status().message();
  const Segment segment = std::move(created).value();
  const Header& header = segment.header();
  EXPECT_FALSE(segment.attached());
  EXPECT_TRUE(segment.writable());
  EXPECT_EQ(header.magic.load(), kMagic);
  EXPECT_EQ(std::string(header.process_id.bytes, header.process_id.size), "grid/7");
  EXPECT_EQ(header.host_generation.load(), 1u);
  EXPECT_EQ(header.memory_bytes, options.memory_bytes);
  EXPECT_EQ(segment.data_bytes(), options.memory_bytes);
  EXPECT_EQ(segment.data() - segment.base(), static_cast<ptrdiff_t>(header.meta_bytes));
  EXPECT_EQ(header.calls.committed.load(), dispatch::kDefaultCalls);
  EXPECT_EQ(segment.call(dispatch::kDefaultCalls - 1).word.load(), 0u);
  EXPECT_EQ(segment.participant(0).state.load(), 0u);

  struct stat info {};
  ASSERT_EQ(::fstat(segment.fd(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(static_cast<uint64_t>(info.st_size), header.segment_bytes);
  EXPECT_LE(info.st_blocks * 512, 512 * 1024) << "must fit in a 64 MiB /dev/shm many times";
}

TEST_F(SegmentTest, RegionsDoNotOverlapAndEndBeforeTheData) {
  const Segment segment = Make();
  uint64_t end = segment.header().futex_queue + kFutexQueueBytes;
  for (const NamedRegion& named : Regions(segment.header())) {
    EXPECT_GE(named.region->offset, end) << named.name;
    EXPECT_EQ(named.region->offset % kPageBytes, 0u);
    end = named.region->offset + static_cast<uint64_t>(named.region->stride) * named.region->capacity;
  }
  EXPECT_LE(end, segment.header().meta_bytes);
}

TEST_F(SegmentTest, TheNextHostFindsWhatTheLastOneLeft) {
  uint64_t offset = 0;
  {
    const Segment segment = Make();
    auto got = Arena::Data(segment, 0).Allocate(100, {BlockOwner::Kind::kState, 0, 1}, NowNs());
    ASSERT_TRUE(got.ok());
    offset = got->offset;
    std::memcpy(segment.base() + offset, "hello", 5);
  }
  CreateOptions options = Options();
  options.memory_bytes = 64 * kMiB;  // the sizes of the existing one win
  options.calls = 7;
  auto next = Segment::CreateOrAttach(options);
  ASSERT_TRUE(next.ok()) << next.status().message();
  EXPECT_TRUE(next->attached());
  EXPECT_EQ(next->header().host_generation.load(), 2u);
  EXPECT_EQ(next->header().memory_bytes, 2 * kMiB);
  EXPECT_EQ(next->header().calls.capacity, 64u);
  EXPECT_EQ(std::memcmp(next->base() + offset, "hello", 5), 0);
  EXPECT_TRUE(Arena::Data(*next, 0).Recover().ok());
  EXPECT_EQ(Arena::Data(*next, 0).usage().used_blocks, 1u);
}

TEST_F(SegmentTest, ADamagedCountHidesNoRecords) {
  uint64_t offset = 0;
  uint32_t committed = 0;
  {
    const Segment segment = Make();
    Arena arena = Arena::Data(segment, 0);
    for (int i = 0; i < 3; ++i) {
      auto got = arena.Allocate(100, {BlockOwner::Kind::kState, 0, 1}, NowNs());
      ASSERT_TRUE(got.ok());
      offset = got->offset;
    }
    committed = segment.header().arena_blocks[0].committed.exchange(1);
    ASSERT_GT(committed, 3u);
  }
  const Segment segment = Make();
  ASSERT_TRUE(segment.attached());
  EXPECT_GE(segment.header().arena_blocks[0].committed.load(), 4u);
  EXPECT_LE(segment.header().arena_blocks[0].committed.load(), committed);
  Arena arena = Arena::Data(segment, 0);
  ASSERT_TRUE(arena.Recover().ok());
  EXPECT_EQ(arena.Check(), std::vector<std::string>());
  auto got = arena.Allocate(100, {BlockOwner::Kind::kState, 0, 1}, NowNs());
  ASSERT_TRUE(got.ok());
  EXPECT_GT(got->offset, offset);  // behind those that were there
}

TEST_F(SegmentTest, OneHostAtATime) {
  Signpost held;
  Child host = Child::Fork([&] {
    const auto segment = Segment::CreateOrAttach(Options());
    if (!segment.ok()) return 1;
    held.Set();
    for (;;) ::pause();
  });
  held.Await();
  EXPECT_EQ(Outcome(Options()), Code::kProcessBusy);
  EXPECT_EQ(OpenOutcome(), Code::kOk) << "looking needs no lock";
  host.Signal(SIGSTOP);
  host.WaitStopped();
  EXPECT_EQ(Outcome(Options()), Code::kProcessBusy) << "a stopped host still is one";
  host.Kill();
  const Segment mine = Make();
  EXPECT_TRUE(mine.attached());
  EXPECT_EQ(Outcome(Options()), Code::kProcessBusy) << "within one OS process, too";
}

TEST_F(SegmentTest, DescriptorsGivenAwayDoNotKeepTheLock) {
  Signpost ready;
  Signpost never;
  auto segment = Segment::CreateOrAttach(Options());
  ASSERT_TRUE(segment.ok());
  const UniqueFd given(::fcntl(segment->fd(), F_DUPFD_CLOEXEC, 0));
  { Segment gone = std::move(segment).value(); }
  EXPECT_TRUE(Make().attached());
}

/// A host that is killed between vfork and exec of a worker leaves a child that has its descriptors for a moment more.
TEST_F(SegmentTest, AHostWaitsForTheRemainsOfItsPredecessor) {
  auto options = Options();
  options.lock_wait_ns = 60'000'000'000;
  std::optional<Segment> before = Make();
  auto next = std::async(std::launch::async, [&] { return Segment::CreateOrAttach(options); });
  EXPECT_EQ(next.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout) << "it has not waited";
  before.reset();
  const auto attached = next.get();
  ASSERT_TRUE(attached.ok()) << attached.status().message();
  EXPECT_TRUE(attached->attached());
}

TEST_F(SegmentTest, MovingKeepsAddressesAndTheLock) {
  Segment first = Make();
  std::byte* const base = first.base();
  Segment second = std::move(first);
  EXPECT_EQ(second.base(), base);
  EXPECT_EQ(Outcome(Options()), Code::kProcessBusy);
  {
    const std::string other = UniqueSegmentName();
    CreateOptions options = Options();
    options.name = other;
    auto third = Segment::CreateOrAttach(options);
    ASSERT_TRUE(third.ok());
    second = std::move(third).value();
    EXPECT_TRUE(Segment::Unlink(other).ok());
  }
  EXPECT_TRUE(Make().attached()) << "the target of the move was released";
}

TEST_F(SegmentTest, ProcessesShareItAtWhateverAddress) {
  const Segment segment = Make();
  Child worker = Child::Fork([&] {
    auto mapped = Segment::Open(name_, true);
    if (!mapped.ok() || mapped->attached()) return 1;
    Arena arena = Arena::Data(*mapped, 1);
    auto got = arena.Allocate(5, {BlockOwner::Kind::kParticipant, 1, 42}, DeadlineIn(1'000'000'000));
    if (!got.ok()) return 2;
    std::memcpy(mapped->base() + got->offset, "child", 5);
    mapped->participant(1).pid.store(static_cast<int32_t>(got->block));
    return mapped->Commit(mapped->header().windows, 10).ok() ? 0 : 3;
  });
  ASSERT_EQ(worker.Wait(), 0);
  const Arena arena = Arena::Data(segment, 0);
  const auto block = static_cast<uint32_t>(segment.participant(1).pid.load());
  EXPECT_EQ(arena.owner(block), (BlockOwner{BlockOwner::Kind::kParticipant, 1, 42}));
  EXPECT_EQ(std::memcmp(segment.base() + arena.block(block).offset, "child", 5), 0);
  EXPECT_GE(segment.header().windows.committed.load(), 10u);
  EXPECT_EQ(segment.window(9).state.load(), 0u);
}

TEST_F(SegmentTest, LimitsOfTheOptions) {
  const auto with = [this](auto change) {
    CreateOptions options = Options();
    change(options);
    return Outcome(options);
  };
  EXPECT_EQ(with([](auto& o) { o.process_id = ""; }), Code::kNameInvalid);
  EXPECT_EQ(with([](auto& o) { o.process_id = std::string(256, 'x'); }), Code::kNameInvalid);
  EXPECT_EQ(with([](auto& o) { o.memory_bytes = kMinMemoryBytes - 1; }), Code::kArgumentInvalid);
  EXPECT_EQ(with([](auto& o) { o.memory_bytes = kMaxMemoryBytes + 1; }), Code::kArgumentInvalid);
  EXPECT_EQ(with([](auto& o) { o.pool_bytes = kMinPoolBytes - 1; }), Code::kArgumentInvalid);
  EXPECT_EQ(with([](auto& o) { o.pool_bytes = kMaxMemoryBytes + 1; }), Code::kArgumentInvalid);
  EXPECT_EQ(with([](auto& o) { o.calls = 0; }), Code::kArgumentInvalid);
  EXPECT_EQ(with([](auto& o) { o.calls = dispatch::kMaxCalls + 1; }), Code::kArgumentInvalid);
  EXPECT_EQ(with([](auto& o) { o.name = "no-slash"; }), Code::kArgumentInvalid);
  EXPECT_FALSE(Exists());
  const auto works = [&](auto change) {
    EXPECT_EQ(with(change), Code::kOk);
    EXPECT_EQ(OpenOutcome(), Code::kOk);
    EXPECT_TRUE(Segment::Unlink(name_).ok());
  };
  works([](auto& o) { o.process_id = std::string(255, 'x'); });
  works([](auto& o) {
    o.memory_bytes = kMinMemoryBytes;
    o.pool_bytes = kMinPoolBytes;
    o.calls = 1;
  });
  works([](auto& o) { o.memory_bytes = kMinMemoryBytes + 1; });
  works([](auto& o) {
    o.memory_bytes = kMaxMemoryBytes;
    o.pool_bytes = kMaxMemoryBytes;
    o.calls = dispatch::kMaxCalls;
  });
}

TEST_F(SegmentTest, AnotherProcessesSegmentIsRefused) {
  { Make(); }
  CreateOptions options = Options();
  options.process_id = "q";
  EXPECT_EQ(Outcome(options), Code::kSegmentInvalid);
  EXPECT_TRUE(Make().attached());
}

TEST_F(SegmentTest, ForeignObjectsAreRefusedAndKept) {
  auto object = shm::Open(name_, shm::OpenMode::kCreate);
  ASSERT_TRUE(object.ok());
  const std::string text = "somebody's data";
  ASSERT_EQ(::pwrite(object->fd.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  EXPECT_EQ(Outcome(Options()), Code::kSegmentInvalid);
  EXPECT_EQ(OpenOutcome(), Code::kSegmentInvalid);
  char buffer[32] = {};
  ASSERT_EQ(::pread(object->fd.get(), buffer, sizeof buffer, 0), static_cast<ssize_t>(text.size()));
  EXPECT_EQ(text, buffer);

  ASSERT_TRUE(shm::Resize(object->fd.get(), 0).ok());
  const uint64_t magic = kMagic;
  ASSERT_EQ(::pwrite(object->fd.get(), &magic, sizeof magic, 0), 8);
  EXPECT_EQ(Outcome(Options()), Code::kSegmentInvalid) << "too short for a header";
}

TEST_F(SegmentTest, ATruncatedObjectIsRefused) {
  uint64_t bytes = 0;
  {
    const Segment segment = Make();
    bytes = segment.header().segment_bytes;
  }
  auto object = shm::Open(name_, shm::OpenMode::kReadWrite);
  ASSERT_TRUE(object.ok());
  for (const uint64_t size : {bytes - 1, bytes + 1, bytes / 2, uint64_t{8192}, uint64_t{100}}) {
    ASSERT_TRUE(shm::Resize(object->fd.get(), size).ok());
    EXPECT_EQ(Outcome(Options()), Code::kSegmentInvalid) << size;
  }
  ASSERT_TRUE(shm::Resize(object->fd.get(), 0).ok());
  EXPECT_FALSE(Make().attached()) << "empty: as good as new";
}

TEST_F(SegmentTest, OneThatMustExistIsNotMadeAnew) {
  CreateOptions options = Options();
  options.must_exist = true;
  const auto segment = Segment::CreateOrAttach(options);
  EXPECT_EQ(segment.status().code(), Code::kSegmentInvalid);
  EXPECT_NE(segment.status().message().find("is gone, and the state of process"), std::string::npos);
  EXPECT_FALSE(Exists());
  { const Segment made = Make(); }
  EXPECT_TRUE(Segment::CreateOrAttach(options)->attached());
  auto object = shm::Open(name_, shm::OpenMode::kReadWrite);
  ASSERT_TRUE(object.ok() && shm::Resize(object->fd.get(), 0).ok());
  EXPECT_EQ(Outcome(options), Code::kSegmentInvalid);
  EXPECT_TRUE(Exists()) << "it is for its owner to look at";
}

TEST_F(SegmentTest, EveryFlippedBitOfTheFixedHeaderIsNoticed) {
  { Make(); }
  auto object = shm::Open(name_, shm::OpenMode::kReadWrite);
  ASSERT_TRUE(object.ok());
  const int fd = object->fd.get();
  std::vector<uint8_t> header(sizeof(Header));
  ASSERT_EQ(::pread(fd, header.data(), header.size(), 0), static_cast<ssize_t>(header.size()));
  const auto changes_in_use = [](size_t at) {
    if (at >= offsetof(Header, host_generation) && at < offsetof(Header, participants)) return true;
    if (at >= offsetof(Header, futex_queue) + sizeof(uint64_t)) return true;  // padding
    const size_t first = offsetof(Header, participants);
    return at >= first && at < first + kRegionCount * sizeof(Region) &&
           (at - first) % sizeof(Region) / 4 == offsetof(Region, committed) / 4;
  };
  uint32_t refused = 0;
  for (size_t at = 0; at < sizeof(Header); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      const auto flipped = static_cast<uint8_t>(header[at] ^ 1u << bit);
      ASSERT_EQ(::pwrite(fd, &flipped, 1, static_cast<off_t>(at)), 1);
      const Code code = OpenOutcome();
      refused += code == Code::kSegmentInvalid;
      if (!changes_in_use(at)) {
        ASSERT_EQ(code, Code::kSegmentInvalid) << "byte " << at << " bit " << bit;
      }
      ASSERT_EQ(::pwrite(fd, &header[at], 1, static_cast<off_t>(at)), 1);
    }
  }
  EXPECT_GT(refused, 8 * (sizeof(Name) + kRegionCount * 20));
  EXPECT_EQ(OpenOutcome(), Code::kOk);
}

TEST_F(SegmentTest, ClaimedMemoryHasToBeThere) {
  { Make(); }
  auto object = shm::Open(name_, shm::OpenMode::kReadWrite);
  ASSERT_TRUE(object.ok());
  const auto claim = [&](size_t region, uint32_t committed) {
    EXPECT_EQ(::pwrite(object->fd.get(), &committed, 4, static_cast<off_t>(region + offsetof(Region, committed))), 4);
    return OpenOutcome();
  };
  const size_t keys = offsetof(Header, state_keys);
  EXPECT_EQ(claim(keys, UINT32_MAX), Code::kSegmentInvalid) << "more than the capacity";
  EXPECT_EQ(claim(keys, 8192), Code::kSegmentInvalid) << "4 MiB that are not there";
  EXPECT_EQ(claim(keys, 0), Code::kOk);
  EXPECT_EQ(claim(offsetof(Header, calls), 63), Code::kSegmentInvalid);
  EXPECT_EQ(claim(offsetof(Header, calls), 64), Code::kOk);
  EXPECT_EQ(claim(offsetof(Header, participants), 0), Code::kSegmentInvalid);
}

TEST_F(SegmentTest, CommitIsIdempotentAndBounded) {
  const Segment segment = Make();
  Region& keys = segment.header().state_keys;
  EXPECT_EQ(keys.committed.load(), 0u);
  ASSERT_TRUE(segment.Commit(keys, 1).ok());
  EXPECT_EQ(keys.committed.load(), 64 * 1024 / kStateKeyStride);
  ASSERT_TRUE(segment.Commit(keys, 1).ok());
  ASSERT_TRUE(segment.Commit(keys, 0).ok());
  EXPECT_EQ(keys.committed.load(), 64 * 1024 / kStateKeyStride);
  ASSERT_TRUE(segment.Commit(keys, keys.capacity).ok());
  EXPECT_EQ(keys.committed.load(), keys.capacity);
  EXPECT_EQ(segment.At<uint8_t>(keys, keys.capacity - 1), 0);
  EXPECT_EQ(segment.Commit(keys, keys.capacity + 1).code(), Code::kStateMemory);

  // A stride that does not divide the step: the record the last step cut is whole after the next.
  Region& functions = segment.header().functions;
  ASSERT_TRUE(segment.Commit(functions, 1).ok());
  const uint32_t first = functions.committed.load();
  EXPECT_EQ(first, 64 * 1024 / sizeof(Function));
  segment.function(first - 1).flags = 9;
  ASSERT_TRUE(segment.Commit(functions, first + 1).ok());
  std::memset(&segment.function(first), 0xff, sizeof(Function));
  EXPECT_EQ(segment.function(first - 1).flags, 9u);
}

TEST_F(SegmentTest, CommitRacesWithItself) {
  const Segment segment = Make();
  Region& pins = segment.header().pins;
  std::vector<std::thread> threads;
  for (uint32_t self = 0; self < 4; ++self) {
    threads.emplace_back([&segment, &pins, self] {
      for (uint32_t count = 1; count < 40000; count += 1000 + self) {
        ASSERT_TRUE(segment.Commit(pins, count).ok());
        ASSERT_GE(pins.committed.load(), count);
        segment.At<std::atomic<uint32_t>>(pins, count - 1).fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(SegmentTest, ACreatorThatFailsLeavesNothing) {
  CreateOptions options = Options();
  options.format = [](const Segment&) { return Status(Code::kInternal, "no"); };
  EXPECT_EQ(Outcome(options), Code::kInternal);
  EXPECT_FALSE(Exists());
}

TEST_F(SegmentTest, ACreatorThatDiesIsStartedOver) {
  CreateOptions options = Options();
  options.format = [](const Segment& segment) {
    std::memset(segment.base() + segment.header().state_head, 0xff, kStateHeadBytes);
    ::raise(SIGKILL);
    return Status::Ok();
  };
  Child creator = Child::Fork([&] { return Segment::CreateOrAttach(options).ok() ? 0 : 1; });
  EXPECT_EQ(creator.Wait(), 128 + SIGKILL);
  EXPECT_TRUE(Exists());
  EXPECT_EQ(OpenOutcome(), Code::kSegmentInvalid);
  options.format = [](const Segment& segment) {
    EXPECT_EQ(segment.base()[segment.header().state_head], std::byte{0});
    return Status::Ok();
  };
  auto segment = Segment::CreateOrAttach(options);
  ASSERT_TRUE(segment.ok()) << segment.status().message();
  EXPECT_FALSE(segment->attached());
}

TEST_F(SegmentTest, AnUnlinkedSegmentIsNotServedAgain) {
  const Segment orphan = Make();
  ASSERT_TRUE(Segment::Unlink(name_).ok());
  EXPECT_EQ(Segment::Open(name_, false).status().sys_errno(), ENOENT);
  const Segment successor = Make();
  EXPECT_FALSE(successor.attached());
  EXPECT_NE(orphan.base(), successor.base());
}

TEST_F(SegmentTest, AReadOnlyMappingCannotBeWritten) {
  const Segment segment = Make();
  Child reader = Child::Fork([&] {
    ::signal(SIGSEGV, SIG_DFL);  // a sanitizer's handler would turn it into a report
    auto mapped = Segment::Open(name_, false);
    if (!mapped.ok() || mapped->writable()) return 1;
    mapped->header().repairs.store(1);
    return 2;
  });
  EXPECT_EQ(reader.Wait(), 128 + SIGSEGV);
}

/// Runs `body` where /dev/shm is a tmpfs of `size`; 77 = not allowed here.
template <typename Body>
int WithSmallShm(const char* size, Body body) {
  Child child = Child::Fork([&] {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", "/dev/shm", "tmpfs", 0, (std::string("size=") + size).c_str()) != 0) {
      return 77;
    }
    return body();
  });
  return child.Wait();
}

TEST_F(SegmentTest, AFullDevShmIsAnErrorOfTheCallThatNeededMemory) {
  const int tiny = WithSmallShm("64k", [this] {
    const auto segment = Segment::CreateOrAttach(Options());
    if (segment.status().code() != Code::kStateMemory) return 1;
    if (segment.status().message().find("/dev/shm") == std::string::npos) return 2;
    return Exists() ? 3 : 0;
  });
  if (tiny == 77) GTEST_SKIP() << "needs the right to mount a small tmpfs";
  EXPECT_EQ(tiny, 0);

  const int small = WithSmallShm("3m", [this] {
    CreateOptions options = Options();
    options.memory_bytes = 64 * kMiB;
    auto created = Segment::CreateOrAttach(options);
    if (!created.ok()) return 1;
    const Segment segment = std::move(created).value();
    Arena arena = Arena::Data(segment, 0);
    std::vector<uint32_t> blocks;
    for (;;) {
      auto got = arena.Allocate(64 * 1024, {BlockOwner::Kind::kState, 0, 1}, DeadlineIn(30'000'000'000));
      if (!got.ok()) {
        if (got.status().code() != Code::kStateMemory || got.status().sys_errno() != ENOSPC) return 2;
        break;
      }
      std::memset(segment.base() + got->offset, 1, got->bytes);  // SIGBUS if it is not backed
      blocks.push_back(got->block);
    }
    // The last step is as large as there is room for, not a whole mebibyte.
    if (blocks.size() * 64 * 1024 + 512 * 1024 < 2 * kMiB) return 3;
    if (segment.Commit(segment.header().locks, 4096).code() != Code::kStateMemory) return 4;
    if (!arena.Check().empty()) return 5;
    for (const uint32_t block : blocks) {
      if (!arena.Free(block, DeadlineIn(30'000'000'000)).ok()) return 6;
    }
    if (!arena.Trim(0).ok() || !segment.Commit(segment.header().locks, 4096).ok()) return 7;
    return arena.Check().empty() ? 0 : 8;
  });
  EXPECT_EQ(small, 0);
}

}  // namespace
}  // namespace praas::segment
