/* How benchmarks read and write whole payloads, the same on every side: as fast as one core does it in plain C. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/** The sum of all bytes, taken as 64-bit words; it has to be used, or reading would be optimised away. */
static inline uint64_t touch_read(const void* data, size_t bytes) {
  const unsigned char* at = (const unsigned char*)data;
  uint64_t sums[4] = {0, 0, 0, 0}; /* independent, so that loads and not additions are waited for */
  for (; bytes >= sizeof sums; bytes -= sizeof sums, at += sizeof sums) {
    uint64_t words[4];
    memcpy(words, at, sizeof words);
    for (int i = 0; i < 4; ++i) sums[i] += words[i];
  }
  for (; bytes > 0; --bytes) sums[0] += *at++;
  return sums[0] + sums[1] + sums[2] + sums[3];
}

/** Writes all bytes. `value`: anything that differs from call to call. */
static inline void touch_write(void* data, size_t bytes, uint64_t value) { memset(data, (int)(value & 0xff), bytes); }
