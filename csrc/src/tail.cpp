#include "tail.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <ranges>

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::size_t kBins = 512;

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

// Values are counted by bins first, and only the bin in which the last of them lies is searched:
// several times as fast as searching them all.
void Tail::trim() {
  if (values_.size() <= capacity_) return;
  const auto ends = std::ranges::minmax(values_);
  const double least = ends.min;
  const double scale = (kBins - 1) / (ends.max - least);
  std::size_t kept = 0;
  std::vector<double> border;
  if (scale > 0.0 && scale < kInfinity) {
    // Rounding may move a value to the next bin, but never past a larger one.
    const auto bin_of = [least, scale](double value) {
      return std::min(static_cast<std::size_t>((value - least) * scale), kBins - 1);
    };
    std::array<std::size_t, kBins> sizes{};
    for (const double value : values_) ++sizes[bin_of(value)];
    std::size_t last = kBins - 1;
    for (std::size_t above = 0; above + sizes[last] < capacity_;) above += sizes[last--];
    border.resize(sizes[last] + 1);
    std::size_t found = 0;
    // Without branches: where a value belongs is as good as a toss of a coin.
    for (const double value : values_) {
      const std::size_t bin = bin_of(value);
      border[found] = value;
      found += bin == last ? 1 : 0;
      values_[kept] = value;
      kept += bin > last ? 1 : 0;
    }
    border.resize(found);
  } else {
    border = values_;
  }
  const auto end = border.begin() + static_cast<std::ptrdiff_t>(capacity_ - kept);
  std::nth_element(border.begin(), end - 1, border.end(), std::greater<>{});
  threshold_ = *(end - 1);
  values_.resize(kept);
  values_.insert(values_.end(), border.begin(), end);
}

}  // namespace rskernels
