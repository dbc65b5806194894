#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_writer.h"
#include "base/result.h"
#include "segment/arena.h"
#include "segment/segment.h"

/// A segment as JSON text, for people and tests: of a live process or of one whose host is dead.
///
/// {processId, layoutVersion, hostGeneration, cleanShutdown, repairs, createdMs, …,
///  regions: [{name, stride, capacity, committed}], participants: [{index, role, state, pid, alive, …counters}],
///  functions: [{name, flags}], windows: [{index, state, …}], calls: [{index, state, …}] (those not free),
///  arenas: {data, inputs, outputs}, violations: [sentence, …]}
namespace praas::segment {

/// Violations found by a module that lays something into the segment; see state/.
using ExtraCheck = std::function<std::vector<std::string>(const Segment&)>;

/// Adds members that describe what another module laid into the segment; see state/inspect.h.
using ExtraSection = std::function<void(const Segment&, JsonWriter&)>;

/// Takes no lock on a read-only segment. Numbers may belong to different moments; what `violations` says of a live
/// process holds for a moment at which nobody was inside what was checked.
[[nodiscard]] std::string InspectJson(const Segment& segment, const ExtraCheck& extra = {},
                                      const ExtraSection& section = {});

/// The members that a host's own statistics share with this description.
void WriteParticipants(const Segment& segment, JsonWriter& json);
void WriteArena(std::string_view name, const Arena& arena, JsonWriter& json);

/// Maps the segment read-only. kSystem with ENOENT when there is none, kSegmentInvalid when it is damaged or none.
[[nodiscard]] Result<std::string> InspectJson(const std::string& name);

}  // namespace praas::segment
