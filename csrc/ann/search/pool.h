// SPDX-License-Identifier: Apache-2.0
// The best candidates so far.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

namespace ec::ann {

struct Candidate {
  float score;
  uint32_t slot;
};

// Orders of candidates. Objects, not functions, so that sorting compares in line.
struct Better {
  // Greater score first; of equals the smaller slot.
  bool operator()(const Candidate& a, const Candidate& b) const {
    return a.score != b.score ? a.score > b.score : a.slot < b.slot;
  }
};
constexpr Better better;

struct Worse {
  bool operator()(const Candidate& a, const Candidate& b) const { return better(b, a); }
};
constexpr Worse worse;

// The `size` best of what is offered, found by cutting a list of twice the size down whenever it is full.
// Of these the `rank` best set the bar.
class Pool {
 public:
  // Requires: rank >= 1 if anything will be offered.
  void reset(int64_t size, int64_t rank) {
    size_ = static_cast<size_t>(size);
    rank_ = static_cast<size_t>(rank);
    items_.clear();
    items_.reserve(2 * size_);
    best_.clear();
    best_.reserve(rank_);
    least_ = bar_ = -kInfinity;
  }
  int64_t rank() const { return static_cast<int64_t>(rank_); }
  // The rank-th best score so far.
  float bar() const { return bar_; }
  void offer(float score, uint32_t slot) {
    if (!(score > least_)) return;
    items_.push_back({score, slot});
    if (items_.size() == 2 * size_) cut();
    if (score > bar_) raise_bar(score);
  }
  // In no order, at most `size`.
  std::vector<Candidate>& items() {
    if (items_.size() > size_) cut();
    return items_;
  }

 private:
  static constexpr float kInfinity = __builtin_inff();

  void cut() {
    std::nth_element(items_.begin(), items_.begin() + static_cast<std::ptrdiff_t>(size_ - 1), items_.end(),
                     better);
    items_.resize(size_);
    least_ = items_.back().score;
  }

  void raise_bar(float score) {
    if (best_.size() == rank_) {
      std::pop_heap(best_.begin(), best_.end(), std::greater<>());
      best_.back() = score;
    } else {
      best_.push_back(score);
    }
    std::push_heap(best_.begin(), best_.end(), std::greater<>());
    if (best_.size() == rank_) bar_ = best_.front();
  }

  std::vector<Candidate> items_;
  std::vector<float> best_;  // the rank best scores; a heap, the least on top
  size_t size_ = 0, rank_ = 0;
  float least_ = -kInfinity;  // what an offer must be greater than to be kept
  float bar_ = -kInfinity;
};

}  // namespace ec::ann
