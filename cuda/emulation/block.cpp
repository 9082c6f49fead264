// SPDX-License-Identifier: Apache-2.0
#include "emulation/block.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "emulation/fibers.h"

// As kernels know them.
ec::emulation::Size3 gridDim, blockDim;
ec::emulation::Index3 threadIdx, blockIdx;

namespace ec::emulation {
namespace {

constexpr std::align_val_t kSharedAlignment{128};
constexpr unsigned char kUnwritten = 0xff;  // NaN, whatever is read from it

std::string text(const Place& place) { return std::string(place.file) + ":" + std::to_string(place.line); }

bool same(const Place& a, const Place& b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

// Lanes that wait for one another.
struct Meeting {
  unsigned mask = 0, arrived = 0;
  Place place = {};
  unsigned char values[kWarpLanes][kMostLaneBytes];
};

struct Copy {
  void* to;
  const void* from;
  size_t bytes;

  void make() const {
    if (from == nullptr)
      std::memset(to, 0, bytes);
    else
      std::memcpy(to, from, bytes);
  }
};

struct Thread {
  Fiber fiber;
  Index3 index;
  const Meeting* waits_for = nullptr;  // of lanes
  std::shared_ptr<Meeting> last;       // what it may still read
  std::vector<Copy> copies;            // of no group yet
  std::deque<std::vector<Copy>> groups;
};

class Block {
 public:
  Block(const Size3& size, size_t shared_bytes, const std::function<void()>& kernel,
        std::mt19937_64& random)
      : kernel_(kernel),
        random_(random),
        threads_(size_t{size.x} * size.y * size.z),
        meetings_((threads_.size() + kWarpLanes - 1) / kWarpLanes),
        shared_bytes_(shared_bytes) {
    unsigned number = 0;
    for (unsigned z = 0; z < size.z; ++z)
      for (unsigned y = 0; y < size.y; ++y)
        for (unsigned x = 0; x < size.x; ++x) threads_[number++].index = {x, y, z};
  }

  void run() {
    // Of exactly this size, so that the address sanitizer sees what lies beyond.
    shared_.reset(static_cast<unsigned char*>(::operator new(shared_bytes_ + 1, kSharedAlignment)));
    std::memset(shared_.get(), kUnwritten, shared_bytes_);
    barrier_arrived_ = 0;
    ready_.clear();
    for (size_t i = 0; i < threads_.size(); ++i) {
      threads_[i].fiber.start(&kernel_);
      threads_[i].waits_for = nullptr;
      threads_[i].copies.clear();
      threads_[i].groups.clear();
      ready_.push_back(i);
    }
    for (auto& of_warp : meetings_) of_warp.clear();
    waiting_.clear();
    later_.clear();
    changed_ = false;
    ++block_number_;
    while (next_thread_is_ready()) {
      const size_t pick = random_() % ready_.size();
      current_ = ready_[pick];
      ready_[pick] = ready_.back();
      ready_.pop_back();
      Thread& thread = threads_[current_];
      threadIdx = thread.index;
      thread.fiber.resume();
      if (!failure_.empty()) throw std::logic_error(failure_);
    }
    if (ended_early_) throw std::logic_error("a block ends before its bulk copies are made");
    for (const Thread& thread : threads_) {
      if (!thread.fiber.finished()) throw std::logic_error(stuck());
      if (!thread.copies.empty() || !thread.groups.empty())
        throw std::logic_error("a thread leaves before its copies are made");
    }
  }

  void* shared() { return shared_.get(); }
  size_t shared_bytes() const { return shared_bytes_; }
  int lane() const { return static_cast<int>(current_ % kWarpLanes); }
  size_t thread_number() const { return current_; }
  static uint64_t block_number() { return block_number_; }

  void wait_until(const std::function<bool()>& holds, const char* what, const Place& place) {
    while (!holds()) {
      waiting_.push_back({current_, holds, what, place});
      threads_[current_].fiber.pause();
    }
  }
  void notify() { changed_ = true; }
  void later(std::function<void()> action) { later_.push_back(std::move(action)); }

  void sync(const Place& place) {
    if (barrier_arrived_ == 0) {
      barrier_ = place;
    } else if (!same(barrier_, place)) {
      fail("threads of a block wait at different barriers: " + text(barrier_) + " and " + text(place));
    }
    Thread& thread = threads_[current_];
    if (++barrier_arrived_ == threads_.size()) {
      barrier_arrived_ = 0;
      for (size_t i = 0; i < threads_.size(); ++i) {
        ready_.push_back(i);
      }
    }
    thread.fiber.pause();
  }

  const unsigned char* meet(unsigned mask, const void* value, size_t bytes, const Place& place) {
    Thread& thread = threads_[current_];
    const unsigned bit = 1u << lane();
    if ((mask & bit) == 0) fail("a lane is not in the mask that it gives: " + text(place));
    auto& open = meetings_[current_ / kWarpLanes];
    std::shared_ptr<Meeting> meeting;
    for (const auto& one : open) {
      if (one->mask != mask) continue;  // parts of a warp may go different ways
      if (!same(one->place, place))
        fail("lanes of a warp meet at different places: " + text(one->place) + " and " + text(place));
      meeting = one;
    }
    if (meeting == nullptr) {
      meeting = std::make_shared<Meeting>();
      meeting->mask = mask;
      meeting->place = place;
      open.push_back(meeting);
    }
    std::memcpy(meeting->values[lane()], value, bytes);
    meeting->arrived |= bit;
    thread.last = meeting;
    if (meeting->arrived != mask) {
      thread.waits_for = meeting.get();
      thread.fiber.pause();
      return meeting->values[0];
    }
    for (size_t i = 0; i < open.size(); ++i) {
      if (open[i] == meeting) {
        open.erase(open.begin() + static_cast<std::ptrdiff_t>(i));
        break;
      }
    }
    const size_t first = current_ / kWarpLanes * kWarpLanes;
    for (size_t i = first; i < std::min(first + kWarpLanes, threads_.size()); ++i) {
      if (threads_[i].waits_for != meeting.get()) continue;
      threads_[i].waits_for = nullptr;
      ready_.push_back(i);
    }
    return meeting->values[0];
  }

  void async_copy(const Copy& copy) {
    std::memset(copy.to, kUnwritten, copy.bytes);
    threads_[current_].copies.push_back(copy);
  }
  void async_commit() {
    Thread& thread = threads_[current_];
    thread.groups.push_back(std::move(thread.copies));
    thread.copies.clear();
  }
  void async_wait(size_t groups_left) {
    auto& groups = threads_[current_].groups;
    for (; groups.size() > groups_left; groups.pop_front())
      for (const Copy& copy : groups.front()) copy.make();
  }

  [[noreturn]] void fail(const std::string& what) {
    failure_ = what;
    threads_[current_].fiber.pause();  // for good
    std::abort();
  }

 private:
  struct Waiting {
    size_t thread;
    std::function<bool()> holds;
    const char* what;
    Place place;
  };

  // Does some of what was left for later, and wakes those for whom that is enough.
  bool next_thread_is_ready() {
    ended_early_ = ready_.empty() && !later_.empty() &&
                   std::all_of(threads_.begin(), threads_.end(),
                               [](const Thread& thread) { return thread.fiber.finished(); });
    if (ended_early_) return false;
    for (;;) {
      if (!later_.empty() && (ready_.empty() || random_() % 4 == 0)) {
        const size_t pick = random_() % later_.size();
        const std::function<void()> action = std::move(later_[pick]);
        later_[pick] = std::move(later_.back());
        later_.pop_back();
        action();
      }
      if (changed_) wake();
      if (!ready_.empty()) return true;
      if (later_.empty()) return false;
    }
  }

  void wake() {
    changed_ = false;
    std::vector<Waiting> still;
    for (Waiting& one : waiting_) {
      if (one.holds())
        ready_.push_back(one.thread);
      else
        still.push_back(std::move(one));
    }
    waiting_ = std::move(still);
  }

  std::string stuck() const {
    std::string what = "threads of a block wait for others that have left or wait elsewhere:";
    if (barrier_arrived_ > 0)
      what += " " + std::to_string(barrier_arrived_) + " at the barrier " + text(barrier_) + ";";
    for (const auto& of_warp : meetings_)
      for (const auto& one : of_warp) what += " lanes at " + text(one->place) + ";";
    for (size_t i = 0; i < std::min(waiting_.size(), size_t{4}); ++i)
      what += " thread " + std::to_string(waiting_[i].thread) + " for " + waiting_[i].what + " at " +
              text(waiting_[i].place) + ";";
    return what;
  }

  const std::function<void()>& kernel_;
  std::mt19937_64& random_;
  std::vector<Thread> threads_;
  std::vector<std::vector<std::shared_ptr<Meeting>>> meetings_;  // of each warp
  struct Free {
    void operator()(unsigned char* memory) const { ::operator delete(memory, kSharedAlignment); }
  };
  std::unique_ptr<unsigned char, Free> shared_;
  size_t shared_bytes_;
  std::vector<size_t> ready_;
  size_t current_ = 0;
  size_t barrier_arrived_ = 0;
  Place barrier_ = {};
  std::vector<Waiting> waiting_;
  std::vector<std::function<void()>> later_;
  bool changed_ = false, ended_early_ = false;
  static inline uint64_t block_number_ = 0;
  std::string failure_;
};

std::mt19937_64& random_orders() {
  static std::mt19937_64 random(1);
  return random;
}

Block* g_block = nullptr;

}  // namespace

size_t& most_shared() {
  static size_t bytes = size_t{227} << 10;
  return bytes;
}

size_t& allowed_shared(const void* kernel) {
  static std::map<const void*, size_t> allowed;
  return allowed[kernel];
}

uint64_t& started() {
  static uint64_t count = 0;
  return count;
}

void launch(const Size3& grid, const Size3& block, size_t shared_bytes, size_t allowed_bytes,
            const std::function<void()>& kernel) {
  ++started();
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMostThreads || block.z > kMostThreadsDeep)
    throw std::logic_error("a block has 1 to 1024 threads, and at most 64 along z");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > kMostBlocks || grid.y > kMostBlocksAside ||
      grid.z > kMostBlocksAside)
    throw std::logic_error("a grid has one block at least, and at most 2^31 - 1, 65535 and 65535");
  if (shared_bytes > std::max(kFreeSharedBytes, std::min(allowed_bytes, most_shared())))
    throw std::logic_error("a block shares at most 48 KB, or what its kernel and the device allow");
  Block runner(block, shared_bytes, kernel, random_orders());
  struct Guard {
    explicit Guard(Block* block) { g_block = block; }
    ~Guard() { g_block = nullptr; }
  } guard(&runner);
  gridDim = grid;
  blockDim = block;
  std::vector<Index3> order;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) order.push_back({x, y, z});
  std::shuffle(order.begin(), order.end(), random_orders());
  for (const Index3& index : order) {
    blockIdx = index;
    runner.run();
  }
}

void* shared_memory() { return g_block->shared(); }
size_t shared_bytes() { return g_block->shared_bytes(); }
void sync_block(const Place& place) { g_block->sync(place); }
const unsigned char* meet(unsigned mask, const void* value, size_t bytes, const Place& place) {
  return g_block->meet(mask, value, bytes, place);
}
int lane() { return g_block->lane(); }
size_t thread_number() { return g_block->thread_number(); }
uint64_t block_number() { return Block::block_number(); }
void wait_until(const std::function<bool()>& holds, const char* what, const Place& place) {
  g_block->wait_until(holds, what, place);
}
void notify() { g_block->notify(); }
void later(std::function<void()> action) { g_block->later(std::move(action)); }
void async_copy(void* to, const void* from, size_t bytes) { g_block->async_copy({to, from, bytes}); }
void async_commit() { g_block->async_commit(); }
void async_wait(int groups_left) { g_block->async_wait(static_cast<size_t>(groups_left)); }
void refuse(const char* what, const Place& place) { g_block->fail(what + (": " + text(place))); }

}  // namespace ec::emulation
