#pragma once

#include <pybind11/numpy.h>

#include <algorithm>
#include <span>
#include <vector>

// One-dimensional contiguous arrays of exactly this dtype; anything else is a TypeError.
template <class T>
using Array = pybind11::array_t<T, pybind11::array::c_style>;

template <class T>
std::span<const T> as_span(const Array<T>& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}

template <class T>
std::vector<T> as_vector(const Array<T>& array) {
  return {array.data(), array.data() + array.size()};
}

template <class T>
Array<T> as_array(const std::vector<T>& values) {
  Array<T> array(static_cast<pybind11::ssize_t>(values.size()));
  std::ranges::copy(values, array.mutable_data());
  return array;
}
