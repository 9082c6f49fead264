// SPDX-License-Identifier: Apache-2.0
// How a call is cut into blocks, and where its arrays lie in the workspace.
#pragma once

#include "common/workspace.h"
#include "depth/cosine.cuh"
#include "depth/depth.h"
#include "depth/hopper/hopper_pairs.h"
#include "depth/pairwise.cuh"
#include "depth/spatial.cuh"

namespace ec::cuda {

constexpr int kBlocksEach = 4;                // of a multiprocessor, that read rows
constexpr int kWavesWanted = 4;               // of blocks of pairs, so that the last one matters little
constexpr int kSpatialWaves = 2;              // each block has vectors of its own
constexpr int64_t kMostSpatialTiles = 16384;  // that float32 sums of vectors take up
constexpr int64_t kFewColumns = 128;          // up to which rests are multiplied with one another

// Groups cut into segments.
struct Plan {
  Cut cut = {1, 1};
  int64_t segments = 0;
  SegmentTable table = {nullptr, nullptr};
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
        hopper(given.hopper && given.groups == 1 && given.order == nullptr && pairs && angular),
        mirrored(own && given.groups == 1 && pairs && angular && !hopper),
        products(!angular       ? (given.rows.columns <= kFewColumns ? 4 : 3)
                 : given.strict ? 3
                                : 1),
        padded(ceiling(given.rows.columns, spatial ? kTile : kStep) * (spatial ? kTile : kStep)),
        row_tiles(ceiling(given.rows.count, kTile)),
        arena(workspace) {
    rows = given.rows, corpus = own ? given.rows : given.corpus;
    take_float_rows();
    row_blocks = blocks_for(rows.count), corpus_blocks = blocks_for(corpus.count);
    starts = arena.take<int64_t>(given.groups + 1);
    totals = arena.take<double>(given.groups);
    if (weighs()) weights = arena.take<float>(corpus.count);
    exponents = arena.take<int>(3);  // of weights, and those of Move
    if (angular) take_sums();
    if (pairs) take_pairs();
  }

  // As many as keep the device busy, and no more than there are rows for.
  int64_t blocks_for(int64_t count) const {
    return max(int64_t{1}, min(ceiling(count, kCosineWarps), int64_t{kBlocksEach} * multiprocessors));
  }
  int64_t group_rows(int64_t group) const {
    return problem.starts == nullptr ? corpus.count : problem.starts[group + 1] - problem.starts[group];
  }
  Groups groups() const { return {problem.order, starts, problem.groups}; }
  // Of the scored rows.
  Groups row_groups() const { return own ? groups() : Groups{nullptr, nullptr, 0}; }
  // Without weights, and pairs that mark bad rows by them, all are 1.
  bool weighs() const { return pairs || problem.weights != nullptr; }
  // What says how much a group weighs.
  const Plan& weighed() const { return pairs ? of_pairs : of_sums; }
  bool splits() const { return slots == of_pairs.segments; }

  // Units of all groups together.
  int64_t units(int64_t unit) const {
    int64_t all = 0;
    for (int64_t g = 0; g < problem.groups; ++g) all += ceiling(group_rows(g), unit);
    return all;
  }
  Plan plan(int64_t unit, int64_t wanted, int64_t most) {
    Plan made;
    made.cut = {unit, max(int64_t{1}, min(most, ceiling(units(unit), max(int64_t{1}, wanted))))};
    for (int64_t g = 0; g < problem.groups; ++g) made.segments += made.cut.segments(group_rows(g));
    made.table = {arena.take<Segment>(made.segments), arena.take<int64_t>(problem.groups + 1)};
    made.weights = arena.take<double>(made.segments);
    return made;
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

  void take_sums() {
    of_sums = plan(kCosineWarps, int64_t{kBlocksEach} * multiprocessors, INT64_MAX);
    directions = arena.take<double>(problem.groups * corpus.columns);
    partial = arena.take<double>(of_sums.segments * corpus.columns);
    if (pairs) cosines = arena.take<double>(rows.count * problem.groups);
  }

  void take_hopper_pairs() {
    of_pairs = plan(kTile, 1, INT64_MAX);
    row_scalings = arena.take<Scaling>(rows.count);
    other_scalings = own ? row_scalings : arena.take<Scaling>(corpus.count);
    missing = arena.take<int>(1);
    sums = arena.take<PairSums>(rows.count);
    hopper_workspace = arena.take<unsigned char>(
        static_cast<int64_t>(hopper_pairs_workspace_bytes(hopper_pairs(), multiprocessors)));
  }

  HopperPairs hopper_pairs() const {
    return {problem.metric == Metric::kArc ? PairMetric::kArc : PairMetric::kChord, rows, own, corpus,
            // What only measures sees whether there are any.
            problem.weights == nullptr ? nullptr
            : weights == nullptr       ? static_cast<const float*>(problem.weights)
                                       : weights,
            problem.strict, totals, row_scalings, other_scalings, missing, sums};
  }

  void take_pairs() {
    if (hopper) return take_hopper_pairs();
    // Half of the blocks of mirrored tiles have none.
    const int64_t waves = spatial ? kSpatialWaves : mirrored ? 2 * kWavesWanted : kWavesWanted;
    const int64_t wanted = ceiling(waves * multiprocessors, max(int64_t{1}, row_tiles));
    const bool whole = spatial && problem.groups > wanted;
    of_pairs = plan(kTile, whole ? 1 : wanted,
                    mirrored            ? kMostMirrorTiles
                    : spatial && !whole ? kMostSpatialTiles
                                        : INT64_MAX);
    slots = whole ? min(wanted, of_pairs.segments) : of_pairs.segments;
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
    } else {
      sums = arena.take<PairSums>(of_pairs.segments * rows.count);
    }
  }

  const DepthProblem& problem;
  const int multiprocessors;
  const bool own, angular, pairs, spatial;
  const bool hopper;    // pairs are summed by the kernels of hopper/, as one segment
  const bool mirrored;  // pairs are taken once for both of their rows
  const int products;
  const int64_t padded, row_tiles;
  Arena arena;
  AnyRows rows, corpus;  // as they are scored: no float64 rows where directions are
  int64_t row_blocks = 1, corpus_blocks = 1;
  int64_t* starts = nullptr;
  double* totals = nullptr;
  float* weights = nullptr;
  int* exponents = nullptr;
  // Of directions.
  Plan of_sums;
  double *directions = nullptr, *partial = nullptr, *cosines = nullptr;
  // Of pairs. slots: blocks of a tile of rows.
  Plan of_pairs;
  int64_t slots = 0;
  BFloat *row_numbers = nullptr, *other_numbers = nullptr;
  Scaling *row_scalings = nullptr, *other_scalings = nullptr;
  double* center = nullptr;
  float *row_squares = nullptr, *other_squares = nullptr, *vectors = nullptr;
  double* weight_sums = nullptr;
  PairSums* sums = nullptr;
  FixedSums fixed = {nullptr, 1.0};
  // Of Hopper's kernels. missing: rows of the corpus without a direction.
  int* missing = nullptr;
  unsigned char* hopper_workspace = nullptr;
};

}  // namespace ec::cuda
