#define _GNU_SOURCE
#include "stream.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../native/touch.h"

static const struct options* options;
static int sockets[2];
static int own;
static size_t outgoing_bytes, incoming_bytes;
static int flags; /* of send and recv */
static volatile uint64_t touched;

void stream_open(const struct options* chosen, const int ends[2], bool spin) {
  options = chosen;
  sockets[kClient] = ends[kClient];
  sockets[kServer] = ends[kServer];
  flags = spin ? MSG_DONTWAIT : 0;
}

void stream_become(enum side side) {
  own = sockets[side];
  close(sockets[other_side(side)]);
  outgoing_bytes = bytes_from(options, side);
  incoming_bytes = bytes_from(options, other_side(side));
}

/* Bytes moved, or 0 when it would have to wait. */
static size_t send_some(const void* data, size_t bytes, int with) {
  const ssize_t moved = send(own, data, bytes, with | MSG_NOSIGNAL);
  if (moved < 0 && errno != EAGAIN && errno != EINTR) fail("send");
  return moved < 0 ? 0 : (size_t)moved;
}

static size_t receive_some(void* data, size_t bytes, int with) {
  const ssize_t moved = recv(own, data, bytes, with);
  if (moved == 0) {
    errno = 0;
    fail("recv: the peer has closed the connection");
  }
  if (moved < 0 && errno != EAGAIN && errno != EINTR) fail("recv");
  return moved < 0 ? 0 : (size_t)moved;
}

static void send_all(const void* data, size_t bytes) {
  unsigned steps = 0;
  for (size_t at = 0; at < bytes;) {
    const size_t moved = send_some((const char*)data + at, bytes - at, flags);
    if (moved == 0) spin_call(&steps);
    at += moved;
  }
}

void stream_send(const void* message) { send_all(message, outgoing_bytes); }

void stream_receive(void* message) {
  unsigned steps = 0;
  for (size_t at = 0; at < incoming_bytes;) {
    const size_t moved = receive_some((char*)message + at, incoming_bytes - at, flags);
    if (moved == 0) spin_call(&steps);
    at += moved;
  }
}

/* --- several in flight: each side takes by one system call what is there --- */

static size_t buffer_bytes; /* whole messages: as many as are in flight, or fit into 256 KiB */
static char *requests, *answers;

static void prepare(void) {
  if (requests != NULL) return;
  size_t messages = (256u << 10) / options->bytes;
  if (messages > options->in_flight) messages = options->in_flight;
  if (messages == 0) messages = 1;
  buffer_bytes = messages * options->bytes;
  requests = allocate(buffer_bytes);
  answers = allocate(buffer_bytes);
}

struct client {
  struct latencies latencies;
  size_t send_at, send_end; /* what the socket has not taken yet of `requests` */
  size_t answer_bytes;      /* of the answer that is there in part */
  uint64_t at_ns;           /* when the last answers came */
};

/* Sends what may be in flight, without waiting. Whether something is left that found no room. */
static bool send_requests(struct client* client, uint64_t count) {
  struct latencies* latencies = &client->latencies;
  for (;;) {
    if (client->send_at == client->send_end) {
      uint64_t messages = options->in_flight - (latencies->sent - latencies->answered);
      if (messages > count - latencies->sent) messages = count - latencies->sent;
      const size_t most = options->batch ? buffer_bytes / options->bytes : 1;
      if (messages > most) messages = most;
      if (messages == 0) return false;
      client->send_at = 0;
      client->send_end = messages * options->bytes;
      if (options->touch) touch_write(requests, client->send_end, latencies->sent);
      for (uint64_t i = 0; i < messages; ++i) note_sent(latencies, client->at_ns);
    }
    const size_t wanted = client->send_end - client->send_at;
    const size_t moved = send_some(requests + client->send_at, wanted, MSG_DONTWAIT);
    client->send_at += moved;
    if (moved < wanted) return true;
  }
}

static void receive_answers(struct client* client, struct batch* batch, int with) {
  const size_t moved = receive_some(answers, buffer_bytes, with);
  if (options->touch) touched = touch_read(answers, moved);
  client->at_ns = now_ns();
  for (client->answer_bytes += moved; client->answer_bytes >= options->bytes; client->answer_bytes -= options->bytes) {
    note_answered(&client->latencies, batch, client->at_ns);
  }
}

void stream_call_many(struct batch* batch) {
  prepare();
  static struct client client;
  memset(&client, 0, sizeof client);
  const uint64_t begin_ns = now_ns();
  client.at_ns = begin_ns;
  unsigned steps = 0;
  while (client.latencies.answered < batch->count) {
    const bool left = send_requests(&client, batch->count);
    if (left && flags == 0) {
      struct pollfd room_or_answers = {.fd = own, .events = POLLIN | POLLOUT};
      if (poll(&room_or_answers, 1, -1) < 0 && errno != EINTR) fail("poll");
    }
    const uint64_t answered = client.latencies.answered;
    receive_answers(&client, batch, left ? MSG_DONTWAIT : flags);
    if (flags != 0 && client.latencies.answered == answered) spin_call(&steps);
  }
  batch->elapsed_ns = client.at_ns - begin_ns;
}

void stream_serve_many(uint64_t count) {
  prepare();
  unsigned steps = 0;
  size_t there = 0;
  for (uint64_t served = 0; served < count;) {
    const size_t moved = receive_some(requests + there, buffer_bytes - there, flags);
    there += moved;
    if (moved == 0) spin_call(&steps);
    const size_t messages = there / options->bytes;
    if (messages == 0) continue;
    const size_t whole = messages * options->bytes;
    if (options->touch) touch_write(answers, whole, touch_read(requests, whole));
    send_all(options->touch ? answers : requests, whole);
    served += messages;
    there -= whole;
    memmove(requests, requests + whole, there);
  }
}
