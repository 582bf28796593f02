#include "tail.hpp"

#include <algorithm>
#include <functional>
#include <ranges>

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

Tail::Tail(std::size_t capacity, double floor)
    : capacity_(capacity), threshold_(capacity > 0 ? floor : kInfinity) {}

void Tail::merge(const Tail& other) {
  // A copy: adding to itself would move what is being read.
  for (const double value : std::vector<double>(other.values_)) add(value);
}

std::vector<double> Tail::largest() const {
  std::vector<double> sorted = values_;
  std::ranges::sort(sorted, std::greater<>{});
  sorted.resize(std::min(sorted.size(), capacity_));
  return sorted;
}

void Tail::trim() {
  if (values_.size() <= capacity_) return;
  const auto last = values_.begin() + static_cast<std::ptrdiff_t>(capacity_) - 1;
  std::ranges::nth_element(values_, last, std::greater<>{});
  threshold_ = *last;
  values_.resize(capacity_);
}

}  // namespace rskernels
