// SPDX-License-Identifier: Apache-2.0
#include "core/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "core/float_mode.h"
#include "core/sync.h"

namespace ec {
namespace {

constexpr int64_t kSpinNanoseconds = 20'000;
constexpr int64_t kPollNanoseconds = 50'000'000;

// ---- how many threads ---------------------------------------------------------------------------

int affinity_count() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int count = 0;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) count = CPU_COUNT(&set);
  if (count < 1) count = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  return count < 1 ? 1 : count;
}

// The number that a variable starts with (OMP_NUM_THREADS may be a list); 0 when it names none.
int environment_count(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return 0;
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  if (end == text || (*end != '\0' && *end != ',' && *end != ' ') || value < 1) return 0;
  return value > kMaxThreads ? kMaxThreads : static_cast<int>(value);
}

struct DefaultThreads {
  int count;
  const char* source;
};

DefaultThreads find_default_threads() {
  const int own = environment_count("EMBEDCORE_NUM_THREADS");
  if (own > 0) return {own, "EMBEDCORE_NUM_THREADS"};
  const int available = affinity_count();
  const int processors = available < kMaxThreads ? available : kMaxThreads;
  const int openmp = environment_count("OMP_NUM_THREADS");
  if (openmp > 0 && openmp < processors) return {openmp, "OMP_NUM_THREADS"};
  return {processors, "processors"};
}

const DefaultThreads g_default_threads = find_default_threads();
std::atomic<int> g_chosen_threads{0};  // 0: the default
std::atomic<bool> g_forked_child{false};

// ---- the pool -----------------------------------------------------------------------------------

// One job at a time. The gate is one word, so that a worker joins a job and claims its number in it
// in one compare-and-swap:   [ epoch : 32 | room : 16 | joined : 16 ]
// A job is open while joined < room. The caller closes it by room = joined; from then on nobody
// joins, and the caller waits only for those who did. The epoch makes each job's gate values
// unique, so a worker that slept through several jobs cannot join with a stale value.
using Gate = uint64_t;
constexpr Gate kJoinedMask = 0xffff;
constexpr int kRoomShift = 16;
constexpr int kEpochShift = 32;

int joined_of(Gate gate) { return static_cast<int>(gate & kJoinedMask); }
int room_of(Gate gate) { return static_cast<int>((gate >> kRoomShift) & kJoinedMask); }
bool is_open(Gate gate) { return joined_of(gate) < room_of(gate); }
static_assert(kMaxThreads < 0xffff, "worker numbers fit the gate");

struct Job {
  TaskBody body = nullptr;
  void* context = nullptr;
  int64_t task_count = 0;
  FloatMode float_mode = {};
  bool counts_completed = false;
};

struct Pool {
  std::atomic<bool> busy{false};  // some caller owns job, next, completed and finished
  std::atomic<Gate> gate{0};
  Job job;  // Invariant: written only by the owner while the gate is closed and all have finished.
  alignas(64) std::atomic<int64_t> next{0};
  alignas(64) std::atomic<int64_t> completed{0};
  alignas(64) std::atomic<int> finished{0};  // workers that joined this job and left it

  Mutex mutex;
  Condition wake;            // for workers: the gate may have opened
  Condition done;            // for the owner: finished has grown
  int sleeping = 0;          // workers in wake, under mutex
  bool owner_waits = false;  // under mutex
  int started = 0;           // threads alive; touched by the owner alone
};

// Never freed: workers may be asleep in it when the process ends, and a forked child leaves behind
// the parent's pool, whose locks may be held by threads that do not exist in the child.
std::atomic<Pool*> g_pool{nullptr};
std::atomic<uint32_t> g_fork_count{0};  // forks between the load of the library and this process

thread_local bool t_inside_task = false;

void run_one(Pool& pool, const Job& job, int64_t task, int worker) {
  job.body(job.context, task, worker);
  if (job.counts_completed) pool.completed.fetch_add(1, std::memory_order_relaxed);
}

// Takes tasks until there are none. The job is passed by value: the pool's belongs to its owner.
void work_as_member(Pool& pool, const Job job, int worker) {
  set_float_mode(job.float_mode);
  for (;;) {
    const int64_t task = pool.next.fetch_add(1, std::memory_order_relaxed);
    if (task >= job.task_count) return;
    run_one(pool, job, task, worker);
  }
}

// The worker's number in the job it joined (from 1; 0 is the caller), or 0 when the gate is closed.
int try_join(Pool& pool) {
  Gate gate = pool.gate.load(std::memory_order_acquire);
  while (is_open(gate)) {
    if (pool.gate.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel,
                                        std::memory_order_acquire)) {
      return joined_of(gate) + 1;
    }
  }
  return 0;
}

