#include "base/machine_id.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/unique_fd.h"

namespace praas {
namespace {

std::string ReadLine(const char* path) {
  const UniqueFd fd(::open(path, O_RDONLY | O_CLOEXEC));
  char text[64];
  const ssize_t size = fd ? ::read(fd.get(), text, sizeof text) : -1;
  std::string line(text, size > 0 ? static_cast<size_t>(size) : 0);
  return line.substr(0, line.find('\n'));
}

std::string ReadLink(const char* path) {
  char text[64];
  const ssize_t size = ::readlink(path, text, sizeof text);
  return std::string(text, size > 0 ? static_cast<size_t>(size) : 0);
}

}  // namespace

std::string MachineId() {
  const std::string boot = ReadLine("/proc/sys/kernel/random/boot_id");
  const std::string network = ReadLink("/proc/self/ns/net");
  const std::string ipc = ReadLink("/proc/self/ns/ipc");
  if (boot.empty() || network.empty() || ipc.empty()) return {};
  return boot + ' ' + network + ' ' + ipc;
}

}  // namespace praas
