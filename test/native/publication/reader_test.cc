#include "publication/reader.h"

#include <signal.h>

#include <atomic>
#include <thread>

#include "block.h"
#include "support/child.h"

namespace praas::publication {
namespace {

using praas::test::Child;
using praas::test::Signpost;

/// Both ways of reading give the same.
Got Read(const Block& block, std::optional<Location> location = std::nullopt) {
  const Location at = location.value_or(block.location);
  const Got mapped = Mapped(block.area.memory(), at);
  for (const uint64_t expected : {uint64_t{0}, uint64_t{100}, UINT64_MAX}) {
    EXPECT_EQ(mapped, FetchedFrom(block.area.memory(), at, expected));
  }
  return mapped;
}

const Got kAsked{Verdict::kAsk, 0, false, ""};
const Got kElsewhereNow{Verdict::kMoved, 0, false, ""};

TEST(Reader, ReadsWhatWasWritten) {
  const Block block;
  block.Write(5, "value");
  EXPECT_EQ(Read(block), (Got{Verdict::kRead, 5, false, "value"}));
  block.Write(6, "");
  EXPECT_EQ(Read(block), (Got{Verdict::kRead, 6, false, ""}));
  const std::string all(block.location.capacity, 'a');
  block.Write(7, all);
  EXPECT_EQ(Read(block), (Got{Verdict::kRead, 7, false, all}));
}

TEST(Reader, KnowsThatThereIsNoKey) {
  const Block block;
  block.Write(5, "value");
  block.WriteNothing(8, kAbsent);
  EXPECT_EQ(Read(block), (Got{Verdict::kRead, 8, true, ""}));
}

TEST(Reader, AsksForWhatIsNotThere) {
  const Block block;
  EXPECT_EQ(Read(block), kAsked);  // nothing was written yet
  block.Write(5, "value");
  block.WriteNothing(6, kElsewhere);
  EXPECT_EQ(Read(block), kAsked);
}

TEST(Reader, AsksWhenTheTruthHasChanged) {
  const Block block;
  block.Write(5, "value");
  block.writer().Supersede(6);
  EXPECT_EQ(Read(block), kAsked);
  block.Write(6, "new");
  EXPECT_EQ(Read(block).value, "new");
}

TEST(Reader, AsksWhileAValueIsBeingWritten) {
  const Block block;
  block.Write(5, "value");
  Writer writer = block.writer();
  writer.Begin();
  EXPECT_EQ(Read(block), kAsked);
  writer.Fill(std::as_bytes(std::span("other")));
  EXPECT_EQ(Read(block), kAsked);
}

TEST(Reader, NoticesAnotherPublicationInItsPlace) {
  const Block block;
  block.Write(5, "value");
  Location other = block.location;
  other.id = 8;
  EXPECT_EQ(Read(block, other), kElsewhereNow);
  block.writer().Close();
  EXPECT_EQ(Read(block), kElsewhereNow);
  block.writer().Open(8);
  block.Write(6, "of another");
  EXPECT_EQ(Read(block), kElsewhereNow);
  EXPECT_EQ(Read(block, other).value, "of another");
}

TEST(Reader, BelievesNoSizeBeyondTheBlock) {
  const Block block(2 * kPageBytes);
  block.Write(5, std::string(5000, 'x'));
  Location smaller = block.location;
  smaller.capacity = CapacityOf(1);
  EXPECT_EQ(Read(block, smaller), kAsked);
}

TEST(Reader, FetchesOnceWhatIsExpected) {
  const Block block;
  block.Write(5, std::string(1000, 'x'));
  Device device(block.area.memory());
  EXPECT_EQ(ReadFetched(std::ref(device), block.location, 1000).verdict, Verdict::kRead);
  EXPECT_EQ(device.fetches(), 1u);
  EXPECT_EQ(ReadFetched(std::ref(device), block.location, 0).verdict, Verdict::kRead);
  EXPECT_EQ(device.fetches(), 3u);
}

TEST(Reader, AsksWhenNothingCanBeFetched) {
  const Block block;
  block.Write(5, "value");
  const auto nothing = [](const Location&, uint64_t) { return std::span<const std::byte>(); };
  EXPECT_EQ(ReadFetched(nothing, block.location, 0).verdict, Verdict::kAsk);
}

TEST(Reader, AsksWithoutMemory) {
  const Block block;
  block.Write(5, "value");
  const auto none = [](uint64_t) { return std::span<std::byte>(); };
  EXPECT_EQ(ReadMapped(block.area.memory(), block.location, none).verdict, Verdict::kAsk);
}

TEST(Reader, EveryChangedBitIsNoticed) {
  const Block block;
  block.Write(5, "0123456789");
  const std::span<std::byte> memory = block.memory();
  std::vector<std::byte> fetched(memory.begin(), memory.begin() + kHeadBytes + 10);
  ASSERT_EQ(Examine(fetched, block.location).outcome.verdict, Verdict::kRead);
  for (size_t bit = 0; bit < fetched.size() * 8; ++bit) {
    const size_t byte = bit / 8;
    if (byte >= offsetof(Head, reserved) && byte < kHeadBytes) continue;                          // means nothing
    if (byte >= offsetof(Head, sequence) && byte < offsetof(Head, latest) && bit % 64) continue;  // how often, only
    fetched[byte] ^= std::byte{1} << bit % 8;
    const Fetched examined = Examine(fetched, block.location);
    EXPECT_FALSE(examined.state == Fetched::State::kWhole && examined.outcome.verdict == Verdict::kRead) << bit;
    fetched[byte] ^= std::byte{1} << bit % 8;
  }
}

/// A value that says by itself whether it is whole: its size and its bytes follow from the version.
std::string ValueOf(uint64_t version, uint64_t capacity) {
  std::string value(version * 1237 % (capacity + 1), '\0');
  for (size_t i = 0; i < value.size(); ++i) value[i] = static_cast<char>(version + i / 8 * 31);
  return value;
}

template <typename ReadOnce>
void ReadUnderAWriter(uint64_t capacity, uint32_t reads, ReadOnce read_once) {
  const Block block(capacity);
  block.Write(1, ValueOf(1, capacity));
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (uint64_t version = 2; !stop.load(); ++version) {
      if (version % 16 == 0) {
        block.WriteNothing(version, version % 32 == 0 ? kAbsent : kElsewhere);
      } else {
        block.Write(version, ValueOf(version, capacity));
      }
      if (version % 4 == 0) ::sched_yield();
    }
  });
  uint64_t last = 0;
  uint32_t read = 0;
  for (uint32_t i = 0; i < reads || (read < reads / 20 && i < 200 * reads); ++i) {
    const Got got = read_once(block);
    if (got.verdict == Verdict::kAsk) continue;
    ASSERT_EQ(got.verdict, Verdict::kRead);
    ASSERT_GE(got.version, last);
    last = got.version;
    ASSERT_EQ(got.absent, got.version % 32 == 0);
    if (!got.absent) {
      ASSERT_EQ(got.value, ValueOf(got.version, capacity)) << got.version;
    }
    ++read;
  }
  stop.store(true);
  writer.join();
  EXPECT_GE(read, reads / 20);
}

