#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "support/stepped.h"

/// Death at any instruction, without trying each: of the instructions between two changes of what others can see, one
/// is as good as another.
///
/// KillAtEveryChange kills a victim after each change and lets a test look at what that left. LookAtEveryChange runs
/// one victim to its end and, after each change, hands out a copy of what its death would have left: for operations of
/// thousands of instructions, to which thousands of victims would have to be led one instruction at a time.
namespace praas::test {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kStepping = false;  // ten times the instructions, and a victim of one thread has no races
#else
inline constexpr bool kStepping = true;
#endif

#if defined(__SANITIZE_ADDRESS__)
inline constexpr uint64_t kMostKills = 1;  // ten times the instructions
#else
inline constexpr uint64_t kMostKills = UINT64_MAX;
#endif

using Parts = std::vector<std::span<const std::byte>>;

/// Memory as it was when looked at last.
class Watched {
 public:
  explicit Watched(Parts parts) : parts_(std::move(parts)) {
    for (const auto& part : parts_) seen_.emplace_back(part.begin(), part.end());
  }
  /// Whether it is another than last time.
  [[nodiscard]] bool Changed() {
    bool changed = false;
    for (size_t i = 0; i < parts_.size(); ++i) {
      if (std::memcmp(parts_[i].data(), seen_[i].data(), seen_[i].size()) == 0) continue;
      std::memcpy(seen_[i].data(), parts_[i].data(), seen_[i].size());
      changed = true;
    }
    return changed;
  }

 private:
  Parts parts_;
  std::vector<std::vector<std::byte>> seen_;
};

struct Deaths {
  /// What others can see: of shared memory, and of the kernel's objects a number that changes with them.
  std::function<Parts()> watched;
  std::function<uint64_t()> kernel = [] { return uint64_t{0}; };

  std::function<void()> reset = [] {};                                  // before each victim
  std::function<void()> prepare = [] {};                                // the victim, at full speed
  std::function<void(Stepped& victim)> before_steps = [](Stepped&) {};  // may run it on, to where it stops itself
  std::function<void()> operation;                                      // the victim, step by step
  /// Functions in a long operation (CodeOf): it runs at full speed to the first, and with the other one it is over.
  const void* from = nullptr;
  const void* until = nullptr;
  /// After its death. `over`: the operation had come to its end.
  std::function<void(bool over)> verify;
  /// Of more changes as many are tried, others in each run.
  uint64_t most = 120;
};

/// After each change that `operation` makes, and once when it is over. Between two changes the victim dies at a random
/// instruction: what the kernel looks at then, its list of robust mutexes, is not among what is watched.
inline void KillAtEveryChange(const Deaths& deaths) {
  if (!kStepping) GTEST_SKIP() << "instructions are not stepped through under ThreadSanitizer";
  const uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  uint64_t changes = 0;
  uint64_t instructions = 0;
  // The victim dies after so many changes; whether it came that far.
  const auto kill_after = [&](uint64_t wanted) -> std::optional<bool> {
    deaths.reset();
    if (::testing::Test::HasFailure()) return std::nullopt;
    Stepped victim(deaths.prepare, deaths.operation);
    if (!victim.alive()) return std::nullopt;
    deaths.before_steps(victim);
    if (::testing::Test::HasFailure()) return std::nullopt;
    if (deaths.from != nullptr) victim.RunTo(deaths.from);
    if (deaths.until != nullptr) victim.StopAt(deaths.until);
    const auto goes_on = [&] { return victim.alive() && !victim.arrived(); };
    Watched watched(deaths.watched());
    uint64_t kernel = deaths.kernel();
    const auto changed = [&] {
      victim.Step();
      ++instructions;
      const uint64_t now = deaths.kernel();
      const bool differs = now != kernel;
      kernel = now;
      return watched.Changed() || differs;
    };
    for (changes = instructions = 0; changes < wanted && goes_on();) changes += changed() ? 1 : 0;
    for (uint64_t further = random() % 24; further > 0 && goes_on() && !changed();) --further;
    return !goes_on();
  };
  const std::optional<bool> whole = kill_after(UINT64_MAX);
  if (!whole) {
    if (!::testing::Test::HasFailure()) GTEST_SKIP() << "ptrace is not permitted here";
    return;
  }
  deaths.verify(true);
  if (::testing::Test::HasFailure()) return;
  const uint64_t total = changes;
  std::printf("%lu changes in %lu instructions, seed %lu\n", static_cast<unsigned long>(total),
              static_cast<unsigned long>(instructions), static_cast<unsigned long>(seed));
  const uint64_t tries = std::min({total, deaths.most, kMostKills});
  for (uint64_t i = 0; i < tries; ++i) {
    const uint64_t first = total * i / tries;
    const uint64_t wanted = first + random() % (total * (i + 1) / tries - first);
    SCOPED_TRACE("killed after change " + std::to_string(wanted) + " of " + std::to_string(total) + ", seed " +
                 std::to_string(seed));
    const std::optional<bool> over = kill_after(wanted);
    if (!over) return;
    deaths.verify(*over);
    if (::testing::Test::HasFailure()) return;
  }
}

/// A mapped object that a victim inherits, and another of the same size.
struct Twins {
  int original_fd;
  std::span<std::byte> original;
  int copy_fd;
  std::span<std::byte> copy;
};

/// Makes the copy what the original is. Reads nothing where the original has no memory.
inline void CopyObject(const Twins& twins) {
  const auto for_each_run = [](int fd, size_t bytes, const auto& visit) {
    off_t begin = 0;
    while ((begin = ::lseek(fd, begin, SEEK_DATA)) >= 0) {
      const off_t end = ::lseek(fd, begin, SEEK_HOLE);
      const auto first = std::min(static_cast<size_t>(begin), bytes);
      visit(first, std::min(static_cast<size_t>(end), bytes) - first);
      begin = end;
    }
  };
  for_each_run(twins.copy_fd, twins.copy.size(),
               [&](size_t begin, size_t bytes) { std::memset(twins.copy.data() + begin, 0, bytes); });
  for_each_run(twins.original_fd, twins.original.size(), [&](size_t begin, size_t bytes) {
    std::memcpy(twins.copy.data() + begin, twins.original.data() + begin, bytes);
  });
}

/// The pages that `operation` writes to, each caught at its first write.
class WrittenPages {
 public:
  static constexpr size_t kPage = 4096;

