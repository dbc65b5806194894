/* praas-floor: measures batches of one floor when asked. See --help, and floor.h for what a floor is. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "exchange.h"
#include "floor.h"
#include "options.h"
#include "peer.h"

enum { kMaxCount = 10000000 };

_Noreturn void fail(const char* format, ...) {
  const int error = errno;
  va_list arguments;
  va_start(arguments, format);
  fputs("praas-floor: ", stderr);
  vfprintf(stderr, format, arguments);
  if (error != 0) fprintf(stderr, ": %s", strerror(error));
  fputc('\n', stderr);
  exit(1);
}

/* So that a peer that is stopped, or any other way of waiting for good, ends with a reason. */
static void on_deadline(int signal_number) {
  (void)signal_number;
  static const char text[] = "praas-floor: the batch did not end before its deadline; ask for fewer operations\n";
  if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(1);
  _exit(1);
}

static void run(const struct floor* floor, const struct options* options, struct batch* batch) {
  peer_serve(batch->count);
  exchange_call(floor, options, batch);
}

/* At least 100 operations of up to 64 KiB, fewer of larger ones: those mostly need their memory touched once. */
static uint64_t warm_up_count(uint64_t count, size_t bytes) {
  uint64_t least = 100;
  if (bytes > 64u << 10) least = 100 * (64u << 10) / bytes;
  if (least < 2) least = 2;
  return count / 10 > least ? count / 10 : least;
}

/* The host's numbers are little-endian on everything this is built for. */
static void write_results(const struct batch* batch) {
  const uint64_t head[2] = {batch->count, batch->elapsed_ns};
  if (fwrite(head, sizeof head, 1, stdout) != 1 ||
      fwrite(batch->samples, sizeof(uint64_t), batch->count, stdout) != batch->count || fflush(stdout) != 0) {
    fail("writing the results");
  }
}

static void measure(const struct floor* floor, const struct options* options, uint64_t count) {
  struct batch batch = {.count = warm_up_count(count, options->bytes)};
  uint64_t* const samples = malloc(count * sizeof *samples);
  if (samples == NULL) fail("memory for %llu samples", (unsigned long long)count);
  memset(samples, 0, count * sizeof *samples); /* no page faults while measuring */
  alarm(options->deadline_s);
  run(floor, options, &batch);
  batch = (struct batch){.count = count, .samples = samples};
  run(floor, options, &batch);
  alarm(0);
  write_results(&batch);
  free(samples);
}

int main(int argument_count, char** arguments) {
  struct options options;
  const struct floor* const floor = read_arguments(argument_count, arguments, &options);
  floor->open(&options);
  peer_start(floor, &options);
  struct sigaction action = {.sa_handler = on_deadline};
  if (sigaction(SIGALRM, &action, NULL) != 0) fail("sigaction");
  puts("ready");
  fflush(stdout);
  char line[32];
  while (fgets(line, sizeof line, stdin) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    uint64_t count;
    if (!read_number(line, 1, kMaxCount, &count)) {
      usage_error("\"%s\" on stdin is no number of operations, 1 ... %d", line, kMaxCount);
    }
    measure(floor, &options, count);
  }
  peer_stop();
  return 0;
}
