#include "protocol/state_messages.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "protocol/tlv.h"

namespace praas::protocol {
namespace {

std::vector<std::byte> Whole(std::vector<std::byte> head, std::span<const std::byte> data) {
  head.insert(head.end(), data.begin(), data.end());
  return head;
}

std::span<const std::byte> AsBytes(std::string_view text) { return std::as_bytes(std::span(text)); }
std::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Result<StateRequest> RoundTrip(const StateRequest& request, std::vector<std::byte>& storage) {
  storage = Whole(EncodeHead(request), request.data);
  return DecodeStateRequest(static_cast<uint16_t>(request.op), storage);
}

TEST(StateRequest, EveryOperationRoundTrips) {
  std::vector<std::byte> storage;
  StateRequest get{.op = StateOp::kGet, .key = "k", .offset = 4, .length = 5};
  Result<StateRequest> decoded = RoundTrip(get, storage);
  ASSERT_TRUE(decoded.ok()) << decoded.status().message();
  EXPECT_EQ(decoded->key, "k");
  EXPECT_EQ(decoded->offset, 4u);
  EXPECT_EQ(decoded->length, 5u);

  StateRequest set{.op = StateOp::kSet, .key = "k", .version = 0, .offset = 9, .data = AsBytes("value")};
  decoded = RoundTrip(set, storage);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->version, 0u);
  EXPECT_EQ(decoded->offset, 9u);
  EXPECT_EQ(AsText(decoded->data), "value");

  decoded = RoundTrip({.op = StateOp::kAppend, .key = "k"}, storage);
  ASSERT_TRUE(decoded.ok());
  EXPECT_TRUE(decoded->data.empty());
  EXPECT_FALSE(decoded->version);

  decoded = RoundTrip({.op = StateOp::kDelete, .key = "k", .version = 3}, storage);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->version, 3u);

  ASSERT_TRUE(RoundTrip({.op = StateOp::kStat, .key = "k"}, storage).ok());

  decoded = RoundTrip({.op = StateOp::kKeys, .prefix = "a/", .after = "a/b", .limit = kMaxKeysPerReply}, storage);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->prefix, "a/");
  EXPECT_EQ(decoded->after, "a/b");
  EXPECT_EQ(decoded->limit, kMaxKeysPerReply);

  decoded = RoundTrip({.op = StateOp::kLock, .key = "l", .mode = LockMode::kWrite}, storage);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->mode, LockMode::kWrite);

  decoded = RoundTrip({.op = StateOp::kUnlock, .lock = 77}, storage);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->lock, 77u);

  ASSERT_TRUE(RoundTrip({.op = StateOp::kRead, .key = "k"}, storage).ok());
  ASSERT_TRUE(RoundTrip({.op = StateOp::kUnpublish, .key = "k"}, storage).ok());
  decoded = RoundTrip({.op = StateOp::kPublish, .key = "k"}, storage);
  ASSERT_TRUE(decoded.ok());
  EXPECT_FALSE(decoded->capacity);
  decoded = RoundTrip({.op = StateOp::kPublish, .key = "k", .capacity = 1u << 20}, storage);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->capacity, 1u << 20);
}

