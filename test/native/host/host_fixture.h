#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "client/driver.h"
#include "client/state_request.h"
#include "host/host.h"
#include "host/test_worker.h"
#include "mqueue/message_queue.h"
#include "segment/segment.h"
#include "support/tokens.h"

namespace praas::test {

template <typename There>
[[nodiscard]] bool Eventually(There there) {
  const uint64_t deadline_ns = DeadlineIn(kWatchdogNs);
  while (!there()) {
    if (NowNs() > deadline_ns) return false;
    ::usleep(200);
  }
  return true;
}

inline std::span<const std::byte> AsBytes(std::string_view text) { return std::as_bytes(std::span(text)); }
inline std::string AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline Bytes PatternOf(size_t bytes) {
  Bytes pattern(bytes);
  for (size_t i = 0; i < bytes; ++i) pattern[i] = static_cast<std::byte>(i % 251);
  return pattern;
}

/// Names and sizes of a process of this test; its objects are gone when this is.
class TestProcess {
 public:
  TestProcess() {
    static std::atomic<int> count{0};
    const std::string name = "praas-test-host-" + std::to_string(::getpid()) + "-" + std::to_string(++count);
    folder_ = "/tmp/" + name;
    EXPECT_EQ(::mkdir(folder_.c_str(), 0700), 0);
    assignment.process = "p";
    assignment.key = kProcessKey;
    assignment.segment = "/" + name;
    assignment.queue = "/" + name;
    assignment.socket = folder_ + "/window";
    assignment.log = folder_ + "/log";
    assignment.objects = folder_ + "/objects";
    assignment.memory_bytes = 16u << 20;
    assignment.pool_bytes = 64u << 20;
    assignment.window_bytes = 64u << 20;
    assignment.max_contiguous = 8u << 20;
    assignment.calls = 64;
    assignment.timeout_ms = 60'000;
  }
  ~TestProcess() {
    (void)segment::Segment::Unlink(assignment.segment);
    EXPECT_FALSE(Exists("/dev/shm" + assignment.segment));
    EXPECT_FALSE(mqueue::MessageQueue::Open(assignment.queue).ok());  // its folder may not be mounted
    EXPECT_FALSE(Exists(assignment.socket));
    (void)mqueue::MessageQueue::Unlink(assignment.queue);
    for (const std::string& file : {assignment.socket, assignment.log, assignment.log + ".1", assignment.objects}) {
      ::unlink(file.c_str());
    }
    EXPECT_EQ(::rmdir(folder_.c_str()), 0) << folder_;
  }
  TestProcess(const TestProcess&) = delete;

  [[nodiscard]] static bool Exists(const std::string& path) {
    struct stat found {};
    return ::lstat(path.c_str(), &found) == 0;
  }
  [[nodiscard]] std::string Read(const std::string& path) const {
    std::string text;
    if (FILE* file = std::fopen(path.c_str(), "r")) {
      char buffer[4096];
      for (size_t got = 0; (got = std::fread(buffer, 1, sizeof buffer, file)) > 0;) text.append(buffer, got);
      std::fclose(file);
    }
    return text;
  }

  host::Assignment assignment;

 private:
  std::string folder_;
};

/// A host in this OS process, with workers that are threads of the test or processes it starts.
class HostRun {
 public:
  explicit HostRun(TestProcess& process, std::vector<std::string> worker_command = {}) {
    host::HostOptions options;
    options.worker_commands[static_cast<size_t>(dispatch::Lane::kNode)] = std::move(worker_command);
    options.assignment = process.assignment;
    options.handshake_ns = handshake_ns;
    auto started = host::Host::Start(std::move(options));
    status_ = started.status();
    if (started.ok()) host_ = std::move(*started);
  }
  ~HostRun() { Stop(); }
  HostRun(const HostRun&) = delete;

  void Stop() {
    host_.reset();
    for (auto& worker : workers_) worker->thread.join();
    workers_.clear();
  }

  [[nodiscard]] const Status& status() const { return status_; }
  host::Host* operator->() { return host_.get(); }
  [[nodiscard]] uint16_t port() const { return host_->port(); }

  /// Workers on threads; returns when they take calls.
  void AddWorkers(uint32_t count) {
    const uint32_t target = host_->ready_workers() + count;
    for (uint32_t i = 0; i < count; ++i) {
      auto pair = worker::ControlSocket::Pair();
      ASSERT_TRUE(pair.ok());
      workers_.push_back(std::make_unique<Worker>());
      Worker& added = *workers_.back();
      added.thread = std::thread([control = std::move(pair->second), ended = &added.ended]() mutable {
        EXPECT_EQ(TestWorker::Run(std::move(control), ended), 0);
      });
      host_->AddExternalWorker(std::move(pair->first), ::getpid());
    }
    ASSERT_TRUE(Eventually([&] { return host_->ready_workers() >= target; }));
  }
  [[nodiscard]] bool AwaitReady(uint32_t count) {
    return Eventually([&] { return host_->ready_workers() >= count; });
  }

  [[nodiscard]] Driver Client(const std::string& transport = "tcp") {
    client::ConnectOptions options = OptionsFor(port());
    options.transport = transport;
    options.window_bytes = 64u << 20;
    return Connect(options);
  }

 private:
  struct Worker {
    std::atomic<bool> ended{false};
    std::thread thread;
  };
  static constexpr uint64_t handshake_ns = 2'000'000'000;

  Status status_;
  std::unique_ptr<host::Host> host_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

/// Statistics of the host that `client` is connected to.
inline std::string StatsOf(Driver& client, protocol::AdminOp op = protocol::AdminOp::kStats) {
  auto call = client::SubmitAdmin(*client, static_cast<uint16_t>(op), "", DeadlineIn(kWatchdogNs));
  Driver::Outcome outcome = client.Wait(call);
  EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
  return AsText(outcome.payload);
}
/// Nothing of finished calls is left, and every structure is sound.
inline void ExpectClean(Driver& client) {
  EXPECT_TRUE(Eventually([&] {
    const std::string stats = StatsOf(client);
    return stats.find("\"callsInUse\":0,") != std::string::npos && stats.find("\"inputs\":{") != std::string::npos &&
           stats.find("\"usedBytes\":0", stats.find("\"inputs\":{")) < stats.find("\"outputs\":{") &&
           stats.find("\"usedBytes\":0", stats.find("\"outputs\":{")) != std::string::npos;
  })) << StatsOf(client);
  EXPECT_NE(StatsOf(client, protocol::AdminOp::kInspect).find("\"violations\":[]"), std::string::npos)
      << StatsOf(client, protocol::AdminOp::kInspect);
}

}  // namespace praas::test
