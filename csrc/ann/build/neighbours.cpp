// SPDX-License-Identifier: Apache-2.0
#include "ann/build/neighbours.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "ann/build/head_panels.h"
#include "ann/build/k_means.h"
#include "ann/build/random.h"
#include "core/parallel.h"

namespace ec {
namespace ann {

namespace {

constexpr int64_t kRoom = 2;  // keys of a row are thinned out when there are this many times those wanted
constexpr float kNoLimit = std::numeric_limits<float>::max();

// The cell of the lower 32 bits, in the order of values that are not negative.
Key cell_key(float value, int64_t cell) {
  uint32_t bits;
  const float size = std::max(value, 0.0f);
  std::memcpy(&bits, &size, sizeof(bits));
  return (static_cast<Key>(bits) << 32) | static_cast<Key>(cell);
}

// The nearest keys so far of one row.
struct KeyList {
  int64_t count = 0;
  float limit = kNoLimit;
};

// Leaves the `kept` least of the keys, in no order. Returns how many are left.
int64_t keep_least(Key* keys, int64_t count, int64_t kept) {
  if (count <= kept) return count;
  std::nth_element(keys, keys + kept - 1, keys + count);
  return kept;
}

struct ScanScratch {
  AlignedBuffer<float> products;     // [tile_rows][panel_rows]
  AlignedBuffer<float> cell_values;  // [panel_rows][padded cells], then [padded cells]
  AlignedBuffer<Key> keys;           // [panel_rows][room]
  AlignedBuffer<uint32_t> visited;   // [panels]: the task that scanned it, plus one
  std::vector<KeyList> lists;        // [panel_rows]
  std::vector<Key> order;            // cells, nearest first
  LeftBlock left;
  RightBlock right;
  AlignedBuffer<uint32_t> slots;
  AlignedBuffer<float> distances;
};

// Panel by panel of new rows: panels of rows in the nearest cells by their leading numbers alone, the best
// then by whole codes.
class PanelScan {
 public:
  PanelScan(const GraphRows& graph, const Cells& cells, const BuildOptions& options,
            const NeighbourEffort& effort, NeighbourLists* lists)
      : graph_(graph),
        cells_(cells),
        options_(options),
        effort_(effort),
        lists_(*lists),
        kernels_(*graph_kernels(current_isa())),
        product_(*product_kernels(current_isa())),
        norms_(centroid_norms(cells.centroids.data(), cells.cells(), graph.rows.shape)) {}

  ec_status run() {
    ec_status status = pack();
    if (status != EC_OK) return status;
    const int64_t tasks = lefts().panels;
    std::vector<ScanScratch> scratch(worker_count(tasks, options_.threads));
    for (ScanScratch& each : scratch) {
      if (!allocate(&each)) return EC_OUT_OF_MEMORY;
    }
    return parallel_for(tasks, options_.threads, options_.monitor,
                        [&](int64_t task, int worker) { scan(task, scratch[worker]); });
  }

 private:
  const HeadPanels& lefts() const { return graph_.first_new == 0 ? all_ : news_; }

  // All rows but twins in the order of cells, and the new ones on their own.
  ec_status pack() {
    cell_start_.assign(1, 0);
    for (int64_t c = 0; c < cells_.cells(); ++c) {
      for (uint32_t m = cells_.start[c]; m < cells_.start[c + 1]; ++m) {
        const uint32_t slot = cells_.members[m];
        if (graph_.is_twin(slot)) continue;
        all_.slots.push_back(slot);
        if (graph_.first_new > 0 && slot >= graph_.first_new) news_.slots.push_back(slot);
      }
      cell_start_.push_back(all_.count());
      centroids_.slots.push_back(static_cast<uint32_t>(c));
    }
    const int64_t numbers = std::min(graph_.rows.shape.head_numbers(), effort_.numbers);
    CodedRows centroids = graph_.rows;
    centroids.heads = cells_.centroids.data();
    centroids.norms = norms_.data();
    ec_status status = pack_heads(centroids, numbers, options_, product_, &centroids_);
    if (status == EC_OK) status = pack_heads(graph_.rows, numbers, options_, product_, &all_);
    if (status == EC_OK && graph_.first_new > 0) {
      status = pack_heads(graph_.rows, numbers, options_, product_, &news_);
    }
    return status;
  }

  int64_t padded_cells() const { return centroids_.panels * product_.panel_rows; }
  int64_t candidates() const { return whole() ? effort_.kept + 1 : effort_.rescored; }
  // Whether scanning compares whole codes.
  bool whole() const {
    return graph_.rows.shape.tail_bytes == 0 && graph_.rows.shape.head_numbers() <= effort_.numbers;
  }
  int64_t room() const { return kRoom * candidates() + product_.panel_rows; }

