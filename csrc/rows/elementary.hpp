#pragma once

#include <bit>
#include <cstdint>
#include <limits>

#include "rows/matrix_view.hpp"
#include "rows/simd.hpp"

// Scalar functions without branches, so that the loops that call them vectorise.

namespace rskernels {

RSKERNELS_INLINE float widen(float value) { return value; }

RSKERNELS_INLINE double widen(double value) { return value; }

RSKERNELS_INLINE float widen(BFloat16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

RSKERNELS_INLINE float widen(Float16 value) {
  constexpr std::uint32_t kRebias = 112u << 23;
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000u) << 16;
  const std::uint32_t exponent = value.bits & 0x7C00u;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(value.bits & 0x7FFFu) << 13;
  const std::uint32_t normal = magnitude + kRebias + (exponent == 0x7C00u ? kRebias : 0u);
  // A subnormal is the excess over 2^-14 once its bits stand behind that exponent.
  const float subnormal = std::bit_cast<float>(magnitude + kRebias + (1u << 23)) - 0x1p-14f;
  const std::uint32_t bits = exponent == 0 ? std::bit_cast<std::uint32_t>(subnormal) : normal;
  return std::bit_cast<float>(bits | sign);
}

// 2^f for f in [-1/2, 1/2]: minimax polynomial with p(0) = 1, relative error 2.6e-9 before
// rounding.
RSKERNELS_INLINE float exp2_fraction(float f) {
  float p = 0x1.470b4ap-13f;
  p = p * f + 0x1.5f7276p-10f;
  p = p * f + 0x1.3b270ep-7f;
  p = p * f + 0x1.c6ae72p-5f;
  p = p * f + 0x1.ebfbe2p-3f;
  p = p * f + 0x1.62e432p-1f;
  return p * f + 1.0f;
}

// Likewise, relative error 1.8e-17 before rounding.
RSKERNELS_INLINE double exp2_fraction(double f) {
  double p = 0x1.c063cb093bfeap-32;
  p = p * f + 0x1.e605f861a83f9p-28;
  p = p * f + 0x1.b541675af5760p-24;
  p = p * f + 0x1.62bfd49f6430ap-20;
  p = p * f + 0x1.ffcbee3b3a185p-17;
  p = p * f + 0x1.4309130960e41p-13;
  p = p * f + 0x1.5d87fe7bbbd33p-10;
  p = p * f + 0x1.3b2ab6fba1e1dp-7;
  p = p * f + 0x1.c6b08d7048f32p-5;
  p = p * f + 0x1.ebfbdff82c598p-3;
  p = p * f + 0x1.62e42fefa39f3p-1;
  return p * f + 1.0;
}

// 2^t for t <= 0; below 2^-125 the result is anything up to 2^-125. NaN gives NaN.
RSKERNELS_INLINE float exp2_nonpositive(float t) {
  // Adding it leaves round(t) + 127, the exponent field of 2^round(t), in the lowest bits.
  constexpr float kShift = 0x1.8p23f + 127.0f;
  t = t < -125.0f ? -125.0f : t;
  const float shifted = t + kShift;
  const float p = exp2_fraction(t - (shifted - kShift));
  return p * std::bit_cast<float>(std::bit_cast<std::uint32_t>(shifted) << 23);
}

// Likewise to 2^-1021.
RSKERNELS_INLINE double exp2_nonpositive(double t) {
  constexpr double kShift = 0x1.8p52 + 1023.0;
  t = t < -1021.0 ? -1021.0 : t;
  const double shifted = t + kShift;
  const double p = exp2_fraction(t - (shifted - kShift));
  return p * std::bit_cast<double>(std::bit_cast<std::uint64_t>(shifted) << 52);
}

// log x: -inf at 0, NaN below it and at NaN, +inf at +inf; within 2 units in the last place.
RSKERNELS_INLINE double natural_log(double x) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  constexpr std::uint64_t kSqrtHalf = 0x3FE6A09E667F3BCD;
  // Keeps the exponent positive: AVX2 has no arithmetic shift of 64-bit lanes.
  constexpr std::uint64_t kBias = 1024;
  const bool is_subnormal = x < 0x1p-1022;
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(is_subnormal ? x * 0x1p54 : x);
  const std::uint64_t exponent = (bits - kSqrtHalf + (kBias << 52)) >> 52;
  // x = mantissa * 2^power with mantissa in [sqrt(1/2), sqrt(2)).
  const double mantissa = std::bit_cast<double>(bits - ((exponent - kBias) << 52));
  const double power = std::bit_cast<double>(exponent | std::bit_cast<std::uint64_t>(0x1p52)) -
                       (0x1p52 + static_cast<double>(kBias)) - (is_subnormal ? 54.0 : 0.0);
  // log m = 2 artanh s, s = (m - 1)/(m + 1), |s| < 0.1716.
  const double s = (mantissa - 1.0) / (mantissa + 1.0);
  const double s2 = s * s;
  double p = 2.0 / 21.0;
  p = p * s2 + 2.0 / 19.0;
  p = p * s2 + 2.0 / 17.0;
  p = p * s2 + 2.0 / 15.0;
  p = p * s2 + 2.0 / 13.0;
  p = p * s2 + 2.0 / 11.0;
  p = p * s2 + 2.0 / 9.0;
  p = p * s2 + 2.0 / 7.0;
  p = p * s2 + 2.0 / 5.0;
  p = p * s2 + 2.0 / 3.0;
  constexpr double kLn2High = 0x1.62e42fefa3800p-1;
  constexpr double kLn2Low = 0x1.ef35793c76730p-45;
  const double log_x = power * kLn2High + (2.0 * s + (s * s2 * p + power * kLn2Low));
  const double beyond = x == 0.0 ? -kInfinity : std::numeric_limits<double>::quiet_NaN();
  return x > 0.0 ? (x < kInfinity ? log_x : kInfinity) : beyond;
}

}  // namespace rskernels