TEST(StateRequest, RefusesBadValues) {
  std::vector<std::byte> storage;
  EXPECT_EQ(DecodeStateRequest(0, {}).status().code(), Code::kUnsupported);
  EXPECT_EQ(DecodeStateRequest(12, {}).status().code(), Code::kUnsupported);
  EXPECT_EQ(RoundTrip({.op = StateOp::kRead, .key = ""}, storage).status().code(), Code::kNameInvalid);
  EXPECT_EQ(RoundTrip({.op = StateOp::kPublish, .key = ""}, storage).status().code(), Code::kNameInvalid);
  EXPECT_EQ(RoundTrip({.op = StateOp::kGet, .key = ""}, storage).status().code(), Code::kNameInvalid);
  EXPECT_EQ(RoundTrip({.op = StateOp::kGet, .key = std::string(256, 'k')}, storage).status().code(),
            Code::kNameInvalid);
  EXPECT_EQ(RoundTrip({.op = StateOp::kLock, .key = "\xff"}, storage).status().code(), Code::kNameInvalid);
  EXPECT_EQ(RoundTrip({.op = StateOp::kKeys, .limit = 0}, storage).status().code(), Code::kArgumentInvalid);
  EXPECT_EQ(RoundTrip({.op = StateOp::kKeys, .limit = kMaxKeysPerReply + 1}, storage).status().code(),
            Code::kArgumentInvalid);
  EXPECT_EQ(RoundTrip({.op = StateOp::kKeys, .prefix = std::string(256, 'k'), .limit = 1}, storage).status().code(),
            Code::kProtocolInvalid);
  EXPECT_EQ(RoundTrip({.op = StateOp::kLock, .key = "l", .mode = static_cast<LockMode>(3)}, storage).status().code(),
            Code::kProtocolInvalid);
}

TEST(StateRequest, EveryCutIsFound) {
  const StateRequest set{.op = StateOp::kSet, .key = "key", .version = 1, .offset = 2, .data = AsBytes("some data")};
  const std::vector<std::byte> good = Whole(EncodeHead(set), set.data);
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(DecodeStateRequest(static_cast<uint16_t>(StateOp::kSet), std::span(good).first(size)).ok()) << size;
  }
}

StateReply SomeInfos(size_t count) {
  StateReply reply;
  for (size_t i = 0; i < count; ++i) {
    reply.infos.push_back({.key = "k" + std::to_string(i),
                           .kind = 2,
                           .element_type = 3,
                           .bytes = 4,
                           .version = 5,
                           .modified_wall_ns = 6});
  }
  return reply;
}

TEST(StateReply, EveryOperationRoundTrips) {
  Result<StateReply> reply = DecodeStateReply(StateOp::kSet, EncodeHead(StateOp::kSet, {.version = 8}));
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->version, 8u);
  reply = DecodeStateReply(StateOp::kAppend, EncodeHead(StateOp::kAppend, {.version = 9}));
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->version, 9u);
  reply = DecodeStateReply(StateOp::kDelete, EncodeHead(StateOp::kDelete, {.existed = true}));
  ASSERT_TRUE(reply.ok());
  EXPECT_TRUE(reply->existed);
  reply = DecodeStateReply(StateOp::kLock, EncodeHead(StateOp::kLock, {.lock = 5}));
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->lock, 5u);
  EXPECT_TRUE(DecodeStateReply(StateOp::kUnlock, EncodeHead(StateOp::kUnlock, {})).ok());

  for (const size_t count : {0, 1, 3, 1000}) {
    reply = DecodeStateReply(StateOp::kKeys, EncodeHead(StateOp::kKeys, SomeInfos(count)));
    ASSERT_TRUE(reply.ok()) << reply.status().message();
    ASSERT_EQ(reply->infos.size(), count);
  }
  EXPECT_EQ(reply->infos[7].key, "k7");
  EXPECT_EQ(reply->infos[7].kind, 2u);
  EXPECT_EQ(reply->infos[7].element_type, 3u);
  EXPECT_EQ(reply->infos[7].bytes, 4u);
  EXPECT_EQ(reply->infos[7].version, 5u);
  EXPECT_EQ(reply->infos[7].modified_wall_ns, 6u);

  StateReply got = SomeInfos(1);
  got.data = AsBytes("value");
  const std::vector<std::byte> bytes = Whole(EncodeHead(StateOp::kGet, got), got.data);
  reply = DecodeStateReply(StateOp::kGet, bytes);
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(AsText(reply->data), "value");
}

