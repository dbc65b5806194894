/*
 * Rings in shared memory, polled: each side copies in what it sends and out what it receives, as MPI does. Large
 * messages travel in chunks, so that copying in and copying out overlap and the ring stays in the caches.
 */
#include <stdatomic.h>
#include <string.h>

#include "floor.h"

enum {
  kCacheLine = 64,
  kMaxChunkBytes = 32 * 1024,
  kSlots = 32, /* at least; one for each message in flight */
};

struct ring {
  _Alignas(kCacheLine) _Atomic uint64_t consumed; /* slots that were emptied so far; written by the receiver */
  _Alignas(kCacheLine) unsigned char slots[];
};

/* Written by the sender. `published` is the number of the chunk, counted from 1: it tells of itself that it is there.
 */
struct slot {
  _Atomic uint64_t published;
  unsigned char payload[];
};

static struct ring* rings[2]; /* by receiver */
static struct ring *in, *out;
static uint64_t received, sent, seen_consumed;
static size_t outgoing_bytes, incoming_bytes, chunk_bytes, slot_bytes;
static uint64_t slots;
static const struct options* options;

static void open_ring(const struct options* chosen) {
  options = chosen;
  chunk_bytes = options->bytes < kMaxChunkBytes ? options->bytes : kMaxChunkBytes;
  slots = options->in_flight > kSlots ? options->in_flight : kSlots;
  slot_bytes = (sizeof(struct slot) + chunk_bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
  for (int side = 0; side < 2; ++side) rings[side] = allocate_shared(sizeof(struct ring) + slots * slot_bytes);
}

static void become(enum side side) {
  in = rings[side];
  out = rings[other_side(side)];
  outgoing_bytes = bytes_from(options, side);
  incoming_bytes = bytes_from(options, other_side(side));
}

static struct slot* slot_of(struct ring* ring, uint64_t chunk) {
  return (struct slot*)(ring->slots + chunk % slots * slot_bytes);
}

static void send_chunk(const unsigned char* data, size_t bytes) {
  unsigned steps = 0;
  while (sent - seen_consumed == slots) {
    seen_consumed = atomic_load_explicit(&out->consumed, memory_order_acquire);
    if (sent - seen_consumed == slots) spin_memory(&steps);
  }
  struct slot* slot = slot_of(out, sent++);
  memcpy(slot->payload, data, bytes);
  atomic_store_explicit(&slot->published, sent, memory_order_release);
}

static void receive_chunk(unsigned char* data, size_t bytes) {
  struct slot* slot = slot_of(in, received++);
  unsigned steps = 0;
  while (atomic_load_explicit(&slot->published, memory_order_acquire) != received) spin_memory(&steps);
  memcpy(data, slot->payload, bytes);
  atomic_store_explicit(&in->consumed, received, memory_order_release);
}

static void send_message(const void* message) {
  for (size_t at = 0; at < outgoing_bytes; at += chunk_bytes) {
    const size_t left = outgoing_bytes - at;
    send_chunk((const unsigned char*)message + at, left < chunk_bytes ? left : chunk_bytes);
  }
}

static void receive_message(void* message) {
  for (size_t at = 0; at < incoming_bytes; at += chunk_bytes) {
    const size_t left = incoming_bytes - at;
    receive_chunk((unsigned char*)message + at, left < chunk_bytes ? left : chunk_bytes);
  }
}

const struct floor ring_floor = {
    .name = "ring",
    .summary = "rings in shared memory, polling; both sides copy in and out",
    .max_in_flight = kMaxInFlight,
    .max_pipelined_bytes = kMaxChunkBytes, /* one chunk each, so that no side ever waits for room */
    .open = open_ring,
    .become = become,
    .send = send_message,
    .receive = receive_message,
};
