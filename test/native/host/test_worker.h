#pragma once

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "worker/runtime.h"

namespace praas::test {

/// Functions of the test application, in the order of their indices.
namespace fn {
enum : uint32_t {
  kCrash,
  kEcho,
  kFail,
  kFork,
  kGrow,
  kNested,
  kPid,
  kSleep,
  kStop,
  kStream,
  kStubborn,
  kStuck,
  kFunctions
};
}

/// A worker in C++: functions that do what tests of the host need. Runs as an executable of its own (worker_main.cc) or
/// on a thread of a test. What it loads decides how it starts: "fail:TEXT" reports that it cannot load, "exit" ends
/// before it is ready, anything else works.
class TestWorker {
 public:
  /// `ended` replaces the end of the OS process, for a worker on a thread.
  static int Run(UniqueFd control, std::atomic<bool>* ended) {
    worker::WorkerRuntime::Options options;
    if (ended != nullptr) options.on_exit = [ended] { ended->store(true); };
    auto runtime = worker::WorkerRuntime::Attach(std::move(control), std::move(options), DeadlineIn(kLongNs));
    if (!runtime.ok()) {
      std::fprintf(stderr, "%s\n", runtime.status().message().c_str());
      return 2;
    }
    auto load = (*runtime)->WaitForLoad(DeadlineIn(kLongNs));
    if (!load.ok()) return 3;
    if (load->starts_with("fail:")) {
      (void)(*runtime)->LoadFailed(load->substr(5));
      return 1;
    }
    if (*load == "exit") {
      std::fprintf(stderr, "nothing to load\n");
      return 4;
    }
    TestWorker worker(**runtime, ended);
    if (!(*runtime)
             ->Ready({{"crash", 0},
                      {"echo", 0},
                      {"fail", 0},
                      {"fork", 0},
                      {"grow", 0},
                      {"nested", 0},
                      {"pid", 0},
                      {"sleep", 0},
                      {"stop", 0},
                      {"stream", segment::kFunctionStream},
                      {"stubborn", segment::kFunctionStream},
                      {"stuck", 0}})
             .ok()) {
      return 5;
    }
    worker.Loop();
    return 0;
  }

 private:
  static constexpr uint64_t kLongNs = 120'000'000'000;

  struct Stream {
    uint64_t handle;
    bool stubborn;  // ends well when it is told that nobody reads it
    std::vector<std::byte> unwritten;
    bool input_ended = false;
  };

  TestWorker(worker::WorkerRuntime& runtime, std::atomic<bool>* ended) : runtime_(runtime), ended_(ended) {}

  [[nodiscard]] bool over() const { return ended_ != nullptr && ended_->load(); }

  void Loop() {
    while (!over() && !(runtime_.draining() && streams_.empty())) {
      while (auto invocation = runtime_.TryNext(true)) {
        Invoke(*invocation);
        if (over()) return;
      }
      (void)runtime_.TakeNotices();
      (void)runtime_.TakeCancellations();
      PumpStreams();
      runtime_.Sleep(true, DeadlineIn(100'000'000));
    }
    if (!over()) runtime_.Drained();
  }

  static uint64_t NumberOf(std::span<const std::byte> input) {
    return std::strtoull(std::string(reinterpret_cast<const char*>(input.data()), input.size()).c_str(), nullptr, 10);
  }

