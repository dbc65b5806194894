#include "client_options.h"

#include <getopt.h>
#include <sched.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>

namespace praas::bench {
namespace {

constexpr char kTokenVariable[] = "PRAAS_BENCH_TOKEN";
constexpr uint64_t kMaxInFlight = 4096;
constexpr uint64_t kMaxBytes = 1ull << 30;

constexpr char kHelp[] =
    R"(usage: praas-bench-client --port P --process ID --transport shm|tcp|verbs --function NAME --bytes N [OPTION...]

Measures calls of a running process from a native client. The token of the process is read from PRAAS_BENCH_TOKEN.
Prints `ready`; then each line COUNT on stdin measures a batch after a warm-up and writes, as little-endian 64-bit
numbers: COUNT, the nanoseconds of all, the nanoseconds of each. Ends with stdin.

  --host HOST         of the process. Default: 127.0.0.1
  --port P            of the process
  --process ID        its name
  --transport T       shm, tcp or verbs
  --function NAME     takes N bytes and returns N
  --bytes N           size of input and result, 1 ... 1073741824
  --in-flight K       calls at a time, 1 ... 4096. Default: 1. Samples then are the latencies of calls
  --allocate          input and result lie in memory of the connection: nothing is copied over shm
  --no-result         the function returns nothing
  --touch             all bytes of the input are written before a call, and all of the result read after it
  --hot-us N          how long to poll for an answer before blocking, 0 ... 1000000000 microseconds. Default: 0
  --lease HOT_MS      calls go to a worker that is leased and polls for so many milliseconds after each; -1: always, at
                      most 86400000
  --lease-starts N    in place of batches: takes N leases one after the other, makes one call with each, and writes a line
                      of JSON for each: how long connecting, taking, connecting to the worker and the call took
  --pin CLIENT,PEER   processors to run on; the second is for a leased worker: others are not pinned from here
  --deadline-s S      longest time for a batch, 1 ... 3600 seconds. Default: 120
)";

enum Option {
  kHost = 1,
  kPort,
  kProcess,
  kTransport,
  kFunction,
  kBytes,
  kInFlight,
  kAllocate,
  kNoResult,
  kTouch,
  kHotUs,
  kLease,
  kLeaseStarts,
  kPin,
  kDeadline,
  kHelpOption
};

[[noreturn]] void UsageError(const std::string& why) { Fail(why + "; see --help", 2); }

uint64_t NumberOf(const std::string& option, const std::string& text, uint64_t least, uint64_t most) {
  uint64_t number = 0;
  if (!ReadNumber(text, least, most, number)) {
    UsageError(option + " is \"" + text + "\"; expected " + std::to_string(least) + " ... " + std::to_string(most));
  }
  return number;
}

void ReadPins(const std::string& pins, ClientOptions& options) {
  const size_t comma = pins.find(',');
  if (comma == std::string::npos) UsageError("--pin is \"" + pins + "\"; expected two processors, as in 0,1");
  options.worker_cpu = static_cast<int>(NumberOf("--pin", pins.substr(comma + 1), 0, CPU_SETSIZE - 1));
  options.cpu = static_cast<int>(NumberOf("--pin", pins.substr(0, comma), 0, CPU_SETSIZE - 1));
}

int64_t HotMsOf(const std::string& text) {
  constexpr uint64_t kMaxHotMs = 24ull * 3600 * 1000;
  return text == "-1" ? -1 : static_cast<int64_t>(NumberOf("--lease", text, 0, kMaxHotMs));
}

void Check(const ClientOptions& options) {
  if (options.port == 0) UsageError("--port is missing");
  if (options.process.empty()) UsageError("--process is missing");
  if (options.function.empty()) UsageError("--function is missing");
  if (options.bytes == 0) UsageError("--bytes is missing");
  if (options.transport != "shm" && options.transport != "tcp" && options.transport != "verbs") {
    UsageError("--transport is \"" + options.transport + "\"; expected shm, tcp or verbs");
  }
  if (options.touch && options.no_result) UsageError("--touch reads results, and --no-result has none");
  if (options.lease_starts > 0 && !options.lease_hot_ms) UsageError("--lease-starts needs --lease");
  if (options.token.empty()) Fail(std::string("the environment has no ") + kTokenVariable + "; see --help", 2);
}

}  // namespace

void Fail(const std::string& why, int status) {
  std::fprintf(stderr, "praas-bench-client: %s\n", why.c_str());
  std::exit(status);
}

bool ReadNumber(const std::string& text, uint64_t least, uint64_t most, uint64_t& number) {
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && stopped == end && number >= least && number <= most;
}

ClientOptions ReadArguments(int count, char** arguments) {
  static const option known[] = {
      {"host", required_argument, nullptr, kHost},
      {"port", required_argument, nullptr, kPort},
      {"process", required_argument, nullptr, kProcess},
      {"transport", required_argument, nullptr, kTransport},
      {"function", required_argument, nullptr, kFunction},
      {"bytes", required_argument, nullptr, kBytes},
      {"in-flight", required_argument, nullptr, kInFlight},
      {"allocate", no_argument, nullptr, kAllocate},
      {"no-result", no_argument, nullptr, kNoResult},
      {"touch", no_argument, nullptr, kTouch},
      {"lease", required_argument, nullptr, kLease},
      {"lease-starts", required_argument, nullptr, kLeaseStarts},
      {"hot-us", required_argument, nullptr, kHotUs},
      {"pin", required_argument, nullptr, kPin},
      {"deadline-s", required_argument, nullptr, kDeadline},
      {"help", no_argument, nullptr, kHelpOption},
      {nullptr, 0, nullptr, 0},
  };
  ClientOptions options;
  for (int found = 0; (found = ::getopt_long(count, arguments, "", known, nullptr)) != -1;) {
    const std::string value = optarg == nullptr ? "" : optarg;
    switch (found) {
      case kHost:
        options.host = value;
        break;
      case kPort:
        options.port = static_cast<uint16_t>(NumberOf("--port", value, 1, UINT16_MAX));
        break;
      case kProcess:
        options.process = value;
        break;
      case kTransport:
        options.transport = value;
        break;
      case kFunction:
        options.function = value;
        break;
      case kBytes:
        options.bytes = NumberOf("--bytes", value, 1, kMaxBytes);
        break;
      case kInFlight:
        options.in_flight = NumberOf("--in-flight", value, 1, kMaxInFlight);
        break;
      case kAllocate:
        options.allocate = true;
        break;
      case kNoResult:
        options.no_result = true;
        break;
      case kTouch:
        options.touch = true;
        break;
      case kHotUs:
        options.hot_us = NumberOf("--hot-us", value, 0, 1'000'000'000);
        break;
      case kLease:
        options.lease_hot_ms = HotMsOf(value);
        break;
      case kLeaseStarts:
        options.lease_starts = NumberOf("--lease-starts", value, 1, 10'000);
        break;
      case kPin:
        ReadPins(value, options);
        break;
      case kDeadline:
        options.deadline_s = NumberOf("--deadline-s", value, 1, 3600);
        break;
      case kHelpOption:
        std::fputs(kHelp, stdout);
        std::exit(0);
      default:
        std::exit(2);  // getopt has said why
    }
  }
  if (optind != count) UsageError("unexpected argument \"" + std::string(arguments[optind]) + "\"");
  if (const char* token = std::getenv(kTokenVariable); token != nullptr) options.token = token;
  Check(options);
  return options;
}

}  // namespace praas::bench
