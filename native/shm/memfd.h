#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"

/// Anonymous shared memory (memfd_create(2)) with its size sealed, so that no holder can truncate it under the others:
/// touching a page beyond the end of a file is a SIGBUS for whoever has it mapped.
namespace praas::shm {

/// What may still change about the size of a memfd.
enum class Sealing {
  kFixed,     // F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL
  kGrowable,  // F_SEAL_SHRINK | F_SEAL_SEAL
};

/// A memfd of `bytes` zero bytes (sparse: pages appear on touch or by shm::Commit). `name` shows in /proc/PID/maps.
[[nodiscard]] Result<UniqueFd> CreateMemfd(const char* name, uint64_t bytes, Sealing sealing);

/// For a memfd that came from elsewhere: its size, if it cannot shrink any more and the sealing is final.
/// kSegmentInvalid otherwise, also for anything that is no memfd.
[[nodiscard]] Result<uint64_t> CheckMemfd(int fd);

/// What system calls with the descriptor of a memfd say when that is closed, or has become another file's since.
[[nodiscard]] bool IsNoMemfd(int sys_errno) noexcept;

/// Reads all of `bytes` from `offset` by system call. false: it could not.
[[nodiscard]] bool ReadAll(int fd, uint64_t offset, std::span<std::byte> bytes) noexcept;

/// Writes all of `bytes` at `offset` by system call, for who has the object mapped read-only. false: it could not.
[[nodiscard]] bool WriteAll(int fd, uint64_t offset, std::span<const std::byte> bytes) noexcept;

}  // namespace praas::shm
