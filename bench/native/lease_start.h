#pragma once

#include <cstdint>

#include "client_options.h"

namespace praas::bench {

/// Takes `count` leases one after the other, calls the function once on the worker of each, and gives it back. Writes
/// to stdout, a line of JSON per lease, how many nanoseconds each phase of that took.
void MeasureLeaseStarts(const ClientOptions& options, uint64_t count);

}  // namespace praas::bench
