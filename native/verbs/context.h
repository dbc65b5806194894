#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "verbs/library.h"

#if PRAAS_VERBS_HEADERS

namespace praas::verbs {

/// Which device, port and address to use; what is not said is chosen: the first active port, on Ethernet with its first
/// routed (RoCE v2, IPv4) address.
struct Selection {
  std::string device{};
  uint8_t port = 0;           // from 1; 0: choose
  int gid_index = -1;         // −1: choose
  uint8_t traffic_class = 0;  // of packets with a global header: DSCP and ECN bits on RoCE v2

  /// PRAAS_IB_DEVICE, PRAAS_IB_PORT, PRAAS_IB_GID_INDEX, PRAAS_IB_TRAFFIC_CLASS. kArgumentInvalid names the one that is
  /// no such number.
  [[nodiscard]] static Result<Selection> FromEnvironment();
};

/// Where a peer reaches the port. `gid` counts on Ethernet, and on InfiniBand between subnets.
struct Address {
  uint16_t lid = 0;
  bool ethernet = false;
  std::array<uint8_t, 16> gid{};
  uint32_t mtu_bytes = 0;

  bool operator==(const Address&) const = default;
};

/// An open device with one port of it. Outlives everything made in it. Its methods may be called from any thread.
class Context {
 public:
  /// kUnsupported: no library, no device, no such device or port; kSystem: it cannot be opened. Says what to do. A
  /// kernel that is removing a device answers nobody until all have closed it: kUnsupported after three seconds, and at
  /// once while an earlier attempt still waits that has waited for so long. kConnectionTimeout: the deadline came
  /// first.
  [[nodiscard]] static Result<std::unique_ptr<Context>> Open(const Selection& selection,
                                                             uint64_t deadline_ns = kNoDeadline);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  [[nodiscard]] const Library& ibv() const noexcept { return library_; }
  [[nodiscard]] ibv_context* get() const noexcept { return context_; }
  [[nodiscard]] const std::string& device() const noexcept { return device_; }
  [[nodiscard]] uint8_t port() const noexcept { return port_; }
  /// "RDMA device NAME, port N", and whether that port is down now: how messages about failures begin.
  [[nodiscard]] std::string Place() const;
  [[nodiscard]] uint8_t gid_index() const noexcept { return gid_index_; }
  [[nodiscard]] uint8_t traffic_class() const noexcept { return traffic_class_; }
  /// The most that one read or write may carry.
  [[nodiscard]] uint64_t max_message_bytes() const noexcept { return max_message_bytes_; }
  [[nodiscard]] const Address& address() const noexcept { return address_; }

  /// Readable when TakeEvent has something to tell. Non-blocking.
  [[nodiscard]] int event_fd() const noexcept { return context_->async_fd; }
  /// What has happened to device, port or a queue pair by itself.
  struct Event {
    enum class Kind : uint8_t { kNone, kQueuePair, kPort, kDevice, kOther } kind = Kind::kNone;
    ibv_event_type type{};
    uint32_t queue_pair = 0;  // number, of kQueuePair
    bool fatal = false;       // what it concerns is of no use any more
  };
  [[nodiscard]] Event TakeEvent();

 private:
  Context(const Library& library, ibv_context* context, std::string device) noexcept
      : library_(library), context_(context), device_(std::move(device)) {}
  [[nodiscard]] static Result<std::unique_ptr<Context>> OpenNow(const Selection& selection);
  [[nodiscard]] Status ChoosePort(const Selection& selection);
  [[nodiscard]] Status ChooseGid(const Selection& selection, int gids);

  const Library& library_;
  ibv_context* const context_;
  const std::string device_;
  uint8_t port_ = 0;
  uint8_t gid_index_ = 0;
  uint8_t traffic_class_ = 0;
  uint64_t max_message_bytes_ = 0;
  Address address_;
};

/// What a fatal event ends connections with.
[[nodiscard]] Status StatusOf(const Context& context, const Context::Event& event);

}  // namespace praas::verbs

#endif
