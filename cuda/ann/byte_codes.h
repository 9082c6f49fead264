// SPDX-License-Identifier: Apache-2.0
// Rows as codes of bytes, those that the CPU has of an index (csrc/ann/codes.h).
#pragma once

#include "ann/index.h"
#include "common/platform.h"

namespace ec::cuda::ann {

constexpr int kAxisStep = 16;  // what the numbers of an axis are padded to a multiple of

struct ByteCodes {
  const float* axes;  // [dims][columns of the rows, padded]: zeros at the end
  int dims;           // numbers of a code
  int head_bytes, tail_bytes;
  uint8_t *heads, *tails;  // [rows][head_bytes], [rows][tail_bytes]
  float* squares;          // [rows]: |x - mean|^2
  // Of scratch memory, unless a tile's rows take more: rows are taken as many at a time as fit.
  int64_t scratch_numbers = int64_t{1} << 26;

  __host__ __device__ int head_room() const { return head_bytes - 16; }  // the rest are four factors
  __host__ __device__ int head_numbers() const { return dims < head_room() ? dims : head_room(); }
};

size_t byte_codes_workspace(const IndexRows& rows, const ByteCodes& codes);
// Of rows there are metric, kind, rows, stride, columns, vectors and mean.
bool run_byte_codes(const IndexRows& rows, const ByteCodes& codes, int multiprocessors, void* workspace,
                    Stream stream);

}  // namespace ec::cuda::ann
