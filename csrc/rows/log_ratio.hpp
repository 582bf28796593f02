#pragma once

#include <cstdint>
#include <limits>

#include "rows/matrix_view.hpp"
#include "sketches/histogram.hpp"

namespace rskernels {

struct RatioOptions {
  double temperature = 1.0;
  // p_hat is a natural logarithm.
  bool log_space = false;
  bool with_histogram = false;
  int threads = 1;
};

// What the log ratios log p_hat - log q amount to, q = softmax(logits/T). A ratio is invalid where
// the row is no distribution, where p_hat is no finite density, or where q is 0 and p_hat is not.
struct RatioSummary {
  double max_log_ratio = -std::numeric_limits<double>::infinity();
  std::int64_t valid = 0;
  std::int64_t invalid = 0;
  Histogram histogram;

  void merge(const RatioSummary& other);
};

// Summarises the ratio of every entry; p_hat has the shape of logits. The result does not depend on
// the number of threads.
RatioSummary dense_log_ratios(const MatrixView& logits, const MatrixView& p_hat,
                              const RatioOptions& options);

}  // namespace rskernels
