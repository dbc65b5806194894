#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/spin.h"
#include "segment/segment.h"
#include "window/client_window.h"
#include "window/server_window.h"

namespace praas::window {

/// Long enough for a loaded machine; waiting this long means that a wake-up was lost.
inline constexpr int kWatchdogMs = 60'000;

/// A segment of its own, gone at the end of the test.
class TestSegment {
 public:
  explicit TestSegment(uint64_t pool_bytes = 64u << 20, uint32_t calls = 128) {
    static std::atomic<int> count{0};
    name_ = "/praas-test-window-" + std::to_string(getpid()) + "-" + std::to_string(++count);
    auto segment = segment::Segment::CreateOrAttach({.name = name_,
                                                     .process_id = "test",
                                                     .memory_bytes = 1 << 20,
                                                     .pool_bytes = pool_bytes,
                                                     .calls = calls,
                                                     .format = nullptr});
    EXPECT_TRUE(segment.ok()) << segment.status().message();
    segment_ = std::make_unique<segment::Segment>(std::move(segment).value());
    EXPECT_TRUE(segment_->Commit(segment_->header().windows, 4).ok());
  }
  ~TestSegment() { EXPECT_TRUE(segment::Segment::Unlink(name_).ok()); }
  TestSegment(const TestSegment&) = delete;

  [[nodiscard]] segment::Segment& get() { return *segment_; }
  [[nodiscard]] segment::WindowSlot& slot(uint32_t index = 0) { return segment_->window(index); }

 private:
  std::string name_;
  std::unique_ptr<segment::Segment> segment_;
};

inline UniqueFd Duplicate(const UniqueFd& fd) { return UniqueFd(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)); }

/// One client window and the descriptors a host keeps of it.
struct TestWindow {
  explicit TestWindow(uint64_t window_bytes = 64u << 20) {
    auto made = ServerWindow::Create(window_bytes);
    EXPECT_TRUE(made.ok()) << made.status().message();
    created = std::move(made).value();
    bytes = window_bytes;
  }
  [[nodiscard]] Handover ForClient() const {
    return {Duplicate(created.memfd), Duplicate(created.submit_event), Duplicate(created.complete_event), bytes};
  }
  [[nodiscard]] std::unique_ptr<ClientWindow> Client() const {
    auto client = ClientWindow::Map(ForClient());
    EXPECT_TRUE(client.ok()) << client.status().message();
    return std::move(client).value();
  }
  [[nodiscard]] std::unique_ptr<ServerWindow> Server(TestSegment& segment, uint32_t index = 0) const {
    auto server = ServerWindow::Map(segment.get(), index, Duplicate(created.memfd), Duplicate(created.complete_event));
    EXPECT_TRUE(server.ok()) << server.status().message();
    return std::move(server).value();
  }
  ServerWindow::Created created;
  uint64_t bytes = 0;
};

inline bool WaitReadable(int fd, int timeout_ms = kWatchdogMs) {
  pollfd watched{fd, POLLIN, 0};
  int ready = 0;
  while ((ready = poll(&watched, 1, timeout_ms)) < 0 && errno == EINTR) {
  }
  return ready == 1;
}
inline void DrainEvent(int fd) {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = read(fd, &count, sizeof(count));
}

/// What the functions of TestServer do with their input.
enum TestFunction : uint32_t {
  kEcho = 0,         // copies it to the output room
  kReturnInput = 1,  // gives it back as it stands
  kProduce = 2,      // u64 n: n bytes of Pattern
  kThrow = 3,        // fails with the input as message
  kHold = 4,         // echo, but answered only when `hold` calls are there, in a shuffled order
};

inline std::byte Pattern(uint64_t position) { return static_cast<std::byte>(position * 131 + (position >> 11)); }

/// Serves one window directly, without a call table: a hot poller that spins `spins` steps and then sleeps on the
/// submission event, as worker and host together do.
class TestServer {
 public:
  TestServer(std::unique_ptr<ServerWindow> window, int submit_event, uint16_t self = 1)
      : window_(std::move(window)), submit_event_(submit_event), self_(self) {}
  ~TestServer() { Stop(); }

  std::function<uint32_t()> spins = [] { return 1000u; };
  uint32_t hold = 0;
  std::atomic<uint64_t> sleeps{0};
  std::atomic<uint64_t> served{0};
  std::atomic<bool> lost_wake_up{false};

  void Start() {
    thread_ = std::thread([this] { Run(); });
  }
  void Stop() {
    if (!thread_.joinable()) return;
    stop_ = true;
    Signal();
    thread_.join();
  }
  [[nodiscard]] ServerWindow& window() { return *window_; }

