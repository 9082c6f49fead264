// SPDX-License-Identifier: Apache-2.0
// The pool in a forked child: it starts clean, whatever the parent was doing.
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "core/parallel.h"
#include "core/sync.h"
#include "native/check.h"

namespace {

constexpr unsigned kChildSeconds = 60;  // a child that hangs is killed by its alarm

bool sum_is_right(int threads) {
  std::atomic<int64_t> total{0};
  const ec_status status =
      ec::parallel_for(100, threads, nullptr, [&](int64_t task, int) { total.fetch_add(task); });
  return status == EC_OK && total.load() == 4950;
}

bool child_works() {
  if (ec::num_threads() != 1) return false;
  if (std::strcmp(ec::num_threads_source(), "forked process") != 0) return false;
  if (!sum_is_right(0) || !sum_is_right(3)) return false;
  ec::set_num_threads(2);
  return ec::num_threads() == 2 && sum_is_right(0);
}

bool in_child(bool (*body)()) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(kChildSeconds);
    _exit(body() ? 0 : 1);
  }
  int status = 0;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void children_of_an_idle_parent() {
  CHECK(in_child(child_works));
  CHECK(sum_is_right(4));
  for (int round = 0; round < 5; ++round) CHECK(in_child(child_works));
  CHECK(in_child([] { return in_child(child_works) && child_works(); }));
  CHECK(sum_is_right(4));
}

std::atomic<bool> g_stop{false};

void* compute_until_stopped(void*) {
  while (!g_stop.load()) {
    if (!sum_is_right(4)) check::that(false, "sum in the busy thread", __FILE__, __LINE__);
  }
  return nullptr;
}

void children_while_another_thread_computes() {
  pthread_t thread;
  pthread_create(&thread, nullptr, compute_until_stopped, nullptr);
  for (int round = 0; round < 20; ++round) CHECK(in_child(child_works));
  g_stop.store(true);
  pthread_join(thread, nullptr);
}

// A monitor that forks: the child's call ends, and the child is usable; the parent goes on.
struct ForkingMonitor {
  pid_t child = -1;
  static int poll(void* context, double) {
    auto& self = *static_cast<ForkingMonitor*>(context);
    if (self.child < 0) self.child = fork();
    if (self.child == 0) alarm(kChildSeconds);
    return 0;
  }
};

void a_monitor_that_forks() {
  ForkingMonitor forking;
  const ec_monitor monitor = {&ForkingMonitor::poll, &forking};
  const ec_status status = ec::parallel_for(200, 3, &monitor, [](int64_t, int) {
    const int64_t end = ec::now_nanoseconds() + 2'000'000;
    while (ec::now_nanoseconds() < end) ec::pause_processor();
  });
  if (forking.child == 0) _exit(status == EC_INTERRUPTED && child_works() ? 0 : 1);
  CHECK(status == EC_OK);
  int child_status = 0;
  CHECK(forking.child > 0 && waitpid(forking.child, &child_status, 0) == forking.child);
  CHECK(WIFEXITED(child_status) && WEXITSTATUS(child_status) == 0);
}

}  // namespace

int main() {
  children_of_an_idle_parent();
  children_while_another_thread_computes();
  a_monitor_that_forks();
  return check::report();
}
