// SPDX-License-Identifier: Apache-2.0
// How a call is cut into blocks, and where its arrays lie in the workspace.
#pragma once

#include "common/workspace.h"
#include "depth/depth.h"
#include "depth/group_tables.cuh"
#include "depth/hopper/hopper_pairs.h"
#include "depth/pairwise.cuh"
#include "depth/preparation.h"
#include "depth/score.cuh"
#include "depth/spatial.cuh"

namespace ec::cuda {

constexpr int kBlocksEach = 4;                // of a multiprocessor, that read rows
constexpr int kRowWarps = 8;                  // of such a block
constexpr int kSumBlocksEach = 6;             // of a multiprocessor, that sum unit rows, 3 or 4 at a time
constexpr int kLeastSumRows = 32;             // of a block that sums, whose sums have to be added up
constexpr int kWavesWanted = 4;               // of blocks of pairs, so that the last one matters little
constexpr int kSpatialWaves = 2;              // each block has vectors of its own
constexpr int64_t kMostSpatialTiles = 16384;  // that float32 sums of vectors take up
constexpr int64_t kFewColumns = 128;          // up to which rests are multiplied with one another

// Groups cut into segments.
struct Plan {
  Segments segments = {nullptr, nullptr, {1, 1}, 0, 0};
  double* weights = nullptr;  // [segments], sums
};

// One call, laid out.
struct Layout {
  Layout(const DepthProblem& given, int multiprocessors_given, void* workspace)
      : problem(given),
        multiprocessors(multiprocessors_given),
        own(given.own_corpus),
        angular(given.metric == Metric::kCosine || given.metric == Metric::kChord ||
                given.metric == Metric::kArc),
        pairs(given.metric != Metric::kCosine),
        spatial(given.metric == Metric::kSpatial),
        tables(given.groups > 1 || spatial),
        hopper(given.hopper && !tables && given.order == nullptr && pairs && angular &&
               (own || given.corpus.count > 0)),
        mirrored(own && !tables && pairs && angular && !hopper),
        products(!angular       ? (given.rows.columns <= kFewColumns ? 4 : 3)
                 : given.strict ? 3
                                : 1),
        padded(ceiling(given.rows.columns, spatial ? kTile : kStep) * (spatial ? kTile : kStep)),
        row_tiles(ceiling(given.rows.count, kTile)),
        arena(workspace) {
    rows = given.rows, corpus = own ? given.rows : given.corpus;
    take_float_rows();
    row_blocks = blocks_for(rows.count), corpus_blocks = blocks_for(corpus.count);
    if (tables) starts = arena.take<int64_t>(given.groups + 1);
    if (hopper)
      hopper_plan = HopperPlan(rows.count, corpus.count, rows.columns, given.strict, multiprocessors);
    if (weighs()) {
      totals = arena.take<double>(given.groups);
      weight_count = max(corpus.count, hopper_plan.sum_count() / 2);
      weights = arena.take<float>(weight_count);
      exponents = arena.take<int>(3);  // of weights, and those of Move
    }
    if (!weighs() && given.given_sums != nullptr) totals = arena.take<double>(1);
    if (pairs) take_pairs();
    if (angular) take_sums();
  }

  // As many as keep the device busy, and no more than there are rows for.
  int64_t blocks_for(int64_t count) const {
    return max(int64_t{1}, min(ceiling(count, kRowWarps), int64_t{kBlocksEach} * multiprocessors));
  }
  int64_t group_rows(int64_t group) const {
    return problem.starts == nullptr ? corpus.count : problem.starts[group + 1] - problem.starts[group];
  }
  Groups groups() const { return {problem.order, starts, problem.groups, corpus.count}; }
  // Of the scored rows.
  Groups row_groups() const { return own ? groups() : Groups{nullptr, nullptr, 1, rows.count}; }
  // Moved rows that are bad are marked by their weights; else weights are 1 where none were given.
  bool weighs() const { return !angular || problem.weights != nullptr; }
  // What says how much a group weighs.
  const Plan& weighed() const { return angular ? of_sums : of_pairs; }
  bool splits() const { return slots == of_pairs.segments.count; }

