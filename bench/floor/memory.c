#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "floor.h"

static void* map(size_t bytes, int flags) {
  void* memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail("mmap of %zu bytes", bytes);
  memset(memory, 0, bytes);
  return memory;
}

void* allocate(size_t bytes) { return map(bytes, MAP_PRIVATE); }

void* allocate_shared(size_t bytes) { return map(bytes, MAP_SHARED); }
