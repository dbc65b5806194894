#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "function/spec.h"

namespace praas::function {

/// A shared object with functions. Never unloaded: what its constructors have started may go on running.
class Library {
 public:
  /// dlopen(3) with all symbols resolved at once. kWorkerStart with the loader's own message.
  [[nodiscard]] static Result<Library> Open(const std::string& path);

  /// nullptr when the library itself (not something it is linked with) does not define it.
  [[nodiscard]] void* Find(const std::string& symbol) const noexcept;

  struct Exported {
    std::string name;
    Abi abi;
    uint32_t flags;  // segment::FunctionFlags
  };
  /// What it offers, in the order of names: functions registered by PRAAS_FUNCTION, and all others with C linkage,
  /// which are called through the library's adapter if it has one and else as raw functions. kWorkerStart when it was
  /// built against another version of praas.h.
  [[nodiscard]] Result<std::vector<Exported>> Functions() const;
  [[nodiscard]] bool has_adapter() const noexcept;
  /// false: it looks for other libraries beside itself ($ORIGIN), so a copy of it elsewhere does not work.
  [[nodiscard]] bool relocatable() const noexcept;
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  Library(std::string path, void* handle) : path_(std::move(path)), handle_(handle) {}

  std::string path_;
  void* handle_;
};

/// {library, adapter, relocatable, functions: [{name, abi, flags}]} as JSON, for `praas-worker --describe`.
[[nodiscard]] Result<std::string> DescribeLibrary(const std::string& path);

}  // namespace praas::function
