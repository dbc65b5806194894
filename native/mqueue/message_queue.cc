#include "mqueue/message_queue.h"

#include <fcntl.h>
#include <mqueue.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/clock.h"

namespace praas::mqueue {
namespace {

// An mqd_t is a file descriptor on Linux (mq_overview(7), "Linux implementation of message queue descriptors").
static_assert(sizeof(mqd_t) == sizeof(int));

Status OpenError(const std::string& what, int error) {
  Status status = Status::System(what, error);
  if (error == EMFILE) {
    return Status(Code::kSystem, status.message() + "; RLIMIT_MSGQUEUE is used up, see `ulimit -q` and `praas clean`",
                  error);
  }
  if (error == ENOSPC) {
    return Status(Code::kSystem, status.message() + "; the system's queues are used up, see fs.mqueue.queues_max",
                  error);
  }
  if (error == EACCES || error == EPERM) {
    return Status(Code::kSystem, status.message() + "; another user has taken the name", error);
  }
  return status;
}

/// A second open file description of the same queue, which blocks. Its name may belong to another queue by now.
Result<UniqueFd> OpenBlocking(const UniqueFd& queue, const std::string& name) {
  UniqueFd blocking(::open(("/proc/self/fd/" + std::to_string(queue.get())).c_str(), O_RDWR | O_CLOEXEC));
  if (blocking.get() < 0) return OpenError("open " + name + " again", errno);
  return blocking;
}

}  // namespace

Result<MessageQueue> MessageQueue::Create(const std::string& name, const Limits& limits) {
  mq_attr attributes{};
  attributes.mq_maxmsg = limits.depth;
  attributes.mq_msgsize = limits.message_bytes;
  if (mq_unlink(name.c_str()) != 0 && errno != ENOENT) return OpenError("mq_unlink " + name, errno);
  UniqueFd fd(mq_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK | O_CLOEXEC, 0600, &attributes));
  if (fd.get() < 0) return OpenError("mq_open " + name, errno);
  Result<UniqueFd> blocking = OpenBlocking(fd, name);
  if (!blocking.ok()) {
    mq_unlink(name.c_str());
    return blocking.status();
  }
  return MessageQueue(std::move(fd), *std::move(blocking));
}

Result<MessageQueue> MessageQueue::Open(const std::string& name) {
  UniqueFd fd(mq_open(name.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (fd.get() < 0) return OpenError("mq_open " + name, errno);
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return OpenError("fstat " + name, errno);
  if (info.st_uid != geteuid()) {
    return Status(Code::kSystem, "mq_open " + name + ": the queue belongs to user " + std::to_string(info.st_uid),
                  EACCES);
  }
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return Status(Code::kSystem, "mq_open " + name + ": the queue is open to others", EACCES);
  }
  Result<UniqueFd> blocking = OpenBlocking(fd, name);
  if (!blocking.ok()) return blocking.status();
  return MessageQueue(std::move(fd), *std::move(blocking));
}

Status MessageQueue::Unlink(const std::string& name) {
  if (mq_unlink(name.c_str()) != 0 && errno != ENOENT) return Status::System("mq_unlink " + name);
  return Status::Ok();
}

Result<bool> MessageQueue::TrySend(std::span<const std::byte> message) noexcept {
  for (;;) {
    if (mq_send(fd_.get(), reinterpret_cast<const char*>(message.data()), message.size(), 0) == 0) return true;
    if (errno == EAGAIN) return false;
    if (errno != EINTR) return Status::System("mq_send");
  }
}

Result<std::optional<size_t>> MessageQueue::TryReceive(std::span<std::byte> into) noexcept {
  for (;;) {
    const ssize_t got = mq_receive(fd_.get(), reinterpret_cast<char*>(into.data()), into.size(), nullptr);
    if (got >= 0) return std::optional<size_t>(static_cast<size_t>(got));
    if (errno == EAGAIN) return std::optional<size_t>();
    if (errno != EINTR) return Status::System("mq_receive");
  }
}

Result<std::optional<size_t>> MessageQueue::Receive(std::span<std::byte> into, uint64_t deadline_ns) noexcept {
  // mq_timedreceive counts in CLOCK_REALTIME; the deadline is monotonic. A clock jump can only make this wait shorter
  // or longer once: the loop below looks at the monotonic clock again, and one wait is capped at ten seconds.
  constexpr uint64_t kLongestWaitNs = 10'000'000'000;
  for (;;) {
    const uint64_t now = NowNs();
    if (now >= deadline_ns) return TryReceive(into);
    const uint64_t wait = deadline_ns - now < kLongestWaitNs ? deadline_ns - now : kLongestWaitNs;
    const timespec until = ToTimespec(WallNs() + wait);
    const ssize_t got =
        mq_timedreceive(blocking_.get(), reinterpret_cast<char*>(into.data()), into.size(), nullptr, &until);
    if (got >= 0) return std::optional<size_t>(static_cast<size_t>(got));
    if (errno == EINTR) return std::optional<size_t>();
    if (errno != ETIMEDOUT) return Status::System("mq_timedreceive");
  }
}

}  // namespace praas::mqueue
