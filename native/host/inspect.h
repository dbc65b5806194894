#pragma once

#include <string>

#include "host/process.h"

namespace praas::host {

/// Numbers of a running process as JSON: workers with their counters, calls, windows, arenas, state. Reads shared
/// memory without locks, so the numbers may belong to different moments.
[[nodiscard]] std::string StatsJson(const Process& process);

/// Everything in the segment, with the outcome of every invariant check (segment/inspect.h). Takes internal locks: not
/// on the I/O thread.
[[nodiscard]] std::string InspectJson(const Process& process);

}  // namespace praas::host
