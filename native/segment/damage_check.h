#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "segment/header_check.h"
#include "segment/segment.h"

/// What `praas inspect` makes of a segment that hosts refuse. A native function that writes wildly may have hit the
/// header; most of it can be told from the rest, because all offsets follow from three sizes that lie in it, and in
/// other parts of the segment, more than once.
namespace praas::segment {

struct HeaderDiagnosis {
  /// One sentence per damaged field: "header.meta_bytes: expected 4096, found 7". Where nothing tells what is expected,
  /// the sentence says what is impossible about it.
  std::vector<std::string> violations;
  /// The header as it should be, with what changes in use as found, cut to what is possible.
  HeaderCopy repaired;
};

/// `found` and `read` as ReadAnyHeader gave them for `fd`. `process_id` is whose segment it should be; empty: unknown.
/// kSegmentInvalid when too little fits any layout: the object is something else, or another version's.
[[nodiscard]] Result<HeaderDiagnosis> DiagnoseHeader(int fd, const HeaderCopy& found, const HeaderRead& read,
                                                     std::string_view process_id);

/// A private copy of the meta part of the segment open as `fd`, under the repaired header, for looking at the tables as
/// far as they are there. Nobody else can change it, and its size is that of the layout however short the object is.
/// The data part is empty. Takes as much memory as the tables have.
[[nodiscard]] Result<Segment> CopyRepaired(int fd, const HeaderDiagnosis& diagnosis);

}  // namespace praas::segment
