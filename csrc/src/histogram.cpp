#include "histogram.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLargest = std::numeric_limits<double>::max();

// A double holds the index of every bin exactly: ratios beyond 2^53 bins are multiples of one.
double bin_index(double log_ratio) {
  return std::max(std::ceil(log_ratio * Histogram::kBinsPerNat), -kLargest);
}

// Bin +inf holds the ratios whose index overflows; its edge is finite and above all of them.
double edge_of(double index) { return std::min(index / Histogram::kBinsPerNat, kLargest); }

}  // namespace

double Histogram::upper_edge(double log_ratio) {
  return log_ratio == -kInfinity ? log_ratio : edge_of(bin_index(log_ratio));
}

void Histogram::add(double log_ratio, double weight) {
  if (log_ratio == -kInfinity) {
    zero_ += weight;
    return;
  }
  const double index = bin_index(log_ratio);
  const double page = std::floor(index / kPageBins);
  const double offset = std::isinf(index) ? 0.0 : index - page * kPageBins;
  pages_[page][static_cast<std::size_t>(offset)] += weight;
}

void Histogram::merge(const Histogram& other, double weight) {
  zero_ += other.zero_ * weight;
  for (const auto& [key, theirs] : other.pages_) {
    Page& ours = pages_[key];
    for (std::size_t i = 0; i < kPageBins; ++i) ours[i] += theirs[i] * weight;
  }
}

void Histogram::scale(double factor) {
  zero_ *= factor;
  for (auto& [key, page] : pages_) {
    for (double& count : page) count *= factor;
  }
  std::erase_if(pages_, [](const auto& entry) {
    return std::ranges::all_of(entry.second, [](double count) { return count == 0.0; });
  });
}

double Histogram::quantile(double level) const {
  const std::vector<Bin> occupied = bins();
  if (occupied.empty()) return std::numeric_limits<double>::quiet_NaN();
  double total = 0.0;
  for (const Bin& bin : occupied) total += bin.count;
  double below = 0.0;
  for (const Bin& bin : occupied) {
    below += bin.count;
    if (below >= level * total) return bin.edge;
  }
  return occupied.back().edge;
}

std::vector<Histogram::Bin> Histogram::bins() const {
  std::vector<Bin> occupied;
  if (zero_ > 0.0) occupied.push_back({-kInfinity, zero_});
  for (const auto& [key, page] : pages_) {
    for (std::size_t i = 0; i < kPageBins; ++i) {
      if (page[i] > 0.0) {
        occupied.push_back({edge_of(key * kPageBins + static_cast<double>(i)), page[i]});
      }
    }
  }
  return occupied;
}

}  // namespace rskernels
