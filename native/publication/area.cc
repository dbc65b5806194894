#include "publication/area.h"

#include <fcntl.h>

#include <string>

#include "shm/memfd.h"
#include "shm/shared_memory.h"

namespace praas::publication {

Result<Area> Area::Create(uint64_t bytes) {
  if (bytes < kMinAreaBytes || bytes > kMaxAreaBytes || bytes % kPageBytes != 0) {
    return Status(Code::kArgumentInvalid,
                  "a publication area has 64 KiB … 32 GiB in whole pages, not " + std::to_string(bytes) + " bytes");
  }
  Result<UniqueFd> fd = shm::CreateMemfd("praas-publication", bytes, shm::Sealing::kFixed);
  if (!fd.ok()) return fd.status();
  return MapWith(*std::move(fd), shm::Access::kReadWrite);
}

Result<Area> Area::Map(UniqueFd fd) { return MapWith(std::move(fd), shm::Access::kReadWrite); }

Result<Area> Area::MapReadOnly(UniqueFd fd) {
  Result<Area> area = MapWith(std::move(fd), shm::Access::kReadOnly);
  if (area.ok()) area->fd_.Reset();
  return area;
}

Result<Area> Area::MapWith(UniqueFd fd, shm::Access access) {
  const Result<uint64_t> bytes = shm::CheckMemfd(fd.get());
  if (!bytes.ok()) return bytes.status();
  Result<shm::Mapping> mapping = shm::Mapping::Map(fd.get(), 0, bytes.value(), access);
  if (!mapping.ok()) return mapping.status();
  return Area(std::move(fd), *std::move(mapping));
}

Status Area::Commit(uint64_t end) const { return shm::Commit(fd(), 0, end, "published values"); }

Result<UniqueFd> Area::ReadOnlyFd() const {
  const std::string path = "/proc/self/fd/" + std::to_string(fd());
  UniqueFd reopened(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!reopened) return Status::System("open(" + path + ") for reading");
  return reopened;
}

}  // namespace praas::publication
