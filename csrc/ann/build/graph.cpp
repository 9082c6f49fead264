// SPDX-License-Identifier: Apache-2.0
// The graph: candidates of every new row, pruned; then every row takes in the rows that chose it.
#include <algorithm>
#include <limits>
#include <new>

#include "ann/build/build.h"
#include "ann/build/connect.h"
#include "ann/build/k_means.h"
#include "ann/build/neighbours.h"
#include "ann/build/prune.h"
#include "ann/build/twins.h"
#include "core/parallel.h"

namespace ec {
namespace ann {

namespace {

constexpr int64_t kTaskRows = 128;
constexpr int64_t kMostIncoming = 64;  // rows that chose one row and are weighed for it: the nearest

struct LinkScratch {
  Pruner pruner;
  LeftBlock left;
  RightBlock right;
  AlignedBuffer<float> distances;
  AlignedBuffer<Key> keys;
  AlignedBuffer<Key> links;
  std::vector<uint32_t> slots;
};

class Linker {
 public:
  Linker(const GraphRows& graph, const BuildOptions& options, const NeighbourEffort& effort, PruneRule rule,
         uint32_t* links)
      : graph_(graph),
        rows_(graph.rows),
        options_(options),
        effort_(effort),
        links_(links),
        kernels_(*graph_kernels(current_isa())),
        rule_(rule) {
    rule_.degree = options.degree;
    rule_.least = std::min<int64_t>(rule_.least, options.degree);
  }

  ec_status run(const Cells& cells) {
    const bool chosen = options_.choose_links != nullptr;
    ec_status status = EC_OK;
    if (!chosen) status = find_neighbours(graph_, cells, options_, effort_, &lists_);
    if (status == EC_OK) status = allocate_scratch();
    if (status == EC_OK) status = chosen ? take_chosen(cells) : prune_new();
    if (status == EC_OK) status = collect_incoming();
    if (status == EC_OK) status = merge_incoming();
    return status;
  }

 private:
  ec_status allocate_scratch() {
    const int64_t room = std::max(effort_.room(), options_.degree + kMostIncoming);
    scratch_.resize(worker_count((rows_.rows + kTaskRows - 1) / kTaskRows, options_.threads));
    for (LinkScratch& each : scratch_) {
      if (!each.pruner.allocate(room, rows_.shape) || !each.left.allocate(1, rows_.shape) ||
          !each.right.allocate(options_.degree) ||
          !each.distances.allocate(round_up(options_.degree, kColumnStep)) || !each.keys.allocate(room) ||
          !each.links.allocate(options_.degree)) {
        return EC_OUT_OF_MEMORY;
      }
    }
    return EC_OK;
  }

  // lists_ become links that something else has chosen, at the distances that codes have.
  ec_status take_chosen(const Cells& cells) {
    const std::vector<uint32_t> chosen = (*options_.choose_links)(cells, graph_.twins);
    const int64_t count = rows_.rows, degree = options_.degree;
    lists_.room = degree;
    lists_.count.assign(count, 0);
    if (!lists_.keys.allocate(count * degree)) return EC_OUT_OF_MEMORY;
    return parallel_for((count + kTaskRows - 1) / kTaskRows, options_.threads, options_.monitor,
                        [&](int64_t task, int worker) {
                          const int64_t end = std::min(count, (task + 1) * kTaskRows);
                          for (int64_t i = task * kTaskRows; i < end; ++i)
                            take_row(static_cast<uint32_t>(i), chosen.data() + i * degree,
                                     scratch_[worker]);
                        });
  }

  void take_row(uint32_t row, const uint32_t* chosen, LinkScratch& mine) {
    if (graph_.is_twin(row)) return;
    std::vector<uint32_t>& slots = mine.slots;
    slots.clear();
    for (int64_t e = 0; e < options_.degree && chosen[e] != kNoSlot; ++e)
      if (chosen[e] != row && !graph_.is_twin(chosen[e])) slots.push_back(chosen[e]);
    if (slots.empty()) return;
    Key* list = lists_.of(row);
    const int64_t count = measure(row, slots.data(), static_cast<int64_t>(slots.size()), list, mine);
    std::sort(list, list + count);
    lists_.count[row] = static_cast<uint16_t>(count);
  }

