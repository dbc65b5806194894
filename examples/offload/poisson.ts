/**
 * Poisson's equation −Δu = f on the unit square, u = 0 on its border, by Jacobi's method on n × n points.
 *
 * A grid is `width` = n + 2 rows of as many numbers, the border included; row r starts at r · width.
 */

/** Numbers in front of the row in the input of a sweep; see app.ts. */
export const sweepHeader = 5

/** What every sweep adds: h² · f, for f = 2π² sin(πx) sin(πy). */
export function fillSource(source: Float64Array, width: number): void {
  const h = 1 / (width - 1)
  const sines = Float64Array.from({ length: width }, (_, index) => Math.sin(Math.PI * h * index))
  for (let row = 0; row < width; row++) {
    for (let column = 0; column < width; column++) {
      source[row * width + column] = 2 * (Math.PI * h) ** 2 * sines[row]! * sines[column]!
    }
  }
}

/** One sweep over rows [from, to) of the grid, in the order of operations of sweep.cc. */
export function sweepRows(
  next: Float64Array,
  current: Float64Array,
  source: Float64Array,
  width: number,
  from: number,
  to: number,
): void {
  for (let row = from; row < to; row++) {
    const end = (row + 1) * width - 1
    for (let at = row * width + 1; at < end; at++) {
      const neighbours = current[at - width]! + current[at + width]! + (current[at - 1]! + current[at + 1]!)
      next[at] = 0.25 * (neighbours + source[at]!)
    }
  }
}

/**
 * How far a grid is from what it must be after `sweeps` sweeps from zero, relative to the largest number in it.
 *
 * The source is an eigenvector of the matrix, so there is a formula: a sweep multiplies the distance to the solution of
 * the discrete equations by cos(πh).
 */
export function errorAfter(sweeps: number, grid: Float64Array, width: number): number {
  const h = 1 / (width - 1)
  const solution = (Math.PI * h) ** 2 / (4 * Math.sin((Math.PI * h) / 2) ** 2)
  const height = solution * (1 - Math.cos(Math.PI * h) ** sweeps)
  let error = 0
  for (let row = 0; row < width; row++) {
    for (let column = 0; column < width; column++) {
      const expected = height * Math.sin(Math.PI * h * row) * Math.sin(Math.PI * h * column)
      const difference = Math.abs(grid[row * width + column]! - expected)
      // Not Math.max, and in this order: a NaN must not pass.
      if (!(difference <= error)) error = difference
    }
  }
  return error / height
}
