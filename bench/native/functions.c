/* What bench/native.bench.ts calls: the input as the result, raw and with the C API. */
#include <praas/praas.h>
#include <stdint.h>
#include <string.h>

PRAAS_EXPORT uint32_t echo(void* args, uint32_t size, void* res) {
  memcpy(res, args, size);
  return size;
}

PRAAS_FUNCTION(null) {
  size_t bytes;
  const void* input = praas_input(context, &bytes);
  return praas_return(context, input, bytes);
}

PRAAS_FUNCTION(call_null) {
  size_t bytes;
  const void* input = praas_input(context, &bytes);
  praas_reply reply;
  const int status = praas_invoke(context, "null", input, bytes, 0, &reply);
  return status != PRAAS_OK ? status : praas_return(context, reply.data, reply.bytes);
}
