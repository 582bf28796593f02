#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>

#include "arrays.hpp"
#include "bindings.hpp"
#include "envelope.hpp"

namespace py = pybind11;

namespace {

using rskernels::Envelope;
using rskernels::EnvelopeCounts;
using rskernels::EnvelopeOptions;
using rskernels::EnvelopeState;
using rskernels::Policy;
using GroupIds = std::optional<Array<std::int64_t>>;

Policy parse_policy(const std::string& name) {
  if (name == "max") return Policy::kMax;
  if (name == "quantile") return Policy::kQuantile;
  throw std::invalid_argument("policy must be max or quantile, got " + name);
}

std::unique_ptr<Envelope> make_envelope(const std::string& policy, double level,
                                        std::int64_t groups, std::optional<double> half_life) {
  return std::make_unique<Envelope>(
      EnvelopeOptions{parse_policy(policy), level, groups, half_life});
}

void update(Envelope& envelope, const Array<double>& log_ratio, const GroupIds& group_ids) {
  const std::span<const double> ratios = as_span(log_ratio);
  const auto ids = group_ids ? as_span(*group_ids) : std::span<const std::int64_t>{};
  const py::gil_scoped_release release;
  envelope.update(ratios, ids);
}

Array<double> log_M(const Envelope& envelope, const GroupIds& group_ids) {
  std::vector<double> values;
  if (group_ids) {
    const std::span<const std::int64_t> ids = as_span(*group_ids);
    const py::gil_scoped_release release;
    values = envelope.log_M(ids);
  } else {
    const py::gil_scoped_release release;
    values = envelope.log_M();
  }
  return as_array(values);
}

py::tuple counts(const Envelope& envelope) {
  EnvelopeCounts counts;
  {
    const py::gil_scoped_release release;
    counts = envelope.counts();
  }
  return py::make_tuple(as_array(counts.seen), as_array(counts.violations),
                        as_array(counts.invalid));
}

py::dict state(const Envelope& envelope) {
  EnvelopeState state;
  {
    const py::gil_scoped_release release;
    state = envelope.state();
  }
  py::dict arrays;
  arrays["seen"] = as_array(state.counts.seen);
  arrays["violations"] = as_array(state.counts.violations);
  arrays["invalid"] = as_array(state.counts.invalid);
  arrays["max_log_ratio"] = as_array(state.max_log_ratio);
  arrays["unit"] = as_array(state.unit);
  arrays["bin_start"] = as_array(state.bin_start);
  arrays["bin_edge"] = as_array(state.bin_edge);
  arrays["bin_count"] = as_array(state.bin_count);
  return arrays;
}

void restore(Envelope& envelope, const py::dict& arrays) {
  const auto int64s = [&](const char* key) {
    return as_vector(arrays[key].cast<Array<std::int64_t>>());
  };
  const auto doubles = [&](const char* key) {
    return as_vector(arrays[key].cast<Array<double>>());
  };
  EnvelopeState state;
  state.counts = {int64s("seen"), int64s("violations"), int64s("invalid")};
  state.max_log_ratio = doubles("max_log_ratio");
  state.unit = doubles("unit");
  state.bin_start = int64s("bin_start");
  state.bin_edge = doubles("bin_edge");
  state.bin_count = doubles("bin_count");
  const py::gil_scoped_release release;
  envelope.restore(state);
}

}  // namespace

void bind_envelope(py::module_& module) {
  py::class_<Envelope>(module, "Envelope")
      .def(py::init(&make_envelope), py::arg("policy"), py::arg("level"), py::arg("groups"),
           py::arg("half_life"))
      .def("update", &update, py::arg("log_ratio").noconvert(),
           py::arg("group_ids").noconvert() = py::none())
      .def("merge", &Envelope::merge, py::arg("other"), py::call_guard<py::gil_scoped_release>())
      .def("log_M", &log_M, py::arg("group_ids").noconvert() = py::none())
      .def("counts", &counts)
      .def("state", &state)
      .def("restore", &restore, py::arg("arrays"));
}
