#include "function/mailbox.h"

#include <cstring>
#include <string>

#include "base/clock.h"
#include "state/reserved.h"

namespace praas::function {
namespace {

/// A key's messages lie in one value, each behind its length: adding one is an atomic append, taking one an atomic
/// replacement by the rest.
using Length = uint64_t;

Result<std::string> KeyOf(std::string_view key) {
  std::string name = std::string(state::kMailboxPrefix) + std::string(key);
  if (key.empty() || name.size() > segment::kMaxName) {
    return Status(Code::kNameInvalid, "the key of a message has 1 to " +
                                          std::to_string(segment::kMaxName - state::kMailboxPrefix.size()) +
                                          " bytes, not " + std::to_string(key.size()));
  }
  return name;
}

}  // namespace

Status Mailbox::Put(std::string_view key, std::span<const std::byte> message, uint64_t deadline_ns) {
  Result<std::string> name = KeyOf(key);
  if (!name.ok()) return name.status();
  const Result<state::KeyInfo> known = store_.Stat(*name, deadline_ns);
  const uint64_t waiting_bytes = known.ok() ? known->bytes : 0;
  if (waiting_bytes + message.size() > kMaxBytes) {
    return Status(Code::kBackpressure, std::to_string(waiting_bytes) + " bytes of messages wait under \"" +
                                           std::string(key) + "\"; take some first");
  }
  std::vector<std::byte> record(sizeof(Length) + message.size());
  const Length length = message.size();
  std::memcpy(record.data(), &length, sizeof length);
  if (!message.empty()) std::memcpy(record.data() + sizeof length, message.data(), message.size());
  const Result<uint64_t> appended = store_.Append(*name, record, deadline_ns);
  return appended.ok() ? Status::Ok() : appended.status();
}

Result<std::optional<std::vector<std::byte>>> Mailbox::TryTake(std::string_view key, uint64_t deadline_ns) {
  Result<std::string> name = KeyOf(key);
  if (!name.ok()) return name.status();
  for (;;) {
    state::KeyInfo info{};
    const Result<std::vector<std::byte>> all = store_.Get(*name, deadline_ns, &info);
    if (!all.ok() && all.status().code() == Code::kStateNotFound) return std::optional<std::vector<std::byte>>();
    if (!all.ok()) return all.status();
    Length length = 0;
    if (all->size() < sizeof length) return Status(Code::kSegmentInvalid, "the mailbox is damaged");
    std::memcpy(&length, all->data(), sizeof length);
    if (length > all->size() - sizeof length) return Status(Code::kSegmentInvalid, "the mailbox is damaged");
    const auto rest = std::span(*all).subspan(sizeof length + length);
    Status taken;
    if (rest.empty()) {
      const Result<bool> deleted = store_.Delete(*name, info.version, deadline_ns);
      taken = deleted.ok() ? (*deleted ? Status::Ok() : Status(Code::kStateVersion, "")) : deleted.status();
    } else {
      const Result<uint64_t> replaced =
          store_.Set(*name, rest, {.if_version = info.version, .offset = {}, .deadline_ns = deadline_ns});
      if (!replaced.ok()) taken = replaced.status();
    }
    if (taken.code() == Code::kStateVersion) {
      // Another worker has taken or put one meanwhile.
      if (NowNs() < deadline_ns) continue;
      return Status(Code::kInvocationTimeout,
                    "other workers took and put messages under \"" + std::string(key) + "\" until the deadline");
    }
    if (!taken.ok()) return taken;
    const auto message = std::span(*all).subspan(sizeof length, length);
    return std::optional(std::vector<std::byte>(message.begin(), message.end()));
  }
}

}  // namespace praas::function
