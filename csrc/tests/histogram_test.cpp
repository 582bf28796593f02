#include "sketches/histogram.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <limits>
#include <random>
#include <vector>

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(Histogram, QuantileIsTheUpperEdgeOfItsSample) {
  std::mt19937_64 generator(5);
  std::normal_distribution<double> normal(-3.0, 20.0);
  std::vector<double> samples(10001);
  Histogram histogram;
  for (double& sample : samples) histogram.add(sample = normal(generator));
  std::ranges::sort(samples);
  for (const double level : {1e-9, 0.1, 0.5, 0.9, 0.999, 1.0}) {
    const double rank = std::ceil(level * static_cast<double>(samples.size()));
    const double exact = samples[static_cast<std::size_t>(rank) - 1];
    EXPECT_GE(histogram.quantile(level), exact);
    EXPECT_LT(histogram.quantile(level), exact + 1.0 / 256.0);
  }
}

TEST(Histogram, EdgesAreExactAndIdempotent) {
  for (const double edge : {0.0, 1.0 / 256.0, -1.0 / 256.0, 64.0, -64.0, 1e9, 0x1p60, -0x1p60}) {
    EXPECT_EQ(Histogram::upper_edge(edge), edge);
    Histogram histogram;
    histogram.add(edge);
    EXPECT_EQ(histogram.quantile(1.0), edge);
    ASSERT_EQ(histogram.bins().size(), 1u);
    EXPECT_EQ(histogram.bins()[0].edge, edge);
  }
}

TEST(Histogram, BoundsEveryFiniteRatio) {
  const double largest = std::numeric_limits<double>::max();
  for (const double ratio : {largest, -largest, 1e307, -1e307, 1e300, -1e300, 5e-324, -5e-324}) {
    Histogram histogram;
    histogram.add(ratio);
    EXPECT_GE(histogram.quantile(0.5), ratio);
    EXPECT_LT(histogram.quantile(0.5), kInfinity);
    EXPECT_EQ(Histogram::upper_edge(ratio), histogram.quantile(0.5));
    EXPECT_EQ(Histogram::upper_edge(Histogram::upper_edge(ratio)), Histogram::upper_edge(ratio));
  }
}

TEST(Histogram, RatioZeroIsABinOfItsOwn) {
  Histogram histogram;
  EXPECT_TRUE(std::isnan(histogram.quantile(0.5)));
  histogram.add(-kInfinity, 3.0);
  histogram.add(0.5);
  EXPECT_EQ(histogram.quantile(0.75), -kInfinity);
  EXPECT_EQ(histogram.quantile(0.76), 0.5);
}

TEST(Histogram, MergesInAnyOrder) {
  std::mt19937_64 generator(6);
  std::normal_distribution<double> normal(0.0, 5.0);
  Histogram parts[3];
  Histogram all;
  for (int i = 0; i < 3000; ++i) {
    const double sample = normal(generator);
    all.add(sample);
    parts[i % 3].add(sample);
  }
  Histogram forward = parts[0];
  forward.merge(parts[1]);
  forward.merge(parts[2]);
  Histogram backward = parts[2];
  backward.merge(parts[1]);
  backward.merge(parts[0]);
  for (const Histogram& merged : {forward, backward}) {
    const auto expected = all.bins();
    const auto bins = merged.bins();
    ASSERT_EQ(bins.size(), expected.size());
    for (std::size_t i = 0; i < bins.size(); ++i) {
      EXPECT_EQ(bins[i].edge, expected[i].edge);
      EXPECT_EQ(bins[i].count, expected[i].count);
    }
  }
}

TEST(Histogram, MayForgetPagesAndFillThemAgain) {
  Histogram histogram;
  for (int i = 0; i < 1000; ++i) histogram.add(i, i % 3 == 0 ? 1.0 : 1e-300);
  histogram.scale(1e-100);
  for (int i = 999; i >= 0; --i) histogram.add(i, 1.0);
  const auto bins = histogram.bins();
  ASSERT_EQ(bins.size(), 1000u);
  for (std::size_t i = 0; i < bins.size(); ++i) {
    EXPECT_EQ(bins[i].edge, static_cast<double>(i));
    EXPECT_EQ(bins[i].count, i % 3 == 0 ? 1.0 + 1e-100 : 1.0);
  }
}

// Time of this process, which others on the machine do not lengthen.
double seconds_to_add(const std::vector<double>& ratios) {
  const std::clock_t begin = std::clock();
  Histogram histogram;
  for (const double ratio : ratios) histogram.add(ratio);
  EXPECT_EQ(histogram.bins().size(), ratios.size());
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

TEST(Histogram, TakesAsLongInAnyOrder) {
  // Every ratio has bins of its own; moving those above it would cost 10,000 times 5 MB.
  std::vector<double> ratios(10'000);
  for (std::size_t i = 0; i < ratios.size(); ++i) ratios[i] = static_cast<double>(i);
  double ascending = kInfinity;
  for (int i = 0; i < 3; ++i) ascending = std::min(ascending, seconds_to_add(ratios));
  std::ranges::reverse(ratios);
  EXPECT_LT(seconds_to_add(ratios), 30.0 * std::max(ascending, 1e-3));
}

TEST(Histogram, ForgetsWhatUnderflows) {
  Histogram histogram;
  histogram.add(1.0, 1e-300);
  histogram.add(2.0);
  histogram.scale(1e-100);
  ASSERT_EQ(histogram.bins().size(), 1u);
  EXPECT_EQ(histogram.bins()[0].edge, 2.0);
}

}  // namespace
}  // namespace rskernels
