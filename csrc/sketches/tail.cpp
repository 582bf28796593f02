#include "sketches/tail.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <ranges>

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::size_t kSample = 512;
// Three standard deviations of how many of a sample are above a value near the middle.
constexpr std::size_t kSampleRoom = 34;

}  // namespace

Tail::Tail(std::size_t capacity, double floor)
    : capacity_(capacity), threshold_(capacity > 0 ? floor : kInfinity) {}

void Tail::merge(const Tail& other) {
  if (&other == this) return merge(Tail(other));
  for (const double value : other.values_) add(value);
}

std::vector<double> Tail::largest() const {
  std::vector<double> sorted = values_;
  std::ranges::sort(sorted, std::greater<>{});
  sorted.resize(std::min(sorted.size(), capacity_));
  return sorted;
}

// A pivot that a sample puts a little below the last value that matters parts most of the others
// off in one pass; where it would leave too few or too many, all are searched.
void Tail::trim() {
  const std::size_t size = values_.size();
  if (size <= capacity_) return;
  if (size >= 4 * kSample) {
    std::array<double, kSample> sample;
    for (std::size_t i = 0; i < kSample; ++i) sample[i] = values_[size / kSample * i];
    const auto rank = static_cast<std::ptrdiff_t>(
        std::min(kSample * capacity_ / size + kSampleRoom, kSample - 1));
    std::nth_element(sample.begin(), sample.begin() + rank, sample.end(), std::greater<>{});
    const double pivot = sample[static_cast<std::size_t>(rank)];
    const auto is_kept = [pivot](double value) { return value >= pivot; };
    const auto left = static_cast<std::size_t>(std::ranges::count_if(values_, is_kept));
    if (left >= capacity_ && left <= capacity_ + size / 4) {
      std::size_t kept = 0;
      // Without branches: what is kept is as good as a toss of a coin.
      for (const double value : values_) {
        values_[kept] = value;
        kept += is_kept(value) ? 1 : 0;
      }
      values_.resize(kept);
      threshold_ = pivot;
      return;
    }
  }
  const auto last = values_.begin() + static_cast<std::ptrdiff_t>(capacity_) - 1;
  std::nth_element(values_.begin(), last, values_.end(), std::greater<>{});
  threshold_ = *last;
  values_.resize(capacity_);
}

}  // namespace rskernels
