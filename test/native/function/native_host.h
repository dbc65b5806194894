#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "function/spec.h"
#include "host/host_fixture.h"
#include "protocol/agent_line.h"

namespace praas::test {

inline constexpr uint64_t kMaxOutput = 300'000;

/// Functions of a host, as its agent names them.
inline std::string Line(const std::string& name, const char* library, function::Abi abi, uint64_t max_output = 0,
                        uint32_t flags = 0) {
  std::vector<std::pair<std::string_view, std::string>> values = {{"name", name},
                                                                  {"library", library},
                                                                  {"abi", std::string(function::AbiName(abi))},
                                                                  {"flags", std::to_string(flags)}};
  if (max_output != 0) values.emplace_back("maxOutput", std::to_string(max_output));
  return protocol::FormatAgentLine("function", values);
}
inline std::string Raw(const std::string& name, uint64_t max_output = kMaxOutput, uint32_t flags = 0) {
  return Line(name, PRAAS_TEST_RFAAS_LIBRARY, function::Abi::kRaw, max_output, flags);
}
inline std::string InC(const std::string& name) { return Line(name, PRAAS_TEST_C_LIBRARY, function::Abi::kC); }

/// A real host whose workers are praas-worker; nullptr after a failure.
inline std::unique_ptr<host::Host> StartNativeHost(const host::Assignment& assignment) {
  host::HostOptions options;
  options.worker_commands[static_cast<size_t>(dispatch::Lane::kNative)] = {PRAAS_WORKER_PATH};
  options.assignment = assignment;
  auto started = host::Host::Start(std::move(options));
  EXPECT_TRUE(started.ok()) << started.status().message();
  return started.ok() ? std::move(*started) : nullptr;
}

inline uint32_t IndexOf(Driver& client, const std::string& name) {
  const Driver::Outcome outcome = client.Wait(client->Resolve(name, DeadlineIn(kWatchdogNs)));
  EXPECT_TRUE(outcome.status.ok()) << name << ": " << outcome.status.message();
  client::FunctionRef function{};
  if (outcome.payload.size() == sizeof function) std::memcpy(&function, outcome.payload.data(), sizeof function);
  return function.index;
}

/// What `worker_pid` has returned.
inline pid_t PidIn(const Driver::Outcome& outcome) {
  uint32_t pid = 0;
  EXPECT_EQ(outcome.payload.size(), sizeof pid) << outcome.status.message();
  if (outcome.payload.size() == sizeof pid) std::memcpy(&pid, outcome.payload.data(), sizeof pid);
  return static_cast<pid_t>(pid);
}

}  // namespace praas::test
