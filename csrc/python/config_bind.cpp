// SPDX-License-Identifier: Apache-2.0
// Threads, instruction sets and what the library was built with.
#include <pybind11/pybind11.h>

#include "capi/embedcore.h"
#include "python/raise.h"

namespace py = pybind11;

namespace {

py::tuple list_isas() {
  const char* names[16];
  const int count = ec_list_isas(names, 16);
  py::tuple result(count);
  for (int i = 0; i < count; ++i) result[i] = py::str(names[i]);
  return result;
}

void set_isa(const char* where, const char* name) {
  ec_error error = {};
  ecpy::check_status(where, ec_set_isa(name, &error), error);
}

}  // namespace

void register_config(py::module_& module) {
  module.attr("version") = ec_version();
  module.attr("build_info") = ec_build_info();
  module.def("get_num_threads", &ec_get_num_threads);
  module.def("set_num_threads", &ec_set_num_threads, py::arg("threads"));
  module.def("num_threads_source", &ec_num_threads_source);
  module.def("get_isa", &ec_get_isa);
  module.def("set_isa", &set_isa, py::arg("where"), py::arg("name"));
  module.def("list_isas", &list_isas);
}
