#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace praas::bench {

/// The command line of praas-bench-client, and the token, which is no argument because arguments are public.
struct ClientOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 0;
  std::string process{};
  std::string token{};
  std::string transport{};  // "shm", "tcp" or "verbs"
  std::string function{};
  uint64_t bytes = 0;
  uint64_t in_flight = 1;
  bool allocate = false;
  bool touch = false;
  bool no_result = false;
  uint64_t hot_us = 0;
  std::optional<int64_t> lease_hot_ms{};  // calls go to a leased worker that polls so long; -1: always
  uint64_t lease_starts = 0;              // 0: batches of calls
  int cpu = -1;                           // of this program; -1: any
  int worker_cpu = -1;                    // of a leased worker
  uint64_t deadline_s = 120;
};

/// Ends the program with status 2 and a reason when the arguments are wrong, with 0 after --help.
[[nodiscard]] ClientOptions ReadArguments(int count, char** arguments);
/// Ends the program with a line on stderr.
[[noreturn]] void Fail(const std::string& why, int status = 1);
/// A whole number of decimal digits between least and most; false for anything else.
[[nodiscard]] bool ReadNumber(const std::string& text, uint64_t least, uint64_t most, uint64_t& number);

}  // namespace praas::bench
