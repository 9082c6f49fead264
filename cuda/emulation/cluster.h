// SPDX-License-Identifier: Apache-2.0
// The scheduler behind block.h: threads of one cluster's blocks, who waits for whom, and what is left for
// later.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "emulation/block.h"
#include "emulation/fibers.h"

// As kernels know them.
extern ec::emulation::Index3 threadIdx, blockIdx;

namespace ec::emulation {

constexpr std::align_val_t kSharedAlignment{128};
constexpr unsigned char kUnwritten = 0xff;  // NaN, whatever is read from it

inline std::string text(const Place& place) {
  return std::string(place.file) + ":" + std::to_string(place.line);
}

inline bool same(const Place& a, const Place& b) {
  return a.line == b.line && std::strcmp(a.file, b.file) == 0;
}

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
  size_t block = 0;                    // of the cluster
  uint64_t arrivals = 0, waits = 0;    // at the barrier of the cluster
  const Meeting* waits_for = nullptr;  // of lanes
  std::shared_ptr<Meeting> last;       // what it may still read
  std::vector<Copy> copies;            // of no group yet
  std::deque<std::vector<Copy>> groups;
};

// Of a cluster.
struct Block {
  struct Free {
    void operator()(unsigned char* memory) const { ::operator delete(memory, kSharedAlignment); }
  };
  std::unique_ptr<unsigned char, Free> shared;
  Index3 index;
  size_t barrier_arrived = 0;
  Place barrier = {};
  size_t left = 0;      // threads that have
  size_t incoming = 0;  // what others do in its memory later
};

inline size_t count_of(const Size3& size) { return size_t{size.x} * size.y * size.z; }

// The number i, x first.
inline Index3 index_in(const Size3& size, size_t i) {
  return {static_cast<unsigned>(i % size.x), static_cast<unsigned>(i / size.x % size.y),
          static_cast<unsigned>(i / size.x / size.y)};
}

// Blocks that run at the same time; mostly it is one.
class Cluster {
 public:
  Cluster(const Size3& blocks, const Size3& size, size_t shared_bytes, const std::function<void()>& kernel,
          std::mt19937_64& random)
      : kernel_(kernel),
        random_(random),
        size_(blocks),
        blocks_(count_of(blocks)),
        block_threads_(count_of(size)),
        threads_(blocks_.size() * block_threads_),
        warps_((block_threads_ + kWarpLanes - 1) / kWarpLanes),
        meetings_(blocks_.size() * warps_),
        shared_bytes_(shared_bytes) {
    for (size_t i = 0; i < threads_.size(); ++i) {
      threads_[i].index = index_in(size, i % block_threads_);
      threads_[i].block = i / block_threads_;
    }
  }

  // first: the index of its first block.
  void run(const Index3& first) {
    for (size_t i = 0; i < blocks_.size(); ++i) {
      // Of exactly this size, so that the address sanitizer sees what lies beyond.
      Block block;
      block.shared.reset(static_cast<unsigned char*>(::operator new(shared_bytes_ + 1, kSharedAlignment)));
      std::memset(block.shared.get(), kUnwritten, shared_bytes_);
      const Index3 in_cluster = index_in(size_, i);
      block.index = {first.x + in_cluster.x, first.y + in_cluster.y, first.z + in_cluster.z};
      blocks_[i] = std::move(block);
    }
    ready_.clear();
    for (size_t i = 0; i < threads_.size(); ++i) {
      Thread& thread = threads_[i];
      thread.fiber.start(&kernel_);
      thread.waits_for = nullptr;
      thread.copies.clear();
      thread.groups.clear();
      thread.arrivals = thread.waits = 0;
      ready_.push_back(i);
    }
    for (auto& of_warp : meetings_) of_warp.clear();
    waiting_.clear();
    later_.clear();
    changed_ = false;
    arrived_ = phases_ = 0;
    ++number_;
    while (next_thread_is_ready()) {
      const size_t pick = pick_ready();
      current_ = ready_[pick];
      ready_[pick] = ready_.back();
      ready_.pop_back();
      Thread& thread = threads_[current_];
      threadIdx = thread.index;
      blockIdx = own().index;
      thread.fiber.resume();
      if (!failure_.empty()) throw std::logic_error(failure_);
      if (thread.fiber.finished()) leave();
    }
    if (ended_early_) throw std::logic_error("a block ends before its bulk copies are made");
    for (const Thread& thread : threads_) {
      if (!thread.fiber.finished()) throw std::logic_error(stuck());
      if (!thread.copies.empty() || !thread.groups.empty())
        throw std::logic_error("a thread leaves before its copies are made");
    }
  }

  void* shared() { return own().shared.get(); }
  size_t shared_bytes() const { return shared_bytes_; }
  int lane() const { return static_cast<int>(current_ % block_threads_ % kWarpLanes); }
  size_t thread_number() const { return current_; }
  size_t thread_in_block() const { return current_ % block_threads_; }
  static uint64_t number() { return number_; }

  unsigned rank() const { return static_cast<unsigned>(threads_[current_].block); }
  unsigned size() const { return static_cast<unsigned>(blocks_.size()); }

