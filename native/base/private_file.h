#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace praas {

/// Opens a file of this user for writing with O_CLOEXEC and further `flags` of open(2), made with mode 0600 unless it
/// is there. kProcessFailed for what somebody else may have put there: a symbolic link, anything but a regular file,
/// another user's, or one that others may open; nothing is changed then. O_TRUNC takes effect after that look.
[[nodiscard]] Result<UniqueFd> OpenPrivateFile(const std::string& path, int flags);

}  // namespace praas
