// SPDX-License-Identifier: Apache-2.0
#include "ann/build/connect.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "ann/build/k_means.h"
#include "ann/build/reach.h"
#include "core/parallel.h"

namespace ec {
namespace ann {

namespace {

constexpr int64_t kTaskRows = 1024;
constexpr int kRounds = 4;           // a link that gives way may be one that was needed
constexpr int64_t kBridgeCells = 3;  // nearest cells with rows to lead to that are looked into

class Connector {
 public:
  Connector(const GraphRows& graph, const Cells& cells, const BuildOptions& options, uint32_t* links)
      : graph_(graph),
        cells_(cells),
        options_(options),
        degree_(options.degree),
        links_(links),
        kernels_(*graph_kernels(current_isa())),
        incoming_(graph.rows.rows, 0),
        added_to_(graph.rows.rows, 0),
        marked_(graph.rows.rows),
        reach_(graph, options, links) {}

  ec_status run() {
    ec_status status = count_incoming();
    if (status != EC_OK) return status;
    for (int64_t row = 0; row < rows(); ++row) {
      if (graph_.is_twin(row) || incoming_[row] > 0) continue;
      const uint32_t near = roomy_neighbour(static_cast<uint32_t>(row), false);
      if (near != kNoSlot) add_link(near, static_cast<uint32_t>(row));
    }
    for (int i = 0; i < kRounds; ++i) {
      const int64_t before = added_;
      status = lead_everywhere();
      if (status == EC_OK) status = lead_back();
      if (status != EC_OK) return status;
      if (added_ == before) break;
    }
    return EC_OK;
  }

 private:
  int64_t rows() const { return graph_.rows.rows; }
  uint32_t* links_of(int64_t row) { return links_ + row * degree_; }
  const uint32_t* links_of(int64_t row) const { return links_ + row * degree_; }

  // incoming_; links to twins are made anew later, so that their places are kept free.
  ec_status count_incoming() {
    const int64_t tasks = (rows() + kTaskRows - 1) / kTaskRows;
    return parallel_for(tasks, options_.threads, options_.monitor, [&](int64_t task, int /*worker*/) {
      const int64_t end = std::min(rows(), (task + 1) * kTaskRows);
      for (int64_t row = task * kTaskRows; row < end; ++row) {
        if (graph_.is_twin(row)) continue;
        uint32_t* links = links_of(row);
        const int64_t room = graph_.room_of(row, degree_);
        if (room < degree_) {
          uint32_t* last = std::remove_if(links, links + degree_,
                                          [&](uint32_t to) { return to == kNoSlot || graph_.is_twin(to); });
          std::fill(std::min(last, links + room), links + degree_, kNoSlot);
        }
        for (int64_t e = 0; e < degree_ && links[e] != kNoSlot; ++e)
          __atomic_fetch_add(&incoming_[links[e]], 1u, __ATOMIC_RELAXED);
      }
    });
  }

  // Of the rows that a row is linked to, the nearest with room for a link; if none has any, the first of
  // those with the fewest added. kNoSlot when there are none.
  uint32_t roomy_neighbour(uint32_t row, bool marked) const {
    uint32_t best = kNoSlot;
    for (int64_t e = 0; e < degree_ && links_of(row)[e] != kNoSlot; ++e) {
      const uint32_t near = links_of(row)[e];
      if (graph_.is_twin(near) || (marked && !marked_[near])) continue;
      if (links_of(near)[graph_.room_of(near, degree_) - 1] == kNoSlot) return near;
      if (best == kNoSlot || added_to_[near] < added_to_[best]) best = near;
    }
    return best;
  }

  // Where there is no room, the farthest link gives way that was not added here, if possible one to a row
  // that others lead to.
  void add_link(uint32_t row, uint32_t target) {
    const int64_t room = graph_.room_of(row, degree_);
    uint32_t* links = links_of(row);
    uint32_t* end = std::find(links, links + room, kNoSlot);
    if (std::find(links, end, target) != end) return;
    if (end == links + room) {
      const int64_t last = std::max<int64_t>(room - 1 - added_to_[row], 0);
      int64_t at = last;
      while (at > 0 && incoming_[links[at]] < 2) --at;
      if (at == 0) at = last;
      --incoming_[links[at]];
      std::copy(links + at + 1, end, links + at);
      --end;
    }
    *end = target;
    ++incoming_[target];
    ++added_to_[row];
    ++added_;
  }

