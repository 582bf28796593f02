#include "sketches/tally.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "envelope/groups.hpp"

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

template <class Real>
Batch batch_of(const std::vector<Real>& ratios) {
  Batch batch;
  batch.log_ratio = ratios.data();
  batch.dtype = sizeof(Real) == 4 ? DType::kFloat32 : DType::kFloat64;
  batch.count = static_cast<std::int64_t>(ratios.size());
  return batch;
}

template <class Real>
Tally tally_of(const std::vector<Real>& ratios, double log_M) {
  Tally tally;
  Tail tail(100);
  const Batch batch = batch_of(ratios);
  accumulate(batch, 0, batch.count, InForce(log_M), tally, tail);
  return tally;
}

template <class Real>
std::vector<Real> draw(std::size_t count, double mean, double spread) {
  std::mt19937_64 generator(8);
  std::normal_distribution<double> normal(mean, spread);
  std::vector<Real> ratios(count);
  for (Real& ratio : ratios) ratio = static_cast<Real>(normal(generator));
  return ratios;
}

template <class Real>
void expect_sums(double mean, double spread, double log_M, double tolerance) {
  std::vector<Real> ratios = draw<Real>(10007, mean, spread);
  ratios[1] = static_cast<Real>(kNaN);
  ratios[5000] = static_cast<Real>(kInfinity);
  ratios[9000] = static_cast<Real>(-kInfinity);
  const Tally tally = tally_of(ratios, log_M);
  double weight = 0.0, square = 0.0, excess = 0.0, expected = 0.0;
  std::int64_t violations = 0;
  for (const Real ratio : ratios) {
    const double x = ratio;
    if (!(x < kInfinity)) continue;
    const double w = std::exp(x - mean);
    const double M = std::exp(log_M - mean);
    weight += w;
    square += w * w;
    excess += std::max(w - M, 0.0);
    expected += std::exp(std::min(x - log_M, 0.0));
    violations += x > log_M ? 1 : 0;
  }
  EXPECT_EQ(tally.seen, 10007);
  EXPECT_EQ(tally.invalid, 2);
  EXPECT_EQ(tally.decided, 10005);
  EXPECT_EQ(tally.violations, violations);
  EXPECT_NEAR(tally.delta(), excess / weight, tolerance);
  EXPECT_NEAR(tally.expected_acceptance(), expected / 10005.0, tolerance);
  EXPECT_NEAR(tally.effective_sample_size() / (weight * weight / square), 1.0, 10.0 * tolerance);
}

TEST(Tally, SumsAreThoseOfTheFormulas) {
  for (const double mean : {0.0, -600.0, 1000.0, 9000.0, -9000.0}) {
    for (const double above : {-1.0, 2.0, 50.0, -40.0}) {
      expect_sums<double>(mean, 1.5, mean + above, 1e-11);
      expect_sums<float>(mean, 1.5, mean + above, 2e-6);
    }
  }
}

TEST(Tally, AnOutlierLeavesTheAcceptanceOfTheOthers) {
  std::vector<float> ratios(4000, 0.0f);
  ratios[17] = 300.0f;
  const Tally tally = tally_of(ratios, std::log(2.0));
  EXPECT_NEAR(tally.expected_acceptance(), (3999 * 0.5 + 1.0) / 4000, 1e-9);
  EXPECT_NEAR(tally.delta(), 1.0, 1e-12);
}

TEST(Tally, GroupsAndDtypesAgree) {
  const std::vector<float> narrow = draw<float>(5000, 1.0, 3.0);
  const std::vector<double> wide(narrow.begin(), narrow.end());
  std::vector<std::int64_t> ids(narrow.size());
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int64_t>(i % 7);
  Batch batch = batch_of(narrow);
  batch.group_ids = ids.data();
  Groups groups;
  groups.tallies.resize(7);
  groups.lines.resize(7);
  groups.tails.resize(7);
  groups.policy = make_policy({.policy = FixedOptions{.M = std::exp(2.0)}, .groups = 7});
  GroupRange range{.first = 0, .last = 7, .tail = Tail(10), .touched = {}};
  accumulate(batch, groups, range);
  for (std::size_t g = 0; g < 7; ++g) groups.lines[g].flush(groups.tallies[g]);
  EXPECT_EQ(range.touched.size(), 7u);
  Tally together;
  for (const GroupTally& group : groups.tallies) together.merge(group.tally);
  const Tally single = tally_of(wide, 2.0);
  EXPECT_EQ(together.seen, single.seen);
  EXPECT_EQ(together.violations, single.violations);
  EXPECT_EQ(together.max_log_ratio, single.max_log_ratio);
  EXPECT_NEAR(together.weight / single.weight, 1.0, 1e-13);
  EXPECT_NEAR(together.square / single.square, 1.0, 1e-13);
  EXPECT_NEAR(together.excess / single.excess, 1.0, 1e-13);
  EXPECT_NEAR(together.expected / single.expected, 1.0, 1e-13);
}

TEST(Tally, PartitionsAgreeToRounding) {
  const std::vector<float> ratios = draw<float>(20000, 0.0, 4.0);
  const Batch batch = batch_of(ratios);
  const Tally whole = tally_of(ratios, 3.0);
  Tally parts;
  Tail tail(10);
  for (std::int64_t begin = 0; begin < batch.count; begin += 333) {
    Tally part;
    accumulate(batch, begin, std::min<std::int64_t>(begin + 333, batch.count), InForce(3.0), part,
               tail);
    parts.merge(part);
  }
  EXPECT_EQ(parts.violations, whole.violations);
  EXPECT_EQ(parts.exponent, whole.exponent);
  EXPECT_NEAR(parts.weight / whole.weight, 1.0, 1e-13);
  EXPECT_NEAR(parts.square / whole.square, 1.0, 1e-13);
  EXPECT_NEAR(parts.excess / whole.excess, 1.0, 1e-13);
  EXPECT_NEAR(parts.expected / whole.expected, 1.0, 1e-13);
}

}  // namespace
}  // namespace rskernels
