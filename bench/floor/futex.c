/* Shared memory, and a futex to sleep on: a system call of each side per message, no queue. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "floor.h"

/* One direction. In a ping-pong its payload is free whenever there is something to send. */
struct direction {
  _Alignas(64) _Atomic uint32_t messages; /* published so far */
  _Alignas(64) unsigned char payload[];
};

static struct direction* directions[2]; /* by receiver */
static enum side self;
static uint32_t received;
static size_t outgoing_bytes, incoming_bytes;
static const struct options* options;

static long futex(_Atomic uint32_t* word, int operation, uint32_t value) {
  return syscall(SYS_futex, word, operation, value, NULL, NULL, 0);
}

static void open_futex(const struct options* chosen) {
  options = chosen;
  for (int side = 0; side < 2; ++side) directions[side] = allocate_shared(sizeof(struct direction) + chosen->bytes);
}

static void become(enum side side) {
  self = side;
  outgoing_bytes = bytes_from(options, side);
  incoming_bytes = bytes_from(options, other_side(side));
}

static void send_message(const void* message) {
  struct direction* out = directions[other_side(self)];
  memcpy(out->payload, message, outgoing_bytes);
  atomic_fetch_add_explicit(&out->messages, 1, memory_order_release);
  if (futex(&out->messages, FUTEX_WAKE, 1) < 0) fail("FUTEX_WAKE");
}

static void receive_message(void* message) {
  struct direction* in = directions[self];
  while (atomic_load_explicit(&in->messages, memory_order_acquire) == received) {
    if (futex(&in->messages, FUTEX_WAIT, received) != 0 && errno != EAGAIN && errno != EINTR) fail("FUTEX_WAIT");
  }
  ++received;
  memcpy(message, in->payload, incoming_bytes);
}

const struct floor futex_floor = {
    .name = "futex",
    .summary = "shared memory, blocking on a futex",
    .max_in_flight = 1,
    .open = open_futex,
    .become = become,
    .send = send_message,
    .receive = receive_message,
};
