#include "envelope/accumulate.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "rows/block.hpp"
#include "rows/elementary.hpp"
#include "rows/simd.hpp"
#include "sketches/weights.hpp"
#include "threads/thread_pool.hpp"

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <class Element>
using Wide = std::conditional_t<std::is_same_v<Element, double>, double, float>;

template <class Element, class Real>
RSKERNELS_INLINE void widen_all(const Element* from, std::int64_t count, Real* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<Real>(widen(from[i]));
}

#define RSKERNELS_WIDEN(Element, Real)                                  \
  RSKERNELS_TARGET_CLONES                                               \
  void widen_block(const Element* from, std::int64_t count, Real* to) { \
    widen_all(from, count, to);                                         \
  }
RSKERNELS_WIDEN(BFloat16, float)
RSKERNELS_WIDEN(Float16, float)
RSKERNELS_WIDEN(BFloat16, double)
RSKERNELS_WIDEN(Float16, double)
RSKERNELS_WIDEN(float, double)
#undef RSKERNELS_WIDEN

void widen_block(const double* from, std::int64_t count, double* to) {
  std::copy_n(from, count, to);
}

struct Extent {
  double top = -kInfinity;
  std::int64_t valid = 0;
};

template <class Real>
RSKERNELS_INLINE Extent extent_of(const Real* x, std::int64_t count) {
  constexpr Real kTop = std::numeric_limits<Real>::infinity();
  constexpr std::int64_t lanes = kLanes<Real>;
  using Int = std::conditional_t<sizeof(Real) == 4, std::int32_t, std::int64_t>;
  Real top[lanes];
  Int valid[lanes] = {};
  for (std::int64_t l = 0; l < lanes; ++l) top[l] = -kTop;
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (std::int64_t l = 0; l < lanes; ++l) {
      const Real value = x[i + l] < kTop ? x[i + l] : -kTop;
      top[l] = value > top[l] ? value : top[l];
      valid[l] += x[i + l] < kTop ? 1 : 0;
    }
  }
  Extent extent;
  for (; i < count; ++i) {
    if (!(x[i] < kTop)) continue;
    ++extent.valid;
    extent.top = std::max(extent.top, static_cast<double>(x[i]));
  }
  for (std::int64_t l = 0; l < lanes; ++l) {
    extent.valid += valid[l];
    extent.top = std::max(extent.top, static_cast<double>(top[l]));
  }
  return extent;
}

RSKERNELS_TARGET_CLONES
Extent block_extent(const float* x, std::int64_t count) { return extent_of(x, count); }

RSKERNELS_TARGET_CLONES
Extent block_extent(const double* x, std::int64_t count) { return extent_of(x, count); }

struct Excess {
  std::int64_t violations = 0;
  double mass = 0.0;
};

// The rows above M: their number and what they exceed it by, in the unit of `weight`.
template <class Real>
RSKERNELS_INLINE Excess excess_of(const Real* x, const Real* weight, std::int64_t count,
                                  double log_M, double M) {
  constexpr std::int64_t lanes = 16;
  double mass[lanes] = {};
  std::int64_t violations[lanes] = {};
  Excess excess;
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (std::int64_t l = 0; l < lanes; ++l) {
      const double value = x[i + l];
      const double above = weight[i + l] > M ? weight[i + l] - M : 0.0;
      // Invalid rows have no weight, so they add no mass.
      mass[l] += value > log_M ? above : 0.0;
      violations[l] += ((value > log_M) & (value < kInfinity)) ? 1 : 0;
    }
  }
  for (; i < count; ++i) {
    const double value = x[i];
    if (!(value > log_M && value < kInfinity)) continue;
    ++excess.violations;
    excess.mass += std::max(weight[i] - M, 0.0);
  }
  for (std::int64_t l = 0; l < lanes; ++l) {
    excess.violations += violations[l];
    excess.mass += mass[l];
  }
  return excess;
}

RSKERNELS_TARGET_CLONES
Excess block_excess(const float* x, const float* weight, std::int64_t count, double log_M,
                    double M) {
  return excess_of(x, weight, count, log_M, M);
}

RSKERNELS_TARGET_CLONES
Excess block_excess(const double* x, const double* weight, std::int64_t count, double log_M,
                    double M) {
  return excess_of(x, weight, count, log_M, M);
}

template <class Real>
RSKERNELS_INLINE bool has_above(const Real* x, std::int64_t count, double threshold) {
  using Int = std::conditional_t<sizeof(Real) == 4, std::int32_t, std::int64_t>;
  // Rounded down, so that none is missed.
  Real least = static_cast<Real>(threshold);
  if (least > threshold) least = std::nextafter(least, -std::numeric_limits<Real>::infinity());
  Int any = 0;
  for (std::int64_t i = 0; i < count; ++i) any |= x[i] > least ? 1 : 0;
  return any != 0;
}

RSKERNELS_TARGET_CLONES
bool any_above(const float* x, std::int64_t count, double threshold) {
  return has_above(x, count, threshold);
}

RSKERNELS_TARGET_CLONES
bool any_above(const double* x, std::int64_t count, double threshold) {
  return has_above(x, count, threshold);
}

// The unit that the ratios of a block most often fit: that of M, with room for what violates it.
constexpr double kRoom = 8.0;
// A weight so far below the unit still has all its bits.
constexpr double kFarthest = 48.0;

