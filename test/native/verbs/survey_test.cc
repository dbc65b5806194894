// On a machine with an RDMA device; scripts/rdma-vm makes one.
#include "verbs/survey.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

namespace praas::verbs {
namespace {

/// Why there is nothing to look at here, if so.
std::string Absent() {
  const Result<std::vector<Device>> devices = Survey();
  if (!devices.ok()) return devices.status().message();
  return devices->empty() ? "this machine has no RDMA device" : "";
}

TEST(Survey, WithoutTheLibrarySaysWhatToInstall) {
  const Result<std::vector<Device>> devices = Survey();
  if (devices.ok()) GTEST_SKIP() << "the library is there";
  EXPECT_EQ(devices.status().code(), Code::kUnsupported);
  EXPECT_NE(devices.status().message().find("Debian"), std::string::npos) << devices.status().message();
  EXPECT_TRUE(SurveyJson().starts_with(R"({"error":")")) << SurveyJson();
}

TEST(Survey, TellsOfEveryDeviceThatCanBeOpened) {
  if (const std::string absent = Absent(); !absent.empty()) GTEST_SKIP() << absent;
  const Result<std::vector<Device>> devices = Survey();
  for (const Device& device : *devices) {
    EXPECT_FALSE(device.name.empty());
    if (!device.status.ok()) continue;
    EXPECT_GT(device.max_queue_pairs, 0u);
    ASSERT_FALSE(device.ports.empty()) << device.name;
    for (const Port& port : device.ports) {
      EXPECT_GE(port.mtu_bytes, 256u);
      for (const Gid& gid : port.gids) EXPECT_EQ(gid.type == Gid::Type::kInfiniBand, !port.ethernet) << gid.address;
    }
    EXPECT_NE(SurveyJson().find("\"name\":\"" + device.name + '"'), std::string::npos) << SurveyJson();
  }
}

TEST(Survey, FindsTheAddressOfSoftRoce) {
  if (std::getenv("RDMA_VM") == nullptr) GTEST_SKIP() << "not in a guest of scripts/rdma-vm";
  const Result<std::vector<Device>> devices = Survey();
  ASSERT_TRUE(devices.ok()) << devices.status().message();
  const auto rxe =
      std::find_if(devices->begin(), devices->end(), [](const Device& each) { return each.name == "rxe0"; });
  ASSERT_NE(rxe, devices->end());
  ASSERT_TRUE(rxe->status.ok()) << rxe->status.message();
  ASSERT_EQ(rxe->ports.size(), 1u);
  const Port& port = rxe->ports[0];
  EXPECT_TRUE(port.active) << port.state;
  EXPECT_TRUE(port.ethernet);
  EXPECT_EQ(port.mtu_bytes, 4096u);
  const std::string address = std::string("::ffff:") + std::getenv("RDMA_VM_IP");
  EXPECT_TRUE(std::any_of(port.gids.begin(), port.gids.end(), [&](const Gid& gid) {
    return gid.type == Gid::Type::kRoceV2 && gid.address == address;
  })) << SurveyJson();
}

}  // namespace
}  // namespace praas::verbs
