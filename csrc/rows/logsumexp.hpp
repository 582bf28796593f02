#pragma once

#include <cstdint>

#include "rows/matrix_view.hpp"

namespace rskernels {

// sum = sum of exp((z - max)/T) over a row, so logsumexp(z/T) = max/T + log(sum).
struct RowSum {
  double max;
  double sum;

  // False for a row with NaN or +inf, or of -inf alone.
  bool is_distribution() const;
};

RowSum row_sum_exp(const MatrixView& logits, std::int64_t row, double temperature);

// Widens columns [begin, begin + count) of a row.
void load(const MatrixView& matrix, std::int64_t row, std::int64_t begin, std::int64_t count,
          double* values);

}  // namespace rskernels
