// SPDX-License-Identifier: Apache-2.0
// embedcore._cuda: a line or two for each family. The emulation's module has another name.
#include <pybind11/pybind11.h>

#include "capi/embedcore_cuda.h"
#include "python/raise.h"

namespace py = pybind11;

void register_ann(py::module_& module);
void register_ann_build(py::module_& module);
void register_depth(py::module_& module);
void register_depth_gradient(py::module_& module);
void register_attention(py::module_& module);

namespace {

int device_count(const char* where) {
  int32_t count = 0;
  ec_error error = {};
  ecpy::check_status(where, ec_cuda_device_count(&count, &error), error);
  return count;
}

}  // namespace

PYBIND11_MODULE(EC_MODULE_NAME, module) {
  module.doc() = "Binding over libembedcore_cuda; private. Use the functions of embedcore.";
  module.attr("build_info") = ec_cuda_build_info();
  module.def("device_count", &device_count, py::arg("where"));
  register_ann(module);
  register_ann_build(module);
  register_depth(module);
  register_depth_gradient(module);
  register_attention(module);
}
