#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>

#include "arrays.hpp"
#include "bindings.hpp"
#include "envelope/byte_form.hpp"
#include "envelope/envelope.hpp"

namespace py = pybind11;

namespace {

using rskernels::Batch;
using rskernels::Columns;
using rskernels::Envelope;
using rskernels::EnvelopeOptions;
using rskernels::EnvelopeReport;
using rskernels::OnViolation;
using rskernels::PolicyOptions;
using rskernels::Tally;

// In the order of the enumeration.
constexpr std::array kReactions = {"cap", "raise", "thin", "control"};
static_assert(kReactions.size() == rskernels::kOnViolationCount);

OnViolation parse_reaction(const std::string& name) {
  const auto reaction = std::ranges::find(kReactions, name);
  if (reaction == kReactions.end()) throw std::invalid_argument("unknown reaction " + name);
  return static_cast<OnViolation>(reaction - kReactions.begin());
}

// The policy of this name with these numbers, all of which it must have.
PolicyOptions parse_policy(const std::string& name, const py::kwargs& numbers) {
  for (PolicyOptions policy : rskernels::default_policies()) {
    if (name != rskernels::name_of(policy)) continue;
    std::size_t used = 0;
    rskernels::for_each_number(policy, [&](const char* number, auto& value) {
      if (!numbers.contains(number)) return;
      value = numbers[number].cast<double>();
      ++used;
    });
    if (used < numbers.size()) {
      throw std::invalid_argument("the policy " + name + " does not have all of these numbers");
    }
    return policy;
  }
  throw std::invalid_argument("unknown policy " + name);
}

std::unique_ptr<Envelope> make_envelope(const std::string& policy, std::int64_t groups,
                                        const std::string& on_violation,
                                        const py::kwargs& numbers) {
  const EnvelopeOptions options{.policy = parse_policy(policy, numbers),
                                .on_violation = parse_reaction(on_violation),
                                .groups = groups};
  const py::gil_scoped_release release;
  return std::make_unique<Envelope>(options);
}

Batch make_batch(std::uintptr_t log_ratio, const std::string& dtype, std::int64_t count,
                 std::uintptr_t group_ids, bool ids_are_int32) {
  if (count < 0) throw std::invalid_argument("a batch has at least 0 rows");
  Batch batch;
  batch.log_ratio = reinterpret_cast<const void*>(log_ratio);
  batch.dtype = parse_dtype(dtype);
  batch.count = count;
  batch.group_ids = reinterpret_cast<const void*>(group_ids);
  batch.ids_are_int32 = ids_are_int32;
  return batch;
}

Array<double> log_M(const Envelope& envelope, const std::optional<Batch>& batch) {
  std::vector<double> values;
  {
    const py::gil_scoped_release release;
    values = batch ? envelope.log_M(*batch) : envelope.log_M();
  }
  return as_array(values);
}

void observe(Envelope& envelope, const Array<bool>& accepted, const Batch& batch) {
  if (accepted.size() != batch.count) throw std::invalid_argument("accepted needs one entry a row");
  const std::span<const bool> mask = as_span(accepted);
  const py::gil_scoped_release release;
  envelope.observe(mask, batch);
}

py::dict count(const std::vector<Tally>& tallies) {
  py::dict arrays;
  const auto ints = [&](const char* name, auto get) {
    std::vector<std::int64_t> values;
    for (const Tally& tally : tallies) values.push_back(get(tally));
    arrays[name] = as_array(values);
  };
  ints("seen", [](const Tally& t) { return t.seen; });
  ints("valid", [](const Tally& t) { return t.valid(); });
  ints("invalid", [](const Tally& t) { return t.invalid; });
  ints("decided", [](const Tally& t) { return t.decided; });
  ints("violations", [](const Tally& t) { return t.violations; });
  return arrays;
}

py::dict summarize(const std::vector<Tally>& tallies) {
  py::dict arrays = count(tallies);
  const auto doubles = [&](const char* name, auto get) {
    std::vector<double> values;
    for (const Tally& tally : tallies) values.push_back(get(tally));
    arrays[name] = as_array(values);
  };
  doubles("max_log_ratio", [](const Tally& t) { return t.max_log_ratio; });
  doubles("delta", [](const Tally& t) { return t.delta(); });
  doubles("expected_acceptance", [](const Tally& t) { return t.expected_acceptance(); });
  doubles("observed_acceptance", [](const Tally& t) { return t.observed_acceptance(); });
  doubles("ess", [](const Tally& t) { return t.effective_sample_size(); });
  doubles("chi_squared", [](const Tally& t) { return t.chi_squared(); });
  return arrays;
}

py::dict tallies(const Envelope& envelope) {
  std::vector<Tally> groups;
  {
    const py::gil_scoped_release release;
    groups = envelope.tallies();
  }
  return summarize(groups);
}

py::tuple report(const Envelope& envelope) {
  EnvelopeReport report;
  {
    const py::gil_scoped_release release;
    report = envelope.report();
  }
  py::dict groups = summarize(report.groups);
  groups["log_M"] = as_array(report.log_M);
  groups["pareto_k"] = as_array(report.shape);
  py::dict overall = summarize({report.overall});
  overall["pareto_k"] = as_array(std::vector<double>{report.overall_shape});
  return py::make_tuple(groups, overall);
}

py::dict state(const Envelope& envelope) {
  Columns columns;
  {
    const py::gil_scoped_release release;
    columns = envelope.state();
  }
  py::dict arrays;
  for (const auto& [name, values] : columns.ints) arrays[name.c_str()] = as_array(values);
  for (const auto& [name, values] : columns.doubles) arrays[name.c_str()] = as_array(values);
  return arrays;
}

Columns as_columns(const py::dict& arrays) {
  Columns columns;
  for (const auto& [key, values] : arrays) {
    const auto name = key.cast<std::string>();
    if (py::isinstance<Array<std::int64_t>>(values)) {
      columns.ints[name] = as_vector(values.cast<Array<std::int64_t>>());
    } else {
      columns.doubles[name] = as_vector(values.cast<Array<double>>());
    }
  }
  return columns;
}

void restore(Envelope& envelope, const py::dict& arrays,
             const std::optional<std::vector<py::dict>>& parts) {
  const Columns columns = as_columns(arrays);
  std::vector<Columns> others;
  for (const py::dict& part : parts.value_or(std::vector<py::dict>())) {
    others.push_back(as_columns(part));
  }
  const py::gil_scoped_release release;
  parts ? envelope.restore(columns, others) : envelope.restore(columns);
}

py::bytes to_bytes(const Envelope& envelope) {
  std::string bytes;
  {
    const py::gil_scoped_release release;
    bytes = rskernels::encode({envelope.options(), envelope.state()});
  }
  return py::bytes(bytes);
}

std::unique_ptr<Envelope> from_bytes(std::string_view bytes) {
  const py::gil_scoped_release release;
  const rskernels::Snapshot snapshot = rskernels::decode(std::as_bytes(std::span(bytes)));
  auto envelope = std::make_unique<Envelope>(snapshot.options);
  envelope->restore(snapshot.columns);
  return envelope;
}

// Name, groups, reaction, and the numbers by name, without those that are left out.
py::tuple options(const Envelope& envelope) {
  const EnvelopeOptions& options = envelope.options();
  py::dict numbers;
  rskernels::for_each_number(options.policy, [&](const char* name, const auto& number) {
    const std::optional<double> value = number;
    if (value) numbers[name] = *value;
  });
  return py::make_tuple(rskernels::name_of(options.policy), options.groups,
                        kReactions[static_cast<std::size_t>(options.on_violation)], numbers);
}

}  // namespace