  bool allocate(ScanScratch* scratch) {
    scratch->lists.resize(product_.panel_rows);
    scratch->order.reserve(cells_.cells());
    if (!scratch->visited.allocate(all_.panels)) return false;
    std::fill_n(scratch->visited.data(), all_.panels, 0u);
    return scratch->products.allocate(product_.tile_rows * product_.panel_rows) &&
           scratch->cell_values.allocate((product_.panel_rows + 1) * padded_cells()) &&
           scratch->keys.allocate(product_.panel_rows * room()) &&
           scratch->left.allocate(1, graph_.rows.shape) && scratch->right.allocate(room()) &&
           scratch->slots.allocate(room()) && scratch->distances.allocate(round_up(room(), kColumnStep));
  }

  // products of a tile of rows of a panel with another panel.
  void multiply(const HeadPanels& left, int64_t panel, int64_t row, const HeadPanels& right, int64_t other,
                float* products) const {
    const ProductScales scales = {left.scale.data() + panel * product_.panel_rows + row,
                                  right.scale.data() + other * product_.panel_rows,
                                  right.bias.data() + other * product_.panel_rows};
    product_.product_int8(left.panel(panel, product_) + row, right.panel(other, product_), right.groups,
                          scales, products);
  }

  int64_t rows_of(const HeadPanels& panels, int64_t panel) const {
    return std::min<int64_t>(product_.panel_rows, panels.count() - panel * product_.panel_rows);
  }

  void scan(int64_t panel, ScanScratch& mine) const {
    const int64_t rows = rows_of(lefts(), panel);
    rank_cells(panel, rows, mine);
    scan_nearest_cells(panel, rows, mine);
    for (int64_t r = 0; r < rows; ++r) {
      const uint32_t slot = lefts().slots[panel * product_.panel_rows + r];
      finish_row(slot, mine.keys.data() + r * room(), mine.lists[r].count, mine);
      add_farther(slot, mine.cell_values.data() + r * padded_cells(), mine);
    }
  }

  void scan_nearest_cells(int64_t panel, int64_t rows, ScanScratch& mine) const {
    std::fill(mine.lists.begin(), mine.lists.end(), KeyList());
    int64_t scanned = 0;
    for (const Key key : mine.order) {
      const int64_t first = cell_start_[slot_of(key)], last = cell_start_[slot_of(key) + 1];
      if (first == last) continue;
      for (int64_t p = first / product_.panel_rows; p <= (last - 1) / product_.panel_rows; ++p) {
        if (mine.visited[p] == panel + 1) continue;
        mine.visited[p] = static_cast<uint32_t>(panel + 1);
        scan_panel(panel, rows, p, mine);
        scanned += product_.panel_rows;
      }
      if (scanned >= effort_.scanned) break;
    }
  }

  // Cells by how little farther than its nearest cell they are from some row of the panel.
  void rank_cells(int64_t panel, int64_t rows, ScanScratch& mine) const {
    const int64_t stride = padded_cells();
    float* values = mine.cell_values.data();
    for (int64_t row = 0; row < rows; row += product_.tile_rows) {
      for (int64_t c = 0; c < centroids_.panels; ++c) {
        multiply(lefts(), panel, row, centroids_, c, mine.products.data());
        for (int64_t r = 0; r < product_.tile_rows && row + r < rows; ++r) {
          const float* from = mine.products.data() + r * product_.panel_rows;
          const float* norm = centroids_.norm.data() + c * product_.panel_rows;
          float* to = values + (row + r) * stride + c * product_.panel_rows;
          for (int64_t j = 0; j < product_.panel_rows; ++j) to[j] = norm[j] - 2.0f * from[j];
        }
      }
    }
    float* least = values + product_.panel_rows * stride;
    std::fill_n(least, stride, kNoLimit);
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = values + r * stride;
      const float nearest = row[kernels_.nearest(row, centroids_.count())];
      for (int64_t c = 0; c < stride; ++c) least[c] = std::min(least[c], row[c] - nearest);
    }
    mine.order.clear();
    for (int64_t c = 0; c < centroids_.count(); ++c) mine.order.push_back(cell_key(least[c], c));
    std::sort(mine.order.begin(), mine.order.end());
  }

