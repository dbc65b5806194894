#pragma once

/** A European option on a stock without dividends: six float64, as portfolio.ts writes them. */
struct Option {
  double kind;  // 1 for a call, -1 for a put
  double spot;
  double strike;
  double years;       // to expiry, more than 0
  double rate;        // continuously compounded, per year
  double volatility;  // per square root of a year, more than 0
};

/** The Black-Scholes price of one option. */
double Price(const Option& option);
