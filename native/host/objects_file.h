#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace praas::host {

/// The registry of named objects a host owns: a text file of lines `host PID START`, `shm NAME`, `mq NAME`, `socket
/// PATH`. Each line is written before its object is created, so whoever cleans up after a killed host finds everything
/// there is.
class ObjectsFile {
 public:
  /// An empty path records nothing. Begins the file anew with this host's own line.
  [[nodiscard]] static Result<ObjectsFile> Create(const std::string& path);
  [[nodiscard]] Status Add(std::string_view kind, std::string_view name);

 private:
  explicit ObjectsFile(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace praas::host
