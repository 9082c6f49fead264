// SPDX-License-Identifier: Apache-2.0
// What sums over pairs are, whichever kernel takes them, and what mean distances come of them.
#pragma once

#include "depth/depth_math.h"
#include "depth/segments.cuh"

namespace ec::cuda {

// Beyond this |c| a pair is measured anew.
constexpr float kNearLimit = 0.95f, kStrictNearLimit = 0.999f;

// Sums over a segment of weight * distance and weight * c~.
struct PairSums {
  double distances, products;
};

// Sums of rows in fixed point: of weight * (middle - distance) / unit and of weight * c~, times a scale
// with which no sum can overflow, a power of two.
struct FixedSums {
  unsigned long long* sums = nullptr;  // [rows][2]
  double scale = 1.0;
  const double* scale_at = nullptr;  // instead of scale, on the device
  double middle = 0.0, unit = -1.0;

  // Requires: middle and unit are those that leave distances as they are.
  __device__ void add(int64_t row, const PairSums& more) const {
    atomicAdd(sums + 2 * row, static_cast<unsigned long long>(llrint(more.distances * scale)));
    atomicAdd(sums + 2 * row + 1, static_cast<unsigned long long>(llrint(more.products * scale)));
  }
  // weight: the sum of those that were added.
  __host__ __device__ PairSums of(int64_t row, double weight) const {
    const double one = 1.0 / (scale_at == nullptr ? scale : *scale_at);
    const auto found = [&](int kind) {
      return static_cast<double>(static_cast<long long>(sums[2 * row + kind])) * one;
    };
    return {middle * weight - unit * found(0), found(1)};
  }
};

// The sums of a call, of every row and group.
struct PairResults {
  PairMetric metric = PairMetric::kChord;
  bool split = false;              // products of split numbers
  const PairSums* sums = nullptr;  // [segment][rows]
  int64_t rows = 0;
  Segments segments = {};
  FixedSums fixed;  // instead, of one group

  __device__ bool any() const { return sums != nullptr || fixed.sums != nullptr; }
  __device__ PairSums of(int64_t row, int64_t group, double weight) const {
    if (fixed.sums != nullptr) return fixed.of(row, weight);
    PairSums found = {0.0, 0.0};
    for (int64_t s = segments.begin(group); s < segments.end(group); ++s) {
      found.distances += sums[s * rows + row].distances;
      found.products += sums[s * rows + row].products;
    }
    return found;
  }
  // Under chord and arc. products: the sum of weight * c, exact.
  __device__ double depth(int64_t row, int64_t group, double products, double weight) const {
    const PairSums found = of(row, group, weight);
    double distance = found.distances / weight;
    const double rounded = found.products / weight;
    // The slope has no bound at the ends, where all pairs have been measured anew.
    if (fabs(rounded) <= static_cast<double>(split ? kStrictNearLimit : kNearLimit))
      distance += pair_slope(metric, rounded) * (products / weight - rounded);
    return depth_of_mean_distance(metric, distance);
  }
};

}  // namespace ec::cuda
