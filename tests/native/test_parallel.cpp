// SPDX-License-Identifier: Apache-2.0
#include "core/parallel.h"

#include <pthread.h>
#include <time.h>

#include <atomic>
#include <cfenv>
#include <vector>

#include "core/sync.h"
#include "native/check.h"

namespace {

void sleep_milliseconds(int milliseconds) {
  const timespec time = {milliseconds / 1000, (milliseconds % 1000) * 1'000'000L};
  nanosleep(&time, nullptr);
}

// Every task once, no worker number twice at a time, worker numbers in range.
void every_task_runs_once(int64_t tasks, int threads) {
  std::vector<std::atomic<int>> runs(static_cast<size_t>(tasks));
  const int workers = ec::worker_count(tasks, threads);
  std::vector<std::atomic<int>> active(static_cast<size_t>(workers));
  std::atomic<int> collisions{0};
  const ec_status status = ec::parallel_for(tasks, threads, nullptr, [&](int64_t task, int worker) {
    if (worker < 0 || worker >= workers) {
      collisions.fetch_add(1);
      return;
    }
    if (active[static_cast<size_t>(worker)].exchange(1) != 0) collisions.fetch_add(1);
    runs[static_cast<size_t>(task)].fetch_add(1);
    active[static_cast<size_t>(worker)].store(0);
  });
  CHECK(status == EC_OK);
  CHECK(collisions.load() == 0);
  int wrong = 0;
  for (const auto& count : runs) wrong += count.load() != 1;
  CHECK(wrong == 0);
}

void worker_counts() {
  CHECK(ec::worker_count(0, 4) == 1);
  CHECK(ec::worker_count(3, 4) == 3);
  CHECK(ec::worker_count(100, 4) == 4);
  CHECK(ec::worker_count(1'000'000, 1 << 20) == ec::kMaxThreads);
  CHECK(ec::worker_count(1'000'000, 0) == ec::num_threads());
}

void many_short_jobs() {
  int64_t sum = 0;
  for (int round = 0; round < 3000; ++round) {
    std::atomic<int64_t> total{0};
    ec::parallel_for(5, 1 + round % 4, nullptr,
                     [&](int64_t task, int) { total.fetch_add(task, std::memory_order_relaxed); });
    sum += total.load();
    if (round % 500 == 0) sleep_milliseconds(1);  // let the workers fall asleep
  }
  CHECK(sum == 3000 * 10);
}

// Plain memory written by tasks is visible to the caller: thread sanitizers would object otherwise.
void results_are_visible() {
  for (int round = 0; round < 200; ++round) {
    std::vector<int64_t> squares(100);
    ec::parallel_for(100, 4, nullptr,
                     [&](int64_t task, int) { squares[static_cast<size_t>(task)] = task * task; });
    int64_t sum = 0;
    for (int64_t square : squares) sum += square;
    CHECK(sum == 328350);
  }
}

void nested_calls_run_inline() {
  std::atomic<int> inner{0};
  std::atomic<int> other_workers{0};
  ec::parallel_for(8, 4, nullptr, [&](int64_t, int) {
    const pthread_t self = pthread_self();
    ec::parallel_for(8, 4, nullptr, [&](int64_t, int worker) {
      if (worker != 0 || pthread_equal(self, pthread_self()) == 0) other_workers.fetch_add(1);
      inner.fetch_add(1);
    });
  });
  CHECK(inner.load() == 64);
  CHECK(other_workers.load() == 0);
}

void* call_many_times(void* argument) {
  auto& total = *static_cast<std::atomic<int64_t>*>(argument);
  for (int round = 0; round < 500; ++round) {
    ec::parallel_for(10, 3, nullptr, [&](int64_t task, int) { total.fetch_add(task); });
  }
  return nullptr;
}

void callers_at_the_same_time() {
  std::atomic<int64_t> total{0};
  pthread_t threads[4];
  for (auto& thread : threads) pthread_create(&thread, nullptr, call_many_times, &total);
  for (auto& thread : threads) pthread_join(thread, nullptr);
  CHECK(total.load() == 4 * 500 * 45);
}

struct Watcher {
  int calls = 0;
  int stop_after = 1 << 30;
  double last = -1;
  bool in_range = true;
  bool on_caller = true;
  pthread_t caller = pthread_self();