  // Marks what there are ways to from a row.
  void mark_from(uint32_t row) {
    marked_[row] = 1;
    stack_.push_back(row);
    while (!stack_.empty()) {
      const uint32_t* links = links_of(stack_.back());
      stack_.pop_back();
      for (int64_t e = 0; e < degree_ && links[e] != kNoSlot; ++e) {
        if (marked_[links[e]]) continue;
        marked_[links[e]] = 1;
        stack_.push_back(links[e]);
      }
    }
  }

  // The first row that is no twin. There is one where there are rows.
  uint32_t first_row() const {
    uint32_t row = 0;
    while (graph_.is_twin(row)) ++row;
    return row;
  }

  // Rows without a mark, twins apart.
  std::vector<uint32_t> unmarked() const {
    std::vector<uint32_t> found;
    for (int64_t row = 0; row < rows(); ++row)
      if (!marked_[row] && !graph_.is_twin(row)) found.push_back(static_cast<uint32_t>(row));
    return found;
  }

  // Every row can be reached from the first: what cannot gets a link from a row that can.
  ec_status lead_everywhere() {
    std::fill(marked_.begin(), marked_.end(), 0);
    const ec_status status = reach_.mark_from(first_row(), &marked_);
    if (status != EC_OK) return status;
    for (const uint32_t row : unmarked()) {
      if (marked_[row]) continue;
      const uint32_t near = marked_neighbour(row);
      if (near == kNoSlot) return EC_OUT_OF_MEMORY;
      add_link(near, row);
      mark_from(row);
    }
    return EC_OK;
  }

  // And the first from every row.
  ec_status lead_back() {
    std::fill(marked_.begin(), marked_.end(), 0);
    const ec_status status = reach_.mark_most_to(first_row(), &marked_);
    if (status != EC_OK) return status;
    const std::vector<uint32_t> left = unmarked();
    if (left.empty()) return EC_OK;
    collect_sources(left);
    for (const uint32_t row : left)
      if (!marked_[row] && leads_to_marked(row)) mark_sources(row);
    for (const uint32_t row : left) {
      if (marked_[row]) continue;
      const uint32_t near = marked_neighbour(row);
      if (near == kNoSlot) return EC_OUT_OF_MEMORY;
      add_link(row, near);
      mark_sources(row);
    }
    return EC_OK;
  }

  bool leads_to_marked(uint32_t row) const {
    const uint32_t* links = links_of(row);
    return std::any_of(links, std::find(links, links + degree_, kNoSlot),
                       [this](uint32_t to) { return marked_[to] != 0; });
  }

  // sources_: of each row of some, all that are not marked, those of them that are linked to it. Links of
  // rows without a mark stay as they are while it is of use.
  void collect_sources(const std::vector<uint32_t>& some) {
    const auto each_link = [&](const auto& body) {
      for (const uint32_t row : some) {
        for (int64_t e = 0; e < degree_ && links_of(row)[e] != kNoSlot; ++e)
          if (!marked_[links_of(row)[e]]) body(row, links_of(row)[e]);
      }
    };
    source_start_.assign(rows() + 1, 0);
    each_link([&](uint32_t, uint32_t to) { ++source_start_[to + 1]; });
    for (int64_t row = 0; row < rows(); ++row) source_start_[row + 1] += source_start_[row];
    sources_.resize(source_start_[rows()]);
    std::vector<int64_t> next(source_start_.begin(), source_start_.end() - 1);
    each_link([&](uint32_t from, uint32_t to) { sources_[next[to]++] = from; });
  }

  // Marks what has a way to a row.
  void mark_sources(uint32_t row) {
    marked_[row] = 1;
    stack_.push_back(row);
    while (!stack_.empty()) {
      const uint32_t target = stack_.back();
      stack_.pop_back();
      for (int64_t e = source_start_[target]; e < source_start_[target + 1]; ++e) {
        if (marked_[sources_[e]]) continue;
        marked_[sources_[e]] = 1;
        stack_.push_back(sources_[e]);
      }
    }
  }

