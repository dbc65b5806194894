// What may be registered, and what is kept registered.
#include <gtest/gtest.h>

#include "support/rdma.h"
#include "verbs/memory_budget.h"
#include "verbs/registration_cache.h"

#if PRAAS_VERBS_HEADERS

#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <thread>
#include <vector>

#include "support/child.h"

namespace praas::verbs {
namespace {

TEST(MemoryBudget, IsNeverOverdrawn) {
  MemoryBudget budget(1000);
  EXPECT_TRUE(budget.Take(600));
  EXPECT_FALSE(budget.Take(500));
  EXPECT_EQ(budget.left(), 400u);
  budget.Give(600);
  std::atomic<int> taken{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 1000; ++j) taken += budget.Take(1) ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(taken, 1000);
  EXPECT_EQ(budget.left(), 0u);
}

TEST(MemoryBudget, IsWhatMayBeLockedOrWhatTheEnvironmentSays) {
  auto limited = test::Child::Fork([] {
    const rlimit limit{8u << 20, 8u << 20};
    if (::setrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 77;
    // The limit does not hold for whoever has CAP_IPC_LOCK.
    if (::geteuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) return 11;
    return MemoryBudget::OfThisProcess().total() == 7u << 20 ? 0 : 12;
  });
  if (const int status = limited.Wait(); status != 77) {
    EXPECT_EQ(status, 0);
  }
  auto said = test::Child::Fork([] {
    ::setenv("PRAAS_IB_MEMORY", "123456", 1);
    return MemoryBudget::OfThisProcess().total() == 123456 ? 0 : 1;
  });
  EXPECT_EQ(said.Wait(), 0);
}

TEST(Selection, ComesFromTheEnvironment) {
  auto child = test::Child::Fork([] {
    ::setenv("PRAAS_IB_DEVICE", "mlx5_1", 1);
    ::setenv("PRAAS_IB_PORT", "2", 1);
    ::setenv("PRAAS_IB_GID_INDEX", "3", 1);
    ::setenv("PRAAS_IB_TRAFFIC_CLASS", "104", 1);
    const auto selection = Selection::FromEnvironment();
    if (!selection.ok() || selection->device != "mlx5_1" || selection->port != 2 || selection->gid_index != 3 ||
        selection->traffic_class != 104) {
      return 1;
    }
    for (const char* bad : {"0", "256", "one", "1x"}) {
      ::setenv("PRAAS_IB_PORT", bad, 1);
      const Status status = Selection::FromEnvironment().status();
      if (status.code() != Code::kArgumentInvalid || status.message().find("PRAAS_IB_PORT") == std::string::npos) {
        return 2;
      }
    }
    ::unsetenv("PRAAS_IB_PORT");
    ::setenv("PRAAS_IB_MEMORY", "8MiB", 1);
    return Selection::FromEnvironment().status().message().find("PRAAS_IB_MEMORY") != std::string::npos ? 0 : 3;
  });
  EXPECT_EQ(child.Wait(), 0);
}

class Cache : public ::testing::Test {
 protected:
  static constexpr size_t kStep = 64u << 10;
  void SetUp() override {
    if (const std::string reason = test::NoRdmaDevice(); !reason.empty()) GTEST_SKIP() << reason;
    context_ = Context::Open({}).value();
    domain_.emplace(ProtectionDomain::Make(*context_).value());
    memory_ = static_cast<std::byte*>(std::aligned_alloc(4096, 32 * kStep));
  }
  void TearDown() override { std::free(memory_); }
  [[nodiscard]] std::span<std::byte> At(size_t step, size_t bytes) const { return {memory_ + step * kStep, bytes}; }

  std::unique_ptr<Context> context_;
  std::optional<ProtectionDomain> domain_;
  std::byte* memory_ = nullptr;
};

TEST_F(Cache, ARegistrationServesAgainAndWhatLiesInIt) {
  MemoryBudget budget(32 * kStep);
  {
    RegistrationCache cache(*domain_, At(0, 32 * kStep), MemoryRegion::Access::kRemote, budget);
    const uint32_t key = cache.Acquire(At(2, 3 * kStep)).remote(memory_).key;
    EXPECT_EQ(cache.registered_bytes(), 3 * kStep);
    EXPECT_EQ(cache.Acquire(At(2, 3 * kStep)).remote(memory_).key, key);
    const auto inside = cache.Acquire(At(3, 100));
    EXPECT_EQ(inside.remote(memory_ + 3 * kStep).key, key);
    EXPECT_EQ(inside.remote(memory_ + 3 * kStep).address, reinterpret_cast<uintptr_t>(memory_ + 3 * kStep));
    EXPECT_NE(cache.Acquire(At(4, 2 * kStep)).remote(memory_).key, key) << "reaches beyond it";
    EXPECT_EQ(budget.left(), 32 * kStep - cache.registered_bytes());
  }
  EXPECT_EQ(budget.left(), budget.total());
}

TEST_F(Cache, WhatIsNotInUseMakesRoomOldestFirst) {
  MemoryBudget budget(4 * kStep);
  RegistrationCache cache(*domain_, At(0, 32 * kStep), MemoryRegion::Access::kLocal, budget);
  (void)cache.Acquire(At(0, 2 * kStep));
  const auto held = cache.Acquire(At(2, kStep));
  (void)cache.Acquire(At(3, kStep));
  EXPECT_TRUE(cache.Acquire(At(4, kStep))) << "in the place of the first";
  EXPECT_EQ(cache.registered_bytes(), 3 * kStep);
  EXPECT_TRUE(cache.Acquire(At(8, 3 * kStep))) << "in the place of all but what is in use";
  EXPECT_EQ(cache.registered_bytes(), 4 * kStep);
  EXPECT_FALSE(cache.Acquire(At(16, 4 * kStep))) << "more than there is beside what is in use";
  cache.Trim();
  EXPECT_EQ(cache.registered_bytes(), kStep);
  EXPECT_EQ(budget.left(), 3 * kStep);
}

}  // namespace
}  // namespace praas::verbs

#endif
