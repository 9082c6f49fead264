// SPDX-License-Identifier: Apache-2.0
// The one place that knows threads: a fork-safe pool that runs numbered tasks.
#pragma once

#include <cstdint>
#include <type_traits>

#include "capi/embedcore.h"

namespace ec {

int num_threads();                  // what a call uses when it names no number
void set_num_threads(int threads);  // < 1 restores the default
const char* num_threads_source();   // where num_threads() comes from, in words
constexpr int kMaxThreads = 1024;

// A task may run on any worker; worker is in [0, worker_count(...)) and no two tasks run at once
// with the same worker, so it indexes per-thread scratch.
using TaskBody = void (*)(void* context, int64_t task, int worker);

// The number of workers that run_tasks(task_count, threads) uses at most:
// min(threads or num_threads(), task_count).
int worker_count(int64_t task_count, int threads);

// Runs body(context, task, worker) once for every task in [0, task_count) in no fixed order and
// returns when all have finished. threads < 1 means num_threads(). Runs inline when one worker is
// enough, when called from inside a task, or when the pool is busy with another caller's work.
// monitor may be null; it is polled on the calling thread between tasks, at most every 50 ms. When
// it asks to stop, tasks not yet begun are dropped and EC_INTERRUPTED is returned.
// Requires: body does not throw.
ec_status run_tasks(int64_t task_count, int threads, TaskBody body, void* context,
                    const ec_monitor* monitor);

// The same for a callable:
// parallel_for(count, threads, monitor, [&](int64_t task, int worker) {...}).
template <class Body>
ec_status parallel_for(int64_t task_count, int threads, const ec_monitor* monitor, Body&& body) {
  using Callable = typename std::remove_reference<Body>::type;
  return run_tasks(
      task_count, threads,
      [](void* context, int64_t task, int worker) { (*static_cast<Callable*>(context))(task, worker); },
      const_cast<void*>(static_cast<const void*>(&body)), monitor);
}

}  // namespace ec
