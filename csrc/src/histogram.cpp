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
  const double key = std::floor(index / kPageBins);
  const double offset = std::isinf(index) ? 0.0 : index - key * kPageBins;
  page(key)[static_cast<std::size_t>(offset)] += weight;
}

Histogram::Page& Histogram::page(double key) {
  if (!keys_.empty()) {
    const double guess = static_cast<double>(recent_) + (key - keys_[recent_]);
    if (guess >= 0.0 && guess < static_cast<double>(keys_.size())) {
      const auto at = static_cast<std::size_t>(guess);
      if (keys_[at] == key) return pages_[recent_ = at];
    }
  }
  const auto place = std::ranges::lower_bound(keys_, key) - keys_.begin();
  recent_ = static_cast<std::size_t>(place);
  if (recent_ == keys_.size() || keys_[recent_] != key) {
    keys_.insert(keys_.begin() + place, key);
    pages_.insert(pages_.begin() + place, Page{});
  }
  return pages_[recent_];
}

void Histogram::merge(const Histogram& other, double weight) {
  zero_ += other.zero_ * weight;
  for (std::size_t p = 0; p < other.keys_.size(); ++p) {
    Page& ours = page(other.keys_[p]);
    for (std::size_t i = 0; i < kPageBins; ++i) ours[i] += other.pages_[p][i] * weight;
  }
}

void Histogram::scale(double factor) {
  zero_ *= factor;
  std::size_t kept = 0;
  for (std::size_t p = 0; p < keys_.size(); ++p) {
    for (double& count : pages_[p]) count *= factor;
    if (std::ranges::all_of(pages_[p], [](double count) { return count == 0.0; })) continue;
    keys_[kept] = keys_[p];
    pages_[kept++] = pages_[p];
  }
  keys_.resize(kept);
  pages_.resize(kept);
  recent_ = 0;
}

double Histogram::quantile(double level) const {
  double total = 0.0;
  for (const Bin& bin : bins()) total += bin.count;
  return at_rank(level * total);
}

double Histogram::at_rank(double rank) const {
  const std::vector<Bin> occupied = bins();
  double below = 0.0;
  for (const Bin& bin : occupied) {
    below += bin.count;
    if (below >= rank) return bin.edge;
  }
  return occupied.empty() ? std::numeric_limits<double>::quiet_NaN() : occupied.back().edge;
}

std::vector<Histogram::Bin> Histogram::bins() const {
  std::vector<Bin> occupied;
  if (zero_ > 0.0) occupied.push_back({-kInfinity, zero_});
  for (std::size_t p = 0; p < keys_.size(); ++p) {
    for (std::size_t i = 0; i < kPageBins; ++i) {
      const double index = keys_[p] * kPageBins + static_cast<double>(i);
      if (pages_[p][i] > 0.0) occupied.push_back({edge_of(index), pages_[p][i]});
    }
  }
  return occupied;
}

}  // namespace rskernels
