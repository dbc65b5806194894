#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "host/event_loop.h"
#include "protocol/agent_line.h"

namespace praas::host {

/// The connection to the agent that started this host: lines in both directions over one stream socket. Its end means
/// that the agent is gone. I/O thread.
class AgentLink {
 public:
  struct Hooks {
    std::function<void(const protocol::AgentLine&)> line;
    std::function<void(const Status&)> malformed;  // of a line that is skipped
    std::function<void()> ended;
  };

  [[nodiscard]] static Result<std::unique_ptr<AgentLink>> Open(EventLoop& loop, UniqueFd socket, Hooks hooks);
  ~AgentLink();

  /// Never blocks: what the agent does not take waits, and lines are dropped when it takes nothing for long.
  void Say(std::string_view verb, const std::vector<std::pair<std::string_view, std::string>>& values);

 private:
  AgentLink(EventLoop& loop, UniqueFd socket, Hooks hooks);
  void OnEvents(uint32_t events);
  void Read();
  void Write();
  void End();

  static constexpr size_t kMaxUnsent = 1u << 20;

  EventLoop& loop_;
  UniqueFd socket_;
  Hooks hooks_;
  EventLoop::WatchId watch_ = 0;
  protocol::LineSplitter lines_;
  std::string unsent_;
};

}  // namespace praas::host
