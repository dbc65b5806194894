#include "segment/segment.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

#include "base/clock.h"
#include "segment/arena.h"
#include "segment/header_check.h"
#include "shm/shared_memory.h"

namespace praas::segment {
namespace {

constexpr uint64_t kCommitStepBytes = 64 * 1024;
constexpr int kAttempts = 100;

/// An open-file-description lock: unlike a POSIX record lock it is not dropped when this process closes another
/// descriptor of the same object.
Result<bool> TryLockObject(int fd) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) return true;
  if (errno == EAGAIN || errno == EACCES) return false;
  return Status::System("fcntl(F_OFD_SETLK) on a segment");
}

Result<bool> LockObject(int fd, uint64_t deadline_ns) {
  constexpr timespec kPause{.tv_sec = 0, .tv_nsec = 1'000'000};
  while (true) {
    Result<bool> locked = TryLockObject(fd);
    if (!locked.ok() || *locked || NowNs() >= deadline_ns) return locked;
    ::nanosleep(&kPause, nullptr);
  }
}

Status CheckOptions(const CreateOptions& options) {
  if (options.process_id.empty() || options.process_id.size() > kMaxName) {
    return {Code::kNameInvalid, "a process id has 1 … 255 bytes, not " + std::to_string(options.process_id.size())};
  }
  const auto in_range = [](uint64_t value, uint64_t low, uint64_t high) { return value >= low && value <= high; };
  if (!in_range(options.memory_bytes, kMinMemoryBytes, kMaxMemoryBytes)) {
    return {Code::kArgumentInvalid, "memory is 1 MiB … 1 TiB, not " + std::to_string(options.memory_bytes) + " bytes"};
  }
  if (!in_range(options.pool_bytes, kMinPoolBytes, kMaxMemoryBytes)) {
    return {Code::kArgumentInvalid, "pool is 1 MiB … 1 TiB, not " + std::to_string(options.pool_bytes) + " bytes"};
  }
  if (!in_range(options.calls, 1, dispatch::kMaxCalls)) {
    return {Code::kArgumentInvalid, "calls is 1 … 4096, not " + std::to_string(options.calls)};
  }
  return Status::Ok();
}

std::string_view ProcessIdOf(const Header& header) { return {header.process_id.bytes, header.process_id.size}; }

}  // namespace

Status CommitRegion(int fd, Region& region, uint32_t count) {
  uint32_t committed = region.committed.load(std::memory_order_acquire);
  if (count <= committed) return Status::Ok();
  if (count > region.capacity) {
    return {Code::kStateMemory, "a table of the process is full (" + std::to_string(region.capacity) + " records)",
            ENOSPC};
  }
  const uint64_t capacity_bytes = static_cast<uint64_t>(region.capacity) * region.stride;
  const uint64_t wanted = static_cast<uint64_t>(count) * region.stride;
  const uint64_t end = std::min((wanted + kCommitStepBytes - 1) / kCommitStepBytes * kCommitStepBytes, capacity_bytes);
  // From the start of the record that was cut by the last step; what is backed already stays as it is.
  const uint64_t begin = static_cast<uint64_t>(committed) * region.stride;
  if (Status status = shm::Commit(fd, region.offset + begin, end - begin, "segment"); !status.ok()) return status;
  const auto target = static_cast<uint32_t>(end / region.stride);
  while (committed < target && !region.committed.compare_exchange_weak(committed, target, std::memory_order_acq_rel,
                                                                       std::memory_order_acquire)) {
  }
  return Status::Ok();
}

namespace {

/// What was written of a region lies within what is committed of it. A count below that was damaged, and would hide
/// the rest.
Status CommitWritten(int fd, Region& region) {
  const off_t begin = static_cast<off_t>(region.offset);
  const off_t end = begin + static_cast<off_t>(uint64_t{region.capacity} * region.stride);
  const uint64_t committed = uint64_t{region.committed.load(std::memory_order_acquire)} * region.stride;
  off_t written = 0;
  for (off_t at = begin + static_cast<off_t>(committed / kPageBytes * kPageBytes); at < end;) {
    const off_t data = ::lseek(fd, at, SEEK_DATA);
    if (data < 0 || data >= end) break;
    at = ::lseek(fd, data, SEEK_HOLE);
    if (at < 0) break;
    written = std::min(at, end) - begin;
  }
  return CommitRegion(fd, region, static_cast<uint32_t>(static_cast<uint64_t>(written) / region.stride));
}

Status Lost(const CreateOptions& options, const char* what) {
  return {Code::kSegmentInvalid, options.name + " " + what + ", and the state of process \"" + options.process_id +
                                     "\" with it; remove the process (`praas rm`) to begin without"};
}

}  // namespace

Segment::Segment(shm::Mapping mapping, UniqueFd fd, bool writable) noexcept
    : mapping_(std::move(mapping)), fd_(std::move(fd)), writable_(writable) {
  const Header& header = this->header();
  data_offset_ = header.meta_bytes;
  participants_ = &At<dispatch::Participant>(header.participants, 0);
  calls_ = &At<dispatch::CallEntry>(header.calls, 0);
  windows_ = &At<WindowSlot>(header.windows, 0);
  functions_ = &At<Function>(header.functions, 0);
}

