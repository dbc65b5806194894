#include "protocol/frame.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <string_view>
#include <vector>

#include "protocol/little_endian.h"

namespace praas::protocol {
namespace {

using Header = std::array<std::byte, kHeaderBytes>;

constexpr uint64_t kMax = 1 << 20;

Frame Call() {
  Frame frame;
  frame.type = FrameType::kCall;
  frame.flags = kIdempotent | kSync | kPayloadChecksum;
  frame.call = 0x0123'4567'89ab'cdef;
  frame.function = 0xdead'beef;
  frame.payload_bytes = 4097;
  frame.deadline_us = 5'000'000;
  frame.aux = 77;
  frame.payload_crc = 0xcafe'f00d;
  return frame;
}

Header Encoded(const Frame& frame) {
  Header bytes;
  EncodeHeader(frame, bytes);
  return bytes;
}

/// Recomputes the checksum of a header that a test has changed.
void Seal(Header& bytes) {
  StoreLittle<uint32_t>(bytes.data() + 12, 0);
  StoreLittle<uint32_t>(bytes.data() + 12, Crc32c(bytes));
}

Code DecodeCode(const Header& bytes, uint64_t max = kMax) { return DecodeHeader(bytes, max).status().code(); }

TEST(Crc32c, KnowsThePublishedValues) {
  // RFC 3720, appendix B.4.
  std::array<std::byte, 32> bytes{};
  EXPECT_EQ(Crc32c(bytes), 0x8a91'36aau);
  bytes.fill(std::byte{0xff});
  EXPECT_EQ(Crc32c(bytes), 0x62a8'ab43u);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  EXPECT_EQ(Crc32c(bytes), 0x46dd'794eu);
  EXPECT_EQ(Crc32c(std::as_bytes(std::span(std::string_view("123456789")))), 0xe306'9283u);
  EXPECT_EQ(Crc32c({}), 0u);
}

TEST(Crc32c, PortableAndFastAgreeOnEveryLengthAndAlignment) {
  std::mt19937 random(1);
  std::vector<std::byte> bytes(300);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  for (size_t from = 0; from < 9; ++from) {
    for (size_t size = 0; size + from <= bytes.size(); ++size) {
      const std::span<const std::byte> part = std::span(bytes).subspan(from, size);
      ASSERT_EQ(Crc32c(part, 5), Crc32cPortable(part, 5)) << from << ' ' << size;
      ASSERT_EQ(Crc32c(part), Crc32c(part.subspan(size / 3), Crc32c(part.first(size / 3))));
    }
  }
}

TEST(FrameHeader, RoundTrips) {
  const Frame frame = Call();
  const Result<Frame> decoded = DecodeHeader(Encoded(frame), kMax);
  ASSERT_TRUE(decoded.ok()) << decoded.status().message();
  EXPECT_EQ(decoded->type, frame.type);
  EXPECT_EQ(decoded->flags, frame.flags);
  EXPECT_EQ(decoded->code, frame.code);
  EXPECT_EQ(decoded->call, frame.call);
  EXPECT_EQ(decoded->function, frame.function);
  EXPECT_EQ(decoded->payload_bytes, frame.payload_bytes);
  EXPECT_EQ(decoded->deadline_us, frame.deadline_us);
  EXPECT_EQ(decoded->aux, frame.aux);
  EXPECT_EQ(decoded->payload_crc, frame.payload_crc);
}

TEST(FrameHeader, HasTheDocumentedLayout) {
  const Header bytes = Encoded(Call());
  EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(bytes.data()), 4), "PRAS");
  EXPECT_EQ(bytes[4], std::byte{1});
  EXPECT_EQ(bytes[5], std::byte{8});
  EXPECT_EQ(bytes[6], std::byte{1 | 8 | 16});
  EXPECT_EQ(bytes[16], std::byte{0xef});
  EXPECT_EQ(bytes[23], std::byte{0x01});
  EXPECT_EQ(bytes[24], std::byte{0xef});
  EXPECT_EQ(bytes[28], std::byte{0x0d});
  EXPECT_EQ(LoadLittle<uint64_t>(bytes.data() + 32), 4097u);
  EXPECT_EQ(LoadLittle<uint64_t>(bytes.data() + 40), 5'000'000u);
  EXPECT_EQ(LoadLittle<uint64_t>(bytes.data() + 48), 77u);
  EXPECT_EQ(LoadLittle<uint64_t>(bytes.data() + 56), 0u);
}

TEST(FrameHeader, EveryFlippedBitIsFound) {
  const Header good = Encoded(Call());
  for (size_t bit = 0; bit < kHeaderBytes * 8; ++bit) {
    Header bytes = good;
    bytes[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
    const Code code = DecodeCode(bytes);
    const bool version_bit = bit / 8 == 4;
    EXPECT_EQ(code, version_bit ? Code::kProtocolVersion : Code::kProtocolInvalid) << "bit " << bit;
  }
}

TEST(FrameHeader, NamesBothVersions) {
  Header bytes = Encoded(Call());
  bytes[4] = std::byte{9};
  Seal(bytes);
  const Status status = DecodeHeader(bytes, kMax).status();
  EXPECT_EQ(status.code(), Code::kProtocolVersion);
  EXPECT_NE(status.message().find("version 9"), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("version 1"), std::string::npos) << status.message();
}

TEST(FrameHeader, RefusesUnknownTypes) {
  for (int type = 0; type < 256; ++type) {
    Frame frame;
    frame.type = static_cast<FrameType>(type);
    Header bytes = Encoded(frame);
    if (type == 0 || type > 19) {
      EXPECT_EQ(DecodeCode(bytes), Code::kProtocolInvalid) << type;
    }
  }
}

TEST(FrameHeader, RefusesReservedFields) {
  for (const size_t at : {10, 11, 56, 63}) {
    Header bytes = Encoded(Call());
    bytes[at] = std::byte{1};
    Seal(bytes);
    EXPECT_EQ(DecodeCode(bytes), Code::kProtocolInvalid) << at;
  }
}

TEST(FrameHeader, AllowsEachTypeItsFlagsOnly) {
  for (int type = 1; type <= 19; ++type) {
    for (int bit = 0; bit < 16; ++bit) {
      Frame frame;
      frame.type = static_cast<FrameType>(type);
      frame.flags = static_cast<uint16_t>(1u << bit);
      frame.call = 1;
      if (type <= 5 || type >= 17) frame.call = 0;
      const bool on_call = bit == 0 || bit == 1 || bit == 4;
      const bool allowed =
          bit == 3 || (frame.type == FrameType::kCall && on_call) || (frame.type == FrameType::kData && bit == 2);
      if (frame.type == FrameType::kData && bit != 2) frame.payload_bytes = 1;
      EXPECT_EQ(DecodeCode(Encoded(frame)) == Code::kOk, allowed) << "type " << type << " bit " << bit;
    }
  }
}

TEST(FrameHeader, RefusesAChecksumWithoutItsFlag) {
  Frame frame = Call();
  frame.flags = 0;
  EXPECT_EQ(DecodeCode(Encoded(frame)), Code::kProtocolInvalid);
}

TEST(FrameHeader, WantsACallWhereOneIsMeant) {
  for (int type = 1; type <= 19; ++type) {
    Frame frame;
    frame.type = static_cast<FrameType>(type);
    if (frame.type == FrameType::kData) frame.payload_bytes = 1;
    const bool about_a_call = type >= 6 && type <= 16;
    frame.call = 0;
    EXPECT_EQ(DecodeCode(Encoded(frame)) == Code::kOk, !about_a_call) << type;
    frame.call = 1;
    EXPECT_EQ(DecodeCode(Encoded(frame)) == Code::kOk, about_a_call) << type;
  }
}

TEST(FrameHeader, BoundsThePayloadOfEachType) {
  for (int type = 1; type <= 19; ++type) {
    for (const uint16_t code : {0, 31}) {
      Frame frame;
      frame.type = static_cast<FrameType>(type);
      frame.code = code;
      frame.call = type >= 6 && type <= 16 ? 1 : 0;
      frame.payload_bytes = PayloadBound(frame, kMax * 4);
      if (frame.type == FrameType::kData) {
        EXPECT_EQ(frame.payload_bytes, kMaxChunkBytes);
      }
      EXPECT_EQ(DecodeCode(Encoded(frame), kMax * 4), Code::kOk) << type;
      ++frame.payload_bytes;
      EXPECT_EQ(DecodeCode(Encoded(frame), kMax * 4), Code::kProtocolInvalid) << type;
      frame.payload_bytes = UINT64_MAX;
      EXPECT_EQ(DecodeCode(Encoded(frame), kMax * 4), Code::kProtocolInvalid) << type;
    }
  }
}

TEST(FrameHeader, OnlyStateRequestsThatSetAValueMayBeLarge) {
  for (uint16_t op = 0; op <= static_cast<uint16_t>(StateOp::kUnpublish) + 1; ++op) {
    const bool sets = op == static_cast<uint16_t>(StateOp::kSet) || op == static_cast<uint16_t>(StateOp::kAppend);
    EXPECT_EQ(PayloadBound({.type = FrameType::kState, .code = op}, kMax * 4),
              sets ? kMax * 4 + kMaxControlPayload : kMaxControlPayload)
        << op;
  }
}

TEST(FrameHeader, StreamingCallsHaveNoPayload) {
  Frame frame = Call();
  frame.flags = kStream;
  frame.payload_crc = 0;
  frame.payload_bytes = 0;
  EXPECT_EQ(DecodeCode(Encoded(frame)), Code::kOk);
  frame.payload_bytes = 1;
  EXPECT_EQ(DecodeCode(Encoded(frame)), Code::kProtocolInvalid);
}

TEST(FrameHeader, OnlyALastChunkMayBeEmpty) {
  Frame frame;
  frame.type = FrameType::kData;
  frame.call = 1;
  EXPECT_EQ(DecodeCode(Encoded(frame)), Code::kProtocolInvalid);
  frame.flags = kLast;
  EXPECT_EQ(DecodeCode(Encoded(frame)), Code::kOk);
}

}  // namespace
}  // namespace praas::protocol
