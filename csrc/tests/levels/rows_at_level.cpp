// Prints what csrc/rows makes of given numbers, bit by bit: compiled for one x86-64 level, without
// clones, so that each level can be run on a machine whose own is higher. Returns 77 where it is
// lower.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "rows/log_ratio.hpp"
#include "rows/logsumexp.hpp"

namespace {

using rskernels::BFloat16;
using rskernels::DType;
using rskernels::Float16;
using rskernels::MatrixView;

void print(double value) {
  // One NaN is as good as another.
  if (std::isnan(value)) value = std::numeric_limits<double>::quiet_NaN();
  std::printf("%016llx\n", static_cast<unsigned long long>(std::bit_cast<std::uint64_t>(value)));
}

template <class Element>
void print_rows(const std::vector<Element>& values, DType dtype, std::int64_t columns,
                const std::vector<double>& p_hat) {
  MatrixView logits;
  logits.data = values.data();
  logits.dtype = dtype;
  logits.rows = static_cast<std::int64_t>(values.size()) / columns;
  logits.columns = columns;
  logits.inner_rows = logits.rows;
  logits.inner_stride = columns;
  MatrixView density = logits;
  density.data = p_hat.data();
  density.dtype = DType::kFloat64;
  for (const double temperature : {0.5, 1.0, 1.7}) {
    for (std::int64_t row = 0; row < logits.rows; ++row) {
      const rskernels::RowSum sum = rskernels::row_sum_exp(logits, row, temperature);
      print(sum.max);
      print(sum.sum);
    }
    rskernels::RatioOptions options;
    options.temperature = temperature;
    options.threads = 2;
    const rskernels::RatioSummary summary = rskernels::dense_log_ratios(logits, density, options);
    print(summary.max_log_ratio);
    print(static_cast<double>(summary.valid));
    print(static_cast<double>(summary.invalid));
  }
}

void print_shape(std::int64_t rows, std::int64_t columns) {
  std::mt19937 generator(7);
  const auto size = static_cast<std::size_t>(rows * columns);
  std::vector<double> p_hat(size), wide(size);
  std::vector<float> single(size);
  std::vector<BFloat16> brain(size);
  std::vector<Float16> half(size);
  for (std::size_t i = 0; i < size; ++i) {
    // Of the raw words, so that no library's rounding comes in; every exponent and NaN of float16.
    const auto word = static_cast<std::uint32_t>(generator());
    wide[i] = (static_cast<double>(word) * 0x1p-32 - 0.5) * 20.0;
    single[i] = static_cast<float>(wide[i]);
    brain[i] = BFloat16{static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(single[i]) >> 16)};
    half[i] = Float16{static_cast<std::uint16_t>(word >> 16)};
    p_hat[i] = static_cast<double>(generator() | 1u) * 0x1p-32;
  }
  wide[1] = single[1] = -std::numeric_limits<float>::infinity();
  single[size - 1] = std::numeric_limits<float>::quiet_NaN();
  print_rows(wide, DType::kFloat64, columns, p_hat);
  print_rows(single, DType::kFloat32, columns, p_hat);
  print_rows(brain, DType::kBFloat16, columns, p_hat);
  print_rows(half, DType::kFloat16, columns, p_hat);
  for (Float16& value : half) value.bits &= 0xBFFFu;  // finite, and small ones among them
  print_rows(half, DType::kFloat16, columns, p_hat);
}

}  // namespace

int main() {
  if (!(RSKERNELS_RUNS_HERE)) return 77;
  print_shape(5, 37);
  print_shape(3, 9001);
}