  // Once a bridge is needed.
  bool load_centroids() {
    if (centroids_.rows > 0) return true;
    const int64_t count = cells_.cells();
    norms_ = centroid_norms(cells_.centroids.data(), count, graph_.rows.shape);
    centroids_.shape = graph_.rows.shape;
    centroids_.shape.tail_bytes = 0;
    centroids_.heads = cells_.centroids.data();
    centroids_.norms = norms_.data();
    centroids_.rows = count;
    int64_t most = count;
    for (int64_t c = 0; c < count; ++c)
      most = std::max<int64_t>(most, cells_.start[c + 1] - cells_.start[c]);
    return head_.allocate(1, centroids_.shape) && left_.allocate(1, graph_.rows.shape) &&
           right_.allocate(most) && distances_.allocate(round_up(most, kColumnStep));
  }

  // Nearest of the slots to what is in left_.
  Key nearest_of(const CodedRows& rows, const LeftBlock& left, const std::vector<uint32_t>& slots,
                 std::vector<Key>* keys) {
    const int64_t count = static_cast<int64_t>(slots.size());
    right_.load(rows, slots.data(), count);
    kernels_.distances(left.codes(), 1, right_.codes(0), count, distances_.data(), 0);
    keys->resize(count);
    keys->resize(kernels_.collect(distances_.data(), count, std::numeric_limits<float>::max(), slots.data(),
                                  keys->data()));
    return keys->empty() ? slots.front() : *std::min_element(keys->begin(), keys->end());
  }

  // The nearest marked row, nearly. kNoSlot when memory has run out. Requires: there is one.
  uint32_t marked_neighbour(uint32_t row) {
    const uint32_t linked = roomy_neighbour(row, true);
    if (linked != kNoSlot) return linked;
    if (!load_centroids()) return kNoSlot;
    CodedRows heads = graph_.rows;
    heads.shape.tail_bytes = 0;
    head_.load(heads, &row, 1, kernels_);
    left_.load(graph_.rows, &row, 1, kernels_);
    std::vector<uint32_t> slots(cells_.cells());
    std::iota(slots.begin(), slots.end(), 0u);
    std::vector<Key> order, keys;
    nearest_of(centroids_, head_, slots, &order);
    std::sort(order.begin(), order.end());
    Key best = ~Key{0};
    int64_t visited = 0;
    for (size_t i = 0; i < order.size() && visited < kBridgeCells; ++i) {
      const uint32_t cell = slot_of(order[i]);
      slots.clear();
      for (uint32_t m = cells_.start[cell]; m < cells_.start[cell + 1]; ++m) {
        const uint32_t member = cells_.members[m];
        if (!graph_.is_twin(member) && marked_[member]) slots.push_back(member);
      }
      if (slots.empty()) continue;
      best = std::min(best, nearest_of(graph_.rows, left_, slots, &keys));
      ++visited;
    }
    return slot_of(best);
  }

  const GraphRows& graph_;
  const Cells& cells_;
  const BuildOptions& options_;
  const int64_t degree_;
  uint32_t* links_;
  const GraphKernels& kernels_;
  std::vector<uint32_t> incoming_;  // how many rows are linked to each
  std::vector<uint32_t> added_to_;  // links added to each
  std::vector<uint8_t> marked_;
  Reach reach_;
  std::vector<uint32_t> stack_;
  std::vector<int64_t> source_start_;  // rows + 1
  std::vector<uint32_t> sources_;
  int64_t added_ = 0;
  CodedRows centroids_;
  std::vector<float> norms_;
  LeftBlock head_, left_;
  RightBlock right_;
  AlignedBuffer<float> distances_;
};

}  // namespace

ec_status connect(const GraphRows& graph, const Cells& cells, const BuildOptions& options,
                  uint32_t* links) {
  if (graph.rows.rows == 0) return EC_OK;
  return Connector(graph, cells, options, links).run();
}

}  // namespace ann
}  // namespace ec
