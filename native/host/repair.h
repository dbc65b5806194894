#pragma once

#include <cstdint>

#include "base/result.h"
#include "segment/segment.h"

namespace praas::host {

/// After attaching to a dead host's segment, before anything in it is used: kills every worker recorded there (by pid
/// and start time, so never a stranger) with what its functions have forked, and waits for its end. Nobody writes into
/// shared memory afterwards.
[[nodiscard]] Status EndFormerWorkers(const segment::Segment& segment, uint64_t deadline_ns);

/// Then: participants, windows, streams and functions of the former host are gone. What the call table, the arenas and
/// the state hold is repaired by their own modules.
void ForgetFormerHost(const segment::Segment& segment);

}  // namespace praas::host
