// How long from starting a native worker to its first result? A host is started with a worker and with none, a client
// connects and calls; the difference is the worker's. Beside it the floor: a program that does nothing, started and
// waited for. Milliseconds, as JSON.
//
// praas-bench-cold WORKER LIBRARY ROUNDS    LIBRARY exports the raw function `echo`; `praas bench cold` runs this
//
// Segment and queue of a round have names until its end. A signal is heeded then, and a failure is an exception, so
// that none of them is left.

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/clock.h"
#include "client/connection.h"
#include "dispatch/doorbell.h"
#include "host/host.h"
#include "mqueue/message_queue.h"
#include "protocol/token.h"
#include "segment/segment.h"

extern char** environ;

namespace {

using praas::DeadlineIn;
using praas::NowNs;

constexpr uint64_t kWaitNs = 10'000'000'000;

volatile std::sig_atomic_t interrupted = 0;

void HandleSignals() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = 1; };
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);  // of whoever runs this: nobody waits for the result any more
}

[[noreturn]] void Fail(const std::string& why) { throw std::runtime_error(why); }

double MsSince(uint64_t begin_ns) { return static_cast<double>(NowNs() - begin_ns) / 1e6; }

struct Process {
  explicit Process(const std::string& library) {
    static int count = 0;
    const std::string name = "/praas-bench-" + std::to_string(::getpid()) + "-" + std::to_string(++count);
    assignment.process = "bench";
    assignment.key = std::string(praas::protocol::kTokenKeyBytes, 'k');  // lives as long as one measurement
    assignment.segment = assignment.queue = name;
    assignment.workers = 0;
    assignment.native_workers = 1;
    assignment.hot_ms = 1;
    assignment.native = "function name=echo library=" + library + " abi=raw maxOutput=64\n";
  }
  ~Process() {
    static_cast<void>(praas::segment::Segment::Unlink(assignment.segment));
    static_cast<void>(praas::mqueue::MessageQueue::Unlink(
        praas::dispatch::Doorbells::QueueName(assignment.queue, praas::dispatch::Lane::kNative)));
  }
  praas::host::Assignment assignment;
};

double StartHost(const std::string& library, const std::vector<std::string>& worker, bool call) {
  Process process(library);
  praas::host::HostOptions options;
  options.worker_commands[static_cast<size_t>(praas::dispatch::Lane::kNative)] = worker;
  options.assignment = process.assignment;
  const uint64_t begin_ns = NowNs();
  auto host = praas::host::Host::Start(std::move(options));
  if (!host.ok()) Fail(host.status().message());
  if (!call) return MsSince(begin_ns);

  praas::client::ConnectOptions connect;
  connect.host = "127.0.0.1";
  connect.port = (*host)->port();
  connect.process = process.assignment.process;
  connect.token = praas::protocol::MintToken(
      process.assignment.key,
      {.process = process.assignment.process, .verbs = praas::protocol::kVerbInvoke, .expires_ms = UINT64_MAX});
  connect.transport = "tcp";
  auto connection = praas::client::Connection::Connect(connect);
  if (!connection.ok()) Fail(connection.status().message());
  praas::Status status;
  praas::client::FunctionRef function{};
  const praas::client::Connection::ReplySink replies = [&](const praas::transport::Reply& reply) {
    status = reply.status;
    if (reply.payload.size() == sizeof function) std::memcpy(&function, reply.payload.data(), sizeof function);
  };
  const praas::client::Connection::StreamSink streams = [](const praas::client::StreamEvent&) {};
  const auto wait = [&](const praas::Result<uint64_t>& call_id) {
    if (!call_id.ok()) Fail(call_id.status().message());
    (*connection)->WaitFor(*call_id, 0, replies, streams);
    if (!status.ok()) Fail(status.message());
  };
  wait((*connection)->Resolve("echo", DeadlineIn(kWaitNs)));
  wait((*connection)->Invoke(function.index, {}, {}, 0, DeadlineIn(kWaitNs)));
  return MsSince(begin_ns);
}

double StartNothing() {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  char program[] = "/bin/true";
  char* arguments[] = {program, nullptr};
  pid_t pid = 0;
  const uint64_t begin_ns = NowNs();
  if (::posix_spawn(&pid, program, &actions, nullptr, arguments, environ) != 0) Fail("posix_spawn of /bin/true");
  ::waitpid(pid, nullptr, 0);
  const double ms = MsSince(begin_ns);
  posix_spawn_file_actions_destroy(&actions);
  return ms;
}

void Print(const char* name, std::vector<double>& samples, bool last) {
  std::sort(samples.begin(), samples.end());
  std::printf("\"%s\":{\"min\":%.3f,\"p50\":%.3f,\"p90\":%.3f}%s", name, samples.front(), samples[samples.size() / 2],
              samples[samples.size() * 9 / 10], last ? "" : ",");
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 4) Fail("usage: praas-bench-cold WORKER LIBRARY ROUNDS");
  HandleSignals();
  const std::string_view text = argv[3];
  int rounds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rounds);
  if (error != std::errc() || end != text.data() + text.size()) {
    Fail("ROUNDS is \"" + std::string(text) + "\"; expected a number");
  }
  rounds = std::max(rounds, 10);
  std::vector<double> with, without, nothing, worker;
  for (int round = 0; round < rounds; ++round) {
    if (interrupted != 0) Fail("interrupted");
    nothing.push_back(StartNothing());
    without.push_back(StartHost(argv[2], {}, false));
    with.push_back(StartHost(argv[2], {argv[1]}, true));
    worker.push_back(with.back() - without.back());
  }
  std::printf("{");
  Print("true", nothing, false);
  Print("host", without, false);
  Print("hostAndCall", with, false);
  Print("worker", worker, true);
  std::printf("}\n");
} catch (const std::exception& error) {
  std::fprintf(stderr, "praas-bench-cold: %s\n", error.what());
  return 1;
}
