#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>

#include "bindings.hpp"
#include "rows/log_ratio.hpp"

namespace py = pybind11;

namespace {

using rskernels::DType;
using rskernels::MatrixView;
using rskernels::RatioOptions;
using rskernels::RatioSummary;

// (inner_rows, outer_stride, inner_stride, column_stride), in elements.
using Layout = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>;

MatrixView make_view(std::uintptr_t data, const std::string& dtype, std::int64_t rows,
                     std::int64_t columns, const Layout& layout) {
  MatrixView view;
  view.data = reinterpret_cast<const void*>(data);
  view.dtype = parse_dtype(dtype);
  view.rows = rows;
  view.columns = columns;
  std::tie(view.inner_rows, view.outer_stride, view.inner_stride, view.column_stride) = layout;
  if (rows < 0 || columns < 0 || view.inner_rows < 1) {
    throw std::invalid_argument("a matrix view needs rows, columns >= 0 and inner_rows >= 1");
  }
  return view;
}

RatioOptions make_options(double temperature, bool log_space, bool with_histogram, int threads) {
  if (!(temperature > 0.0)) throw std::invalid_argument("temperature must be positive");
  if (threads < 1) throw std::invalid_argument("threads must be at least 1");
  return {temperature, log_space, with_histogram, threads};
}

RatioSummary dense_log_ratios(const MatrixView& logits, const MatrixView& p_hat, double temperature,
                              bool log_space, bool with_histogram, int threads) {
  if (p_hat.rows != logits.rows || p_hat.columns != logits.columns) {
    throw std::invalid_argument("p_hat needs the shape of logits");
  }
  const RatioOptions options = make_options(temperature, log_space, with_histogram, threads);
  const py::gil_scoped_release release;
  return rskernels::dense_log_ratios(logits, p_hat, options);
}

}  // namespace

DType parse_dtype(const std::string& name) {
  if (name == "float32") return DType::kFloat32;
  if (name == "float64") return DType::kFloat64;
  if (name == "bfloat16") return DType::kBFloat16;
  if (name == "float16") return DType::kFloat16;
  throw std::invalid_argument("dtype must be float32, float64, bfloat16 or float16, got " + name);
}

void bind_log_ratio(py::module_& module) {
  py::class_<MatrixView>(module, "MatrixView")
      .def(py::init(&make_view), py::arg("data"), py::arg("dtype"), py::arg("rows"),
           py::arg("columns"), py::arg("layout"));

  py::class_<RatioSummary>(module, "RatioSummary")
      .def_readonly("max_log_ratio", &RatioSummary::max_log_ratio)
      .def_readonly("valid", &RatioSummary::valid)
      .def_readonly("invalid", &RatioSummary::invalid)
      .def(
          "quantile",
          [](const RatioSummary& summary, double level) {
            return summary.histogram.quantile(level);
          },
          py::arg("level"));

  module.def("dense_log_ratios", &dense_log_ratios, py::arg("logits"), py::arg("p_hat"),
             py::kw_only(), py::arg("temperature"), py::arg("log_space"), py::arg("with_histogram"),
             py::arg("threads"));
  module.def("upper_edge", &rskernels::Histogram::upper_edge, py::arg("log_ratio"));
}
