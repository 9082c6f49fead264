// SPDX-License-Identifier: Apache-2.0
// Depth on the GPU as Python calls it.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "python/arrays.h"
#include "python/raise.h"

namespace py = pybind11;

namespace {

using ecpy::MatrixNumbers;

// Address, elements between numbers, dtype; address 0: not given.
using VectorNumbers = std::tuple<uintptr_t, int64_t, int>;
// Starts of the groups, and the address of the order of the corpus's rows.
using Groups = std::tuple<std::vector<int64_t>, uintptr_t>;

// Shrinkage, address and number of the directions, address of the kept sums, that of the kept covariance
// and whether it has been found; address 0: not given.
using Further = std::tuple<double, uintptr_t, int64_t, uintptr_t, uintptr_t, bool>;

// The arguments of a call, as the C ABI takes them.
class Arguments {
 public:
  Arguments(const ecpy::PlaceNumbers& place, const MatrixNumbers& x,
            const std::optional<MatrixNumbers>& corpus, int metric, int precision,
            const VectorNumbers& weights, const std::optional<Groups>& groups, const Further& further)
      : place_(ecpy::place_of(place)), x_(ecpy::matrix_of(x)), has_corpus_(corpus.has_value()) {
    if (corpus) corpus_ = ecpy::matrix_of(*corpus);
    options_.metric = static_cast<ec_depth_metric>(metric);
    options_.precision = static_cast<ec_precision>(precision);
    options_.weights = ecpy::pointer_of<const void>(std::get<0>(weights));
    options_.weights_stride = std::get<1>(weights);
    options_.weights_dtype = static_cast<ec_dtype>(std::get<2>(weights));
    options_.groups = 1;
    options_.shrinkage = std::get<0>(further);
    options_.directions = ecpy::pointer_of<const double>(std::get<1>(further));
    options_.direction_count = std::get<2>(further);
    options_.sums = ecpy::pointer_of<const double>(std::get<3>(further));
    options_.covariance = ecpy::pointer_of<void>(std::get<4>(further));
    options_.covariance_found = std::get<5>(further) ? 1 : 0;
    if (!groups) return;
    starts_ = std::get<0>(*groups);
    options_.groups = static_cast<int64_t>(starts_.size()) - 1;
    options_.starts = starts_.data();
    options_.order = ecpy::pointer_of<const int64_t>(std::get<1>(*groups));
  }

  const ec_cuda_place* place() const { return &place_; }
  const ec_matrix* x() const { return &x_; }
  const ec_matrix* corpus() const { return has_corpus_ ? &corpus_ : nullptr; }
  const ec_cuda_depth_options* options() const { return &options_; }

 private:
  ec_cuda_place place_;
  ec_matrix x_, corpus_ = {};
  bool has_corpus_;
  std::vector<int64_t> starts_;
  ec_cuda_depth_options options_ = {};
};

void depth_score(const char* where, const ecpy::PlaceNumbers& place, const MatrixNumbers& x,
                 const std::optional<MatrixNumbers>& corpus, int metric, int precision,
                 const VectorNumbers& weights, const std::optional<Groups>& groups, const Further& further,
                 uintptr_t depths, const py::object& allocate) {
  const Arguments given(place, x, corpus, metric, precision, weights, groups, further);
  ec_error error = {};
  int64_t bytes = 0;
  ecpy::check_status(
      where,
      ec_cuda_depth_workspace(given.place(), given.x(), given.corpus(), given.options(), &bytes, &error),
      error);
  void* workspace = ecpy::allocated(allocate, bytes);
  const ec_status status = ecpy::start_released([&] {
    return ec_cuda_depth_score(given.place(), given.x(), given.corpus(), given.options(), workspace,
                               ecpy::pointer_of<void>(depths), &error);
  });
  ecpy::check_status(where, status, error);
}

int64_t depth_covariance_bytes(const char* where, const ecpy::PlaceNumbers& place, const MatrixNumbers& x,
                               const MatrixNumbers& corpus, int metric, const VectorNumbers& weights,
                               const Further& further) {
  const Arguments given(place, x, corpus, metric, EC_PRECISION_FLOAT32, weights, std::nullopt, further);
  ec_error error = {};
  int64_t bytes = 0;
  ecpy::check_status(where,
                     ec_cuda_depth_covariance_bytes(given.place(), given.x(), given.corpus(),
                                                    given.options(), &bytes, &error),
                     error);
  return bytes;
}

void depth_direction_sums(const char* where, const ecpy::PlaceNumbers& place, const MatrixNumbers& corpus,
                          const VectorNumbers& weights, uintptr_t sums, const py::object& allocate) {
  const Arguments given(place, corpus, std::nullopt, EC_DEPTH_COSINE, EC_PRECISION_FLOAT32, weights,
                        std::nullopt, Further{});
  ec_error error = {};
  int64_t bytes = 0;
  ecpy::check_status(
      where, ec_cuda_depth_workspace(given.place(), given.x(), nullptr, given.options(), &bytes, &error),
      error);
  void* workspace = ecpy::allocated(allocate, bytes);
  const ec_status status = ecpy::start_released([&] {
    return ec_cuda_depth_direction_sums(given.place(), given.x(), given.options(), workspace,
                                        ecpy::pointer_of<double>(sums), &error);
  });
  ecpy::check_status(where, status, error);
}

void depth_check(const char* where, const ecpy::PlaceNumbers& place, const MatrixNumbers& x,
                 const std::optional<MatrixNumbers>& corpus, int metric, const VectorNumbers& weights,
                 const Further& further, const py::object& allocate) {
  const Arguments given(place, x, corpus, metric, EC_PRECISION_FLOAT32, weights, std::nullopt, further);
  ec_error error = {};
  void* workspace = ecpy::allocated(allocate, 3 * sizeof(int64_t));
  const ec_status status = ecpy::start_released([&] {
    return ec_cuda_depth_check(given.place(), given.x(), given.corpus(), given.options(), workspace,
                               &error);
  });
  ecpy::check_status(where, status, error);
}

}  // namespace

void register_depth(py::module_& module) {
  module.def("depth_score", &depth_score);
  module.def("depth_covariance_bytes", &depth_covariance_bytes);
  module.def("depth_direction_sums", &depth_direction_sums);
  module.def("depth_check", &depth_check);
}