  void Invoke(const worker::Invocation& invocation) {
    switch (invocation.function) {
      case fn::kCrash:
        std::fprintf(stderr, "last words\n");
        std::fflush(stderr);
        if (!invocation.input.empty()) _exit(static_cast<int>(NumberOf(invocation.input)));
        ::raise(SIGKILL);
        return;
      case fn::kEcho:
        (void)runtime_.Complete(invocation.handle, invocation.input);
        return;
      case fn::kFail:
        (void)runtime_.Fail(invocation.handle, Code::kFunctionThrew,
                            {reinterpret_cast<const char*>(invocation.input.data()), invocation.input.size()});
        return;
      case fn::kFork: {
        const pid_t child = ::fork();
        while (child == 0) ::pause();
        const std::string pid = std::to_string(child);
        (void)runtime_.Complete(invocation.handle, std::as_bytes(std::span(pid)));
        return;
      }
      case fn::kGrow:
        return Grow(invocation);
      case fn::kNested:
        return Nested(invocation);
      case fn::kPid: {
        const std::string pid = std::to_string(::getpid());
        (void)runtime_.Complete(invocation.handle, std::as_bytes(std::span(pid)));
        return;
      }
      case fn::kSleep: {
        const uint64_t until = DeadlineIn(NumberOf(invocation.input) * 1'000'000);
        while (NowNs() < until && !runtime_.Cancelled(invocation.handle) && !over()) ::usleep(200);
        (void)runtime_.Complete(invocation.handle, invocation.input);
        return;
      }
      case fn::kStop:
        ::raise(SIGSTOP);
        (void)runtime_.Complete(invocation.handle, invocation.input);
        return;
      case fn::kStream:
      case fn::kStubborn:
        streams_.push_back({invocation.handle, invocation.function == fn::kStubborn, {}, false});
        return;
      case fn::kStuck:
        while (!over()) ::usleep(1000);
        return;
      default:
        (void)runtime_.Fail(invocation.handle, Code::kFunctionUnknown, "no such function");
        return;
    }
  }

  void Grow(const worker::Invocation& invocation) {
    const uint64_t bytes = NumberOf(invocation.input);
    auto output = runtime_.AllocateOutput(invocation.handle, bytes);
    if (!output.ok()) {
      (void)runtime_.Fail(invocation.handle, output.status().code(), output.status().message());
      return;
    }
    for (uint64_t i = 0; i < bytes; ++i) output->bytes[i] = static_cast<std::byte>(i % 251);
    (void)runtime_.Complete(invocation.handle, output->bytes);
  }

  void Nested(const worker::Invocation& invocation) {
    auto call = runtime_.Post(fn::kEcho, invocation.input, 0, static_cast<uint16_t>(invocation.depth + 1),
                              invocation.deadline_ns);
    if (!call.ok()) {
      (void)runtime_.Fail(invocation.handle, call.status().code(), call.status().message());
      return;
    }
    auto reply = runtime_.WaitNested(*call, invocation.deadline_ns);
    if (reply.ok()) {
      (void)runtime_.Complete(invocation.handle, reply->payload);
      runtime_.FreeNested(*call);
    } else {
      (void)runtime_.Fail(invocation.handle, reply.status().code(), reply.status().message());
    }
  }

  /// Gives every chunk back as it came.
  void PumpStreams() {
    for (size_t i = 0; i < streams_.size();) {
      if (PumpStream(streams_[i])) {
        streams_.erase(streams_.begin() + static_cast<std::ptrdiff_t>(i));
      } else {
        ++i;
      }
    }
  }
  bool PumpStream(Stream& stream) {
    while (true) {
      if (!stream.unwritten.empty()) {
        const auto written = runtime_.WriteChunk(stream.handle, stream.unwritten);
        if (!written.ok()) return Failed(stream, written.status());
        if (!*written) return false;
        stream.unwritten.clear();
      }
      if (stream.input_ended) {
        (void)runtime_.Complete(stream.handle, {});
        return true;
      }
      const auto chunk = runtime_.NextChunk(stream.handle);
      if (!chunk) return false;
      if (!chunk->status.ok() && stream.stubborn) {
        (void)runtime_.Complete(stream.handle, {});
        return true;
      }
      if (!chunk->status.ok()) return Failed(stream, chunk->status);
      stream.unwritten.assign(chunk->bytes.begin(), chunk->bytes.end());
      stream.input_ended = chunk->end;
    }
  }
  bool Failed(const Stream& stream, const Status& status) {
    (void)runtime_.Fail(stream.handle, status.code(), status.message());
    return true;
  }

  worker::WorkerRuntime& runtime_;
  std::atomic<bool>* ended_;
  std::vector<Stream> streams_;
};

}  // namespace praas::test
