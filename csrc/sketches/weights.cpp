#include "sketches/weights.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "rows/block.hpp"
#include "rows/elementary.hpp"
#include "rows/simd.hpp"

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLog2e = 0x1.71547652b82fep0;

template <class Real>
struct Law;

// ln 2 in two parts: the first has few enough bits that whole multiples of it are exact.
template <>
struct Law<float> {
  using Int = std::int32_t;
  static constexpr float kLn2High = 0x1.63p-1f;
  static constexpr float kLn2Low = -0x1.bd0106p-13f;
  static constexpr float kShift = 0x1.8p23f;
  static constexpr double kLowest = -121.0;
  static constexpr int kBias = 127;
  static constexpr int kMantissaBits = 23;
};

template <>
struct Law<double> {
  using Int = std::int64_t;
  static constexpr double kLn2High = 0x1.62e42ffp-1;
  static constexpr double kLn2Low = -0x1.718432a1b0e26p-35;
  static constexpr double kShift = 0x1.8p52;
  static constexpr double kLowest = -1001.0;
  static constexpr int kBias = 1023;
  static constexpr int kMantissaBits = 52;
};

// e^r for r in [-ln 2 / 2, ln 2 / 2], as `exp2_fraction`; relative error 1.8e-8 before rounding.
RSKERNELS_INLINE float exp_fraction(float r) {
  float p = 0x1.6ae6d8p-10f;
  p = p * r + 0x1.1267dap-7f;
  p = p * r + 0x1.555824p-5f;
  p = p * r + 0x1.555418p-3f;
  p = p * r + 0x1.fffffcp-2f;
  p = p * r + 1.0f;
  return p * r + 1.0f;
}

RSKERNELS_INLINE double exp_fraction(double r) { return exp2_fraction(r * kLog2e); }

// exp(x) without its power of two, which `shifted` holds in its low bits.
template <class Real>
RSKERNELS_INLINE Real fraction_of(Real x, Real& shifted) {
  shifted = x * static_cast<Real>(kLog2e) + Law<Real>::kShift;
  const Real n = shifted - Law<Real>::kShift;
  const Real rest = (x - n * Law<Real>::kLn2High) - n * Law<Real>::kLn2Low;
  return exp_fraction(rest);
}

// The largest Real that is at most `value`.
template <class Real>
Real round_down(double value) {
  const Real near = static_cast<Real>(std::min(value, double{std::numeric_limits<Real>::max()}));
  return near <= value ? near : std::nextafter(near, -std::numeric_limits<Real>::infinity());
}

template <class Real>
struct Weighing {
  using Int = typename Law<Real>::Int;
  Real high;
  Real low;
  Real limit;
  Int zero;

  // NaN weighs nothing, nor does what is above `high`.
  RSKERNELS_INLINE Real operator()(Real log_ratio) const {
    const Real weight = unchecked(log_ratio > low ? log_ratio : low);
    return log_ratio <= high ? weight : Real{0};
  }

  // NaN weighs NaN.
  RSKERNELS_INLINE Real unchecked(Real log_ratio) const {
    Real x = log_ratio < low ? low : log_ratio;
    // A float is in range; one that is not is not kept.
    if constexpr (sizeof(Real) == sizeof(double)) x = x > limit ? limit : x;
    Real shifted;
    const Real fraction = fraction_of(x, shifted);
    const Int power = std::bit_cast<Int>(shifted) - zero;
    return fraction * std::bit_cast<Real>(power << Law<Real>::kMantissaBits);
  }
};

// What follows in memory is asked for meanwhile: most often it is the next block.
template <class Real>
RSKERNELS_INLINE void prefetch_past(const Real* next, std::int64_t lanes) {
  constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(Real));
  for (std::int64_t line = 0; line < lanes; line += kLine) {
    __builtin_prefetch(next + line, 0, 2);
  }
}

template <class Real>
RSKERNELS_INLINE void weigh(const Real* __restrict log_ratio, std::int64_t count,
                            const Weighing<Real>& law, Real* __restrict weight) {
  constexpr std::int64_t lanes = kLanes<Real>;
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    prefetch_past(log_ratio + count + i, lanes);
    for (std::int64_t l = 0; l < lanes; ++l) weight[i + l] = law(log_ratio[i + l]);
  }
  for (; i < count; ++i) weight[i] = law(log_ratio[i]);
}

