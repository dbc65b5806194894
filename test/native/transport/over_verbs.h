#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "host/host_fixture.h"
#include "support/rdma.h"

namespace praas::test {

/// A host with workers, and clients that reach it by RDMA.
class OverVerbs : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = NoRdmaDevice(); !reason.empty()) GTEST_SKIP() << reason;
    process_.emplace();
    host_.emplace(*process_);
    ASSERT_TRUE(host_->status().ok()) << host_->status().message();
    host_->AddWorkers(2);
  }
  void TearDown() override {
    host_.reset();
    process_.reset();
  }
  [[nodiscard]] Driver Client() {
    Driver client = host_->Client("verbs");
    EXPECT_EQ(client->info().transport, "verbs") << client->info().upgrade_reason;
    return client;
  }
  void ExpectWorks(Driver& client, const std::string& transport, const std::string& reason = "") {
    const Bytes input = Pattern(20'000, 5);
    const Driver::Outcome outcome = client.Call(fn::kEcho, input);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
    EXPECT_EQ(outcome.payload, input);
    EXPECT_EQ(client->info().transport, transport);
    EXPECT_NE(client->info().upgrade_reason.find(reason), std::string::npos) << client->info().upgrade_reason;
  }

  std::optional<TestProcess> process_;
  std::optional<HostRun> host_;
};

}  // namespace praas::test
