// SPDX-License-Identifier: Apache-2.0
// Depth on the GPU as Python calls it.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "python/arrays.h"
#include "python/raise.h"

namespace py = pybind11;

namespace {

using ecpy::MatrixNumbers;

// allocate(bytes) gives the address of scratch memory that lives until the caller lets go of it.
void depth_score(const char* where, const ecpy::PlaceNumbers& place_numbers, const MatrixNumbers& x_numbers,
                 const std::optional<MatrixNumbers>& corpus_numbers, int metric, int precision,
                 uintptr_t weights, uintptr_t depths, const py::object& allocate) {
  const ec_cuda_place place = ecpy::place_of(place_numbers);
  const ec_matrix x = ecpy::matrix_of(x_numbers);
  ec_matrix corpus = {};
  if (corpus_numbers) corpus = ecpy::matrix_of(*corpus_numbers);
  const ec_matrix* among = corpus_numbers ? &corpus : nullptr;
  const ec_cuda_depth_options options = {static_cast<ec_depth_metric>(metric),
                                         static_cast<ec_precision>(precision),
                                         ecpy::pointer_of<const float>(weights)};
  ec_error error = {};
  int64_t bytes = 0;
  ecpy::check_status(where, ec_cuda_depth_workspace(&place, &x, among, &options, &bytes, &error), error);
  void* workspace = ecpy::pointer_of<void>(allocate(bytes).cast<uintptr_t>());
  const ec_status status =
      ec_cuda_depth_score(&place, &x, among, &options, workspace, ecpy::pointer_of<float>(depths), &error);
  ecpy::check_status(where, status, error);
}

}  // namespace

void register_depth(py::module_& module) { module.def("depth_score", &depth_score); }
