#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "host/calls.h"
#include "host/deadlines.h"
#include "host/event_loop.h"
#include "host/functions.h"
#include "host/leases.h"
#include "host/log_file.h"
#include "host/process.h"
#include "host/reclaim.h"
#include "host/session.h"
#include "host/session_streams.h"
#include "host/sessions.h"
#include "host/state_service.h"
#include "host/supervisor.h"
#include "host/verbs_host.h"
#include "host/window_host.h"

namespace praas::host {

/// Everything that exists once a host has been assigned a process. Members are destroyed in reverse order: sessions
/// before what they use, the process last.
struct Service {
  Service(EventLoop& loop, std::unique_ptr<Process> opened, Supervisor& supervisor, uint64_t handshake_ns,
          std::string machine_id, std::function<void()> room);

  std::unique_ptr<Process> process;
  LogFile log;
  Calls calls;
  Functions functions;
  StateService state;
  StreamRings rings;
  WindowHost windows;
  VerbsHost verbs;
  Leases leases;
  Reclaim reclaim;
  std::function<void(uint16_t participant, const std::string& why)> kill;  // a worker that has to end
  Deadlines deadlines;
  SessionServices services;
  Sessions sessions;

  EventLoop::WatchId event_watch = 0;
  EventLoop::TimerId tick{};
  bool tick_soon = false;
  bool tick_leased = false;  // armed as for a process with leases
  uint32_t idle_ticks = 0;   // armed in a row
  uint64_t trim_ns = 0;      // when payload memory is given back, if nothing happens until then
  bool room = false;         // something was freed that a session or window waits for
  bool draining = false;
  uint64_t drain_deadline_ns = 0;
  EventLoop::TimerId drain_timer{};
  std::string failure;  // why workers cannot start
};

}  // namespace praas::host