  void arrive(const Place& place) {
    Thread& thread = threads_[current_];
    if (thread.arrivals != thread.waits)
      fail("a thread arrives at the barrier of its cluster again and has not waited: " + text(place));
    if (arrived_ == 0) {
      arrival_ = place;
    } else if (!same(arrival_, place)) {
      fail("threads of a cluster arrive at different barriers: " + text(arrival_) + " and " + text(place));
    }
    ++thread.arrivals;
    if (++arrived_ < threads_.size()) return;
    arrived_ = 0;
    ++phases_;
    notify();
  }
  void wait(const Place& place) {
    Thread& thread = threads_[current_];
    if (thread.arrivals == thread.waits)
      fail("a thread waits for the barrier of its cluster and has not arrived: " + text(place));
    const uint64_t phase = ++thread.waits;
    wait_until([this, phase] { return phases_ >= phase; }, "the barrier of its cluster", place);
  }

  void* neighbour(const void* memory, size_t bytes, unsigned rank, const Place& place) {
    if (rank >= blocks_.size()) fail("a cluster has no block of that rank: " + text(place));
    const auto* at = static_cast<const unsigned char*>(memory);
    const unsigned char* start = own().shared.get();
    if (at < start || at + bytes > start + shared_bytes_)
      fail("an address is not of shared memory: " + text(place));
    Block& block = blocks_[rank];
    if (&block != &own()) {
      if (threads_[current_].waits == 0)
        fail("a neighbour's memory is used before it is known to run: " + text(place));
      if (block.left > 0) fail("a neighbour may have left, whose memory is used: " + text(place));
    }
    return block.shared.get() + (at - start);
  }
  void later_in(unsigned rank, std::function<void()> action) {
    Block& block = blocks_[rank];
    ++block.incoming;
    later([&block, action = std::move(action)] {
      action();
      --block.incoming;
    });
  }

  void wait_until(const std::function<bool()>& holds, const char* what, const Place& place) {
    while (!holds()) {
      waiting_.push_back({current_, holds, what, place});
      threads_[current_].fiber.pause();
    }
  }
  void notify() { changed_ = true; }
  void later(std::function<void()> action) { later_.push_back(std::move(action)); }

  void sync(const Place& place) {
    Block& block = own();
    if (block.barrier_arrived == 0) {
      block.barrier = place;
    } else if (!same(block.barrier, place)) {
      fail("threads of a block wait at different barriers: " + text(block.barrier) + " and " + text(place));
    }
    Thread& thread = threads_[current_];
    if (++block.barrier_arrived == block_threads_) {
      block.barrier_arrived = 0;
      const size_t first = thread.block * block_threads_;
      for (size_t i = 0; i < block_threads_; ++i) ready_.push_back(first + i);
    }
    thread.fiber.pause();
  }

  const unsigned char* meet(unsigned mask, const void* value, size_t bytes, const Place& place) {
    Thread& thread = threads_[current_];
    const unsigned bit = 1u << lane();
    if ((mask & bit) == 0) fail("a lane is not in the mask that it gives: " + text(place));
    const size_t warp = current_ % block_threads_ / kWarpLanes;
    auto& open = meetings_[thread.block * warps_ + warp];
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
    const size_t first = thread.block * block_threads_ + warp * kWarpLanes,
                 last = std::min(first + kWarpLanes, (thread.block + 1) * block_threads_);
    for (size_t i = first; i < last; ++i) {
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

  // Mostly of one block for a while, so that the others fall behind.
  size_t pick_ready() {
    constexpr int kTries = 16, kWhile = 2000;
    size_t pick = random_() % ready_.size();
    if (blocks_.size() == 1) return pick;
    if (random_() % kWhile == 0) ahead_ = random_() % blocks_.size();
    for (int i = 0; i < kTries && threads_[ready_[pick]].block != ahead_; ++i)
      pick = random_() % ready_.size();
    return pick;
  }

  Block& own() { return blocks_[threads_[current_].block]; }

  // Of the current thread, for good.
  void leave() {
    const Thread& thread = threads_[current_];
    if (thread.arrivals != thread.waits)
      throw std::logic_error(
          "a thread leaves that has arrived at the barrier of its cluster and not waited");
    if (++own().left == block_threads_ && own().incoming > 0 && blocks_.size() > 1)
      throw std::logic_error("a block leaves before all is there that its neighbours store");
  }

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
    for (const Block& block : blocks_)
      if (block.barrier_arrived > 0)
        what +=
            " " + std::to_string(block.barrier_arrived) + " at the barrier " + text(block.barrier) + ";";
    for (const auto& of_warp : meetings_)
      for (const auto& one : of_warp) what += " lanes at " + text(one->place) + ";";
    for (size_t i = 0; i < std::min(waiting_.size(), size_t{4}); ++i)
      what += " thread " + std::to_string(waiting_[i].thread) + " for " + waiting_[i].what + " at " +
              text(waiting_[i].place) + ";";
    return what;
  }

  const std::function<void()>& kernel_;
  std::mt19937_64& random_;
  Size3 size_;
  std::vector<Block> blocks_;
  size_t block_threads_;
  std::vector<Thread> threads_;                                  // of all blocks
  size_t warps_;                                                 // of a block
  std::vector<std::vector<std::shared_ptr<Meeting>>> meetings_;  // of each warp
  size_t shared_bytes_;
  std::vector<size_t> ready_;
  size_t current_ = 0;
  size_t ahead_ = 0;     // a block
  size_t arrived_ = 0;   // at the barrier of the cluster
  uint64_t phases_ = 0;  // of it that are over
  Place arrival_ = {};
  std::vector<Waiting> waiting_;
  std::vector<std::function<void()>> later_;
  bool changed_ = false, ended_early_ = false;
  static inline uint64_t number_ = 0;
  std::string failure_;
};

}  // namespace ec::emulation