template <class Real>
RSKERNELS_INLINE WeightSums add_up(const Real* weight, std::int64_t count) {
  constexpr std::int64_t lanes = 32;
  double sum[lanes] = {};
  double square[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (std::int64_t l = 0; l < lanes; ++l) {
      const double w = weight[i + l];
      sum[l] += w;
      square[l] += w * w;
    }
  }
  WeightSums sums;
  for (; i < count; ++i) {
    const double w = weight[i];
    sums.weight += w;
    sums.square += w * w;
  }
  for (std::int64_t l = 0; l < lanes; ++l) {
    sums.weight += sum[l];
    sums.square += square[l];
  }
  return sums;
}

template <class Real>
RSKERNELS_INLINE Weighing<Real> weighing(double high, double exponent) {
  using Int = typename Law<Real>::Int;
  const double low = std::max(-kLogLimit, (exponent + Law<Real>::kLowest) / kLog2e);
  const double limit = std::min(kLogLimit, exponent / kLog2e);
  const Int zero =
      std::bit_cast<Int>(Law<Real>::kShift) + static_cast<Int>(exponent) - Law<Real>::kBias;
  return {round_down<Real>(high), static_cast<Real>(low), static_cast<Real>(limit), zero};
}

template <class Real>
RSKERNELS_INLINE WeightSums weigh_and_add(const Real* __restrict log_ratio, std::int64_t count,
                                          double high, double exponent, Real* __restrict weight) {
  weigh(log_ratio, count, weighing<Real>(high, exponent), weight);
  return add_up(weight, count);
}

template <class Real>
RSKERNELS_INLINE BlockWeights weigh_all(const Real* __restrict log_ratio, std::int64_t count,
                                        double exponent, Real* __restrict weight) {
  constexpr std::int64_t lanes = kLanes<Real>;
  const Weighing<Real> law = weighing<Real>(kInfinity, exponent);
  Real top[lanes];
  for (std::int64_t l = 0; l < lanes; ++l) top[l] = -std::numeric_limits<Real>::infinity();
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    prefetch_past(log_ratio + count + i, lanes);
    for (std::int64_t l = 0; l < lanes; ++l) {
      const Real x = log_ratio[i + l];
      top[l] = x > top[l] ? x : top[l];
      weight[i + l] = law.unchecked(x);
    }
  }
  for (std::int64_t l = 0; i < count; ++i, ++l) {
    const Real x = log_ratio[i];
    top[l] = x > top[l] ? x : top[l];
    weight[i] = law.unchecked(x);
  }
  BlockWeights block;
  block.sums = add_up(weight, count);
  block.top = static_cast<double>(*std::max_element(top, top + lanes));
  return block;
}

}  // namespace

double exponent_of(double log_ratio) {
  if (log_ratio == -kInfinity) return 0.0;
  return std::ceil(std::clamp(log_ratio, -kLogLimit, kLogLimit) * kLog2e);
}

bool float_is_enough(double largest_log_ratio) { return std::abs(largest_log_ratio) < 0x1p13; }

RSKERNELS_TARGET_CLONES
WeightSums sum_weights(const float* log_ratio, std::int64_t count, double high, double exponent,
                       float* weight) {
  return weigh_and_add(log_ratio, count, high, exponent, weight);
}

RSKERNELS_TARGET_CLONES
WeightSums sum_weights(const double* log_ratio, std::int64_t count, double high, double exponent,
                       double* weight) {
  return weigh_and_add(log_ratio, count, high, exponent, weight);
}

RSKERNELS_TARGET_CLONES
BlockWeights weigh_block(const float* log_ratio, std::int64_t count, double exponent,
                         float* weight) {
  return weigh_all(log_ratio, count, exponent, weight);
}

RSKERNELS_TARGET_CLONES
BlockWeights weigh_block(const double* log_ratio, std::int64_t count, double exponent,
                         double* weight) {
  return weigh_all(log_ratio, count, exponent, weight);
}

RSKERNELS_TARGET_CLONES
void split_weights(const double* log_ratio, std::int64_t count, double* fraction, double* power) {
  for (std::int64_t i = 0; i < count; ++i) {
    double x = log_ratio[i] > -kLogLimit ? log_ratio[i] : -kLogLimit;
    x = x < kLogLimit ? x : kLogLimit;
    double shifted;
    fraction[i] = fraction_of(x, shifted);
    power[i] = shifted - Law<double>::kShift;
  }
}

}  // namespace rskernels
