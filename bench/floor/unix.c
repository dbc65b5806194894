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

const struct floor unix_floor = STREAM_FLOOR("unix", "UNIX stream socket, blocking", open_blocking);
const struct floor unix_spin_floor = STREAM_FLOOR("unix-spin", "UNIX stream socket, polling", open_spinning);
