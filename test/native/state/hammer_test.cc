#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <array>
#include <map>
#include <random>

#include "../support/child.h"
#include "store_fixture.h"

/// Processes that use one store as fast as they can and are killed at random instants.
namespace praas::test {
namespace {

constexpr int kWriters = 3;
constexpr int kKeysEach = 8;

/// A value that knows whether it is whole: writer, key and round in front, filler that follows from them behind.
std::string MakeValue(uint32_t writer, uint32_t key, uint64_t round) {
  std::mt19937_64 random(round * 1'000 + writer * 100 + key);
  const size_t bytes = 24 + random() % (random() % 4 == 0 ? 20'000 : 300);
  std::string value(bytes, '\0');
  const uint64_t head[3] = {writer, key, round};
  std::memcpy(value.data(), head, sizeof head);
  for (size_t i = sizeof head; i < bytes; ++i) value[i] = static_cast<char>(round + i * 7 + key);
  return value;
}

uint64_t RoundOf(std::string_view value) {
  uint64_t head[3] = {};
  if (value.size() >= sizeof head) std::memcpy(head, value.data(), sizeof head);
  return head[2];
}

/// Shared with the children: what each began and what the store acknowledged. Every fourth round deletes.
struct Ledger {
  std::array<std::array<std::atomic<uint64_t>, kKeysEach>, kWriters> begun{};
  std::array<std::array<std::atomic<uint64_t>, kKeysEach>, kWriters> done{};
  std::atomic<uint64_t> operations{};
};

class HammerTest : public StoreTest {
 protected:
  HammerTest() {
    void* memory = ::mmap(nullptr, sizeof(Ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) ::_exit(98);
    ledger_ = new (memory) Ledger;
  }
  ~HammerTest() override { ::munmap(ledger_, sizeof(Ledger)); }

  static std::string KeyName(uint32_t writer, uint32_t key) {
    return "w" + std::to_string(writer) + "/" + std::to_string(key);
  }

  /// Never returns unless something is wrong.
  int Write(uint32_t writer, uint64_t seed) {
    Participant self(segment(), static_cast<uint16_t>(writer + 1));
    std::mt19937_64 random(seed);
    for (;;) {
      const auto key = static_cast<uint32_t>(random() % kKeysEach);
      const std::string name = KeyName(writer, key);
      const uint64_t round = ledger_->begun[writer][key].load() + 1;
      ledger_->begun[writer][key].store(round);
      if (round % 4 == 0) {
        if (!self.store.Delete(name, std::nullopt, Soon()).ok()) return 2;
      } else if (!self.store.Set(name, AsBytes(MakeValue(writer, key, round)), {.deadline_ns = Soon()}).ok()) {
        return 3;
      }
      ledger_->done[writer][key].store(round);

      // Somebody else's key: whole, whatever its writer is doing.
      const auto other = static_cast<uint32_t>(random() % kWriters);
      const auto others_key = static_cast<uint32_t>(random() % kKeysEach);
      if (!Whole(self.store, other, others_key)) return 4;

      const std::string record(random() % 8 == 0 ? 5'000 : 16, static_cast<char>('a' + writer));
      if (!self.store.Append("log", AsBytes(std::to_string(record.size()) + ":" + record), Soon()).ok()) return 5;
      if (random() % 64 == 0 && !self.store.Delete("log", std::nullopt, Soon()).ok()) return 6;

      Result<state::StateStore::LockTicket> ticket = self.store.Lock(
          "lock", state::StateStore::LockMode::kWrite, {static_cast<uint16_t>(writer + 1), round}, Soon());
      if (!ticket.ok() || !self.store.Unlock(ticket->holder, Soon()).ok()) return 7;
      ledger_->operations.fetch_add(1);
    }
  }

  static bool Whole(state::StateStore& store, uint32_t writer, uint32_t key) {
    Result<std::vector<std::byte>> value = store.Get(KeyName(writer, key), Soon());
    if (!value.ok()) return value.status().code() == Code::kStateNotFound;
    const std::string text = AsText(*value);
    return text == MakeValue(writer, key, RoundOf(text));
  }

  /// The value is that of the last acknowledged operation, or of the one that was under way when the writer was killed.
  void ExpectNothingLost(uint32_t writer) {
    for (uint32_t key = 0; key < kKeysEach; ++key) {
      const uint64_t done = ledger_->done[writer][key].load();
      const uint64_t begun = ledger_->begun[writer][key].load();
      const std::optional<std::string> value = Get(KeyName(writer, key));
      const auto is = [&](uint64_t round) {
        if (round == 0 || round % 4 == 0) return !value.has_value();
        return value.has_value() && *value == MakeValue(writer, key, round);
      };
      EXPECT_TRUE(is(done) || is(begun)) << KeyName(writer, key) << ": acknowledged round " << done << ", begun "
                                         << begun << ", found " << (value ? RoundOf(*value) : 0);
      // The next life goes on from what is there.
      if (is(begun)) {
        ledger_->done[writer][key].store(begun);
      } else {
        ledger_->begun[writer][key].store(done);
      }
    }
  }

  /// The log is a sequence of whole records.
  void ExpectLogWhole() {
    const std::optional<std::string> log = Get("log");
    if (!log) return;
    size_t at = 0;
    while (at < log->size()) {
      const size_t colon = log->find(':', at);
      ASSERT_NE(colon, std::string::npos) << "at " << at;
      const size_t bytes = std::stoul(log->substr(at, colon - at));
      ASSERT_LE(colon + 1 + bytes, log->size());
      ASSERT_EQ(log->substr(colon + 1, bytes), std::string(bytes, log->at(colon + 1)));
      at = colon + 1 + bytes;
    }
  }

  Ledger* ledger_;
};

TEST_F(HammerTest, NothingAcknowledgedIsLostAndNothingIsTorn) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::vector<Child> children;
  std::vector<uint32_t> writers;
  const auto start = [&](uint32_t writer) {
    const uint64_t child_seed = random();
    children.push_back(Child::Fork([&] { return Write(writer, child_seed); }));
    writers.push_back(writer);
  };
  for (uint32_t writer = 0; writer < kWriters; ++writer) start(writer);

  constexpr int kKills = 40;
  for (int i = 0; i < kKills; ++i) {
    // The instant is chosen by progress, not by time: after some more operations of everybody.
    const uint64_t until = ledger_->operations.load() + 1 + random() % 60;
    while (ledger_->operations.load() < until) {
      int status = 0;
      for (Child& child : children) ASSERT_EQ(::waitpid(child.pid(), &status, WNOHANG), 0) << "a writer gave up";
      for (int spin = 0; spin < 1'000 && ledger_->operations.load() < until; ++spin) ::sched_yield();
    }
    const size_t victim = random() % children.size();
    const uint32_t writer = writers[victim];
    EXPECT_EQ(children[victim].Kill(), 128 + SIGKILL);
    std::vector<Child> others;
    std::vector<uint32_t> others_writers;
    for (size_t c = 0; c < children.size(); ++c) {
      if (c == victim) continue;
      others.push_back(std::move(children[c]));
      others_writers.push_back(writers[c]);
    }
    children.swap(others);
    writers.swap(others_writers);
    const Status status = store().ReclaimParticipant(static_cast<uint16_t>(writer + 1), Soon());
    ASSERT_TRUE(status.ok()) << status.message();
    ExpectNothingLost(writer);
    ExpectLogWhole();
    if (HasFailure()) break;
    start(writer);
  }
  for (Child& child : children) child.Kill();
  for (uint32_t writer = 0; writer < kWriters; ++writer) {
    ASSERT_TRUE(store().ReclaimParticipant(static_cast<uint16_t>(writer + 1), Soon()).ok());
    ExpectNothingLost(writer);
  }
  ExpectLogWhole();
  ExpectSound();
  ExpectBlocks(store().key_count());
  EXPECT_EQ(records().head().pins.used.load(), 0u);
  EXPECT_EQ(records().head().holders.used.load(), 0u);
  EXPECT_EQ(records().head().locks.used.load(), 0u);
  RecordProperty("operations", std::to_string(ledger_->operations.load()));
  RecordProperty("repairs", std::to_string(records().head().repairs.load()));
}

}  // namespace
}  // namespace praas::test
