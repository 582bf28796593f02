#include "accumulate.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "block.hpp"
#include "elementary.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"
#include "weights.hpp"

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
void add_block(const Real* x, std::int64_t count, const InForce& M, Tally& tally, Tail& tail) {
  const Extent extent = block_extent(x, count);
  if constexpr (std::is_same_v<Real, float>) {
    const bool is_violated = extent.top > M.log_M;
    if (!float_is_enough(extent.top) || (is_violated && !float_is_enough(M.log_M))) {
      if (extent.top > -kInfinity) {
        alignas(64) double wide[kBatchBlock];
        widen_block(x, count, wide);
        add_block(wide, count, M, tally, tail);
        return;
      }
    }
  }
  tally.seen += count;
  tally.invalid += count - extent.valid;
  if (M.decides()) tally.decided += extent.valid;
  if (extent.top == -kInfinity) return;

  alignas(64) Real weight[kBatchBlock];
  const double exponent = exponent_of(extent.top);
  const WeightSums sums = sum_weights(x, count, std::numeric_limits<Real>::max(), exponent, weight);
  tally.raise_to(extent.top);
  const double unit = std::exp2(std::max(exponent - tally.exponent, -1100.0));
  tally.weight += sums.weight * unit;
  tally.square += sums.square * (unit * unit);
  if (M.decides()) tally.decided_weight += sums.weight * unit;
  if (extent.top > M.log_M) {
    const Excess excess = block_excess(x, weight, count, M.log_M, M.in_units(exponent));
    tally.violations += excess.violations;
    if (M.decides()) {
      tally.excess += excess.mass * unit;
      const WeightSums below = sum_weights(x, count, M.log_M, M.exponent, weight);
      tally.expected += static_cast<double>(excess.violations) + below.weight * M.inverse;
    }
  } else if (M.decides()) {
    tally.expected += M.over_M(sums.weight, exponent);
  }
  if (extent.top > tail.threshold()) {
    for (std::int64_t i = 0; i < count; ++i) {
      const double value = x[i];
      if (value > tail.threshold() && value < kInfinity) tail.add(value);
    }
  }
}

// 2^power for an integer power; 0 below the normal numbers.
double two_to(double power) {
  const auto biased = static_cast<std::int64_t>(std::max(power, -1023.0)) + 1023;
  return std::bit_cast<double>(static_cast<std::uint64_t>(std::min<std::int64_t>(biased, 2046))
                               << 52);
}

struct Gathered {
  alignas(64) double log_ratio[kBatchBlock];
  alignas(64) double fraction[kBatchBlock];
  alignas(64) double power[kBatchBlock];
  std::int64_t group[kBatchBlock];
};

// Groups this many rows on are fetched meanwhile: they come from anywhere.
constexpr std::int64_t kAhead = 12;

void scatter(const Gathered& rows, std::int64_t count, std::span<GroupTally> groups,
             std::span<Tail> tails, Tail& tail, std::vector<std::int64_t>& touched) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (i + kAhead < count) {
      const auto next = static_cast<std::size_t>(rows.group[i + kAhead]);
      const char* tally = reinterpret_cast<const char*>(&groups[next]);
      for (std::size_t line = 0; line < sizeof(GroupTally); line += 64) {
        __builtin_prefetch(tally + line, 1, 3);
      }
      if (!tails.empty()) __builtin_prefetch(&tails[next], 0, 3);
    }
    const auto id = static_cast<std::size_t>(rows.group[i]);
    GroupTally& group = groups[id];
    Tally& tally = group.tally;
    if (!group.touched) {
      group.touch();
      touched.push_back(rows.group[i]);
    }
    ++tally.seen;
    const double log_ratio = rows.log_ratio[i];
    if (!(log_ratio < kInfinity)) {
      ++tally.invalid;
      continue;
    }
    const bool decides = group.M.decides();
    tally.decided += decides ? 1 : 0;
    if (log_ratio == -kInfinity) continue;
    if (log_ratio > tally.max_log_ratio) tally.raise_to(log_ratio);
    const double w = rows.fraction[i] * two_to(rows.power[i] - tally.exponent);
    tally.weight += w;
    tally.square += w * w;
    if (log_ratio > group.M.log_M) {
      ++tally.violations;
      if (decides) {
        tally.excess += std::max(w - group.M.in_units(tally.exponent), 0.0);
        tally.expected += 1.0;
      }
    } else if (decides) {
      tally.expected +=
          rows.fraction[i] * two_to(rows.power[i] - group.M.exponent) * group.M.inverse;
    }
    if (decides) tally.decided_weight += w;
    if (!tails.empty()) tails[id].add(log_ratio);
    tail.add(log_ratio);
  }
}

template <class Id>
std::int64_t gather(const Id* ids, const double* log_ratio, std::int64_t count, std::int64_t first,
                    std::int64_t last, Gathered& rows) {
  std::int64_t kept = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t id = ids[i];
    rows.group[kept] = id;
    rows.log_ratio[kept] = log_ratio[i];
    kept += id >= first && id < last ? 1 : 0;
  }
  return kept;
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

void accumulate(const Batch& batch, std::int64_t first, std::int64_t last,
                std::span<GroupTally> groups, std::span<Tail> tails, Tail& tail,
                std::vector<std::int64_t>& touched) {
  Gathered rows;
  alignas(64) double wide[kBatchBlock];
  for (std::int64_t begin = 0; begin < batch.count; begin += kBatchBlock) {
    const std::int64_t count = std::min(kBatchBlock, batch.count - begin);
    load(batch, begin, count, wide);
    const std::int64_t kept =
        batch.ids_are_int32 ? gather(static_cast<const std::int32_t*>(batch.group_ids) + begin,
                                     wide, count, first, last, rows)
                            : gather(static_cast<const std::int64_t*>(batch.group_ids) + begin,
                                     wide, count, first, last, rows);
    split_weights(rows.log_ratio, kept, rows.fraction, rows.power);
    scatter(rows, kept, groups, tails, tail, touched);
  }
}

void check_group_ids(const Batch& batch, std::int64_t groups, int threads) {
  if (batch.group_ids == nullptr) return;
  constexpr std::int64_t kChunk = 1 << 18;
  std::atomic<bool> found{false};
  ThreadPool::instance().parallel_for(
      batch.count, kChunk, threads, [&](std::int64_t begin, std::int64_t end) {
        const bool bad = batch.ids_are_int32
                             ? outside(static_cast<const std::int32_t*>(batch.group_ids) + begin,
                                       end - begin, groups)
                             : outside(static_cast<const std::int64_t*>(batch.group_ids) + begin,
                                       end - begin, groups);
        if (bad) found.store(true, std::memory_order_relaxed);
      });
  if (!found) return;
  for (std::int64_t row = 0; row < batch.count; ++row) {
    const std::int64_t id = batch.group(row);
    if (id < 0 || id >= groups) {
      throw std::out_of_range("group id " + std::to_string(id) + " of row " + std::to_string(row) +
                              " is outside [0, " + std::to_string(groups) + ")");
    }
  }
}

}  // namespace rskernels
