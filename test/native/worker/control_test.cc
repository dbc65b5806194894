#include "worker/control.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "base/clock.h"
#include "segment/layout.h"
#include "support/no_descriptors.h"
#include "worker/control_packet.h"

namespace praas::worker {
namespace {

struct Ends {
  ControlSocket host, worker;
};

Ends MakeEnds() {
  auto pair = ControlSocket::Pair();
  EXPECT_TRUE(pair.ok());
  return {ControlSocket(std::move(pair->first)), ControlSocket(std::move(pair->second))};
}

UniqueFd Event() { return UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

ControlMessage Received(ControlSocket& socket) {
  auto got = socket.Receive(DeadlineIn(5'000'000'000));
  EXPECT_TRUE(got.ok()) << got.status().message();
  EXPECT_TRUE(got->has_value());
  return std::move(**got);
}

int OpenFds() {
  int count = 0;
  for (int fd = 0; fd < 256; ++fd) count += ::fcntl(fd, F_GETFD) >= 0;
  return count;
}

ControlMessage AttachMessage() {
  ControlMessage message{.type = ControlType::kAttach};
  message.attach = {.participant = 7,
                    .generation = 9,
                    .lane = dispatch::Lane::kNative,
                    .doorbell_kind = 2,
                    .lanes = {true, true},
                    .queue_name = "/praas-queue",
                    .hot_ns = -1,
                    .concurrency = 16,
                    .grace_ns = 100,
                    .default_timeout_ns = 200,
                    .max_contiguous = 300,
                    .worker_memory_bytes = 400,
                    .process_id = "prozeß"};
  for (int i = 0; i < 5; ++i) message.fds.push_back(Event());
  return message;
}

TEST(ControlSocket, CarriesAttachWithItsDescriptors) {
  Ends ends = MakeEnds();
  const ControlMessage sent = AttachMessage();
  ASSERT_TRUE(ends.host.Send(sent).ok());
  const ControlMessage got = Received(ends.worker);
  EXPECT_EQ(got.type, ControlType::kAttach);
  EXPECT_EQ(got.attach.participant, 7);
  EXPECT_EQ(got.attach.generation, 9u);
  EXPECT_EQ(got.attach.lane, dispatch::Lane::kNative);
  EXPECT_EQ(got.attach.doorbell_kind, 2u);
  EXPECT_EQ(got.attach.lanes, (dispatch::LaneSet{true, true}));
  EXPECT_EQ(got.attach.queue_name, "/praas-queue");
  EXPECT_EQ(got.attach.hot_ns, -1);
  EXPECT_EQ(got.attach.concurrency, 16u);
  EXPECT_EQ(got.attach.grace_ns, 100u);
  EXPECT_EQ(got.attach.default_timeout_ns, 200u);
  EXPECT_EQ(got.attach.max_contiguous, 300u);
  EXPECT_EQ(got.attach.worker_memory_bytes, 400u);
  EXPECT_EQ(got.attach.process_id, "prozeß");
  ASSERT_EQ(got.fds.size(), 5u);
  for (const UniqueFd& fd : got.fds) EXPECT_EQ(::fcntl(fd.get(), F_GETFD), FD_CLOEXEC);
  uint64_t one = 1;
  ASSERT_EQ(::write(sent.fds[2].get(), &one, sizeof one), 8);
  EXPECT_EQ(::read(got.fds[2].get(), &one, sizeof one), 8) << "the same object, in the same order";
}

TEST(ControlSocket, CarriesTheLargestFunctionTable) {
  Ends ends = MakeEnds();
  ControlMessage sent{.type = ControlType::kReady};
  for (uint32_t i = 0; i < segment::kMaxFunctions; ++i) {
    std::string name = std::to_string(i);
    name.resize(segment::kMaxName, 'n');
    sent.functions.push_back({name, i, 2 * i});
  }
  const int before = OpenFds();
  ASSERT_TRUE(ends.worker.Send(sent).ok());
  const ControlMessage got = Received(ends.host);
  ASSERT_EQ(got.functions.size(), segment::kMaxFunctions);
  EXPECT_EQ(got.functions.back().name, sent.functions.back().name);
  EXPECT_EQ(got.functions.back().flags, segment::kMaxFunctions - 1);
  EXPECT_EQ(got.functions.back().max_output_pages, 2 * (segment::kMaxFunctions - 1));
  EXPECT_TRUE(got.fds.empty());
  EXPECT_EQ(OpenFds(), before);
}

TEST(ControlSocket, CarriesTheTermsOfLeases) {
  Ends ends = MakeEnds();
  const LeaseTerms terms{.lease = 1ull << 40, .hot_ns = -1, .expires_ns = 1ull << 62};
  for (const ControlType type : {ControlType::kLease, ControlType::kLeaseEnd}) {
    ASSERT_TRUE(ends.host.Send({.type = type, .terms = terms}).ok());
    EXPECT_EQ(Received(ends.worker).terms, terms);
  }
  ASSERT_TRUE(ends.worker.Send({.type = ControlType::kLeaseLeft, .terms = terms}).ok());
  EXPECT_EQ(Received(ends.host).terms, terms);
  EXPECT_EQ(ends.host.Send({.type = ControlType::kLease}).code(), Code::kArgumentInvalid) << "of no lease";
  EXPECT_EQ(ends.host.Send({.type = ControlType::kLease, .terms = {.lease = 1, .hot_ns = -2}}).code(),
            Code::kArgumentInvalid);
}

TEST(ControlSocket, CarriesTextsAroundThePacketSize) {
  Ends ends = MakeEnds();
  for (const size_t bytes : {size_t{0}, size_t{1}, kMaxPacket - 21, kMaxPacket - 20, kMaxPacket - 19, kMaxPacket}) {
    ControlMessage sent{.type = ControlType::kLoad};
    sent.text.assign(bytes, 'x');
    ASSERT_TRUE(ends.host.Send(sent).ok()) << bytes;
    EXPECT_EQ(Received(ends.worker).text, sent.text);
  }
}

TEST(ControlSocket, RefusesToSendWhatTheOtherSideWouldRefuse) {
  Ends ends = MakeEnds();
  const auto refused = [&](ControlMessage message) {
    EXPECT_EQ(ends.host.Send(message).code(), Code::kArgumentInvalid);
  };
  ControlMessage no_fds = AttachMessage();
  no_fds.fds.clear();
  refused(std::move(no_fds));
  ControlMessage host_index = AttachMessage();
  host_index.attach.participant = 0;
  refused(std::move(host_index));
  ControlMessage no_id = AttachMessage();
  no_id.attach.process_id.clear();
  refused(std::move(no_id));
  ControlMessage long_name{.type = ControlType::kReady};
  long_name.functions.push_back({std::string(256, 'n'), 0});
  refused(std::move(long_name));
  ControlMessage long_text{.type = ControlType::kLoad};
  long_text.text.assign(kMaxMessage, 'x');
  refused(std::move(long_text));
  refused(ControlMessage{.type = static_cast<ControlType>(99)});
}

TEST(ControlSocket, RejectsMalformedPackets) {
  Ends ends = MakeEnds();
  const auto rejects = [&](std::vector<uint32_t> words, int fd = -1) {
    iovec part{words.data(), words.size() * sizeof(uint32_t)};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    if (fd >= 0) {
      header.msg_control = control;
      header.msg_controllen = sizeof control;
      cmsghdr* rights = CMSG_FIRSTHDR(&header);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(sizeof fd);
      std::memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    }
    ASSERT_GT(::sendmsg(ends.host.fd(), &header, 0), 0);
    EXPECT_EQ(ends.worker.Receive(DeadlineIn(5'000'000'000)).status().code(), Code::kProtocolInvalid);
  };
  const auto type = static_cast<uint32_t>(ControlType::kDrain);
  const UniqueFd event = Event();
  const int before = OpenFds();
  rejects({0});                              // no type
  rejects({0, 99, 0, 0, 0});                 // unknown type
  rejects({0, type, 0, 0});                  // short
  rejects({0, type, 0, 0, 1});               // text past the end
  rejects({0, type, 0, 0, 0, 0});            // bytes left over
  rejects({0, type, 0, 0, 0}, event.get());  // a descriptor too many
  rejects({64});                             // long message without memory
  rejects({64}, event.get());                // whose memory is none
  rejects(std::vector<uint32_t>(kMaxPacket / 4 + 1));
  EXPECT_EQ(OpenFds(), before);
}

TEST(ControlSocket, SaysThatDescriptorsHaveRunOut) {
  Ends ends = MakeEnds();
  ControlMessage peer{.type = ControlType::kPeer};
  peer.fds.push_back(Event());
  ASSERT_TRUE(ends.host.Send(peer).ok());
  const auto received = [&] {
    const test::NoDescriptors none;
    return ends.worker.Receive(DeadlineIn(5'000'000'000));
  }();
  EXPECT_EQ(received.status().sys_errno(), EMFILE) << received.status().message();
  ASSERT_TRUE(ends.host.Send({.type = ControlType::kDrain}).ok());
  EXPECT_EQ(Received(ends.worker).type, ControlType::kDrain);
}

TEST(ControlSocket, ReceivesNothingAtTheDeadline) {
  Ends ends = MakeEnds();
  for (const uint64_t deadline : {uint64_t{0}, DeadlineIn(1'000'000)}) {
    auto got = ends.worker.Receive(deadline);
    ASSERT_TRUE(got.ok());
    EXPECT_FALSE(got->has_value());
  }
}

TEST(ControlSocket, NeverBlocksWhenFull) {
  Ends ends = MakeEnds();
  ControlMessage sent{.type = ControlType::kRelay, .index = 3};
  Status status;
  int packets = 0;
  for (; status.ok(); ++packets) status = ends.worker.Send(sent);
  EXPECT_EQ(status.code(), Code::kBackpressure);
  for (int i = 1; i < packets; ++i) EXPECT_EQ(Received(ends.host).index, 3u);
  EXPECT_TRUE(ends.worker.Send(sent).ok());
}

TEST(ControlSocket, ReportsTheEndAfterWhatWasSent) {
  Ends ends = MakeEnds();
  ASSERT_TRUE(ends.host.Send({.type = ControlType::kDrain}).ok());
  ends.host = ControlSocket(UniqueFd());
  EXPECT_EQ(Received(ends.worker).type, ControlType::kDrain);
  EXPECT_EQ(ends.worker.Receive(0).status().code(), Code::kConnectionLost);
  EXPECT_EQ(ends.worker.Send({.type = ControlType::kDrained}).code(), Code::kConnectionLost);
}

TEST(ControlPacket, EveryPrefixIsRejected) {
  auto bytes = EncodeControl(AttachMessage());
  ASSERT_TRUE(bytes.ok());
  for (size_t size = 0; size < bytes->size(); ++size) {
    EXPECT_EQ(DecodeControl(std::span(*bytes).first(size)).status().code(), Code::kProtocolInvalid) << size;
  }
}

}  // namespace
}  // namespace praas::worker
