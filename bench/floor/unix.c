/* A stream socket of the UNIX domain. */
#include <sys/socket.h>

#include "stream.h"

static void open_pair(const struct options* options, bool spin) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) fail("socketpair");
  stream_open(options, ends, spin);
}

static void open_blocking(const struct options* options) { open_pair(options, false); }

static void open_spinning(const struct options* options) { open_pair(options, true); }

const struct floor unix_floor = {
    .name = "unix",
    .summary = "UNIX stream socket, blocking",
    .max_in_flight = kMaxInFlight,
    .open = open_blocking,
    .become = stream_become,
    .send = stream_send,
    .receive = stream_receive,
    .call_many = stream_call_many,
    .serve_many = stream_serve_many,
};

const struct floor unix_spin_floor = {
    .name = "unix-spin",
    .summary = "UNIX stream socket, polling",
    .max_in_flight = kMaxInFlight,
    .open = open_spinning,
    .become = stream_become,
    .send = stream_send,
    .receive = stream_receive,
    .call_many = stream_call_many,
    .serve_many = stream_serve_many,
};
