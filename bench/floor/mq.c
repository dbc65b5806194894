/* POSIX message queues, one for each direction. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <unistd.h>

#include "floor.h"

static mqd_t queues[2]; /* by receiver */
static enum side self;
static size_t message_bytes;

static void open_queues(const struct options* options, int flags) {
  message_bytes = options->bytes;
  for (int side = 0; side < 2; ++side) {
    char name[64];
    snprintf(name, sizeof name, "/praas-floor-%d-%d", (int)getpid(), side);
    struct mq_attr attributes = {.mq_maxmsg = (long)options->in_flight, .mq_msgsize = (long)message_bytes};
    queues[side] = mq_open(name, O_RDWR | O_CREAT | O_EXCL | flags, 0600, &attributes);
    if (queues[side] == (mqd_t)-1) {
      fail("mq_open of %u messages of %zu bytes (limits: /proc/sys/fs/mqueue, ulimit -q)", options->in_flight,
           message_bytes);
    }
    mq_unlink(name); /* the descriptors keep it */
  }
}

static void open_blocking(const struct options* options) { open_queues(options, 0); }

static void open_spinning(const struct options* options) { open_queues(options, O_NONBLOCK); }

static void become(enum side side) { self = side; }

static void send_message(const void* message) {
  unsigned steps = 0;
  while (mq_send(queues[self == kClient ? kServer : kClient], message, message_bytes, 0) != 0) {
    if (errno == EAGAIN) {
      spin_call(&steps);
    } else if (errno != EINTR) {
      fail("mq_send");
    }
  }
}

static void receive_message(void* message) {
  unsigned steps = 0;
  while (mq_receive(queues[self], message, message_bytes, NULL) != (ssize_t)message_bytes) {
    if (errno == EAGAIN) {
      spin_call(&steps);
    } else if (errno != EINTR) {
      fail("mq_receive");
    }
  }
}

enum { kMaxMessageBytes = 8192, kMaxMessages = 10 }; /* what the kernel allows by default */

const struct floor mq_floor = {
    .name = "mq",
    .summary = "POSIX message queues, blocking",
    .max_bytes = kMaxMessageBytes,
    .max_in_flight = kMaxMessages,
    .open = open_blocking,
    .become = become,
    .send = send_message,
    .receive = receive_message,
};

const struct floor mq_spin_floor = {
    .name = "mq-spin",
    .summary = "POSIX message queues, polling",
    .max_bytes = kMaxMessageBytes,
    .max_in_flight = kMaxMessages,
    .open = open_spinning,
    .become = become,
    .send = send_message,
    .receive = receive_message,
};
