#include "policies/policy.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "envelope/envelope.hpp"

namespace rskernels {
namespace {

using Ratios = std::vector<double>;

EnvelopeOptions with(const PolicyOptions& policy) { return {.policy = policy}; }

std::int64_t update(Envelope& envelope, const Ratios& ratios,
                    const std::vector<std::int64_t>& ids = {}) {
  Batch batch;
  batch.log_ratio = ratios.data();
  batch.dtype = DType::kFloat64;
  batch.count = static_cast<std::int64_t>(ratios.size());
  batch.group_ids = ids.empty() ? nullptr : ids.data();
  return envelope.update(batch);
}

TEST(Policy, FixedIsGiven) {
  Envelope envelope(with(FixedOptions{.M = 2.0}));
  EXPECT_EQ(envelope.log_M()[0], std::log(2.0));
  EXPECT_EQ(update(envelope, {0.0, 1.0, 5.0}), 2);
  EXPECT_EQ(envelope.log_M()[0], std::log(2.0));
}

TEST(Policy, DecayedHalvesAndFollowsTheNewest) {
  Envelope envelope(with(DecayedOptions{.half_life = 10.0}));
  update(envelope, {std::log(8.0)});
  update(envelope, Ratios(10, -5.0));
  EXPECT_NEAR(envelope.log_M()[0], std::log(4.0), 1e-12);
  update(envelope, Ratios(10, -5.0));
  EXPECT_NEAR(envelope.log_M()[0], std::log(2.0), 1e-12);
  update(envelope, {3.0});
  EXPECT_EQ(envelope.log_M()[0], 3.0);
}

TEST(Policy, LeaveOneOutTakesTheOthers) {
  Envelope envelope(with(LeaveOneOutOptions{}));
  const Ratios ratios{1.0, 3.0, 2.0, NAN};
  Batch batch;
  batch.log_ratio = ratios.data();
  batch.dtype = DType::kFloat64;
  batch.count = 4;
  EXPECT_EQ(envelope.log_M(batch), (Ratios{3.0, 2.0, 3.0, 3.0}));
  // The largest is above the others, once.
  EXPECT_EQ(envelope.update(batch), 1);
  const Tally tally = envelope.report().overall;
  EXPECT_EQ(tally.decided, 3);
  const double w1 = std::exp(1.0), w2 = std::exp(2.0), w3 = std::exp(3.0);
  EXPECT_NEAR(tally.delta(), (w3 - w2) / (w1 + w2 + w3), 1e-12);
  EXPECT_NEAR(tally.expected, w1 / w3 + w2 / w3 + 1.0, 1e-12);
  EXPECT_EQ(envelope.update(batch), 0);
}

TEST(Policy, BudgetSolvesForTheRate) {
  // w = 2.5 on a quarter, 0.5 on the others.
  for (const double rate : {0.1, 0.25, 0.3, 0.5, 0.9, 0.999}) {
    Envelope envelope(with(BudgetOptions{.rate = rate}));
    Ratios ratios(400, std::log(0.5));
    std::fill_n(ratios.begin(), 100, std::log(2.5));
    update(envelope, ratios);
    const double M = std::exp(envelope.log_M()[0]);
    EXPECT_NEAR(0.25 * std::min(1.0, 2.5 / M) + 0.75 * std::min(1.0, 0.5 / M), rate, 1e-12);
  }
}

TEST(Policy, BudgetBeyondThePositiveRatiosAcceptsThemAll) {
  Envelope envelope(with(BudgetOptions{.rate = 0.9}));
  Ratios ratios(10, -std::numeric_limits<double>::infinity());
  ratios[0] = 0.5;
  ratios[1] = 1.5;
  update(envelope, ratios);
  EXPECT_NEAR(envelope.log_M()[0], 0.5, 1e-12);
}

TEST(Policy, AConfidentQuantileIsAnOrderStatistic) {
  const EnvelopeOptions options = with(QuantileOptions{.level = 0.9, .confidence = 0.95});
  Envelope envelope(options);
  Ratios ratios;
  for (int i = 1; i <= 100; ++i) ratios.push_back(i);
  update(envelope, ratios);
  // P(Binomial(100, 0.9) >= 96) = 0.0237, P(>= 95) = 0.0576.
  EXPECT_EQ(envelope.log_M()[0], 96.0);
  Envelope few(options);
  update(few, {1.0, 2.0, 3.0});
  EXPECT_EQ(few.log_M()[0], 3.0);
}

TEST(Policy, TailRefusesACauchyLikeLaw) {
  std::mt19937_64 generator(5);
  std::cauchy_distribution<double> cauchy;
  Envelope envelope(with(TailOptions{}));
  Ratios ratios(5000);
  for (double& ratio : ratios) ratio = std::log(std::abs(cauchy(generator)));
  update(envelope, ratios);
  try {
    envelope.log_M();
    FAIL();
  } catch (const NoFiniteM& error) {
    EXPECT_NE(std::string(error.what()).find("'budget'"), std::string::npos);
  }
}

TEST(Policy, TailOfAGroupWithoutAnMHidesNoOther) {
  std::mt19937_64 generator(5);
  std::cauchy_distribution<double> cauchy;
  EnvelopeOptions options = with(TailOptions{});
  options.groups = 3;
  Envelope envelope(options);
  Ratios ratios(5000);
  for (double& ratio : ratios) ratio = std::log(std::abs(cauchy(generator)));
  update(envelope, ratios, std::vector<std::int64_t>(5000, 1));
  EXPECT_THROW(envelope.log_M(), NoFiniteM);
  update(envelope, Ratios(500, 0.25), std::vector<std::int64_t>(500, 2));
  const std::vector<double> log_M = envelope.log_M();
  EXPECT_TRUE(std::isnan(log_M[0]));
  EXPECT_TRUE(std::isnan(log_M[1]));
  EXPECT_EQ(log_M[2], 0.25);
}

double tail_of(std::size_t rows, std::size_t positive) {
  Envelope envelope(with(TailOptions{}));
  Ratios ratios(rows, -std::numeric_limits<double>::infinity());
  std::fill_n(ratios.begin(), positive, 0.5);
  update(envelope, ratios);
  return envelope.log_M()[0];
}

TEST(Policy, TailTakesAnAtomForTheEnd) {
  // 100 rows have a tail of 20, and 25 the shortest of all.
  for (const std::size_t positive : {20u, 21u, 100u}) EXPECT_EQ(tail_of(100, positive), 0.5);
  for (const std::size_t positive : {0u, 1u, 2u, 19u}) {
    EXPECT_TRUE(std::isnan(tail_of(100, positive))) << positive;
  }
  EXPECT_EQ(tail_of(25, 5), 0.5);
  EXPECT_TRUE(std::isnan(tail_of(24, 24)));
  // Of more rows than the tail holds.
  EXPECT_EQ(tail_of(3'000'000, 4095), 0.5);
  EXPECT_TRUE(std::isnan(tail_of(3'000'000, 4094)));
}

TEST(Policy, RefusesNumbersOutsideOfWhatItAccepts) {
  const auto is_refused = [](const PolicyOptions& policy) {
    EXPECT_THROW(check_options(with(policy)), std::invalid_argument) << name_of(policy);
  };
  for (const double share : {0.0, 1.5, std::nan("")}) {
    is_refused(BudgetOptions{.rate = share});
    is_refused(QuantileOptions{.level = share});
    is_refused(QuantileOptions{.level = 0.5, .confidence = share});
  }
  for (const double half_life : {0.5, std::nan("")}) {
    is_refused(DecayedOptions{.half_life = half_life});
    is_refused(BudgetOptions{.rate = 0.5, .half_life = half_life});
  }
  is_refused(FixedOptions{.M = 0.0});
  is_refused(QuantileOptions{.level = 1.0, .confidence = 0.9});
  is_refused(QuantileOptions{.level = 0.5, .half_life = 8.0, .confidence = 0.9});
}

}  // namespace
}  // namespace rskernels