#if defined(__SANITIZE_THREAD__)
constexpr uint32_t kReads = 2'000;
#else
constexpr uint32_t kReads = 20'000;
#endif

TEST(TornReads, AreNoticedInMappedMemory) {
  for (const uint64_t capacity : {64, 4032}) {
    ReadUnderAWriter(capacity, kReads, [](const Block& block) { return Mapped(block.area.memory(), block.location); });
  }
}

TEST(TornReads, AreNoticedInWhatWasFetchedInAnyOrder) {
  for (const uint64_t capacity : {64, 1024}) {
    Device* device = nullptr;
    std::optional<Device> made;
    ReadUnderAWriter(capacity, kReads / 4, [&](const Block& block) {
      if (device == nullptr) device = &made.emplace(block.area.memory());
      return Copied(ReadFetched(std::ref(*device), block.location, 512));
    });
  }
}

TEST(Writers, ThatAreStoppedOrKilledLeaveNothingToBelieve) {
  const Block block(CapacityOf(64));
  block.Write(1, "before");
  const Signpost began;
  Child child = Child::Fork([&] {
    Writer writer = block.writer();
    writer.Supersede(2);
    writer.Begin();
    began.Set();
    const std::string value(block.location.capacity, 'x');
    for (;;) writer.Fill(std::as_bytes(std::span(value)));
    return 0;
  });
  began.Await();
  child.Signal(SIGSTOP);
  child.WaitStopped();
  EXPECT_EQ(Read(block), kAsked);
  child.Kill();
  EXPECT_EQ(Read(block), kAsked);
  block.Write(2, "after");
  EXPECT_EQ(Read(block), (Got{Verdict::kRead, 2, false, "after"}));
}

}  // namespace
}  // namespace praas::publication
