// SPDX-License-Identifier: Apache-2.0
// Kernels of the depths that look at a corpus along single directions; see projection_run.h for what they
// are. Everything here concerns one direction and one group of the corpus.
#pragma once

#include <cstdint>

#include "core/dispatch.h"

namespace ec {

// Projections of rows as the product leaves them: panels of panel_rows floats, panel_stride floats apart.
struct ProjectedRows {
  const float* first;
  int64_t panel_stride;
  int64_t panels;
};

// Floats that kernels may read beyond the last of an array that they are given.
constexpr int64_t kOverread = 16;

// A group's projections ordered as far as ranks need it: by buckets of equal width. Buckets too long to be
// counted through are sorted, and all are when there are weights.
// Memory: values[count + kOverread], the excess infinite; start[buckets + 2]: bucket b lies at
// [start[b], start[b + 1]); weight_before[count + 1] (null without weights): the weight of the first i.
struct ProjectionOrder {
  float* values;
  int32_t* start;
  int64_t* weight_before;
  int64_t count;
  int64_t buckets;   // set by the driver, >= 1 and below 2^23
  float low, scale;  // the bucket of v is (v - low) * scale, rounded
};

// Memory of a worker for one group of up to count values.
struct ProjectionScratch {
  int32_t* bucket;   // [count + kOverread]
  uint64_t* keys;    // [2][count]
  int64_t* weights;  // [count], weighted only
  float* selected;   // [2][count + kOverread]
};

// The median of a sample from which one value is missing. Which value it was matters only through its side
// of the middle: [0] below the pivot, [1] equal to it, [2] above.
struct LeftOutMedian {
  float pivot;
  float median[3];
};

// Median and median absolute deviation of a sample without one of its values, which selects the median and,
// by its deviation from that, the deviation's median.
struct LeftOutSpread {
  LeftOutMedian center;
  LeftOutMedian deviation[3];  // about center.median[i]
};

struct ProjectionKernels {
  // The first count projections side by side, then kOverread infinities; low and high are their extremes.
  void (*collect)(const ProjectedRows& rows, int64_t count, float* to, float* low, float* high);
  // Fills order (its arrays and buckets are set) from values, whose extremes are low and high.
  // weights[count] may be null. Requires: count >= 1, weights not negative, their sum below 2^63.
  void (*order)(const float* values, int64_t count, float low, float high, const int64_t* weights,
                const ProjectionScratch& scratch, ProjectionOrder* order);
  // tails[i] += or = min(tails[i], .) of min(weight of values <= t, weight of values >= t), t the
  // projection of row i; rows count 1 without weights.
  void (*add_tails)(const ProjectionOrder& order, const ProjectedRows& rows, int64_t* tails);
  void (*least_tails)(const ProjectionOrder& order, const ProjectedRows& rows, int64_t* tails);
  // Median, and median of |value - median|; that of an even number is the mean of the two in the middle.
  // work holds count + kOverread floats. Requires: count >= 1.
  void (*spread)(const float* values, int64_t count, float* work, const ProjectionScratch& scratch,
                 float* median, float* deviation);
  // The same without each value in turn. Requires: count >= 2.
  void (*left_out_spread)(const float* values, int64_t count, float* work, const ProjectionScratch& scratch,
                          LeftOutSpread* spread);
  // worst[i] = max(worst[i], |t - median| / deviation); 0 / 0 is 0 here, and 1 / 0 infinite.
  void (*worst_outlying)(const ProjectedRows& rows, float median, float deviation, float* worst);
  void (*worst_left_out)(const ProjectedRows& rows, const LeftOutSpread& spread, float* worst);
};

const ProjectionKernels* projection_kernels(Isa isa);

}  // namespace ec
