/* Batches over any floor: what client and peer do with its messages. */
#pragma once

#include "floor.h"

/* Measures a batch, as the client. */
void exchange_call(const struct floor* floor, const struct options* options, struct batch* batch);
/* Answers `count` requests, as the peer. */
void exchange_serve(const struct floor* floor, const struct options* options, uint64_t count);
