#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "protocol/messages.h"
#include "segment/segment.h"
#include "window/handover.h"

namespace praas::worker {

/// Calls of a lease holder by RDMA, whose queue pair this worker owns. Like those over its socket they become
/// submissions to a window that this worker alone serves. Owner thread.
class ServedVerbs {
 public:
  struct Limits {
    uint64_t max_contiguous = 0;
    uint64_t default_timeout_ns = 0;
  };
  /// kUpgradeFailed and others say why not. The device is opened once in an OS process.
  [[nodiscard]] static Result<std::unique_ptr<ServedVerbs>> Make(window::Handover handover,
                                                                 const segment::Segment& segment, const Limits& limits,
                                                                 const protocol::VerbsEnd& client);
  ~ServedVerbs();

  [[nodiscard]] protocol::VerbsEnd end() const noexcept;
  /// Takes messages of the client and answers what is finished. true: there was something.
  bool Poll();
  /// Answers what is finished.
  void Deliver();
  void CancelAll();
  /// Why it is over. Ok while it works.
  [[nodiscard]] const Status& broken() const noexcept;

  /// To be watched, edge-triggered: completions, results that others have given, events of the device.
  [[nodiscard]] int completions_fd() const noexcept;
  [[nodiscard]] int results_fd() const noexcept;
  [[nodiscard]] int events_fd() const noexcept;
  /// false: Poll has something to do.
  [[nodiscard]] bool PrepareToSleep();

 private:
  struct Parts;
  explicit ServedVerbs(std::unique_ptr<Parts> parts) noexcept;
  std::unique_ptr<Parts> parts_;
};

}  // namespace praas::worker
