// What options are worth when prices move, in rFaaS' calling convention; see stress.ts.
#include <cstdint>

#include "../black-scholes/pricing.h"

namespace {

/** The spot moves by -20 % … +20 %, in steps of 2 %. */
constexpr int kSteps = 10;

double MeanPrice(Option option) {
  const double spot = option.spot;
  double sum = 0;
  for (int step = -kSteps; step <= kSteps; ++step) {
    option.spot = spot * (1 + 0.02 * step);
    sum += Price(option);
  }
  return sum / (2 * kSteps + 1);
}

}  // namespace

/** args: `size` bytes of Option. res: the mean of each one's prices, float64. Returns the bytes of the result. */
extern "C" uint32_t stress(void* args, uint32_t size, void* res) {
  const auto* options = static_cast<const Option*>(args);
  auto* means = static_cast<double*>(res);
  const uint32_t count = size / sizeof(Option);
  for (uint32_t i = 0; i < count; ++i) means[i] = MeanPrice(options[i]);
  return count * sizeof(double);
}
