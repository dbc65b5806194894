// Round trips of MPI_Send and MPI_Recv between two ranks, measured in batches when asked: mpirun -n 2 mpi_ping_pong
// --bytes N [--touch]
//
// With --touch rank 0 writes all bytes before it sends them and reads all that come back, and rank 1 reads all and
// writes as many.
//
// Rank 0 writes "ready\n"; each line COUNT on its stdin runs a warm-up and COUNT recorded round trips, and writes to
// stdout, in the host's byte order, u64 count, u64 nanoseconds of all, count x u64 nanoseconds of each. The end of
// stdin ends both. Between batches rank 0 sleeps in read, and rank 1 looks for the next one every millisecond: a
// receive would spin.
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../native/touch.h"

enum { kBatchTag = 1, kDataTag = 2 };

static const long kMaxBytes = 1L << 30;
static const int kSmallBytes = 65536;
static const uint64_t kMaxCount = 100000000;

static uint64_t NowNs(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void Fail(int status, const char* message) {
  fprintf(stderr, "mpi_ping_pong: %s\n", message);
  MPI_Abort(MPI_COMM_WORLD, status);
}

static volatile uint64_t touched;  // what reading gave; nobody needs it

static void* Allocate(size_t bytes) {
  void* memory = calloc(bytes > 0 ? bytes : 1, 1);
  if (memory == NULL) Fail(1, "out of memory");
  return memory;
}

static void RoundTrip(unsigned char* buffer, int bytes, int touch) {
  if (touch) touch_write(buffer, (size_t)bytes, touched + 1);
  MPI_Send(buffer, bytes, MPI_BYTE, 1, kDataTag, MPI_COMM_WORLD);
  MPI_Recv(buffer, bytes, MPI_BYTE, 1, kDataTag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  if (touch) touched = touch_read(buffer, (size_t)bytes);
}

static void Ask(uint64_t round_trips) { MPI_Send(&round_trips, 1, MPI_UINT64_T, 1, kBatchTag, MPI_COMM_WORLD); }

static void Measure(unsigned char* buffer, int bytes, int touch, uint64_t count) {
  // As many as praas-floor has.
  uint64_t warm_ups = bytes > kSmallBytes ? 100 * (uint64_t)kSmallBytes / (uint64_t)bytes : 100;
  if (warm_ups < 2) warm_ups = 2;
  if (warm_ups < count / 10) warm_ups = count / 10;
  // u64 count, u64 elapsed, then the samples.
  uint64_t* record = Allocate((count + 2) * sizeof(uint64_t));
  Ask(warm_ups + count);
  for (uint64_t done = 0; done < warm_ups; done++) RoundTrip(buffer, bytes, touch);
  const uint64_t begun = NowNs();
  uint64_t last = begun;
  for (uint64_t done = 0; done < count; done++) {
    RoundTrip(buffer, bytes, touch);
    const uint64_t now = NowNs();
    record[done + 2] = now - last;
    last = now;
  }
  record[0] = count;
  record[1] = last - begun;
  if (fwrite(record, sizeof(uint64_t), count + 2, stdout) != count + 2 || fflush(stdout) != 0) {
    Fail(1, "writing the samples failed");
  }
  free(record);
}

static void Serve(unsigned char* buffer, int bytes, int touch) {
  const struct timespec pause = {.tv_sec = 0, .tv_nsec = 1000000};
  for (;;) {
    int arrived = 0;
    MPI_Iprobe(0, kBatchTag, MPI_COMM_WORLD, &arrived, MPI_STATUS_IGNORE);
    if (!arrived) {
      nanosleep(&pause, NULL);
      continue;
    }
    uint64_t round_trips = 0;
    MPI_Recv(&round_trips, 1, MPI_UINT64_T, 0, kBatchTag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    if (round_trips == 0) return;
    for (uint64_t done = 0; done < round_trips; done++) {
      MPI_Recv(buffer, bytes, MPI_BYTE, 0, kDataTag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      if (touch) touch_write(buffer, (size_t)bytes, touch_read(buffer, (size_t)bytes));
      MPI_Send(buffer, bytes, MPI_BYTE, 0, kDataTag, MPI_COMM_WORLD);
    }
  }
}

static void Drive(unsigned char* buffer, int bytes, int touch) {
  printf("ready\n");
  fflush(stdout);
  char line[64];
  while (fgets(line, sizeof(line), stdin) != NULL) {
    char* end = NULL;
    const uint64_t count = strtoull(line, &end, 10);
    if (end == line || *end != '\n' || count == 0 || count > kMaxCount) Fail(2, "expected a line COUNT, 1 or more");
    Measure(buffer, bytes, touch, count);
  }
  Ask(0);
}

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0, ranks = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  char* end = NULL;
  const long bytes = argc >= 3 && strcmp(argv[1], "--bytes") == 0 ? strtol(argv[2], &end, 10) : -1;
  const int touch = argc == 4 && strcmp(argv[3], "--touch") == 0;
  if (argc != 3 + touch || ranks != 2 || end == NULL || *end != '\0' || bytes < 0 || bytes > kMaxBytes) {
    Fail(2, "usage: mpirun -n 2 mpi_ping_pong --bytes N [--touch]");
  }
  unsigned char* buffer = Allocate((size_t)bytes);
  if (rank == 0) {
    Drive(buffer, (int)bytes, touch);
  } else {
    Serve(buffer, (int)bytes, touch);
  }
  free(buffer);
  MPI_Finalize();
  return 0;
}
