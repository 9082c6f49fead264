// SPDX-License-Identifier: Apache-2.0
// Blocks of rows against blocks of panels. Every pair of a block goes through three steps while it is in
// cache: the product (product.h), the pairs whose product lost their distance, and the sums.
#include "depth/pairwise_run.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/isa_table.h"
#include "core/parallel.h"
#include "depth/exact_pairs.h"
#include "depth/fixed_sums.h"
#include "depth/packed_pair.h"
#include "product/product_tiles.h"

EC_IMPORT_TABLES(PairwiseKernels, pairwise)

namespace ec {

namespace {

constexpr int64_t kBlockBytes = 512 * 1024;  // of packed rows: they stay in the second cache
constexpr int64_t kMaxBlockPanels = 8;
constexpr int64_t kBatchPanels = 4;     // of columns, where products are made in several depths
constexpr int64_t kChunkPanels = 64;    // columns of one task; float sums are emptied at its end
constexpr int64_t kDepthOfBlock = 512;  // word groups multiplied at a time: a panel of that depth is cached

struct Scratch {
  float* c;               // [batch panels][block rows][panel_rows]; of tiles, [panel_rows][panel_rows]
  uint32_t* turned;       // of tiles: the panels of a block of rows
  float* row_sum;         // [block rows][lanes]
  float* row_dot;         // [block rows][lanes]
  float* column_sum;      // [panel_rows], of one panel of rows
  float* column_dot;      // [panel_rows], right behind
  float* rows;            // of ExactPairs
  double* column_totals;  // [2][panel_rows], of column_sum and column_dot
};

class PairwiseRun {
 public:
  PairwiseRun(const PairwiseProblem& problem, const RunOptions& run, FirstFault* x_fault,
              FirstFault* corpus_fault)
      : problem_(problem),
        run_(run),
        product_(*product_kernels(run.isa)),
        kernels_(*pairwise_kernels(run.isa)),
        symmetric_(problem.corpus == nullptr),
        corrected_(problem.precision != Precision::kFloat32),
        tiles_(corrected_ ? product_tiles_kernels(run.isa) : nullptr),
        x_fault_(*x_fault),
        corpus_fault_(*corpus_fault),
        packed_(*problem.x, problem.corpus, problem.parts) {}

  ec_status execute(double* distance_sums, double* cosine_sums) {
    ec_status status = prepare();
    if (status != EC_OK || corpus_fault_.any() || x_fault_.any()) return status;
    plan();
    const int workers = worker_count(tasks_, run_.threads);
    if (!allocate_scratch(workers)) return EC_OUT_OF_MEMORY;
    status = parallel_for(tasks_, run_.threads, run_.monitor,
                          [&](int64_t task, int worker) { run_task(task, scratch_of(worker)); });
    if (status != EC_OK) return status;
    distances_.read(problem_.metric == PairMetric::kL2 ? 1.0 / packed_.origin().scale() : 1.0,
                    distance_sums);
    if (corrected_) cosines_.read(1.0, cosine_sums);
    return EC_OK;
  }

 private:
  ec_status prepare() {
    const Packing packing = problem_.metric == PairMetric::kL2 ? Packing::kShifted : Packing::kUnit;
    const ec_status status = packed_.pack(packing, problem_.precision, run_, &x_fault_, &corpus_fault_);
    if (status != EC_OK || corpus_fault_.any() || x_fault_.any()) return status;
    return start_sums();
  }

  ec_status start_sums() {
    double weight_total = 0.0;
    for (int64_t slot = 0; slot < packed_.corpus_order().slots; ++slot)
      weight_total += static_cast<double>(packed_.corpus_panels().weight.data()[slot]);
    double bound = pair_bound(problem_.metric);
    if (problem_.metric == PairMetric::kL2)
      bound = largest_norm(packed_.corpus_panels(), packed_.corpus_order()) +
              largest_norm(packed_.x_panels(), packed_.x_order());
    const int64_t groups = packed_.corpus_order().groups;
    if (!distances_.start(problem_.x->rows(), groups, bound * weight_total)) return EC_OUT_OF_MEMORY;
    if (corrected_ && !cosines_.start(problem_.x->rows(), groups, weight_total)) return EC_OUT_OF_MEMORY;
    return EC_OK;
  }

