#include "sketches/histogram.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

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

double edge_at(const std::vector<Histogram::Bin>& occupied, double rank) {
  double below = 0.0;
  for (const Histogram::Bin& bin : occupied) {
    below += bin.count;
    if (below >= rank) return bin.edge;
  }
  return occupied.empty() ? std::numeric_limits<double>::quiet_NaN() : occupied.back().edge;
}

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
  // One zero, since keys are hashed by their bits.
  const double key = std::floor(index / kPageBins) + 0.0;
  const double offset = std::isinf(index) ? 0.0 : index - key * kPageBins;
  page(key)[static_cast<std::size_t>(offset)] += weight;
}

Histogram::Page& Histogram::page(double key) {
  if (!slots_.empty()) {
    const std::uint32_t place = slots_[slot_of(key)];
    if (place != 0) return pages_[place - 1];
  }
  keys_.push_back(key);
  pages_.push_back(Page{});
  if (2 * keys_.size() > slots_.size()) {
    index_pages(std::max<std::size_t>(4, 2 * slots_.size()));
  } else {
    slots_[slot_of(key)] = static_cast<std::uint32_t>(keys_.size());
  }
  return pages_.back();
}

// Where the key is, or would be.
std::size_t Histogram::slot_of(double key) const {
  const std::size_t mask = slots_.size() - 1;
  // The uppermost bits of the product: those of a whole number's double are all in its upper part.
  const std::uint64_t hash = std::bit_cast<std::uint64_t>(key) * 0x9E3779B97F4A7C15u;
  std::size_t slot = hash >> (std::countl_zero(mask));
  while (slots_[slot] != 0 && keys_[slots_[slot] - 1] != key) slot = (slot + 1) & mask;
  return slot;
}

void Histogram::index_pages(std::size_t slots) {
  slots_.assign(slots, 0);
  for (std::size_t p = 0; p < keys_.size(); ++p) {
    slots_[slot_of(keys_[p])] = static_cast<std::uint32_t>(p + 1);
  }
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
  if (kept == keys_.size()) return;
  keys_.resize(kept);
  pages_.resize(kept);
  index_pages(slots_.size());
}

double Histogram::quantile(double level) const {
  const std::vector<Bin> occupied = bins();
  double total = 0.0;
  for (const Bin& bin : occupied) total += bin.count;
  return edge_at(occupied, level * total);
}

double Histogram::at_rank(double rank) const { return edge_at(bins(), rank); }

std::vector<Histogram::Bin> Histogram::bins() const {
  std::vector<Bin> occupied;
  if (zero_ > 0.0) occupied.push_back({-kInfinity, zero_});
  std::vector<std::size_t> order(keys_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t p) { return keys_[p]; });
  for (const std::size_t p : order) {
    for (std::size_t i = 0; i < kPageBins; ++i) {
      const double index = keys_[p] * kPageBins + static_cast<double>(i);
      if (pages_[p][i] > 0.0) occupied.push_back({edge_of(index), pages_[p][i]});
    }
  }
  return occupied;
}

}  // namespace rskernels
