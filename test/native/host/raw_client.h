#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "base/clock.h"
#include "client/driver.h"
#include "protocol/frame.h"
#include "protocol/messages.h"
#include "transport/tcp.h"

namespace praas::test {

/// A socket whose bytes the test says itself.
class RawClient {
 public:
  explicit RawClient(uint16_t port) {
    auto connected = transport::TcpConnect("127.0.0.1", port, DeadlineIn(kWatchdogNs));
    EXPECT_TRUE(connected.ok());
    stream_ = std::move(*connected);
  }
  void Send(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
      auto sent = stream_->Write(std::span(&part, 1));
      if (!sent.ok()) return;
      bytes = bytes.subspan(*sent);
      if (*sent == 0) WaitFor(POLLOUT);
    }
  }
  void Send(protocol::Frame frame, std::span<const std::byte> payload) {
    frame.payload_bytes = payload.size();
    SendHeader(frame);
    Send(payload);
  }
  void SendHeader(const protocol::Frame& frame) {
    std::array<std::byte, protocol::kHeaderBytes> header;
    protocol::EncodeHeader(frame, header);
    Send(header);
  }
  void Hello(const std::string& process, const std::string& token) {
    protocol::Hello hello;
    hello.process = process;
    hello.token = token;
    hello.client_pid = ::getpid();
    Send({.type = protocol::FrameType::kHello}, Encode(hello));
  }
  /// The next `bytes` of what the host says; fewer when it closes.
  Bytes Read(size_t bytes) {
    Bytes read(bytes);
    size_t there = 0;
    while (there < bytes) {
      auto got = stream_->Read(std::span(read).subspan(there));
      if (!got.ok() || (*got == 0 && !WaitFor(POLLIN))) break;
      there += *got;
    }
    read.resize(there);
    return read;
  }
  /// The next frame; its payload into `payload`. An invalid one when the host closes.
  protocol::Frame ReadFrame(Bytes* payload = nullptr) {
    const Bytes header = Read(protocol::kHeaderBytes);
    if (header.size() < protocol::kHeaderBytes) return {};
    auto frame = protocol::DecodeHeader(
        std::span<const std::byte, protocol::kHeaderBytes>(header.data(), protocol::kHeaderBytes),
        protocol::kMaxPayload);
    if (!frame.ok()) return {};
    Bytes bytes = Read(frame->payload_bytes);
    if (payload != nullptr) *payload = std::move(bytes);
    return *frame;
  }
  /// As much of it as there is room for, without waiting.
  size_t SendSome(std::span<const std::byte> bytes) {
    const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    auto sent = stream_->Write(std::span(&part, 1));
    return sent.ok() ? *sent : 0;
  }
  /// Everything until the host closes.
  Bytes ReadAll() {
    Bytes all;
    while (true) {
      std::array<std::byte, 4096> buffer;
      auto got = stream_->Read(buffer);
      if (!got.ok()) return all;
      if (*got == 0) {
        if (!WaitFor(POLLIN)) return all;
        continue;
      }
      all.insert(all.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(*got));
    }
  }
  /// The reject that the host closed with.
  Code ReadReject() {
    const Bytes all = ReadAll();
    if (all.size() < protocol::kHeaderBytes) return Code::kOk;
    auto frame = protocol::DecodeHeader(
        std::span<const std::byte, protocol::kHeaderBytes>(all.data(), protocol::kHeaderBytes), protocol::kMaxPayload);
    if (!frame.ok() || frame->type != protocol::FrameType::kReject) return Code::kOk;
    auto reject = protocol::DecodeReject(std::span(all).subspan(protocol::kHeaderBytes));
    return reject.ok() ? reject->code : Code::kOk;
  }

 private:
  bool WaitFor(short events) {
    pollfd entry{stream_->fd(), events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(kWatchdogNs / 1'000'000));
    EXPECT_GT(ready, 0) << "the host neither answers nor closes";
    return ready > 0;
  }
  std::unique_ptr<transport::TcpStream> stream_;
};

}  // namespace praas::test
