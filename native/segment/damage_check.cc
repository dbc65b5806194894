#include "segment/damage_check.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "segment/arena_head.h"
#include "shm/memfd.h"
#include "shm/shared_memory.h"

namespace praas::segment {
namespace {

constexpr uint64_t kPoolSlotBytes = dispatch::kSlotInputBytes + dispatch::kSlotOutputBytes;
/// What a checksum that fits weighs against single fields.
constexpr uint32_t kChecksumWeight = 16;
constexpr size_t kCopyBytes = 64 * 1024;

Header& HeaderIn(HeaderCopy& copy) noexcept { return *reinterpret_cast<Header*>(copy.bytes); }

std::string Hex(uint64_t value) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text = "0x0000000000000000";
  for (size_t at = text.size(); at-- > 2; value >>= 4) text[at] = digits[value & 15];
  return text;
}

std::string Quoted(std::string_view text) { return '"' + std::string(text) + '"'; }

struct Field {
  std::string name;
  uint64_t value;
  bool hex = false;

  [[nodiscard]] std::string Text() const { return hex ? Hex(value) : std::to_string(value); }
};

std::string Differs(const std::string& name, const std::string& expected, const std::string& found) {
  return name + ": expected " + expected + ", found " + found;
}

/// All that PlanLayout writes.
std::vector<Field> PlannedFields(const Header& header) {
  std::vector<Field> fields = {
      {"header.layout_version", header.layout_version}, {"header.header_bytes", header.header_bytes},
      {"header.layout_hash", header.layout_hash, true}, {"header.segment_bytes", header.segment_bytes},
      {"header.meta_bytes", header.meta_bytes},         {"header.memory_bytes", header.memory_bytes},
      {"header.pool_bytes", header.pool_bytes},         {"header.arena_heads[0]", header.arena_heads[0]},
      {"header.arena_heads[1]", header.arena_heads[1]}, {"header.arena_heads[2]", header.arena_heads[2]},
      {"header.state_head", header.state_head},         {"header.stats_offset", header.stats_offset},
      {"header.futex_queue", header.futex_queue},
  };
  for (const NamedRegion& named : Regions(const_cast<Header&>(header))) {
    const std::string name = std::string("header.") + named.name;
    fields.push_back({name + ".offset", named.region->offset});
    fields.push_back({name + ".stride", named.region->stride});
    fields.push_back({name + ".capacity", named.region->capacity});
    fields.push_back({name + ".reserved", named.region->reserved});
  }
  return fields;
}

/// An arena's own record of its bounds, zeros when it cannot be read. The heads lie where they lie whatever the sizes.
struct ArenaBounds {
  uint64_t base = 0;
  uint64_t limit = 0;
};

ArenaBounds ReadBounds(int fd, uint64_t head) noexcept {
  ArenaBounds bounds;
  const auto read = [fd](uint64_t at) {
    uint64_t value = 0;
    return ::pread(fd, &value, sizeof value, static_cast<off_t>(at)) == sizeof value ? value : 0;
  };
  bounds.base = read(head + offsetof(ArenaHead, base_offset));
  bounds.limit = read(head + offsetof(ArenaHead, limit_bytes));
  return bounds;
}

/// Finds the sizes of which a header was most likely made.
class Planner {
 public:
  Planner(int fd, const Header& found, const HeaderRead& read)
      : found_(found), read_(read), fields_(PlannedFields(found)) {
    HeaderCopy any{};
    PlanLayout({kMinMemoryBytes, kMinPoolBytes, 1}, &HeaderIn(any));
    data_ = ReadBounds(fd, any.header().arena_heads[0]);
    inputs_ = ReadBounds(fd, any.header().arena_heads[1]);
  }

  /// false: too little fits any layout.
  bool Run(HeaderCopy* best) {
    const uint64_t memory[] = {found_.memory_bytes, found_.segment_bytes - found_.meta_bytes,
                               read_.object_bytes - found_.meta_bytes, data_.limit};
    const uint64_t pool[] = {found_.pool_bytes, inputs_.base + 2 * inputs_.limit,
                             PoolOf(found_.arena_blocks[1].capacity), PoolOf(found_.arena_blocks[2].capacity)};
    const uint64_t calls[] = {found_.calls.capacity, found_.calls.committed.load(std::memory_order_relaxed),
                              (found_.streams.offset - found_.calls.offset) / sizeof(dispatch::CallEntry),
                              inputs_.base / kPoolSlotBytes, dispatch::kDefaultCalls};
    uint32_t most = 0;
    for (const uint64_t memory_bytes : memory) {
      for (const uint64_t pool_bytes : pool) {
        for (const uint64_t count : calls) Try(memory_bytes, pool_bytes, count, best, &most);
      }
    }
    return most * 2 >= fields_.size();
  }

