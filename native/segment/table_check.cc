#include "segment/table_check.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <type_traits>
#include <utility>

#include "segment/arena_head.h"

namespace praas::segment {
namespace {

using dispatch::ChunkRing;
using dispatch::Participant;
using dispatch::ParticipantKind;
using dispatch::ParticipantState;
using dispatch::PayloadRef;
using dispatch::Place;
using dispatch::StreamRing;

constexpr size_t kMaxFindings = 100;  // of each table
constexpr uint64_t kPoolSlotBytes = dispatch::kSlotInputBytes + dispatch::kSlotOutputBytes;
constexpr int32_t kMaxPid = 1 << 22;  // the largest pid_max there is
constexpr uint32_t kAllNotices = dispatch::kNoticeLock | dispatch::kNoticeCancel | dispatch::kNoticeStream |
                                 dispatch::kNoticeWindow | dispatch::kNoticePosted | dispatch::kNoticeProbe;
constexpr uint32_t kLastDoorbellKind = 2;  // dispatch::DoorbellKind; 0 until a host has chosen
constexpr uint32_t kWindowClosing = 2;
constexpr uint32_t kStreamAborted = 2;  // ChunkRing::end

template <typename T>
T Load(const std::atomic<T>& value) noexcept {
  return value.load(std::memory_order_relaxed);
}

std::string AtMost(uint64_t most) { return "at most " + std::to_string(most); }

/// Collects what is wrong about one table.
class Findings {
 public:
  void Say(std::string what) {
    if (list_.size() < kMaxFindings) list_.push_back(std::move(what));
  }
  void Say(std::string_view name, std::string_view what, uint64_t found) { Say(Unexpected(name, what, found)); }
  void Bound(std::string_view name, uint64_t most, uint64_t found) {
    if (found > most) Say(name, AtMost(most), found);
  }
  [[nodiscard]] size_t size() const noexcept { return list_.size(); }
  void Truncate(size_t size) { list_.resize(std::min(size, list_.size())); }
  [[nodiscard]] std::vector<std::string> Take() noexcept { return std::move(list_); }

 private:
  std::vector<std::string> list_;
};

/// Index of the first bit set at or above `limit`.
std::optional<uint32_t> BitBeyond(const std::atomic<uint64_t>* words, size_t count, uint32_t limit) noexcept {
  for (size_t word = limit / 64; word < count; ++word) {
    uint64_t bits = Load(words[word]);
    if (word == limit / 64) bits = bits >> (limit % 64) << (limit % 64);
    if (bits != 0) return static_cast<uint32_t>(word * 64) + static_cast<uint32_t>(__builtin_ctzll(bits));
  }
  return std::nullopt;
}

class TableChecker {
 public:
  explicit TableChecker(const Segment& segment)
      : segment_(segment),
        header_(segment.header()),
        calls_(std::min(header_.calls.capacity, dispatch::kMaxCalls)),
        participants_(std::min(CommittedOf(header_.participants), dispatch::kMaxParticipants)) {}

  std::vector<std::string> Run() {
    std::vector<std::string> all;
    for (const auto check : {&TableChecker::CheckHeaderValues, &TableChecker::CheckHints,
                             &TableChecker::CheckParticipants, &TableChecker::CheckFunctions,
                             &TableChecker::CheckWindows, &TableChecker::CheckStreams, &TableChecker::CheckArenas}) {
      (this->*check)();
      for (std::string& finding : findings_.Take()) all.push_back(std::move(finding));
      findings_ = Findings();
    }
    return all;
  }

 private:
  void CheckHeaderValues() {
    if (Load(header_.host_generation) == 0) findings_.Say("header.host_generation", "at least 1", 0);
    findings_.Bound("header.clean_shutdown", 1, Load(header_.clean_shutdown));
    findings_.Bound("header.doorbell_kind", kLastDoorbellKind, Load(header_.doorbell_kind));
    findings_.Bound("header.windows_used", CommittedOf(header_.windows), Load(header_.windows_used));
    findings_.Bound("header.function_count", CommittedOf(header_.functions), Load(header_.function_count));
  }

  void CheckBits(const std::string& name, const std::atomic<uint64_t>* words, size_t count, uint32_t limit) {
    if (const auto bit = BitBeyond(words, count, limit)) {
      findings_.Say(name + ": bit " + std::to_string(*bit) + " is set, of " + std::to_string(limit));
    }
  }

