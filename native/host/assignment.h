#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "dispatch/doorbell.h"
#include "protocol/agent_line.h"

namespace praas::host {

/// What a host is told about the process it shall serve (the agent's `assign`). Units as the names say; every bound is
/// checked by ParseAssignment.
struct Assignment {
  std::string process;  // process id, 1 … 255 bytes
  std::string segment;  // POSIX name of the segment, "/praas-…"
  std::string queue;    // POSIX name of the message queue
  std::string key;      // kTokenKeyBytes, which tokens of clients are signed with; secret
  std::string listen_host = "127.0.0.1";
  uint16_t listen_port = 0;  // 0 = any
  std::string socket;        // UNIX socket for window hand-over; empty = no shm transport
  std::string log;           // worker output; empty = none is kept
  std::string objects;       // registry of named objects; empty = none is kept
  std::string app;           // JSON for the Node workers' kLoad
  std::string native;        // lines for the native workers' kLoad, see function/spec.h
  uint64_t memory_bytes = 1ull << 30;
  uint64_t pool_bytes = 1ull << 30;
  uint32_t calls = 1024;
  uint32_t workers = 1;                       // Node workers; 0 when the application has no TypeScript
  uint32_t native_workers = 0;                // 0 when it has no native functions
  uint64_t worker_memory_bytes = 4ull << 30;  // private memory of one native worker
  uint32_t lease_workers = 64;                // most that may be leased at a time, beside the others
  uint32_t spares = 0;                        // workers kept attached but unloaded, to replace one that dies at once
  uint32_t concurrency = 64;
  int64_t hot_ms = 0;            // −1 always hot, 0 always warm
  uint64_t timeout_ms = 30'000;  // of calls that bring no deadline
  uint64_t grace_ms = 100;
  uint64_t max_contiguous = 64ull << 20;
  uint64_t window_bytes = 1ull << 30;
  uint64_t publication_bytes = 16ull << 20;  // limit of published values; whole pages
  bool restarted = false;                    // an earlier host has served the process: its segment must be there

  [[nodiscard]] uint32_t workers_of(dispatch::Lane lane) const noexcept {
    return lane == dispatch::Lane::kNative ? native_workers : workers;
  }
  /// The lanes that have workers.
  [[nodiscard]] dispatch::LaneSet lanes() const noexcept { return {workers > 0, native_workers > 0}; }
};

[[nodiscard]] Result<Assignment> ParseAssignment(const protocol::AgentLine& line);

}  // namespace praas::host
