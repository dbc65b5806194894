#include "window/pool.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>

#include "base/clock.h"
#include "window/support.h"

namespace praas::window {
namespace {

using dispatch::CallWord;
using dispatch::PayloadRef;
using dispatch::Place;

uint64_t CommittedBytes(int fd) {
  struct stat info {};
  EXPECT_EQ(fstat(fd, &info), 0);
  return static_cast<uint64_t>(info.st_blocks) * 512;
}

std::unique_ptr<Pool> MakePool(TestSegment& segment) {
  auto pool = Pool::Create(segment.get());
  EXPECT_TRUE(pool.ok()) << pool.status().message();
  return std::move(pool).value();
}

PayloadRef Ref(Place place, uint64_t offset, uint64_t bytes) {
  return {.offset = offset, .bytes = bytes, .block = 0, .place = place, .reserved = {}};
}

TEST(Pool, WhatTheHostWritesAWorkerReads) {
  TestSegment segment;
  const auto host = MakePool(segment);
  auto worker = Pool::Map(UniqueFd(fcntl(host->fd(), F_DUPFD_CLOEXEC, 0)), segment.get(), 1);
  ASSERT_TRUE(worker.ok()) << worker.status().message();

  auto input = host->inputs().Allocate(100'000, {segment::BlockOwner::Kind::kCall, 0, 3}, DeadlineIn(1'000'000'000));
  ASSERT_TRUE(input.ok()) << input.status().message();
  auto bytes = host->Resolve(Ref(Place::kPoolInput, input->offset, 100'000));
  ASSERT_TRUE(bytes.ok());
  std::memset(bytes->data(), 42, bytes->size());
  auto seen = (*worker)->Resolve(Ref(Place::kPoolInput, input->offset, 100'000));
  ASSERT_TRUE(seen.ok());
  EXPECT_EQ(std::memcmp(seen->data(), bytes->data(), bytes->size()), 0);

  auto output =
      (*worker)->outputs().Allocate(5000, {segment::BlockOwner::Kind::kCall, 0, 3}, DeadlineIn(1'000'000'000));
  ASSERT_TRUE(output.ok());
  EXPECT_TRUE(host->Resolve(Ref(Place::kPoolOutput, output->offset, 5000)).ok());
  EXPECT_FALSE(host->Resolve(Ref(Place::kPoolInput, output->offset, 5000)).ok()) << "each arena has its own part";
  EXPECT_FALSE(host->Resolve(Ref(Place::kPoolOutput, input->offset, 5000)).ok());
  EXPECT_TRUE(host->outputs().Free(output->block, DeadlineIn(1'000'000'000)).ok());
  EXPECT_TRUE((*worker)->inputs().Free(input->block, DeadlineIn(1'000'000'000)).ok());
  EXPECT_TRUE(host->inputs().Check().empty());
  EXPECT_TRUE(host->outputs().Check().empty());
}

TEST(Pool, SlotsOfAllEntriesAreApart) {
  TestSegment segment(64u << 20, 64);
  const auto pool = MakePool(segment);
  std::byte* end = pool->base();
  for (uint32_t call = 0; call < segment.get().header().calls.capacity; ++call) {
    EXPECT_EQ(pool->slot_input(call).data(), end);
    EXPECT_EQ(pool->slot_output(call).data(), end + dispatch::kSlotInputBytes);
    end = pool->slot_output(call).data() + dispatch::kSlotOutputBytes;
    auto in = pool->Resolve(pool->InputSlot(call, 10));
    auto out = pool->Resolve(pool->OutputSlot(call, 4096));
    ASSERT_TRUE(in.ok() && out.ok());
    EXPECT_EQ(in->data(), pool->slot_input(call).data());
    EXPECT_EQ(out->data(), pool->slot_output(call).data());
    EXPECT_EQ(out->size(), 4096u);
  }
}

TEST(Pool, ResolveRefusesWhatLiesOutside) {
  TestSegment segment(64u << 20, 64);
  const auto pool = MakePool(segment);
  const uint64_t slots_end = pool->slot_output(segment.get().header().calls.capacity - 1).data() + 4096 - pool->base();
  EXPECT_FALSE(pool->Resolve(pool->InputSlot(0, 4097)).ok()) << "would reach the output of the same call";
  EXPECT_FALSE(pool->Resolve(pool->OutputSlot(0, 4097)).ok());
  EXPECT_FALSE(pool->Resolve(Ref(Place::kSlot, slots_end, 1)).ok());
  EXPECT_FALSE(pool->Resolve(Ref(Place::kSlot, UINT64_MAX, 2)).ok());
  EXPECT_FALSE(pool->Resolve(Ref(Place::kPoolInput, slots_end - 1, 1)).ok());
  EXPECT_FALSE(pool->Resolve(Ref(Place::kPoolInput, slots_end, UINT64_MAX)).ok());
  EXPECT_TRUE(pool->Resolve(Ref(Place::kPoolOutput, pool->bytes() - 1, 1)).ok());
  EXPECT_FALSE(pool->Resolve(Ref(Place::kPoolOutput, pool->bytes() - 1, 2)).ok());
  EXPECT_FALSE(pool->Resolve(Ref(Place::kPoolOutput, pool->bytes() + 1, UINT64_MAX)).ok());
  EXPECT_EQ(pool->Resolve(Ref(Place::kWindow, 0, 1)).status().code(), Code::kInternal);
  EXPECT_TRUE(pool->Resolve(Ref(Place::kNone, 77, 77)).value().empty());
}

TEST(Pool, SizeIsSealedAndChecked) {
  TestSegment segment;
  const auto pool = MakePool(segment);
  EXPECT_EQ(pool->bytes(), segment.get().header().pool_bytes);
  EXPECT_NE(ftruncate(pool->fd(), 0), 0);
  EXPECT_EQ(errno, EPERM);
  TestSegment other(32u << 20);
  EXPECT_EQ(Pool::Map(UniqueFd(fcntl(pool->fd(), F_DUPFD_CLOEXEC, 0)), other.get()).status().code(),
            Code::kSegmentInvalid);
  EXPECT_FALSE(Pool::Map(UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC)), other.get()).ok());
}

TEST(Pool, TooSmallForItsSlotsIsAnArgumentError) {
  TestSegment segment(1u << 20, 512);
  const auto pool = Pool::Create(segment.get());
  ASSERT_FALSE(pool.ok());
  EXPECT_EQ(pool.status().code(), Code::kArgumentInvalid) << pool.status().message();
}

TEST(Pool, TrimGivesBackWhatNobodyUses) {
  TestSegment segment;
  const auto pool = MakePool(segment);
  auto block = pool->inputs().Allocate(8u << 20, {segment::BlockOwner::Kind::kCall, 0, 0}, DeadlineIn(1'000'000'000));
  ASSERT_TRUE(block.ok()) << block.status().message();
  for (const uint32_t call : {0u, 1u, 2u, 40u}) {
    pool->slot_input(call)[0] = std::byte{7};
    pool->slot_output(call)[4095] = std::byte{7};
  }
  // Entry 1 is in use: its slot has to survive.
  segment.get().call(1).word = CallWord{5, 1, dispatch::CallState::kClaimed, 0}.Pack();
  const uint64_t free_word = segment.get().call(2).word;
  EXPECT_GE(CommittedBytes(pool->fd()), (8u << 20) + 4 * 8192u);
  ASSERT_TRUE(pool->inputs().Free(block->block, DeadlineIn(1'000'000'000)).ok());
  pool->Trim();
  EXPECT_LE(CommittedBytes(pool->fd()), 8192u);
  EXPECT_EQ(pool->slot_input(1)[0], std::byte{7});
  EXPECT_EQ(pool->slot_input(2)[0], std::byte{0});
  EXPECT_EQ(segment.get().call(2).word, free_word);
}

}  // namespace
}  // namespace praas::window