  void CheckHints() {
    for (uint32_t lane = 0; lane < std::size(header_.hints); ++lane) {
      const Header::Hints& hints = header_.hints[lane];
      const std::string name = "header.hints[" + std::to_string(lane) + "].";
      CheckBits(name + "queued", hints.queued, std::size(hints.queued), calls_);
      CheckBits(name + "hot", hints.hot, std::size(hints.hot), participants_);
      CheckBits(name + "sleepers", hints.sleepers, std::size(hints.sleepers), participants_);
    }
  }

  void CheckParticipants() {
    for (uint32_t index = 0; index < participants_; ++index) {
      const Participant& participant = segment_.participant(index);
      const std::string name = "participants[" + std::to_string(index) + "].";
      const uint32_t state = participant.state.load(std::memory_order_acquire);
      const uint32_t generation = Load(participant.generation);
      const size_t before = findings_.size();
      CheckFields(participant, name);
      if (state > static_cast<uint32_t>(ParticipantState::kLeased)) {
        findings_.Say(name + "state", "one of free, starting, ready, draining, dead", state);
      } else if (state != static_cast<uint32_t>(ParticipantState::kFree)) {
        CheckIdentity(participant, index, name);
      }
      // One that ended or began meanwhile was read across two lives.
      if (Load(participant.state) != state || Load(participant.generation) != generation) findings_.Truncate(before);
    }
  }

  void CheckFields(const Participant& participant, const std::string& name) {
    const uint64_t credit = Load(participant.credit);
    if (credit != dispatch::kCreditNone && credit != dispatch::kCreditIdle) {
      const auto low = static_cast<uint32_t>(credit);
      if (low < 2 || low - 2 >= calls_) {
        findings_.Say(name + "credit", "none, idle, or a call of " + std::to_string(calls_), credit);
      }
    }
    findings_.Bound(name + "sleeping", 1, Load(participant.sleeping));
    findings_.Bound(name + "watches", 1, Load(participant.watches));
    findings_.Bound(name + "running", calls_, Load(participant.running));
    findings_.Bound(name + "notices", kAllNotices, Load(participant.notices));
    CheckBits(name + "completions", participant.completions, std::size(participant.completions), calls_);
    if (!AllZero(participant.reserved, sizeof participant.reserved) ||
        !AllZero(participant.reserved2, sizeof participant.reserved2) ||
        !AllZero(participant.counters.reserved, sizeof participant.counters.reserved)) {
      findings_.Say(name + "reserved: not zero, though nobody writes it");
    }
  }

  void CheckIdentity(const Participant& participant, uint32_t index, const std::string& name) {
    const uint32_t kind = participant.kind;
    if (index == dispatch::kHostParticipant) {
      if (kind != static_cast<uint32_t>(ParticipantKind::kHost)) findings_.Say(name + "kind", "0 (host)", kind);
    } else if (kind != static_cast<uint32_t>(ParticipantKind::kNodeWorker) &&
               kind != static_cast<uint32_t>(ParticipantKind::kNativeWorker)) {
      findings_.Say(name + "kind", "1 (Node worker) or 2 (native worker)", kind);
    }
    // Several may have one: workers can be threads of a program.
    const int32_t pid = Load(participant.pid);
    if (pid <= 0 || pid > kMaxPid) {
      findings_.Say(name + "pid: expected 1 … " + std::to_string(kMaxPid) + ", found " + std::to_string(pid));
    }
  }

  void CheckFunctions() {
    const uint32_t count = std::min(Load(header_.function_count), CommittedOf(header_.functions));
    for (uint32_t index = 0; index < count; ++index) {
      const Function& function = segment_.function(index);
      const std::string name = "functions[" + std::to_string(index) + "].";
      const Name copy = function.name;
      if (copy.size == 0) {
        findings_.Say(name + "name", "1 … 255 bytes", 0);
      } else if (std::memchr(copy.bytes, 0, copy.size) != nullptr ||
                 !AllZero(copy.bytes + copy.size, kMaxName - copy.size)) {
        findings_.Say(name + "name.size: " + std::to_string(copy.size) + ", but the name ends elsewhere");
      }
      if (!AllZero(function.reserved, sizeof function.reserved)) {
        findings_.Say(name + "reserved: not zero, though nobody writes it");
      }
    }
    const uint32_t found = Load(header_.function_hash);
    const uint32_t expected = FunctionHash(segment_, count);
    // Before the first worker has registered there is nothing to compare; the host writes the hash before the count.
    if (count != 0 && found != expected && Load(header_.function_count) == count) {
      findings_.Say("header.function_hash", std::to_string(expected) + " (of names and flags)", found);
    }
  }

