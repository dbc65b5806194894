// The model, and a function in rFaaS' calling convention: plain C++, nothing of praas is included.
#include "pricing.h"

#include <cmath>
#include <cstdint>

namespace {

constexpr double kInverseSqrt2 = 0.70710678118654752440;

/** The normal distribution function. By erfc, because 1 + erf would lose the lower tail to rounding. */
double NormalCdf(double x) { return 0.5 * std::erfc(-x * kInverseSqrt2); }

}  // namespace

double Price(const Option& option) {
  const double deviation = option.volatility * std::sqrt(option.years);
  const double d1 = (std::log(option.spot / option.strike) + option.rate * option.years) / deviation + deviation / 2;
  const double d2 = d1 - deviation;
  const double discounted_strike = option.strike * std::exp(-option.rate * option.years);
  return option.kind * (option.spot * NormalCdf(option.kind * d1) - discounted_strike * NormalCdf(option.kind * d2));
}

/** args: `size` bytes of Option. res: their prices, float64. Returns the bytes of the result. */
extern "C" uint32_t price(void* args, uint32_t size, void* res) {
  const auto* options = static_cast<const Option*>(args);
  auto* prices = static_cast<double*>(res);
  const uint32_t count = size / sizeof(Option);
  for (uint32_t i = 0; i < count; ++i) prices[i] = Price(options[i]);
  return count * sizeof(double);
}
