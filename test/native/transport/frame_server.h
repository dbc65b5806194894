#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/machine_id.h"
#include "base/unique_fd.h"
#include "protocol/frame_reader.h"
#include "protocol/frame_writer.h"
#include "protocol/messages.h"
#include "protocol/state_messages.h"
#include "protocol/token.h"
#include "support/tokens.h"
#include "transport/loopback.h"
#include "transport/tcp.h"

namespace praas::test {

using Bytes = std::vector<std::byte>;

inline Bytes Pattern(size_t size, uint32_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(size);
  size_t at = 0;
  for (; at + 8 <= size; at += 8) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + at, &word, sizeof word);
  }
  for (; at < size; ++at) bytes[at] = static_cast<std::byte>(random());
  return bytes;
}

inline Bytes ToBytes(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

/// Input of the function "sized": a result of `bytes` pseudo-random bytes.
inline Bytes SizedInput(uint64_t bytes, uint32_t seed) {
  Bytes input(12);
  std::memcpy(input.data(), &bytes, 8);
  std::memcpy(input.data() + 8, &seed, 4);
  return input;
}

/// The functions every server in these tests offers, in this order.
enum TestFunction : uint32_t { kEcho = 0, kSized = 1, kThrow = 2, kHold = 3, kStreamEcho = 4, kFunctionCount = 5 };
inline constexpr std::array<const char*, kFunctionCount> kFunctionNames = {"echo", "sized", "throw", "hold",
                                                                           "streamEcho"};

/// A process host reduced to its protocol: sessions over any byte stream, served by one thread, functions answered in
/// place.
///
/// "echo" returns its input, "sized" what SizedInput asks for, "throw" fails with its input as message, "hold" answers
/// when it is cancelled or released, "streamEcho" returns its chunks.
class FrameServer {
 public:
  struct Options {
    std::string process = "p";
    uint64_t capabilities = protocol::kCapChecksum | protocol::kCapStream;
    uint64_t max_contiguous = 16 << 20;
    uint32_t max_in_flight = 64;
    uint64_t default_timeout_ns = 60'000'000'000;
    uint64_t stream_credit = protocol::kInitialStreamCredit;
    std::string machine_id = MachineId();
    std::function<void()> step{};  // called all the time, e.g. to move a loopback's clock
  };

  FrameServer() : FrameServer(Options{}) {}
  explicit FrameServer(Options options)
      : options_(std::move(options)), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    Result<transport::TcpListener> listener = transport::TcpListener::Listen("127.0.0.1", 0);
    EXPECT_TRUE(listener.ok()) << listener.status().message();
    listener_.emplace(std::move(*listener));
    thread_ = std::thread([this] { Run(); });
  }
  ~FrameServer() {
    Do([this] { stop_ = true; });
    thread_.join();
  }

  [[nodiscard]] uint16_t port() const { return listener_->port(); }
  void Adopt(std::unique_ptr<transport::ByteStream> stream) {
    Do([&] { sessions_.push_back(std::make_unique<Session>(*this, std::move(stream))); });
  }
  /// Ends every session as a crash of the host would.
  void DropSessions() {
    Do([this] { sessions_.clear(); });
  }
  /// Answers everything that is being held, the latest first.
  void ReleaseHeld() {
    Do([this] {
      for (auto& session : sessions_) session->ReleaseHeld();
    });
  }
  [[nodiscard]] size_t held() {
    size_t count = 0;
    Do([&] {
      for (auto& session : sessions_) count += session->held();
    });
    return count;
  }
  /// Requests that `session` sees at one time at most, since the server started.
  [[nodiscard]] size_t most_in_flight() {
    size_t most = 0;
    Do([&] { most = most_in_flight_; });
    return most;
  }
  void StopReading(bool stop) {
    Do([this, stop] { reading_ = !stop; });
  }
  /// Runs `function` on the server's thread with the writer of the first session, to misbehave.
  void WithWriter(const std::function<void(protocol::FrameWriter&)>& function) {
    Do([&] {
      if (!sessions_.empty()) function(sessions_.front()->writer());
    });
  }
  /// Writes bytes as they stand to the first session, whatever else is going on there.
  void WriteRaw(std::span<const std::byte> bytes) {
    Do([&] {
      while (!bytes.empty() && !sessions_.empty()) {
        const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
        const Result<size_t> sent = sessions_.front()->stream_->Write({&part, 1});
        if (!sent.ok()) return;
        bytes = bytes.subspan(*sent);
      }
    });
  }
  void Goodbye(Code code, const std::string& message) {
    WithWriter([&](protocol::FrameWriter& writer) {
      protocol::Frame frame;
      frame.type = protocol::FrameType::kGoodbye;
      writer.PushCopy(frame, Encode(protocol::Reject{code, message}));
    });
  }

 private:
  class Session : public protocol::FrameSink {
   public:
    Session(FrameServer& server, std::unique_ptr<transport::ByteStream> stream)
        : server_(server), stream_(std::move(stream)), reader_(server.options_.max_contiguous) {}
    ~Session() override { writer_.Abort(Status(Code::kConnectionClosed, "dropped")); }

    [[nodiscard]] int fd() const { return stream_->fd(); }
    [[nodiscard]] bool wants_write() const { return !writer_.empty(); }
    [[nodiscard]] protocol::FrameWriter& writer() { return writer_; }
    [[nodiscard]] size_t held() const { return held_.size(); }
    [[nodiscard]] size_t in_flight() const { return held_.size() + streams_.size(); }

    /// false: the session is over.
    bool Serve() {
      if (!writer_.empty() && !writer_.Flush(*stream_).ok()) return false;
      if (leaving_) return !writer_.empty();
      if (server_.reading_ && !reader_.Read(*stream_, *this).ok()) return false;
      return writer_.empty() || writer_.Flush(*stream_).ok();
    }
    void ReleaseHeld() {
      while (!held_.empty()) {
        Answer(held_.back().first, held_.back().second);
        held_.pop_back();
      }
    }

    Result<protocol::Placement> OnHeader(const protocol::Frame& frame) override {
      if (!welcomed_ && frame.type != protocol::FrameType::kHello) return Status(Code::kProtocolInvalid, "no hello");
      if (frame.type == protocol::FrameType::kData && !streams_.contains(frame.call))
        return protocol::Placement::Discard();
      payload_ = std::make_shared<Bytes>(frame.payload_bytes);
      return protocol::Placement::Into(*payload_);
    }
    Status OnCorrupt(const protocol::Frame& frame) override {
      if (frame.type != protocol::FrameType::kCall) return Status(Code::kPayloadCorrupt, "corrupt");
      Fail(frame.call, Status(Code::kPayloadCorrupt, "the input does not match its checksum"));
      return Status::Ok();
    }
    Status OnFrame(const protocol::Frame& frame, std::span<std::byte> payload) override {
      switch (frame.type) {
        case protocol::FrameType::kHello:
          return OnHello(payload);
        case protocol::FrameType::kResolve:
          return OnResolve(frame, payload);
        case protocol::FrameType::kCall:
          return OnCall(frame);
        case protocol::FrameType::kCancel:
          return OnCancel(frame);
        case protocol::FrameType::kData:
          return OnData(frame);
        case protocol::FrameType::kCredit:
          return OnCredit(frame);
        case protocol::FrameType::kState:
          return OnState(frame, payload);
        case protocol::FrameType::kAdmin:
          return OnAdmin(frame, payload);
        case protocol::FrameType::kUpgrade:
          return OnUpgrade();
        case protocol::FrameType::kPing:
          writer_.Push({.type = protocol::FrameType::kPong, .aux = frame.aux});
          return Status::Ok();
        case protocol::FrameType::kPong:
          return Status::Ok();
        case protocol::FrameType::kGoodbye:
          return Status(Code::kConnectionClosed, "goodbye");
        default:
          return Status(Code::kProtocolInvalid, "unexpected");
      }
    }

   private:
    struct Stream {
      uint64_t credit;
      uint64_t sent = 0;
      bool ended = false;
      std::vector<std::shared_ptr<Bytes>> waiting;
    };

    Status OnHello(std::span<const std::byte> payload) {
      Result<protocol::Hello> hello = protocol::DecodeHello(payload);
      Status refusal = hello.ok() ? Status::Ok() : hello.status();
      if (refusal.ok()) refusal = protocol::OpenToken(kProcessKey, hello->token).status();
      if (refusal.ok() && hello->process != server_.options_.process)
        refusal = Status(Code::kProcessUnknown, "another process");
      if (!refusal.ok()) {
        writer_.PushCopy({.type = protocol::FrameType::kReject},
                         Encode(protocol::Reject{refusal.code(), refusal.message()}));
        leaving_ = true;
        return Status::Ok();
      }
      welcomed_ = true;
      const uint64_t capabilities = hello->capabilities & server_.options_.capabilities;
      writer_.set_checksum(capabilities & protocol::kCapChecksum);
      writer_.PushCopy({.type = protocol::FrameType::kWelcome},
                       Encode(protocol::Welcome{.session_id = 1,
                                                .process = server_.options_.process,
                                                .capabilities = capabilities,
                                                .max_contiguous = server_.options_.max_contiguous,
                                                .max_in_flight = server_.options_.max_in_flight,
                                                .default_timeout_ns = server_.options_.default_timeout_ns,
                                                .host_pid = ::getpid(),
                                                .machine_id = server_.options_.machine_id,
                                                .stream_credit = server_.options_.stream_credit}));
      return Status::Ok();
    }

    Status OnResolve(const protocol::Frame& frame, std::span<const std::byte> payload) {
      protocol::Frame reply{.type = protocol::FrameType::kResolved, .call = frame.call};
      const std::string_view name(reinterpret_cast<const char*>(payload.data()), payload.size());
      for (uint32_t index = 0; index < kFunctionCount; ++index) {
        if (name != kFunctionNames[index]) continue;
        reply.function = index;
        reply.aux = index == kStreamEcho ? 1 : 0;
        writer_.Push(reply);
        return Status::Ok();
      }
      writer_.PushCopy(
          reply, protocol::SetError(reply, Status(Code::kFunctionUnknown, "no function \"" + std::string(name) + '"')));
      return Status::Ok();
    }

    Status OnCall(const protocol::Frame& frame) {
      if (frame.flags & protocol::kStream) {
        if (frame.function != kStreamEcho)
          return Fail(frame.call, Status(Code::kArgumentInvalid, "not a stream")), Status::Ok();
        streams_[frame.call].credit = server_.options_.stream_credit;
        Count();
        return Status::Ok();
      }
      switch (frame.function) {
        case kEcho:
          Answer(frame.call, payload_);
          break;
        case kSized: {
          uint64_t size = 0;
          uint32_t seed = 0;
          if (payload_->size() != 12)
            return Fail(frame.call, Status(Code::kArgumentInvalid, "sized wants 12 bytes")), Status::Ok();
          std::memcpy(&size, payload_->data(), 8);
          std::memcpy(&seed, payload_->data() + 8, 4);
          Answer(frame.call, std::make_shared<Bytes>(Pattern(size, seed)));
          break;
        }
        case kThrow:
          Fail(frame.call,
               Status(Code::kFunctionThrew, {reinterpret_cast<const char*>(payload_->data()), payload_->size()}));
          break;
        case kHold:
          held_.emplace_back(frame.call, payload_);
          Count();
          break;
        default:
          Fail(frame.call, Status(Code::kFunctionUnknown, "no such function"));
      }
      return Status::Ok();
    }

    Status OnCancel(const protocol::Frame& frame) {
      for (auto held = held_.begin(); held != held_.end(); ++held) {
        if (held->first != frame.call) continue;
        held_.erase(held);
        Fail(frame.call, Status(Code::kInvocationCancelled, "cancelled"));
        return Status::Ok();
      }
      if (locks_waiting_.erase(frame.call) > 0) {
        protocol::Frame reply{.type = protocol::FrameType::kStateReply, .call = frame.call};
        writer_.PushCopy(reply, protocol::SetError(reply, Status(Code::kInvocationCancelled, "withdrawn")));
      }
      if (streams_.erase(frame.call) > 0) Fail(frame.call, Status(Code::kInvocationCancelled, "cancelled"));
      return Status::Ok();
    }

    Status OnData(const protocol::Frame& frame) {
      Stream& stream = streams_[frame.call];
      if (!payload_->empty()) stream.waiting.push_back(payload_);
      stream.ended = frame.flags & protocol::kLast;
      if (frame.payload_bytes > 0) {
        writer_.Push({.type = protocol::FrameType::kCredit, .call = frame.call, .aux = frame.payload_bytes});
      }
      PumpStream(frame.call, stream);
      return Status::Ok();
    }
    Status OnCredit(const protocol::Frame& frame) {
      const auto found = streams_.find(frame.call);
      if (found == streams_.end()) return Status::Ok();
      found->second.credit += frame.aux;
      PumpStream(frame.call, found->second);
      return Status::Ok();
    }
    void PumpStream(uint64_t call, Stream& stream) {
      while (!stream.waiting.empty() && stream.waiting.front()->size() <= stream.credit) {
        const std::shared_ptr<Bytes> chunk = stream.waiting.front();
        stream.waiting.erase(stream.waiting.begin());
        stream.credit -= chunk->size();
        writer_.Push({.type = protocol::FrameType::kData, .call = call, .aux = stream.sent++}, *chunk,
                     [chunk](const Status&) {});
      }
      if (!stream.ended || !stream.waiting.empty()) return;
      writer_.Push({.type = protocol::FrameType::kData, .flags = protocol::kLast, .call = call, .aux = stream.sent});
      writer_.Push({.type = protocol::FrameType::kReply, .call = call});
      streams_.erase(call);
    }

    Status OnState(const protocol::Frame& frame, std::span<const std::byte> payload) {
      protocol::Frame reply{.type = protocol::FrameType::kStateReply, .call = frame.call};
      Result<protocol::StateRequest> request = protocol::DecodeStateRequest(frame.code, payload);
      const auto fail = [&](const Status& status) {
        writer_.PushCopy(reply, protocol::SetError(reply, status));
        return Status::Ok();
      };
      if (!request.ok()) return fail(request.status());
      protocol::StateReply out;
      auto& values = server_.values_;
      switch (request->op) {
        case protocol::StateOp::kSet:
          values[request->key].assign(request->data.begin(), request->data.end());
          out.version = ++server_.version_;
          break;
        case protocol::StateOp::kGet:
          if (!values.contains(request->key)) return fail(Status(Code::kStateNotFound, "no such key"));
          out.data = values[request->key];
          out.infos.push_back({.key = request->key, .kind = 1, .bytes = out.data.size(), .version = 1});
          break;
        case protocol::StateOp::kDelete:
          out.existed = values.erase(request->key) > 0;
          break;
        case protocol::StateOp::kLock:
          if (request->key == "taken") {
            locks_waiting_[frame.call] = true;
            return Status::Ok();
          }
          out.lock = 99;
          break;
        case protocol::StateOp::kUnlock:
          ++server_.unlocks_;
          break;
        default:
          return fail(Status(Code::kUnsupported, "not in this server"));
      }
      writer_.Push(reply, out.data, {}, EncodeHead(request->op, out));
      // The value may change before the frame has been sent.
      writer_.Detach(reply.type, reply.call);
      return Status::Ok();
    }

    Status OnAdmin(const protocol::Frame& frame, std::span<const std::byte> payload) {
      writer_.PushCopy({.type = protocol::FrameType::kAdminReply, .call = frame.call}, payload);
      return Status::Ok();
    }
    Status OnUpgrade() {
      protocol::UpgradeOffer offer;
      offer.refused = protocol::Reject{Code::kUnsupported, "no windows here"};
      writer_.PushCopy({.type = protocol::FrameType::kUpgradeOffer}, Encode(offer));
      return Status::Ok();
    }

    void Answer(uint64_t call, const std::shared_ptr<Bytes>& result) {
      writer_.Push({.type = protocol::FrameType::kReply, .call = call}, *result, [result](const Status&) {});
    }
    void Fail(uint64_t call, const Status& status) {
      protocol::Frame reply{.type = protocol::FrameType::kReply, .call = call};
      writer_.PushCopy(reply, protocol::SetError(reply, status));
    }
    void Count() { server_.most_in_flight_ = std::max(server_.most_in_flight_, in_flight()); }

    friend class FrameServer;
    FrameServer& server_;
    std::unique_ptr<transport::ByteStream> stream_;
    protocol::FrameReader reader_;
    protocol::FrameWriter writer_;
    std::shared_ptr<Bytes> payload_;
    std::vector<std::pair<uint64_t, std::shared_ptr<Bytes>>> held_;
    std::map<uint64_t, bool> locks_waiting_;
    std::map<uint64_t, Stream> streams_;
    bool welcomed_ = false;
    bool leaving_ = false;
  };

 public:
  [[nodiscard]] size_t unlocks() {
    size_t count = 0;
    Do([&] { count = unlocks_; });
    return count;
  }
  [[nodiscard]] size_t locks_waiting() {
    size_t count = 0;
    Do([&] {
      for (auto& session : sessions_) count += session->locks_waiting_.size();
    });
    return count;
  }
  /// Grants every lock that waits, as if its holder had gone.
  void GrantLocks() {
    Do([this] {
      for (auto& session : sessions_) {
        for (const auto& [call, waits] : std::exchange(session->locks_waiting_, {})) {
          session->writer_.PushCopy({.type = protocol::FrameType::kStateReply, .call = call},
                                    EncodeHead(protocol::StateOp::kLock, protocol::StateReply{.lock = 7}));
        }
      }
    });
  }

 private:
  void Do(const std::function<void()>& task) {
    std::unique_lock lock(mutex_);
    tasks_.push_back(&task);
    const uint64_t one = 1;
    EXPECT_EQ(::write(wake_.get(), &one, sizeof one), static_cast<ssize_t>(sizeof one));
    done_.wait(lock, [&] { return std::find(tasks_.begin(), tasks_.end(), &task) == tasks_.end(); });
  }

  void Run() {
    while (!stop_) {
      std::vector<pollfd> waiting{{wake_.get(), POLLIN, 0}, {listener_->fd(), POLLIN, 0}};
      for (const auto& session : sessions_) {
        const short events = static_cast<short>((reading_ ? POLLIN : 0) | (session->wants_write() ? POLLOUT : 0));
        waiting.push_back({session->fd(), events, 0});
      }
      if (::poll(waiting.data(), waiting.size(), options_.step ? 1 : -1) < 0) continue;
      if (options_.step) options_.step();
      if (waiting[1].revents != 0) {
        Result<std::unique_ptr<transport::TcpStream>> accepted = listener_->Accept();
        if (accepted.ok() && *accepted) sessions_.push_back(std::make_unique<Session>(*this, std::move(*accepted)));
      }
      {
        const std::lock_guard lock(mutex_);
        uint64_t count;
        (void)!::read(wake_.get(), &count, sizeof count);
        for (const std::function<void()>* task : tasks_) (*task)();
        tasks_.clear();
        done_.notify_all();
      }
      std::erase_if(sessions_, [](const auto& session) { return !session->Serve(); });
    }
    sessions_.clear();
  }

  Options options_;
  UniqueFd wake_;
  std::optional<transport::TcpListener> listener_;
  std::mutex mutex_;
  std::condition_variable done_;
  std::vector<const std::function<void()>*> tasks_;

  // Of the server's thread.
  std::vector<std::unique_ptr<Session>> sessions_;
  std::map<std::string, Bytes> values_;
  uint64_t version_ = 0;
  size_t unlocks_ = 0;
  size_t most_in_flight_ = 0;
  bool reading_ = true;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace praas::test
