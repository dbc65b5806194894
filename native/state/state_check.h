#pragma once

#include <string>
#include <vector>

#include "segment/segment.h"

namespace praas::state {

/// Checks that every link between the store's records (chains, queues, free lists) leads to a record and every list
/// ends, and what no list tells: bytes where nobody writes, participants that do not exist, the mutex. Follows nothing
/// before it has looked where it leads, so that it can be used on a damaged store, before checks that trust links.
/// Takes no lock: of a live store, what it finds may be gone when it looks again. One sentence per violation.
[[nodiscard]] std::vector<std::string> CheckStateLinks(const segment::Segment& segment);

/// The above and every invariant of StateStore::Check that concerns the store's records, without the mutex: looks until
/// nobody was inside meanwhile. Nothing of what is derived counts while a repair is due. Empty for a segment without a
/// store.
[[nodiscard]] std::vector<std::string> CheckState(const segment::Segment& segment);

}  // namespace praas::state