  static double largest_norm(const Panels& panels, const SlotOrder& order) {
    float largest = 0.0f;
    for (int64_t slot = 0; slot < order.slots; ++slot)
      largest = std::fmax(largest, panels.squared_norm.data()[slot]);
    return std::sqrt(static_cast<double>(largest));
  }

  void plan() {
    const int64_t groups = packed_.corpus_panels().word_groups;
    const bool whole = problem_.precision == Precision::kInt8 || tiles_ != nullptr;
    depth_of_block_ = whole ? groups : std::min(groups, kDepthOfBlock);
    const int64_t panel_bytes = depth_of_block_ * product_.panel_rows * 4;
    block_panels_ = std::clamp(kBlockBytes / panel_bytes, int64_t{1},
                               std::min(kMaxBlockPanels, packed_.x_order().panels));
    batch_panels_ = depth_of_block_ < groups ? kBatchPanels : 1;
    blocks_ = (packed_.x_order().panels + block_panels_ - 1) / block_panels_;
    chunks_ = (packed_.corpus_order().panels + kChunkPanels - 1) / kChunkPanels;
    tasks_ = blocks_ * chunks_;
  }

  bool allocate_scratch(int workers) {
    const int64_t block_rows = block_panels_ * product_.panel_rows;
    scratch_each_ = batch_panels_ * block_rows * product_.panel_rows + 2 * block_rows * product_.lanes +
                    2 * product_.panel_rows + ExactPairs::scratch_floats(packed_.corpus().columns());
    scratch_each_ = round_up(scratch_each_, 16);
    return scratch_.allocate(workers * scratch_each_) &&
           column_totals_.allocate(workers * 2 * product_.panel_rows) &&
           turned_.allocate(tiles_ == nullptr ? 0 : workers * block_panels_ * turned_words());
  }

  Scratch scratch_of(int worker) {
    const int64_t block_rows = block_panels_ * product_.panel_rows;
    Scratch s;
    s.c = scratch_.data() + worker * scratch_each_;
    s.row_sum = s.c + batch_panels_ * block_rows * product_.panel_rows;
    s.row_dot = s.row_sum + block_rows * product_.lanes;
    s.column_sum = s.row_dot + block_rows * product_.lanes;
    s.column_dot = s.column_sum + product_.panel_rows;
    s.rows = s.column_dot + product_.panel_rows;
    s.column_totals = column_totals_.data() + worker * 2 * product_.panel_rows;
    s.turned = turned_.data() + worker * block_panels_ * turned_words();
    return s;
  }

  void run_task(int64_t task, const Scratch& s) {
    const int64_t first_row_panel = task / chunks_ * block_panels_;
    const int64_t last_row_panel = std::min(first_row_panel + block_panels_, packed_.x_order().panels);
    int64_t column_panel = task % chunks_ * kChunkPanels;
    const int64_t end = std::min(column_panel + kChunkPanels, packed_.corpus_order().panels);
    // In the symmetric case only pairs with row slot < column slot are taken.
    if (symmetric_ && column_panel < first_row_panel) column_panel = first_row_panel;
    if (column_panel >= end) return;
    clear_rows(s);
    if (tiles_ != nullptr)
      for (int64_t panel = first_row_panel; panel < last_row_panel; ++panel)
        tiles_->turn_panel(packed_.x_panels().panel(panel), packed_.x_panels().word_groups,
                           s.turned + (panel - first_row_panel) * turned_words());
    while (column_panel < end) {
      const int32_t group = column_group(column_panel);
      int64_t next = column_panel + 1;
      while (next < end && next < column_panel + batch_panels_ && column_group(next) == group) ++next;
      run_panels(first_row_panel, last_row_panel, column_panel, next, s);
      column_panel = next;
      if (next == end || column_group(next) != group) empty_rows(first_row_panel, last_row_panel, group, s);
    }
  }

