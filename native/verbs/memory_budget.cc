#include "verbs/memory_budget.h"

#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

namespace praas::verbs {
namespace {

bool MayLockAnything() noexcept {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3]{};
  if (::syscall(SYS_capget, &header, data) != 0) return false;
  return (data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK)) != 0;
}

std::optional<uint64_t> Number(const char* text) noexcept {
  uint64_t bytes = 0;
  const char* const end = text + std::strlen(text);
  const auto [read, error] = std::from_chars(text, end, bytes);
  return error == std::errc() && read == end && read != text ? std::optional(bytes) : std::nullopt;
}

uint64_t BytesOfThisProcess() noexcept {
  if (const char* const said = std::getenv("PRAAS_IB_MEMORY")) {
    if (const std::optional<uint64_t> bytes = Number(said)) return *bytes;
  }
  rlimit limit{};
  const bool limited = ::getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  if (limited && !MayLockAnything()) return limit.rlim_cur - limit.rlim_cur / 8;
  return static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) / 2 * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace

MemoryBudget& MemoryBudget::OfThisProcess() {
  static MemoryBudget budget(BytesOfThisProcess());
  return budget;
}

Status MemoryBudget::CheckEnvironment() {
  const char* const said = std::getenv("PRAAS_IB_MEMORY");
  if (said == nullptr || *said == '\0' || Number(said)) return Status::Ok();
  return {Code::kArgumentInvalid, std::string("PRAAS_IB_MEMORY is \"") + said + "\"; it must be a number of bytes"};
}

bool MemoryBudget::Take(uint64_t bytes) noexcept {
  uint64_t left = left_.load(std::memory_order_relaxed);
  while (left >= bytes) {
    if (left_.compare_exchange_weak(left, left - bytes, std::memory_order_relaxed)) return true;
  }
  return false;
}

}  // namespace praas::verbs
