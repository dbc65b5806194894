#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "protocol/frame_reader.h"
#include "protocol/frame_writer.h"
#include "transport/byte_stream.h"
#include "transport/transport.h"

namespace praas::transport {

/// Calls as frames on a ByteStream: the `tcp` and `loopback` transports.
///
/// The stream carries more than calls: the connection pushes its own frames through `writer()` and gets every frame
/// that is not the reply to a Submit through the sink given to SetOther. Nothing is written before the next Poll, so
/// that everything submitted until then shares a system call.
class StreamTransport final : public Transport, private protocol::FrameSink {
 public:
  struct Options {
    uint64_t max_payload = 0;    // largest input or result
    uint32_t max_in_flight = 0;  // of Submit
    bool checksum = false;
    Code gone = Code::kHostLost;  // what the end of the stream means: the process at the other end has ended
  };
  /// `name` must outlive the transport. Without Configure nothing can be submitted: that is the state of a handshake.
  StreamTransport(const char* name, std::unique_ptr<ByteStream> stream);
  ~StreamTransport() override;
  StreamTransport(const StreamTransport&) = delete;
  StreamTransport& operator=(const StreamTransport&) = delete;

  void Configure(const Options& options) noexcept;
  void SetOther(protocol::FrameSink* other) noexcept { other_ = other; }
  /// Asked, once its header is there, where a result of kLargeResultBytes or more without an output of its own shall
  /// go: at least `bytes` that stay valid until its reply or Abandon. Empty: to memory of the transport.
  using ResultMemory = std::function<std::span<std::byte>(uint64_t call, uint64_t bytes)>;
  void SetResultMemory(ResultMemory memory) { result_memory_ = std::move(memory); }
  static constexpr uint64_t kLargeResultBytes = 64 * 1024;
  [[nodiscard]] protocol::FrameWriter& writer() noexcept { return writer_; }
  [[nodiscard]] const protocol::FrameWriter& writer() const noexcept { return writer_; }
  [[nodiscard]] const protocol::FrameReader& reader() const noexcept { return reader_; }
  /// Why the peer is gone; ok while it is there. Set by Poll.
  [[nodiscard]] const Status& lost() const noexcept { return lost_; }
  /// The peer has said why it is about to close: becomes `lost()` when it does.
  void Announce(Status reason) { announced_ = std::move(reason); }
  [[nodiscard]] size_t in_flight() const noexcept { return calls_.size(); }

  [[nodiscard]] const char* name() const noexcept override { return name_; }
  [[nodiscard]] Result<bool> Submit(const Request& request) override;
  void Cancel(uint64_t call) override;
  void Abandon(uint64_t call) override;
  size_t Poll(const Sink& sink) override;
  /// Writes what is queued without reading; a failure is found by the next Poll.
  void Flush();
  [[nodiscard]] int fd() const noexcept override { return stream_->fd(); }
  [[nodiscard]] bool wants_write() const noexcept override { return !closed_ && lost_.ok() && !writer_.empty(); }
  [[nodiscard]] bool PrepareToSleep() override;
  [[nodiscard]] Result<Buffer> Allocate(uint64_t bytes) override;
  void Release(const Buffer& buffer) override;
  void Close() noexcept override;
  [[nodiscard]] bool closed() const noexcept override { return closed_; }

 private:
  struct Call {
    std::span<std::byte> output;
    bool abandoned = false;
  };

  Result<protocol::Placement> OnHeader(const protocol::Frame& frame) override;
  Status OnFrame(const protocol::Frame& frame, std::span<std::byte> payload) override;
  Status OnCorrupt(const protocol::Frame& frame) override;

  [[nodiscard]] bool IsReply(const protocol::Frame& frame) const;
  void HandOut(uint64_t call, Status status, std::span<const std::byte> payload);
  void ReadIn();
  void FailAll();

  const char* name_;
  std::unique_ptr<ByteStream> stream_;
  protocol::FrameReader reader_;
  protocol::FrameWriter writer_;
  protocol::FrameSink* other_ = nullptr;
  ResultMemory result_memory_;
  Options options_;
  std::unordered_map<uint64_t, Call> calls_;
  std::vector<uint64_t> settled_;  // abandoned calls that end without a frame; handed out by the next Poll
  std::unordered_map<std::byte*, std::unique_ptr<std::byte[]>> buffers_;

  const Sink* sink_ = nullptr;  // of the Poll in progress
  size_t handed_out_ = 0;       // in the Poll in progress
  bool more_ = false;           // the last Poll ended by its budget
  Status write_error_;
  Status announced_;
  Status lost_;
  bool closed_ = false;
};

/// Remaining time until a deadline as it goes on the wire: whole microseconds, at least 1 (0 would mean "the default").
[[nodiscard]] uint64_t RemainingUs(uint64_t deadline_ns) noexcept;

}  // namespace praas::transport
