// SPDX-License-Identifier: Apache-2.0
// Cells of a build: k-means over the heads of codes, as the CPU has it (csrc/ann/build/k_means.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/platform.h"

namespace ec::cuda::ann {

constexpr int kMostHeadBytes = 512;

// Codes of rows as byte_codes.h makes them.
struct HeadRows {
  const uint8_t* heads;  // [rows][head_bytes]
  int head_bytes;
  const float* squares;  // [rows]: |x - mean|^2
};

struct Grouping {
  const uint32_t* drawn;  // [cells]: rows that are centroids at first
  int64_t cells;
  const uint32_t* sample;  // [sampled]: rows by which centroids move, ascending
  int64_t sampled;
  int moves;              // how often they do
  const uint32_t* slots;  // [count]: rows that are grouped in the end
  int64_t count;
  uint32_t* cell_of;  // [count]: the nearest centroid of each, the first of equals
};

size_t grouping_workspace(const HeadRows& rows, const Grouping& grouping);
// False: a grid would be too large.
bool run_grouping(const HeadRows& rows, const Grouping& grouping, void* workspace, Stream stream);
// heads[cells][head_bytes]: means of the rows of each number in cell_of[count], as codes with an offset of
// -|mean|^2 / 2. Zeros for cells without rows.
bool run_cell_means(const HeadRows& rows, const uint32_t* cell_of, int64_t count, int64_t cells,
                    uint8_t* heads, Stream stream);

}  // namespace ec::cuda::ann
