#include "transport/loopback.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <deque>
#include <mutex>
#include <random>
#include <system_error>
#include <vector>

#include "base/unique_fd.h"

namespace praas::transport {
namespace {

constexpr uint32_t kMillion = 1'000'000;
constexpr size_t kMaxOnTheWay = 256 * 1024;  // bytes one direction delays before writes would block

struct FaultField {
  const char* name;
  uint32_t LoopbackFaults::*value;
};
constexpr FaultField kFaultFields[] = {
    {"split", &LoopbackFaults::split},         {"stall", &LoopbackFaults::stall},
    {"max_delay", &LoopbackFaults::max_delay}, {"lose_byte", &LoopbackFaults::lose_byte},
    {"corrupt", &LoopbackFaults::corrupt},
};

bool ParseNumber(std::string_view text, uint64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size();
}

Status Cutoff() { return Status(Code::kConnectionLost, "the loopback connection was cut", ECONNRESET); }

}  // namespace

std::string LoopbackFaults::ToText() const {
  std::string text = "seed=" + std::to_string(seed);
  for (const FaultField& field : kFaultFields) {
    if (this->*field.value != 0)
      text.append(" ").append(field.name).append("=").append(std::to_string(this->*field.value));
  }
  if (cut_after != 0) text += " cut_after=" + std::to_string(cut_after);
  return text;
}

Result<LoopbackFaults> LoopbackFaults::Parse(const std::string& text) {
  LoopbackFaults faults;
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(' '), rest.size());
    const std::string_view word = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (word.empty()) continue;
    const size_t equals = word.find('=');
    const std::string_view name = word.substr(0, equals);
    uint64_t number = 0;
    if (equals == std::string_view::npos || !ParseNumber(word.substr(equals + 1), number)) {
      return Status(Code::kArgumentInvalid, "loopback faults: \"" + std::string(word) + "\" is not name=number");
    }
    if (name == "seed") {
      faults.seed = number;
    } else if (name == "cut_after") {
      faults.cut_after = number;
    } else {
      const auto field = std::find_if(std::begin(kFaultFields), std::end(kFaultFields),
                                      [&](const FaultField& each) { return name == each.name; });
      if (field == std::end(kFaultFields) || number > kMillion) {
        return Status(Code::kArgumentInvalid, "loopback faults: \"" + std::string(word) + "\" is unknown or too large");
      }
      faults.*(field->value) = static_cast<uint32_t>(number);
    }
  }
  return faults;
}

/// What both ends share: the sockets, and per direction the bytes that are on their way.
class LoopbackPair::Link {
 public:
  Link(const LoopbackFaults& faults, UniqueFd client, UniqueFd server) : faults_(faults) {
    ends_[0].socket = std::move(client);
    ends_[1].socket = std::move(server);
    for (size_t side = 0; side < ends_.size(); ++side) {
      ends_[side].write_random.seed(faults.seed * 4 + side);
      ends_[side].read_random.seed(faults.seed * 4 + 2 + side);
    }
  }

  [[nodiscard]] int fd(size_t side) const noexcept { return ends_[side].socket.get(); }

  Result<size_t> Read(size_t side, std::span<std::byte> into) {
    const std::lock_guard lock(mutex_);
    Side& end = ends_[side];
    if (end.closed) return Status(Code::kConnectionClosed, "the connection is closed");
    if (cut_) return Cutoff();
    if (into.empty() || Happens(end.read_random, faults_.stall)) return size_t{0};
    if (Happens(end.read_random, faults_.split)) into = into.first(Part(end.read_random, into.size()));
    const ssize_t got = ::recv(end.socket.get(), into.data(), into.size(), 0);
    if (got > 0) return static_cast<size_t>(got);
    if (got == 0) return Status(Code::kConnectionLost, "the peer closed the connection");
    if (errno == EAGAIN || errno == EINTR) return size_t{0};
    return Status(Code::kConnectionLost, std::generic_category().message(errno), errno);
  }

