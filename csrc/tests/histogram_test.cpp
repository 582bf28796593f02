#include "histogram.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
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
