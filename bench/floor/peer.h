/* The process on the other side of a floor. */
#pragma once

#include "floor.h"

/*
 * Forks the peer. It ends with this process, however that ends; this program fails when it ends before. Afterwards both
 * run on their processors.
 */
void peer_start(const struct floor* floor, const struct options* options);
/* Lets it answer `count` requests from now on. */
void peer_serve(uint64_t count);
void peer_stop(void);