  static int poll(void* context, double fraction) {
    auto& self = *static_cast<Watcher*>(context);
    self.in_range = self.in_range && fraction >= self.last && fraction <= 1.0;
    self.on_caller = self.on_caller && pthread_equal(self.caller, pthread_self()) != 0;
    self.last = fraction;
    return ++self.calls >= self.stop_after ? 1 : 0;
  }
};

void monitors_see_progress(int threads) {
  Watcher watcher;
  const ec_monitor monitor = {&Watcher::poll, &watcher};
  const ec_status status =
      ec::parallel_for(40, threads, &monitor, [](int64_t, int) { sleep_milliseconds(10); });
  CHECK(status == EC_OK);
  CHECK(watcher.calls >= 1 && watcher.calls <= 8);
  CHECK(watcher.in_range && watcher.on_caller);
}

void monitors_stop_the_work(int threads) {
  Watcher watcher;
  watcher.stop_after = 1;
  const ec_monitor monitor = {&Watcher::poll, &watcher};
  std::atomic<int> done{0};
  const ec_status status = ec::parallel_for(10'000, threads, &monitor, [&](int64_t, int) {
    sleep_milliseconds(2);
    done.fetch_add(1);
  });
  CHECK(status == EC_INTERRUPTED);
  CHECK(watcher.calls == 1);
  CHECK(done.load() < 1000);
  every_task_runs_once(100, threads);
}

// The caller has nothing left to do while another worker is in a long task: it must still poll.
void monitors_are_polled_while_waiting() {
  Watcher watcher;
  const ec_monitor monitor = {&Watcher::poll, &watcher};
  std::atomic<int> begun{0};
  const ec_status status = ec::parallel_for(2, 2, &monitor, [&](int64_t, int worker) {
    begun.fetch_add(1);
    for (int i = 0; i < 1000 && begun.load() < 2; ++i) sleep_milliseconds(1);
    if (worker != 0) sleep_milliseconds(300);
  });
  CHECK(status == EC_OK);
  CHECK(watcher.calls >= 3);
}

// What the vector units do; fegetround would read the x87 unit, which no kernel uses.
int rounding_in_use() {
  volatile float one = 1.0F;
  volatile float tiny = 1e-10F;
  if (one + tiny > 1.0F) return FE_UPWARD;
  return one - tiny < 1.0F ? FE_DOWNWARD : FE_TONEAREST;
}

void workers_take_the_callers_rounding() {
  for (int mode : {FE_UPWARD, FE_DOWNWARD, FE_TONEAREST}) {
    std::fesetround(mode);
    std::atomic<int> begun{0};
    std::atomic<int> other{0};
    ec::parallel_for(2, 2, nullptr, [&](int64_t, int) {
      begun.fetch_add(1);
      for (int i = 0; i < 1000 && begun.load() < 2; ++i) sleep_milliseconds(1);
      if (rounding_in_use() != mode) other.fetch_add(1);
    });
    CHECK(begun.load() == 2 && other.load() == 0);
  }
}

}  // namespace

int main() {
  worker_counts();
  for (int threads : {1, 2, 3, 7, 16}) {
    for (int64_t tasks : {0, 1, 2, 6, 7, 8, 1000}) every_task_runs_once(tasks, threads);
  }
  many_short_jobs();
  results_are_visible();
  nested_calls_run_inline();
  callers_at_the_same_time();
  for (int threads : {1, 2, 7}) {
    monitors_see_progress(threads);
    monitors_stop_the_work(threads);
  }
  monitors_are_polled_while_waiting();
  workers_take_the_callers_rounding();
  return check::report();
}
