#include "bindings.hpp"

PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
  module.doc() = "Envelope estimation in C++; rskernels.envelope is its public face.";
  bind_log_ratio(module);
  bind_envelope(module);
}
