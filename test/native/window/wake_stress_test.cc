// The real hand-over under load: both sides spin for a random while and then sleep, so that sleeping and waking meet in
// every order the machine produces. wake_model_test.cc covers the orders it does not.
#include <gtest/gtest.h>

#include <mutex>
#include <random>
#include <thread>

#include "window/support.h"

namespace praas::window {
namespace {

/// `rounds` batches of 1 … `max_batch` calls, each awaited by polling for a random while, then sleeping.
void PingPong(uint32_t rounds, uint32_t max_batch, uint32_t spin_range) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  TestSegment segment;
  TestWindow window;
  std::mutex server_begins;
  TestServer server(window.Server(segment), window.created.submit_event.get());
  std::mt19937 server_random(seed + 1);
  // Held until the client has gone to sleep once, which on a busy machine it might not do otherwise.
  std::unique_lock late(server_begins);
  server.spins = [&] {
    const std::lock_guard begin(server_begins);
    return static_cast<uint32_t>(server_random() % spin_range);
  };
  server.Start();

  auto client = window.Client();
  std::mt19937 random(seed);
  std::vector<ClientWindow::Completion> completions;
  for (uint32_t round = 0; round < rounds; ++round) {
    uint32_t open = 1 + random() % max_batch;
    for (uint32_t i = 0; i < open; ++i) {
      const uint32_t call = client->Open().value().value();
      client->Submit(call, {.function = kEcho, .output_offset = SlotOutputOffset(call), .output_capacity = 4096});
    }
    while (open > 0) {
      SpinYield spin;
      const uint32_t limit = random() % spin_range;
      completions.clear();
      do {
        client->Awake();
        client->Collect(completions);
        if (completions.empty()) client->Tend();
        if (completions.empty()) spin.Step();
      } while (completions.empty() && spin.steps() < limit);
      for (const auto& completion : completions) client->Close(completion.call);
      open -= static_cast<uint32_t>(completions.size());
      if (open == 0 || !client->PrepareToSleep()) continue;
      if (late.owns_lock()) late.unlock();
      ASSERT_TRUE(WaitReadable(client->complete_event())) << "the client was never woken, round " << round;
    }
  }
  // With nothing to do it sleeps in the end.
  const uint64_t watchdog = DeadlineIn(60'000'000'000);
  while (server.sleeps == 0 && NowNs() < watchdog) std::this_thread::yield();
  server.Stop();
  EXPECT_FALSE(server.lost_wake_up);
  EXPECT_GE(server.served, rounds);
  // Sleeping happened on both sides, or this tested nothing.
  EXPECT_GT(server.sleeps, 0u);
  EXPECT_GT(client->counters().sleeps, 0u);
  std::printf("%u rounds: client slept %lu times and signalled %lu times, server slept %lu times\n", rounds,
              static_cast<unsigned long>(client->counters().sleeps),
              static_cast<unsigned long>(client->counters().signals), static_cast<unsigned long>(server.sleeps.load()));
}

TEST(WakeStress, MostlySpinning) { PingPong(150'000, 1, 400); }
TEST(WakeStress, MostlySleeping) { PingPong(50'000, 1, 40); }
TEST(WakeStress, Batches) { PingPong(20'000, 32, 200); }

}  // namespace
}  // namespace praas::window