  // Units of all groups together.
  int64_t units(int64_t unit) const {
    int64_t all = 0;
    for (int64_t g = 0; g < problem.groups; ++g) all += ceiling(group_rows(g), unit);
    return all;
  }
  Plan plan(int64_t unit, int64_t wanted, int64_t most) {
    const Cut cut = {unit, max(int64_t{1}, min(most, ceiling(units(unit), max(int64_t{1}, wanted))))};
    Plan made;
    int64_t count = 0;
    for (int64_t g = 0; g < problem.groups; ++g) count += cut.segments(group_rows(g));
    made.segments = {nullptr, nullptr, cut, corpus.count, count};
    if (tables) {
      made.segments.all = arena.take<Segment>(count);
      made.segments.first = arena.take<int64_t>(problem.groups + 1);
    }
    if (weighs()) made.weights = arena.take<double>(count);
    return made;
  }
  // Rows of no group, cut alike.
  Segments shares(int64_t count) const {
    const int64_t units = ceiling(count, kRowWarps), blocks = blocks_for(count);
    const Cut cut = {kRowWarps, max(int64_t{1}, ceiling(units, blocks))};
    return {nullptr, nullptr, cut, count, cut.segments(count)};
  }

  // Directions of float64 rows are scored as those of float32 rows.
  void take_float_rows() {
    if (!angular) return;
    const int64_t stride = ceiling(rows.columns, kTogether) * kTogether;
    const auto take = [&](const AnyRows& wide) {
      return AnyRows{arena.take<float>(wide.count * stride), wide.count, stride, wide.columns,
                     NumberKind::kFloat32};
    };
    if (rows.kind == NumberKind::kFloat64) rows = take(rows);
    if (own) corpus = rows;
    if (corpus.kind == NumberKind::kFloat64) corpus = take(corpus);
  }

  // Unit rows that are kept, and where of both sides.
  Packing packing(bool of_rows) const {
    Packing to;
    if (!pairs) return to;
    to.scalings = of_rows ? row_scalings : other_scalings;
    to.split = products > 1;
    if (!hopper) {
      to.rows = of_rows ? row_numbers : other_numbers;
      to.padded = static_cast<int>(padded);
      return to;
    }
    if (of_rows || own) to.panels[0] = hopper_plan.rows;
    if (!of_rows) to.panels[1] = hopper_plan.others;
    return to;
  }

  void take_sums() {
    const int64_t blocks = int64_t{kSumBlocksEach} * multiprocessors;
    of_sums =
        plan(kRowWarps, min(blocks, max(problem.groups, ceiling(corpus.count, kLeastSumRows))), INT64_MAX);
    // With the rows that fill up the last panels.
    if (hopper) of_sums.segments.rows = packing(false).rows_of(corpus.count);
    partial = arena.take<double>(of_sums.segments.count * corpus.columns);
    unit_sums = {partial,
                 of_sums.segments,
                 problem.groups,
                 static_cast<int>(corpus.columns),
                 piece_numbers(rows.kind),
                 nullptr};
    unit_sums.sums = arena.take<double>(problem.groups * unit_sums.stride());
  }

  void take_hopper_pairs() {
    row_scalings = arena.take<Scaling>(rows.count);
    other_scalings = own ? row_scalings : arena.take<Scaling>(corpus.count);
    hopper_plan.rows.numbers = arena.take<BFloat>(hopper_plan.rows.size());
    hopper_plan.others.numbers = arena.take<BFloat>(hopper_plan.others.size());
    hopper_plan.sums = arena.take<unsigned long long>(hopper_plan.sum_count());
    hopper_plan.scale = arena.take<double>(1);
    results.fixed = hopper_sums(hopper_plan, results.metric);
  }

