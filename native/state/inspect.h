#pragma once

#include <cstdint>
#include <string>

#include "base/json_writer.h"
#include "base/result.h"
#include "segment/inspect.h"
#include "segment/segment.h"

namespace praas::state {

/// How many keys, how many locks, and how many publications, are written out one by one; `truncated` says that there
/// are more.
inline constexpr uint32_t kMaxInspected = 1000;

/// Member "state" of a segment's description (segment/inspect.h):
///
/// {keyCount, buckets, lastVersion, pinCount, lockCount, publicationCount, repairs, truncated,
///  keys: [{key, kind, elementType, bytes, version, modifiedMs, pins}],
///  locks: [{name, holders: [{participant, owner, mode, granted}]}] (holders in order of arrival),
///  publications: [{key, capacity, offset}] (offset −1: the host had no room for it)}
///
/// Versions and owners are text, because JavaScript's numbers end at 2^53. Takes no lock and writes nothing, so it
/// works on a read-only mapping and on what a dead host left; of a live process, entries may belong to different
/// moments.
void WriteState(const segment::Segment& segment, JsonWriter& json);

/// What makes a description of a segment (segment/inspect.h) one with its state, checked without the mutex.
[[nodiscard]] segment::Inspection WithState(std::string process_id = {});

/// Segment `name` with its state, mapped read-only; fails as segment::InspectJson does. `process_id`: whose segment it
/// should be; empty: unknown.
[[nodiscard]] Result<std::string> InspectJson(const std::string& name, const std::string& process_id = {});

}  // namespace praas::state
