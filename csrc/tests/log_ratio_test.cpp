#include "rows/log_ratio.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

MatrixView matrix(const std::vector<double>& values, std::int64_t rows) {
  MatrixView view;
  view.data = values.data();
  view.dtype = DType::kFloat64;
  view.rows = rows;
  view.columns = static_cast<std::int64_t>(values.size()) / rows;
  view.outer_stride = view.columns;
  return view;
}

// Pairs of entries: one of the density given, and one of density 0, which is valid where its row
// is.
std::vector<double> pairs(const std::vector<double>& p_hat, const std::vector<int>& column,
                          double zero) {
  std::vector<double> dense(2 * p_hat.size(), zero);
  for (std::size_t row = 0; row < p_hat.size(); ++row) {
    dense[2 * row + static_cast<std::size_t>(column[row])] = p_hat[row];
  }
  return dense;
}

TEST(DenseLogRatios, ClassifiesEveryEntry) {
  const double inf = kInfinity;
  // q is uniform over two classes in every row that is a distribution, so log q = -log 2; of the
  // last two rows the second class is impossible.
  const std::vector<double> logits = {0, 0, 0,    0,   0, 0,    0,    0, 0,    0, 0,
                                      0, 0, kNaN, inf, 0, -inf, -inf, 0, -inf, 0, -inf};
  const std::vector<double> p_hat =
      pairs({0.5, 0.25, kNaN, -1, inf, 0, 1, 1, 1, 1, 0}, {0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1}, 0.0);
  const RatioSummary summary =
      dense_log_ratios(matrix(logits, 11), matrix(p_hat, 11), {.with_histogram = true});
  EXPECT_EQ(summary.max_log_ratio, 0.0);
  // Three rows are no distribution; NaN, -1, +inf and q = 0 < p_hat are entries of others.
  EXPECT_EQ(summary.invalid, 3 * 2 + 4);
  EXPECT_EQ(summary.valid, 22 - summary.invalid);
  EXPECT_EQ(summary.histogram.quantile(1.0), 0.0);
}

TEST(DenseLogRatios, TakesLogDensities) {
  const std::vector<double> logits(8, 0.0);
  const std::vector<double> log_p_hat =
      pairs({-1000.0, -kInfinity, kInfinity, kNaN}, {0, 1, 0, 1}, -kInfinity);
  const RatioSummary summary =
      dense_log_ratios(matrix(logits, 4), matrix(log_p_hat, 4), {.log_space = true});
  EXPECT_EQ(summary.max_log_ratio, -1000.0 + std::log(2.0));
  EXPECT_EQ(summary.valid, 6);
  EXPECT_EQ(summary.invalid, 2);
}

class Ratios : public ::testing::Test {
 protected:
  static constexpr std::int64_t kRows = 96;
  static constexpr std::int64_t kColumns = 4100;

  Ratios() : logits_(kRows * kColumns), p_hat_(kRows * kColumns) {
    std::mt19937_64 generator(3);
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform;
    for (double& z : logits_) z = normal(generator);
    for (double& p : p_hat_) p = uniform(generator);
    logits_[7 * kColumns + 11] = kNaN;
    p_hat_[3] = -1.0;
  }

  std::vector<double> logits_;
  std::vector<double> p_hat_;
};

TEST_F(Ratios, DoNotDependOnThreads) {
  const RatioSummary dense =
      dense_log_ratios(matrix(logits_, kRows), matrix(p_hat_, kRows), {.with_histogram = true});
  EXPECT_EQ(dense.invalid, kColumns + 1);
  EXPECT_EQ(dense.valid + dense.invalid, kRows * kColumns);
  for (const int threads : {2, 3, 8}) {
    const RatioOptions options{.with_histogram = true, .threads = threads};
    const RatioSummary other =
        dense_log_ratios(matrix(logits_, kRows), matrix(p_hat_, kRows), options);
    EXPECT_EQ(other.max_log_ratio, dense.max_log_ratio);
    EXPECT_EQ(other.invalid, dense.invalid);
    EXPECT_EQ(other.histogram.quantile(0.7), dense.histogram.quantile(0.7));
  }
}

TEST_F(Ratios, AreThoseOfTheDefinition) {
  double largest = -kInfinity;
  for (std::size_t row = 0; row < kRows; ++row) {
    const auto* z = &logits_[row * kColumns];
    double sum = 0.0;
    for (std::size_t v = 0; v < kColumns; ++v) sum += std::exp(z[v]);
    for (std::size_t v = 0; v < kColumns; ++v) {
      const double ratio = std::log(p_hat_[row * kColumns + v]) - (z[v] - std::log(sum));
      if (ratio < kInfinity) largest = std::max(largest, ratio);
    }
  }
  const RatioSummary dense = dense_log_ratios(matrix(logits_, kRows), matrix(p_hat_, kRows), {});
  EXPECT_NEAR(dense.max_log_ratio, largest, 1e-12);
}

}  // namespace
}  // namespace rskernels
