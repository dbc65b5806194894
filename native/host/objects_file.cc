#include "host/objects_file.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/private_file.h"
#include "base/process_id.h"
#include "base/unique_fd.h"

namespace praas::host {
namespace {

Status WriteLine(const std::string& path, int flags, const std::string& line) {
  Result<UniqueFd> file = OpenPrivateFile(path, flags);
  if (!file.ok()) return file.status();
  // One write with O_APPEND: a reader never sees half a line. No fsync: only the end of this OS process has to be
  // survived.
  const ssize_t written = ::write(file->get(), line.data(), line.size());
  if (written < 0) return Status::System("write(" + path + ")");
  if (static_cast<size_t>(written) != line.size()) return Status::System("write(" + path + ")", ENOSPC);
  if (const int error = file->Close(); error != 0) return Status::System("close(" + path + ")", error);
  return Status::Ok();
}

}  // namespace

Result<ObjectsFile> ObjectsFile::Create(const std::string& path) {
  ObjectsFile objects(path);
  if (path.empty()) return objects;
  const ProcessId self = ProcessId::Self();
  const std::string line = "host " + std::to_string(self.pid) + " " + std::to_string(self.start_time) + "\n";
  if (Status status = WriteLine(path, O_TRUNC, line); !status.ok()) return status;
  return objects;
}

Status ObjectsFile::Add(std::string_view kind, std::string_view name) {
  if (path_.empty()) return Status::Ok();
  std::string line(kind);
  line.append(" ").append(name).append("\n");
  return WriteLine(path_, O_APPEND, line);
}

}  // namespace praas::host
