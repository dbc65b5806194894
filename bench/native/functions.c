/*
 * The native functions that benchmarks call.
 *
 * Who measures `touch` deploys it without `echo`: an application with a raw function has guarded workers, and results
 * that C functions write then cost 4 to 16 us of 64 bytes instead of 1.9 (`null`, which writes none, costs the same).
 */
#include <praas/praas.h>
#include <stdint.h>
#include <string.h>

#include "touch.h"

/* Raw: its result has to be written to `res`. */
PRAAS_EXPORT uint32_t echo(void* args, uint32_t size, void* res) {
  memcpy(res, args, size);
  return size;
}

/* N bytes in, N bytes out, untouched: the input as it stands. */
PRAAS_FUNCTION(null) {
  size_t bytes;
  const void* input = praas_input(context, &bytes);
  return praas_return(context, input, bytes);
}

/* Reads all N bytes and writes N. */
PRAAS_FUNCTION(touch) {
  size_t bytes;
  const void* input = praas_input(context, &bytes);
  void* output = praas_output(context, bytes);
  if (output == NULL) return PRAAS_FAILED;
  touch_write(output, bytes, touch_read(input, bytes));
  return PRAAS_OK;
}

/* N bytes in, none out. */
PRAAS_FUNCTION(discard) {
  (void)context;
  return PRAAS_OK;
}

/* Never returns. */
PRAAS_FUNCTION(forever) {
  (void)context;
  for (;;) __asm__ volatile("" ::: "memory");
}

PRAAS_FUNCTION(call_null) {
  size_t bytes;
  const void* input = praas_input(context, &bytes);
  praas_reply reply;
  const int status = praas_invoke(context, "null", input, bytes, 0, &reply);
  return status != PRAAS_OK ? status : praas_return(context, reply.data, reply.bytes);
}