TEST(StateReply, RefusesBadLists) {
  EXPECT_EQ(DecodeStateReply(StateOp::kStat, EncodeHead(StateOp::kStat, SomeInfos(0))).status().code(),
            Code::kProtocolInvalid);
  EXPECT_EQ(DecodeStateReply(StateOp::kStat, EncodeHead(StateOp::kStat, SomeInfos(2))).status().code(),
            Code::kProtocolInvalid);
  EXPECT_EQ(DecodeStateReply(StateOp::kKeys, EncodeHead(StateOp::kKeys, SomeInfos(1001))).status().code(),
            Code::kProtocolInvalid);
  StateReply bad = SomeInfos(1);
  bad.infos[0].kind = 3;
  EXPECT_EQ(DecodeStateReply(StateOp::kStat, EncodeHead(StateOp::kStat, bad)).status().code(), Code::kProtocolInvalid);
  bad.infos[0].kind = 1;
  bad.infos[0].key = "";
  EXPECT_EQ(DecodeStateReply(StateOp::kStat, EncodeHead(StateOp::kStat, bad)).status().code(), Code::kProtocolInvalid);

  // A list cut anywhere, inside a field that is whole.
  const std::vector<std::byte> good = EncodeHead(StateOp::kStat, SomeInfos(1));
  for (size_t size = kFieldHeaderBytes; size + 1 < good.size(); ++size) {
    FieldWriter fields;
    fields.Bytes(4, std::span(good).subspan(kFieldHeaderBytes, size - kFieldHeaderBytes));
    EXPECT_EQ(DecodeStateReply(StateOp::kStat, fields.Take()).status().code(), Code::kProtocolInvalid) << size;
  }
}

TEST(StateReply, OfReadsAndPublications) {
  StateReply reply{.version = 9,
                   .existed = true,
                   .place = publication::Location{.id = 7, .offset = 8192, .capacity = 4032},
                   .data = AsBytes("value")};
  Result<StateReply> decoded = DecodeStateReply(StateOp::kRead, Whole(EncodeHead(StateOp::kRead, reply), reply.data));
  ASSERT_TRUE(decoded.ok()) << decoded.status().message();
  EXPECT_TRUE(decoded->existed);
  EXPECT_EQ(decoded->version, 9u);
  ASSERT_TRUE(decoded->place);
  EXPECT_EQ(decoded->place->id, 7u);
  EXPECT_EQ(decoded->place->offset, 8192u);
  EXPECT_EQ(decoded->place->capacity, 4032u);

  decoded = DecodeStateReply(StateOp::kRead, EncodeHead(StateOp::kRead, {.existed = false}));
  ASSERT_TRUE(decoded.ok());
  EXPECT_FALSE(decoded->existed);
  EXPECT_FALSE(decoded->place);
  EXPECT_TRUE(decoded->data.empty());

  EXPECT_EQ(DecodeStateReply(StateOp::kPublish, EncodeHead(StateOp::kPublish, {.capacity = 4032}))->capacity, 4032u);
  EXPECT_TRUE(DecodeStateReply(StateOp::kUnpublish, EncodeHead(StateOp::kUnpublish, {.existed = true}))->existed);
}

TEST(StateReply, ThePlaceIsCheckedAndMayGrow) {
  const auto with_place = [](std::span<const std::byte> place) {
    FieldWriter fields;
    fields.Integer<uint64_t>(1, 0);  // version
    fields.Integer<uint8_t>(2, 0);   // existed
    fields.Bytes(7, place);
    fields.Bytes(5, {});  // data
    return DecodeStateReply(StateOp::kRead, fields.Take());
  };
  std::vector<std::byte> place(24);
  EXPECT_EQ(with_place(place).status().code(), Code::kProtocolInvalid) << "no publication has id 0";
  place[0] = std::byte{1};
  EXPECT_TRUE(with_place(place).ok());
  EXPECT_EQ(with_place(std::span(place).first(23)).status().code(), Code::kProtocolInvalid);
  place.resize(24 + 12);  // of a host that also says where a device finds it
  ASSERT_TRUE(with_place(place).ok());
  EXPECT_EQ(with_place(place)->place->id, 1u);
  place.resize(257);
  EXPECT_EQ(with_place(place).status().code(), Code::kProtocolInvalid);
}

}  // namespace
}  // namespace praas::protocol