  // Keys of some rows at their distances from a row.
  int64_t measure(uint32_t row, const uint32_t* slots, int64_t count, Key* keys, LinkScratch& mine) const {
    mine.left.load(rows_, &row, 1, kernels_);
    mine.right.load(rows_, slots, count);
    kernels_.distances(mine.left.codes(), 1, mine.right.codes(0), count, mine.distances.data(), 0);
    return kernels_.collect(mine.distances.data(), count, std::numeric_limits<float>::max(), slots, keys);
  }

  // lists_ become links.
  ec_status prune_new() {
    const int64_t count = graph_.count_new();
    return parallel_for((count + kTaskRows - 1) / kTaskRows, options_.threads, options_.monitor,
                        [&](int64_t task, int worker) {
                          LinkScratch& mine = scratch_[worker];
                          const int64_t end = std::min(count, (task + 1) * kTaskRows);
                          for (int64_t i = task * kTaskRows; i < end; ++i) {
                            Key* list = lists_.of(i);
                            const int64_t kept = mine.pruner.prune(rows_, list, lists_.count[i], rule_,
                                                                   kernels_, mine.links.data());
                            std::copy_n(mine.links.data(), kept, list);
                            lists_.count[i] = static_cast<uint16_t>(kept);
                          }
                        });
  }

  // Who chose each row: a counting sort of the new links by their target. Those of one target are in no
  // order.
  ec_status collect_incoming() {
    // In turn the counts, where each target's begin, and, as they are written, where they end: of the next
    // but one, of the next and of this target.
    incoming_start_.assign(rows_.rows + 2, 0);
    ec_status status = each_new_link([&](Key, Key link) {
      __atomic_fetch_add(&incoming_start_[slot_of(link) + 2], int64_t{1}, __ATOMIC_RELAXED);
    });
    if (status != EC_OK) return status;
    for (int64_t i = 0; i < rows_.rows; ++i) incoming_start_[i + 2] += incoming_start_[i + 1];
    if (!incoming_.allocate(incoming_start_[rows_.rows + 1])) return EC_OUT_OF_MEMORY;
    return each_new_link([&](Key source, Key link) {
      const int64_t at =
          __atomic_fetch_add(&incoming_start_[slot_of(link) + 1], int64_t{1}, __ATOMIC_RELAXED);
      incoming_[at] = (link >> 32 << 32) | source;
    });
  }

  // body(source, key of the target), on all threads.
  template <class Body>
  ec_status each_new_link(const Body& body) const {
    const int64_t count = graph_.count_new();
    return parallel_for((count + kTaskRows - 1) / kTaskRows, options_.threads, options_.monitor,
                        [&](int64_t task, int /*worker*/) {
                          const int64_t end = std::min(count, (task + 1) * kTaskRows);
                          for (int64_t i = task * kTaskRows; i < end; ++i) {
                            const Key* list = lists_.of(i);
                            for (int64_t e = 0; e < lists_.count[i]; ++e)
                              body(static_cast<Key>(graph_.first_new + i), list[e]);
                          }
                        });
  }

  ec_status merge_incoming() {
    const int64_t tasks = (rows_.rows + kTaskRows - 1) / kTaskRows;
    return parallel_for(tasks, options_.threads, options_.monitor, [&](int64_t task, int worker) {
      const int64_t end = std::min(rows_.rows, (task + 1) * kTaskRows);
      for (int64_t i = task * kTaskRows; i < end; ++i) {
        if (i >= graph_.first_new || incoming_start_[i + 1] > incoming_start_[i])
          merge_row(i, scratch_[worker]);
      }
    });
  }

