// SPDX-License-Identifier: Apache-2.0
#include "depth/spatial.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/isa_table.h"
#include "core/parallel.h"
#include "depth/exact_pairs.h"
#include "depth/packed_pair.h"
#include "depth/pairwise.h"
#include "depth/pairwise_run.h"

EC_IMPORT_TABLES(SpatialKernels, spatial)

namespace ec {

namespace {

constexpr int64_t kBlockBytes = 384 * 1024;  // of sums, and of the corpus rows added to them at a time
constexpr int64_t kMaxBlockPanels = 8;
constexpr int64_t kRowsPerFloatSum = 4096;
constexpr int64_t kDepthOfBlock = 256;  // word groups multiplied at a time

struct Scratch {
  float* weights;      // [chunk slots][panel_rows]: products, then w, of one panel of scored rows
  float* sums;         // [block panels][column panels][panel_rows][panel_rows]: sum of w_j X_j
  float* weight_sums;  // [block rows]
  float* rows;         // of ExactPairs
  double* totals;      // of sums and weight_sums, emptied into these before they lose digits
};

class SpatialRun {
 public:
  SpatialRun(const SpatialProblem& problem, const RunOptions& run, SpatialResult result, double* to,
             FirstFault* x_fault, FirstFault* corpus_fault)
      : problem_(problem),
        run_(run),
        result_(result),
        to_(to),
        product_(*product_kernels(run.isa)),
        pairwise_(*pairwise_kernels(run.isa)),
        kernels_(*spatial_kernels(run.isa)),
        row_kernels_(*row_kernels(run.isa)),
        x_fault_(*x_fault),
        corpus_fault_(*corpus_fault),
        width_(product_.panel_rows),
        columns_(problem.x->columns()),
        column_panels_((columns_ + width_ - 1) / width_),
        packed_(*problem.x, problem.corpus, problem.parts) {}

  ec_status execute() {
    ec_status status = prepare();
    if (status != EC_OK || corpus_fault_.any() || x_fault_.any()) return status;
    const int64_t panel_bytes = column_panels_ * width_ * width_ * 4;
    block_panels_ = std::clamp(kBlockBytes / panel_bytes, int64_t{1},
                               std::min(kMaxBlockPanels, packed_.x_order().panels));
    chunk_panels_ = std::clamp(kBlockBytes / panel_bytes, int64_t{1}, kMaxBlockPanels);
    const int64_t tasks = (packed_.x_order().panels + block_panels_ - 1) / block_panels_;
    if (!allocate_scratch(worker_count(tasks, run_.threads))) return EC_OUT_OF_MEMORY;
    return parallel_for(tasks, run_.threads, run_.monitor, [&](int64_t task, int worker) {
      const int64_t first = task * block_panels_;
      run_block(first, std::min(first + block_panels_, packed_.x_order().panels), scratch_of(worker));
    });
  }

 private:
  ec_status prepare() {
    const ec_status status =
        packed_.pack(Packing::kShifted, Precision::kFloat32, run_, &x_fault_, &corpus_fault_);
    if (status != EC_OK || corpus_fault_.any() || x_fault_.any()) return status;
    return pack_columns();
  }

  // The corpus once more, as the right factor of the second product: [column panel][slot][width].
  ec_status pack_columns() {
    int64_t count = 0;
    if (!multiply_sizes(packed_.corpus_order().slots, column_panels_ * width_, &count) ||
        !column_words_.allocate(count))
      return EC_OUT_OF_MEMORY;
    return parallel_for(packed_.corpus_order().panels, run_.threads, run_.monitor, [&](int64_t panel, int) {
      const uint32_t* from = packed_.corpus_panels().panel(panel);  // [column][slot]
      if (columns_ % width_ != 0)
        std::memset(column_words(column_panels_ - 1, panel), 0,
                    static_cast<size_t>(width_ * width_) * sizeof(uint32_t));
      for (int64_t column = 0; column < columns_; ++column) {
        uint32_t* column_to = column_words(column / width_, panel) + column % width_;
        for (int64_t slot = 0; slot < width_; ++slot)
          column_to[slot * width_] = from[column * width_ + slot];
      }
    });
  }

  uint32_t* column_words(int64_t column_panel, int64_t panel) {
    return column_words_.data() + (column_panel * packed_.corpus_order().slots + panel * width_) * width_;
  }