  /// Serves what is there. Returns how many submissions were taken.
  uint32_t Consume() {
    uint32_t taken = 0;
    do {
      if (!window_->TryConsume(self_)) break;
      while (auto submission = window_->Peek()) {
        Serve(*submission);
        window_->Taken();
        ++taken;
      }
    } while (window_->EndConsume(self_));
    served += taken;
    return taken;
  }

  void Run() {
    bool polling = window_->Adopt(self_);
    while (!stop_) {
      SpinYield spin;
      const uint32_t limit = spins();
      while (spin.steps() < limit && !window_->HasSubmissions() && !stop_) spin.Step();
      if (Consume() > 0) continue;
      if (polling && window_->Abandon(self_)) {
        Consume();
      } else {
        ++sleeps;
        if (!WaitReadable(submit_event_)) lost_wake_up = true;
        DrainEvent(submit_event_);
      }
      polling = window_->Adopt(self_);
      Consume();
    }
    if (polling) static_cast<void>(window_->Abandon(self_));
  }

  size_t parked() const { return parked_.size(); }

 private:
  void Signal() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(submit_event_, &one, sizeof(one));
  }

  void Serve(const Submission& s) {
    if (s.room_given) return Deliver(s);
    const std::span<std::byte> input = window_->Bytes(s.input_offset, s.input_bytes);
    switch (s.function) {
      case kReturnInput:
        window_->Complete(s.call, s.sequence, 0, s.input_offset, s.input_bytes);
        return;
      case kProduce: {
        uint64_t bytes = 0;
        std::memcpy(&bytes, input.data(), sizeof(bytes));
        std::vector<std::byte> result(bytes);
        for (uint64_t i = 0; i < bytes; ++i) result[i] = Pattern(i);
        return Give(s, std::move(result));
      }
      case kThrow:
        window_->CompleteError(s.call, s.sequence, static_cast<uint32_t>(Code::kFunctionThrew),
                               {reinterpret_cast<const char*>(input.data()), input.size()},
                               {s.output_offset, s.output_capacity});
        return;
      case kHold:
        held_.push_back(s);
        if (held_.size() < hold) return;
        for (uint32_t i = 0; i < held_.size(); ++i) std::swap(held_[i], held_[(i * 7919u + 13) % held_.size()]);
        for (const Submission& held : std::exchange(held_, {})) Echo(held);
        return;
      default:
        Echo(s);
    }
  }

  void Echo(const Submission& s) {
    const std::span<std::byte> input = window_->Bytes(s.input_offset, s.input_bytes);
    if (input.size() > s.output_capacity) return Give(s, {input.begin(), input.end()});
    if (!input.empty()) std::memcpy(window_->Bytes(s.output_offset, input.size()).data(), input.data(), input.size());
    window_->Complete(s.call, s.sequence, 0, s.output_offset, input.size());
  }

  void Give(const Submission& s, std::vector<std::byte> result) {
    if (result.size() > s.output_capacity) {
      const uint64_t bytes = result.size();
      parked_[++last_parked_] = std::move(result);
      if (!window_->NeedRoom(s.call, s.sequence, last_parked_, bytes)) parked_.erase(last_parked_);
      return;
    }
    if (!result.empty())
      std::memcpy(window_->Bytes(s.output_offset, result.size()).data(), result.data(), result.size());
    window_->Complete(s.call, s.sequence, 0, s.output_offset, result.size());
  }

  void Deliver(const Submission& s) {
    const auto parked = parked_.find(s.parked);
    if (parked == parked_.end()) {
      window_->CompleteError(s.call, s.sequence, static_cast<uint32_t>(Code::kProtocolInvalid),
                             std::string_view("no such result"));
      return;
    }
    std::vector<std::byte> result = std::move(parked->second);
    parked_.erase(parked);
    if (window_->cancelled(s.call, s.sequence)) {
      window_->CompleteError(s.call, s.sequence, static_cast<uint32_t>(Code::kInvocationCancelled),
                             std::string_view("given up"));
      return;
    }
    Give(s, std::move(result));
  }

  std::unique_ptr<ServerWindow> window_;
  int submit_event_;
  uint16_t self_;
  std::atomic<bool> stop_{false};
  std::vector<Submission> held_;
  std::map<uint32_t, std::vector<std::byte>> parked_;
  uint32_t last_parked_ = 0;
  std::thread thread_;
};

}  // namespace praas::window
