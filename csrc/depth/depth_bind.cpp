// SPDX-License-Identifier: Apache-2.0
// Depth as Python calls it: views in, one result out.
#include <pybind11/pybind11.h>

#include <cmath>
#include <optional>

#include "core/workspace.h"
#include "python/gil.h"
#include "python/monitor.h"
#include "python/raise.h"
#include "python/view.h"

namespace py = pybind11;

namespace {

using ecpy::Argument;
using ecpy::ArrayView;

constexpr int64_t kKeepGilBelow = 1 << 22;  // multiplications: below, releasing costs more than it gives

// Runs call without the GIL when the work is worth it.
template <class Call>
ec_status run_released(bool large, Call&& call) {
  if (!large) return call();
  return ecpy::without_gil(call);
}

[[noreturn]] void raise_no_memory(const char* where) {
  ec_error error = {-1, "", "not enough memory"};
  ecpy::raise_error(where, EC_OUT_OF_MEMORY, error);
}

// Everything that ec_depth_options points into.
class Options {
 public:
  Options(const char* where, int metric, int precision, int threads, bool raw_sums)
      : where_(where),
        options_{static_cast<ec_depth_metric>(metric),
                 static_cast<ec_precision>(precision),
                 threads,
                 raw_sums ? 1 : 0,
                 nullptr,
                 nullptr,
                 1,
                 nullptr,
                 nullptr} {}

  void set_weights(py::handle weights, int64_t rows) {
    if (weights.is_none()) return;
    const ArrayView view = ecpy::view_vector(weights, {where_, "weights"});
    if (view.rows() != rows)
      ecpy::raise_value("%s: 'weights' must have one number for each row (%lld); got shape (%lld,).",
                        where_, static_cast<long long>(rows), static_cast<long long>(view.rows()));
    if (view.dtype() != EC_FLOAT32 && view.dtype() != EC_FLOAT64)
      ecpy::raise_type("%s: 'weights' must be float32 or float64; got %s.", where_,
                       ecpy::dtype_name(view.dtype()));
    if (!weights_.allocate(rows)) raise_no_memory(where_);
    // Depths do not depend on the unit of the weights: one is taken that floats hold.
    double largest = 0.0;
    for (int64_t j = 0; j < rows; ++j) {
      const double weight = weight_at(view.matrix(), j);
      if (std::isfinite(weight) && weight > largest) largest = weight;
    }
    if (largest > 0.0) weight_unit_ = std::ldexp(1.0, std::ilogb(largest));
    for (int64_t j = 0; j < rows; ++j)
      weights_.data()[j] = static_cast<float>(weight_at(view.matrix(), j) / weight_unit_);
    options_.weights = weights_.data();
  }

  void set_labels(py::handle labels, int64_t groups, int64_t rows) {
    options_.groups = groups;
    if (labels.is_none()) return;
    const ecpy::IndexView view = ecpy::view_indices(labels, {where_, "groups"});
    if (view.size() != rows)
      ecpy::raise_value("%s: 'groups' must have one label for each row (%lld); got shape (%lld,).", where_,
                        static_cast<long long>(rows), static_cast<long long>(view.size()));
    if (!labels_.allocate(rows)) raise_no_memory(where_);
    for (int64_t j = 0; j < rows; ++j) {
      const int64_t label = view.data()[j];
      labels_.data()[j] = label < 0 || label >= groups ? -1 : static_cast<int32_t>(label);
    }
    options_.labels = labels_.data();
  }

  void set_directions(const ArrayView* view) {
    options_.directions = view == nullptr ? nullptr : &view->matrix();
  }

  ec_depth_options& get() { return options_; }
  // What sums of weights are to be multiplied with.
  double weight_unit() const { return weight_unit_; }

