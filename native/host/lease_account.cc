#include "host/lease_account.h"

#include <algorithm>

namespace praas::host {
namespace {

uint64_t Since(uint64_t before, uint64_t now) noexcept { return now > before ? now - before : 0; }

}  // namespace

LeaseAccount& LeaseAccount::operator+=(const LeaseAccount& other) noexcept {
  allocated_ns += other.allocated_ns;
  polling_ns += other.polling_ns;
  execution_ns += other.execution_ns;
  calls += other.calls;
  failures += other.failures;
  bytes_in += other.bytes_in;
  bytes_out += other.bytes_out;
  return *this;
}

void LeaseAccount::WriteFields(JsonWriter& json) const {
  json.Number("allocatedNs", allocated_ns);
  json.Number("pollingNs", polling_ns);
  json.Number("executionNs", execution_ns);
  json.Number("calls", calls);
  json.Number("failures", failures);
  json.Number("bytesIn", bytes_in);
  json.Number("bytesOut", bytes_out);
}

LeaseMeter::Counted LeaseMeter::Look(const dispatch::Participant& participant, uint64_t now_ns) noexcept {
  const dispatch::Counters& counters = participant.counters;
  Counted counted{.calls = counters.calls.load(),
                  .failures = counters.failures.load(),
                  .bytes_in = counters.bytes_in.load(),
                  .bytes_out = counters.bytes_out.load(),
                  .busy_ns = counters.busy_ns.load(),
                  .awake_ns = counters.awake_ns.load()};
  if (const uint64_t since_ns = counters.awake_since_ns.load(); since_ns != 0) {
    counted.awake_ns += Since(since_ns, now_ns);
  }
  if (participant.running.load() > 0) counted.busy_ns += Since(participant.running_since_ns.load(), now_ns);
  return counted;
}

void LeaseMeter::Begin(const dispatch::Participant& participant, uint64_t now_ns) noexcept {
  participant_ = &participant;
  begun_ns_ = now_ns;
  before_ = Look(participant, now_ns);
}

LeaseAccount LeaseMeter::Read(uint64_t now_ns) const noexcept {
  if (participant_ == nullptr) return stopped_;
  const Counted now = Look(*participant_, now_ns);
  LeaseAccount account{.allocated_ns = Since(begun_ns_, now_ns),
                       .execution_ns = Since(before_.busy_ns, now.busy_ns),
                       .calls = Since(before_.calls, now.calls),
                       .failures = Since(before_.failures, now.failures),
                       .bytes_in = Since(before_.bytes_in, now.bytes_in),
                       .bytes_out = Since(before_.bytes_out, now.bytes_out)};
  // Asynchronous functions run at the same time, and counters are read one after the other.
  account.polling_ns =
      Since(account.execution_ns, std::min(Since(before_.awake_ns, now.awake_ns), account.allocated_ns));
  return account;
}

void LeaseMeter::Stop(uint64_t now_ns, bool died) noexcept {
  if (participant_ == nullptr) return;
  stopped_ = Read(now_ns);
  if (died) {
    const uint32_t running = participant_->running.load();
    stopped_.calls += running;
    stopped_.failures += running;
  }
  participant_ = nullptr;
}

}  // namespace praas::host
