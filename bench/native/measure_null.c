/* Calls between native functions, measured inside the calling one. */
#include <praas/praas.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

struct request {
  uint64_t bytes;   /* of input and result of each call */
  uint64_t warm_up; /* calls before those that are recorded */
  uint64_t count;
};

static double now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int call_once(praas_context* context, const void* input, size_t bytes) {
  praas_reply reply;
  const int status = praas_invoke(context, "null", input, bytes, 0, &reply);
  if (status == PRAAS_OK) praas_release(context, &reply);
  return status;
}

/* Takes a request; gives doubles: the nanoseconds of all recorded calls of `null`, then those of each. */
PRAAS_FUNCTION(measure_null) {
  size_t request_bytes;
  const void* input = praas_input(context, &request_bytes);
  struct request request;
  if (request_bytes != sizeof request) return praas_fail(context, "expected a request of %zu bytes", sizeof request);
  memcpy(&request, input, sizeof request);
  double* times = praas_output(context, (request.count + 1) * sizeof *times);
  void* payload = praas_buffer(context, request.bytes);
  if (times == NULL || payload == NULL) return PRAAS_FAILED;
  memset(payload, 0, request.bytes);
  for (uint64_t i = 0; i < request.warm_up; ++i) {
    const int status = call_once(context, payload, request.bytes);
    if (status != PRAAS_OK) return status;
  }
  const double begin = now_ns();
  double last = begin;
  for (uint64_t i = 0; i < request.count; ++i) {
    const int status = call_once(context, payload, request.bytes);
    if (status != PRAAS_OK) return status;
    const double now = now_ns();
    times[i + 1] = now - last;
    last = now;
  }
  times[0] = last - begin;
  return PRAAS_OK;
}
