#include "protocol/messages.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "protocol/lease_messages.h"
#include "protocol/names.h"
#include "protocol/tlv.h"

namespace praas::protocol {
namespace {

using Bytes = std::vector<std::byte>;

Hello AHello() {
  return {.process = "näme", .token = std::string("se\0cret", 7), .capabilities = 5, .client_pid = 42, .name = "me"};
}

Welcome AWelcome() {
  return {.session_id = 9,
          .process = "p",
          .capabilities = kCapShm,
          .max_contiguous = 1 << 26,
          .max_in_flight = 256,
          .default_timeout_ns = 60'000'000'000,
          .host_pid = 7,
          .machine_id = "boot net ipc",
          .stream_credit = 1 << 20};
}

UpgradeOffer AnOffer() {
  UpgradeOffer offer;
  offer.socket_path = "/run/x.sock";
  offer.nonce = std::string(kUpgradeNonceBytes, '\xfe');
  offer.window_bytes = 1 << 30;
  return offer;
}

/// Fields of a message as they stand, so that tests can damage them one at a time.
struct Field {
  uint16_t tag;
  Bytes bytes;
};
std::vector<Field> Split(std::span<const std::byte> bytes) {
  std::vector<Field> fields;
  while (!bytes.empty()) {
    const uint32_t size = LoadLittle<uint32_t>(bytes.data() + 2);
    fields.push_back({LoadLittle<uint16_t>(bytes.data()), {bytes.begin() + 6, bytes.begin() + 6 + size}});
    bytes = bytes.subspan(6 + size);
  }
  return fields;
}
Bytes Join(const std::vector<Field>& fields) {
  FieldWriter writer;
  for (const Field& field : fields) writer.Bytes(field.tag, field.bytes);
  return writer.Take();
}

/// What must hold of every message: each required field is required, none may come twice, integers have their size, no
/// cut is accepted that ends within a field, order does not matter and unknown fields are skipped.
void CheckShape(const Bytes& good, const std::function<Status(std::span<const std::byte>)>& decode,
                const std::vector<uint16_t>& optional = {}) {
  ASSERT_TRUE(decode(good).ok()) << decode(good).message();
  const std::vector<Field> fields = Split(good);
  for (size_t i = 0; i < fields.size(); ++i) {
    const bool required = std::find(optional.begin(), optional.end(), fields[i].tag) == optional.end();
    std::vector<Field> damaged = fields;
    damaged.erase(damaged.begin() + static_cast<ptrdiff_t>(i));
    EXPECT_EQ(decode(Join(damaged)).code(), required ? Code::kProtocolInvalid : Code::kOk)
        << "without field " << fields[i].tag;
    damaged = fields;
    damaged.push_back(fields[i]);
    EXPECT_EQ(decode(Join(damaged)).code(), Code::kProtocolInvalid) << "twice field " << fields[i].tag;
    damaged = fields;
    damaged[i].bytes.resize(kMaxControlPayload + 1, std::byte{'x'});
    EXPECT_EQ(decode(Join(damaged)).code(), Code::kProtocolInvalid) << "huge field " << fields[i].tag;
  }
  std::vector<Field> reversed(fields.rbegin(), fields.rend());
  reversed.push_back({kMaxTag, {std::byte{1}}});
  reversed.push_back({60'000, Bytes(100)});
  EXPECT_TRUE(decode(Join(reversed)).ok());

  size_t boundary = 0;
  std::vector<size_t> boundaries{0};
  for (const Field& field : fields) boundaries.push_back(boundary += 6 + field.bytes.size());
  for (size_t size = 0; size < good.size(); ++size) {
    if (std::find(boundaries.begin(), boundaries.end(), size) != boundaries.end()) continue;
    EXPECT_EQ(decode(std::span(good).first(size)).code(), Code::kProtocolInvalid) << "cut at " << size;
  }
}

template <typename T>
std::function<Status(std::span<const std::byte>)> With(Result<T> (*decode)(std::span<const std::byte>)) {
  return [decode](std::span<const std::byte> bytes) { return decode(bytes).status(); };
}

TEST(Messages, HelloRoundTripsAndKeepsItsShape) {
  const Result<Hello> hello = DecodeHello(Encode(AHello()));
  ASSERT_TRUE(hello.ok()) << hello.status().message();
  EXPECT_EQ(hello->process, "näme");
  EXPECT_EQ(hello->token, std::string("se\0cret", 7));
  EXPECT_EQ(hello->capabilities, 5u);
  EXPECT_EQ(hello->client_pid, 42);
  EXPECT_EQ(hello->name, "me");
  CheckShape(Encode(AHello()), With(DecodeHello), {6});
}

TEST(Messages, HelloToALeasedWorkerRoundTripsAndKeepsItsShape) {
  Hello hello = AHello();
  hello.lease_key = std::string(kLeaseKeyBytes, 'a');
  hello.lease_worker = 3;
  const Result<Hello> read = DecodeHello(Encode(hello));
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(read->lease_key, hello.lease_key);
  EXPECT_EQ(read->lease_worker, 3u);
  CheckShape(Encode(hello), With(DecodeHello), {6, 7});
  hello.lease_worker = kMaxLeaseWorkers;
  EXPECT_EQ(DecodeHello(Encode(hello)).status().code(), Code::kProtocolInvalid);
  hello.lease_worker = 0;
  hello.lease_key += 'a';
  EXPECT_EQ(DecodeHello(Encode(hello)).status().code(), Code::kProtocolInvalid);
}

TEST(Messages, LeaseRequestRoundTripsAndKeepsItsShape) {
  const LeaseRequest request{.lease = 1ull << 40,
                             .workers = kMaxLeaseWorkers,
                             .lane = LeaseLane::kNative,
                             .hot_ms = -1,
                             .ttl_ms = kMaxLeaseMs,
                             .wait_ms = 7,
                             .name = "näme",
                             .worker = kMaxLeaseWorkers - 1};
  const Result<LeaseRequest> read = DecodeLeaseRequest(Encode(request));
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(*read, request);
  CheckShape(Encode(request), With(DecodeLeaseRequest));
  const auto code = [&](const std::function<void(LeaseRequest&)>& change) {
    LeaseRequest changed = request;
    change(changed);
    return DecodeLeaseRequest(Encode(changed)).status().code();
  };
  EXPECT_EQ(code([](LeaseRequest& r) { r.hot_ms = 0; }), Code::kOk);
  EXPECT_EQ(code([](LeaseRequest& r) { r.hot_ms = -2; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](LeaseRequest& r) { r.workers = 0; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](LeaseRequest& r) { r.workers = kMaxLeaseWorkers + 1; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](LeaseRequest& r) { r.lane = static_cast<LeaseLane>(3); }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](LeaseRequest& r) { r.ttl_ms = kMaxLeaseMs + 1; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](LeaseRequest& r) { r.wait_ms = kMaxLeaseMs + 1; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](LeaseRequest& r) { r.name = std::string(kMaxName + 1, 'x'); }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](LeaseRequest& r) { r.worker = kMaxLeaseWorkers; }), Code::kProtocolInvalid);
}

TEST(Messages, LeaseReplyRoundTripsAndKeepsItsShape) {
  const LeaseReply reply{
      .lease = 5, .key = std::string(kLeaseKeyBytes, 'f'), .ttl_ms = 9, .pids = {1, 1u << 22}, .text = "{}"};
  const Result<LeaseReply> read = DecodeLeaseReply(Encode(reply));
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(*read, reply);
  CheckShape(Encode(reply), With(DecodeLeaseReply));
  LeaseReply many = reply;
  many.pids.resize(kMaxLeaseWorkers + 1);
  EXPECT_EQ(DecodeLeaseReply(Encode(many)).status().code(), Code::kProtocolInvalid);
}

TEST(Messages, UpgradeOffersMayBeOfTheWorkerItself) {
  const Result<UpgradeOffer> offer = DecodeUpgradeOffer(Encode(UpgradeOffer{.worker = true}));
  ASSERT_TRUE(offer.ok()) << offer.status().message();
  EXPECT_TRUE(offer->worker);
  EXPECT_TRUE(offer->socket_path.empty());
}

TEST(Messages, HelloRefusesBadValues) {
  const auto code = [](const std::function<void(Hello&)>& change) {
    Hello hello = AHello();
    change(hello);
    return DecodeHello(Encode(hello)).status().code();
  };
  EXPECT_EQ(code([](Hello& h) { h.process = ""; }), Code::kNameInvalid);
  EXPECT_EQ(code([](Hello& h) { h.process = std::string(255, 'x'); }), Code::kOk);
  EXPECT_EQ(code([](Hello& h) { h.process = std::string(256, 'x'); }), Code::kNameInvalid);
  EXPECT_EQ(code([](Hello& h) { h.process = "a\xff"; }), Code::kNameInvalid);
  EXPECT_EQ(code([](Hello& h) { h.process = std::string("a\0b", 3); }), Code::kNameInvalid);
  EXPECT_EQ(code([](Hello& h) { h.token = ""; }), Code::kOk);
  EXPECT_EQ(code([](Hello& h) { h.token = std::string(kMaxToken, 't'); }), Code::kOk);
  EXPECT_EQ(code([](Hello& h) { h.token = std::string(kMaxToken + 1, 't'); }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](Hello& h) { h.client_pid = 0; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](Hello& h) { h.client_pid = -1; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](Hello& h) { h.name = "\xc0\xaf"; }), Code::kProtocolInvalid);
  EXPECT_LE(Encode(Hello{.process = std::string(255, 'x'),
                         .token = std::string(kMaxToken, 't'),
                         .client_pid = 1,
                         .name = std::string(255, 'n')})
                .size(),
            kMaxHelloBytes);
}

TEST(Messages, WelcomeRoundTripsAndKeepsItsShape) {
  const Result<Welcome> welcome = DecodeWelcome(Encode(AWelcome()));
  ASSERT_TRUE(welcome.ok()) << welcome.status().message();
  EXPECT_EQ(welcome->session_id, 9u);
  EXPECT_EQ(welcome->process, "p");
  EXPECT_EQ(welcome->capabilities, kCapShm);
  EXPECT_EQ(welcome->max_contiguous, 1u << 26);
  EXPECT_EQ(welcome->max_in_flight, 256u);
  EXPECT_EQ(welcome->default_timeout_ns, 60'000'000'000u);
  EXPECT_EQ(welcome->host_pid, 7);
  EXPECT_EQ(welcome->machine_id, "boot net ipc");
  EXPECT_EQ(welcome->stream_credit, 1u << 20);
  CheckShape(Encode(AWelcome()), With(DecodeWelcome));
}

TEST(Messages, WelcomeRefusesBadValues) {
  const auto code = [](const std::function<void(Welcome&)>& change) {
    Welcome welcome = AWelcome();
    change(welcome);
    return DecodeWelcome(Encode(welcome)).status().code();
  };
  EXPECT_EQ(code([](Welcome& w) { w.session_id = 0; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](Welcome& w) { w.process = ""; }), Code::kNameInvalid);
  EXPECT_EQ(code([](Welcome& w) { w.max_contiguous = 0; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](Welcome& w) { w.max_contiguous = kMaxPayload; }), Code::kOk);
  EXPECT_EQ(code([](Welcome& w) { w.max_contiguous = kMaxPayload + 1; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](Welcome& w) { w.max_in_flight = 0; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](Welcome& w) { w.max_in_flight = UINT32_MAX; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](Welcome& w) { w.default_timeout_ns = 0; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](Welcome& w) { w.host_pid = 0; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](Welcome& w) { w.stream_credit = 0; }), Code::kProtocolInvalid);
}

TEST(Messages, RejectRoundTripsAndKeepsItsShape) {
  const Bytes bytes = Encode(Reject{Code::kTokenInvalid, "nein"});
  const Result<Reject> reject = DecodeReject(bytes);
  ASSERT_TRUE(reject.ok());
  EXPECT_EQ(reject->code, Code::kTokenInvalid);
  EXPECT_EQ(reject->message, "nein");
  CheckShape(bytes, With(DecodeReject));
}

TEST(Messages, RejectCutsLongMessagesAtACharacter) {
  const Result<Reject> reject =
      DecodeReject(Encode(Reject{Code::kInternal, std::string(kMaxErrorMessage - 1, 'x') + "ä"}));
  ASSERT_TRUE(reject.ok());
  EXPECT_EQ(reject->message.size(), kMaxErrorMessage - 1);
}

TEST(Messages, UpgradeRoundTripsAndKeepsItsShape) {
  const Bytes request = Encode(UpgradeRequest{"shm", 123});
  const Result<UpgradeRequest> decoded = DecodeUpgradeRequest(request);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->transport, "shm");
  EXPECT_EQ(decoded->window_bytes, 123u);
  CheckShape(request, With(DecodeUpgradeRequest));
  EXPECT_EQ(DecodeUpgradeRequest(Encode(UpgradeRequest{"", 1})).status().code(), Code::kProtocolInvalid);
  EXPECT_EQ(DecodeUpgradeRequest(Encode(UpgradeRequest{std::string(17, 'x'), 1})).status().code(),
            Code::kProtocolInvalid);
}

TEST(Messages, OfferRoundTripsAndKeepsItsShape) {
  const Result<UpgradeOffer> offer = DecodeUpgradeOffer(Encode(AnOffer()));
  ASSERT_TRUE(offer.ok());
  EXPECT_EQ(offer->socket_path, "/run/x.sock");
  EXPECT_EQ(offer->nonce, std::string(kUpgradeNonceBytes, '\xfe'));
  EXPECT_EQ(offer->window_bytes, 1u << 30);
  EXPECT_FALSE(offer->refused);
  CheckShape(Encode(AnOffer()), With(DecodeUpgradeOffer));

  UpgradeOffer refusal;
  refusal.refused = Reject{Code::kUnsupported, "no"};
  const Result<UpgradeOffer> refused = DecodeUpgradeOffer(Encode(refusal));
  ASSERT_TRUE(refused.ok());
  ASSERT_TRUE(refused->refused);
  EXPECT_EQ(refused->refused->code, Code::kUnsupported);
}

TEST(Messages, OfferRefusesBadValues) {
  const auto code = [](const std::function<void(UpgradeOffer&)>& change) {
    UpgradeOffer offer = AnOffer();
    change(offer);
    return DecodeUpgradeOffer(Encode(offer)).status().code();
  };
  EXPECT_EQ(code([](UpgradeOffer& o) { o.socket_path = ""; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](UpgradeOffer& o) { o.socket_path = std::string(kMaxSocketPath, '/'); }), Code::kOk);
  EXPECT_EQ(code([](UpgradeOffer& o) { o.socket_path = std::string(kMaxSocketPath + 1, '/'); }),
            Code::kProtocolInvalid);
  EXPECT_EQ(code([](UpgradeOffer& o) { o.nonce.pop_back(); }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](UpgradeOffer& o) { o.nonce += 'x'; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](UpgradeOffer& o) { o.window_bytes = 0; }), Code::kProtocolInvalid);
  EXPECT_EQ(code([](UpgradeOffer& o) { o.refused = Reject{Code::kOk, ""}; }), Code::kProtocolInvalid);
}

