// SPDX-License-Identifier: Apache-2.0
// Gradients of depths on the GPU as Python calls them.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "python/arrays.h"
#include "python/raise.h"

namespace py = pybind11;

namespace {

using ecpy::MatrixNumbers;
using ecpy::pointer_of;

// gradients: addresses of those of x, of the corpus and of the weights; 0: not wanted.
void depth_gradient(const char* where, const ecpy::PlaceNumbers& place, const MatrixNumbers& x,
                    const std::optional<MatrixNumbers>& corpus, int metric, uintptr_t pull,
                    uintptr_t weights, const std::tuple<uintptr_t, uintptr_t, uintptr_t>& gradients,
                    const py::object& allocate) {
  const ec_cuda_place at = ecpy::place_of(place);
  const ec_matrix rows = ecpy::matrix_of(x), others = corpus ? ecpy::matrix_of(*corpus) : ec_matrix{};
  const ec_matrix* among = corpus ? &others : nullptr;
  const ec_cuda_depth_gradient wanted = {
      static_cast<ec_depth_metric>(metric),      pointer_of<const float>(pull),
      pointer_of<const float>(weights),          pointer_of<float>(std::get<0>(gradients)),
      pointer_of<float>(std::get<1>(gradients)), pointer_of<double>(std::get<2>(gradients))};
  ec_error error = {};
  int64_t bytes = 0;
  ecpy::check_status(where, ec_cuda_depth_gradient_workspace(&at, &rows, among, &wanted, &bytes, &error),
                     error);
  void* workspace = ecpy::allocated(allocate, bytes);
  const ec_status status = ecpy::start_released(
      [&] { return ec_cuda_depth_gradient_run(&at, &rows, among, &wanted, workspace, &error); });
  ecpy::check_status(where, status, error);
}

}  // namespace

void register_depth_gradient(py::module_& module) { module.def("depth_gradient", &depth_gradient); }
