#pragma once

#include <cstdint>

namespace rskernels {

// Weights w = exp(log ratio) are held in units of a power of two, so that none overflows; log
// ratios beyond this, which no power of a double tells apart, weigh as much as it.
inline constexpr double kLogLimit = 0x1p40;

// Returns the least integer e with exp(log_ratio) <= 2^e; 0 for a ratio of 0.
double exponent_of(double log_ratio);

struct WeightSums {
  double weight = 0.0;  // sum of w, in units of 2^exponent
  double square = 0.0;  // sum of w^2, in units of 4^exponent
};

// Weighs the log ratios that are at most `high`, none of which may weigh more than 2^exponent; the
// others, NaN and +inf weigh nothing. A weight has the same mantissa whatever the exponent, so that
// sums do not depend on how rows were batched but for the order of additions. `weight` receives the
// weights, in units of 2^exponent; those below 2^-120 (2^-1000 of a double) are as good as 0.
WeightSums sum_weights(const float* log_ratio, std::int64_t count, double high, double exponent,
                       float* weight);
WeightSums sum_weights(const double* log_ratio, std::int64_t count, double high, double exponent,
                       double* weight);

// Weighs every log ratio and finds the largest in one pass. The sums are NaN if a ratio is, and no
// good if the largest weighs more than 2^exponent.
struct BlockWeights {
  WeightSums sums;
  double top = 0.0;
};
BlockWeights weigh_block(const float* log_ratio, std::int64_t count, double exponent,
                         float* weight);
BlockWeights weigh_block(const double* log_ratio, std::int64_t count, double exponent,
                         double* weight);

// Says whether the float form holds the weights of ratios up to this one to float precision.
bool float_is_enough(double largest_log_ratio);

// Splits exp(log ratio) = fraction * 2^power with a fraction in [0.7, 1.42]. Of NaN and infinities
// the results mean nothing.
void split_weights(const double* log_ratio, std::int64_t count, double* fraction, double* power);

}  // namespace rskernels
