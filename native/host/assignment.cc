#include "host/assignment.h"

#include <charconv>
#include <functional>
#include <optional>
#include <vector>

#include "base/base64url.h"
#include "dispatch/call_entry.h"
#include "dispatch/participant.h"
#include "protocol/messages.h"
#include "protocol/token.h"
#include "publication/layout.h"
#include "segment/layout.h"

namespace praas::host {
namespace {

constexpr int64_t kTebi = 1ll << 40;
/// Of both kinds together; the other participants are for workers whose predecessors are still being buried.
constexpr int64_t kMaxWorkers = 1000;
static_assert(kMaxWorkers + 16 < dispatch::kMaxParticipants);
constexpr int64_t kDayMs = 24ll * 3600 * 1000;

Status Required(const protocol::AgentLine& line, const std::string& key, std::string& into) {
  into = line.Text(key);
  if (into.empty()) return Status(Code::kArgumentInvalid, "assign: " + key + " is missing");
  return Status::Ok();
}

/// A POSIX object name: one leading slash, no other, within NAME_MAX.
Status ObjectName(const std::string& key, const std::string& name) {
  if (name.size() < 2 || name.size() > 254 || name[0] != '/' || name.find('/', 1) != std::string::npos ||
      name.find_first_of(std::string_view("\0\n", 2)) != std::string::npos) {
    return Status(Code::kArgumentInvalid, "assign: " + key + " must be \"/name\", got \"" + name + "\"");
  }
  return Status::Ok();
}

/// base64url. The message does not repeat it: it is secret.
Status ParseKey(const std::string& text, std::string& into) {
  const std::optional<std::vector<std::byte>> key = FromBase64Url(text);
  if (!key || key->size() != protocol::kTokenKeyBytes) {
    return Status(Code::kArgumentInvalid,
                  "assign: key must be " + std::to_string(protocol::kTokenKeyBytes) + " bytes as base64url");
  }
  into.assign(reinterpret_cast<const char*>(key->data()), key->size());
  return Status::Ok();
}

/// "host:port", "[v6]:port"; an empty host is 127.0.0.1.
Status ParseListen(const std::string& text, Assignment& into) {
  const size_t colon = text.rfind(':');
  uint32_t port = 0;
  bool valid = colon != std::string::npos;
  if (valid) {
    const char* begin = text.data() + colon + 1;
    const char* end = text.data() + text.size();
    const auto [parsed, error] = std::from_chars(begin, end, port);
    valid = error == std::errc() && parsed == end && port <= 65535;
  }
  if (!valid) return Status(Code::kArgumentInvalid, "assign: listen must be HOST:PORT, got \"" + text + "\"");
  std::string host = text.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  if (!host.empty()) into.listen_host = std::move(host);
  into.listen_port = static_cast<uint16_t>(port);
  return Status::Ok();
}

}  // namespace

Result<Assignment> ParseAssignment(const protocol::AgentLine& line) {
  Assignment parsed;
  for (const auto& [key, into] : {std::pair<const char*, std::string*>{"process", &parsed.process},
                                  {"segment", &parsed.segment},
                                  {"queue", &parsed.queue}}) {
    if (Status status = Required(line, key, *into); !status.ok()) return status;
  }
  if (parsed.process.size() > segment::kMaxName) {
    return Status(Code::kNameInvalid, "assign: process is longer than 255 bytes");
  }
  if (Status status = ObjectName("segment", parsed.segment); !status.ok()) return status;
  if (Status status = ObjectName("queue", parsed.queue); !status.ok()) return status;
  if (Status status = ParseKey(line.Text("key"), parsed.key); !status.ok()) return status;
  if (Status status = ParseListen(line.Text("listen", "127.0.0.1:0"), parsed); !status.ok()) return status;
  parsed.socket = line.Text("socket");
  parsed.log = line.Text("log");
  parsed.objects = line.Text("objects");
  parsed.app = line.Text("app", "{}");
  parsed.native = line.Text("native");

  struct Field {
    const char* key;
    int64_t fallback, least, most;
    std::function<void(int64_t)> store;
  };
  const Assignment defaults;
  const auto of = [](uint64_t value) { return static_cast<int64_t>(value); };
  const Field fields[] = {
      {"memory", of(defaults.memory_bytes), 1 << 16, 16 * kTebi, [&](int64_t n) { parsed.memory_bytes = n; }},
      {"pool", of(defaults.pool_bytes), 1 << 20, 16 * kTebi, [&](int64_t n) { parsed.pool_bytes = n; }},
      {"calls", defaults.calls, 1, dispatch::kMaxCalls, [&](int64_t n) { parsed.calls = n; }},
      {"workers", defaults.workers, 0, kMaxWorkers, [&](int64_t n) { parsed.workers = n; }},
      {"nativeWorkers", defaults.native_workers, 0, kMaxWorkers, [&](int64_t n) { parsed.native_workers = n; }},
      {"workerMemory", of(defaults.worker_memory_bytes), 16 << 20, 16 * kTebi,
       [&](int64_t n) { parsed.worker_memory_bytes = n; }},
      {"leaseWorkers", defaults.lease_workers, 0, protocol::kMaxLeaseWorkers,
       [&](int64_t n) { parsed.lease_workers = static_cast<uint32_t>(n); }},
      {"spares", defaults.spares, 0, 64, [&](int64_t n) { parsed.spares = n; }},
      {"concurrency", defaults.concurrency, 1, dispatch::kMaxCalls, [&](int64_t n) { parsed.concurrency = n; }},
      {"hotMs", defaults.hot_ms, -1, kDayMs, [&](int64_t n) { parsed.hot_ms = n; }},
      {"timeoutMs", of(defaults.timeout_ms), 1, 365 * kDayMs, [&](int64_t n) { parsed.timeout_ms = n; }},
      {"graceMs", of(defaults.grace_ms), 0, kDayMs, [&](int64_t n) { parsed.grace_ms = n; }},
      {"maxContiguous", of(defaults.max_contiguous), dispatch::kSlotInputBytes, (4ll << 30) - 1,
       [&](int64_t n) { parsed.max_contiguous = n; }},
      {"publications", of(defaults.publication_bytes), of(publication::kMinAreaBytes), of(publication::kMaxAreaBytes),
       [&](int64_t n) {
         parsed.publication_bytes = static_cast<uint64_t>(n) / publication::kPageBytes * publication::kPageBytes;
       }},
      {"restarted", 0, 0, 1, [&](int64_t n) { parsed.restarted = n != 0; }},
      {"windowBytes", of(defaults.window_bytes), 1 << 22, 16 * kTebi, [&](int64_t n) { parsed.window_bytes = n; }},
  };
  for (const Field& field : fields) {
    Result<int64_t> number = line.Number(field.key, field.fallback, field.least, field.most);
    if (!number) return number.status();
    field.store(*number);
  }
  const uint64_t workers = uint64_t{parsed.workers} + parsed.native_workers;
  if (workers < 1 || workers > static_cast<uint64_t>(kMaxWorkers)) {
    return Status(Code::kArgumentInvalid, "assign: workers and nativeWorkers together must be 1 to " +
                                              std::to_string(kMaxWorkers) + ", got " + std::to_string(workers));
  }
  return parsed;
}

}  // namespace praas::host
