#include "rows/logsumexp.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "rows/block.hpp"
#include "rows/elementary.hpp"
#include "rows/simd.hpp"

namespace rskernels {
namespace {

constexpr double kLog2E = 0x1.71547652b82fep0;

template <class Real>
constexpr Real kLowest = -std::numeric_limits<Real>::infinity();

template <class Element>
RSKERNELS_INLINE RowSum row_sum(const Element* row, std::int64_t stride, std::int64_t columns,
                                double temperature) {
  using Real = decltype(widen(Element{}));
  // Bounded, since an infinite scale would make NaN of the maximum itself.
  const double scale = std::min(kLog2E / temperature, std::numeric_limits<double>::max());
  const Real block_scale =
      static_cast<Real>(std::min(scale, static_cast<double>(std::numeric_limits<Real>::max())));
  alignas(64) Real buffer[kBlockColumns];
  RowSum total{kLowest<double>, 0.0};
  for (std::int64_t begin = 0; begin < columns; begin += kBlockColumns) {
    const std::int64_t count = std::min(kBlockColumns, columns - begin);
    const Element* block = row + begin * stride;
    const Real* z = buffer;
    if (std::is_same_v<Element, Real> && stride == 1) {
      z = reinterpret_cast<const Real*>(block);
    } else if (stride == 1) {
      for (std::int64_t i = 0; i < count; ++i) buffer[i] = widen(block[i]);
    } else {
      for (std::int64_t i = 0; i < count; ++i) buffer[i] = widen(block[i * stride]);
    }
    const Real top = block_max(z, count);
    const auto next = reinterpret_cast<std::uintptr_t>(block) + kBlockColumns * sizeof(Element);
    // A block of -inf alone adds nothing; one with NaN must still spread it.
    const Real finite_top = top == kLowest<Real> ? Real{0} : top;
    const Real sum = block_sum_exp2<sizeof(Element)>(z, count, finite_top, block_scale, next);
    const double block_top = top;
    const double weight = top == kLowest<Real> && sum == sum ? 0.0 : static_cast<double>(sum);
    if (block_top > total.max) {
      total.sum = total.sum * std::exp2((total.max - block_top) * scale) + weight;
      total.max = block_top;
    } else if (weight != 0.0) {
      total.sum += weight * std::exp2((block_top - total.max) * scale);
    }
    if (!(total.max < std::numeric_limits<double>::infinity()) || total.sum != total.sum) break;
  }
  return total;
}

RSKERNELS_TARGET_CLONES
RowSum row_sum_f32(const float* row, std::int64_t stride, std::int64_t columns, double t) {
  return row_sum(row, stride, columns, t);
}

RSKERNELS_TARGET_CLONES
RowSum row_sum_f64(const double* row, std::int64_t stride, std::int64_t columns, double t) {
  return row_sum(row, stride, columns, t);
}

RSKERNELS_TARGET_CLONES
RowSum row_sum_bf16(const BFloat16* row, std::int64_t stride, std::int64_t columns, double t) {
  return row_sum(row, stride, columns, t);
}

RSKERNELS_TARGET_CLONES
RowSum row_sum_f16(const Float16* row, std::int64_t stride, std::int64_t columns, double t) {
  return row_sum(row, stride, columns, t);
}

}  // namespace

bool RowSum::is_distribution() const { return std::isfinite(max) && !std::isnan(sum); }

RowSum row_sum_exp(const MatrixView& logits, std::int64_t row, double temperature) {
  const std::int64_t stride = logits.column_stride;
  const std::int64_t columns = logits.columns;
  switch (logits.dtype) {
    case DType::kFloat64:
      return row_sum_f64(logits.row<double>(row), stride, columns, temperature);
    case DType::kBFloat16:
      return row_sum_bf16(logits.row<BFloat16>(row), stride, columns, temperature);
    case DType::kFloat16:
      return row_sum_f16(logits.row<Float16>(row), stride, columns, temperature);
    case DType::kFloat32:
      break;
  }
  return row_sum_f32(logits.row<float>(row), stride, columns, temperature);
}

void load(const MatrixView& matrix, std::int64_t row, std::int64_t begin, std::int64_t count,
          double* values) {
  const std::int64_t stride = matrix.column_stride;
  dispatch(matrix.dtype, [&](auto* element) {
    using Element = std::remove_const_t<std::remove_pointer_t<decltype(element)>>;
    const Element* source = matrix.row<Element>(row) + begin * stride;
    if (stride == 1) {
      for (std::int64_t i = 0; i < count; ++i) values[i] = widen(source[i]);
    } else {
      for (std::int64_t i = 0; i < count; ++i) values[i] = widen(source[i * stride]);
    }
  });
}

}  // namespace rskernels
