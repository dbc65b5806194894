#include "host/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <ctime>
#include <system_error>

#include "base/private_file.h"

namespace praas::host {

LogFile::LogFile(std::string path, uint64_t max_bytes) : path_(std::move(path)), max_bytes_(max_bytes) { Open(); }

void LogFile::Open() {
  if (path_.empty()) return;
  Result<UniqueFd> file = OpenPrivateFile(path_, O_APPEND);
  status_ = file.status();
  file_ = file.ok() ? *std::move(file) : UniqueFd();
  struct stat found {};
  bytes_ = file_ && ::fstat(file_.get(), &found) == 0 ? static_cast<uint64_t>(found.st_size) : 0;
}

/// All of it or nothing: a full disk may take the beginning.
bool LogFile::Write(const std::string& line) {
  const ssize_t written = ::write(file_.get(), line.data(), line.size());
  if (written == static_cast<ssize_t>(line.size())) {
    bytes_ += line.size();
    return true;
  }
  error_ = written < 0 ? errno : ENOSPC;
  if (written > 0) (void)!::ftruncate(file_.get(), static_cast<off_t>(bytes_));
  return false;
}

void LogFile::Line(uint32_t worker, std::string_view stream, std::string_view text) {
  if (path_.empty()) return;
  if (!file_) Open();
  if (!file_) {
    error_ = errno;
    return void(++lost_);
  }
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc{};
  gmtime_r(&now.tv_sec, &utc);
  char stamp[40];
  const size_t day = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(stamp + day, sizeof stamp - day, ".%03dZ", static_cast<int>(now.tv_nsec / 1'000'000));
  const std::string head = std::string(stamp) + " worker " + std::to_string(worker) + " " + std::string(stream) + " | ";
  if (lost_ > 0) {
    const std::string note = "(" + std::to_string(lost_) +
                             " lines before this one are lost: " + std::generic_category().message(error_) + ")";
    if (!Write(head + note + "\n")) return void(++lost_);
    lost_ = 0;
  }
  if (!Write(head + std::string(text) + "\n")) return void(++lost_);
  if (bytes_ >= max_bytes_) {
    ::rename(path_.c_str(), (path_ + ".1").c_str());
    Open();
  }
}

}  // namespace praas::host
