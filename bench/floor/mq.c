/* POSIX message queues, one for each direction. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "floor.h"

static mqd_t queues[2]; /* by receiver */
static enum side self;
static size_t message_bytes, outgoing_bytes, incoming_bytes;
static const struct options* options;

/*
 * A queue that has no name any more. All of a user's floors take the same name, and none needs it for longer than this:
 * what one that was killed right here has left is removed by the next, and removing another's costs that one nothing.
 */
static mqd_t create_queue(int flags, struct mq_attr* attributes) {
  char name[64];
  snprintf(name, sizeof name, "/praas-floor-%u", (unsigned)getuid());
  for (;;) {
    const mqd_t queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL | flags, 0600, attributes);
    const int error = errno;
    if (queue != (mqd_t)-1 || error == EEXIST) {
      /* Not ours to remove: another user made one of this name. */
      if (mq_unlink(name) != 0 && errno != ENOENT && queue == (mqd_t)-1) return queue;
    }
    errno = error;
    if (queue != (mqd_t)-1 || error != EEXIST) return queue;
  }
}

static void open_queues(const struct options* chosen, int flags) {
  options = chosen;
  message_bytes = options->bytes;
  struct mq_attr attributes = {.mq_maxmsg = (long)options->in_flight, .mq_msgsize = (long)message_bytes};
  /* Whoever ends this program does so before the names are there or after they are gone. */
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  for (int side = 0; side < 2; ++side) {
    queues[side] = create_queue(flags, &attributes);
    if (queues[side] == (mqd_t)-1) {
      fail("mq_open of %u messages of %zu bytes (limits: /proc/sys/fs/mqueue, ulimit -q)", options->in_flight,
           message_bytes);
    }
  }
  sigprocmask(SIG_SETMASK, &before, NULL);
}

static void open_blocking(const struct options* chosen) { open_queues(chosen, 0); }

static void open_spinning(const struct options* chosen) { open_queues(chosen, O_NONBLOCK); }

static void become(enum side side) {
  self = side;
  outgoing_bytes = bytes_from(options, side);
  incoming_bytes = bytes_from(options, other_side(side));
}

static void send_message(const void* message) {
  unsigned steps = 0;
  while (mq_send(queues[other_side(self)], message, outgoing_bytes, 0) != 0) {
    if (errno == EAGAIN) {
      spin_call(&steps);
    } else if (errno != EINTR) {
      fail("mq_send");
    }
  }
}

static void receive_message(void* message) {
  unsigned steps = 0;
  while (mq_receive(queues[self], message, message_bytes, NULL) != (ssize_t)incoming_bytes) {
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