template <class Real>
void add_weights(const Real* x, std::int64_t count, const Extent& extent, const WeightSums& sums,
                 double exponent, const InForce& M, Real* weight, Tally& tally, Tail& tail) {
  tally.seen += count;
  tally.invalid += count - extent.valid;
  if (M.decides()) tally.decided += extent.valid;
  tally.raise_to(extent.top);
  const double unit = std::exp2(std::max(exponent - tally.exponent, -1100.0));
  tally.weight += sums.weight * unit;
  tally.square += sums.square * (unit * unit);
  if (M.decides()) tally.decided_weight += sums.weight * unit;
  if (M.is_exceeded_by(extent.top)) {
    const Excess excess = block_excess(x, weight, count, M.log_M, M.in_units(exponent));
    tally.violations += excess.violations;
    tally.excess += excess.mass * unit;
    const WeightSums below = sum_weights(x, count, M.log_M, M.exponent, weight);
    tally.expected += static_cast<double>(excess.violations) + below.weight * M.inverse;
  } else if (M.decides()) {
    tally.expected += M.over_M(sums.weight, exponent);
  }
  // Few blocks hold more than a handful that the tail takes.
  constexpr auto kStretch = static_cast<std::int64_t>(Tail::kTogether);
  for (std::int64_t begin = 0; extent.top > tail.threshold() && begin < count; begin += kStretch) {
    const std::int64_t end = std::min(begin + kStretch, count);
    if (!any_above(x + begin, end - begin, tail.threshold())) continue;
    tail.add(x + begin, static_cast<std::size_t>(end - begin));
  }
}

template <class Real>
void add_block(const Real* x, std::int64_t count, const InForce& M, Tally& tally, Tail& tail) {
  alignas(64) Real weight[kBatchBlock];
  constexpr bool is_float = std::is_same_v<Real, float>;
  if (M.decides() && (!is_float || float_is_enough(M.log_M))) {
    const double exponent = M.exponent + kRoom;
    const BlockWeights block = weigh_block(x, count, exponent, weight);
    const double needed = exponent_of(block.top);
    const bool fits = needed <= exponent && needed >= exponent - kFarthest;
    // NaN is seen in the sums, +inf in the largest.
    if (fits && std::abs(block.top) < kInfinity && !std::isnan(block.sums.weight)) {
      add_weights(x, count, {block.top, count}, block.sums, exponent, M, weight, tally, tail);
      return;
    }
  }
  const Extent extent = block_extent(x, count);
  if (extent.top == -kInfinity) {
    tally.seen += count;
    tally.invalid += count - extent.valid;
    if (M.decides()) tally.decided += extent.valid;
    return;
  }
  if constexpr (is_float) {
    const bool is_violated = M.is_exceeded_by(extent.top);
    if (!float_is_enough(extent.top) || (is_violated && !float_is_enough(M.log_M))) {
      alignas(64) double wide[kBatchBlock];
      widen_block(x, count, wide);
      add_block(wide, count, M, tally, tail);
      return;
    }
  }
  const double exponent = exponent_of(extent.top);
  const WeightSums sums = sum_weights(x, count, std::numeric_limits<Real>::max(), exponent, weight);
  add_weights(x, count, extent, sums, exponent, M, weight, tally, tail);
}

template <class Id>
RSKERNELS_INLINE bool any_outside(const Id* ids, std::int64_t count, std::int64_t groups) {
  int outside = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto id = static_cast<std::uint64_t>(std::int64_t{ids[i]});
    outside |= id >= static_cast<std::uint64_t>(groups) ? 1 : 0;
  }
  return outside != 0;
}

RSKERNELS_TARGET_CLONES
bool outside(const std::int64_t* ids, std::int64_t count, std::int64_t groups) {
  return any_outside(ids, count, groups);
}

RSKERNELS_TARGET_CLONES
bool outside(const std::int32_t* ids, std::int64_t count, std::int64_t groups) {
  return any_outside(ids, count, groups);
}

}  // namespace

void load(const Batch& batch, std::int64_t begin, std::int64_t count, double* log_ratio) {
  dispatch(batch.dtype, [&](const auto* element) {
    using Element = std::remove_cvref_t<decltype(*element)>;
    widen_block(static_cast<const Element*>(batch.log_ratio) + begin, count, log_ratio);
  });
}

void accumulate(const Batch& batch, std::int64_t begin, std::int64_t end, const InForce& M,
                Tally& tally, Tail& tail) {
  dispatch(batch.dtype, [&](const auto* element) {
    using Element = std::remove_cvref_t<decltype(*element)>;
    const auto* values = static_cast<const Element*>(batch.log_ratio);
    for (; begin < end; begin += kBatchBlock) {
      const std::int64_t count = std::min(kBatchBlock, end - begin);
      if constexpr (std::is_floating_point_v<Element>) {
        add_block(values + begin, count, M, tally, tail);
      } else {
        alignas(64) float wide[kBatchBlock];
        widen_block(values + begin, count, wide);
        add_block(wide, count, M, tally, tail);
      }
    }
  });
}

void check_group_ids(const Batch& batch, std::int64_t groups, int threads) {
  if (batch.group_ids == nullptr) return;
  constexpr std::int64_t kChunk = 1 << 18;
  std::atomic<bool> any_bad{false};
  ThreadPool::instance().parallel_for(
      batch.count, kChunk, threads, [&](std::int64_t begin, std::int64_t end) {
        const bool bad = batch.ids_are_int32
                             ? outside(static_cast<const std::int32_t*>(batch.group_ids) + begin,
                                       end - begin, groups)
                             : outside(static_cast<const std::int64_t*>(batch.group_ids) + begin,
                                       end - begin, groups);
        if (bad) any_bad.store(true, std::memory_order_relaxed);
      });
  if (!any_bad) return;
  for (std::int64_t row = 0; row < batch.count; ++row) {
    const std::int64_t id = batch.group(row);
    if (id < 0 || id >= groups) {
      throw std::out_of_range("group id " + std::to_string(id) + " of row " + std::to_string(row) +
                              " is outside [0, " + std::to_string(groups) + ")");
    }
  }
}

}  // namespace rskernels
