#include "sketches/pareto.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Ratios whose excess above 1 follows a generalised Pareto law; for k < 0 they end at 1 - 1/k.
Tail draw(double k, int count, std::mt19937_64& generator) {
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  Tail tail(4096);
  for (int i = 0; i < count; ++i) {
    const double u = 1.0 - uniform(generator);
    const double excess = k == 0.0 ? -std::log(u) : std::expm1(-k * std::log(u)) / k;
    tail.add(std::log1p(excess));
  }
  return tail;
}

TEST(Pareto, TailLengths) {
  EXPECT_EQ(tail_length(225), 45);
  EXPECT_EQ(tail_length(226), 46);
  EXPECT_EQ(tail_length(10000), 300);
  EXPECT_EQ(tail_length(4), 0);
}

TEST(Pareto, ShapeIsFound) {
  std::mt19937_64 generator(1);
  for (const double k : {-0.5, -0.2, 0.0, 0.3, 0.7, 1.2}) {
    const double shape = pareto_shape(exceedances(draw(k, 100000, generator), 100000));
    EXPECT_NEAR(shape, k, 0.15) << k;
  }
}

TEST(Pareto, TheIntervalHoldsTheEndInNineteenOfTwentySamples) {
  std::mt19937_64 generator(2);
  constexpr int kRepetitions = 2000;
  for (const double k : {-0.25, -0.4}) {
    int inside = 0;
    for (int i = 0; i < kRepetitions; ++i) {
      const Endpoint end = endpoint(exceedances(draw(k, 10000, generator), 10000));
      const double truth = std::log(1.0 - 1.0 / k);
      inside += end.lower <= truth && truth <= end.upper ? 1 : 0;
    }
    EXPECT_GE(inside, 0.93 * kRepetitions) << k;
    EXPECT_LE(inside, 0.97 * kRepetitions) << k;
  }
}

TEST(Pareto, HeavyTailsHaveNoEnd) {
  std::mt19937_64 generator(3);
  for (const double k : {0.5, 1.0}) {
    for (int i = 0; i < 20; ++i) {
      EXPECT_EQ(endpoint(exceedances(draw(k, 10000, generator), 10000)).upper, kInfinity);
    }
  }
}

TEST(Pareto, TooFewValuesTellNothing) {
  Tail tail(10);
  for (int i = 0; i < 5; ++i) tail.add(i);
  EXPECT_TRUE(std::isnan(pareto_shape(exceedances(tail, 100))));
  EXPECT_TRUE(std::isnan(endpoint(exceedances(tail, 100)).upper));
}

}  // namespace
}  // namespace rskernels