  // A batch of column panels against a block of rows. Where the columns take several products, the
  // packed rows of one depth serve the whole batch before the next depth is read. A tile is reduced right
  // after its last product, while it is in the first cache.
  void run_panels(int64_t first, int64_t last, int64_t column_begin, int64_t column_end, const Scratch& s) {
    const int64_t groups = packed_.corpus_panels().word_groups;
    for (int64_t k = 0; k < groups; k += depth_of_block_) {
      const int64_t count = std::min(depth_of_block_, groups - k);
      for (int64_t column_panel = column_begin; column_panel < column_end; ++column_panel)
        run_panel(first, last, column_panel, column_panel - column_begin, k, count, s);
    }
  }

  // Word groups [k, k + count) of one column panel.
  void run_panel(int64_t first, int64_t last, int64_t column_panel, int64_t in_batch, int64_t k,
                 int64_t count, const Scratch& s) {
    const int width = product_.panel_rows;
    const bool ends = k + count == packed_.corpus_panels().word_groups;
    if (symmetric_ && last > column_panel + 1) last = column_panel + 1;
    for (int64_t panel = first; panel < last; ++panel) {
      if (tiles_ != nullptr)
        multiply_panels(panel, s.turned + (panel - first) * turned_words(), column_panel, s.c);
      for (int r = 0; r < width && packed_.x_order().row.data()[panel * width + r] >= 0;
           r += product_.tile_rows) {  // padding comes last
        const int64_t row_in_block = (panel - first) * width + r;
        // Where one product has all the columns, tiles share their place.
        const int64_t row_in_c = (in_batch * block_panels_ + panel - first) * width + r;
        float* c = s.c + (tiles_ != nullptr ? r : ends && k == 0 ? 0 : row_in_c) * width;
        fetch_ahead(column_panel + 1, k, count, row_in_block, (last - first) * width);
        if (tiles_ == nullptr) multiply_tile(panel * width + r, column_panel, k, count, c);
        if (ends) reduce_tile(panel * width + r, row_in_block, column_panel * width, c, s);
      }
      if (!ends || !symmetric_) continue;
      gather_columns(s);
      if (panel + 1 == last || row_group(panel + 1) != row_group(panel))
        empty_columns(column_panel, row_group(panel), s);
    }
  }

  // Asks for the part of the next column panel that falls to this tile, out of rows in the block, so that
  // the panel has come to the second cache when its turn comes.
  void fetch_ahead(int64_t column_panel, int64_t k, int64_t count, int64_t row_in_block,
                   int64_t rows) const {
    if (column_panel >= packed_.corpus_order().panels) return;
    const int width = product_.panel_rows;
    const auto* words =
        reinterpret_cast<const char*>(packed_.corpus_panels().panel(column_panel) + k * width);
    const int64_t bytes = count * width * 4;
    const int64_t end = bytes * (row_in_block + product_.tile_rows) / rows;
    for (int64_t at = bytes * row_in_block / rows; at < end; at += 64) __builtin_prefetch(words + at, 0, 2);
  }

  int64_t turned_words() const {
    return product_.panel_rows * round_up(packed_.x_panels().word_groups, kTurnedGroups);
  }

  // The products of two panels, by tiles.
  void multiply_panels(int64_t row_panel, const uint32_t* turned, int64_t column_panel, float* c) const {
    const Panels& columns = packed_.corpus_panels();
    const int width = product_.panel_rows;
    const ProductScales scales = {packed_.x_panels().scale.data() + row_panel * width,
                                  columns.scale.data() + column_panel * width, nullptr};
    const auto product =
        problem_.precision == Precision::kInt8 ? tiles_->product_int8 : tiles_->product_bfloat;
    product(turned, columns.panel(column_panel), columns.word_groups, scales, c);
  }

  // Adds word groups [k, k + count) of a tile's products.
  void multiply_tile(int64_t row_slot, int64_t column_panel, int64_t k, int64_t count, float* c) const {
    const int width = product_.panel_rows;
    const uint32_t* a = packed_.x_panels().panel(row_slot / width) + k * width + row_slot % width;
    const uint32_t* b = packed_.corpus_panels().panel(column_panel) + k * width;
    if (problem_.precision == Precision::kFloat32)
      product_.product_float(a, b, count, k > 0, c);
    else
      multiply_rounded(a, b, count, k, row_slot, column_panel * width, c);
  }

