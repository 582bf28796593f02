#include <algorithm>
#include <cmath>

#include "policies/policy.hpp"
#include "sketches/group_histograms.hpp"

namespace rskernels {
namespace {

// The smallest rank whose order statistic of n samples is at least the quantile of `level` with the
// confidence wanted, whatever the continuous law: the least r with P(Binomial(n, level) >= r) at
// most 1 - confidence (David & Nagaraja 2003, 7.1). n + 1 where no rank is.
double upper_rank(double n, double level, double confidence) {
  const double spread = std::sqrt(n * level * (1.0 - level));
  // What lies above adds less than 1e-30.
  double rank = std::min(n, std::ceil(n * level + 12.0 * spread + 40.0));
  double mass =
      std::exp(std::lgamma(n + 1.0) - std::lgamma(rank + 1.0) - std::lgamma(n - rank + 1.0) +
               rank * std::log(level) + (n - rank) * std::log1p(-level));
  double above = 0.0;
  while (rank >= 1.0 && above + mass <= 1.0 - confidence) {
    above += mass;
    mass *= rank / (n - rank + 1.0) * ((1.0 - level) / level);
    rank -= 1.0;
  }
  return rank + 1.0;
}

class QuantilePolicy final : public RowPolicy {
 public:
  QuantilePolicy(const QuantileOptions& options, std::int64_t groups)
      : level_(options.level),
        confidence_(options.confidence),
        histograms_(groups, options.half_life, GroupHistograms::Holds::kCounts) {}

  void observe(std::size_t group, std::span<const double> ratios) override {
    histograms_.observe(group, ratios);
  }

  double log_M(std::size_t group, const Tally& tally, const Tail&) const override {
    if (!confidence_ || tally.valid() == 0) return histograms_.counts(group).quantile(level_);
    const double n = static_cast<double>(tally.valid());
    const double rank = upper_rank(n, level_, *confidence_);
    return histograms_.counts(group).at_rank(std::min(rank, n));
  }

  void merge(const RowPolicy& other) override {
    histograms_.merge(static_cast<const QuantilePolicy&>(other).histograms_);
  }

  void save(Columns& columns) const override { histograms_.save(columns); }

  void load(const Columns& columns) override { histograms_.load(columns); }

  void check_fits(std::span<const Tally> tallies) const override {
    histograms_.check_fits(tallies);
  }

 private:
  double level_;
  std::optional<double> confidence_;
  GroupHistograms histograms_;
};

}  // namespace

std::unique_ptr<Policy> make_policy(const QuantileOptions& options, std::int64_t groups) {
  return std::make_unique<QuantilePolicy>(options, groups);
}

}  // namespace rskernels
