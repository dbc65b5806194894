#include "base/sha256.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace praas {
namespace {

constexpr std::array<uint32_t, 64> kRound = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t LoadBig(const std::byte* from) noexcept {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<uint32_t>(from[i]);
  return value;
}

void StoreBig(std::byte* to, uint64_t value, size_t bytes) noexcept {
  for (size_t i = 0; i < bytes; ++i) to[i] = static_cast<std::byte>(value >> (8 * (bytes - 1 - i)));
}

}  // namespace

void Sha256::Compress() noexcept {
  std::array<uint32_t, 64> w;
  for (size_t t = 0; t < 16; ++t) w[t] = LoadBig(block_.data() + 4 * t);
  for (size_t t = 16; t < 64; ++t) {
    const uint32_t s0 = std::rotr(w[t - 15], 7) ^ std::rotr(w[t - 15], 18) ^ w[t - 15] >> 3;
    const uint32_t s1 = std::rotr(w[t - 2], 17) ^ std::rotr(w[t - 2], 19) ^ w[t - 2] >> 10;
    w[t] = w[t - 16] + s0 + w[t - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state_;
  for (size_t t = 0; t < 64; ++t) {
    const uint32_t sum1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const uint32_t t1 = h + sum1 + ((e & f) ^ (~e & g)) + kRound[t] + w[t];
    const uint32_t sum0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const uint32_t t2 = sum0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + t1;
    d = c;
    c = b;
    b = a;
    a = t1 + t2;
  }
  const std::array<uint32_t, 8> worked = {a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < state_.size(); ++i) state_[i] += worked[i];
  filled_ = 0;
}

void Sha256::Update(std::span<const std::byte> bytes) noexcept {
  bytes_ += bytes.size();
  while (!bytes.empty()) {
    const size_t taken = std::min(bytes.size(), kBlockBytes - filled_);
    std::memcpy(block_.data() + filled_, bytes.data(), taken);
    filled_ += taken;
    bytes = bytes.subspan(taken);
    if (filled_ == kBlockBytes) Compress();
  }
}

Sha256::Digest Sha256::Finish() noexcept {
  const uint64_t bits = bytes_ * 8;
  constexpr std::array<std::byte, kBlockBytes> kPadding = {std::byte{0x80}};
  constexpr size_t kLengthAt = kBlockBytes - sizeof bits;
  Update(std::span(kPadding).first((filled_ < kLengthAt ? kLengthAt : kLengthAt + kBlockBytes) - filled_));
  std::array<std::byte, sizeof bits> length;
  StoreBig(length.data(), bits, length.size());
  Update(length);
  Digest digest;
  for (size_t i = 0; i < state_.size(); ++i) StoreBig(digest.data() + 4 * i, state_[i], 4);
  return digest;
}

Sha256::Digest HmacSha256(std::span<const std::byte> key, std::span<const std::byte> message) noexcept {
  std::array<std::byte, Sha256::kBlockBytes> padded{};
  if (key.size() > padded.size()) {
    Sha256 shortened;
    shortened.Update(key);
    std::ranges::copy(shortened.Finish(), padded.begin());
  } else {
    std::ranges::copy(key, padded.begin());
  }
  const auto keyed = [&padded](std::byte pad, std::span<const std::byte> text) {
    std::array<std::byte, Sha256::kBlockBytes> block = padded;
    for (std::byte& byte : block) byte ^= pad;
    Sha256 hash;
    hash.Update(block);
    hash.Update(text);
    return hash.Finish();
  };
  return keyed(std::byte{0x5c}, keyed(std::byte{0x36}, message));
}

}  // namespace praas
