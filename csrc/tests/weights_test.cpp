#include "sketches/weights.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

template <class Real>
void expect_sums(double shift, double tolerance) {
  std::mt19937_64 generator(3);
  std::normal_distribution<double> normal(shift, 2.0);
  std::vector<Real> ratios(777);
  for (Real& ratio : ratios) ratio = static_cast<Real>(normal(generator));
  ratios[5] = static_cast<Real>(kNaN);
  ratios[6] = static_cast<Real>(kInfinity);
  ratios[7] = static_cast<Real>(-kInfinity);
  const double high = shift + 1.0;
  const double exponent = exponent_of(high);
  double weight = 0.0;
  double square = 0.0;
  for (const Real ratio : ratios) {
    if (!(ratio <= high)) continue;
    const double w = std::exp(static_cast<double>(ratio) - exponent * std::log(2.0));
    weight += w;
    square += w * w;
  }
  std::vector<Real> buffer(ratios.size());
  const WeightSums sums = sum_weights(ratios.data(), static_cast<std::int64_t>(ratios.size()), high,
                                      exponent, buffer.data());
  EXPECT_NEAR(sums.weight / weight, 1.0, tolerance);
  EXPECT_NEAR(sums.square / square, 1.0, tolerance);
}

TEST(Weights, SumsThoseUpToABound) {
  for (const double shift : {0.0, 30.0, -300.0, 5000.0}) {
    expect_sums<double>(shift, 1e-15 * (40.0 + std::abs(shift)));
    expect_sums<float>(shift, 1e-6);
  }
}

TEST(Weights, KeepTheirMantissaWhateverTheUnit) {
  std::vector<float> ratios;
  for (int i = 0; i < 64; ++i) ratios.push_back(-20.0f + 0.317f * static_cast<float>(i));
  std::vector<float> near(64);
  std::vector<float> far(64);
  sum_weights(ratios.data(), 64, 1.0, exponent_of(1.0), near.data());
  sum_weights(ratios.data(), 64, 1.0, exponent_of(1.0) + 7.0, far.data());
  for (std::size_t i = 0; i < 64; ++i) EXPECT_EQ(near[i], far[i] * 128.0f);
}

TEST(Weights, SplitIsExp) {
  for (double x = -700.0; x < 700.0; x += 0.37) {
    double fraction = 0.0;
    double power = 0.0;
    split_weights(&x, 1, &fraction, &power);
    EXPECT_GE(fraction, 0.7);
    EXPECT_LE(fraction, 1.42);
    EXPECT_NEAR(std::ldexp(fraction, static_cast<int>(power)) / std::exp(x), 1.0, 1e-15);
  }
}

TEST(Weights, UnitsCoverTheRatio) {
  EXPECT_EQ(exponent_of(-kInfinity), 0.0);
  EXPECT_EQ(exponent_of(0.0), 0.0);
  EXPECT_EQ(exponent_of(1e300), exponent_of(kLogLimit));
  for (double x = -50.0; x < 50.0; x += 0.13) {
    EXPECT_LE(x, exponent_of(x) * std::log(2.0) + 1e-12);
    EXPECT_GT(x, (exponent_of(x) - 1.0) * std::log(2.0) - 1e-12);
  }
}

}  // namespace
}  // namespace rskernels
