#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "client/connection.h"
#include "client_options.h"
#include "served.h"

namespace praas::bench {

/// Batches of calls of one function over one connection, through the host or to a leased worker. What goes wrong ends
/// the program with a reason.
class Batches {
 public:
  explicit Batches(const ClientOptions& options);

  /// Makes `count` calls, keeping as many in flight as the options say, and returns the nanoseconds of all.
  /// `samples`: where those of each go, in the order the calls end; empty: results are compared with inputs instead.
  uint64_t Run(uint64_t count, std::span<uint64_t> samples);

 private:
  /// One of the calls that are in flight at a time, with memory of its own.
  struct Lane {
    uint64_t call = 0;  // 0: none
    uint64_t begin_ns = 0;
    std::span<std::byte> input{};
    std::span<std::byte> output{};  // empty: where the transport puts results by itself
  };

  [[nodiscard]] std::span<std::byte> Memory(bool of_connection);
  void Submit(Lane& lane);
  void OnReply(const transport::Reply& reply);
  [[nodiscard]] Lane& LaneOf(uint64_t call);

  const ClientOptions options_;
  // Of a lease, which is given back after the connection to its worker has been closed.
  std::unique_ptr<client::Connection> control_{};
  std::unique_ptr<Lease> lease_{};
  std::unique_ptr<client::Connection> connection_{};
  client::FunctionRef function_{};
  std::vector<std::unique_ptr<std::byte[]>> memory_{};
  std::vector<Lane> lanes_{};
  size_t expected_lane_ = 0;  // calls mostly end in order
  client::Connection::ReplySink on_reply_;
  client::Connection::StreamSink on_stream_;

  // Of the batch in progress.
  std::span<uint64_t> samples_{};
  uint64_t count_ = 0, submitted_ = 0, answered_ = 0;
  uint64_t deadline_ns_ = 0;
  uint64_t at_ns_ = 0;  // the last reading of the clock: one per call, which ends it and begins the next
};

}  // namespace praas::bench
