// SPDX-License-Identifier: Apache-2.0
// Ctrl-C and progress for long calls.
#pragma once

#include <pybind11/pybind11.h>

#include "capi/embedcore.h"
#include "python/gil.h"

namespace ecpy {

// An ec_monitor that lets Python handle signals and reports to progress(fraction), a callable or
// None. Use: PyMonitor monitor(progress); without_gil([&] { ... monitor.get() ... }). An exception
// from a signal handler or from progress stops the work and stays pending for raise_error.
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
    const PyGILState_STATE state = take_lock([] { return PyGILState_Ensure(); });
    const int stop = self.ask(fraction) ? 0 : 1;
    PyGILState_Release(state);
    return stop;
  }

  // False, with an exception pending, to stop.
  bool ask(double fraction) const {
    if (PyErr_CheckSignals() != 0) return false;
    if (progress_.is_none()) return true;
    PyObject* result = PyObject_CallFunction(progress_.ptr(), "d", fraction);
    if (result == nullptr) return false;
    Py_DECREF(result);
    return true;
  }

  pybind11::object progress_;
  ec_monitor monitor_;
};

}  // namespace ecpy