  int64_t sums_per_panel() const { return column_panels_ * width_ * width_; }
  int64_t sums_per_block() const { return block_panels_ * (sums_per_panel() + width_); }

  bool allocate_scratch(int workers) {
    const int64_t count =
        chunk_panels_ * width_ * width_ + sums_per_block() + ExactPairs::scratch_floats(columns_);
    scratch_each_ = round_up(count, 16);
    return scratch_.allocate(workers * scratch_each_) && totals_.allocate(workers * sums_per_block());
  }

  Scratch scratch_of(int worker) {
    Scratch s;
    s.weights = scratch_.data() + worker * scratch_each_;
    s.sums = s.weights + chunk_panels_ * width_ * width_;
    s.weight_sums = s.sums + block_panels_ * sums_per_panel();
    s.rows = s.weight_sums + block_panels_ * width_;
    s.totals = totals_.data() + worker * sums_per_block();
    return s;
  }

  void run_block(int64_t first, int64_t last, const Scratch& s) {
    const SlotOrder& order = packed_.corpus_order();
    clear(s);
    int64_t emptied = 0;
    for (int64_t chunk = 0; chunk < order.panels;) {
      const int32_t group = order.group.data()[chunk];
      int64_t end = chunk + 1;
      while (end < order.panels && end < chunk + chunk_panels_ && order.group.data()[end] == group) ++end;
      for (int64_t panel = first; panel < last; ++panel) add_chunk(panel, panel - first, chunk, end, s);
      chunk = end;
      const bool group_ends = chunk == order.panels || order.group.data()[chunk] != group;
      if (group_ends || (chunk - emptied) * width_ >= kRowsPerFloatSum) {
        empty(s);
        emptied = chunk;
      }
      if (!group_ends) continue;
      finish(first, last, group, s);
      clear(s);
    }
  }

  void clear(const Scratch& s) const {
    std::memset(s.sums, 0, static_cast<size_t>(sums_per_block()) * sizeof(float));
    std::memset(s.totals, 0, static_cast<size_t>(sums_per_block()) * sizeof(double));
  }

  // The weight sums lie behind the sums, in both.
  void empty(const Scratch& s) const {
    for (int64_t i = 0; i < sums_per_block(); ++i) {
      s.totals[i] += static_cast<double>(s.sums[i]);
      s.sums[i] = 0.0f;
    }
  }

  // Adds corpus panels [begin, end) to the sums of one panel of scored rows.
  void add_chunk(int64_t panel, int64_t in_block, int64_t begin, int64_t end, const Scratch& s) {
    const int tile_rows = product_.tile_rows;
    for (int64_t corpus_panel = begin; corpus_panel < end; ++corpus_panel) {
      multiply_rows(panel, corpus_panel, s.weights + (corpus_panel - begin) * width_ * width_);
      for (int64_t r = 0; r < width_; r += tile_rows)
        weigh(panel, in_block, corpus_panel * width_ + r,
              s.weights + ((corpus_panel - begin) * width_ + r) * width_, s);
    }
    const auto* w = reinterpret_cast<const uint32_t*>(s.weights);
    for (int64_t column = 0; column < column_panels_; ++column)
      for (int64_t r = 0; r < width_; r += tile_rows)
        product_.product_float(w + r, column_words(column, begin), (end - begin) * width_, true,
                               sums_tile(in_block, column, r, s));
  }

  float* sums_tile(int64_t in_block, int64_t column_panel, int64_t row, const Scratch& s) const {
    return s.sums + in_block * sums_per_panel() + (column_panel * width_ + row) * width_;
  }

  // c[slot of the corpus panel][row of the scored panel]
  void multiply_rows(int64_t panel, int64_t corpus_panel, float* c) const {
    const int64_t groups = packed_.corpus_panels().word_groups;
    for (int64_t k = 0; k < groups; k += kDepthOfBlock) {
      const int64_t count = std::min(kDepthOfBlock, groups - k);
      for (int64_t r = 0; r < width_; r += product_.tile_rows)
        product_.product_float(packed_.corpus_panels().panel(corpus_panel) + k * width_ + r,
                               packed_.x_panels().panel(panel) + k * width_, count, k > 0, c + r * width_);
    }
  }

