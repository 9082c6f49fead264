// SPDX-License-Identifier: Apache-2.0
// A task takes a few directions: it projects all rows on them while the directions stay in cache, then goes
// through the corpora one by one. What it finds is merged into integers (counts, fixed-point weights, bits
// of floats that are not negative), in which no order of merging shows.
#include "depth/projection_run.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/isa_table.h"
#include "core/parallel.h"
#include "depth/packed_pair.h"
#include "depth/projection.h"

EC_IMPORT_TABLES(ProjectionKernels, projection)

namespace ec {

namespace {

constexpr int64_t kTaskBytes = int64_t{32} << 20;  // of projections, unless one tile has more
constexpr int64_t kTaskDirections = 48;
constexpr int64_t kDepthOfBlock = 256;  // columns multiplied at a time: a panel of that depth is cached
constexpr int64_t kMaxBuckets = int64_t{1} << 22;

// Hands out parts of one allocation; with no base it only measures.
class Arena {
 public:
  explicit Arena(char* base) : base_(base) {}
  template <class T>
  T* take(int64_t count) {
    T* part = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += round_up(count * static_cast<int64_t>(sizeof(T)), static_cast<int64_t>(kCacheLineBytes));
    return part;
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

struct Scratch {
  float* projections;  // [panels of the corpus, then of x][directions of the task][panel_rows]
  int64_t* found;      // [x slots], for one group; floats for the projection depth
  float* values;       // [largest group + kOverread]
  float* work;         // the same: deviations, or the values of order
  ProjectionOrder order;
  ProjectionScratch kernel;
};

struct Group {
  int64_t first_panel, end_panel, rows;
  int64_t weight;  // fixed point, or the number of rows
};

class ProjectionRun {
 public:
  ProjectionRun(const ProjectionProblem& problem, const RunOptions& run, FirstFault* x_fault,
                FirstFault* corpus_fault, FirstFault* direction_fault)
      : problem_(problem),
        run_(run),
        product_(*product_kernels(run.isa)),
        kernels_(*projection_kernels(run.isa)),
        x_fault_(*x_fault),
        corpus_fault_(*corpus_fault),
        direction_fault_(*direction_fault),
        packed_(*problem.x, problem.corpus, problem.parts) {}

  ec_status execute(double* depths) {
    ec_status status = prepare();
    if (status != EC_OK || faulty()) return status;
    if (!start_merging() || !find_groups()) return EC_OUT_OF_MEMORY;
    plan();
    if (!allocate_scratch(worker_count(tasks_, run_.threads))) return EC_OUT_OF_MEMORY;
    status = parallel_for(tasks_, run_.threads, run_.monitor,
                          [&](int64_t task, int worker) { run_task(task, scratch_.data()[worker]); });
    if (status == EC_OK) write_depths(depths);
    return status;
  }

 private:
  bool faulty() const { return x_fault_.any() || corpus_fault_.any() || direction_fault_.any(); }

  ec_status prepare() {
    const ec_status status = pack_directions();
    if (status != EC_OK || faulty()) return status;
    return packed_.pack(Packing::kShifted, Precision::kFloat32, run_, &x_fault_, &corpus_fault_);
  }

  ec_status pack_directions() {
    const MatrixRows directions(*problem_.directions, *row_kernels(run_.isa));
    SlotOrder order;
    if (!order.build(directions.rows(), product_.panel_rows)) return EC_OUT_OF_MEMORY;
    return pack_panels(directions, order, nullptr, RowTransform(), Precision::kFloat32, run_.isa,
                       run_.threads, run_.monitor, &direction_panels_, &direction_fault_);
  }

  bool ranks() const { return problem_.metric != EC_DEPTH_PROJECTION; }
  bool averages() const { return problem_.metric == EC_DEPTH_IRW; }
  bool weighted() const { return problem_.parts.weights != nullptr; }
  int64_t direction_count() const { return problem_.directions->rows; }

  bool start_merging() {
    int64_t count = 0;
    if (!multiply_sizes(packed_.x_order().slots, packed_.corpus_order().groups, &count) ||
        !merged_.allocate(count))
      return false;
    const int64_t start = problem_.metric == EC_DEPTH_HALFSPACE ? INT64_MAX : 0;
    std::fill_n(merged_.data(), count, start);
    if (!weighted()) return true;
    if (!fixed_weight_.allocate(packed_.corpus_order().slots)) return false;
    const float* weights = packed_.corpus_panels().weight.data();
    double total = 0.0;
    for (int64_t slot = 0; slot < packed_.corpus_order().slots; ++slot)
      total += static_cast<double>(weights[slot]);
    // Sums over the corpus and, for the mean, over the directions stay below 2^62.
    const int exponent = 60 - std::ilogb(total * static_cast<double>(direction_count()));
    for (int64_t slot = 0; slot < packed_.corpus_order().slots; ++slot)
      fixed_weight_.data()[slot] = std::llrint(std::ldexp(static_cast<double>(weights[slot]), exponent));
    return true;
  }

  bool find_groups() {
    if (!groups_.allocate(packed_.corpus_order().groups)) return false;
    int64_t panel = 0;
    for (int64_t g = 0; g < packed_.corpus_order().groups; ++g) {
      Group& group = groups_.data()[g];
      group = {panel, panel, 0, 0};
      for (; panel < packed_.corpus_order().panels && packed_.corpus_order().group.data()[panel] == g;
           ++panel) {
        for (int64_t slot = panel * product_.panel_rows; slot < (panel + 1) * product_.panel_rows; ++slot) {
          if (packed_.corpus_order().row.data()[slot] < 0) continue;
          ++group.rows;
          group.weight += slot_weight(slot);
        }
      }
      group.end_panel = panel;
      largest_group_ = std::max(largest_group_, group.rows);
    }
    return true;
  }

  int64_t slot_weight(int64_t slot) const { return weighted() ? fixed_weight_.data()[slot] : 1; }

  // Tiles of directions, spread evenly: results do not depend on which directions share a task.
  void plan() {
    const int64_t tile = product_.tile_rows;
    panels_ = packed_.corpus_order().panels + (packed_.self() ? 0 : packed_.x_order().panels);
    tiles_ = (direction_count() + tile - 1) / tile;
    const int64_t tile_bytes = tile * panels_ * product_.panel_rows * static_cast<int64_t>(sizeof(float));
    const int64_t tiles_each =
        std::clamp(kTaskBytes / tile_bytes, int64_t{1}, std::max(int64_t{1}, kTaskDirections / tile));
    const int64_t tasks = (tiles_ + tiles_each - 1) / tiles_each;
    tasks_ = std::min(tiles_, round_up(tasks, worker_count(tiles_, run_.threads)));
    buckets_ = std::clamp(largest_group_ * 8 / product_.lanes, int64_t{1}, kMaxBuckets);
  }

  int64_t first_tile(int64_t task) const { return task * tiles_ / tasks_; }

  bool allocate_scratch(int workers) {
    Arena measure(nullptr);
    lay_out(&measure);
    int64_t bytes = 0;
    if (!multiply_sizes(measure.used(), workers, &bytes) || !memory_.allocate(bytes) ||
        !scratch_.allocate(workers))
      return false;
    for (int worker = 0; worker < workers; ++worker) {
      Arena arena(memory_.data() + worker * measure.used());
      scratch_.data()[worker] = lay_out(&arena);
    }
    return true;
  }

  Scratch lay_out(Arena* arena) const {
    const int64_t padded = largest_group_ + kOverread;
    const int64_t directions = (tiles_ + tasks_ - 1) / tasks_ * product_.tile_rows;
    Scratch s = {};
    s.projections = arena->take<float>(directions * panels_ * product_.panel_rows);
    s.found = arena->take<int64_t>(packed_.x_order().slots);
    s.values = arena->take<float>(padded);
    s.work = arena->take<float>(padded);
    s.order.values = s.work;
    s.order.start = arena->take<int32_t>(buckets_ + 2);
    s.order.weight_before = weighted() ? arena->take<int64_t>(padded) : nullptr;
    s.kernel.bucket = arena->take<int32_t>(padded);
    s.kernel.keys = arena->take<uint64_t>(2 * padded);
    s.kernel.weights = weighted() ? arena->take<int64_t>(padded) : nullptr;
    s.kernel.selected = arena->take<float>(2 * padded);
    return s;
  }

  void run_task(int64_t task, Scratch& s) {
    const int64_t first = first_tile(task), end = first_tile(task + 1);
    const int64_t stride = (end - first) * product_.tile_rows * product_.panel_rows;
    for (int64_t panel = 0; panel < panels_; ++panel)
      project(panel, first, end, s.projections + panel * stride);
    const int64_t directions =
        std::min(end * product_.tile_rows, direction_count()) - first * product_.tile_rows;
    for (int64_t g = 0; g < packed_.corpus_order().groups; ++g) {
      start_finding(s);
      for (int64_t r = 0; r < directions; ++r) {
        const ProjectedRows all = {s.projections + r * product_.panel_rows, stride, panels_};
        if (ranks())
          find_tails(groups_.data()[g], all, s);
        else
          find_outlying(groups_.data()[g], all, s);
      }
      merge(g, s);
    }
  }

  // to[directions][panel_rows]
  void project(int64_t panel, int64_t first_tile, int64_t end_tile, float* to) const {
    const int width = product_.panel_rows;
    const bool of_corpus = panel < packed_.corpus_order().panels;
    const uint32_t* rows = of_corpus ? packed_.corpus_panels().panel(panel)
                                     : packed_.x_panels().panel(panel - packed_.corpus_order().panels);
    const int64_t groups = packed_.corpus_panels().word_groups;
    for (int64_t k = 0; k < groups; k += kDepthOfBlock) {
      const int64_t count = std::min(kDepthOfBlock, groups - k);
      for (int64_t tile = first_tile; tile < end_tile; ++tile) {
        const int64_t slot = tile * product_.tile_rows;
        const uint32_t* directions = direction_panels_.panel(slot / width) + k * width + slot % width;
        product_.product_float(directions, rows + k * width, count, k > 0,
                               to + (tile - first_tile) * product_.tile_rows * width);
      }
    }
  }

  static ProjectedRows part(const ProjectedRows& rows, int64_t first_panel, int64_t end_panel) {
    return {rows.first + first_panel * rows.panel_stride, rows.panel_stride, end_panel - first_panel};
  }

  // The part of x: with one matrix it is the corpus.
  ProjectedRows of_x(const ProjectedRows& all) const {
    return packed_.self() ? all : part(all, packed_.corpus_order().panels, panels_);
  }

  void start_finding(const Scratch& s) const {
    const int64_t start = problem_.metric == EC_DEPTH_HALFSPACE ? INT64_MAX : 0;
    std::fill_n(s.found, packed_.x_order().slots, start);
  }

  void find_tails(const Group& group, const ProjectedRows& all, Scratch& s) const {
    float low, high;
    kernels_.collect(part(all, group.first_panel, group.end_panel), group.rows, s.values, &low, &high);
    s.order.buckets = std::clamp(group.rows * 8 / product_.lanes, int64_t{1}, buckets_);
    const int64_t* weights =
        weighted() ? fixed_weight_.data() + group.first_panel * product_.panel_rows : nullptr;
    kernels_.order(s.values, group.rows, low, high, weights, s.kernel, &s.order);
    (averages() ? kernels_.add_tails : kernels_.least_tails)(s.order, of_x(all), s.found);
  }

  void find_outlying(const Group& group, const ProjectedRows& all, Scratch& s) const {
    float low, high, median, deviation;
    float* worst = reinterpret_cast<float*>(s.found);
    kernels_.collect(part(all, group.first_panel, group.end_panel), group.rows, s.values, &low, &high);
    if (!packed_.self() || packed_.corpus_order().groups > 1)
      kernels_.spread(s.values, group.rows, s.work, s.kernel, &median, &deviation);
    if (!packed_.self()) {
      kernels_.worst_outlying(of_x(all), median, deviation, worst);
      return;
    }
    LeftOutSpread left_out;
    kernels_.left_out_spread(s.values, group.rows, s.work, s.kernel, &left_out);
    const int width = product_.panel_rows;
    kernels_.worst_left_out(part(all, group.first_panel, group.end_panel), left_out,
                            worst + group.first_panel * width);
    if (packed_.corpus_order().groups == 1) return;
    kernels_.worst_outlying(part(all, 0, group.first_panel), median, deviation, worst);
    kernels_.worst_outlying(part(all, group.end_panel, panels_), median, deviation,
                            worst + group.end_panel * width);
  }

  void merge(int64_t group, const Scratch& s) {
    int64_t* to = merged_.data() + group * packed_.x_order().slots;
    for (int64_t slot = 0; slot < packed_.x_order().slots; ++slot) {
      if (averages()) {
        __atomic_fetch_add(to + slot, s.found[slot], __ATOMIC_RELAXED);
      } else if (ranks()) {
        replace(to + slot, s.found[slot], [](int64_t own, int64_t other) { return own < other; });
      } else {
        int32_t bits;  // ordered as the floats are, which are not negative
        std::memcpy(&bits, reinterpret_cast<const float*>(s.found) + slot, sizeof bits);
        replace(to + slot, bits, [](int64_t own, int64_t other) { return own > other; });
      }
    }
  }

  template <class Better>
  static void replace(int64_t* to, int64_t value, Better better) {
    int64_t seen = __atomic_load_n(to, __ATOMIC_RELAXED);
    while (better(value, seen) &&
           !__atomic_compare_exchange_n(to, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
  }

  void write_depths(double* depths) const {
    const int64_t slots = packed_.x_order().slots, groups = packed_.corpus_order().groups;
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t slot = 0; slot < slots; ++slot) {
        const int64_t row = packed_.x_order().row.data()[slot];
        if (row < 0) continue;
        const int64_t merged = merged_.data()[g * slots + slot];
        depths[row * groups + g] = ranks() ? depth_of_tail(g, slot, merged) : depth_of_outlying(merged);
      }
    }
  }

  // A row counts itself on both sides, in every direction.
  double depth_of_tail(int64_t g, int64_t slot, int64_t merged) const {
    const Group& group = groups_.data()[g];
    const bool own = packed_.self() && slot / product_.panel_rows >= group.first_panel &&
                     slot / product_.panel_rows < group.end_panel;
    const int64_t itself = own ? slot_weight(slot) : 0;
    const int64_t times = averages() ? direction_count() : 1;
    const int64_t remaining = group.weight - itself;
    if (remaining <= 0) return 0.0;  // less weight than the total's last digit
    return static_cast<double>(merged - times * itself) / static_cast<double>(times) /
           static_cast<double>(remaining);
  }

  static double depth_of_outlying(int64_t merged) {
    const int32_t bits = static_cast<int32_t>(merged);
    float worst;
    std::memcpy(&worst, &bits, sizeof worst);
    return 1.0 / (1.0 + static_cast<double>(worst));
  }

  const ProjectionProblem& problem_;
  const RunOptions& run_;
  const ProductKernels& product_;
  const ProjectionKernels& kernels_;
  FirstFault &x_fault_, &corpus_fault_, &direction_fault_;
  PackedPair packed_;
  Panels direction_panels_;
  AlignedBuffer<int64_t> fixed_weight_;  // [corpus slots]
  AlignedBuffer<Group> groups_;
  AlignedBuffer<int64_t> merged_;  // [groups][x slots]
  int64_t largest_group_ = 0, panels_ = 0, tiles_ = 0, tasks_ = 0, buckets_ = 1;
  AlignedBuffer<char> memory_;
  AlignedBuffer<Scratch> scratch_;
};

}  // namespace

ec_status project_depths(const ProjectionProblem& problem, const RunOptions& run, double* depths,
                         FirstFault* x_fault, FirstFault* corpus_fault, FirstFault* direction_fault) {
  ProjectionRun projection(problem, run, x_fault, corpus_fault, direction_fault);
  return projection.execute(depths);
}

}  // namespace ec
