/* Messages of fixed size over connected stream sockets, for the floors of TCP and UNIX sockets. */
#pragma once

#include "floor.h"

/* The ends of one connection: `ends[side]`. `spin`: poll instead of blocking. */
void stream_open(const struct options* options, const int ends[2], bool spin);
void stream_become(enum side side);
void stream_send(const void* message);
void stream_receive(void* message);
void stream_call_many(struct batch* batch);
void stream_serve_many(uint64_t count);

/* A floor over a stream that `OPEN` makes. */
#define STREAM_FLOOR(NAME, SUMMARY, OPEN)                                                                           \
  {                                                                                                                 \
    .name = NAME, .summary = SUMMARY, .max_in_flight = kMaxInFlight, .open = OPEN, .become = stream_become,         \
    .send = stream_send, .receive = stream_receive, .call_many = stream_call_many, .serve_many = stream_serve_many, \
  }
