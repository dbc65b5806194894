#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "dispatch/dispatcher.h"
#include "dispatch/doorbell.h"
#include "host/assignment.h"
#include "host/objects_file.h"
#include "host/wakers.h"
#include "publication/area.h"
#include "segment/arena.h"
#include "segment/segment.h"
#include "state/state_store.h"
#include "window/pool.h"

namespace praas::host {

/// The process a host serves: its shared memory and what works on it. Members are destroyed in reverse order, users
/// first.
struct Process {
  /// Creates the segment, or attaches to the one a dead host left: then ends the workers that host left behind and
  /// repairs what they shared. Blocks for as long as former workers take to end, `deadline_ns` at most.
  [[nodiscard]] static Result<std::unique_ptr<Process>> Open(const Assignment& assignment, uint64_t deadline_ns);

  /// After the last worker has ended: says so in the segment and takes back the names. The segment stays.
  void LeaveInOrder();

  Assignment assignment;
  ObjectsFile objects;
  Wakers wakers;
  std::unique_ptr<segment::Segment> segment;
  std::unique_ptr<window::Pool> pool;
  std::unique_ptr<dispatch::Doorbells> doorbells;
  std::string doorbell_reason;  // why they are not message queues
  std::unique_ptr<dispatch::Dispatcher> dispatcher;
  std::unique_ptr<segment::Arena> data;
  std::optional<publication::Area> area;
  std::unique_ptr<state::StateStore> state;

  [[nodiscard]] segment::Header& header() const noexcept { return segment->header(); }

 private:
  Process(const Assignment& assigned, ObjectsFile registry) : assignment(assigned), objects(std::move(registry)) {}
  [[nodiscard]] Status OpenMemory(uint64_t deadline_ns);
  void RegisterHost();
  /// Names of the message queues its lanes use, if they use any.
  [[nodiscard]] std::vector<std::string> Queues() const;
};

}  // namespace praas::host
