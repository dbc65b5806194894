#pragma once

#include <cstdint>
#include <string>

namespace praas::bench {

/// The command line of praas-bench-client, and the token, which is no argument because arguments are public.
struct ClientOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 0;
  std::string process{};
  std::string token{};
  std::string transport{};  // "shm" or "tcp"
  std::string function{};
  uint64_t bytes = 0;
  uint64_t in_flight = 1;
  bool allocate = false;
  bool touch = false;
  uint64_t hot_us = 0;
  int cpu = -1;  // of this program; -1: any
  uint64_t deadline_s = 120;
};

/// Ends the program with status 2 and a reason when the arguments are wrong, with 0 after --help.
[[nodiscard]] ClientOptions ReadArguments(int count, char** arguments);
/// Ends the program with a line on stderr.
[[noreturn]] void Fail(const std::string& why, int status = 1);
/// A whole number of decimal digits between least and most; false for anything else.
[[nodiscard]] bool ReadNumber(const std::string& text, uint64_t least, uint64_t most, uint64_t& number);

}  // namespace praas::bench
