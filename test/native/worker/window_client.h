#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "mini_host.h"
#include "window/client_window.h"

namespace praas::worker {

/// A client that submits into its window and looks for the answers itself.
class WindowClient {
 public:
  explicit WindowClient(std::unique_ptr<window::ClientWindow> window) : window_(std::move(window)) {}

  struct Request {
    uint32_t function = 0;
    std::span<const std::byte> input{};
    uint64_t output_capacity = 0;
    uint64_t deadline_ns = 0;  // 0: the watchdog of the tests
    uint16_t flags = 0;        // SubmissionFlags
  };
  uint32_t Submit(const Request& request) {
    auto opened = window_->Open();
    MiniHost::Check(opened.status(), opened.ok());
    const uint32_t call = opened->value();
    window::ClientWindow::Request wire{
        .function = request.function,
        .flags = request.flags,
        .deadline_ns = request.deadline_ns != 0 ? request.deadline_ns : DeadlineIn(kWatchdogNs)};
    wire.input_bytes = request.input.size();
    wire.input_offset = window::SlotInputOffset(call);
    if (wire.input_bytes > window::kSlotInputBytes) wire.input_offset = Allocate(wire.input_bytes);
    if (wire.input_bytes > 0) {
      std::memcpy(window_->Bytes(wire.input_offset, wire.input_bytes).data(), request.input.data(), wire.input_bytes);
    }
    wire.output_capacity = request.output_capacity;
    wire.output_offset = window::SlotOutputOffset(call);
    if (wire.output_capacity > window::kSlotOutputBytes) wire.output_offset = Allocate(wire.output_capacity);
    window_->Submit(call, wire);
    return call;
  }
  [[nodiscard]] uint64_t Allocate(uint64_t bytes) {
    auto offset = window_->payload().Allocate(bytes);
    MiniHost::Check(offset.status(), offset.ok());
    return *offset;
  }

  [[nodiscard]] bool Poll() {
    std::vector<window::ClientWindow::Completion> completions;
    window_->Collect(completions);
    pending_.insert(pending_.end(), completions.begin(), completions.end());
    return !pending_.empty();
  }
  /// The next answer, whichever it is. `tend` is called while there is none.
  template <typename Tend>
  window::ClientWindow::Completion Await(Tend tend) {
    EXPECT_TRUE(Eventually([&] {
      if (Poll()) return true;
      tend();
      return false;
    })) << "a call was never answered";
    if (pending_.empty()) return {};
    const auto completion = pending_.front();
    pending_.pop_front();
    return completion;
  }
  window::ClientWindow::Completion Await() {
    return Await([] {});
  }
  [[nodiscard]] std::span<const std::byte> Payload(const window::ClientWindow::Completion& completion) const {
    return window_->Bytes(completion.result_offset, completion.result_bytes);
  }
  [[nodiscard]] std::string Text(const window::ClientWindow::Completion& completion) const {
    const auto payload = Payload(completion);
    return {reinterpret_cast<const char*>(payload.data()), payload.size()};
  }
  [[nodiscard]] window::ClientWindow& window() { return *window_; }

 private:
  std::unique_ptr<window::ClientWindow> window_;
  std::deque<window::ClientWindow::Completion> pending_;
};

[[nodiscard]] inline bool Equal(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

}  // namespace praas::worker
