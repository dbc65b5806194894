#include "lease_start.h"

#include <cinttypes>
#include <cstdio>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "served.h"

namespace praas::bench {
namespace {

/// Nanoseconds since the last lap.
class Stopwatch {
 public:
  uint64_t Lap() {
    const uint64_t before_ns = last_ns_;
    last_ns_ = NowNs();
    return last_ns_ - before_ns;
  }

 private:
  uint64_t last_ns_ = NowNs();
};

void MeasureOne(const ClientOptions& options, const std::vector<std::byte>& input) {
  Stopwatch watch;
  const std::unique_ptr<client::Connection> control = ConnectForControl(options);
  const client::FunctionRef function = Resolve(*control, options.function);
  const uint64_t connect_ns = watch.Lap();
  const Lease lease(*control, options);
  const uint64_t take_ns = watch.Lap();
  const std::unique_ptr<client::Connection> worker = lease.Connect(options);
  const uint64_t connect_back_ns = watch.Lap();
  const auto call = worker->Invoke(function.index, input, {}, protocol::kSync, DeadlineIn(kSetUpNs));
  static_cast<void>(Ask(*worker, call, "first call"));
  const uint64_t first_call_ns = watch.Lap();
  std::printf("{\"connectNs\":%" PRIu64 ",\"takeNs\":%" PRIu64 ",\"taken\":%s,\"connectBackNs\":%" PRIu64
              ",\"firstCallNs\":%" PRIu64 "}\n",
              connect_ns, take_ns, lease.phases().c_str(), connect_back_ns, first_call_ns);
}

}  // namespace

void MeasureLeaseStarts(const ClientOptions& options, uint64_t count) {
  const std::vector<std::byte> input(options.bytes);
  for (; count > 0; --count) MeasureOne(options, input);
}

}  // namespace praas::bench