void bind_envelope(py::module_& module) {
  py::list counts;
  for (const auto& count : rskernels::kCountFields) counts.append(count.name);
  module.attr("TALLY_COUNTS") = py::tuple(counts);
  py::dict sums;
  for (const auto& sum : rskernels::kSumFields) sums[sum.name] = sum.power;
  module.attr("TALLY_SUMS") = sums;

  py::register_exception<rskernels::NoFiniteM>(module, "NoFiniteM", PyExc_ValueError);
  py::class_<Batch>(module, "Batch")
      .def(py::init(&make_batch), py::arg("log_ratio"), py::arg("dtype"), py::arg("count"),
           py::arg("group_ids") = 0, py::arg("ids_are_int32") = false);
  py::class_<Envelope>(module, "Envelope")
      .def(py::init(&make_envelope), py::arg("policy"), py::arg("groups"), py::arg("on_violation"))
      .def("update", &Envelope::update, py::arg("batch"), py::arg("threads"),
           py::call_guard<py::gil_scoped_release>())
      .def("observe", &observe, py::arg("accepted").noconvert(), py::arg("batch"))
      .def("merge", &Envelope::merge, py::arg("other"), py::call_guard<py::gil_scoped_release>())
      .def("log_M", &log_M, py::arg("batch") = py::none())
      .def("tail_capacities", &Envelope::tail_capacities)
      .def("tallies", &tallies)
      .def("report", &report)
      .def("state", &state)
      .def("restore", &restore, py::arg("arrays"), py::arg("parts") = py::none())
      .def("to_bytes", &to_bytes)
      .def_static("from_bytes", &from_bytes, py::arg("data"))
      .def("options", &options);
}
