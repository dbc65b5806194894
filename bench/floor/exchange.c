#include "exchange.h"

#include <errno.h>
#include <string.h>

#include "../native/touch.h"

/* Requests and answers have memory of their own, as those of a program have. */
static void* outgoing;
static void* incoming;
static volatile uint64_t touched; /* what reading gave; nobody needs it */

static void prepare(const struct options* options) {
  if (outgoing != NULL) return;
  outgoing = allocate(options->bytes);
  incoming = allocate(options->bytes);
}

/* Other bytes for every batch, so that an answer to an earlier one is not taken for the last. */
static void fill_request(const struct options* options) {
  static size_t batches;
  ++batches;
  for (size_t i = 0; i < options->bytes; ++i) {
    ((unsigned char*)outgoing)[i] = (unsigned char)(i * 31 + (i >> 12) + batches);
  }
}

/* A floor that loses what it carries would be too low. After a batch, so that it costs none of its operations. */
static void check_answer(const struct options* options) {
  bool same = true;
  if (options->touch) {
    const unsigned char expected = (unsigned char)touch_read(outgoing, options->bytes);
    for (size_t i = 0; i < options->bytes; ++i) same &= ((unsigned char*)incoming)[i] == expected;
  } else {
    same = memcmp(outgoing, incoming, options->answer_bytes) == 0;
  }
  errno = 0;
  if (!same) fail("the last answer of a batch does not belong to its request");
}

/* One operation at a time: each begins where the one before it ended. */
static void ping_pong(const struct floor* floor, const struct options* options, struct batch* batch) {
  const uint64_t begin_ns = now_ns();
  uint64_t last_ns = begin_ns;
  for (uint64_t i = 0; i < batch->count; ++i) {
    if (options->touch) touch_write(outgoing, options->bytes, i);
    floor->send(outgoing);
    if (!floor->alone) floor->receive(incoming);
    if (options->touch) touched = touch_read(incoming, options->bytes);
    const uint64_t at_ns = now_ns();
    if (batch->samples != NULL) batch->samples[i] = at_ns - last_ns;
    last_ns = at_ns;
  }
  batch->elapsed_ns = last_ns - begin_ns;
}

/* Several in flight, each answer making room for one more request. */
static void pipeline(const struct floor* floor, const struct options* options, struct batch* batch) {
  static struct latencies latencies;
  latencies.sent = latencies.answered = 0;
  const uint64_t begin_ns = now_ns();
  uint64_t at_ns = begin_ns;
  while (latencies.answered < batch->count) {
    while (latencies.sent < batch->count && latencies.sent - latencies.answered < options->in_flight) {
      if (options->touch) touch_write(outgoing, options->bytes, latencies.sent);
      note_sent(&latencies, at_ns);
      floor->send(outgoing);
    }
    floor->receive(incoming);
    if (options->touch) touched = touch_read(incoming, options->bytes);
    at_ns = now_ns();
    note_answered(&latencies, batch, at_ns);
  }
  batch->elapsed_ns = at_ns - begin_ns;
}

void exchange_call(const struct floor* floor, const struct options* options, struct batch* batch) {
  if (options->in_flight > 1 && floor->call_many != NULL) {
    floor->call_many(batch);
    return;
  }
  prepare(options);
  fill_request(options);
  if (options->in_flight > 1) {
    pipeline(floor, options, batch);
  } else {
    ping_pong(floor, options, batch);
  }
  if (!floor->alone) check_answer(options);
}

void exchange_serve(const struct floor* floor, const struct options* options, uint64_t count) {
  if (options->in_flight > 1 && floor->serve_many != NULL) {
    floor->serve_many(count);
    return;
  }
  prepare(options);
  for (uint64_t i = 0; i < count; ++i) {
    floor->receive(incoming);
    if (options->touch) touch_write(outgoing, options->bytes, touch_read(incoming, options->bytes));
    floor->send(options->touch ? outgoing : incoming);
  }
}