 private:
  /// Rounded to what the number of descriptors tells; pools are made of whole pages.
  static uint64_t PoolOf(uint32_t descriptors) noexcept {
    return descriptors < 2 ? 0 : (uint64_t{descriptors} - 2) * Arena::kGranule * 2;
  }

  void Try(uint64_t memory_bytes, uint64_t pool_bytes, uint64_t calls, HeaderCopy* best, uint32_t* most) const {
    if (memory_bytes < kMinMemoryBytes || memory_bytes > kMaxMemoryBytes || memory_bytes % kPageBytes != 0 ||
        pool_bytes < kMinPoolBytes || pool_bytes > kMaxMemoryBytes || calls == 0 || calls > dispatch::kMaxCalls) {
      return;
    }
    HeaderCopy plan{};
    PlanLayout({memory_bytes, pool_bytes, static_cast<uint32_t>(calls)}, &HeaderIn(plan));
    const uint32_t score = Score(plan);
    if (score <= *most) return;
    *most = score;
    *best = plan;
  }

  uint32_t Score(HeaderCopy& plan) const {
    const std::vector<Field> planned = PlannedFields(plan.header());
    uint32_t score = 0;
    for (size_t i = 0; i < fields_.size(); ++i) score += planned[i].value == fields_[i].value && planned[i].value != 0;
    // What lies outside the header counts for as much as half of it: it decides where the header was overwritten whole.
    const Header& header = plan.header();
    if (header.segment_bytes == read_.object_bytes && data_.base == header.meta_bytes &&
        data_.limit == header.memory_bytes) {
      score += static_cast<uint32_t>(fields_.size() / 2 + 1);
      score += inputs_.base == header.calls.capacity * kPoolSlotBytes;
    }
    Header& with_constants = HeaderIn(plan);
    with_constants.created_wall_ns = found_.created_wall_ns;
    with_constants.process_id = found_.process_id;
    if (StaticChecksum(with_constants) == found_.static_checksum) score += kChecksumWeight;
    return score;
  }

  const Header& found_;
  const HeaderRead& read_;
  std::vector<Field> fields_;
  ArenaBounds data_;
  ArenaBounds inputs_;
};

/// Memory behind [begin, end) of an object that was written: how much, and where it ends.
struct Touched {
  uint64_t bytes = 0;
  uint64_t end;
};

/// Calls `each(begin, end)` for every run of [begin, end) that may be other than zeros. A file system that cannot tell
/// has everything in one run.
template <typename Each>
void ForEachRun(int fd, uint64_t begin, uint64_t end, Each each) {
  while (begin < end) {
    const off_t data = ::lseek(fd, static_cast<off_t>(begin), SEEK_DATA);
    if (data < 0 && errno == ENXIO) return;
    if (data < 0) {
      each(begin, end);
      return;
    }
    const off_t hole = ::lseek(fd, data, SEEK_HOLE);
    const uint64_t run = std::max<uint64_t>(static_cast<uint64_t>(data), begin);
    const uint64_t run_end = std::min(hole < 0 ? end : static_cast<uint64_t>(hole), end);
    if (run >= run_end) return;
    each(run, run_end);
    begin = run_end;
  }
}

Touched TouchedOf(int fd, uint64_t begin, uint64_t end) {
  Touched touched{.end = begin};
  ForEachRun(fd, begin, end, [&](uint64_t from, uint64_t to) {
    touched.bytes += to - from;
    touched.end = to;
  });
  return touched;
}

uint64_t BytesOf(const Region& region, uint64_t records) noexcept { return records * region.stride; }

class Diagnosis {
 public:
  Diagnosis(int fd, const Header& found, const HeaderRead& read, std::string_view process_id, const HeaderCopy& plan)
      : fd_(fd), found_(found), read_(read), process_id_(process_id), plan_(plan) {}

  HeaderDiagnosis Run() {
    if (found_.magic.load(std::memory_order_relaxed) != kMagic) {
      Find(Differs("header.magic", Hex(kMagic), Hex(found_.magic.load(std::memory_order_relaxed))));
    }
    CompareFields();
    // As found but for what the plan knows: what changes in use cannot be planned.
    HeaderCopy& repaired = result_.repaired;
    std::memcpy(repaired.bytes, &found_, sizeof repaired.bytes);
    Header& header = HeaderIn(repaired);
    PlanLayout({plan_.header().memory_bytes, plan_.header().pool_bytes, plan_.header().calls.capacity}, &header);
    header.magic.store(kMagic, std::memory_order_relaxed);
    CheckIdentity(header);
    if (read_.object_bytes != header.segment_bytes) {
      Find("object: expected " + std::to_string(header.segment_bytes) + " bytes, found " +
           std::to_string(read_.object_bytes));
    }
    CheckCommitted(header);
    header.static_checksum = StaticChecksum(header);
    return std::move(result_);
  }