 private:
  const char* where_;
  ec_depth_options options_;
  static double weight_at(const ec_matrix& weights, int64_t row) {
    const int64_t at = row * weights.row_stride;
    return weights.dtype == EC_FLOAT64 ? static_cast<const double*>(weights.data)[at]
                                       : static_cast<double>(static_cast<const float*>(weights.data)[at]);
  }

  ec::AlignedBuffer<float> weights_;
  double weight_unit_ = 1.0;
  ec::AlignedBuffer<int32_t> labels_;
};

void write_result(const double* from, int64_t count, ec_dtype dtype, void* to) {
  if (dtype == EC_FLOAT64) {
    for (int64_t i = 0; i < count; ++i) static_cast<double*>(to)[i] = from[i];
  } else {
    for (int64_t i = 0; i < count; ++i) static_cast<float*>(to)[i] = static_cast<float>(from[i]);
  }
}

void scale_all(double* values, int64_t count, double factor) {
  for (int64_t i = 0; i < count; ++i) values[i] *= factor;
}

py::object depth_score(const char* where, py::handle x, py::handle corpus, int metric, int precision,
                       py::handle weights, py::handle labels, int64_t groups, py::handle directions,
                       int threads, bool raw_sums, py::handle out, py::object progress) {
  const ArrayView x_view = ecpy::view_matrix(x, {where, "x"});
  std::optional<ArrayView> corpus_view, direction_view;
  if (!corpus.is_none()) corpus_view = ecpy::view_matrix(corpus, {where, "corpus"});
  if (!directions.is_none()) direction_view = ecpy::view_matrix(directions, {where, "directions"});
  const int64_t corpus_rows = corpus_view ? corpus_view->rows() : x_view.rows();
  Options options(where, metric, precision, threads, raw_sums);
  options.set_weights(weights, corpus_rows);
  options.set_labels(labels, groups, corpus_rows);
  options.set_directions(direction_view ? &*direction_view : nullptr);
  const ec_dtype dtype = raw_sums ? EC_FLOAT64 : x_view.result_dtype();
  // Raw spatial sums are vectors: [rows][groups * columns].
  const bool vectors = raw_sums && metric == EC_DEPTH_SPATIAL;
  const int64_t per_row = vectors ? groups * x_view.columns() : groups;
  const int axes = labels.is_none() && !vectors ? 1 : 2;
  ecpy::OutputView output =
      ecpy::open_output(out, {where, "out"}, x_view, dtype, axes, {x_view.rows(), per_row});
  ec::AlignedBuffer<double> depths;
  const int64_t count = x_view.rows() * per_row;
  double* target = dtype == EC_FLOAT64 ? output.as<double>() : nullptr;
  if (target == nullptr) {
    if (!depths.allocate(count)) raise_no_memory(where);
    target = depths.data();
  }
  ecpy::PyMonitor monitor(std::move(progress));
  options.get().monitor = monitor.get();
  ec_error error = {};
  const bool large = (x_view.rows() + 64) * (corpus_rows + 64) * (x_view.columns() + 1) > kKeepGilBelow;
  const ec_status status = run_released(large, [&] {
    return ec_depth_score(&x_view.matrix(), corpus_view ? &corpus_view->matrix() : nullptr, &options.get(),
                          target, &error);
  });
  ecpy::check_status(where, status, error);
  if (raw_sums) scale_all(target, count, options.weight_unit());
  if (dtype != EC_FLOAT64) write_result(target, count, dtype, output.data());
  return output.object();
}

// The checks of depth_score alone, for metrics whose arithmetic is NumPy's.
void depth_check(const char* where, py::handle x, py::handle corpus, py::handle weights) {
  const ArrayView x_view = ecpy::view_matrix(x, {where, "x"});
  std::optional<ArrayView> corpus_view;
  if (!corpus.is_none()) corpus_view = ecpy::view_matrix(corpus, {where, "corpus"});
  Options options(where, EC_DEPTH_L2, EC_PRECISION_FLOAT32, 0, false);
  options.set_weights(weights, corpus_view ? corpus_view->rows() : x_view.rows());
  ec_error error = {};
  const ec_status status = ec_depth_check(&x_view.matrix(), corpus_view ? &corpus_view->matrix() : nullptr,
                                          &options.get(), &error);
  ecpy::check_status(where, status, error);
}

// Writes float64 depths, one or two axes, into the user's out= for x.
py::object depth_write(const char* where, py::handle x, py::handle depths, py::handle out) {
  const ArrayView x_view = ecpy::view_matrix(x, {where, "x"});
  const ArrayView from = ecpy::view_array(depths, {where, "depths"}, 1, 2);
  const ec_dtype dtype = x_view.result_dtype();
  ecpy::OutputView output =
      ecpy::view_output(out, {where, "out"}, dtype, from.axes(), {from.rows(), from.columns()});
  write_result(static_cast<const double*>(from.matrix().data), from.rows() * from.columns(), dtype,
               output.data());
  return output.object();
}

// Adds the statistic of one chunk: sums[groups][columns] and totals[groups] are float64 arrays.
void depth_direction_sums(const char* where, py::handle corpus, py::handle weights, py::handle labels,
                          int64_t groups, int threads, py::handle sums, py::handle totals,
                          py::object progress) {
  const ArrayView view = ecpy::view_matrix(corpus, {where, "corpus"});
  Options options(where, EC_DEPTH_COSINE, EC_PRECISION_FLOAT32, threads, true);
  options.set_weights(weights, view.rows());
  options.set_labels(labels, groups, view.rows());
  ecpy::OutputView sums_view =
      ecpy::view_output(sums, {where, "sums"}, EC_FLOAT64, 2, {groups, view.columns()});
  ecpy::OutputView totals_view = ecpy::view_output(totals, {where, "totals"}, EC_FLOAT64, 1, {groups, 1});
  ecpy::PyMonitor monitor(std::move(progress));
  options.get().monitor = monitor.get();
  ec_error error = {};
  const ec_status status = run_released(true, [&] {
    return ec_depth_direction_sums(&view.matrix(), &options.get(), sums_view.as<double>(),
                                   totals_view.as<double>(), &error);
  });
  ecpy::check_status(where, status, error);
  scale_all(sums_view.as<double>(), groups * view.columns(), options.weight_unit());
  scale_all(totals_view.as<double>(), groups, options.weight_unit());
}

py::object depth_cosine_sums(const char* where, py::handle x, py::handle sums, int threads,
                             py::object progress) {
  const ArrayView view = ecpy::view_matrix(x, {where, "x"});
  const ArrayView sums_view = ecpy::view_matrix(sums, {where, "sums"});
  if (sums_view.dtype() != EC_FLOAT64 || sums_view.columns() != view.columns() ||
      (sums_view.rows() > 1 && sums_view.matrix().row_stride != sums_view.columns()))
    ecpy::raise_value("%s: 'x' must have %lld columns; got %lld.", where,
                      static_cast<long long>(sums_view.columns()), static_cast<long long>(view.columns()));
  const int64_t groups = sums_view.rows();
  ecpy::OutputView output = ecpy::make_output(nullptr, EC_FLOAT64, 2, {view.rows(), groups});
  ecpy::PyMonitor monitor(std::move(progress));
  ec_error error = {};
  const ec_status status = run_released(true, [&] {
    return ec_depth_cosine_sums(&view.matrix(), static_cast<const double*>(sums_view.matrix().data), groups,
                                threads, monitor.get(), output.as<double>(), &error);
  });
  ecpy::check_status(where, status, error);
  return output.object();
}

}  // namespace

void register_depth(py::module_& module) {
  module.def("depth_score", &depth_score);
  module.def("depth_check", &depth_check);
  module.def("depth_write", &depth_write);
  module.def("depth_direction_sums", &depth_direction_sums);
  module.def("depth_cosine_sums", &depth_cosine_sums);
}
