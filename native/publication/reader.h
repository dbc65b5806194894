#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "publication/layout.h"

/// Reading blocks without anybody's help. What a reader returns was the value at some moment between call and return,
/// and whole; where it cannot be sure of that it says so, and the host has to be asked.
namespace praas::publication {

enum class Verdict {
  kRead,   // `version`, and either `absent` or `value`
  kAsk,    // being written all the time, or not here: the host has the value
  kMoved,  // there is another publication in this place, or none: the host knows where this one is now
};

struct Outcome {
  Verdict verdict = Verdict::kAsk;
  uint64_t version = 0;
  bool absent = false;  // the key does not exist
  std::span<const std::byte> value{};
};

/// Where the value shall go: memory of so many bytes, asked for again when the size has changed meanwhile.
using Memory = std::function<std::span<std::byte>(uint64_t bytes)>;

/// From memory that this OS process has mapped. Looks a few times before it gives up. Precondition: InArea.
[[nodiscard]] Outcome ReadMapped(std::span<const std::byte> area, const Location& location, const Memory& memory);

/// What bytes fetched in one piece from the begin of a block say, by themselves and in whatever order they were
/// fetched: their checksum is the proof that they belong together. Never looks beyond `fetched`.
struct Fetched {
  enum class State {
    kWhole,  // `outcome`, its value within `fetched`
    kMore,   // there are `bytes` to be fetched, head included
    kAgain,  // it was being written
  };
  State state = State::kAgain;
  uint64_t bytes = 0;
  Outcome outcome{};
};
[[nodiscard]] Fetched Examine(std::span<const std::byte> fetched, const Location& location);

/// Something that fetches the first `bytes` of a block, at most its head and capacity: a device on another machine.
/// What it returns is valid until the next call; nothing: it cannot.
using Fetch = std::function<std::span<const std::byte>(const Location& location, uint64_t bytes)>;

/// Fetches a few times before it gives up, `expected` bytes of value with the first.
[[nodiscard]] Outcome ReadFetched(const Fetch& fetch, const Location& location, uint64_t expected);

}  // namespace praas::publication
