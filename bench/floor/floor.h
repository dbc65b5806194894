/*
 * Floors: what the machine itself needs for an exchange, measured without anything of praas.
 *
 * A floor is one way to carry a message of N bytes to another OS process and one of N bytes back. It lies in a file of
 * its own and is listed in options.c. The peer is forked from this program and answers; it sleeps between batches, and
 * the kernel ends it with this process. Channels have no names once they are open, so nothing is left however this
 * ends.
 */
#pragma once

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum side { kClient = 0, kServer = 1 };
enum { kMaxInFlight = 1024 };

struct options {
  size_t bytes;        /* of a request, 1 … 1 GiB */
  size_t answer_bytes; /* of an answer, which is the beginning of its request, 1 … bytes */
  unsigned in_flight;  /* requests that wait for their answer, 1 … kMaxInFlight */
  bool touch;          /* each side reads what it gets and writes what it sends, all bytes */
  bool batch;          /* requests that can be sent at the same time are sent by one system call */
  int cpu[2];          /* of each side; -1: any */
  unsigned deadline_s;
};

/* One batch, as the client measures it. */
struct batch {
  uint64_t count;      /* operations */
  uint64_t* samples;   /* nanoseconds of each, `count` of them; NULL while warming up */
  uint64_t elapsed_ns; /* of all of them */
};

struct floor {
  const char* name;
  const char* summary;
  size_t max_bytes;           /* 0: no limit of its own */
  unsigned max_in_flight;     /* 1: ping-pong only */
  size_t max_pipelined_bytes; /* with several in flight; 0: no limit of its own */
  bool alone;                 /* there is no peer */
  /* Makes the channel; before the fork. */
  void (*open)(const struct options* options);
  /* After the fork, in both processes: this one is that side from now on. May be NULL. */
  void (*become)(enum side side);
  /* One whole message, of as many bytes as `bytes_from` says. The peer of a ping-pong is always ready for it. */
  void (*send)(const void* message);
  void (*receive)(void* message);
  /* In place of send and receive, when there is a better way to keep several in flight. NULL: there is none. */
  void (*call_many)(struct batch* batch);
  void (*serve_many)(uint64_t count);
};

extern const struct floor ring_floor, futex_floor, eventfd_floor, mq_floor, mq_spin_floor, unix_floor, unix_spin_floor,
    tcp_floor, tcp_spin_floor, verbs_floor, verbs_sleep_floor, memcpy_floor;

/* --- for floors --- */

static inline enum side other_side(enum side side) { return side == kClient ? kServer : kClient; }

/* The size of what a side sends. */
static inline size_t bytes_from(const struct options* options, enum side side) {
  return side == kClient ? options->bytes : options->answer_bytes;
}

/* Ends the program with a line on stderr: what failed and why. Adds the text of errno unless it is 0. */
_Noreturn void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

/* Zeroed and written to once, so that no batch pays for page faults. Shared: the peer has the same memory. */
void* allocate(size_t bytes);
void* allocate_shared(size_t bytes);

static inline uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield" ::: "memory");
#endif
}

/*
 * One step of a loop that polls memory, or by system calls, which take longer. Both yield now and then, because the two
 * sides may have only one core: without it a round trip would take a slice of the scheduler.
 */
static inline void spin_memory(unsigned* steps) {
  if (++*steps % 32 == 0) {
    sched_yield();
  } else {
    cpu_relax();
  }
}

static inline void spin_call(unsigned* steps) {
  if (++*steps % 8 == 0) sched_yield();
}

/*
 * When requests were sent, for floors that answer in order: the oldest is always the next to be answered. One reading
 * of the clock ends one operation and begins the next.
 */
struct latencies {
  uint64_t sent_ns[kMaxInFlight];
  uint64_t sent, answered;
};

static inline void note_sent(struct latencies* latencies, uint64_t at_ns) {
  latencies->sent_ns[latencies->sent++ % kMaxInFlight] = at_ns;
}

static inline void note_answered(struct latencies* latencies, struct batch* batch, uint64_t at_ns) {
  const uint64_t index = latencies->answered++;
  if (batch->samples != NULL) batch->samples[index] = at_ns - latencies->sent_ns[index % kMaxInFlight];
}
