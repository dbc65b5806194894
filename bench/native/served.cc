#include "served.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "base/clock.h"
#include "protocol/lease_messages.h"

namespace praas::bench {
namespace {

constexpr uint64_t kTtlMs = 24ull * 3600 * 1000;  // longer than any batch

/// All of its threads.
void Pin(uint32_t pid, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  std::error_code error;
  for (const auto& task : std::filesystem::directory_iterator(tasks, error)) {
    const pid_t thread = std::stoi(task.path().filename());
    if (::sched_setaffinity(thread, sizeof set, &set) != 0 && errno != ESRCH) {
      Fail("--pin: worker " + std::to_string(pid) + " to processor " + std::to_string(cpu) + ": " +
           std::strerror(errno));
    }
  }
  if (error) Fail("--pin: " + tasks + ": " + error.message());
}

std::vector<std::byte> AskOfLease(client::Connection& control, protocol::LeaseOp op,
                                  const protocol::LeaseRequest& request, std::string_view what) {
  const std::vector<std::byte> arguments = protocol::Encode(request);
  const auto code = static_cast<uint16_t>(op);
  return Ask(control, control.Request(protocol::FrameType::kLease, code, arguments, {}, DeadlineIn(kSetUpNs)), what);
}

}  // namespace

client::ConnectOptions ConnectOptionsOf(const ClientOptions& options) {
  client::ConnectOptions connect;
  connect.host = options.host;
  connect.port = options.port;
  connect.process = options.process;
  connect.token = options.token;
  connect.transport = options.transport;
  connect.timeout_ns = kSetUpNs;
  // Input and result of each call, and as much again for how blocks are cut.
  connect.window_bytes = std::max(connect.window_bytes, 4 * options.in_flight * options.bytes);
  return connect;
}

std::unique_ptr<client::Connection> ConnectForControl(const ClientOptions& options) {
  client::ConnectOptions connect = ConnectOptionsOf(options);
  connect.transport = "tcp";
  return OrFail(client::Connection::Connect(connect), "connect");
}

std::vector<std::byte> Ask(client::Connection& connection, Result<uint64_t> call, std::string_view what) {
  Status status;
  std::vector<std::byte> answer;
  const client::Connection::ReplySink replies = [&](const transport::Reply& reply) {
    status = reply.status;
    answer.assign(reply.payload.begin(), reply.payload.end());
  };
  const client::Connection::StreamSink streams = [](const client::StreamEvent&) {};
  connection.WaitFor(OrFail(std::move(call), what), 0, replies, streams);
  if (!status.ok()) Fail(std::string(what) + ": " + status.message());
  return answer;
}

client::FunctionRef Resolve(client::Connection& connection, std::string_view function) {
  const std::string what = "function " + std::string(function);
  const std::vector<std::byte> answer = Ask(connection, connection.Resolve(function, DeadlineIn(kSetUpNs)), what);
  client::FunctionRef found{};
  if (answer.size() != sizeof found) Fail(what + ": the answer has " + std::to_string(answer.size()) + " bytes");
  std::memcpy(&found, answer.data(), sizeof found);
  return found;
}

Lease::Lease(client::Connection& control, const ClientOptions& options) : control_(control) {
  protocol::LeaseRequest request;
  request.hot_ms = *options.lease_hot_ms;
  request.ttl_ms = kTtlMs;
  request.name = "benchmark";
  const std::vector<std::byte> answer = AskOfLease(control, protocol::LeaseOp::kTake, request, "lease");
  protocol::LeaseReply taken = OrFail(protocol::DecodeLeaseReply(answer), "lease");
  id_ = taken.lease;
  key_ = std::move(taken.key);
  phases_ = std::move(taken.text);
  if (options.worker_cpu < 0) return;
  for (const uint32_t pid : taken.pids) Pin(pid, options.worker_cpu);
}

Lease::~Lease() {
  protocol::LeaseRequest request;
  request.lease = id_;
  static_cast<void>(AskOfLease(control_, protocol::LeaseOp::kRelease, request, "release"));
}

std::unique_ptr<client::Connection> Lease::Connect(const ClientOptions& options) const {
  client::ConnectOptions connect = ConnectOptionsOf(options);
  connect.lease_key = key_;
  return OrFail(client::Connection::Connect(connect), "connect to the leased worker");
}

}  // namespace praas::bench
