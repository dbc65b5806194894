#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

#include "base/unique_fd.h"
#include "window/layout.h"

namespace praas::test {

/// The memory of the only client window of this OS process, in which both host and client are, mapped once more, up to
/// the payloads.
class WindowMemory {
 public:
  WindowMemory() {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
      if (!target.starts_with("/memfd:praas-window")) continue;
      const UniqueFd own(::open(entry.path().c_str(), O_RDWR | O_CLOEXEC));
      base_ = ::mmap(nullptr, window::kPayloadOffset, PROT_READ | PROT_WRITE, MAP_SHARED, own.get(), 0);
      break;
    }
    EXPECT_NE(base_, MAP_FAILED) << "no window";
  }
  ~WindowMemory() { ::munmap(base_, window::kPayloadOffset); }
  WindowMemory(const WindowMemory&) = delete;

  [[nodiscard]] bool there() const { return base_ != MAP_FAILED; }
  [[nodiscard]] window::WindowHeader& header() const { return *At<window::WindowHeader>(0); }
  [[nodiscard]] window::SubmissionRecord& record(uint32_t position) const {
    return At<window::SubmissionRecord>(window::kRingOffset)[position % window::kRing];
  }
  [[nodiscard]] std::atomic<uint64_t>& note(uint32_t call) const {
    return At<std::atomic<uint64_t>>(window::kNotesOffset)[call];
  }

 private:
  template <typename T>
  [[nodiscard]] T* At(uint64_t offset) const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(base_) + offset);
  }

  void* base_ = MAP_FAILED;
};

}  // namespace praas::test
