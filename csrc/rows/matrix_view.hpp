#pragma once

#include <cstdint>

namespace rskernels {

enum class DType { kFloat32, kFloat64, kBFloat16, kFloat16 };

struct BFloat16 {
  std::uint16_t bits;
};

struct Float16 {
  std::uint16_t bits;
};

// A matrix whose rows are laid out in two levels, such as logits[:, :-1] of a [B, S, V] tensor.
// Strides count elements and may be zero or negative.
struct MatrixView {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t inner_rows = 1;
  std::int64_t outer_stride = 0;
  std::int64_t inner_stride = 0;
  std::int64_t column_stride = 1;

  template <class Element>
  const Element* row(std::int64_t index) const {
    return static_cast<const Element*>(data) + (index / inner_rows) * outer_stride +
           (index % inner_rows) * inner_stride;
  }
};

// Calls f with a null pointer to the element type.
template <class F>
auto dispatch(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kFloat64:
      return f(static_cast<const double*>(nullptr));
    case DType::kBFloat16:
      return f(static_cast<const BFloat16*>(nullptr));
    case DType::kFloat16:
      return f(static_cast<const Float16*>(nullptr));
    case DType::kFloat32:
      break;
  }
  return f(static_cast<const float*>(nullptr));
}

inline std::int64_t element_size(DType dtype) {
  return dispatch(dtype,
                  [](const auto* element) { return static_cast<std::int64_t>(sizeof(*element)); });
}

}  // namespace rskernels
