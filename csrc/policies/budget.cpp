#include <algorithm>
#include <cmath>
#include <limits>

#include "policies/policy.hpp"
#include "sketches/group_histograms.hpp"

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
// The controller moves log M by at most this from what the histogram says, and counts no error
// larger.
constexpr double kMaxBias = 2.0;
constexpr double kMaxError = 1.0;

double log_add(double a, double b) {
  const double top = std::max(a, b);
  return top == -kInfinity ? top : top + std::log1p(std::exp(std::min(a, b) - top));
}

// log M with sum of count * min(1, w/M) = rate * sum of count over the atoms. Where the atoms of
// ratio 0 leave less than that, the largest M that accepts every other one.
double solve(const std::vector<GroupHistograms::Atom>& atoms, double rate) {
  if (atoms.empty()) return kNaN;
  double total = 0.0;
  std::vector<double> log_weight;             // of an atom's samples together
  std::vector<double> log_below{-kInfinity};  // of the atoms before each
  for (const GroupHistograms::Atom& atom : atoms) {
    total += atom.count;
    log_weight.push_back(atom.mass > 0.0 ? atom.edge + std::log(atom.mass) : -kInfinity);
    log_below.push_back(log_add(log_below.back(), log_weight.back()));
  }
  // From the top, an atom at a time is accepted whole until the others fill what is left.
  double left = rate * total;
  double log_M = -kInfinity;
  for (std::size_t i = atoms.size(); i > 0; --i) {
    if (log_below[i] == -kInfinity) break;
    const double log_ratio = log_weight[i - 1] - std::log(atoms[i - 1].count);
    log_M = log_below[i] - std::log(left);
    if (log_M >= log_ratio) return log_M;
    log_M = log_ratio;
    left -= atoms[i - 1].count;
  }
  return log_M;
}

// The optimal budgeted rule: accept with min(1, c w), c solving E[min(1, c w)] = rate; M = 1/c.
// With a half-life an integral controller removes what the histogram lags behind by.
class BudgetPolicy final : public RowPolicy {
 public:
  BudgetPolicy(const BudgetOptions& options, std::int64_t groups)
      : rate_(options.rate),
        half_life_(options.half_life),
        histograms_(groups, options.half_life, GroupHistograms::Holds::kCountsAndMasses),
        bias_(static_cast<std::size_t>(groups), 0.0) {}

  void observe(std::size_t group, std::span<const double> ratios) override {
    histograms_.observe(group, ratios);
  }

  void end_batch(std::size_t group, double rows, double expected) override {
    if (!half_life_ || !(rows > 0.0)) return;
    const double error = expected > 0.0 ? std::log(expected / (rows * rate_)) : -kMaxError;
    const double gain = rows / (rows + *half_life_);
    bias_[group] = std::clamp(bias_[group] + gain * std::clamp(error, -kMaxError, kMaxError),
                              -kMaxBias, kMaxBias);
  }

  double log_M(std::size_t group, const Tally&, const Tail&) const override {
    return solve(histograms_.atoms(group), rate_) + bias_[group];
  }

  void merge(const RowPolicy& other) override {
    const auto& theirs = static_cast<const BudgetPolicy&>(other);
    for (std::size_t g = 0; g < bias_.size(); ++g) {
      const double ours = histograms_.total(g);
      const double more = theirs.histograms_.total(g);
      if (more > 0.0) bias_[g] = (ours * bias_[g] + more * theirs.bias_[g]) / (ours + more);
    }
    histograms_.merge(theirs.histograms_);
  }

  void save(Columns& columns) const override {
    histograms_.save(columns);
    columns.doubles["bias"] = bias_;
  }

  void load(const Columns& columns) override {
    const std::vector<double>& bias = columns.double_column("bias");
    if (bias.size() != bias_.size()) {
      throw std::invalid_argument("bias holds another number of groups");
    }
    for (std::size_t g = 0; g < bias.size(); ++g) {
      if (!(std::abs(bias[g]) <= (half_life_ ? kMaxBias : 0.0))) {
        reject_group(g, "bias is not what a controller moves log M by");
      }
    }
    histograms_.load(columns);
    bias_ = bias;
  }

  void check_fits(std::span<const Tally> tallies) const override {
    histograms_.check_fits(tallies);
  }

 private:
  double rate_;
  std::optional<double> half_life_;
  GroupHistograms histograms_;
  std::vector<double> bias_;
};

}  // namespace

std::unique_ptr<Policy> make_policy(const BudgetOptions& options, std::int64_t groups) {
  return std::make_unique<BudgetPolicy>(options, groups);
}

}  // namespace rskernels
