// SPDX-License-Identifier: Apache-2.0
// Codes of rows, and what bounds of scores need of each row.
#pragma once

#include "ann/index.h"
#include "common/warp.cuh"

namespace ec::cuda::ann {

constexpr int kRowThreads = 256;
constexpr int kRowWarps = kRowThreads / kWarpSize;

// What sums of squares in float32 and the roundings of offsets and bounds may take, for each unit.
constexpr double kSlack = 1.0 / (1 << 20);

__device__ __forceinline__ BFloat bfloat_of(float a) { return rounded(a, BFloat{}); }

// A warp for each row. kCoded: of codes.
template <bool kCoded>
__global__ void __launch_bounds__(kRowThreads, 1) encode_rows(const __grid_constant__ IndexRows index) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kRowWarps;
  const bool unit = index.metric == Metric::kCosine && !kCoded;
  float roughest = 0.0f;
  for (int64_t slot = static_cast<int64_t>(blockIdx.x) * kRowWarps + threadIdx.x / kWarpSize;
       slot < index.rows; slot += warps) {
    const std::conditional_t<kCoded, Row<CodeByte>, AnyRow> row(index, slot);
    const float scale = unit ? index.inverse_norms[slot] : 1.0f;
    double square = 0.0, lost = 0.0;
    for (int k = lane; k < index.padded; k += kWarpSize) {
      float centred = k < index.columns ? row[k] : 0.0f;
      if (!kCoded && k < index.columns) centred = centred * scale - index.mean[k];
      const BFloat code = bfloat_of(centred);
      const double rest = static_cast<double>(centred) - static_cast<double>(to_float(code));
      index.codes[slot * index.padded + k] = code;
      square += static_cast<double>(centred) * static_cast<double>(centred);
      lost += rest * rest;
    }
    square = warp_sum(square), lost = warp_sum(lost);
    if (square > 0.0) roughest = fmaxf(roughest, static_cast<float>(sqrt(lost / square) * (1.0 + kSlack)));
    if (lane != 0) continue;
    const bool has_offset = index.metric == Metric::kL2;
    if (!kCoded)
      index.offsets[slot] = has_offset ? static_cast<float>(-0.5 * square * (1.0 - kSlack)) : 0.0f;
    index.norms[slot] = static_cast<float>(sqrt(square) * (1.0 + kSlack));
  }
  // Numbers that are not negative have the order of their bits.
  if (lane == 0) atomicMax(reinterpret_cast<unsigned*>(index.roughness), __float_as_uint(roughest));
}

}  // namespace ec::cuda::ann
