// SPDX-License-Identifier: Apache-2.0
// Of calls with weights or groups: tables of segments, weights in one unit, and what groups weigh.
#pragma once

#include "depth/exponents.cuh"
#include "depth/segments.cuh"

namespace ec::cuda {

// Starts of groups travel as parameters of a kernel (4 KB): a copy from the host could wait for the stream,
// and would have to find them unchanged later where it is captured in a graph.
constexpr int kGroupsTogether = 448;
struct GroupStarts {
  int64_t starts[kGroupsTogether + 1];
};

// One block. first_segment: of the first of these groups. A warp takes a group, all warps one that is
// alone. Memory: shared, an int64 for each of these groups and one more.
static __global__ void __launch_bounds__(kGroupsTogether, 1)
    write_segments(const __grid_constant__ GroupStarts given, int64_t first_group, int count,
                   int64_t first_segment, Segments to, int64_t* starts) {
  int64_t* first = shared_array<int64_t>(static_cast<size_t>(count) + 1);
  const int own = static_cast<int>(threadIdx.x);
  if (own < count) first[own + 1] = to.cut.segments(given.starts[own + 1] - given.starts[own]);
  __syncthreads();
  if (own == 0) {
    first[0] = first_segment;
    for (int i = 0; i < count; ++i) first[i + 1] += first[i];
  }
  __syncthreads();
  const int team = count == 1 ? kGroupsTogether : kWarpSize;
  for (int i = own / team; i < count; i += kGroupsTogether / team) {
    const int64_t group = first_group + i, begin = given.starts[i], rows = given.starts[i + 1] - begin;
    const int64_t units = to.cut.units(rows), segments = first[i + 1] - first[i];
    for (int64_t s = own % team; s < segments; s += team)
      to.all[first[i] + s] = {begin + units * s / segments * to.cut.unit,
                              begin + min(rows, units * (s + 1) / segments * to.cut.unit), group};
    if (own % team != 0) continue;
    starts[group] = begin, starts[group + 1] = begin + rows;  // the next one writes the same
    to.first[group] = first[i], to.first[group + 1] = first[i + 1];
  }
}

// Weights of any unit, by row of the corpus.
struct Weights {
  const void* data;  // null: 1 each
  NumberKind kind;   // float32 or float64
  int64_t stride;

  __device__ double of(int64_t row) const {
    if (kind == NumberKind::kFloat64) return static_cast<const double*>(data)[row * stride];
    return static_cast<double>(static_cast<const float*>(data)[row * stride]);
  }
};

__device__ __forceinline__ bool is_weight(double weight) {
  return weight >= 0.0 && weight <= 1.7976931348623157e308;
}

constexpr int kWeightThreads = 256;
// *largest = the largest biased exponent of a weight. Requires: *largest is 0 before.
static __global__ void __launch_bounds__(kWeightThreads, 1)
    find_largest_weight(Weights weights, int64_t count, int* largest) {
  double most = 0.0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kWeightThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kWeightThreads + threadIdx.x; i < count; i += step) {
    const double weight = weights.of(i);
    if (is_weight(weight)) most = fmax(most, weight);
  }
  most = warp_max(most);
  if (threadIdx.x % kWarpSize == 0) atomicMax(largest, biased_exponent(most));
}

// scaled[position]: weights with the largest in [1, 2); NaN for what is none, which makes depths of its
// group NaN; 0 from `count` on. Packing of moved rows does the same to weights of bad rows.
static __global__ void __launch_bounds__(kWeightThreads, 1)
    scale_weights(Weights weights, Groups groups, int64_t count, int64_t padded, const int* largest,
                  float* scaled) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kWeightThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kWeightThreads + threadIdx.x; i < padded; i += step) {
    if (weights.data == nullptr || i >= count) {
      scaled[i] = i < count ? 1.0f : 0.0f;
      continue;
    }
    const double weight = weights.of(groups.row(i));
    scaled[i] = is_weight(weight) ? static_cast<float>(ldexp(weight, kExponentBias - *largest))
                                  : __uint_as_float(kNotANumber);
  }
}

// sums[segment] of its weights: one block a segment. In float64, lane by lane.
static __global__ void __launch_bounds__(kWeightThreads, 1)
    sum_weights(Segments segments, const float* weights, double* sums) {
  double* of_warps = shared_array<double>(kWeightThreads / kWarpSize);
  const Segment segment = segments.segment(blockIdx.x);
  double sum = 0.0;
  for (int64_t i = segment.begin + threadIdx.x; i < segment.end; i += kWeightThreads)
    sum += static_cast<double>(weights[i]);
  sum = warp_sum(sum);
  if (threadIdx.x % kWarpSize == 0) of_warps[threadIdx.x / kWarpSize] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < kWeightThreads / kWarpSize; ++i) sum += of_warps[i];
  sums[blockIdx.x] = sum;
}

// totals[group] = the sum over its segments.
static __global__ void __launch_bounds__(kWeightThreads, 1)
    add_weights(Segments segments, int64_t groups, const double* sums, double* totals) {
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kWeightThreads + threadIdx.x;
  if (group >= groups) return;
  double sum = 0.0;
  for (int64_t i = segments.begin(group); i < segments.end(group); ++i) sum += sums[i];
  totals[group] = sum;
}

}  // namespace ec::cuda
