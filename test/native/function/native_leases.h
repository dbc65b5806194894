#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "function/native_host.h"
#include "protocol/lease_messages.h"
#include "support/rdma.h"

namespace praas::test {

using protocol::LeaseEvent;
using protocol::LeaseOp;
using protocol::LeaseReply;
using protocol::LeaseRequest;

/// The number behind `"key":`.
inline uint64_t NumberIn(const std::string& json, const std::string& key) {
  const size_t at = json.find('"' + key + "\":");
  EXPECT_NE(at, std::string::npos) << key << " in " << json;
  return at == std::string::npos ? 0 : std::stoull(json.substr(at + key.size() + 3));
}

/// A real host with real praas-workers, and somebody who leases them; by the transport of their connections to these.
class NativeLeases : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (std::string(GetParam()) != "verbs") return;
    if (const std::string reason = NoRdmaDevice(); !reason.empty()) GTEST_SKIP() << reason;
  }
  /// How much longer everything takes with an emulated device, in an emulated machine, or under a sanitizer.
  [[nodiscard]] static uint64_t slow() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    constexpr uint64_t kSanitized = 4;
#else
    constexpr uint64_t kSanitized = 1;
#endif
    return std::string(GetParam()) == "verbs" ? 20 : kSanitized;
  }

  void Start(const std::string& functions, uint32_t lease_workers = 8) {
    process_.assignment.workers = 0;
    process_.assignment.native_workers = 1;
    process_.assignment.lease_workers = lease_workers;
    process_.assignment.native = functions;
    StartHost();
  }
  void StartHost() {
    host_ = StartNativeHost(process_.assignment);
    ASSERT_NE(host_, nullptr);
    holder_ = NewHolder();
  }
  void TearDown() override {
    holder_.reset();
    host_.reset();
  }

  std::unique_ptr<Driver> NewHolder() {
    std::unique_ptr<Driver> holder(new Driver(Connect(OptionsFor(host_->port()))));
    (*holder)->SetNoticeSink([this](const client::LeaseNotice& notice) { notices_.push_back(notice); });
    return holder;
  }
  Result<LeaseReply> Ask(Driver& holder, LeaseOp op, const LeaseRequest& request, uint64_t timeout_ns = kWatchdogNs) {
    const Driver::Outcome outcome = holder.Wait(holder->Request(protocol::FrameType::kLease, static_cast<uint16_t>(op),
                                                                Encode(request), {}, DeadlineIn(timeout_ns)));
    if (!outcome.status.ok()) return outcome.status;
    return protocol::DecodeLeaseReply(outcome.payload);
  }
  LeaseReply Take(LeaseRequest request) {
    Result<LeaseReply> reply = Ask(*holder_, LeaseOp::kTake, request);
    EXPECT_TRUE(reply.ok()) << reply.status().message();
    return reply.ok() ? *reply : LeaseReply{};
  }
  Result<LeaseReply> Release(uint64_t lease) { return Ask(*holder_, LeaseOp::kRelease, {.lease = lease}); }

  client::ConnectOptions WorkerOptions(const std::string& key, uint32_t worker) {
    client::ConnectOptions options = OptionsFor(host_->port());
    options.transport = GetParam();
    options.window_bytes = 64u << 20;
    options.lease_key = key;
    options.lease_worker = worker;
    return options;
  }
  Driver Worker(const LeaseReply& lease, uint32_t worker = 0) { return Connect(WorkerOptions(lease.key, worker)); }
  uint32_t Index(const std::string& name) { return IndexOf(*holder_, name); }
  pid_t PidOf(Driver& worker) { return PidIn(worker.Call(Index("worker_pid"), {})); }
  [[nodiscard]] bool HasNotice(LeaseEvent event) {
    return Eventually([&] {
      holder_->Poll();
      return std::any_of(notices_.begin(), notices_.end(), [&](const auto& notice) { return notice.event == event; });
    });
  }
  const client::LeaseNotice& NoticeOf(LeaseEvent event) {
    return *std::find_if(notices_.begin(), notices_.end(), [&](const auto& notice) { return notice.event == event; });
  }
  std::string Leases() {
    const Driver::Outcome outcome = holder_->Wait((*holder_)->Request(protocol::FrameType::kAdmin,
                                                                      static_cast<uint16_t>(protocol::AdminOp::kLeases),
                                                                      {}, {}, DeadlineIn(kWatchdogNs)));
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
    return AsText(outcome.payload);
  }
  /// A call that lost its worker fails with one of these, by transport.
  void ExpectLost(const Driver::Outcome& outcome, Code told) {
    if (std::string(GetParam()) == "shm") {
      EXPECT_EQ(outcome.status.code(), told) << outcome.status.message();
    } else {
      EXPECT_TRUE(outcome.status.code() == Code::kConnectionLost || outcome.status.code() == told ||
                  outcome.status.code() == Code::kLeaseClosed)
          << outcome.status.message();
    }
  }

  TestProcess process_;
  std::unique_ptr<host::Host> host_;
  std::unique_ptr<Driver> holder_;
  std::vector<client::LeaseNotice> notices_;
};

}  // namespace praas::test
