#pragma once

#include <cstddef>
#include <limits>
#include <vector>

namespace rskernels {

// The largest of the values it has been shown, at most `capacity` of them. They do not depend on
// the order or grouping in which the values came.
class Tail {
 public:
  // Holds `capacity` values at most. Those up to `floor` are known not to matter.
  explicit Tail(std::size_t capacity = 0, double floor = -std::numeric_limits<double>::infinity());

  // Once there is room, values that are added together need no memory if they are no more than
  // this.
  static constexpr std::size_t kTogether = 128;
  void make_room() { values_.reserve(2 * capacity_ + kTogether); }

  // Returns what a value must exceed to be among the largest.
  double threshold() const { return threshold_; }
  std::size_t capacity() const { return capacity_; }

  // Takes a finite value in, or -inf, which is dropped.
  void add(double value) {
    if (!(value > threshold_)) return;
    // The two zeros are equal, so their order would show in the bytes: one of them is kept.
    values_.push_back(value + 0.0);
    if (values_.size() >= 2 * capacity_) trim();
  }
  // Takes `count` values in; NaN and infinities are dropped. Without branches: near the threshold,
  // which are above it is as good as a toss of a coin.
  template <class Real>
  void add(const Real* values, std::size_t count) {
    constexpr Real kTop = std::numeric_limits<Real>::infinity();
    std::size_t end = values_.size();
    values_.resize(end + count);
    // What is stored must not seem to move the threshold, which would be read again for each.
    double* const to = values_.data();
    const double threshold = threshold_;
    for (std::size_t i = 0; i < count; ++i) {
      const double value = values[i];
      to[end] = value + 0.0;
      end += static_cast<std::size_t>(value > threshold) & static_cast<std::size_t>(value < kTop);
    }
    values_.resize(end);
    if (end >= 2 * capacity_) trim();
  }
  void merge(const Tail& other);

  // Returns the values that are held in descending order.
  std::vector<double> largest() const;

 private:
  void trim();

  std::size_t capacity_;
  double threshold_;
  std::vector<double> values_;
};

}  // namespace rskernels
