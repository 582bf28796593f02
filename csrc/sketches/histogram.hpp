#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace rskernels {

// Weighted counts of log ratios in bins of width 1/256 nat (DDSketch, Masson, Rim & Lee 2019, with
// fixed bins in place of a bounded number of them, so that merging is exact).
class Histogram {
 public:
  static constexpr double kBinsPerNat = 256.0;

  // Bin k holds ((k - 1)/256, k/256] and is named by its upper edge; -inf is a bin of its own.
  struct Bin {
    double edge;
    double count;
  };

  // Adds a ratio, which is neither NaN nor +inf.
  void add(double log_ratio, double weight = 1.0);
  // Adds the counts of another, times `weight`.
  void merge(const Histogram& other, double weight = 1.0);
  // Multiplies every count.
  void scale(double factor);

  // Returns the smallest upper edge below which at least `level` of the weight lies; NaN when
  // empty.
  double quantile(double level) const;
  // Returns the smallest upper edge below which at least this much weight lies; NaN when empty.
  double at_rank(double rank) const;

  // Returns the occupied bins in ascending order.
  std::vector<Bin> bins() const;

  // Returns the upper edge of the bin of a ratio.
  static double upper_edge(double log_ratio);

 private:
  static constexpr int kPageBins = 64;
  using Page = std::array<double, kPageBins>;

  Page& page(double key);
  void index_pages(std::size_t slots);
  std::size_t slot_of(double key) const;

  double zero_ = 0.0;
  // Keys and their pages, in the order in which they came.
  std::vector<double> keys_;
  std::vector<Page> pages_;
  // A hash table of places in them, plus one; 0 in at least half of it, whose length is a power of
  // two.
  std::vector<std::uint32_t> slots_;
};

}  // namespace rskernels
