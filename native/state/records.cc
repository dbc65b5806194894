#include "state/records.h"

#include <algorithm>
#include <string>

namespace praas::state {

Status Records::Grow(segment::Region& region, const char* what) const {
  const uint32_t committed = Committed(region);
  if (committed >= region.capacity) {
    return Status(Code::kStateMemory, "all " + std::to_string(region.capacity) + " " + what +
                                          " of this process are in use; delete some or give the process more memory");
  }
  const uint32_t page = std::max(1u, segment::kPageBytes / region.stride);
  const uint64_t wanted = uint64_t{committed} + std::max(page, committed / 8);
  return segment_->Commit(region, static_cast<uint32_t>(std::min<uint64_t>(wanted, region.capacity)));
}

}  // namespace praas::state
