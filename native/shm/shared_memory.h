#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

/// Named POSIX shared memory objects (shm_overview(7)). Objects of this package are private to their user: mode 0600,
/// and an object of another user or with wider permissions is refused when it is opened.
namespace praas::shm {

/// Whether `name` is one slash, then 1 … 254 bytes without a slash, and neither "/." nor "/..".
[[nodiscard]] bool IsValidName(const std::string& name) noexcept;

enum class OpenMode {
  kReadOnly,
  kReadWrite,
  kCreate,     // read-write; made (empty) when absent
  kExclusive,  // read-write; kSystem with EEXIST when present
};

struct SharedMemory {
  UniqueFd fd;
  uint64_t bytes = 0;  // size when opened
};

/// Opens an object (O_CLOEXEC, symbolic links not followed) and checks that it is a regular file of this user that
/// nobody else may open. kSystem with ENOENT when absent; kSegmentInvalid when it is somebody else's.
[[nodiscard]] Result<SharedMemory> Open(const std::string& name, OpenMode mode);

/// Removes the name; mappings stay valid. An absent name is fine: the outcome is the same.
[[nodiscard]] Status Unlink(const std::string& name);

/// Whether `name` still leads to the object open as `fd` (it may have been unlinked and made anew meanwhile).
[[nodiscard]] bool IsLinked(const std::string& name, int fd) noexcept;

/// Backs [offset, offset + bytes) of `fd` with memory, or says why not: kStateMemory naming `what`, which file system
/// or limit is exhausted and the remedy. Idempotent; keeps contents; extends the file when the range ends beyond it.
[[nodiscard]] Status Commit(int fd, uint64_t offset, uint64_t bytes, const char* what);

/// Gives the memory behind [offset, offset + bytes) back; it reads as zeros afterwards.
[[nodiscard]] Status Decommit(int fd, uint64_t offset, uint64_t bytes);

/// Sets the size without committing memory. Checks RLIMIT_FSIZE first, because exceeding it raises SIGXFSZ.
[[nodiscard]] Status Resize(int fd, uint64_t bytes);

}  // namespace praas::shm
