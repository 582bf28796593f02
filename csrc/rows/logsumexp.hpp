#pragma once

#include <cstdint>

#include "rows/matrix_view.hpp"

namespace rskernels {

// sum = sum of exp((z - max)/T) over a row, so logsumexp(z/T) = max/T + log(sum).
struct RowSum {
  double max;
  double sum;

  // Says whether the row has a softmax; one with NaN or +inf, or of -inf alone, has none.
  bool is_distribution() const;
};

// Sums a row in a fixed order; stops where it can have no softmax.
RowSum row_sum_exp(const MatrixView& logits, std::int64_t row, double temperature);

// Widens columns [begin, begin + count) of a row.
void load(const MatrixView& matrix, std::int64_t row, std::int64_t begin, std::int64_t count,
          double* values);

}  // namespace rskernels
