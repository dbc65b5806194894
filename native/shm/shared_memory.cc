#include "shm/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace praas::shm {
namespace {

constexpr mode_t kPrivate = S_IRUSR | S_IWUSR;

// A signal makes the kernel undo a range it has not finished; in steps a process under a signal timer still gets on.
constexpr uint64_t kCommitStepBytes = 16u << 20;

std::string Quoted(const char* call, const std::string& name) { return std::string(call) + " \"" + name + '"'; }

std::string Mebibytes(uint64_t bytes) {
  return bytes < (1u << 20) ? std::to_string(bytes >> 10) + " KiB" : std::to_string(bytes >> 20) + " MiB";
}

bool ExceedsFileSizeLimit(uint64_t bytes) noexcept {
  rlimit limit{};
  return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && bytes > limit.rlim_cur;
}

Status FileSizeLimit(uint64_t bytes) {
  return {
      Code::kStateMemory,
      "an object of " + Mebibytes(bytes) + " exceeds the file size limit of this process; raise it, see `ulimit -f`",
      EFBIG};
}

Status OutOfMemory(int fd, uint64_t bytes, const char* what, int error) {
  std::string message = std::string(what) + ": no memory for " + Mebibytes(bytes) + " more";
  struct statfs fs {};
  if (error == ENOSPC && ::fstatfs(fd, &fs) == 0 && fs.f_blocks > 0) {
    const auto block = static_cast<uint64_t>(fs.f_bsize);
    message += ": /dev/shm is full (" + Mebibytes(fs.f_bavail * block) + " of " + Mebibytes(fs.f_blocks * block) +
               " free); remove what is not needed there or mount it larger (mount -o remount,size=… /dev/shm; " +
               "in a container: --shm-size)";
  } else {
    message += ": the memory of this machine or control group is exhausted (" + std::generic_category().message(error) +
               "); lower the memory limits of processes or give the group more";
  }
  return {Code::kStateMemory, std::move(message), error};
}

Status NotOurs(const std::string& name, const std::string& why) {
  return {Code::kSegmentInvalid, "shared memory object \"" + name + "\" " + why + "; remove it, or have it removed"};
}

Status BelongsTo(const std::string& name, uid_t user) {
  return NotOurs(name, "belongs to user " + std::to_string(user) + ", not to " + std::to_string(::geteuid()));
}

/// What somebody else has put there is told apart from what the system has against it.
Status OpenError(const std::string& name, int error) {
  if (error == ELOOP) return NotOurs(name, "is a symbolic link");
  struct stat info {};
  if (error == EACCES && ::lstat(("/dev/shm" + name).c_str(), &info) == 0 && info.st_uid != ::geteuid()) {
    return BelongsTo(name, info.st_uid);
  }
  return Status::System(Quoted("shm_open", name), error);
}

}  // namespace

bool IsValidName(const std::string& name) noexcept {
  return name.size() >= 2 && name.size() <= 255 && name[0] == '/' && name.find('/', 1) == std::string::npos &&
         name.find('\0') == std::string::npos && name != "/." && name != "/..";
}

Result<SharedMemory> Open(const std::string& name, OpenMode mode) {
  if (!IsValidName(name)) {
    return Status(Code::kArgumentInvalid,
                  '"' + name + "\" is no name of a shared memory object (\"/name\", at most 255 bytes)");
  }
  int flags = O_CLOEXEC | O_NOFOLLOW | (mode == OpenMode::kReadOnly ? O_RDONLY : O_RDWR);
  if (mode == OpenMode::kCreate) flags |= O_CREAT;
  if (mode == OpenMode::kExclusive) flags |= O_CREAT | O_EXCL;
  UniqueFd fd(::shm_open(name.c_str(), flags, kPrivate));
  if (!fd) return OpenError(name, errno);

  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return Status::System(Quoted("fstat", name));
  if (!S_ISREG(info.st_mode)) return NotOurs(name, "is not a regular file");
  if (info.st_uid != ::geteuid()) return BelongsTo(name, info.st_uid);
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) return NotOurs(name, "is open to others");
  return SharedMemory{std::move(fd), static_cast<uint64_t>(info.st_size)};
}

Status Unlink(const std::string& name) {
  if (!IsValidName(name)) return {Code::kArgumentInvalid, '"' + name + "\" is no name of a shared memory object"};
  if (::shm_unlink(name.c_str()) != 0 && errno != ENOENT) return Status::System(Quoted("shm_unlink", name));
  return Status::Ok();
}

bool IsLinked(const std::string& name, int fd) noexcept {
  const UniqueFd linked(::shm_open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0));
  struct stat mine {};
  struct stat theirs {};
  return linked && ::fstat(fd, &mine) == 0 && ::fstat(linked.get(), &theirs) == 0 && mine.st_dev == theirs.st_dev &&
         mine.st_ino == theirs.st_ino;
}

Status Commit(int fd, uint64_t offset, uint64_t bytes, const char* what) {
  if (ExceedsFileSizeLimit(offset + bytes)) return FileSizeLimit(offset + bytes).WithContext(what);
  while (bytes > 0) {
    const uint64_t step = std::min(bytes, kCommitStepBytes);
    // fallocate and not posix_fallocate: glibc emulates the latter by writing into every page where a file system lacks
    // it, which neither reserves atomically nor is safe while others write.
    if (::fallocate(fd, 0, static_cast<off_t>(offset), static_cast<off_t>(step)) != 0) {
      if (errno == EINTR) continue;
      if (errno == ENOSPC || errno == ENOMEM || errno == EDQUOT) return OutOfMemory(fd, bytes, what, errno);
      return Status::System(std::string(what) + ": fallocate of " + Mebibytes(bytes));
    }
    offset += step;
    bytes -= step;
  }
  return Status::Ok();
}

Status Decommit(int fd, uint64_t offset, uint64_t bytes) {
  while (bytes > 0 && ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                                  static_cast<off_t>(bytes)) != 0) {
    if (errno != EINTR) return Status::System("fallocate(FALLOC_FL_PUNCH_HOLE) of " + Mebibytes(bytes));
  }
  return Status::Ok();
}

Status Resize(int fd, uint64_t bytes) {
  if (ExceedsFileSizeLimit(bytes)) return FileSizeLimit(bytes);
  if (::ftruncate(fd, static_cast<off_t>(bytes)) != 0) return Status::System("ftruncate to " + Mebibytes(bytes));
  return Status::Ok();
}

}  // namespace praas::shm
