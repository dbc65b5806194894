// praas-bench-client: measures batches of calls when asked, with nothing above client/connection.h. See --help.

#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "batches.h"
#include "client_options.h"
#include "lease_start.h"

namespace {

using praas::bench::Fail;

constexpr uint64_t kMaxCount = 10'000'000;

void Pin(int cpu) {
  if (cpu < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) Fail("--pin: there is no processor " + std::to_string(cpu));
}

/// At least 100 calls of up to 64 KiB, fewer of larger ones: those mostly need their memory touched once.
uint64_t WarmUpCount(uint64_t count, uint64_t bytes) {
  const uint64_t least = 100 * 65'536 / std::max<uint64_t>(bytes, 65'536);
  return std::max({count / 10, least, uint64_t{2}});
}

/// The host's numbers are little-endian on everything this is built for.
void Write(const std::vector<uint64_t>& numbers) {
  if (std::fwrite(numbers.data(), sizeof(uint64_t), numbers.size(), stdout) != numbers.size() ||
      std::fflush(stdout) != 0) {
    Fail("the results cannot be written");
  }
}

}  // namespace

int main(int argument_count, char** arguments) {
  const praas::bench::ClientOptions options = praas::bench::ReadArguments(argument_count, arguments);
  Pin(options.cpu);
  if (options.lease_starts > 0) {
    praas::bench::MeasureLeaseStarts(options, options.lease_starts);
    return 0;
  }
  praas::bench::Batches batches(options);
  std::puts("ready");
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    uint64_t count = 0;
    if (!praas::bench::ReadNumber(line, 1, kMaxCount, count)) {
      Fail("\"" + line + "\" on stdin is no number of calls, 1 ... " + std::to_string(kMaxCount), 2);
    }
    batches.Run(WarmUpCount(count, options.bytes), {});
    std::vector<uint64_t> results(2 + count);
    results[0] = count;
    results[1] = batches.Run(count, std::span(results).subspan(2));
    Write(results);
  }
}
