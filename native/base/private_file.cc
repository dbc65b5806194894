#include "base/private_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace praas {

Result<UniqueFd> OpenPrivateFile(const std::string& path, int flags) {
  const auto refused = [&path](const std::string& why) {
    return Status(Code::kProcessFailed, path + " " + why + "; remove it");
  };
  // O_NONBLOCK: a FIFO would wait for its other end.
  const int opened = O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | (flags & ~O_TRUNC);
  UniqueFd file(::open(path.c_str(), opened, 0600));
  if (!file && errno == ELOOP) return refused("is a symbolic link");
  if (!file && errno == ENXIO) return refused("is not a regular file");
  if (!file) return Status::System("open(" + path + ")");
  struct stat found {};
  if (::fstat(file.get(), &found) != 0) return Status::System("fstat(" + path + ")");
  if (!S_ISREG(found.st_mode)) return refused("is not a regular file");
  if (found.st_uid != ::geteuid()) return refused("belongs to user " + std::to_string(found.st_uid));
  if ((found.st_mode & (S_IRWXG | S_IRWXO)) != 0) return refused("is open to others");
  if ((flags & O_TRUNC) != 0 && ::ftruncate(file.get(), 0) != 0) return Status::System("ftruncate(" + path + ")");
  return file;
}

}  // namespace praas