 private:
  void Find(std::string what) { result_.violations.push_back(std::move(what)); }

  void CompareFields() {
    const std::vector<Field> expected = PlannedFields(plan_.header());
    const std::vector<Field> found = PlannedFields(found_);
    for (size_t i = 0; i < expected.size(); ++i) {
      if (expected[i].value != found[i].value) Find(Differs(expected[i].name, expected[i].Text(), found[i].Text()));
    }
  }

  static Name NameOf(std::string_view text) noexcept {
    Name name{};
    name.size = static_cast<uint8_t>(std::min(text.size(), kMaxName));
    std::memcpy(name.bytes, text.data(), name.size);
    return name;
  }
  static bool Same(const Name& a, const Name& b) noexcept { return std::memcmp(&a, &b, sizeof a) == 0; }
  static std::string_view TextOf(const Name& name) noexcept { return {name.bytes, name.size}; }

  /// The checksum covers the fields that no plan knows. It tells what they were when it fits one that was guessed.
  void CheckIdentity(Header& header) {
    const auto fits = [&](const Name& name) {
      header.process_id = name;
      return StaticChecksum(header) == found_.static_checksum;
    };
    const Name found = found_.process_id;
    const Name wanted = NameOf(process_id_);
    // Only the size or only bytes behind the name may have been hit.
    const Name cut = NameOf(TextOf(found));
    const Name longest = NameOf({found.bytes, ::strnlen(found.bytes, kMaxName)});
    for (const Name& name : {found, process_id_.empty() ? found : wanted, cut, longest}) {
      if (name.size == 0 || !fits(name)) continue;
      if (!Same(name, found)) SayProcess(name, found);
      return;
    }
    header.process_id = !process_id_.empty() ? wanted : found.size != 0 ? found : longest;
    if (!Same(header.process_id, found)) SayProcess(header.process_id, found);
    if (header.process_id.size == 0) header.process_id = NameOf("?");
    Find(Differs("header.static_checksum", Hex(StaticChecksum(header)), Hex(found_.static_checksum)) +
         " (it, created_wall_ns or process_id is damaged)");
  }

  void SayProcess(const Name& expected, const Name& found) {
    if (TextOf(expected) == TextOf(found)) return Find("header.process_id: bytes behind the name are not zero");
    Find(Differs("header.process_id", Quoted(TextOf(expected)), Quoted(TextOf(found))));
  }

  /// Memory that was claimed and never written cannot be told from memory that was never there, but there is only so
  /// much of it.
  void CheckCommitted(Header& header) {
    const auto regions = Regions(header);
    const auto found = Regions(const_cast<Header&>(found_));
    std::array<Touched, kRegionCount> touched;
    uint64_t written = TouchedOf(fd_, 0, header.participants.offset).bytes +
                       TouchedOf(fd_, header.meta_bytes, read_.object_bytes).bytes;
    uint64_t claimed = 0;
    for (size_t i = 0; i < kRegionCount; ++i) {
      const Region& region = *regions[i].region;
      touched[i] = TouchedOf(fd_, region.offset, region.offset + BytesOf(region, region.capacity));
      written += touched[i].bytes;
      const uint32_t committed = found[i].region->committed.load(std::memory_order_relaxed);
      if (committed <= region.capacity) claimed += BytesOf(region, committed) / kPageBytes * kPageBytes;
    }
    const uint64_t unwritten = read_.backed_bytes > written ? read_.backed_bytes - written : 0;
    const bool too_much = claimed > read_.backed_bytes;
    bool named = false;
    for (size_t i = 0; i < kRegionCount; ++i) {
      Region& region = *regions[i].region;
      const uint32_t committed = found[i].region->committed.load(std::memory_order_relaxed);
      const auto there = static_cast<uint32_t>((touched[i].end - region.offset) / region.stride);
      const std::string name = std::string("header.") + regions[i].name + ".committed";
      uint32_t kept = committed;
      if (committed > region.capacity) {
        kept = there;
        Find(name + ": expected at most " + std::to_string(region.capacity) + ", found " + std::to_string(committed));
      } else if (committed == 0 && there > 0) {
        kept = there;
        Find(name + ": expected at least " + std::to_string(there) + " (memory was written), found 0");
      } else if (committed > there && BytesOf(region, committed - there) / kPageBytes * kPageBytes > unwritten) {
        kept = there;
        named = true;
        Find(name + ": expected at most " + std::to_string(there + unwritten / region.stride) +
             " (the memory there is)" + ", found " + std::to_string(committed));
      } else if (too_much) {
        kept = std::min(committed, there);
      }
      region.committed.store(kept, std::memory_order_relaxed);
    }
    if (too_much && !named) {
      Find("header: regions claim " + std::to_string(claimed) + " bytes, but the object has " +
           std::to_string(read_.backed_bytes));
    }
    const uint32_t calls = found_.calls.committed.load(std::memory_order_relaxed);
    if (calls != header.calls.capacity && calls <= header.calls.capacity && calls != 0) {
      Find(Differs("header.calls.committed", std::to_string(header.calls.capacity), std::to_string(calls)));
    }
    header.calls.committed.store(header.calls.capacity, std::memory_order_relaxed);
    if (header.participants.committed.load(std::memory_order_relaxed) == 0) {
      if (found_.participants.committed.load(std::memory_order_relaxed) == 0) {
        Find("header.participants.committed: expected at least 1, found 0");
      }
      header.participants.committed.store(1, std::memory_order_relaxed);
    }
    const uint32_t functions = header.functions.committed.load(std::memory_order_relaxed);
    if (found_.function_count.load(std::memory_order_relaxed) > functions) {
      Find("header.function_count: expected at most " + std::to_string(functions) + ", found " +
           std::to_string(found_.function_count.load(std::memory_order_relaxed)));
      header.function_count.store(functions, std::memory_order_relaxed);
    }
  }

