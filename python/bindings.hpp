#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "rows/matrix_view.hpp"

void bind_envelope(pybind11::module_& module);
void bind_log_ratio(pybind11::module_& module);

// Returns the element type that torch calls so. Throws std::invalid_argument for others.
rskernels::DType parse_dtype(const std::string& name);