  void multiply_rounded(const uint32_t* a, const uint32_t* b, int64_t count, int64_t k, int64_t row_slot,
                        int64_t column_slot, float* c) const {
    const Panels& columns = packed_.corpus_panels();
    ProductScales scales = {packed_.x_panels().scale.data() + row_slot, columns.scale.data() + column_slot,
                            nullptr};
    if (problem_.precision == Precision::kInt8) {
      scales.column_bias = columns.bias.data() + column_slot;
      product_.product_int8(a, b, count, scales, c);
      return;
    }
    const bool ends = k + count == columns.word_groups;
    product_.product_bfloat(a, b, count, k > 0, ends ? &scales : nullptr, c);
  }

  int32_t column_group(int64_t panel) const { return packed_.corpus_order().group.data()[panel]; }
  int32_t row_group(int64_t panel) const { return packed_.x_order().group.data()[panel]; }

  void reduce_tile(int64_t row_slot, int64_t row_in_block, int64_t column_slot, const float* c,
                   const Scratch& s) {
    PairTile tile;
    tile.c = c;
    tile.row_norm = tile.column_norm = nullptr;
    if (problem_.metric == PairMetric::kL2) {
      tile.row_norm = packed_.x_panels().squared_norm.data() + row_slot;
      tile.column_norm = packed_.corpus_panels().squared_norm.data() + column_slot;
    }
    tile.row_weight = packed_.x_panels().weight.data() + row_slot;
    tile.column_weight = packed_.corpus_panels().weight.data() + column_slot;
    tile.row_sum = s.row_sum + row_in_block * product_.lanes;
    tile.row_dot = s.row_dot + row_in_block * product_.lanes;
    tile.column_sum = s.column_sum;
    tile.column_dot = s.column_dot;
    uint64_t skip[8] = {};
    const bool skipping = skip_pairs(tile, row_slot, column_slot, s, skip);
    tile.skip = skipping ? skip : nullptr;
    kernels_.reduce[static_cast<int>(problem_.metric)][symmetric_][corrected_][skipping](tile);
  }

  // Sums the near pairs of a tile exactly; sets their bits, and those of pairs that are not to be taken.
  bool skip_pairs(const PairTile& tile, int64_t row_slot, int64_t column_slot, const Scratch& s,
                  uint64_t* skip) {
    const float limit = near_limit(problem_.metric, problem_.precision);
    const bool near = problem_.metric == PairMetric::kL2
                          ? kernels_.near_l2(tile.c, tile.row_norm, tile.column_norm, limit, skip)
                          : kernels_.near_unit(tile.c, limit, skip);
    const bool diagonal = symmetric_ && column_slot < row_slot + product_.tile_rows;
    if (!near && !diagonal) return false;
    for (int r = 0; r < product_.tile_rows; ++r) {
      uint64_t not_taken = 0;  // columns up to the row itself
      if (diagonal && row_slot + r >= column_slot) {
        const int64_t count = row_slot + r - column_slot + 1;
        not_taken = count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
      }
      const uint64_t exact = near ? skip[r] & ~not_taken : 0;
      if (exact != 0) sum_exactly(row_slot + r, column_slot, exact, tile.c + r * product_.panel_rows, s);
      skip[r] = (near ? skip[r] : 0) | not_taken;
    }
    return true;
  }

  void sum_exactly(int64_t row_slot, int64_t column_slot, uint64_t columns, const float* c,
                   const Scratch& s) {
    const int64_t row = packed_.x_order().row.data()[row_slot];
    if (row < 0) return;
    ExactPairs pairs(packed_, problem_.metric, *row_kernels(run_.isa), s.rows);
    pairs.set_row(row);
    for (; columns != 0; columns &= columns - 1) {
      const int lane = __builtin_ctzll(columns);
      const int64_t slot = column_slot + lane;
      const int64_t other = packed_.corpus_order().row.data()[slot];
      if (other < 0) continue;
      const ExactPair pair = pairs.distance_to(other, c[lane]);
      add_pair(row, slot / product_.panel_rows, packed_.corpus_panels().weight.data()[slot], pair);
      if (symmetric_)
        add_pair(other, row_slot / product_.panel_rows, packed_.corpus_panels().weight.data()[row_slot],
                 pair);
    }
  }

