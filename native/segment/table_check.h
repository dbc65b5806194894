#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "segment/robust_mutex.h"
#include "segment/segment.h"

/// Whether the tables of a segment, and what of its header changes in use, could have been written by sound
/// participants. Finds what wild writes of a native function leave: values that do not exist, indices that lead
/// nowhere, bytes where nobody writes. One sentence per violation. Follows nothing before it has looked where it leads.
namespace praas::segment {

/// How a sentence ends that tells of no damage: what it is about was in use whenever it was looked at.
inline constexpr std::string_view kUnchecked = "was in use all the time and could not be checked";

/// Records of a region that may be looked at, whatever `committed` says.
[[nodiscard]] uint32_t CommittedOf(const Region& region) noexcept;

/// "NAME: expected WHAT, found FOUND".
[[nodiscard]] std::string Unexpected(std::string_view name, std::string_view what, uint64_t found);

/// Whether all `bytes` are zero: of fields nobody writes.
[[nodiscard]] bool AllZero(const void* bytes, size_t size) noexcept;

/// What is impossible about a mutex called `name`, if anything.
[[nodiscard]] std::optional<std::string> MutexViolation(std::string_view name, const RobustMutex& mutex,
                                                        uint32_t participants);

/// What `function_hash` should be for functions [0, count): FNV-1a over the names, flags and output sizes of each lane
/// that has some, the lanes joined by XOR. Precondition: `count` are committed.
[[nodiscard]] uint32_t FunctionHash(const Segment& segment, uint32_t count) noexcept;

/// All tables but the call table (call_check.h), and the mutexes and bounds of the arenas.
[[nodiscard]] std::vector<std::string> CheckTables(const Segment& segment);

}  // namespace praas::segment
