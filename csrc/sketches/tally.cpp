#include "sketches/tally.hpp"

#include <algorithm>
#include <cmath>

#include "sketches/columns.hpp"
#include "sketches/weights.hpp"

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// 2^power, 0 or the largest double where that is no double.
double power_of_two(double power) {
  return std::ldexp(1.0, static_cast<int>(std::clamp(power, -1100.0, 1023.0)));
}

constexpr std::int64_t kMostRows = std::int64_t{1} << 53;

double ratio(double numerator, double denominator) {
  return denominator > 0.0 ? numerator / denominator : kNaN;
}

}  // namespace

InForce::InForce(double log_M) : log_M(log_M) {
  if (!(log_M > -kInfinity)) return;
  exponent = exponent_of(log_M);
  double mantissa = 0.0;
  double power = 0.0;
  split_weights(&log_M, 1, &mantissa, &power);
  inverse = power_of_two(exponent - power) / mantissa;
}

double InForce::over_M(double weight, double unit) const {
  return weight * power_of_two(unit - exponent) * inverse;
}

double InForce::in_units(double unit) const {
  return decides() ? power_of_two(exponent - unit) / inverse : 0.0;
}

void Tally::raise_to(double log_ratio) {
  if (!(log_ratio > max_log_ratio)) return;
  const bool is_first = max_log_ratio == -kInfinity;
  // The two zeros are equal: which of them came first is not to show.
  max_log_ratio = log_ratio + 0.0;
  const double raised = exponent_of(log_ratio);
  const double factor = power_of_two(exponent - raised);
  exponent = raised;
  if (is_first || factor == 1.0) return;
  const double factors[] = {1.0, factor, factor * factor};
  for (const SumField& sum : kSumFields) this->*sum.member *= factors[sum.power];
}

void Tally::merge(const Tally& other) {
  raise_to(other.max_log_ratio);
  Tally theirs = other;
  theirs.raise_to(max_log_ratio);
  for (const CountField& count : kCountFields) this->*count.member += theirs.*count.member;
  for (const SumField& sum : kSumFields) this->*sum.member += theirs.*sum.member;
}

double Tally::delta() const {
  if (decided == 0) return kNaN;
  return decided_weight > 0.0 ? std::min(excess / decided_weight, 1.0) : 0.0;
}

double Tally::expected_acceptance() const { return ratio(expected, static_cast<double>(decided)); }

double Tally::observed_acceptance() const {
  return ratio(static_cast<double>(accepted), static_cast<double>(observed));
}

double Tally::effective_sample_size() const { return ratio(weight * weight, square); }

double Tally::chi_squared() const {
  const double size = effective_sample_size();
  return std::max(ratio(static_cast<double>(valid()), size) - 1.0, std::isnan(size) ? kNaN : 0.0);
}

void RowLimit::add(const Tally& tally, std::size_t group) {
  if (tally.seen > kMostRows - seen_ || tally.observed > kMostRows - observed_) {
    reject_group(group, "the counts are beyond 2^53");
  }
  seen_ += std::max<std::int64_t>(tally.seen, 0);
  observed_ += std::max<std::int64_t>(tally.observed, 0);
}

}  // namespace rskernels
