#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "segment/layout.h"

/// What a process believes about a segment that somebody else made: nothing it has not checked on a copy.
namespace praas::segment {

/// Storage for a copy of a header, whose atomics cannot be copied as objects.
struct HeaderCopy {
  alignas(Header) std::byte bytes[sizeof(Header)];

  [[nodiscard]] const Header& header() const noexcept { return *reinterpret_cast<const Header*>(bytes); }
};

enum class ObjectState {
  kEmpty,       // new, or its creator died before it wrote anything
  kUnfinished,  // its creator died in between
  kPublished,   // claims to be a segment: CheckHeader
  kForeign,     // something else, or a segment whose first bytes were overwritten
};

struct HeaderRead {
  ObjectState state = ObjectState::kEmpty;
  bool whole = false;  // the object is long enough for a header
  uint64_t object_bytes = 0;
  uint64_t backed_bytes = 0;  // memory the object has now
};

/// Reads the header with pread, which cannot fault whatever the object's size; what is missing reads as zeros.
[[nodiscard]] Result<HeaderRead> ReadAnyHeader(int fd, HeaderCopy* copy);

/// The same for those who attach. kSegmentInvalid: it is something else.
[[nodiscard]] Result<HeaderRead> ReadHeader(int fd, HeaderCopy* copy);

/// Checks every field that decides where something lies, by planning the layout anew. kSegmentInvalid says which is
/// wrong.
[[nodiscard]] Status CheckHeader(const Header& header, const HeaderRead& read);

}  // namespace praas::segment