  void merge_row(int64_t row, LinkScratch& mine) {
    Key* keys = mine.keys.data();
    const int64_t own = own_links(static_cast<uint32_t>(row), mine);
    Key* others = incoming_.data() + incoming_start_[row];
    int64_t count = incoming_start_[row + 1] - incoming_start_[row];
    if (count > kMostIncoming) {
      std::nth_element(others, others + kMostIncoming, others + count);
      count = kMostIncoming;
    }
    int64_t all = own;
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t source = slot_of(others[i]);
      if (std::none_of(keys, keys + own, [=](Key key) { return slot_of(key) == source; })) {
        keys[all++] = others[i];
      }
    }
    std::sort(keys, keys + all);
    const Key* kept = keys;
    PruneRule rule = rule_;
    rule.degree = graph_.room_of(row, rule_.degree);
    if (all > rule.degree) {
      all = mine.pruner.prune(rows_, keys, all, rule, kernels_, mine.links.data());
      kept = mine.links.data();
    }
    uint32_t* links = links_ + row * rule_.degree;
    for (int64_t i = 0; i < rule_.degree; ++i) links[i] = i < all ? slot_of(kept[i]) : kNoSlot;
  }

  // Into mine.keys: what the row is linked to so far, twins apart. Returns how many.
  int64_t own_links(uint32_t row, LinkScratch& mine) {
    if (row >= graph_.first_new) {
      const int64_t i = row - graph_.first_new;
      std::copy_n(lists_.of(i), lists_.count[i], mine.keys.data());
      return lists_.count[i];
    }
    uint32_t* links = links_ + static_cast<int64_t>(row) * rule_.degree;
    const uint32_t* last = std::remove_if(links, links + rule_.degree, [&](uint32_t slot) {
      return slot == kNoSlot || graph_.is_twin(slot);
    });
    const int64_t count = last - links;
    return count == 0 ? 0 : measure(row, links, count, mine.keys.data(), mine);
  }

  const GraphRows& graph_;
  const CodedRows& rows_;
  const BuildOptions& options_;
  const NeighbourEffort& effort_;
  uint32_t* links_;
  const GraphKernels& kernels_;
  PruneRule rule_;
  NeighbourLists lists_;
  std::vector<LinkScratch> scratch_;
  std::vector<int64_t> incoming_start_;  // rows + 2; the last is of no use
  AlignedBuffer<Key> incoming_;          // distance and source, by target
};

ec_status link_rows(const CodedRows& rows, int64_t first_new, const Cells& cells,
                    const BuildOptions& options, const NeighbourEffort& effort, const PruneRule& rule,
                    uint32_t* links) {
  Twins twins;
  ec_status status = find_twins(rows, options, &twins);
  if (status != EC_OK) return status;
  const GraphRows graph = {rows, twins, first_new};
  status = Linker(graph, options, effort, rule, links).run(cells);
  if (status != EC_OK) return status;
  status = connect(graph, cells, options, links);
  if (status == EC_OK) link_twins(twins, options.degree, links);
  return status;
}

}  // namespace

ec_status make_graph(const CodedRows& rows, const Cells& cells, const BuildOptions& options,
                     uint32_t* links) {
  try {
    return link_rows(rows, 0, cells, options, NeighbourEffort(), PruneRule(), links);
  } catch (const std::bad_alloc&) {
    return EC_OUT_OF_MEMORY;
  }
}

ec_status insert_rows(const CodedRows& rows, int64_t first_new, const BuildOptions& options, Cells* cells,
                      uint32_t* links) {
  try {
    const ec_status status = cells->cells() == 0 ? make_cells(rows, options, cells)
                                                 : join_cells(rows, first_new, options, cells);
    if (status != EC_OK) return status;
    return link_rows(rows, first_new, *cells, options, NeighbourEffort(), PruneRule(), links);
  } catch (const std::bad_alloc&) {
    return EC_OUT_OF_MEMORY;
  }
}

}  // namespace ann
}  // namespace ec
