#pragma once

#include <pybind11/pybind11.h>

void bind_envelope(pybind11::module_& module);
void bind_log_ratio(pybind11::module_& module);
