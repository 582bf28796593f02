#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "rows/elementary.hpp"
#include "rows/simd.hpp"

namespace rskernels {

// Rows are reduced in blocks of this many columns, whatever the threads.
inline constexpr std::int64_t kBlockColumns = 4096;

// Partial results of a block, a power of two so that every vector width combines the same ones.
template <class Real>
inline constexpr std::int64_t kLanes = 128 / static_cast<std::int64_t>(sizeof(Real));

// The largest element that is not NaN, -inf if there is none.
template <class Real>
RSKERNELS_INLINE Real block_max(const Real* values, std::int64_t count) {
  constexpr std::int64_t lanes = kLanes<Real>;
  constexpr Real kLowest = -std::numeric_limits<Real>::infinity();
  Real lane[lanes];
  for (std::int64_t l = 0; l < lanes; ++l) lane[l] = kLowest;
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (std::int64_t l = 0; l < lanes; ++l) {
      lane[l] = values[i + l] > lane[l] ? values[i + l] : lane[l];
    }
  }
  Real top = kLowest;
  for (; i < count; ++i) top = values[i] > top ? values[i] : top;
  for (std::int64_t l = 0; l < lanes; ++l) top = lane[l] > top ? lane[l] : top;
  return top;
}

// Sum of 2^((z - top) scale). `next` is the address of the next block, fetched while the arithmetic
// of this one runs: from its quarters in turn, since the hardware follows several pages faster than
// one.
template <std::size_t kElementBytes, class Real>
RSKERNELS_INLINE Real block_sum_exp2(const Real* z, std::int64_t count, Real top, Real scale,
                                     std::uintptr_t next) {
  constexpr std::int64_t lanes = kLanes<Real>;
  constexpr std::int64_t kStepBytes = lanes * static_cast<std::int64_t>(kElementBytes);
  constexpr std::int64_t kQuarter = kBlockColumns * static_cast<std::int64_t>(kElementBytes) / 4;
  constexpr std::uintptr_t kCacheLine = 64;
  Real lane[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const std::int64_t step = i / lanes;
    const std::uintptr_t ahead =
        next + static_cast<std::uintptr_t>(step % 4 * kQuarter + step / 4 * kStepBytes);
    for (std::uintptr_t byte = 0; byte < kStepBytes; byte += kCacheLine) {
      __builtin_prefetch(reinterpret_cast<const void*>(ahead + byte), 0, 2);
    }
    for (std::int64_t l = 0; l < lanes; ++l) {
      lane[l] += exp2_nonpositive((z[i + l] - top) * scale);
    }
  }
  Real sum = 0;
  for (; i < count; ++i) sum += exp2_nonpositive((z[i] - top) * scale);
  for (std::int64_t l = 0; l < lanes; ++l) sum += lane[l];
  return sum;
}

}  // namespace rskernels