  void CheckWindows() {
    const uint32_t count = std::min(CommittedOf(header_.windows), kMaxWindows);
    for (uint32_t index = 0; index < count; ++index) {
      const WindowSlot& slot = segment_.window(index);
      const std::string name = "windows[" + std::to_string(index) + "].";
      const uint32_t state = slot.state.load(std::memory_order_acquire);
      const uint32_t generation = Load(slot.generation);
      const size_t before = findings_.size();
      findings_.Bound(name + "state", kWindowClosing, state);
      if (!AllZero(slot.reserved, sizeof slot.reserved)) {
        findings_.Say(name + "reserved: not zero, though nobody writes it");
      }
      if (Load(slot.poller) >= std::max(participants_, 1u)) {
        findings_.Say(name + "poller", "a participant of " + std::to_string(participants_), Load(slot.poller));
      }
      if (Load(slot.consumer) > participants_) {
        findings_.Say(name + "consumer", AtMost(participants_), Load(slot.consumer));
      }
      if (state != 0 && state <= kWindowClosing) {
        if (slot.client_pid < 0 || slot.client_pid > kMaxPid) {
          findings_.Say(name + "client_pid: expected 0 … " + std::to_string(kMaxPid) + ", found " +
                        std::to_string(slot.client_pid));
        }
        if (slot.bytes == 0 || slot.bytes > kMaxMemoryBytes) {
          findings_.Say(name + "bytes", "1 … " + std::to_string(kMaxMemoryBytes), slot.bytes);
        }
      }
      if (Load(slot.state) != state || Load(slot.generation) != generation) findings_.Truncate(before);
    }
  }

  void CheckStreams() {
    const uint32_t count = std::min(CommittedOf(header_.streams), dispatch::kMaxStreams);
    for (uint32_t index = 0; index < count; ++index) {
      const auto& ring = segment_.At<StreamRing>(header_.streams, index);
      const std::string name = "streams[" + std::to_string(index) + "].";
      const uint32_t in_use = ring.in_use.load(std::memory_order_acquire);
      const size_t before = findings_.size();
      findings_.Bound(name + "in_use", 1, in_use);
      if (in_use == 1) {
        if (ring.call >= calls_) findings_.Say(name + "call", "a call of " + std::to_string(calls_), ring.call);
        CheckRing(name + "input.", ring.input, Place::kPoolInput, 1);
        CheckRing(name + "output.", ring.output, Place::kPoolOutput, 2);
      }
      if (Load(ring.in_use) != in_use) findings_.Truncate(before);
    }
  }

  void CheckRing(const std::string& name, const ChunkRing& ring, Place place, uint32_t arena) {
    // The head first: it never overtakes the tail.
    const uint32_t head = ring.head.load(std::memory_order_acquire);
    const uint32_t tail = ring.tail.load(std::memory_order_acquire);
    const size_t before = findings_.size();
    findings_.Bound(name + "end", kStreamAborted, Load(ring.end));
    if (tail - head > dispatch::kStreamChunks) {
      findings_.Say(name + "tail: " + std::to_string(tail) + " is not " + std::to_string(head) + " (head) to " +
                    std::to_string(head + dispatch::kStreamChunks));
    } else {
      for (uint32_t at = head; at != tail; ++at) {
        const PayloadRef& chunk = ring.chunks[at % dispatch::kStreamChunks];
        const uint32_t blocks = CommittedOf(header_.arena_blocks[arena]);
        if (chunk.place != place || chunk.block == 0 || chunk.block > blocks) {
          findings_.Say(name + "chunks[" + std::to_string(at % dispatch::kStreamChunks) +
                        "]: does not lie in a block of its arena");
        }
      }
    }
    if (ring.head.load(std::memory_order_acquire) != head) findings_.Truncate(before);
  }

