/* Shared memory, and an eventfd to sleep on, which can be waited for together with sockets. */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "floor.h"

static void* payloads[2]; /* by receiver */
static int events[2];
static enum side self, other;
static size_t outgoing_bytes, incoming_bytes;
static const struct options* options;

static void open_eventfd(const struct options* chosen) {
  options = chosen;
  for (int side = 0; side < 2; ++side) {
    payloads[side] = allocate_shared(chosen->bytes);
    events[side] = eventfd(0, EFD_CLOEXEC);
    if (events[side] < 0) fail("eventfd");
  }
}

static void become(enum side side) {
  self = side;
  other = other_side(side);
  outgoing_bytes = bytes_from(options, self);
  incoming_bytes = bytes_from(options, other);
}

static void send_message(const void* message) {
  const uint64_t one = 1;
  memcpy(payloads[other], message, outgoing_bytes);
  if (write(events[other], &one, sizeof one) != (ssize_t)sizeof one) fail("write to an eventfd");
}

static void receive_message(void* message) {
  uint64_t messages;
  while (read(events[self], &messages, sizeof messages) != (ssize_t)sizeof messages) {
    if (errno != EINTR) fail("read of an eventfd");
  }
  memcpy(message, payloads[self], incoming_bytes);
}

const struct floor eventfd_floor = {
    .name = "eventfd",
    .summary = "shared memory, blocking on an eventfd",
    .max_in_flight = 1,
    .open = open_eventfd,
    .become = become,
    .send = send_message,
    .receive = receive_message,
};
