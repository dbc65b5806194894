#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "segment/segment.h"

namespace praas::segment {

[[nodiscard]] std::string_view CallStateName(dispatch::CallState state) noexcept;

/// Whether every entry of the call table that is in use could have been written by a sound participant: known state,
/// kind, origin and places, existing participants, windows, functions and blocks. One sentence per violation.
[[nodiscard]] std::vector<std::string> CheckCalls(const Segment& segment);

}  // namespace praas::segment