  void CheckArenas() {
    constexpr const char* names[] = {"arenas.data", "arenas.inputs", "arenas.outputs"};
    for (uint32_t which = 0; which < std::size(names); ++which) {
      const auto& head = *reinterpret_cast<const ArenaHead*>(segment_.base() + header_.arena_heads[which]);
      if (AllZero(&head, sizeof head)) continue;  // no host has made a pool
      if (auto violation = MutexViolation(std::string(names[which]) + ".mutex", head.mutex, participants_)) {
        findings_.Say(std::move(*violation));
      }
      findings_.Bound(std::string(names[which]) + ".damaged", 1, Load(head.damaged));
      // Arena::Check compares those of the data with the header; here only what the pool's must be.
      if (which == 0 || CommittedOf(header_.arena_blocks[which]) == 0) continue;
      const uint64_t rest = header_.pool_bytes - std::min<uint64_t>(header_.pool_bytes, calls_ * kPoolSlotBytes);
      if (head.limit_bytes == 0 || head.limit_bytes > header_.pool_bytes / 2) {
        findings_.Say(std::string(names[which]) + ".limit_bytes", "1 … " + std::to_string(rest / 2), head.limit_bytes);
      }
      if (head.base_offset > header_.pool_bytes) {
        findings_.Say(std::string(names[which]) + ".base_offset", AtMost(header_.pool_bytes), head.base_offset);
      }
    }
  }

  const Segment& segment_;
  const Header& header_;
  uint32_t calls_;
  uint32_t participants_;
  Findings findings_;
};

}  // namespace

uint32_t CommittedOf(const Region& region) noexcept {
  return std::min(region.committed.load(std::memory_order_acquire), region.capacity);
}

std::string Unexpected(std::string_view name, std::string_view what, uint64_t found) {
  return std::string(name) + ": expected " + std::string(what) + ", found " + std::to_string(found);
}

bool AllZero(const void* bytes, size_t size) noexcept {
  const auto* at = static_cast<const unsigned char*>(bytes);
  return std::all_of(at, at + size, [](unsigned char byte) { return byte == 0; });
}

std::optional<std::string> MutexViolation(std::string_view name, const RobustMutex& mutex, uint32_t participants) {
#if defined(__GLIBC__)
  // The C library believes the kind: an ordinary one would never be handed over when its owner dies.
  static_assert(std::is_standard_layout_v<RobustMutex>);
  RobustMutex sound{};
  if (!sound.Init().ok()) return std::nullopt;
  const auto kind = [](const RobustMutex& of) { return reinterpret_cast<const pthread_mutex_t*>(&of)->__data.__kind; };
  if (kind(mutex) != kind(sound)) {
    return std::string(name) + ": expected kind " + std::to_string(kind(sound)) + " (robust, shared), found " +
           std::to_string(kind(mutex));
  }
#endif
  const RobustMutex::Owner owner = mutex.Observe();
  if (owner.held && owner.participant != kUnknownParticipant && owner.participant >= participants) {
    return std::string(name) + ": held by participant " + std::to_string(owner.participant) + ", which does not exist";
  }
  // A thread that dies leaves no id but a mark, so that an id nobody has was never written by a lock.
  if (owner.held && owner.tid != 0 && ::access(("/proc/" + std::to_string(owner.tid)).c_str(), F_OK) != 0 &&
      errno == ENOENT && mutex.Observe().tid == owner.tid) {
    return std::string(name) + ": held by thread " + std::to_string(owner.tid) + ", which does not run";
  }
  return std::nullopt;
}

uint32_t FunctionHash(const Segment& segment, uint32_t count) noexcept {
  uint32_t hashes[dispatch::kLanes];
  bool used[dispatch::kLanes] = {};
  std::fill(std::begin(hashes), std::end(hashes), 2166136261u);
  for (uint32_t index = 0; index < count; ++index) {
    const Function& function = segment.function(index);
    const auto lane =
        static_cast<size_t>((function.flags & kFunctionNative) != 0 ? dispatch::Lane::kNative : dispatch::Lane::kNode);
    uint32_t& hash = hashes[lane];
    used[lane] = true;
    const auto mix = [&hash](uint32_t byte) { hash = (hash ^ (byte & 0xff)) * 16777619u; };
    for (uint32_t i = 0; i < function.name.size; ++i) mix(static_cast<unsigned char>(function.name.bytes[i]));
    mix(0);
    for (int shift = 0; shift < 32; shift += 8) mix((function.flags & ~uint32_t{kFunctionNative}) >> shift);
    for (int shift = 0; shift < 32; shift += 8) mix(function.max_output_pages >> shift);
  }
  uint32_t joined = 0;
  for (size_t lane = 0; lane < dispatch::kLanes; ++lane) joined ^= used[lane] ? hashes[lane] : 0;
  return joined;
}

std::vector<std::string> CheckTables(const Segment& segment) { return TableChecker(segment).Run(); }

}  // namespace praas::segment
