/* One TCP connection over the loopback device, without Nagle's algorithm. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

static void set_no_delay(int socket) {
  const int on = 1;
  if (setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) fail("TCP_NODELAY");
}

static void open_connection(const struct options* options, bool spin) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t bytes = sizeof address;
  int ends[2];
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ends[kClient] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || ends[kClient] < 0) fail("socket");
  if (bind(listener, (struct sockaddr*)&address, sizeof address) != 0) fail("bind to 127.0.0.1");
  if (listen(listener, 1) != 0) fail("listen");
  if (getsockname(listener, (struct sockaddr*)&address, &bytes) != 0) fail("getsockname");
  if (connect(ends[kClient], (struct sockaddr*)&address, sizeof address) != 0) fail("connect to 127.0.0.1");
  ends[kServer] = accept(listener, NULL, NULL);
  if (ends[kServer] < 0) fail("accept");
  close(listener);
  set_no_delay(ends[kClient]);
  set_no_delay(ends[kServer]);
  stream_open(options, ends, spin);
}

static void open_blocking(const struct options* options) { open_connection(options, false); }

static void open_spinning(const struct options* options) { open_connection(options, true); }

const struct floor tcp_floor = STREAM_FLOOR("tcp", "TCP over loopback, blocking", open_blocking);
const struct floor tcp_spin_floor = STREAM_FLOOR("tcp-spin", "TCP over loopback, polling", open_spinning);