  Result<size_t> Write(size_t side, std::span<const iovec> parts) {
    const std::lock_guard lock(mutex_);
    Side& end = ends_[side];
    if (end.closed) return Status(Code::kConnectionClosed, "the connection is closed");
    if (cut_) return Cutoff();
    if (ends_[1 - side].closed) return Status(Code::kConnectionLost, "the peer closed the connection", EPIPE);

    size_t offered = 0;
    for (const iovec& part : parts) offered += part.iov_len;
    if (offered == 0) return size_t{0};
    size_t take = std::min(offered, kMaxOnTheWay - std::min(kMaxOnTheWay, end.on_the_way_bytes));
    if (take > 0 && Happens(end.write_random, faults_.split)) take = Part(end.write_random, take);
    if (take == 0) return size_t{0};

    std::vector<std::byte> bytes;
    bytes.reserve(take);
    for (const iovec& part : parts) {
      const auto* from = static_cast<const std::byte*>(part.iov_base);
      bytes.insert(bytes.end(), from, from + std::min(part.iov_len, take - bytes.size()));
    }
    const bool faulty = Spoil(end, bytes);
    if (faults_.max_delay == 0 && end.on_the_way.empty()) {
      // No delay: what the socket does not take at once was not written, so that the fd tells when to go on.
      const ssize_t sent = ::send(end.socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return size_t{0};
      if (sent < 0) return Status(Code::kConnectionLost, std::generic_category().message(errno), errno);
      const size_t moved = static_cast<size_t>(sent) == bytes.size() ? take : std::min(take, static_cast<size_t>(sent));
      // A spoiled write that the socket took in part still counts in full: the rest goes on its way.
      if (faulty && moved < take) {
        Enqueue(end, std::vector<std::byte>(bytes.begin() + sent, bytes.end()));
        return Count(take);
      }
      return Count(moved);
    }
    Enqueue(end, std::move(bytes));
    Deliver(end);
    return Count(take);
  }

  void Close(size_t side) noexcept {
    const std::lock_guard lock(mutex_);
    Side& end = ends_[side];
    if (end.closed) return;
    end.closed = true;
    // As on a socket, what was written before the close still arrives, as far as the peer's buffer takes it.
    for (Piece& piece : end.on_the_way) piece.due = now_;
    if (!cut_) Deliver(end);
    end.on_the_way.clear();
    ::shutdown(end.socket.get(), SHUT_RDWR);
  }

  void Step() {
    const std::lock_guard lock(mutex_);
    ++now_;
    for (Side& end : ends_) Deliver(end);
  }

  void Cut() {
    const std::lock_guard lock(mutex_);
    CutLocked();
  }

 private:
  struct Piece {
    std::vector<std::byte> bytes;
    uint64_t due;
  };
  struct Side {
    UniqueFd socket;
    bool closed = false;
    std::mt19937_64 write_random, read_random;
    std::deque<Piece> on_the_way;
    size_t on_the_way_bytes = 0;
  };

  // Not std::uniform_int_distribution: its results differ between standard libraries, and a seed must replay anywhere.
  static bool Happens(std::mt19937_64& random, uint32_t per_million) {
    return per_million != 0 && random() % kMillion < per_million;
  }
  static size_t Part(std::mt19937_64& random, size_t size) { return 1 + random() % size; }

  bool Spoil(Side& end, std::vector<std::byte>& bytes) {
    bool spoiled = false;
    if (Happens(end.write_random, faults_.corrupt)) {
      const uint64_t draw = end.write_random();
      bytes[draw % bytes.size()] ^= static_cast<std::byte>(1u << (draw >> 32) % 8);
      spoiled = true;
    }
    if (Happens(end.write_random, faults_.lose_byte)) {
      bytes.erase(bytes.begin() + static_cast<ptrdiff_t>(end.write_random() % bytes.size()));
      spoiled = true;
    }
    return spoiled;
  }

  void Enqueue(Side& end, std::vector<std::byte> bytes) {
    if (bytes.empty()) return;
    const uint64_t earliest = end.on_the_way.empty() ? now_ : end.on_the_way.back().due;
    const uint64_t delay = faults_.max_delay == 0 ? 0 : end.write_random() % (faults_.max_delay + 1);
    end.on_the_way_bytes += bytes.size();
    end.on_the_way.push_back({std::move(bytes), std::max(earliest, now_ + delay)});
  }

  void Deliver(Side& end) {
    while (!end.on_the_way.empty() && end.on_the_way.front().due <= now_) {
      std::vector<std::byte>& bytes = end.on_the_way.front().bytes;
      const ssize_t sent = ::send(end.socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;
      end.on_the_way_bytes -= static_cast<size_t>(sent);
      bytes.erase(bytes.begin(), bytes.begin() + sent);
      if (bytes.empty()) end.on_the_way.pop_front();
    }
  }

  size_t Count(size_t bytes) {
    written_ += bytes;
    if (faults_.cut_after != 0 && written_ >= faults_.cut_after) CutLocked();
    return bytes;
  }

  void CutLocked() {
    cut_ = true;
    // Wakes whoever polls; the descriptors themselves live until the ends go.
    for (Side& end : ends_) ::shutdown(end.socket.get(), SHUT_RDWR);
  }

  const LoopbackFaults faults_;
  std::mutex mutex_;
  std::array<Side, 2> ends_;  // what a side writes is on its way in that side
  uint64_t now_ = 0;
  uint64_t written_ = 0;
  bool cut_ = false;
};

class LoopbackPair::End : public ByteStream {
 public:
  End(std::shared_ptr<Link> link, size_t side) noexcept : link_(std::move(link)), side_(side) {}
  ~End() override { link_->Close(side_); }

  Result<size_t> Read(std::span<std::byte> into) override { return link_->Read(side_, into); }
  Result<size_t> Write(std::span<const iovec> parts) override { return link_->Write(side_, parts); }
  int fd() const noexcept override { return link_->fd(side_); }
  void Close() noexcept override { link_->Close(side_); }

 private:
  std::shared_ptr<Link> link_;
  size_t side_;
};

Result<LoopbackPair> LoopbackPair::Create(const LoopbackFaults& faults) {
  int sockets[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sockets) != 0)
    return Status::System("socketpair");
  LoopbackPair pair;
  pair.link_ = std::make_shared<Link>(faults, UniqueFd(sockets[0]), UniqueFd(sockets[1]));
  pair.client_ = std::make_unique<End>(pair.link_, 0);
  pair.server_ = std::make_unique<End>(pair.link_, 1);
  return pair;
}

void LoopbackPair::Step() { link_->Step(); }
void LoopbackPair::Cut() { link_->Cut(); }

}  // namespace praas::transport
