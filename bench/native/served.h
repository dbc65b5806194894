#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "client/connection.h"
#include "client_options.h"

/// What a native client does with a process beside calls. What goes wrong ends the program with a reason.
namespace praas::bench {

/// The value, or the end of the program.
template <typename Value>
[[nodiscard]] Value OrFail(Result<Value> result, std::string_view what) {
  if (!result.ok()) Fail(std::string(what) + ": " + result.status().message());
  return std::move(*result);
}

/// As the options say, with calls through the host.
[[nodiscard]] client::ConnectOptions ConnectOptionsOf(const ClientOptions& options);
/// Without a transport of its own: for names and leases.
[[nodiscard]] std::unique_ptr<client::Connection> ConnectForControl(const ClientOptions& options);
/// Waits for the answer to a request or call; `what` it is.
[[nodiscard]] std::vector<std::byte> Ask(client::Connection& connection, Result<uint64_t> call, std::string_view what);
[[nodiscard]] client::FunctionRef Resolve(client::Connection& connection, std::string_view function);

/// One worker that is leased, until the end of this.
class Lease {
 public:
  /// Takes it over `control`, which has to outlive it, and moves the worker to its processor.
  Lease(client::Connection& control, const ClientOptions& options);
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  /// To the worker, over the transport of the options.
  [[nodiscard]] std::unique_ptr<client::Connection> Connect(const ClientOptions& options) const;
  /// JSON: how long each phase of taking it took.
  [[nodiscard]] const std::string& phases() const noexcept { return phases_; }

 private:
  client::Connection& control_;
  uint64_t id_ = 0;
  std::string key_{};
  std::string phases_{};
};

/// How long to wait for everything but calls.
inline constexpr uint64_t kSetUpNs = 30'000'000'000;

}  // namespace praas::bench
