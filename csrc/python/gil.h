// SPDX-License-Identifier: Apache-2.0
// Leaving and taking the interpreter lock in a way that survives the end of the process.
//
// Before Python 3.14 a daemon thread that asks for the lock of an ending interpreter is ended by
// pthread_exit, which unwinds C++ frames: their destructors would then release Python objects
// without the lock, and a noexcept frame (every destructor, gil_scoped_release's too) would end the
// process by std::terminate. Here such a thread stops for good instead, as it does from 3.14 on.
#pragma once

#include <cxxabi.h>
#include <unistd.h>

#include <pybind11/pybind11.h>

namespace ecpy {

[[noreturn]] inline void stop_this_thread() {
  for (;;) pause();
}

// Runs take, which asks for the lock. gcc gives the handler a null reference, which is never read.
template <class Take>
__attribute__((no_sanitize("null"))) auto take_lock(Take&& take) -> decltype(take()) {
  try {
    return take();
  } catch (abi::__forced_unwind&) {
    stop_this_thread();
  }
}

// Runs call() without the lock. Requires: this thread holds it; call does not throw.
template <class Call>
auto without_gil(Call&& call) -> decltype(call()) {
  PyThreadState* state = PyEval_SaveThread();
  auto result = call();
  take_lock([&] { PyEval_RestoreThread(state); });
  return result;
}

}  // namespace ecpy
