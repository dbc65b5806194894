/* One core copies a message. */
#include <string.h>

#include "floor.h"

static void* target;
static size_t message_bytes;

static void open_memcpy(const struct options* options) {
  message_bytes = options->bytes;
  target = allocate(message_bytes);
}

static void copy(const void* message) {
  memcpy(target, message, message_bytes);
  __asm__ volatile("" ::: "memory"); /* nobody reads it; it is to be copied all the same */
}

const struct floor memcpy_floor = {
    .name = "memcpy",
    .summary = "one copy of the message on one core",
    .max_in_flight = 1,
    .alone = true,
    .open = open_memcpy,
    .send = copy,
};
