#include "transport/verbs_message.h"

#include <gtest/gtest.h>

#include <random>

#include "protocol/frame.h"
#include "protocol/messages.h"

namespace praas::transport {
namespace {

std::array<std::byte, kMessageHeaderBytes> Encoded(const Message& message) {
  std::array<std::byte, kMessageHeaderBytes> bytes;
  EncodeMessage(message, bytes);
  return bytes;
}

TEST(VerbsMessage, HeadersComeBackAsTheyWere) {
  const Message message{.mode = MessageMode::kRemote,
                        .flags = protocol::kIdempotent,
                        .status = 61,
                        .sequence = 0xfffffffe,
                        .function = 7,
                        .deadline_us = 1ull << 40,
                        .bytes = 1ull << 33,
                        .input_address = 0x1122334455667788,
                        .output_address = 0x99aabbccddeeff00,
                        .output_bytes = 12345,
                        .input_key = 0xdeadbeef,
                        .output_key = 0xcafe};
  const Result<Message> decoded = DecodeMessage(MessageKind::kCall, Encoded(message));
  ASSERT_TRUE(decoded.ok()) << decoded.status().message();
  EXPECT_EQ(*decoded, message);
}

TEST(VerbsMessage, WhatCannotBeMeantIsRefused) {
  const auto refused = [](MessageKind kind, const Message& message) {
    return DecodeMessage(kind, Encoded(message)).status().code() == Code::kProtocolInvalid;
  };
  EXPECT_TRUE(refused(MessageKind::kCall, {.bytes = kMessagePayloadBytes + 1}));
  EXPECT_TRUE(refused(MessageKind::kChunk, {.bytes = UINT64_MAX}));
  for (const MessageMode mode : {MessageMode::kRemote, MessageMode::kChunks}) {
    EXPECT_TRUE(refused(MessageKind::kChunk, {.mode = mode, .bytes = kMessagePayloadBytes + 1}));
    EXPECT_FALSE(refused(MessageKind::kCall, {.mode = mode, .bytes = kMessagePayloadBytes + 1}));
  }
  EXPECT_FALSE(refused(MessageKind::kChunk, {.bytes = kMessagePayloadBytes}));
  EXPECT_FALSE(refused(MessageKind::kNeedRoom, {.bytes = 1ull << 40}));
  EXPECT_TRUE(refused(MessageKind::kCall, {.mode = MessageMode::kDropped}));
  EXPECT_TRUE(refused(MessageKind::kCall, {.flags = 0x8000}));
  EXPECT_TRUE(refused(MessageKind::kCall, {.flags = protocol::kStream}));
  for (const size_t reserved : {1, 6, 7}) {
    auto bytes = Encoded({});
    bytes[reserved] = std::byte{1};
    EXPECT_EQ(DecodeMessage(MessageKind::kCall, bytes).status().code(), Code::kProtocolInvalid) << reserved;
  }
}

TEST(VerbsMessage, TagsNameAKindAndASlot) {
  const Result<MessageTag> tag = DecodeTag(EncodeTag({MessageKind::kChunk, 30}), 31);
  ASSERT_TRUE(tag.ok());
  EXPECT_EQ(tag->kind, MessageKind::kChunk);
  EXPECT_EQ(tag->slot, 30u);
  EXPECT_FALSE(DecodeTag(EncodeTag({MessageKind::kCall, 31}), 31).ok());
  EXPECT_FALSE(DecodeTag(0, 31).ok());
  EXPECT_FALSE(DecodeTag(9u << 24, 31).ok());
}

TEST(VerbsMessage, EndsTravelInUpgrades) {
  const protocol::VerbsEnd end{.queue_pair = 0xabcdef,
                               .first_packet = 0x123456,
                               .ethernet = true,
                               .lid = 77,
                               .gid = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1},
                               .mtu_bytes = 1024,
                               .memory_address = 0x7f0011223344,
                               .memory_key = 99,
                               .slots = 31};
  const auto request = protocol::DecodeUpgradeRequest(
      protocol::Encode(protocol::UpgradeRequest{.transport = "verbs", .window_bytes = 5, .verbs = end}));
  ASSERT_TRUE(request.ok()) << request.status().message();
  EXPECT_EQ(request->verbs, end);
  const auto offer = protocol::DecodeUpgradeOffer(protocol::Encode(protocol::UpgradeOffer{.verbs = end}));
  ASSERT_TRUE(offer.ok()) << offer.status().message();
  EXPECT_EQ(offer->verbs, end);

  for (protocol::VerbsEnd bad : {end, end, end}) {
    static int which = 0;
    if (which == 0) bad.queue_pair = 1u << 24;
    if (which == 1) bad.mtu_bytes = 100;
    if (which == 2) bad.slots = 0;
    ++which;
    EXPECT_FALSE(protocol::DecodeUpgradeOffer(protocol::Encode(protocol::UpgradeOffer{.verbs = bad})).ok());
  }
}

}  // namespace
}  // namespace praas::transport
