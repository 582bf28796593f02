#include <cmath>
#include <limits>

#include "policies/policy.hpp"

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// M halves over each half-life of valid samples, and is never below the newest ratio:
// log M <- max(log M - ln 2 / half_life, log ratio).
class DecayedPolicy final : public RowPolicy {
 public:
  DecayedPolicy(const DecayedOptions& options, std::int64_t groups)
      : step_(0x1.62e42fefa39efp-1 / options.half_life),
        log_M_(static_cast<std::size_t>(groups), kNaN) {}

  void observe(std::size_t group, std::span<const double> ratios) override {
    // NaN, the M of no rows, loses every comparison.
    double log_M = log_M_[group];
    for (const double ratio : ratios) {
      const double decayed = log_M - step_;
      log_M = decayed > ratio ? decayed : ratio;
    }
    log_M_[group] = log_M;
  }

  double log_M(std::size_t group, const Tally&, const Tail&) const override {
    return log_M_[group];
  }

  // The newest samples of both count as equally old.
  void merge(const RowPolicy& other) override {
    const auto& theirs = static_cast<const DecayedPolicy&>(other).log_M_;
    for (std::size_t g = 0; g < log_M_.size(); ++g) log_M_[g] = std::fmax(log_M_[g], theirs[g]);
  }

  void save(Columns& columns) const override { columns.doubles["decayed_log_M"] = log_M_; }

  void load(const Columns& columns) override {
    const std::vector<double>& values = columns.double_column("decayed_log_M");
    if (values.size() != log_M_.size()) {
      throw std::invalid_argument("decayed_log_M holds another number of groups");
    }
    log_M_ = values;
  }

  void check_fits(std::span<const Tally> tallies) const override {
    for (std::size_t g = 0; g < log_M_.size(); ++g) {
      const bool fits = tallies[g].valid() == 0
                            ? std::isnan(log_M_[g])
                            : log_M_[g] <= tallies[g].max_log_ratio && log_M_[g] < kInfinity;
      if (!fits) reject_group(g, "decayed_log_M does not fit max_log_ratio");
    }
  }

 private:
  double step_;
  std::vector<double> log_M_;
};

}  // namespace

std::unique_ptr<Policy> make_policy(const DecayedOptions& options, std::int64_t groups) {
  return std::make_unique<DecayedPolicy>(options, groups);
}

}  // namespace rskernels
