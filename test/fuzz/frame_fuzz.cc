// Any bytes as a connection: the reader must deliver only frames that are valid and bytes that were there, whatever the
// sink answers, and a header that decodes must encode to itself.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "protocol/frame_reader.h"
#include "protocol/state_messages.h"
#include "support.h"

namespace {

using praas::Result;
using praas::Status;
using namespace praas::protocol;
using praas::fuzz::Check;

constexpr uint64_t kLargestPayload = 1 << 16;

/// Gives the fuzzed bytes in pieces whose sizes are fuzzed as well.
class Pieces : public praas::transport::ByteStream {
 public:
  Pieces(std::span<const std::byte> bytes, uint8_t step) : bytes_(bytes), step_(1 + step * 37) {}
  Result<size_t> Read(std::span<std::byte> into) override {
    if (bytes_.empty()) return Status(praas::Code::kConnectionLost, "end");
    const size_t size = std::min({into.size(), step_, bytes_.size()});
    std::memcpy(into.data(), bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
    return size;
  }
  Result<size_t> Write(std::span<const iovec>) override { return size_t{0}; }
  int fd() const noexcept override { return -1; }
  void Close() noexcept override {}

 private:
  std::span<const std::byte> bytes_;
  size_t step_;
};

class Sink : public FrameSink {
 public:
  explicit Sink(uint8_t choices) : choices_(choices) {}

  Result<Placement> OnHeader(const Frame& frame) override {
    Check(frame.payload_bytes <= PayloadBound(frame, kLargestPayload));
    std::byte header[kHeaderBytes];
    EncodeHeader(frame, std::span<std::byte, kHeaderBytes>(header, kHeaderBytes));
    Check(DecodeHeader(std::span<const std::byte, kHeaderBytes>(header, kHeaderBytes), kLargestPayload).ok());
    switch ((choices_ + count_++) % 4) {
      case 0:
        memory_.resize(frame.payload_bytes);
        return Placement::Into(memory_);
      case 1:
        return Placement::Discard();
      case 2:
        return Placement::NotNow();
      default:
        return Placement::Scratch();
    }
  }
  Status OnFrame(const Frame& frame, std::span<std::byte> payload) override {
    Check(payload.size() == frame.payload_bytes);
    std::fill(payload.begin(), payload.end(), std::byte{0});  // all of it is there to be written
    return Status::Ok();
  }
  Status OnCorrupt(const Frame& frame) override {
    Check(frame.flags & kPayloadChecksum);
    return Status::Ok();
  }

 private:
  uint8_t choices_;
  uint8_t count_ = 0;
  std::vector<std::byte> memory_;
};

}  // namespace

/// With the lowest bit of the second byte set, every header in the input is given what a fuzzer cannot guess.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  std::vector<std::byte> bytes(size - 2);
  if (!bytes.empty()) std::memcpy(bytes.data(), data + 2, bytes.size());
  if (data[1] & 1) praas::fuzz::SealFrames(bytes);
  Pieces stream(bytes, data[0]);
  Sink sink(data[1] >> 1);
  FrameReader reader(kLargestPayload);
  // A sink that says "not now" is asked again and decides anew, so this ends.
  while (reader.Read(stream, sink, 4096).ok()) {
    if (data[0] == 255) reader.DiscardCurrent();
  }
  return 0;
}
