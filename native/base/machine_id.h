#pragma once

#include <string>

namespace praas {

/// Names the place this OS process runs in: boot id of the kernel, network and IPC namespace. Two processes with equal
/// ids run on one machine and in one container, so shared memory between them may work. Empty when /proc does not say.
[[nodiscard]] std::string MachineId();

}  // namespace praas