  void take_pairs() {
    results.metric = problem.metric == Metric::kArc     ? PairMetric::kArc
                     : problem.metric == Metric::kChord ? PairMetric::kChord
                                                        : PairMetric::kL2;
    results.split = products > 1;
    results.rows = rows.count;
    if (hopper)
      take_hopper_pairs();
    else
      take_plain_pairs();
  }

  void take_plain_pairs() {
    // Half of the blocks of mirrored tiles have none.
    const int64_t waves = spatial ? kSpatialWaves : mirrored ? 2 * kWavesWanted : kWavesWanted;
    const int64_t wanted = ceiling(waves * multiprocessors, max(int64_t{1}, row_tiles));
    const bool whole = spatial && problem.groups > wanted;
    of_pairs = plan(kTile, whole ? 1 : wanted,
                    mirrored            ? kMostMirrorTiles
                    : spatial && !whole ? kMostSpatialTiles
                                        : INT64_MAX);
    slots = whole ? min(wanted, of_pairs.segments.count) : of_pairs.segments.count;
    const int64_t stride = products > 1 ? 2 * padded : padded;
    row_numbers = arena.take<BFloat>(rows.count * stride);
    other_numbers = own ? row_numbers : arena.take<BFloat>(corpus.count * stride);
    if (angular) {
      row_scalings = arena.take<Scaling>(rows.count);
      other_scalings = own ? row_scalings : arena.take<Scaling>(corpus.count);
    } else {
      center = arena.take<double>(corpus.columns);
      row_squares = arena.take<float>(rows.count);
      other_squares = own ? row_squares : arena.take<float>(corpus.count);
    }
    if (spatial) {
      vectors = arena.take<float>(slots * rows.count * padded);
      weight_sums = arena.take<double>(slots * rows.count);
    } else if (mirrored) {
      fixed.sums = arena.take<unsigned long long>(2 * rows.count);
      // Distances are at most pi, and weights below 2.
      const double most = 8.0 * static_cast<double>(max(int64_t{1}, rows.count));
      for (fixed.scale = 1.0; fixed.scale * most < 0x1p62; fixed.scale *= 2.0) continue;
      results.fixed = fixed;
    } else {
      results.sums = sums = arena.take<PairSums>(of_pairs.segments.count * rows.count);
      results.segments = of_pairs.segments;
    }
  }

  const DepthProblem& problem;
  const int multiprocessors;
  const bool own, angular, pairs, spatial;
  const bool tables;    // groups and segments are arrays on the device, not one group's
  const bool hopper;    // pairs are summed by the kernels of hopper/
  const bool mirrored;  // pairs are taken once for both of their rows
  const int products;
  const int64_t padded, row_tiles;
  Arena arena;
  AnyRows rows, corpus;  // as they are scored: no float64 rows where directions are
  int64_t row_blocks = 1, corpus_blocks = 1;
  int64_t* starts = nullptr;
  double* totals = nullptr;
  float* weights = nullptr;
  int64_t weight_count = 0;
  int* exponents = nullptr;
  // Of directions.
  Plan of_sums;
  double* partial = nullptr;
  UnitSums unit_sums = {};
  // Blocks of plain pairs that add up directions.
  int64_t adders() const { return ceiling(unit_sums.tasks(), kPairWarps); }

  // Of pairs. slots: blocks of a tile of rows.
  Plan of_pairs;
  int64_t slots = 0;
  BFloat *row_numbers = nullptr, *other_numbers = nullptr;
  Scaling *row_scalings = nullptr, *other_scalings = nullptr;
  double* center = nullptr;
  float *row_squares = nullptr, *other_squares = nullptr, *vectors = nullptr;
  double* weight_sums = nullptr;
  PairSums* sums = nullptr;
  FixedSums fixed;
  PairResults results;
  HopperPlan hopper_plan;
};

}  // namespace ec::cuda
