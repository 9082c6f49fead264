// SPDX-License-Identifier: Apache-2.0
// embedcore._core: one line for each family.
#include <pybind11/pybind11.h>

namespace py = pybind11;

void register_config(py::module_& module);
void register_arrays(py::module_& module);
void register_depth(py::module_& module);
void register_attention(py::module_& module);
void register_ann_attributes(py::module_& module);
void register_ann_vectors(py::module_& module);

PYBIND11_MODULE(_core, module) {
  module.doc() = "Binding over libembedcore; private. Use the functions of embedcore.";
  register_config(module);
  register_arrays(module);
  register_depth(module);
  register_attention(module);
  register_ann_attributes(module);
  register_ann_vectors(module);
}