  int fd_;
  const Header& found_;
  const HeaderRead& read_;
  std::string_view process_id_;
  const HeaderCopy& plan_;
  HeaderDiagnosis result_;
};

bool IsZero(std::span<const std::byte> bytes) noexcept {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

/// Copies [begin, end) from `from` to the same place of `to`, whole pages of zeros left out.
Status CopyRun(int from, int to, uint64_t begin, uint64_t end, std::vector<std::byte>& buffer) {
  while (begin < end) {
    const size_t wanted = std::min<uint64_t>(buffer.size(), end - begin);
    const ssize_t got = ::pread(from, buffer.data(), wanted, static_cast<off_t>(begin));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Status::System("pread of a segment");
    if (got == 0) return Status::Ok();  // the object ends here
    std::span<const std::byte> left(buffer.data(), static_cast<size_t>(got));
    while (!left.empty()) {
      const std::span<const std::byte> page = left.first(std::min<size_t>(left.size(), kPageBytes));
      if (!IsZero(page) && !shm::WriteAll(to, begin, page)) return Status::System("pwrite to a copy of a segment");
      begin += page.size();
      left = left.subspan(page.size());
    }
  }
  return Status::Ok();
}

}  // namespace

Result<HeaderDiagnosis> DiagnoseHeader(int fd, const HeaderCopy& found, const HeaderRead& read,
                                       std::string_view process_id) {
  HeaderCopy plan{};
  if (!Planner(fd, found.header(), read).Run(&plan)) {
    return Status(Code::kSegmentInvalid,
                  "the object is no segment, one of another version, or too little of its header is left");
  }
  return Diagnosis(fd, found.header(), read, process_id, plan).Run();
}

Result<Segment> CopyRepaired(int fd, const HeaderDiagnosis& diagnosis) {
  HeaderCopy header = diagnosis.repaired;
  Result<UniqueFd> copy = shm::CreateMemfd("praas-inspected", header.header().segment_bytes, shm::Sealing::kFixed);
  if (!copy.ok()) return copy.status();
  Status status = Status::Ok();
  std::vector<std::byte> buffer(kCopyBytes);
  ForEachRun(fd, kPageBytes, header.header().meta_bytes, [&](uint64_t begin, uint64_t end) {
    if (status.ok()) status = CopyRun(fd, copy->get(), begin, end, buffer);
  });
  if (!status.ok()) return status;
  for (const NamedRegion& named : Regions(HeaderIn(header))) {
    const uint64_t bytes = BytesOf(*named.region, named.region->committed.load(std::memory_order_relaxed));
    if (bytes == 0) continue;
    status = shm::Commit(copy->get(), named.region->offset, bytes, "copy of the segment");
    if (!status.ok()) return status;
  }
  if (!shm::WriteAll(copy->get(), 0, header.bytes)) return Status::System("pwrite to a copy of a segment");
  return Segment::Map(std::move(copy).value(), false);
}

}  // namespace praas::segment
