// SPDX-License-Identifier: Apache-2.0
// Depths of arrays on the GPU, on the caller's stream and in the caller's workspace.
//
// A number that is not finite, and for the angular metrics (cosine, chord, arc) a row of zeros, makes
// depths NaN: in x those of its own row, in the corpus, as a weight that is negative or not finite does,
// all those in its group. A group without weight, or for mahalanobis without a covariance that has an
// inverse, and a row alone in its own group, have NaN. find_bad_rows and find_bad_weights say where the
// first one is.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/numbers.cuh"

namespace ec::cuda {

enum class Metric {
  kCosine,
  kChord,
  kArc,
  kL2,
  kSpatial,
  kMahalanobis,
  kHalfspace,
  kProjection,
  kIrw,
  kAiIrw
};
inline bool is_directional(Metric metric) { return metric >= Metric::kHalfspace; }

struct DepthProblem {
  Metric metric;
  AnyRows rows;
  bool own_corpus;      // the rows are their own corpus, and each leaves itself out of its own group
  AnyRows corpus;       // else
  bool strict;          // chord and arc: float32 products, else bf16
  void* depths;         // [rows][groups], double where the rows are float64, else float
  bool hopper = false;  // the device runs hopper/: chord and arc of one group are taken there

  // Weights of the corpus, float32 or float64, in any unit; may be null.
  const void* weights = nullptr;
  NumberKind weights_kind = NumberKind::kFloat32;
  int64_t weights_stride = 1;  // in numbers

  // Rows order[starts[g] .. starts[g + 1]) of the corpus are group g.
  int64_t groups = 1;
  const int64_t* starts = nullptr;  // on the host, [groups + 1], from 0 to the rows; null: one group
  const int64_t* order = nullptr;   // on the device, each row once; null: rows as they are

  // Of the covariance, in [0, 1]; below 0: chosen as in python/embedcore/depth/_covariance.py.
  double shrinkage = -1.0;
  // Where the covariance of one group is kept between calls with the same corpus, covariance_bytes long;
  // null: nowhere. Of mahalanobis and AI-IRW, not of rows in their own corpus.
  void* covariance = nullptr;
  bool covariance_found = false;  // by an earlier call

  // Along which halfspace, projection, IRW and AI-IRW look: [directions][columns], on the device.
  const double* directions = nullptr;
  int64_t direction_count = 0;

  // Of cosine depth in one group, [columns + 1] on the device: the sum of the weighted unit rows, then that
  // of the weights, in their own unit. Rows are scored against given ones, whatever the corpus; where they
  // are wanted, they are all that is computed.
  const double* given_sums = nullptr;
  double* wanted_sums = nullptr;
};

size_t depth_workspace_bytes(const DepthProblem& problem, int multiprocessors);
size_t covariance_bytes(const DepthProblem& problem, int multiprocessors);
// Starts kernels, and returns whether all could be started; what the problem has on the host is not read
// later. Requires: shapes that fit, at most 65536 columns, a workspace of that size on a boundary of 256
// bytes.
bool run_depth(const DepthProblem& problem, int multiprocessors, void* workspace, Stream stream);

enum class BadValue : int64_t { kNotFinite = 0, kZero = 1, kWeight = 2 };
constexpr int64_t kBadValues = 4;  // *found = row * kBadValues + its BadValue
constexpr int64_t kNoneFound = -1;

// *found (on the device) = the first bad row, or kNoneFound. zeros_are_bad: for the angular metrics.
bool find_bad_rows(const AnyRows& rows, bool zeros_are_bad, int multiprocessors, int64_t* found,
                   Stream stream);
// The same of `count` weights.
bool find_bad_weights(const void* weights, NumberKind kind, int64_t stride, int64_t count,
                      int multiprocessors, int64_t* found, Stream stream);

}  // namespace ec::cuda
