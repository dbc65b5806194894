#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "base/unique_fd.h"

namespace praas::host {

/// What the workers print, one line each with time, worker and stream. At most two files: PATH and, once it has reached
/// `max_bytes`, PATH.1 with what came before. A log that cannot be written never disturbs the calls: lines are lost
/// then, and the next one that can be written says how many.
class LogFile {
 public:
  LogFile() = default;  // keeps nothing
  LogFile(std::string path, uint64_t max_bytes);

  /// Why it keeps nothing; kProcessFailed where somebody else may have made the file.
  [[nodiscard]] const Status& status() const noexcept { return status_; }
  void Line(uint32_t worker, std::string_view stream, std::string_view text);

 private:
  void Open();
  [[nodiscard]] bool Write(const std::string& line);

  std::string path_;
  uint64_t max_bytes_ = 0;
  uint64_t bytes_ = 0;
  uint64_t lost_ = 0;  // lines since the last that was written
  int error_ = 0;      // why
  Status status_;
  UniqueFd file_;
};

/// Cuts a worker's output into lines. A line longer than kMaxLine is cut there, so that a worker that never prints a
/// newline costs a bounded amount of memory.
class OutputLines {
 public:
  static constexpr size_t kMaxLine = 8192;

  template <typename Emit>
  void Add(std::string_view bytes, Emit&& emit) {
    while (!bytes.empty()) {
      const size_t newline = bytes.find('\n');
      const size_t room = kMaxLine - partial_.size();
      if (newline == std::string_view::npos || newline > room) {
        const std::string_view taken = bytes.substr(0, room);
        partial_.append(taken);
        bytes.remove_prefix(taken.size());
        if (partial_.size() == kMaxLine) Flush(emit);
        continue;
      }
      partial_.append(bytes.substr(0, newline));
      bytes.remove_prefix(newline + 1);
      emit(std::string_view(partial_));
      partial_.clear();
    }
  }
  /// What came after the last newline.
  template <typename Emit>
  void Flush(Emit&& emit) {
    if (partial_.empty()) return;
    emit(std::string_view(partial_));
    partial_.clear();
  }

 private:
  std::string partial_;
};

}  // namespace praas::host
