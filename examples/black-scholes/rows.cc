// The same model on the state of the process: options are read, and prices written, where every worker sees them.
#include <cstdint>
#include <praas/praas.hpp>

#include "pricing.h"

/** Prices the options of rows [from, to). Input: from and to, two uint32. No result. */
PRAAS_CPP_FUNCTION(price_rows) {
  const auto range = call.input<std::uint32_t>();
  if (range.size() != 2) throw praas::Error(PRAAS_ERR_ARGUMENT_INVALID, "price_rows takes two uint32: from and to");
  const std::size_t from = range[0];
  const std::size_t to = range[1];

  // As long as TypeScript made it.
  const std::size_t rows = call.state().stat("prices").bytes / sizeof(double);
  if (from > to || to > rows) throw praas::Error(PRAAS_ERR_STATE_RANGE, "there are no such rows");
  const auto prices = call.array<double>("prices", rows);
  const auto fields = call.array<double>("options", rows * sizeof(Option) / sizeof(double));

  const auto* options = reinterpret_cast<const Option*>(fields.data());
  for (std::size_t row = from; row < to; ++row) prices[row] = Price(options[row]);
}
