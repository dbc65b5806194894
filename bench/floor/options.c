#define _GNU_SOURCE
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct floor* const floors[] = {
    &ring_floor,      &futex_floor, &eventfd_floor,  &mq_floor,    &mq_spin_floor,     &unix_floor,
    &unix_spin_floor, &tcp_floor,   &tcp_spin_floor, &verbs_floor, &verbs_sleep_floor, &memcpy_floor,
};

static const uint64_t kMaxBytes = 1ull << 30;

static void help(void) {
  puts(
      "usage: praas-floor NAME --bytes N [OPTION...]\n"
      "\n"
      "Measures how long N bytes take to another OS process and N bytes back, without praas. Prints `ready`; then "
      "each\n"
      "line COUNT on stdin measures a batch after a warm-up and writes, as little-endian 64-bit numbers: COUNT, the\n"
      "nanoseconds of all, the nanoseconds of each. Ends with stdin.\n"
      "\n"
      "  --bytes N           size of a message, 1 ... 1073741824\n"
      "  --answer N          size of an answer, the beginning of its request, 1 ... size of a message; with one in\n"
      "                      flight. Default: as large as the message\n"
      "  --in-flight K       requests that wait for their answer at a time, 1 ... 1024. Default: 1. Samples then are\n"
      "                      the latencies of requests\n"
      "  --batch             with --in-flight, over sockets: requests that can be sent at the same time are sent by\n"
      "                      one system call. Default: one for each\n"
      "  --touch             each side reads all bytes it gets and writes all it sends\n"
      "  --pin CLIENT,PEER   processors to run on\n"
      "  --deadline-s S      longest time for a batch, 1 ... 3600 seconds. Default: 120\n"
      "\n"
      "NAME:");
  for (size_t i = 0; i < sizeof floors / sizeof *floors; ++i)
    printf("  %-12s%s\n", floors[i]->name, floors[i]->summary);
}

_Noreturn void usage_error(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("praas-floor: ", stderr);
  vfprintf(stderr, format, arguments);
  fputs("; see --help\n", stderr);
  exit(2);
}

bool read_number(const char* text, uint64_t least, uint64_t most, uint64_t* number) {
  if (*text < '0' || *text > '9') return false;
  char* end;
  errno = 0;
  *number = strtoull(text, &end, 10);
  return errno == 0 && *end == '\0' && *number >= least && *number <= most;
}

static uint64_t number_of(const char* option, const char* text, uint64_t least, uint64_t most) {
  uint64_t number;
  if (!read_number(text, least, most, &number)) {
    usage_error("%s is \"%s\"; expected %llu ... %llu", option, text, (unsigned long long)least,
                (unsigned long long)most);
  }
  return number;
}

static void read_pins(const char* text, int cpu[2]) {
  char trailing;
  if (sscanf(text, "%d,%d%c", &cpu[kClient], &cpu[kServer], &trailing) == 2 && cpu[kClient] >= 0 && cpu[kServer] >= 0 &&
      cpu[kClient] < CPU_SETSIZE && cpu[kServer] < CPU_SETSIZE) {
    return;
  }
  usage_error("--pin is \"%s\"; expected two processors, as in 0,1", text);
}

static const struct floor* find_floor(const char* name) {
  for (size_t i = 0; i < sizeof floors / sizeof *floors; ++i) {
    if (strcmp(floors[i]->name, name) == 0) return floors[i];
  }
  usage_error("there is no floor \"%s\"", name);
}

static void check(const struct floor* floor, const struct options* options) {
  if (options->bytes == 0) usage_error("--bytes is missing");
  if (floor->max_bytes > 0 && options->bytes > floor->max_bytes) {
    usage_error("%s carries messages of at most %zu bytes, not of %zu", floor->name, floor->max_bytes, options->bytes);
  }
  if (options->in_flight > floor->max_in_flight) {
    usage_error("%s has at most %u in flight, not %u", floor->name, floor->max_in_flight, options->in_flight);
  }
  if (options->in_flight > 1 && floor->max_pipelined_bytes > 0 && options->bytes > floor->max_pipelined_bytes) {
    usage_error("%s has several in flight of at most %zu bytes, not of %zu", floor->name, floor->max_pipelined_bytes,
                options->bytes);
  }
  if (options->batch && floor->call_many == NULL) usage_error("%s has no --batch", floor->name);
  if (options->batch && options->in_flight == 1) usage_error("--batch needs --in-flight of at least 2");
  if (options->answer_bytes > options->bytes) {
    usage_error("--answer is %zu; it has at most the %zu bytes of the message", options->answer_bytes, options->bytes);
  }
  const bool short_answer = options->answer_bytes < options->bytes;
  if (short_answer && (floor->alone || options->touch || options->in_flight > 1)) {
    usage_error("--answer is for one message at a time to another side, without --touch");
  }
  if (options->touch && floor->alone) usage_error("%s has no other side to --touch", floor->name);
}

enum { kBytes = 1, kAnswer, kInFlight, kBatch, kTouch, kPin, kDeadline, kHelp };

const struct floor* read_arguments(int count, char** arguments, struct options* options) {
  static const struct option known[] = {
      {"bytes", required_argument, NULL, kBytes},
      {"answer", required_argument, NULL, kAnswer},
      {"in-flight", required_argument, NULL, kInFlight},
      {"batch", no_argument, NULL, kBatch},
      {"touch", no_argument, NULL, kTouch},
      {"pin", required_argument, NULL, kPin},
      {"deadline-s", required_argument, NULL, kDeadline},
      {"help", no_argument, NULL, kHelp},
      {NULL, 0, NULL, 0},
  };
  *options = (struct options){.in_flight = 1, .cpu = {-1, -1}, .deadline_s = 120};
  for (;;) {
    switch (getopt_long(count, arguments, "", known, NULL)) {
      case kBytes:
        options->bytes = number_of("--bytes", optarg, 1, kMaxBytes);
        continue;
      case kAnswer:
        options->answer_bytes = number_of("--answer", optarg, 1, kMaxBytes);
        continue;
      case kInFlight:
        options->in_flight = (unsigned)number_of("--in-flight", optarg, 1, kMaxInFlight);
        continue;
      case kBatch:
        options->batch = true;
        continue;
      case kTouch:
        options->touch = true;
        continue;
      case kPin:
        read_pins(optarg, options->cpu);
        continue;
      case kDeadline:
        options->deadline_s = (unsigned)number_of("--deadline-s", optarg, 1, 3600);
        continue;
      case kHelp:
        help();
        exit(0);
      case -1:
        break;
      default:
        exit(2); /* getopt has said why */
    }
    break;
  }
  if (optind + 1 != count) usage_error("expected the name of one floor, received %d", count - optind);
  const struct floor* floor = find_floor(arguments[optind]);
  if (options->answer_bytes == 0) options->answer_bytes = options->bytes;
  check(floor, options);
  return floor;
}
