#include "host/worker_link.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "base/clock.h"
#include "base/json_writer.h"

namespace praas::host {
namespace {

/// A worker whose control socket has ended is about to end; one that does not is broken.
constexpr uint64_t kEndAfterControlNs = 1'000'000'000;

constexpr std::array<std::string_view, 2> kStreamNames = {"stdout", "stderr"};

}  // namespace

std::string WorkerEnd::Json(size_t max_bytes) const {
  std::string_view tail = stderr_tail;
  while (true) {
    JsonWriter json;
    json.BeginObject();
    if (signal != 0) {
      json.Number("signal", signal);
    } else {
      json.Number("exitCode", exit_code);
    }
    json.Text("stderr", tail);
    json.EndObject();
    if (json.text().size() <= max_bytes || tail.empty()) return json.Take();
    // A character takes at most six bytes as an escape: this much less is never too little to get on, and rarely too
    // much.
    tail.remove_prefix(std::min(tail.size(), (json.text().size() - max_bytes + 5) / 6));
  }
}

std::string WorkerEnd::Describe() const {
  return signal != 0 ? "signal " + std::to_string(signal) : "exit code " + std::to_string(exit_code);
}

WorkerLink::WorkerLink(EventLoop& loop, UniqueFd control, Hooks hooks)
    : loop_(loop), control_(std::move(control)), hooks_(std::move(hooks)) {}

WorkerLink::~WorkerLink() {
  loop_.Unwatch(control_watch_);
  loop_.Unwatch(exit_watch_);
  for (Output& output : outputs_) loop_.Unwatch(output.watch);
  loop_.CancelTimer(kill_timer_);
  if (child_ && stage != Stage::kEnded) {
    // Only when the host is torn down: neither a worker nor what its functions have forked outlives it, and no zombie
    // stays.
    ::kill(-id_.pid, SIGKILL);
    ::waitpid(id_.pid, nullptr, 0);
  }
}

Result<std::unique_ptr<WorkerLink>> WorkerLink::FromChild(EventLoop& loop, ChildProcess child, UniqueFd control,
                                                          Hooks hooks) {
  std::unique_ptr<WorkerLink> link(new WorkerLink(loop, std::move(control), std::move(hooks)));
  link->id_ = child.pidfd->id();
  link->child_ = std::move(child.pidfd);
  link->outputs_[0].fd = std::move(child.standard_output);
  link->outputs_[1].fd = std::move(child.standard_error);
  if (Status status = link->Watch(); !status.ok()) return status;
  return link;
}

Result<std::unique_ptr<WorkerLink>> WorkerLink::External(EventLoop& loop, UniqueFd control, pid_t pid, Hooks hooks) {
  std::unique_ptr<WorkerLink> link(new WorkerLink(loop, std::move(control), std::move(hooks)));
  link->id_ = ProcessId::Of(pid).value_or(ProcessId{pid, 0});
  if (Status status = link->Watch(); !status.ok()) return status;
  return link;
}

Status WorkerLink::Watch() {
  Result<EventLoop::WatchId> control = loop_.Watch(control_.fd(), EPOLLIN, [this](uint32_t) { OnControl(); });
  if (!control) return control.status();
  control_watch_ = *control;
  if (!child_) return Status::Ok();
  Result<EventLoop::WatchId> exit = loop_.Watch(child_->fd(), EPOLLIN, [this](uint32_t) { OnExit(); });
  if (!exit) return exit.status();
  exit_watch_ = *exit;
  for (size_t which = 0; which < outputs_.size(); ++which) {
    Result<EventLoop::WatchId> output =
        loop_.Watch(outputs_[which].fd.get(), EPOLLIN, [this, which](uint32_t) { OnOutput(which); });
    if (!output) return output.status();
    outputs_[which].watch = *output;
  }
  return Status::Ok();
}

void WorkerLink::Kill() {
  if (stage == Stage::kEnded) return;
  if (child_) {
    (void)child_->Signal(SIGKILL);
  } else {
    ::shutdown(control_.fd(), SHUT_RDWR);
  }
}

void WorkerLink::OnControl() {
  // Bounded, so that one worker that talks without end does not keep the loop from everything else.
  for (int i = 0; i < 64 && stage != Stage::kEnded; ++i) {
    Result<std::optional<worker::ControlMessage>> received = control_.Receive(0);
    if (!received) {
      if (received.status().code() == Code::kProtocolInvalid) {
        failure = "it sent a malformed control packet: " + received.status().message();
        Kill();
      } else if (received.status().sys_errno() == EMFILE) {
        failure = "the host cannot take what it sent: " + received.status().message();
        Kill();
      } else {
        ControlLost();
      }
      return;
    }
    if (!received->has_value()) return;
    hooks_.message(*this, **received);
  }
}

void WorkerLink::ControlLost() {
  loop_.Unwatch(control_watch_);
  control_watch_ = 0;
  if (!child_) return End({.signal = SIGKILL, .exit_code = 0, .stderr_tail = {}});
  kill_timer_ = loop_.At(DeadlineIn(kEndAfterControlNs), [this] { Kill(); });
}

void WorkerLink::OnExit() {
  siginfo_t ended{};
  if (::waitid(P_PID, static_cast<id_t>(id_.pid), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid == 0)
    return;
  // What its functions have forked goes with it. Before it is reaped: until then its pid names its group and no other.
  ::kill(-id_.pid, SIGKILL);
  int status = 0;
  const pid_t reaped = ::waitpid(id_.pid, &status, WNOHANG);
  for (size_t which = 0; which < outputs_.size(); ++which) ReadOutput(which, true);
  WorkerEnd end;
  if (reaped > 0 && WIFSIGNALED(status)) end.signal = WTERMSIG(status);
  if (reaped > 0 && WIFEXITED(status)) end.exit_code = WEXITSTATUS(status);
  end.stderr_tail = tail_;
  End(end);
}

void WorkerLink::End(const WorkerEnd& end) {
  loop_.Unwatch(control_watch_);
  loop_.Unwatch(exit_watch_);
  loop_.CancelTimer(kill_timer_);
  control_watch_ = exit_watch_ = 0;
  for (Output& output : outputs_) {
    loop_.Unwatch(output.watch);
    output.watch = 0;
  }
  stage = Stage::kEnded;
  hooks_.ended(*this, end);
}

void WorkerLink::OnOutput(size_t which) { ReadOutput(which, false); }

void WorkerLink::ReadOutput(size_t which, bool last) {
  Output& output = outputs_[which];
  const auto emit = [&](std::string_view line) { hooks_.output(*this, kStreamNames[which], line); };
  char buffer[16 * 1024];
  // At the end everything there is, which is one pipe at most: a grandchild may hold the write end and go on.
  for (int i = 0; output.fd && i < (last ? 8 : 1); ++i) {
    const ssize_t got = ::read(output.fd.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) break;
    if (got <= 0) {
      loop_.Unwatch(output.watch);
      output.watch = 0;
      output.fd.Reset();
      break;
    }
    const std::string_view bytes(buffer, static_cast<size_t>(got));
    output.lines.Add(bytes, emit);
    if (which == 1) {
      tail_.append(bytes);
      if (tail_.size() > kTailBytes) tail_.erase(0, tail_.size() - kTailBytes);
    }
  }
  if (last || !output.fd) output.lines.Flush(emit);
}

}  // namespace praas::host
