#pragma once

#include <span>
#include <vector>

#include "envelope/accumulate.hpp"

namespace rskernels {

// Returns log M of each row: the largest of `history` (of the row's group, NaN for none) and the
// valid ratios of the other rows of that group; NaN where there are none.
std::vector<double> leave_one_out(const Batch& batch, std::span<const double> history);

}  // namespace rskernels