  void scan_panel(int64_t panel, int64_t rows, int64_t other, ScanScratch& mine) const {
    const int64_t base = other * product_.panel_rows;
    const int64_t columns = rows_of(all_, other);
    for (int64_t row = 0; row < rows; row += product_.tile_rows) {
      multiply(lefts(), panel, row, all_, other, mine.products.data());
      for (int64_t r = row; r < std::min<int64_t>(rows, row + product_.tile_rows); ++r) {
        KeyList& list = mine.lists[r];
        Key* keys = mine.keys.data() + r * room();
        list.count += kernels_.collect_products(mine.products.data() + (r - row) * product_.panel_rows,
                                                all_.norm.data() + base, columns,
                                                lefts().norm[panel * product_.panel_rows + r], list.limit,
                                                all_.slots.data() + base, keys + list.count);
        if (list.count < kRoom * candidates()) continue;
        list.count = keep_least(keys, list.count, candidates());
        list.limit = distance_of(keys[candidates() - 1]);
      }
    }
  }

  // Keys by whole codes of the first `count` of mine.slots.
  int64_t measure(uint32_t slot, int64_t count, Key* keys, ScanScratch& mine) const {
    mine.left.load(graph_.rows, &slot, 1, kernels_);
    mine.right.load(graph_.rows, mine.slots.data(), count);
    kernels_.distances(mine.left.codes(), 1, mine.right.codes(0), count, mine.distances.data(), 0);
    return kernels_.collect(mine.distances.data(), count, kNoLimit, mine.slots.data(), keys);
  }

  // The row's list: sorted, by whole codes, without the row itself.
  void finish_row(uint32_t slot, Key* keys, int64_t count, ScanScratch& mine) const {
    count = keep_least(keys, count, candidates());
    if (!whole()) {
      for (int64_t i = 0; i < count; ++i) mine.slots[i] = slot_of(keys[i]);
      count = keep_least(keys, measure(slot, count, keys, mine), effort_.kept + 1);
    }
    store(slot, keys, count);
  }

  void store(uint32_t slot, Key* keys, int64_t count) const {
    std::sort(keys, keys + count);
    Key* list = lists_.of(slot - graph_.first_new);
    int64_t stored = 0;
    for (int64_t i = 0; i < count && stored < effort_.kept; ++i) {
      if (slot_of(keys[i]) != slot) list[stored++] = keys[i];
    }
    lists_.count[slot - graph_.first_new] = static_cast<uint16_t>(stored);
  }

  // Adds a row of each of the cells nearest to a row, chosen at random, to its list.
  void add_farther(uint32_t slot, const float* cell_values, ScanScratch& mine) const {
    const int64_t cells = centroids_.count(), wanted = std::min(effort_.farther, cells);
    const float nearest = cell_values[kernels_.nearest(cell_values, cells)];
    mine.order.clear();
    for (int64_t c = 0; c < cells; ++c) mine.order.push_back(cell_key(cell_values[c] - nearest, c));
    std::partial_sort(mine.order.begin(), mine.order.begin() + wanted, mine.order.end());
    Key* list = lists_.of(slot - graph_.first_new);
    uint16_t& stored = lists_.count[slot - graph_.first_new];
    RandomStream random(options_.seed + slot);
    int64_t count = 0;
    for (int64_t i = 0; i < wanted; ++i) {
      const int64_t first = cell_start_[slot_of(mine.order[i])];
      const int64_t last = cell_start_[slot_of(mine.order[i]) + 1];
      if (first == last) continue;
      const uint32_t other = all_.slots[first + random.below(last - first)];
      const bool known = std::any_of(list, list + stored, [=](Key key) { return slot_of(key) == other; });
      if (other != slot && !known) mine.slots[count++] = other;
    }
    if (count == 0) return;
    std::sort(mine.slots.data(), mine.slots.data() + count);
    stored += measure(slot, count, list + stored, mine);
    std::sort(list, list + stored);
  }

  const GraphRows& graph_;
  const Cells& cells_;
  const BuildOptions& options_;
  const NeighbourEffort& effort_;
  NeighbourLists& lists_;
  const GraphKernels& kernels_;
  const ProductKernels& product_;
  const std::vector<float> norms_;
  HeadPanels all_, news_, centroids_;
  std::vector<int64_t> cell_start_;  // in all_, cells + 1
};

}  // namespace

ec_status find_neighbours(const GraphRows& graph, const Cells& cells, const BuildOptions& options,
                          const NeighbourEffort& effort, NeighbourLists* lists) {
  lists->room = effort.room();
  lists->count.assign(graph.count_new(), 0);
  if (!lists->keys.allocate(graph.count_new() * lists->room)) return EC_OUT_OF_MEMORY;
  return PanelScan(graph, cells, options, effort, lists).run();
}

}  // namespace ann
}  // namespace ec
