#include "host/agent_link.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace praas::host {

AgentLink::AgentLink(EventLoop& loop, UniqueFd socket, Hooks hooks)
    : loop_(loop), socket_(std::move(socket)), hooks_(std::move(hooks)) {}

AgentLink::~AgentLink() { loop_.Unwatch(watch_); }

Result<std::unique_ptr<AgentLink>> AgentLink::Open(EventLoop& loop, UniqueFd socket, Hooks hooks) {
  std::unique_ptr<AgentLink> link(new AgentLink(loop, std::move(socket), std::move(hooks)));
  Result<EventLoop::WatchId> watch =
      loop.Watch(link->socket_.get(), EPOLLIN, [raw = link.get()](uint32_t events) { raw->OnEvents(events); });
  if (!watch) return watch.status().WithContext("control fd");
  link->watch_ = *watch;
  return link;
}

void AgentLink::OnEvents(uint32_t events) {
  if ((events & EPOLLOUT) != 0) Write();
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) Read();
}

void AgentLink::Read() {
  char buffer[64 * 1024];
  const ssize_t got = ::recv(socket_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return End();
  lines_.Add(std::string_view(buffer, static_cast<size_t>(got)));
  while (watch_ != 0) {
    Result<std::optional<std::string>> line = lines_.Next();
    if (!line) {
      hooks_.malformed(line.status());
      return End();
    }
    if (!line->has_value()) return;
    if ((*line)->empty()) continue;
    Result<protocol::AgentLine> parsed = protocol::ParseAgentLine(**line);
    if (parsed) {
      hooks_.line(*parsed);
    } else {
      hooks_.malformed(parsed.status());
    }
  }
}

void AgentLink::End() {
  loop_.Unwatch(watch_);
  watch_ = 0;
  hooks_.ended();
}

void AgentLink::Say(std::string_view verb, const std::vector<std::pair<std::string_view, std::string>>& values) {
  if (watch_ == 0 || unsent_.size() > kMaxUnsent) return;
  unsent_ += protocol::FormatAgentLine(verb, values);
  Write();
}

void AgentLink::Write() {
  if (watch_ == 0) return;
  while (!unsent_.empty()) {
    const ssize_t sent = ::send(socket_.get(), unsent_.data(), unsent_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) break;
    if (sent < 0) {
      unsent_.clear();  // the end of the connection is noticed by reading
      break;
    }
    unsent_.erase(0, static_cast<size_t>(sent));
  }
  loop_.Change(watch_, unsent_.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

}  // namespace praas::host