  void weigh(int64_t panel, int64_t in_block, int64_t corpus_slot, float* c, const Scratch& s) {
    SpatialTile tile;
    tile.c = c;
    tile.row_norm = packed_.corpus_panels().squared_norm.data() + corpus_slot;
    tile.row_weight = packed_.corpus_panels().weight.data() + corpus_slot;
    tile.column_norm = packed_.x_panels().squared_norm.data() + panel * width_;
    tile.weight_sum = s.weight_sums + in_block * width_;
    uint64_t near[8];
    const float limit = near_limit(PairMetric::kL2, Precision::kFloat32);
    tile.skip = pairwise_.near_l2(c, tile.row_norm, tile.column_norm, limit, near) ? near : nullptr;
    for (int r = 0; tile.skip != nullptr && r < product_.tile_rows; ++r)
      for (uint64_t left = near[r]; left != 0; left &= left - 1)
        add_exactly(panel, in_block, __builtin_ctzll(left), corpus_slot + r, s);
    kernels_.weigh(tile);
  }

  // Adds the unit difference of a near pair, taken from the rows, to the sums (with the sign of w_j X_j).
  void add_exactly(int64_t panel, int64_t in_block, int lane, int64_t corpus_slot, const Scratch& s) {
    const int64_t row = packed_.x_order().row.data()[panel * width_ + lane];
    const int64_t other = packed_.corpus_order().row.data()[corpus_slot];
    if (row < 0 || other < 0 || (packed_.self() && row == other)) return;
    ExactPairs pairs(packed_, PairMetric::kL2, row_kernels_, s.rows);
    pairs.set_row(row);
    const RowDifference difference = pairs.difference_to(other);
    if (difference.value_length == 0.0) return;
    const double weight = static_cast<double>(packed_.corpus_panels().weight.data()[corpus_slot]);
    const auto w = static_cast<float>(weight / difference.value_length);
    for (int64_t panel_column = 0; panel_column < column_panels_; ++panel_column) {
      const int64_t first = panel_column * width_;
      row_kernels_.add_scaled(difference.values + first, w, std::min(width_, columns_ - first),
                              sums_tile(in_block, panel_column, lane, s));
    }
  }

  void finish(int64_t first, int64_t last, int32_t group, const Scratch& s) {
    const RowTransform transform = packed_.origin().transform();
    for (int64_t slot = first * width_; slot < last * width_; ++slot) {
      const int64_t row = packed_.x_order().row.data()[slot];
      if (row < 0) continue;
      const int64_t in_block = slot / width_ - first;
      problem_.x->as_shifted(row, transform.center, transform.center_float, transform.scale, s.rows);
      const double* weight_sums = s.totals + block_panels_ * sums_per_panel();
      const double weight_sum = weight_sums[slot - first * width_];
      double squares = 0.0;
      for (int64_t i = 0; i < columns_; ++i) {
        const int64_t at = sums_tile(in_block, i / width_, slot % width_, s) - s.sums + i % width_;
        const double value = static_cast<double>(s.rows[i]) * weight_sum - s.totals[at];
        squares += value * value;
        if (result_ == SpatialResult::kVector)
          to_[(row * problem_.parts.groups + group) * columns_ + i] = value;
      }
      if (result_ == SpatialResult::kLength) to_[row * problem_.parts.groups + group] = std::sqrt(squares);
    }
  }

  const SpatialProblem& problem_;
  const RunOptions& run_;
  const SpatialResult result_;
  double* const to_;
  const ProductKernels& product_;
  const PairwiseKernels& pairwise_;
  const SpatialKernels& kernels_;
  const RowKernels& row_kernels_;
  FirstFault &x_fault_, &corpus_fault_;
  const int64_t width_, columns_, column_panels_;
  PackedPair packed_;
  AlignedBuffer<uint32_t> column_words_;
  int64_t block_panels_ = 1, chunk_panels_ = 1, scratch_each_ = 0;
  AlignedBuffer<float> scratch_;
  AlignedBuffer<double> totals_;
};

}  // namespace

ec_status sum_unit_differences(const SpatialProblem& problem, const RunOptions& run, SpatialResult result,
                               double* to, FirstFault* x_fault, FirstFault* corpus_fault) {
  return SpatialRun(problem, run, result, to, x_fault, corpus_fault).execute();
}

}  // namespace ec
