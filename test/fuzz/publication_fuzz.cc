// Any bytes as a publication area, as a device fetches it and as it is mapped: a reader must stay inside, and believe
// only what its checksum proves. The input: capacity in words, bytes fetched, what to make right, then the block.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "protocol/crc32c.h"
#include "publication/reader.h"

namespace {

using namespace praas::publication;

void Check(bool holds) {
  if (!holds) std::abort();
}

/// A fuzzer guesses neither ids nor checksums.
void MakeRight(std::span<std::byte> block, uint64_t id, bool checksum) {
  Head head;
  std::memcpy(&head, block.data(), sizeof head);
  head.magic = kMagic;
  head.id = id;
  head.sequence &= ~uint64_t{1};
  head.latest = head.version;
  if (checksum) {
    head.bytes %= block.size() - kHeadBytes + 1;
    if ((head.flags & kAbsent) != 0) head.bytes = 0;
    head.crc = ChecksumOf(head, praas::protocol::Crc32c(block.subspan(kHeadBytes, head.bytes)));
  }
  std::memcpy(block.data(), &head, sizeof head);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const Location location{.id = 0x0102030405060708, .offset = 0, .capacity = uint64_t{data[0]} * 8};
  const uint64_t expected = uint64_t{data[1]} * 8;
  // To the byte, and on a word boundary as mappings are: a look beyond the block is found by the sanitizer.
  const size_t bytes = kHeadBytes + location.capacity;
  const std::unique_ptr<uint64_t[]> words(new uint64_t[bytes / 8]());
  const std::span<std::byte> block(reinterpret_cast<std::byte*>(words.get()), bytes);
  std::memcpy(block.data(), data + 3, std::min(bytes, size - 3));
  if ((data[2] & 1) != 0) MakeRight(block, location.id, (data[2] & 2) != 0);
  Check(InArea(location, bytes));

  Head head;
  std::memcpy(&head, block.data(), sizeof head);
  const Outcome fetched = ReadFetched(
      [&](const Location&, uint64_t wanted) {
        Check(wanted <= bytes);
        return std::span<const std::byte>(block).first(wanted);
      },
      location, expected);
  std::vector<std::byte> memory;
  const Outcome mapped = ReadMapped(block, location, [&](uint64_t wanted) {
    Check(wanted <= location.capacity);
    memory.resize(wanted);
    return std::span(memory);
  });
  if (fetched.verdict == Verdict::kRead) {
    Check(head.id == location.id && head.version == head.latest && fetched.version == head.version);
    Check(fetched.absent || ChecksumOf(head, praas::protocol::Crc32c(fetched.value)) == head.crc);
    // Who can order its looks needs no checksum, and sees the same.
    Check(mapped.verdict == Verdict::kRead && mapped.absent == fetched.absent);
    Check(mapped.value.size() == fetched.value.size());
  }
  // Cut anywhere.
  for (size_t end = 0; end < bytes; end += 1 + end / 4) (void)Examine(std::span(block).first(end), location);
  return 0;
}