Result<Segment> Segment::CreateOrAttach(const CreateOptions& options) {
  if (Status status = CheckOptions(options); !status.ok()) return status;
  const uint64_t lock_deadline_ns = DeadlineIn(options.lock_wait_ns);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const shm::OpenMode mode = options.must_exist ? shm::OpenMode::kReadWrite : shm::OpenMode::kCreate;
    Result<shm::SharedMemory> lock = shm::Open(options.name, mode);
    if (!lock.ok() && options.must_exist && lock.status().sys_errno() == ENOENT) return Lost(options, "is gone");
    if (!lock.ok()) return lock.status();
    const Result<bool> locked = LockObject(lock->fd.get(), lock_deadline_ns);
    if (!locked.ok()) return locked.status();
    if (!locked.value()) {
      return Status(Code::kProcessBusy, "a live host serves process \"" + options.process_id +
                                            "\" (it holds the lock on " + options.name + ")");
    }
    // The object may have been unlinked, and made anew by somebody else, between opening and locking. The descriptor
    // for mapping and sharing is a second one: see fd().
    Result<shm::SharedMemory> object = shm::Open(options.name, shm::OpenMode::kReadWrite);
    if (!object.ok() && object.status().sys_errno() != ENOENT) return object.status();
    if (!object.ok() || !shm::IsLinked(options.name, lock->fd.get())) continue;

    HeaderCopy copy;
    const Result<HeaderRead> read = ReadHeader(object->fd.get(), &copy);
    if (!read.ok()) return read.status().WithContext(options.name);
    if (read->state != ObjectState::kPublished) {
      if (options.must_exist) return Lost(options, "is empty");
      Result<Segment> created = Create(std::move(object->fd), options);
      if (created.ok()) {
        created->lock_ = std::move(lock->fd);
      } else {
        (void)shm::Unlink(options.name);
      }
      return created;
    }
    Result<Segment> attached = Map(std::move(object->fd), true);
    if (!attached.ok()) return attached.status().WithContext(options.name);
    Header& header = attached->header();
    if (ProcessIdOf(header) != options.process_id) {
      return Status(Code::kSegmentInvalid, options.name + " belongs to process \"" + std::string(ProcessIdOf(header)) +
                                               "\", not \"" + options.process_id + '"');
    }
    for (const NamedRegion& named : Regions(header)) {
      Status status = CommitWritten(attached->fd(), *named.region);
      if (!status.ok()) return status.WithContext(options.name);
    }
    attached->lock_ = std::move(lock->fd);
    attached->attached_ = true;
    header.host_generation.fetch_add(1, std::memory_order_relaxed);
    return attached;
  }
  return Status(Code::kProcessBusy, options.name + " is created and removed by others all the time");
}

Result<Segment> Segment::Create(UniqueFd fd, const CreateOptions& options) {
  HeaderCopy plan{};
  PlanLayout({options.memory_bytes, options.pool_bytes, options.calls}, reinterpret_cast<Header*>(plan.bytes));
  const uint64_t bytes = plan.header().segment_bytes;

  // Through zero: an unfinished predecessor leaves nothing behind.
  if (Status status = shm::Resize(fd.get(), 0); !status.ok()) return status;
  if (Status status = shm::Resize(fd.get(), bytes); !status.ok()) return status;
  if (Status status = shm::Commit(fd.get(), 0, plan.header().participants.offset, "segment"); !status.ok())
    return status;
  Result<shm::Mapping> mapping = shm::Mapping::Map(fd.get(), 0, bytes, shm::Access::kReadWrite);
  if (!mapping.ok()) return mapping.status();

  auto& header = *reinterpret_cast<Header*>(mapping->data());
  header.magic.store(kMagicCreating, std::memory_order_release);
  PlanLayout({options.memory_bytes, options.pool_bytes, options.calls}, &header);
  header.created_wall_ns = WallNs();
  header.process_id.size = static_cast<uint8_t>(options.process_id.size());
  std::memcpy(header.process_id.bytes, options.process_id.data(), options.process_id.size());
  header.static_checksum = StaticChecksum(header);
  header.host_generation.store(1, std::memory_order_relaxed);

  Segment segment(std::move(mapping).value(), std::move(fd), true);
  if (Status status = segment.Commit(header.participants, 1); !status.ok()) return status;
  // A call must never fail for want of table memory, and reserving an entry must not make a system call.
  if (Status status = segment.Commit(header.calls, header.calls.capacity); !status.ok()) return status;
  Arena data = Arena::Data(segment, dispatch::kHostParticipant);
  if (Status status = data.Format(); !status.ok()) return status;
  if (options.format) {
    if (Status status = options.format(segment); !status.ok()) return status;
  }
  header.magic.store(kMagic, std::memory_order_release);
  return segment;
}

Result<Segment> Segment::Map(UniqueFd fd, bool writable) {
  HeaderCopy copy;
  const Result<HeaderRead> read = ReadHeader(fd.get(), &copy);
  if (!read.ok()) return read.status();
  if (read->state != ObjectState::kPublished) return Status(Code::kSegmentInvalid, "the segment was never finished");
  if (Status status = CheckHeader(copy.header(), *read); !status.ok()) return status;
  Result<shm::Mapping> mapping = shm::Mapping::Map(fd.get(), 0, copy.header().segment_bytes,
                                                   writable ? shm::Access::kReadWrite : shm::Access::kReadOnly);
  if (!mapping.ok()) return mapping.status();
  return Segment(std::move(mapping).value(), std::move(fd), writable);
}

Result<Segment> Segment::Open(const std::string& name, bool writable) {
  Result<shm::SharedMemory> object = shm::Open(name, writable ? shm::OpenMode::kReadWrite : shm::OpenMode::kReadOnly);
  if (!object.ok()) return object.status();
  Result<Segment> segment = Map(std::move(object->fd), writable);
  if (!segment.ok()) return segment.status().WithContext(name);
  return segment;
}

Status Segment::Unlink(const std::string& name) { return shm::Unlink(name); }

Status Segment::CommitData(uint64_t end) const {
  if (end > data_bytes()) return {Code::kStateMemory, "beyond the memory of the process", ENOSPC};
  return shm::Commit(fd_.get(), data_offset_, end, "state");
}

}  // namespace praas::segment
