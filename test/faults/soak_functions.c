/* What the soak calls with --language native. */
#define _POSIX_C_SOURCE 200809L

#include <praas/praas.h>
#include <time.h>

PRAAS_FUNCTION(echo) {
  size_t bytes;
  const void* input = praas_input(context, &bytes);
  return praas_return(context, input, bytes);
}

/* Blocks its worker for 100 ms. */
PRAAS_FUNCTION(block) {
  (void)context;
  const struct timespec tenth = {.tv_nsec = 100000000};
  nanosleep(&tenth, NULL);
  return PRAAS_OK;
}