TEST(ErrorPayload, CarriesCodeMessageAndErrno) {
  Frame frame;
  frame.type = FrameType::kReply;
  const Status sent(Code::kSystem, "openat: ENOSPC", ENOSPC);
  const std::span<const std::byte> payload = SetError(frame, sent);
  EXPECT_EQ(frame.code, static_cast<uint16_t>(Code::kSystem));
  const Status received = DecodeError(frame, payload);
  EXPECT_EQ(received.code(), Code::kSystem);
  EXPECT_EQ(received.sys_errno(), ENOSPC);
  EXPECT_EQ(received.message(), sent.message());
  EXPECT_TRUE(DecodeError(Frame{}, {}).ok());
}

TEST(ErrorPayload, SurvivesNonsense) {
  Frame frame;
  frame.code = 9999;
  frame.aux = UINT64_MAX;
  const char bytes[] = {'a', '\xff', 'b'};
  const Status status = DecodeError(frame, std::as_bytes(std::span(bytes)));
  EXPECT_EQ(status.message(), "a?b");
  EXPECT_EQ(CodeName(status.code()), "ERR_INTERNAL");
  EXPECT_EQ(status.sys_errno(), 4095);
}

TEST(SecretsEqual, Compares) {
  EXPECT_TRUE(SecretsEqual("", ""));
  EXPECT_TRUE(SecretsEqual("abc", "abc"));
  EXPECT_FALSE(SecretsEqual("abc", "abd"));
  EXPECT_FALSE(SecretsEqual("abc", "ab"));
  EXPECT_FALSE(SecretsEqual("ab", "abc"));
  EXPECT_FALSE(SecretsEqual("", std::string_view("\0", 1)));
}

TEST(Names, AreUtf8OfOneTo255Bytes) {
  EXPECT_TRUE(ValidateName("a", "name").ok());
  EXPECT_TRUE(ValidateName(std::string(255, 'x'), "name").ok());
  EXPECT_EQ(ValidateName("", "name").code(), Code::kNameInvalid);
  EXPECT_EQ(ValidateName(std::string(256, 'x'), "name").code(), Code::kNameInvalid);
  for (const char* good : {"\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
                           "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(IsUtf8(good)) << good;
  }
  for (const char* bad : {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xe0\x9f\xbf", "\xed\xa0\x80",
                          "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "a\xc3", "\xe2\x82"}) {
    EXPECT_FALSE(IsUtf8(bad));
  }
}

}  // namespace
}  // namespace praas::protocol
