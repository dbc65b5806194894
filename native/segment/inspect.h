#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_writer.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "segment/arena.h"
#include "segment/segment.h"

/// A segment as JSON text, for people and tests: of a live process, of one whose host is dead, or of what is left of
/// one that was damaged.
///
/// {processId, layoutVersion, hostGeneration, cleanShutdown, repairs, createdMs, …,
///  regions: [{name, stride, capacity, committed}], participants: [{index, role, state, pid, alive, …counters}],
///  functions: [{name, flags}], windows: [{index, state, …}], calls: [{index, state, …}] (those not free),
///  arenas: {data, inputs, outputs}, unchecked: [sentence, …], refused: sentence, violations: [sentence, …]}
///
/// `unchecked` tells what was in use whenever it was looked at, as may be in a busy process.
/// `refused` says why no host attaches to the segment, and is absent when one would. Everything but `violations` is
/// then as it should be according to the fields that are whole, and the tables are shown as far as they are there.
namespace praas::segment {

/// Violations found by a module that lays something into the segment; see state/.
using ExtraCheck = std::function<std::vector<std::string>(const Segment&)>;

/// Adds members that describe what another module laid into the segment; see state/inspect.h.
using ExtraSection = std::function<void(const Segment&, JsonWriter&)>;

struct Inspection {
  ExtraCheck check;
  ExtraSection section;
  std::string process_id;  // whose segment it should be; empty: unknown
};

/// Takes no lock on a read-only segment. Numbers may belong to different moments; `violations` are those that were
/// there every time of several looks. A segment whose header was damaged under its host is looked at in a copy of what
/// the header should describe; `check` and `section` get that copy then, whose `writable()` is false.
[[nodiscard]] std::string InspectJson(const Segment& segment, const Inspection& inspection = {});

/// The members that a host's own statistics share with this description.
void WriteParticipants(const Segment& segment, JsonWriter& json);
void WriteArena(std::string_view name, const Arena& arena, JsonWriter& json);

/// By name, read-only. kSystem with ENOENT when there is none; kSegmentInvalid when it is somebody else's, empty or
/// unfinished, of another version, or so damaged that nothing fits any layout.
[[nodiscard]] Result<std::string> InspectJson(const std::string& name, const Inspection& inspection = {});

/// The same for an object that is open for reading.
[[nodiscard]] Result<std::string> InspectJson(UniqueFd fd, const Inspection& inspection = {});

}  // namespace praas::segment