  template <typename Prepare, typename Operation>
  static Parts Of(const std::vector<Twins>& objects, Prepare prepare, Operation operation) {
    void* const memory = ::mmap(nullptr, sizeof(Log), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return {};
    log_ = new (memory) Log;
    std::fflush(nullptr);
    const pid_t pid = ::fork();
    if (pid == 0) {
      prepare();
      struct sigaction action {};
      action.sa_sigaction = &OnFault;
      action.sa_flags = SA_SIGINFO;
      ::sigaction(SIGSEGV, &action, nullptr);
      for (const Twins& object : objects) ::mprotect(object.original.data(), object.original.size(), PROT_READ);
      operation();
      ::_exit(0);
    }
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "the operation failed";
    Parts pages;
    const size_t count = std::min<size_t>(log_->count.load(), log_->pages.size());
    EXPECT_LT(count, log_->pages.size());
    for (size_t i = 0; i < count; ++i) pages.emplace_back(static_cast<const std::byte*>(log_->pages[i]), kPage);
    ::munmap(memory, sizeof(Log));
    return pages;
  }

 private:
  struct Log {
    std::atomic<size_t> count{0};
    std::array<void*, 1024> pages{};
  };
  static void OnFault(int, siginfo_t* info, void*) {
    const auto address = reinterpret_cast<uintptr_t>(info->si_addr) / kPage * kPage;
    void* const page = reinterpret_cast<void*>(address);
    const size_t at = log_->count.fetch_add(1);
    // A page that was open already is no write of the operation.
    for (size_t i = 0; i < std::min(at, log_->pages.size()); ++i) {
      if (log_->pages[i] == page) ::_exit(70);
    }
    if (at >= log_->pages.size() || ::mprotect(page, kPage, PROT_READ | PROT_WRITE) != 0) ::_exit(71);
    log_->pages[at] = page;
  }
  static inline Log* log_ = nullptr;
};

struct Looks {
  std::vector<Twins> objects;
  /// Where robust mutexes lie in the copies: the kernel marks those that a dead thread held.
  std::vector<void*> mutexes;

  std::function<void()> reset = [] {};    // before a victim
  std::function<void()> prepare = [] {};  // the victim, at full speed
  std::function<void()> operation;        // the victim, step by step
  /// The copies hold what the victim's death would leave; it may do with them as it likes.
  std::function<void()> look;
};

/// After each change that `operation` makes, and after the last one. What the victim has written is left as it is.
inline void LookAtEveryChange(const Looks& looks) {
  if (!kStepping) GTEST_SKIP() << "instructions are not stepped through under ThreadSanitizer";
  looks.reset();
  const auto pages = WrittenPages::Of(looks.objects, looks.prepare, looks.operation);
  looks.reset();
  if (::testing::Test::HasFailure()) return;
  Stepped victim(looks.prepare, looks.operation);
  if (!victim.alive()) GTEST_SKIP() << "ptrace is not permitted here";
  Watched watched(pages);
  uint64_t changes = 0;
  uint64_t instructions = 0;
  for (bool changed = true;; changed = watched.Changed()) {
    if (changed) {
      for (const Twins& object : looks.objects) CopyObject(object);
      for (void* const mutex : looks.mutexes) {
        // set_robust_list(2): the word holds the thread id of the owner, or this bit once that is dead.
        uint32_t word = 0;
        std::memcpy(&word, mutex, sizeof word);
        if ((word & FUTEX_TID_MASK) != static_cast<uint32_t>(victim.pid())) continue;
        word = (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
        std::memcpy(mutex, &word, sizeof word);
      }
      SCOPED_TRACE("dead after change " + std::to_string(changes) + ", instruction " + std::to_string(instructions));
      looks.look();
      if (::testing::Test::HasFailure()) return;
      ++changes;
    }
    if (!victim.alive()) break;
    victim.Step();
    ++instructions;
  }
  std::printf("%lu changes in %lu instructions\n", static_cast<unsigned long>(changes - 1),
              static_cast<unsigned long>(instructions));
}

}  // namespace praas::test