int join_or_sleep(Pool& pool) {
  const int64_t deadline = now_nanoseconds() + kSpinNanoseconds;
  do {
    const int worker = try_join(pool);
    if (worker > 0) return worker;
    for (int i = 0; i < 16; ++i) pause_processor();
  } while (now_nanoseconds() < deadline);
  Lock lock(pool.mutex);
  for (;;) {
    // The owner opens the gate before it takes the mutex to count sleepers, so a gate that opens
    // after this look is followed by a wake-up.
    const int worker = try_join(pool);
    if (worker > 0) return worker;
    ++pool.sleeping;
    pool.wake.wait(pool.mutex);
    --pool.sleeping;
  }
}

void* worker_main(void* argument) {
  Pool& pool = *static_cast<Pool*>(argument);
  t_inside_task = true;
  for (;;) {
    const int worker = join_or_sleep(pool);
    work_as_member(pool, pool.job, worker);
    pool.finished.fetch_add(1, std::memory_order_acq_rel);
    Lock lock(pool.mutex);
    if (pool.owner_waits) pool.done.notify_one();
  }
}

// False when the system has no more threads to give; the job then runs with fewer.
bool start_worker(Pool& pool) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0) return false;  // signals are the caller's
  pthread_t thread;
  const bool started = pthread_create(&thread, nullptr, worker_main, &pool) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!started) return false;
  char name[24];  // the system takes 15 characters; kMaxThreads keeps it within
  std::snprintf(name, sizeof(name), "embedcore-%d", ++pool.started);
  pthread_setname_np(thread, name);
  pthread_detach(thread);
  return true;
}

void after_fork_in_child() {
  g_fork_count.fetch_add(1, std::memory_order_relaxed);
  g_pool.store(nullptr, std::memory_order_relaxed);
  g_chosen_threads.store(0, std::memory_order_relaxed);
  g_forked_child.store(true, std::memory_order_relaxed);
}

__attribute__((constructor)) void watch_forks() { pthread_atfork(nullptr, nullptr, after_fork_in_child); }

Pool* pool_of_this_process() {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  if (pool != nullptr) return pool;
  Pool* fresh = new (std::nothrow) Pool;
  if (fresh == nullptr) return nullptr;
  if (g_pool.compare_exchange_strong(pool, fresh, std::memory_order_acq_rel)) return fresh;
  delete fresh;
  return pool;
}

// ---- one call -----------------------------------------------------------------------------------

// Asks the monitor at most every 50 ms. A monitor may fork (a Python callback can do anything): the
// child has no workers and must not wait for them.
class Poller {
 public:
  Poller(const ec_monitor* monitor, int64_t task_count)
      : monitor_(monitor), task_count_(task_count), forks_(g_fork_count.load()) {
    if (monitor_ != nullptr) due_ = now_nanoseconds() + kPollNanoseconds;
  }

  bool active() const { return monitor_ != nullptr; }
  bool stopped() const { return stopped_; }
  bool orphaned() const { return orphaned_; }

  void poll_if_due(int64_t completed) {
    if (monitor_ == nullptr || stopped_ || now_nanoseconds() < due_) return;
    const double fraction = static_cast<double>(completed) / static_cast<double>(task_count_);
    stopped_ = monitor_->poll(monitor_->context, fraction) != 0;
    orphaned_ = g_fork_count.load() != forks_;
    stopped_ = stopped_ || orphaned_;
    due_ = now_nanoseconds() + kPollNanoseconds;
  }

 private:
  const ec_monitor* monitor_;
  int64_t task_count_;
  uint32_t forks_;
  int64_t due_ = 0;
  bool stopped_ = false;
  bool orphaned_ = false;
};

// Marks this thread as inside a task, so that calls from within one run inline.
class InsideTask {
 public:
  InsideTask() : before_(t_inside_task) { t_inside_task = true; }
  ~InsideTask() { t_inside_task = before_; }
  InsideTask(const InsideTask&) = delete;
  InsideTask& operator=(const InsideTask&) = delete;

 private:
  bool before_;
};

ec_status run_inline(int64_t task_count, TaskBody body, void* context, Poller& poller) {
  for (int64_t task = 0; task < task_count; ++task) {
    {
      InsideTask inside;
      body(context, task, 0);
    }
    poller.poll_if_due(task + 1);
    if (poller.stopped()) return EC_INTERRUPTED;
  }
  return EC_OK;
}

void open_gate(Pool& pool, int helpers) {
  const Gate epoch = (pool.gate.load(std::memory_order_relaxed) >> kEpochShift) + 1;
  const Gate gate = (epoch << kEpochShift) | (static_cast<Gate>(helpers) << kRoomShift);
  pool.gate.store(gate, std::memory_order_release);
  Lock lock(pool.mutex);
  const int wanted = helpers < pool.sleeping ? helpers : pool.sleeping;
  if (wanted == pool.sleeping) {
    if (wanted > 0) pool.wake.notify_all();
    return;
  }
  for (int i = 0; i < wanted; ++i) pool.wake.notify_one();
}