  void add_pair(int64_t row, int64_t group_panel, float weight, const ExactPair& pair) {
    const int32_t group = packed_.corpus_order().group.data()[group_panel];
    distances_.add(row, group, static_cast<double>(weight) * pair.distance);
    if (corrected_) cosines_.add(row, group, static_cast<double>(weight) * pair.cosine);
  }

  void clear_rows(const Scratch& s) const {
    const int64_t count =
        2 * block_panels_ * product_.panel_rows * product_.lanes + 2 * product_.panel_rows;
    std::memset(s.row_sum, 0, static_cast<size_t>(count) * sizeof(float));  // and what follows it
    std::fill_n(s.column_totals, 2 * product_.panel_rows, 0.0);
  }

  void empty_rows(int64_t first, int64_t last, int32_t group, const Scratch& s) {
    const int width = product_.panel_rows, lanes = product_.lanes;
    for (int64_t slot = first * width; slot < last * width; ++slot) {
      const int64_t row = packed_.x_order().row.data()[slot];
      if (row < 0) continue;
      const int64_t at = (slot - first * width) * lanes;
      distances_.add(row, group, take_lanes(s.row_sum + at, lanes));
      if (corrected_) cosines_.add(row, group, take_lanes(s.row_dot + at, lanes));
    }
  }

  // A column has one float sum for all rows of a panel: emptied before more rows cost digits.
  void gather_columns(const Scratch& s) const {
    for (int i = 0; i < 2 * product_.panel_rows; ++i) {
      s.column_totals[i] += static_cast<double>(s.column_sum[i]);
      s.column_sum[i] = 0.0f;
    }
  }

  void empty_columns(int64_t column_panel, int32_t group, const Scratch& s) {
    const int width = product_.panel_rows;
    for (int lane = 0; lane < width; ++lane) {
      const int64_t row = packed_.corpus_order().row.data()[column_panel * width + lane];
      const double distance = std::exchange(s.column_totals[lane], 0.0);  // padding is emptied too
      const double cosine = std::exchange(s.column_totals[width + lane], 0.0);
      if (row < 0) continue;
      distances_.add(row, group, distance);
      if (corrected_) cosines_.add(row, group, cosine);
    }
  }

  // Requires: count is a multiple of 4.
  static double take_lanes(float* lanes, int count) {
    double totals[4] = {0.0, 0.0, 0.0, 0.0};
    for (int i = 0; i < count; ++i) totals[i % 4] += static_cast<double>(lanes[i]);
    std::memset(lanes, 0, static_cast<size_t>(count) * sizeof(float));
    return (totals[0] + totals[1]) + (totals[2] + totals[3]);
  }

  const PairwiseProblem& problem_;
  const RunOptions& run_;
  const ProductKernels& product_;
  const PairwiseKernels& kernels_;
  const bool symmetric_, corrected_;
  const ProductTileKernels* tiles_;  // null: products in registers
  FirstFault &x_fault_, &corpus_fault_;
  PackedPair packed_;
  FixedSums distances_, cosines_;
  int64_t depth_of_block_ = 1, batch_panels_ = 1;
  int64_t block_panels_ = 0, blocks_ = 0, chunks_ = 0, tasks_ = 0, scratch_each_ = 0;
  AlignedBuffer<float> scratch_;
  AlignedBuffer<double> column_totals_;
  AlignedBuffer<uint32_t> turned_;
};

}  // namespace

// A float32 c is off by about 2e-7, a bf16 or int8 one by far more, and the slope of chord and arc is
// 1 / chord.
float near_limit(PairMetric metric, Precision precision) {
  if (metric == PairMetric::kL2) return 1.0f - 1.0f / 128.0f;
  if (precision == Precision::kFloat32) return 1.0f - 1.0f / 512.0f;
  return precision == Precision::kBFloat16 ? 0.90f : 0.85f;
}

ec_status sum_distances(const PairwiseProblem& problem, const RunOptions& run, double* distance_sums,
                        double* cosine_sums, FirstFault* x_fault, FirstFault* corpus_fault) {
  PairwiseRun pairwise(problem, run, x_fault, corpus_fault);
  return pairwise.execute(distance_sums, cosine_sums);
}

}  // namespace ec
