// A sweep of Jacobi's method over rows of the grid in the state; see poisson.ts and app.ts.
#include <algorithm>
#include <cstddef>
#include <praas/praas.hpp>

namespace {

/** Numbers in front of the row in the input. */
constexpr std::size_t kHeader = 5;

void SweepRow(double* __restrict next, const double* __restrict row, const double* __restrict source,
              std::size_t width) {
  const double* above = row - width;
  const double* below = row + width;
  for (std::size_t at = 1; at + 1 < width; ++at) {
    const double neighbours = above[at] + below[at] + (row[at - 1] + row[at + 1]);
    next[at] = 0.25 * (neighbours + source[at]);
  }
}

}  // namespace

/**
 * Input, float64: width, grid that is read (0 or 1), first row, row after the last, whether the first row is asked for;
 * then, if the rows above are elsewhere, the last of them. Result: the first row, if it was asked for.
 */
PRAAS_CPP_FUNCTION_WITH(sweep_rows, PRAAS_IDEMPOTENT) {
  const auto input = call.input<double>();
  if (input.size() < kHeader) throw praas::Error(PRAAS_ERR_ARGUMENT_INVALID, "sweep_rows takes at least 5 numbers");
  const auto width = static_cast<std::size_t>(input[0]);
  const bool reads_first = input[1] == 0;
  const auto from = static_cast<std::size_t>(input[2]);
  const auto to = static_cast<std::size_t>(input[3]);
  const bool asked = input[4] != 0;
  const std::size_t given = input.size() - kHeader;
  if (from < 1 || from > to || to >= width || (given != 0 && given != width)) {
    throw praas::Error(PRAAS_ERR_ARGUMENT_INVALID, "there are no such rows");
  }

  const std::size_t count = width * width;
  const auto current = call.array<double>(reads_first ? "grid 0" : "grid 1", count);
  const auto next = call.array<double>(reads_first ? "grid 1" : "grid 0", count);
  const auto source = call.array<double>("source", count);
  if (given != 0) std::copy_n(input.data() + kHeader, width, current.data() + (from - 1) * width);
  for (std::size_t row = from; row < to; ++row) {
    SweepRow(next.data() + row * width, current.data() + row * width, source.data() + row * width, width);
  }
  if (asked) std::copy_n(next.data() + from * width, width, call.output<double>(width).data());
}
