#include "envelope/leave_one_out.hpp"

#include <cmath>
#include <limits>

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// The two largest ratios of a group, and the row of the first; NaN where there are not as many.
struct Top {
  double first = kNaN;
  double second = kNaN;
  std::int64_t row = -1;

  void add(double ratio, std::int64_t at) {
    if (ratio > first || std::isnan(first)) {
      second = first;
      first = ratio;
      row = at;
    } else if (ratio > second || std::isnan(second)) {
      second = ratio;
    }
  }
};

}  // namespace

std::vector<double> leave_one_out(const Batch& batch, std::span<const double> history) {
  std::vector<Top> tops(history.size());
  std::vector<double> values(static_cast<std::size_t>(batch.count));
  for (std::int64_t begin = 0; begin < batch.count; begin += kBatchBlock) {
    const std::int64_t count = std::min(kBatchBlock, batch.count - begin);
    double* block = values.data() + begin;
    load(batch, begin, count, block);
    for (std::int64_t i = 0; i < count; ++i) {
      const auto group = static_cast<std::size_t>(batch.group(begin + i));
      if (block[i] < kInfinity) tops[group].add(block[i], begin + i);
    }
  }
  for (std::int64_t row = 0; row < batch.count; ++row) {
    const auto group = static_cast<std::size_t>(batch.group(row));
    const Top& top = tops[group];
    // fmax takes the other of a number and NaN.
    values[static_cast<std::size_t>(row)] =
        std::fmax(history[group], top.row == row ? top.second : top.first);
  }
  return values;
}

}  // namespace rskernels