// Returns the number of workers that joined.
int close_gate(Pool& pool) {
  Gate gate = pool.gate.load(std::memory_order_relaxed);
  for (;;) {
    const Gate joined = gate & kJoinedMask;
    const Gate closed = (gate >> kEpochShift << kEpochShift) | (joined << kRoomShift) | joined;
    if (pool.gate.compare_exchange_weak(gate, closed, std::memory_order_acq_rel,
                                        std::memory_order_relaxed)) {
      return static_cast<int>(joined);
    }
  }
}

void drop_remaining_tasks(Pool& pool, int64_t task_count) {
  pool.next.store(task_count, std::memory_order_relaxed);
}

void wait_for_workers(Pool& pool, int joined, Poller& poller) {
  const auto all_left = [&] { return pool.finished.load(std::memory_order_acquire) == joined; };
  const int64_t deadline = now_nanoseconds() + kSpinNanoseconds;
  while (!all_left() && now_nanoseconds() < deadline) pause_processor();
  while (!all_left()) {
    {
      Lock lock(pool.mutex);
      pool.owner_waits = true;
      while (!all_left()) {
        if (!poller.active()) {
          pool.done.wait(pool.mutex);
        } else if (!pool.done.wait_for(pool.mutex, kPollNanoseconds)) {
          break;
        }
      }
      pool.owner_waits = false;
    }
    poller.poll_if_due(pool.completed.load(std::memory_order_relaxed));
    if (poller.orphaned()) return;
  }
}

void work_as_owner(Pool& pool, const Job& job, Poller& poller) {
  for (;;) {
    const int64_t task = pool.next.fetch_add(1, std::memory_order_relaxed);
    if (task >= job.task_count) return;
    {
      InsideTask inside;
      run_one(pool, job, task, 0);
    }
    if (!poller.active()) continue;
    poller.poll_if_due(pool.completed.load(std::memory_order_relaxed));
    if (poller.orphaned()) return;
    if (poller.stopped()) drop_remaining_tasks(pool, job.task_count);
  }
}

// Requires: this thread owns the pool (it set busy).
ec_status run_in_pool(Pool& pool, int workers, const Job& job, Poller& poller) {
  while (pool.started < workers - 1 && start_worker(pool)) {
  }
  pool.job = job;
  pool.next.store(0, std::memory_order_relaxed);
  pool.completed.store(0, std::memory_order_relaxed);
  pool.finished.store(0, std::memory_order_relaxed);
  open_gate(pool, workers - 1);
  work_as_owner(pool, job, poller);
  if (!poller.orphaned()) wait_for_workers(pool, close_gate(pool), poller);
  return poller.stopped() ? EC_INTERRUPTED : EC_OK;
}

}  // namespace

int num_threads() {
  const int chosen = g_chosen_threads.load(std::memory_order_relaxed);
  if (chosen > 0) return chosen;
  return g_forked_child.load(std::memory_order_relaxed) ? 1 : g_default_threads.count;
}

void set_num_threads(int threads) {
  if (threads > kMaxThreads) threads = kMaxThreads;
  g_chosen_threads.store(threads < 1 ? 0 : threads, std::memory_order_relaxed);
}

const char* num_threads_source() {
  if (g_chosen_threads.load(std::memory_order_relaxed) > 0) return "set_num_threads";
  if (g_forked_child.load(std::memory_order_relaxed)) return "forked process";
  return g_default_threads.source;
}

int worker_count(int64_t task_count, int threads) {
  if (threads < 1) threads = num_threads();
  if (threads > kMaxThreads) threads = kMaxThreads;
  if (task_count < threads) threads = static_cast<int>(task_count);
  return threads < 1 ? 1 : threads;
}

ec_status run_tasks(int64_t task_count, int threads, TaskBody body, void* context,
                    const ec_monitor* monitor) {
  const int workers = worker_count(task_count, threads);
  // Inside a task this thread may be a worker, and the outer call polls already.
  Poller poller(t_inside_task ? nullptr : monitor, task_count);
  if (workers == 1 || t_inside_task) return run_inline(task_count, body, context, poller);
  Pool* pool = pool_of_this_process();
  if (pool == nullptr || pool->busy.exchange(true, std::memory_order_acquire)) {
    return run_inline(task_count, body, context, poller);
  }
  const Job job = {body, context, task_count, float_mode(), poller.active()};
  const ec_status status = run_in_pool(*pool, workers, job, poller);
  pool->busy.store(false, std::memory_order_release);
  return status;
}

}  // namespace ec
