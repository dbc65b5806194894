#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/pidfd.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace praas::host {

/// A worker's OS process as its parent holds it.
struct ChildProcess {
  std::optional<Pidfd> pidfd;  // never empty in a spawned child
  UniqueFd standard_output;    // read ends, non-blocking
  UniqueFd standard_error;
};

/// Starts `command` (looked up in PATH when it has no slash) with the control socket as an inherited descriptor whose
/// number is in PRAAS_WORKER_FD, stdin from /dev/null, stdout and stderr into pipes, in a process group of its own, and
/// so that the kernel kills it when the *calling thread* ends (PR_SET_PDEATHSIG follows the thread): call it from a
/// thread that lives as long as the host. A command that cannot be executed is an error here, not a child that ends at
/// once.
[[nodiscard]] Result<ChildProcess> Spawn(const std::vector<std::string>& command, int control_fd);

}  // namespace praas::host
