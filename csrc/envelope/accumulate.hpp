#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "rows/matrix_view.hpp"
#include "sketches/tail.hpp"
#include "sketches/tally.hpp"

namespace rskernels {

// Log ratios as they lie in memory, with a group id each where there is more than one group.
struct Batch {
  const void* log_ratio = nullptr;
  DType dtype = DType::kFloat32;
  std::int64_t count = 0;
  const void* group_ids = nullptr;
  bool ids_are_int32 = false;

  std::int64_t group(std::int64_t row) const {
    if (group_ids == nullptr) return 0;
    return ids_are_int32 ? static_cast<const std::int32_t*>(group_ids)[row]
                         : static_cast<const std::int64_t*>(group_ids)[row];
  }
};

// Rows are read in blocks of this many.
inline constexpr std::int64_t kBatchBlock = 4096;

// Adds rows [begin, end) of a batch of one group that was decided with `M`.
void accumulate(const Batch& batch, std::int64_t begin, std::int64_t end, const InForce& M,
                Tally& tally, Tail& tail);

// Widens rows [begin, begin + count), count at most kBatchBlock.
void load(const Batch& batch, std::int64_t begin, std::int64_t count, double* log_ratio);

// Throws std::out_of_range for an id outside [0, groups).
void check_group_ids(const Batch& batch, std::int64_t groups, int threads);

}  // namespace rskernels
