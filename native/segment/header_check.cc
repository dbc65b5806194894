#include "segment/header_check.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

namespace praas::segment {
namespace {

Status Invalid(const std::string& why) {
  return {Code::kSegmentInvalid, why + "; remove the process's segment (`praas clean`) to start it empty"};
}

Status CheckSizes(const Header& header) {
  if (header.memory_bytes < kMinMemoryBytes || header.memory_bytes > kMaxMemoryBytes ||
      header.pool_bytes < kMinPoolBytes || header.pool_bytes > kMaxMemoryBytes || header.calls.capacity == 0 ||
      header.calls.capacity > dispatch::kMaxCalls) {
    return Invalid("the segment's sizes are out of range");
  }
  return Status::Ok();
}

Status CheckRegions(Header& header, uint64_t backed_bytes) {
  uint64_t claimed = 0;
  for (const NamedRegion& named : Regions(header)) {
    const uint32_t committed = named.region->committed.load(std::memory_order_relaxed);
    if (committed > named.region->capacity) {
      return Invalid(std::string("the segment claims more ") + named.name + " than fit");
    }
    claimed += static_cast<uint64_t>(committed) * named.region->stride / kPageBytes * kPageBytes;
  }
  if (claimed > backed_bytes) return Invalid("the segment claims more memory than it has");
  if (header.calls.committed.load(std::memory_order_relaxed) != header.calls.capacity ||
      header.participants.committed.load(std::memory_order_relaxed) == 0 ||
      header.function_count.load(std::memory_order_relaxed) >
          header.functions.committed.load(std::memory_order_relaxed)) {
    return Invalid("the segment's tables are incomplete");
  }
  return Status::Ok();
}

}  // namespace

Result<HeaderRead> ReadAnyHeader(int fd, HeaderCopy* copy) {
  std::fill(std::begin(copy->bytes), std::end(copy->bytes), std::byte{0});
  ssize_t got = 0;
  do {
    got = ::pread(fd, copy->bytes, sizeof copy->bytes, 0);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return Status::System("pread of a segment's header");
  // After the header: a host commits memory before it says so, and the other order would see less than it claims.
  struct stat info {};
  if (::fstat(fd, &info) != 0) return Status::System("fstat of a segment");
  HeaderRead read;
  read.whole = got == static_cast<ssize_t>(sizeof copy->bytes);
  read.object_bytes = static_cast<uint64_t>(info.st_size);
  read.backed_bytes = static_cast<uint64_t>(info.st_blocks) * 512;

  const uint64_t magic = copy->header().magic.load(std::memory_order_acquire);
  if (magic == kMagic) {
    read.state = ObjectState::kPublished;
  } else if (magic == kMagicCreating) {
    read.state = ObjectState::kUnfinished;
  } else if (std::any_of(std::begin(copy->bytes), std::end(copy->bytes),
                         [](std::byte b) { return b != std::byte{0}; })) {
    read.state = ObjectState::kForeign;
  }
  return read;
}

Result<HeaderRead> ReadHeader(int fd, HeaderCopy* copy) {
  Result<HeaderRead> read = ReadAnyHeader(fd, copy);
  if (!read.ok()) return read;
  if (read->state == ObjectState::kForeign) return Invalid("the object is no segment");
  if (read->state == ObjectState::kPublished && !read->whole) return Invalid("the object is too short for a segment");
  return read;
}

Status CheckHeader(const Header& header, const HeaderRead& read) {
  if (header.layout_version != kLayoutVersion || header.layout_hash != LayoutHash()) {
    return Invalid("the segment was made by another version of this software (layout " +
                   std::to_string(header.layout_version) + ", this is " + std::to_string(kLayoutVersion) + ")");
  }
  if (Status status = CheckSizes(header); !status.ok()) return status;

  HeaderCopy expected{};
  auto& plan = *reinterpret_cast<Header*>(expected.bytes);
  PlanLayout({header.memory_bytes, header.pool_bytes, header.calls.capacity}, &plan);
  if (!SameLayout(header, plan)) return Invalid("the segment's header is damaged (offsets)");
  if (header.static_checksum != StaticChecksum(header)) return Invalid("the segment's header is damaged (checksum)");
  if (header.process_id.size == 0) return Invalid("the segment names no process");
  if (read.object_bytes != header.segment_bytes)
    return Invalid("the segment's object has another size than its header says");
  return CheckRegions(const_cast<Header&>(header), read.backed_bytes);
}

}  // namespace praas::segment
