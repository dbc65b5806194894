/* Amplitude spectra with FFTW, through praas.h. */
#include <fftw3.h>
#include <math.h>
#include <praas/praas.h>
#include <stddef.h>
#include <stdint.h>

/** What the transform of one length needs. */
typedef struct spectrum_plan {
  size_t length;
  double* samples;
  double* window;
  fftw_complex* bins;
  fftw_plan plan;
} spectrum_plan;

/*
 * Kept between calls: planning takes far longer than a transform. Each worker has plans of its own. It runs another
 * invocation only while this one waits for a call, which it never does, so there is nothing to lock.
 */
enum { KEPT_PLANS = 8 };
static spectrum_plan plans[KEPT_PLANS];
static size_t next_plan;

static void destroy(spectrum_plan* kept) {
  if (kept->plan != NULL) fftw_destroy_plan(kept->plan);
  fftw_free(kept->samples);
  fftw_free(kept->window);
  fftw_free(kept->bins);
  *kept = (spectrum_plan){0};
}

/** NULL when there is no memory. */
static const spectrum_plan* make(spectrum_plan* kept, size_t length) {
  destroy(kept);
  kept->samples = fftw_alloc_real(length);
  kept->window = fftw_alloc_real(length);
  kept->bins = fftw_alloc_complex(length / 2 + 1);
  if (kept->samples == NULL || kept->window == NULL || kept->bins == NULL) return NULL;
  /* Tries several algorithms on these arrays, which it overwrites. */
  kept->plan = fftw_plan_dft_r2c_1d((int)length, kept->samples, kept->bins, FFTW_MEASURE);
  if (kept->plan == NULL) return NULL;
  /* Hann's window, scaled so that a sine of amplitude a on a bin gives a there. */
  for (size_t n = 0; n < length; ++n) {
    kept->window[n] = 2.0 / (double)length * (1 - cos(2 * M_PI * (double)n / (double)length));
  }
  kept->length = length;
  return kept;
}

/** The plan for a length, made at the first call with it. How many were made is counted in the state of the process. */
static const spectrum_plan* plan_for(praas_context* context, size_t length) {
  for (size_t i = 0; i < KEPT_PLANS; ++i) {
    if (plans[i].length == length) return &plans[i];
  }
  void* made;
  if (praas_state_array(context, "plans", PRAAS_INT32, 1, &made) == PRAAS_OK) {
    __atomic_fetch_add((int32_t*)made, 1, __ATOMIC_SEQ_CST);
  }
  return make(&plans[next_plan++ % KEPT_PLANS], length);
}

/** Input: n samples, float64. Result: amplitudes of the frequencies 0, 1/n … 1/2 of the sampling rate, float64. */
PRAAS_FUNCTION_WITH(spectrum, PRAAS_IDEMPOTENT) {
  size_t bytes;
  const double* samples = praas_input(context, &bytes);
  const size_t length = bytes / sizeof(double);
  if (length < 2 || length > 1u << 24 || bytes % sizeof(double) != 0) {
    return praas_fail(context, "spectrum takes 2 to 16,777,216 float64, not %zu bytes", bytes);
  }

  const spectrum_plan* kept = plan_for(context, length);
  if (kept == NULL) return praas_fail(context, "there is no memory for a transform of %zu samples", length);
  for (size_t n = 0; n < length; ++n) kept->samples[n] = samples[n] * kept->window[n];
  fftw_execute(kept->plan);

  const size_t count = length / 2 + 1;
  double* amplitudes = praas_output(context, count * sizeof(double));
  if (amplitudes == NULL) return praas_fail(context, "%s", praas_error_message(context));
  for (size_t k = 0; k < count; ++k) amplitudes[k] = hypot(kept->bins[k][0], kept->bins[k][1]);
  return PRAAS_OK;
}
