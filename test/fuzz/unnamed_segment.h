#pragma once

#include <unistd.h>

#include <string>
#include <utility>

#include "segment/segment.h"
#include "support.h"

namespace praas::fuzz {

/// A small segment whose name is gone already: a target that crashes leaves none.
inline segment::Segment UnnamedSegment(uint64_t pool_bytes) {
  const std::string name = "/praas-fuzz-" + std::to_string(::getpid());
  auto segment = segment::Segment::CreateOrAttach({.name = name,
                                                   .process_id = "fuzzed",
                                                   .memory_bytes = 1u << 20,
                                                   .pool_bytes = pool_bytes,
                                                   .calls = 64,
                                                   .format = {}});
  Check(segment.ok());
  Check(segment::Segment::Unlink(name).ok());
  return std::move(segment).value();
}

}  // namespace praas::fuzz
