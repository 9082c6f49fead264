// SPDX-License-Identifier: Apache-2.0
// Ctrl-C and progress for long calls.
#pragma once

#include <pybind11/pybind11.h>

#include "capi/embedcore.h"

namespace ecpy {

// An ec_monitor that lets Python handle signals and reports to progress(fraction), a callable or None.
// Use: PyMonitor monitor(progress); release the GIL; pass monitor.get(). An exception from a signal
// handler or from progress stops the work and stays pending for raise_error.
class PyMonitor {
 public:
  explicit PyMonitor(pybind11::object progress = pybind11::none())
      : progress_(std::move(progress)), monitor_{&PyMonitor::poll, this} {}
  PyMonitor(const PyMonitor&) = delete;
  PyMonitor& operator=(const PyMonitor&) = delete;

  const ec_monitor* get() const { return &monitor_; }

 private:
  static int poll(void* context, double fraction) {
    const auto& self = *static_cast<PyMonitor*>(context);
    pybind11::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) return 1;
    if (self.progress_.is_none()) return 0;
    PyObject* result = PyObject_CallFunction(self.progress_.ptr(), "d", fraction);
    if (result == nullptr) return 1;
    Py_DECREF(result);
    return 0;
  }

  pybind11::object progress_;
  ec_monitor monitor_;
};

}  // namespace ecpy
