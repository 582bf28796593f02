#include "rows/log_ratio.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t kIgnore = -100;

MatrixView matrix(const std::vector<double>& values, std::int64_t rows) {
  MatrixView view;
  view.data = values.data();
  view.dtype = DType::kFloat64;
  view.rows = rows;
  view.columns = static_cast<std::int64_t>(values.size()) / rows;
  view.outer_stride = view.columns;
  return view;
}

TEST(TargetLogRatios, ClassifiesEveryRow) {
  const double inf = kInfinity;
  // q is uniform over two classes in every row that is a distribution, so log q = -log 2.
  const std::vector<double> logits = {0, 0, 0, 0,    0,   0, 0,    0,    0, 0,    0, 0,
                                      0, 0, 0, kNaN, inf, 0, -inf, -inf, 0, -inf, 0, -inf};
  const std::vector<std::int64_t> targets = {0, 1, kIgnore, 0, 0, 0, 0, 0, 0, 0, 1, 1};
  const std::vector<double> p_hat = {0.5, 0.25, 9, kNaN, -1, inf, 0, 1, 1, 1, 1, 0};
  const RatioSummary summary =
      target_log_ratios(matrix(logits, 12), targets, p_hat, kIgnore, {.with_histogram = true});
  EXPECT_EQ(summary.max_log_ratio, 0.0);
  EXPECT_EQ(summary.ignored, 1);
  // Rows 0 and 1; row 6, p_hat = 0; row 9 would be log 1 - log 1; row 11, 0 over 0.
  EXPECT_EQ(summary.valid, 4);
  EXPECT_EQ(summary.invalid, 7);
  EXPECT_EQ(summary.histogram.quantile(1.0), 0.0);
}

TEST(TargetLogRatios, TakesLogDensities) {
  const std::vector<double> logits(8, 0.0);
  const std::vector<std::int64_t> targets = {0, 1, 0, 1};
  const std::vector<double> log_p_hat = {-1000.0, -kInfinity, kInfinity, kNaN};
  const RatioSummary summary =
      target_log_ratios(matrix(logits, 4), targets, log_p_hat, kIgnore, {.log_space = true});
  EXPECT_EQ(summary.max_log_ratio, -1000.0 + std::log(2.0));
  EXPECT_EQ(summary.valid, 2);
  EXPECT_EQ(summary.invalid, 2);
}

TEST(TargetLogRatios, RefusesTargetsOutOfRange) {
  const std::vector<double> logits(15, 0.0);
  const std::vector<double> p_hat(3, 1.0);
  for (const std::int64_t bad : {std::int64_t{5}, std::int64_t{-1}, INT64_MIN, INT64_MAX}) {
    const std::vector<std::int64_t> targets = {0, bad, 4};
    try {
      target_log_ratios(matrix(logits, 3), targets, p_hat, kIgnore, {});
      FAIL() << "accepted target " << bad;
    } catch (const std::out_of_range& error) {
      EXPECT_EQ(std::string(error.what()), "target " + std::to_string(bad) +
                                               " of row 1 is outside [0, 5) and is not "
                                               "ignore_index (-100)");
    }
  }
}

class Ratios : public ::testing::Test {
 protected:
  static constexpr std::int64_t kRows = 96;
  static constexpr std::int64_t kColumns = 4100;

  Ratios() : logits_(kRows * kColumns), p_hat_(kRows * kColumns), targets_(kRows) {
    std::mt19937_64 generator(3);
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform;
    for (double& z : logits_) z = normal(generator);
    for (double& p : p_hat_) p = uniform(generator);
    for (std::int64_t& t : targets_) t = static_cast<std::int64_t>(generator() % kColumns);
    logits_[7 * kColumns + 11] = kNaN;
    p_hat_[3] = -1.0;
  }

  std::vector<double> logits_;
  std::vector<double> p_hat_;
  std::vector<std::int64_t> targets_;
};

TEST_F(Ratios, DoNotDependOnThreads) {
  const MatrixView logits = matrix(logits_, kRows);
  const std::span<const double> p_hat(p_hat_.data(), kRows);
  const RatioSummary target =
      target_log_ratios(logits, targets_, p_hat, kIgnore, {.with_histogram = true});
  const RatioSummary dense =
      dense_log_ratios(logits, matrix(p_hat_, kRows), {.with_histogram = true});
  EXPECT_EQ(dense.invalid, kColumns + 1);
  EXPECT_EQ(dense.valid + dense.invalid, kRows * kColumns);
  for (const int threads : {2, 3, 8}) {
    const RatioOptions options{.with_histogram = true, .threads = threads};
    const RatioSummary a = target_log_ratios(logits, targets_, p_hat, kIgnore, options);
    EXPECT_EQ(a.max_log_ratio, target.max_log_ratio);
    EXPECT_EQ(a.invalid, target.invalid);
    EXPECT_EQ(a.histogram.quantile(0.7), target.histogram.quantile(0.7));
    const RatioSummary b = dense_log_ratios(logits, matrix(p_hat_, kRows), options);
    EXPECT_EQ(b.max_log_ratio, dense.max_log_ratio);
    EXPECT_EQ(b.invalid, dense.invalid);
    EXPECT_EQ(b.histogram.quantile(0.7), dense.histogram.quantile(0.7));
  }
}

TEST_F(Ratios, DenseFormAgreesWithOneTargetARow) {
  std::vector<double> only_targets(p_hat_.size(), 0.0);
  for (std::size_t row = 0; row < targets_.size(); ++row) {
    only_targets[row * kColumns + static_cast<std::size_t>(targets_[row])] = p_hat_[row];
  }
  const RatioSummary dense =
      dense_log_ratios(matrix(logits_, kRows), matrix(only_targets, kRows), {});
  const RatioSummary target =
      target_log_ratios(matrix(logits_, kRows), targets_, {p_hat_.data(), kRows}, kIgnore, {});
  EXPECT_EQ(dense.max_log_ratio, target.max_log_ratio);
}

}  // namespace
}  // namespace rskernels
