#include "sketches/pareto.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t kFewest = 5;
// 0.95 quantiles of chi-squared with 1 and 2 degrees of freedom.
constexpr double kRegular = 3.841458820694124;
constexpr double kIrregular = 5.991464547107979;
// Ends this far above the largest exceedance, as a multiple of it, are as good as none.
constexpr double kLogFar = 16.0;
constexpr double kLogNear = -24.0;

// Profile likelihood of the end of the tail, at `1 + exp(t)` times the largest exceedance.
class EndLikelihood {
 public:
  explicit EndLikelihood(const std::vector<double>& values) : values_(values) {}

  double alpha(double t) const { return std::max(1.0, size() / sum_log(t)); }

  double operator()(double t) const {
    const double sum = sum_log(t);
    const double a = std::max(1.0, size() / sum);
    const double end = std::log1p(std::exp(t));
    return size() * (std::log(a) - end) - (a > 1.0 ? (a - 1.0) * sum : 0.0);
  }

  // Of the exponential law, where the end goes to infinity.
  double at_infinity() const {
    const double sum = std::accumulate(values_.begin(), values_.end(), 0.0);
    return size() * (-std::log(sum / size() / values_.back()) - 1.0);
  }

  double size() const { return static_cast<double>(values_.size()); }

 private:
  // Sum of -log(1 - x/end).
  double sum_log(double t) const {
    const double end = values_.back() * (1.0 + std::exp(t));
    // Near the end 1 - x/end cancels; the distance to it does not.
    const double gap = values_.back() * std::exp(t);
    // One logarithm for eight factors, none of which is below e^-25.
    constexpr std::size_t kFactors = 8;
    double sum = 0.0;
    for (std::size_t i = 0; i < values_.size(); i += kFactors) {
      const std::size_t last = std::min(i + kFactors, values_.size());
      double product = 1.0;
      for (std::size_t j = i; j < last; ++j) product *= (values_.back() - values_[j] + gap) / end;
      sum -= std::log(product);
    }
    return sum;
  }

  const std::vector<double>& values_;
};

double most_likely(const EndLikelihood& likelihood) {
  constexpr int kSteps = 40;
  constexpr double kStep = (kLogFar - kLogNear) / kSteps;
  double best = kLogNear;
  double top = likelihood(best);
  for (int i = 1; i <= kSteps; ++i) {
    const double t = kLogNear + i * kStep;
    const double value = likelihood(t);
    if (value > top) {
      top = value;
      best = t;
    }
  }
  double low = best - kStep;
  double high = best + kStep;
  constexpr double kGolden = 0.6180339887498949;
  double left = high - kGolden * (high - low);
  double right = low + kGolden * (high - low);
  double at_left = likelihood(left);
  double at_right = likelihood(right);
  for (int i = 0; i < 40; ++i) {
    if (at_left < at_right) {
      low = left;
      left = right;
      at_left = at_right;
      at_right = likelihood(right = low + kGolden * (high - low));
    } else {
      high = right;
      right = left;
      at_right = at_left;
      at_left = likelihood(left = high - kGolden * (high - low));
    }
  }
  return (low + high) / 2.0;
}

// Where the likelihood falls to `level`, between `inside` and `outside`.
double crossing(const EndLikelihood& likelihood, double level, double inside, double outside) {
  for (int i = 0; i < 45; ++i) {
    const double middle = (inside + outside) / 2.0;
    (likelihood(middle) >= level ? inside : outside) = middle;
  }
  return outside;
}

}  // namespace

std::int64_t tail_length(std::int64_t valid) {
  const double size = static_cast<double>(valid);
  return valid > 225 ? static_cast<std::int64_t>(std::ceil(3.0 * std::sqrt(size))) : valid / 5;
}

Exceedances exceedances(const Tail& tail, std::int64_t valid) {
  Exceedances result;
  const std::vector<double> largest = tail.largest();
  if (largest.size() < 2) return result;
  const auto needed = static_cast<std::size_t>(tail_length(valid));
  const std::size_t whole = std::min(needed, tail.capacity() - 1);
  result.is_atom = whole >= kFewest && largest.size() >= whole && largest[whole - 1] == largest[0];
  const std::size_t length = std::min(needed, largest.size() - 1);
  result.max_log_ratio = largest.front();
  result.threshold = std::exp(largest[length] - largest.front());
  for (std::size_t i = length; i-- > 0;) {
    const double above = std::exp(largest[i] - largest.front()) - result.threshold;
    if (above > 0.0) result.values.push_back(above);
  }
  return result;
}

double pareto_shape(const Exceedances& tail) {
  const std::vector<double>& x = tail.values;
  if (x.size() < kFewest) return kNaN;
  const double n = static_cast<double>(x.size());
  const int points = 30 + static_cast<int>(std::sqrt(n));
  const double quartile = x[static_cast<std::size_t>(n / 4.0 + 0.5) - 1];
  const auto shape = [&](double b) {
    double sum = 0.0;
    for (const double value : x) sum += std::log1p(-b * value);
    return sum / n;
  };
  std::vector<double> place;
  std::vector<double> likelihood;
  for (int i = 1; i <= points; ++i) {
    const double b = 1.0 / x.back() + (1.0 - std::sqrt(points / (i - 0.5))) / (3.0 * quartile);
    const double k = shape(b);
    const double value = n * (std::log(-b / k) - k - 1.0);
    if (!std::isfinite(value)) continue;
    place.push_back(b);
    likelihood.push_back(value);
  }
  if (place.empty()) return kNaN;
  const double top = *std::ranges::max_element(likelihood);
  double total = 0.0;
  double mean = 0.0;
  for (std::size_t i = 0; i < place.size(); ++i) {
    const double weight = std::exp(likelihood[i] - top);
    total += weight;
    mean += weight * place[i];
  }
  return (n * shape(mean / total) + 10.0 * 0.5) / (n + 10.0);
}

Endpoint endpoint(const Exceedances& tail) {
  if (tail.values.size() < kFewest) return {kNaN, kNaN, kNaN, kNaN};
  const EndLikelihood likelihood(tail.values);
  const double best = most_likely(likelihood);
  const double top = likelihood(best);
  const double infinite = likelihood.at_infinity();
  const auto as_log_ratio = [&](double t) {
    return tail.max_log_ratio + std::log(tail.threshold + tail.values.back() * (1.0 + std::exp(t)));
  };
  // Far ends differ from none by less than the rounding of the sums.
  if (infinite >= top - 1e-3) return {kInfinity, tail.max_log_ratio, kInfinity, 0.0};
  Endpoint end{as_log_ratio(best), tail.max_log_ratio, kInfinity, -1.0 / likelihood.alpha(best)};
  const double level = top - (end.shape > -0.5 ? kRegular : kIrregular) / 2.0;
  if (likelihood(kLogNear) < level) {
    end.lower = as_log_ratio(crossing(likelihood, level, best, kLogNear));
  }
  if (infinite < level && likelihood(kLogFar) < level) {
    end.upper = as_log_ratio(crossing(likelihood, level, best, kLogFar));
  }
  return end;
}

}  // namespace rskernels
