#include "host/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>

namespace praas::host {

LogFile::LogFile(std::string path, uint64_t max_bytes) : path_(std::move(path)), max_bytes_(max_bytes) { Open(); }

void LogFile::Open() {
  if (path_.empty()) return;
  file_.Reset(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  struct stat found {};
  bytes_ = file_ && ::fstat(file_.get(), &found) == 0 ? static_cast<uint64_t>(found.st_size) : 0;
}

void LogFile::Line(uint32_t worker, std::string_view stream, std::string_view text) {
  if (!file_) return;
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc{};
  gmtime_r(&now.tv_sec, &utc);
  char stamp[40];
  const size_t day = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(stamp + day, sizeof stamp - day, ".%03dZ", static_cast<int>(now.tv_nsec / 1'000'000));
  std::string line(stamp);
  line.append(" worker ").append(std::to_string(worker)).append(" ").append(stream).append(" | ");
  line.append(text).append("\n");
  const ssize_t written = ::write(file_.get(), line.data(), line.size());
  if (written > 0) bytes_ += static_cast<uint64_t>(written);
  if (bytes_ >= max_bytes_) {
    ::rename(path_.c_str(), (path_ + ".1").c_str());
    Open();
  }
}

}  // namespace praas::host
