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

// The best of what is offered: all that is no more than `margin` below the rank-th best, and `least` of
// them at least. What has fallen behind is thrown out whenever the list has doubled.
class Pool {
 public:
  // Requires: rank >= 1 if anything will be offered.
  void reset(int64_t least, int64_t rank, float margin) {
    least_ = static_cast<size_t>(least);
    rank_ = static_cast<size_t>(rank);
    margin_ = margin;
    items_.clear();
    full_ = 2 * least_;
    items_.reserve(full_);
    best_.clear();
    best_.reserve(rank_);
    bar_ = floor_ = -kInfinity;
  }
  int64_t rank() const { return static_cast<int64_t>(rank_); }
  // The rank-th best score so far.
  float best() const { return best_.size() == rank_ ? best_.front() : -kInfinity; }
  // What a score must be above to be among those kept for their score.
  float bar() const { return bar_; }
  void offer(float score, uint32_t slot) {
    if (!(score > floor_)) return;
    items_.push_back({score, slot});
    if (best_.size() < rank_ || score > best_.front()) raise_bar(score);
    if (items_.size() == full_) cut();
  }
  // In no order.
  std::vector<Candidate>& items() {
    cut();
    return items_;
  }

 private:
  static constexpr float kInfinity = __builtin_inff();

  // Leaves those above the bar, or the `least_` best where these are more.
  void cut() {
    if (items_.size() <= least_) return;
    const auto last = items_.begin() + static_cast<std::ptrdiff_t>(least_ - 1);
    std::nth_element(items_.begin(), last, items_.end(), better);
    floor_ = std::min(last->score, bar_);
    const auto end =
        std::remove_if(last + 1, items_.end(), [&](const Candidate& item) { return !(item.score > bar_); });
    items_.erase(end, items_.end());
    full_ = 2 * items_.size();
  }

  void raise_bar(float score) {
    if (best_.size() == rank_) {
      std::pop_heap(best_.begin(), best_.end(), std::greater<>());
      best_.back() = score;
    } else {
      best_.push_back(score);
    }
    std::push_heap(best_.begin(), best_.end(), std::greater<>());
    if (best_.size() == rank_) bar_ = best_.front() - margin_;
  }

  std::vector<Candidate> items_;
  std::vector<float> best_;  // the rank best scores; a heap, the least on top
  size_t least_ = 0, rank_ = 0, full_ = 0;
  float margin_ = 0.0f;
  float bar_ = -kInfinity;
  float floor_ = -kInfinity;  // below this nothing is kept
};

}  // namespace ec::ann
