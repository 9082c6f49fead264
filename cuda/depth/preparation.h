// SPDX-License-Identifier: Apache-2.0
// One pass over rows that are to be taken by their directions: unit rows in bf16 for the tensor cores, and
// sums of unit rows (preparation.cuh).
#pragma once

#include "depth/hopper/panels.cuh"
#include "depth/segments.cuh"
#include "depth/unit_rows.cuh"

namespace ec::cuda {

constexpr int kPreparationWarps = 4;

// What is kept of unit rows. Rows without a direction are zeros.
struct Packing {
  Scaling* scalings = nullptr;  // [position]; null: not kept
  // [position][padded], where split [2 padded]: rounded to bf16, then the rest of that; null: not kept.
  BFloat* rows = nullptr;
  int padded = 0;  // a multiple of 8
  bool split = false;
  Panels panels[2] = {};  // the same as Hopper's products read it; without numbers: not kept

  bool keeps() const { return rows != nullptr || panels[0].tiles + panels[1].tiles > 0; }
  // With those of zeros that fill up panels.
  __host__ __device__ int64_t rows_of(int64_t count) const {
    return max(count, max(panels[0].rows(), panels[1].rows()));
  }
};

struct PreparedSide {
  AnyRows rows;  // not float64
  Groups groups;
  Segments segments;     // of packing.rows_of(rows.count) positions: the shares of blocks
  const float* weights;  // null: 1 each
  double* partial;       // [segment][column]: sums of weight * unit row; null: not wanted
  Packing packing;
};

struct Preparation {
  PreparedSide sides[2];
  int count;  // of sides
  // Memory for the sums of pairs, which begin at 0, and what they are multiplied by (hopper_pairs.h).
  unsigned long long* zeros = nullptr;
  int64_t zero_count = 0;
  const double* total = nullptr;
  double* scale = nullptr;
};

// Starts one kernel, of sides that differ in their kind or in their alignment one each.
void run_preparation(const Preparation& preparation, Stream stream);

}  // namespace ec::cuda
