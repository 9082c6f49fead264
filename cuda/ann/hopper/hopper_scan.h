// SPDX-License-Identifier: Apache-2.0
// The scan by Hopper's own instructions; see scan_tiles.cuh.
#pragma once

#include <cstdint>

#include "common/platform.h"

namespace ec::cuda::ann {

struct IndexRows;
struct ScanProblem;

// Whether a device of this compute capability runs it.
bool runs_hopper_scan(int major, int minor);
// Whether an index is within what is counted in 32 bits.
bool fits_hopper_scan(const IndexRows& index);
// How many rows a tile has, and a small one, which lists have where blocks get no more than two of these.
int hopper_scan_rows();
int hopper_scan_few_rows();
// Starts one kernel, behind another of the call. by_bits: see ScanProblem. Requires: an index that fits,
// and queries.
void run_hopper_scan(const ScanProblem& scan, int64_t tiles, bool by_bits, Stream stream);

}  // namespace ec::cuda::ann
