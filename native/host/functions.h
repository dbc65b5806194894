#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "segment/segment.h"
#include "worker/control.h"

namespace praas::host {

struct ResolvedFunction {
  uint32_t index;
  uint32_t flags;             // segment::FunctionFlags
  uint32_t max_output_pages;  // see segment::Function
};

/// The functions of the application, as the first worker of each lane registered them; all workers of a lane have to
/// offer the same. Requests for a name wait here until every lane has registered its own: a function that runs may call
/// any other. I/O thread.
class Functions {
 public:
  /// `lanes`: those that have workers.
  Functions(const segment::Segment& segment, const dispatch::LaneSet& lanes) : segment_(segment), lanes_(lanes) {}

  /// kWorkerStart when they differ from what a sibling registered, or are malformed.
  [[nodiscard]] Status Register(dispatch::Lane lane, const std::vector<worker::FunctionInfo>& offered);
  /// By all lanes.
  [[nodiscard]] bool registered() const noexcept;
  [[nodiscard]] uint32_t count() const noexcept { return static_cast<uint32_t>(flags_.size()); }
  /// Precondition: index < count().
  [[nodiscard]] uint32_t flags(uint32_t index) const noexcept { return flags_[index]; }

  /// kFunctionUnknown names what there is. Precondition: registered.
  [[nodiscard]] Result<ResolvedFunction> Find(std::string_view name) const;

  using Answer = std::function<void(const Result<ResolvedFunction>&)>;
  /// Answers when functions are registered, when the process has failed (`why` of Fail), or at the deadline.
  void Ask(uint64_t session, std::string name, uint64_t deadline_ns, Answer answer);
  void Forget(uint64_t session);
  /// Workers cannot start; with an empty text: they can.
  void Fail(const std::string& why);
  void Tick(uint64_t now_ns);
  [[nodiscard]] bool waiting() const noexcept { return !asked_.empty(); }

 private:
  struct Asked {
    uint64_t session;
    std::string name;
    uint64_t deadline_ns;
    Answer answer;
  };
  void AnswerKnown();

  const segment::Segment& segment_;
  const dispatch::LaneSet lanes_;
  std::array<std::optional<std::vector<worker::FunctionInfo>>, dispatch::kLanes> offered_;  // by each lane, once it has
  std::string failed_;
  std::unordered_map<std::string, uint32_t> by_name_;
  std::vector<uint32_t> flags_;
  std::vector<Asked> asked_;
};

}  // namespace praas::host
