#pragma once

#include <cstdint>
#include <vector>

#include "sketches/tail.hpp"

namespace rskernels {

// What the largest ratios exceed a threshold by.
struct Exceedances {
  // Ascending and positive, in units of the largest ratio.
  std::vector<double> values;
  double threshold = 0.0;
  double max_log_ratio = 0.0;
  // Whether one positive ratio fills the whole tail.
  bool is_atom = false;
};

// Returns how many of S valid ratios make up the tail: ceil(3 sqrt S), or S/5 below 226 (Vehtari et
// al. 2024).
std::int64_t tail_length(std::int64_t valid);

// Returns what the tail exceeds its threshold by: fewer than 5 values where not that many ratios
// are above the threshold, or they are not held.
Exceedances exceedances(const Tail& tail, std::int64_t valid);

// Returns the shape k of the generalised Pareto law of the exceedances, estimated as by Zhang &
// Stephens (2009) with the prior of Vehtari et al. (2024), 10 observations of k = 1/2; NaN for
// fewer than 5.
double pareto_shape(const Exceedances& tail);

// The end of a generalised Pareto tail of shape k < 0, threshold + sigma/|k|, as log ratios:
// maximum likelihood under k >= -1, and the interval of the likelihood ratio at 95 % (Coles
// 2001, 2.6.6). Where k < -1/2 likelihood is irregular (Smith 1985), and the interval takes
// chi-squared of 2 degrees of freedom, exact at k = -1 and wide beyond. `upper` is +inf where the
// sample does not exclude an infinite end at 97.5 %, `estimate` where the most likely shape is not
// negative.
struct Endpoint {
  double estimate;
  double lower;
  double upper;
  double shape;
};
Endpoint endpoint(const Exceedances& tail);

}  // namespace rskernels
