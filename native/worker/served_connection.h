#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>

#include "base/result.h"
#include "base/unique_fd.h"
#include "protocol/frame_reader.h"
#include "protocol/frame_writer.h"
#include "protocol/messages.h"
#include "segment/segment.h"
#include "transport/byte_stream.h"
#include "transport/shm_transport.h"
#include "window/handover.h"
#include "worker/served_verbs.h"

namespace praas::worker {

/// A lease holder's connection that this worker serves itself, without the host: its socket was handed over after the
/// handshake. Calls become submissions to a window whose client this is and which this worker alone serves, so that
/// deadlines, cancellation, crashes and results are those of any window; inputs of 4 KiB and more are received straight
/// into it, results sent from it. When the client asks for it, its calls come by RDMA and the socket only tells of its
/// end. Calls and names only: all else is for the process's own connection. Owner thread.
class ServedConnection final : private protocol::FrameSink {
 public:
  struct Limits {
    uint64_t max_contiguous = 0;
    uint64_t default_timeout_ns = 0;
    bool checksum = false;
  };
  /// Called with what has to be watched, edge-triggered, and for what: at once and when there is more. `whose` is this
  /// for the socket, whose events SocketHasNews is to be told of, nullptr for all else.
  using Watch = std::function<Status(int fd, uint32_t events, void* whose)>;
  /// `window`: index of the window, for the host. Says to the client that the worker speaks from here on.
  [[nodiscard]] static Result<std::unique_ptr<ServedConnection>> Make(UniqueFd socket, uint32_t window,
                                                                      window::Handover handover,
                                                                      const segment::Segment& segment,
                                                                      const Limits& limits, Watch watch);
  ~ServedConnection() override;

  [[nodiscard]] uint32_t window() const noexcept { return window_; }
  /// Takes what the client has sent and sends what is finished. true: there was something.
  bool Poll();
  /// Sends what is finished.
  void Deliver();
  /// `closed`: its end may come behind what is there, and nothing will tell of it again.
  void SocketHasNews(bool closed) noexcept {
    news_ = true;
    hot_ |= closed;
  }
  /// Whether Poll looks at the socket without being told of news there.
  void set_polls(bool polls) noexcept { hot_ = polls; }
  /// Says why it ends.
  void Goodbye(const Status& why);
  /// Asks for the end of every call in flight.
  void CancelAll();
  /// Why it is over: the client has gone, or does not keep to the protocol. Ok while it works.
  [[nodiscard]] const Status& ended() const noexcept { return ended_; }

  /// false: Poll has something to do.
  [[nodiscard]] bool PrepareToSleep();

 private:
  ServedConnection(std::unique_ptr<transport::ByteStream> stream, uint32_t window, window::Handover handover,
                   const segment::Segment& segment, const Limits& limits, Watch watch);
  [[nodiscard]] Result<window::Handover> CopyOfHandover() const;
  [[nodiscard]] Status OpenCalls();
  [[nodiscard]] Status OnUpgrade(std::span<const std::byte> payload);
  [[nodiscard]] Result<protocol::UpgradeOffer> UseVerbs(const protocol::UpgradeRequest& request);
  bool ReadSocket();
  bool DeliverFromSocket();
  [[nodiscard]] Result<protocol::Placement> OnHeader(const protocol::Frame& frame) override;
  [[nodiscard]] Status OnFrame(const protocol::Frame& frame, std::span<std::byte> payload) override;
  [[nodiscard]] Status OnCorrupt(const protocol::Frame& frame) override;
  [[nodiscard]] Result<protocol::Placement> OnCallHeader(const protocol::Frame& frame);
  [[nodiscard]] Status OnCall(const protocol::Frame& frame, std::span<std::byte> input);
  void OnResolve(const protocol::Frame& frame, std::span<const std::byte> name);
  void OnReply(const transport::Reply& reply);
  void DropInput(uint64_t call);
  void Refuse(uint64_t call, const Status& why);
  void ReplyError(protocol::FrameType type, uint64_t call, const Status& status);
  bool Flush();
  void End(Status why);

  const std::unique_ptr<transport::ByteStream> stream_;
  const uint32_t window_;
  const segment::Segment& segment_;
  const Limits limits_;
  const Watch watch_;
  const window::Handover handover_;  // of the window, for whichever way calls take
  protocol::FrameReader reader_;
  protocol::FrameWriter writer_;
  std::unique_ptr<transport::ShmTransport> calls_;  // from the socket; made when the first comes
  std::unique_ptr<ServedVerbs> verbs_;              // set: calls come by RDMA
  transport::Transport::Sink on_reply_;
  std::optional<transport::Buffer> receiving_;              // of the input that is arriving
  std::unordered_map<uint64_t, transport::Buffer> inputs_;  // large ones, by call
  uint32_t in_flight_ = 0;
  bool cancelled_ = false;  // the lease has ended: what still comes is no outcome
  bool paused_ = false;     // there was no room for a call
  bool hot_ = true;
  bool news_ = true;   // of the socket, since it was read to the end
  bool more_ = false;  // there is more to read
  uint32_t polls_ = 0;
  Status ended_;
};

}  // namespace praas::worker
